"""The functions that Prometheus adds to Go's templates.

Source: Prometheus' template reference. `title` follows Prometheus 2.42 (a word starts after anything but a
letter, digit or underscore).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from exporter.errors import ExporterError
from exporter.model.durations import parse_duration
from exporter.template import humanize, patterns
from exporter.template.builtins import BUILTINS, any_map, query_escape
from exporter.template.gotime import Duration
from exporter.template.signature import ANY, RESULT, SAMPLE, STRING, CallError, Function, Surroundings
from exporter.template.values import Html, NilPointer, QueryResult, Sample, StringMap

_NIL_DEREFERENCE: Final = "runtime error: invalid memory address or nil pointer dereference"


def _query(around: Surroundings, values: Sequence[object]) -> QueryResult:
    try:
        rows = around.query(str(values[0]))
    except ExporterError as error:
        raise CallError(str(error)) from error
    return QueryResult(Sample(StringMap(labels), float(value)) for labels, value in rows)


def _samples(value: object) -> QueryResult:
    return value if isinstance(value, QueryResult) else QueryResult()


def _sample(value: object) -> Sample:
    if not isinstance(value, Sample):
        raise CallError(_NIL_DEREFERENCE)
    return value


def _first(_: Surroundings, values: Sequence[object]) -> Sample:
    samples = _samples(values[0])
    if not samples:
        raise CallError("first() called on vector with no elements")
    return samples[0]


def _sort_by_label(_: Surroundings, values: Sequence[object]) -> object:
    if isinstance(values[1], NilPointer):
        return values[1]
    label, samples = str(values[0]), _samples(values[1])
    samples.sort(key=lambda sample: sample.labels.get(label, "").encode())
    return samples


def _title(text: str) -> str:
    out, inside = [], False
    for char in text:
        out.append(char if inside else _mapped(char, char.title()))
        inside = char == "_" or char.isalnum() or (char > "\x7f" and not char.isspace())
    return "".join(out)


def _mapped(char: str, wanted: str) -> str:
    """Go maps rune by rune: a letter whose other case has several stays."""
    return wanted if len(wanted) == 1 else char


def _upper(text: str) -> str:
    return "".join(_mapped(char, char.upper() if len(char.upper()) == 1 else char.title()) for char in text)


def _lower(text: str) -> str:
    return "".join(char.lower()[:1] for char in text)


def split_host_port(text: str) -> tuple[str, str] | None:
    """Host and port of `host:port` or `[v6]:port`; None where there is no port.

    Source: Go's net.SplitHostPort.
    """
    colon = text.rfind(":")
    if colon < 0:
        return None
    if text.startswith("["):
        end = text.find("]")
        if end < 0 or end + 1 != colon:
            return None
        host, scanned = text[1:end], text[1:end] + text[end + 1 :]
    else:
        host = scanned = text[:colon]
        if ":" in host:
            return None
    if "[" in scanned or "]" in scanned:
        return None
    return host, text[colon + 1 :]


def _strip_port(text: str) -> str:
    split = split_host_port(text)
    return text if split is None else split[0]


def _strip_domain(text: str) -> str:
    host, port = split_host_port(text) or (text, "")
    if _is_ip(host):
        return text
    host = host.split(".")[0]
    if not port:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def _parse_duration(text: str) -> float:
    try:
        return parse_duration(text) / 1000
    except ValueError as error:
        raise CallError(str(error)) from error


def _to_duration(value: object) -> Duration:
    seconds = humanize.to_float(value)
    try:
        nanos = int(seconds * 1e9)
    except (ValueError, OverflowError):
        nanos = -(2**63)
    return Duration(nanos if -(2**63) <= nanos < 2**63 else -(2**63))


def _path_prefix(around: Surroundings, _: Sequence[object]) -> str:
    return urlsplit(around.external_url).path


def _graph_link(expr: str) -> str:
    return f"/graph?g0.expr={query_escape(expr)}&g0.tab=0"


def _table_link(expr: str) -> str:
    return f"/graph?g0.expr={query_escape(expr)}&g0.tab=1"


FUNCTIONS: Final[Mapping[str, Function]] = MappingProxyType(
    {
        **BUILTINS,
        "query": Function(_query, (STRING,)),
        "first": Function(_first, (RESULT,)),
        "label": Function(lambda _, v: _sample(v[1]).labels.get(str(v[0]), ""), (STRING, SAMPLE)),
        "value": Function(lambda _, v: _sample(v[0]).value, (SAMPLE,)),
        "strvalue": Function(lambda _, v: _sample(v[0]).labels.get("__value__", ""), (SAMPLE,)),
        "sortByLabel": Function(_sort_by_label, (STRING, RESULT)),
        "args": Function(lambda _, v: any_map(v), (), ANY),
        "humanize": Function(lambda _, v: humanize.humanize(v[0]), (ANY,)),
        "humanize1024": Function(lambda _, v: humanize.humanize1024(v[0]), (ANY,)),
        "humanizeDuration": Function(lambda _, v: humanize.humanize_duration(v[0]), (ANY,)),
        "humanizePercentage": Function(lambda _, v: humanize.humanize_percentage(v[0]), (ANY,)),
        "humanizeTimestamp": Function(lambda _, v: humanize.humanize_timestamp(v[0]), (ANY,)),
        "toTime": Function(lambda _, v: humanize.to_time(humanize.to_float(v[0])), (ANY,)),
        "toDuration": Function(lambda _, v: _to_duration(v[0]), (ANY,)),
        "now": Function(lambda around, _: around.now_ms / 1000),
        "parseDuration": Function(lambda _, v: _parse_duration(str(v[0])), (STRING,)),
        "title": Function(lambda _, v: _title(str(v[0])), (STRING,)),
        "toUpper": Function(lambda _, v: _upper(str(v[0])), (STRING,)),
        "toLower": Function(lambda _, v: _lower(str(v[0])), (STRING,)),
        "match": Function(lambda _, v: patterns.matches(str(v[0]), str(v[1])), (STRING, STRING)),
        "reReplaceAll": Function(
            lambda _, v: patterns.replace_all(str(v[0]), str(v[1]), str(v[2])), (STRING, STRING, STRING)
        ),
        "safeHtml": Function(lambda _, v: Html(str(v[0])), (STRING,)),
        "urlQueryEscape": Function(lambda _, v: query_escape(str(v[0])), (STRING,)),
        "stripPort": Function(lambda _, v: _strip_port(str(v[0])), (STRING,)),
        "stripDomain": Function(lambda _, v: _strip_domain(str(v[0])), (STRING,)),
        "graphLink": Function(lambda _, v: _graph_link(str(v[0])), (STRING,)),
        "tableLink": Function(lambda _, v: _table_link(str(v[0])), (STRING,)),
        "externalURL": Function(lambda around, _: around.external_url),
        "pathPrefix": Function(_path_prefix),
    }
)
