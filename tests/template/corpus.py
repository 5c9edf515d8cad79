"""Templates on which Prometheus and we must agree, and the series they run on."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent / "testdata"

SERIES = {
    'm{job="api",instance="host1.example.org:9100",Path="/a b?c=d&e",quoted="\\"hi\\"",uni="é世"}': 1234.5678,
    'q{job="b",zone="z2"}': 3.0,
    'q{job="a",zone="z1"}': 1.5,
    'q{job="c",zone="z3"}': -7.25e10,
}
"""Series text to value; the alert is on `m`."""

GOOD = (_FOLDER / "expand.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
"""One template a line; the last third fails while it runs, and the error text must be the same."""

MULTILINE = [
    "line one\n  {{ $value }}\nline three {{ .Foo }}",
    "{{ if true -}}\n   trimmed\n{{- end }}",
    '{{ range query "sort(q)" -}}\n- {{ .Labels.job }}\n{{ end -}}\ntail',
    "{{\n  $labels.job\n  | toUpper\n}}",
    "a\n\n{{- /* comment\nover lines */ -}}\n\nb",
    "é世 {{ .Foo }}",
    'x\né{{ index "abc" 9 }}',
    "{{ `raw\nstring` }}",
    '{{- "a" }}\t{{ "b" -}}\r\n c',
]

BAD = (_FOLDER / "refuse.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
"""Templates that do not parse, one a line."""

BAD_MULTILINE = [
    "x\n{{ nosuch }}",
    "{{ print\n\n",
    "{{ if true }}\nabc\n",
    "{{\n\n 'a\n}}",
    "{{ (\n1",
    'a\n{{ define "x" }}\n{{ nosuch }}\n{{ end }}',
    "{{ print\n@ }}",
]
