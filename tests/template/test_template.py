"""The template package's own promises: API, places of faults, bounds."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.errors import QueryError, TemplateError
from exporter.template import (
    Template,
    TemplateContext,
    asks_value,
    expand_annotation,
    prints_value,
    referenced_labels,
)
from tests.helpers.peers import shared

CONTEXT = TemplateContext(
    {"job": "api", "alertname": "A"}, 0.25, {"region": "eu"}, "http://x/prom", now_ms=5500
)


def expand(text: str, context: TemplateContext = CONTEXT) -> str:
    return Template.parse(text, "t").expand(context)


def test_text_without_actions_is_itself() -> None:
    """A text without {{ is not even parsed."""
    assert expand("50 % of }} $labels") == "50 % of }} $labels"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{{ now }}", "5.5"),
        ("{{ now | toTime }}", "1970-01-01 00:00:05.5 +0000 UTC"),
        ("{{ toDuration 90.5 }} {{ (toDuration 5400).Hours }}", "1m30.5s 1.5"),
        ("{{ toDuration 0.0000015 }} {{ toDuration -1 | humanizeDuration }}", "1.5µs -1s"),
        ('{{ urlQueryEscape "a b&c" }}', "a+b%26c"),
        ("{{ externalURL }} {{ pathPrefix }}", "http://x/prom /prom"),
        ("{{ with $labels.none }}a{{ else with $labels.job }}{{ . }}{{ end }}", "api"),
    ],
)
def test_functions_of_later_versions(text: str, wanted: str) -> None:
    """What Prometheus 3 added works too."""
    assert expand(text) == wanted


def test_parse_error_tells_where() -> None:
    """Line and column count in the user's text, not in the text with Prometheus' header."""
    with pytest.raises(
        TemplateError, match='error parsing template n: template: n:2: function "x" not'
    ) as caught:
        Template.parse("a\n {{ x }}", "n")
    assert (caught.value.line, caught.value.column) == (2, 5)
    assert caught.value.detail == 'template: n:2: function "x" not defined'


def test_execution_error_tells_where() -> None:
    """A fault while running names its place in the user's text."""
    with pytest.raises(TemplateError, match=r"at <\.Foo>: can't evaluate field Foo") as caught:
        expand("ab {{ .Foo }}")
    assert (caught.value.line, caught.value.column) == (1, 7)


def test_fault_becomes_text() -> None:
    """A fault never stops an alert: it shows in the annotation, and is handed back for the rule's health."""
    text, error = expand_annotation("{{ .Foo }}", CONTEXT, "n")
    assert text.startswith(
        "<error expanding template: error executing template n: template: n:1:115: executing"
    )
    assert error is not None
    text, error = expand_annotation("{{ .Foo", CONTEXT, "n")
    assert text == "<error expanding template: error parsing template n: template: n:1: unclosed action>"
    assert error is not None


def test_query_error_is_the_templates_error() -> None:
    """A query that fails fails the template with the query's words."""

    def fail(_: str) -> list[tuple[dict[str, str], float]]:
        raise QueryError("query timed out")

    with pytest.raises(TemplateError, match="error calling query: query timed out"):
        expand('{{ query "x" }}', TemplateContext(query=fail))


def test_template_may_be_expanded_again() -> None:
    """A parsed template keeps nothing of an expansion."""
    template = Template.parse("{{ $x := $value }}{{ $x }}", "t")
    assert [template.expand(TemplateContext(value=value)) for value in (1.0, 2.0)] == ["1", "2"]


@pytest.mark.parametrize(
    "text",
    [
        '{{ define "a" }}{{ template "a" . }}{{ end }}{{ template "a" . }}',
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{{ if true }}" * 5000,
        "{{ if true }}a{{ else if true }}" * 5000,
        "".join(
            f'{{{{ define "t{n}" }}}}{{{{ template "t{n + 1}" }}}}{{{{ template "t{n + 1}" }}}}{{{{ end }}}}'
            for n in range(30)
        )
        + '{{ define "t30" }}x{{ end }}{{ template "t0" }}',
    ],
    ids=["recursion", "parentheses", "open branches", "else if", "doubling"],
)
def test_no_template_runs_away(text: str) -> None:
    """Endless or explosive templates end in an error."""
    assert expand_annotation(text, CONTEXT)[1] is not None


def test_hundred_else_ifs_are_fine() -> None:
    """A long chain of `else if` is no deep nesting."""
    chain = '{{ if eq $labels.job "x" }}x' + "".join(
        f'{{{{ else if eq $labels.job "n{n}" }}}}{n}' for n in range(99)
    )
    assert expand(chain + "{{ else }}end{{ end }}") == "end"


@pytest.mark.parametrize(
    ("text", "labels", "value"),
    [
        ("{{ $labels.a }} {{ .Labels.b }} {{ $.Labels.c }}", {"a", "b", "c"}, False),
        ('{{ index $labels "a" }} {{ index .Labels "b" | toUpper }}', {"a", "b"}, False),
        ("{{ with $labels }}{{ .a }}{{ end }}{{ ($labels).b }}", {"a", "b"}, False),
        ('{{ range query "x" }}{{ .Labels.no }}{{ $labels.a }}{{ .Value }}{{ end }}', {"a"}, False),
        ('{{ with query "x" }}{{ . | first | value }}{{ end }}', set(), False),
        ("{{ $value | humanize }}", set(), True),
        ("{{ if gt .Value 1.0 }}{{ $labels.a }}{{ else if $labels.b }}x{{ end }}", {"a", "b"}, False),
        ('{{ printf "%s" (toUpper $labels.a) }}', {"a"}, False),
        ('{{ define "t" }}{{ .Labels.a }}{{ .Value }}{{ end }}{{ template "t" . }}', {"a"}, True),
        ('{{ define "t" }}{{ .a }}{{ end }}{{ template "t" $labels }}', {"a"}, False),
        ('{{ define "t" }}{{ .a }}{{ end }}{{ template "t" 5 }}', set(), False),
        ("{{ $x := $labels.a }}{{ $x }}", {"a"}, False),
        ("plain", set(), False),
        ("{{ broken", set(), False),
    ],
)
def test_references(text: str, labels: set[str], value: bool) -> None:
    """The linter is told the alert's labels and value, and nothing of a query's samples."""
    assert referenced_labels(text) == labels
    assert prints_value(text) is value


@pytest.mark.parametrize(
    ("text", "asks", "prints"),
    [
        ("{{ if gt $value 1.0 }}a{{ else if lt .Value 0.5 }}b{{ end }}", True, False),
        ("{{ if gt $value 1.0 }}{{ $value }}{{ end }}", True, True),
        ("{{ with $value }}{{ . }}{{ end }}", False, True),
        ("{{ if $labels.a }}{{ .Value | humanize }}{{ end }}", False, True),
        ('{{ if eq $labels.a "x" }}a{{ end }}', False, False),
    ],
)
def test_a_value_that_decides_is_not_one_that_shows(text: str, asks: bool, prints: bool) -> None:
    """A condition on the value chooses among texts; anything else may print it."""
    assert (asks_value(text), prints_value(text)) == (asks, prints)


def test_community_templates_parse() -> None:
    """Every annotation and label of the community's rule files parses and expands without a parse error."""
    count = 0
    for path in sorted(shared("data/rules-community").rglob("*.y*ml")):
        for group in (yaml.load(path.read_text(), yaml.CSafeLoader) or {}).get("groups") or ():
            for rule in group["rules"]:
                for text in [*rule.get("annotations", {}).values(), *rule.get("labels", {}).values()]:
                    Template.parse(str(text), "t")
                    count += 1
    assert count > 2000


_WORDS = (
    '{{ }} {{- -}} ( ) | . $ $x := = , "a" `b` 1.5 -3 1e9 0x nil true if else end range with define '
    'template block break continue $labels .Labels .Value $value printf "%v" "%d%[2]*.3x" index slice '
    'len eq lt and or not query "q" first value label sortByLabel humanize toTime reReplaceAll "(" match '
    "args print .a.b \n é /* */ 'c'"
)
PIECES = st.sampled_from(_WORDS.split(" "))


@settings(max_examples=300)
@given(st.lists(PIECES, max_size=25), st.booleans())
def test_nothing_but_template_errors(pieces: list[str], wrap: bool) -> None:
    """Whatever the text, the outcome is a text or a TemplateError."""
    text = " ".join(pieces)
    context = TemplateContext({"a": "b"}, 1.5, query=lambda _: [({"x": "y"}, 2.0)])
    expand_annotation("{{ " + text + " }}" if wrap else text, context, "t")


@settings(max_examples=300)
@given(
    st.text("%+-# 0123456789.*[]vTtbcdoOqxXUeEfFgGspw!", max_size=12), st.floats() | st.integers() | st.text()
)
def test_printf_takes_any_layout(layout: str, value: object) -> None:
    """printf shows faults in its text and raises nothing."""
    from exporter.template.printf import sprintf

    assert isinstance(sprintf(layout, [value, 1]), str)
