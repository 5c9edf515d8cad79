"""Templates as rules use them: parse once, expand for each alert instance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from exporter.errors import TemplateError
from exporter.template import nodes
from exporter.template.evaluate import ExecutionError, execute
from exporter.template.functions import FUNCTIONS
from exporter.template.parser import TemplateSyntaxError, parse
from exporter.template.quoting import quote
from exporter.template.values import AlertData, StringMap

ALERT_HEADER: Final = (
    "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}"
    "{{$externalURL := .ExternalURL}}{{$value := .Value}}"
)

Rows = Sequence[tuple[Mapping[str, str], float]]


def _no_query(_: str) -> Rows:
    return ()


@dataclass(frozen=True, slots=True)
class TemplateContext:
    """What one alert instance's templates see.

    `query` runs an instant query at the evaluation time and may raise any ExporterError, which then shows in
    the template's own error; `now_ms` is the evaluation time.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    value: float = 0.0
    external_labels: Mapping[str, str] = field(default_factory=dict)
    external_url: str = ""
    query: Callable[[str], Rows] = _no_query
    now_ms: int = 0


class Template:
    """A parsed alert template (label or annotation); expands any number of times, in any thread."""

    __slots__ = ("_offset", "_plain", "_source", "name", "text", "trees")

    name: str
    text: str
    trees: Mapping[str, nodes.Body]

    def __init__(self, text: str, name: str, trees: Mapping[str, nodes.Body], source: str) -> None:
        """Use `Template.parse`."""
        self.text = text
        self.name = name
        self.trees = trees
        self._source = source
        self._offset = len(source) - len(text)
        self._plain = "{{" not in text

    @classmethod
    def parse(cls, text: str, name: str = "") -> Template:
        """A template from its text. `name` stands in error messages; Prometheus says `__alert_` + alert name.

        $labels, $externalLabels, $externalURL and $value are defined.
        Raises: TemplateError; its `detail` is what `promtool check rules` prints.
        """
        if "{{" not in text:
            return cls(text, name, {}, text)
        source = ALERT_HEADER + text
        try:
            trees = parse(source, FUNCTIONS.keys(), name)
        except TemplateSyntaxError as fault:
            detail = f"template: {name}:{fault.line}: {fault}"
            line, column = _place(text, fault.pos - len(ALERT_HEADER))
            raise TemplateError(
                f"error parsing template {name}: {detail}", detail=detail, line=line, column=column
            ) from None
        return cls(text, name, trees, source)

    def expand(self, context: TemplateContext) -> str:
        """The text for one alert instance.

        Raises: TemplateError worded as Prometheus words it.
        """
        if self._plain:
            return self.text
        data = AlertData(
            StringMap(context.labels), StringMap(context.external_labels), context.external_url, context.value
        )
        try:
            return execute(self.trees, self.name, data, context)
        except ExecutionError as fault:
            raise self._error(fault) from fault

    def _error(self, fault: ExecutionError) -> TemplateError:
        before = self._source[: fault.node.pos]
        line = 1 + before.count("\n")
        column = len(before[before.rfind("\n") + 1 :].encode())
        place = f"{self.name}:{line}:{column}"
        detail = f"template: {place}: executing {quote(fault.template)} at <{fault.node}>: {fault}"
        own_line, own_column = _place(self.text, fault.node.pos - self._offset)
        return TemplateError(
            f"error executing template {self.name}: {detail}", detail=detail, line=own_line, column=own_column
        )


def _place(text: str, pos: int) -> tuple[int, int]:
    """Line and column, from 1, of a character offset in the user's own text."""
    before = text[: max(0, pos)]
    return 1 + before.count("\n"), len(before) - (before.rfind("\n") + 1) + 1


def expand_annotation(
    template: Template | str, context: TemplateContext, name: str = ""
) -> tuple[str, TemplateError | None]:
    """(text, None), or the text that shows the fault and the fault itself; nothing is raised.

    As Prometheus' alerting rules do, a fault becomes `<error expanding template: ...>`, so that it never
    stops an alert. A text is parsed first, under `name`.
    """
    try:
        parsed = Template.parse(template, name) if isinstance(template, str) else template
        return parsed.expand(context), None
    except TemplateError as error:
        return f"<error expanding template: {error}>", error
