"""Template expansion for one evaluation: faults end up in the text and in a list, never as an exception."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field

from exporter.errors import ExporterError
from exporter.template import Template, TemplateContext

TemplateQuery = Callable[[str], list[tuple[dict[str, str], float]]]


@dataclass(frozen=True, slots=True)
class TemplateSettings:
    """What templates see of the installation: external labels and the address under which it is reached."""

    external_labels: Mapping[str, str] = field(default_factory=dict)
    external_url: str = ""


class Expander:
    """Expands the labels and annotations of one evaluation; `faults` holds what went wrong, in order.

    `rule_name` stands in messages. `cache` keeps parsed templates between evaluations.
    """

    def __init__(
        self,
        rule_name: str,
        settings: TemplateSettings,
        query: TemplateQuery,
        now_ms: int,
        cache: MutableMapping[tuple[str, str], Template],
    ) -> None:
        self._template_name = f"__alert_{rule_name}"
        self._settings = settings
        self._query = query
        self._now_ms = now_ms
        self._cache = cache
        self.faults: list[str] = []

    def __call__(self, name: str, text: str, labels: Mapping[str, str], value: float) -> str:
        """The text with its actions replaced; a fault reads `<error expanding template: ...>`."""
        if "{{" not in text:
            return text
        try:
            key = (self._template_name, text)
            template = self._cache.get(key)
            if template is None:
                template = self._cache[key] = Template.parse(text, self._template_name)
            return template.expand(
                TemplateContext(
                    labels=labels,
                    value=value,
                    external_labels=self._settings.external_labels,
                    external_url=self._settings.external_url,
                    query=self._query,
                    now_ms=self._now_ms,
                )
            )
        except ExporterError as error:
            self.faults.append(f"{name}: {error}")
            return f"<error expanding template: {error}>"
