"""The exposition formats as text: names, labels, values and the lines of one family. Pure.

Source: Prometheus' exposition formats page; OpenMetrics 1.0; Prometheus' escaping schemes page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from exporter.model.samples import Float64s
from exporter.observe.families import Layout, Pairs
from exporter.web.negotiate import Escaping, Format, Offer

_METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*", re.ASCII)
_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)
_OPENMETRICS_ONLY = ("_created", "_gsum", "_gcount")


def quoted(text: str) -> str:
    """A label value in quotes, with backslash, newline and quote escaped."""
    if "\\" in text or "\n" in text or '"' in text:
        text = text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return f'"{text}"'


def escape_name(name: str, escaping: Escaping, *, label: bool = False) -> str:
    """A metric or label name in the classic character set; UTF-8 names stay, unquoted, where allowed."""
    pattern = _LABEL_NAME if label else _METRIC_NAME
    classic = pattern.fullmatch(name) is not None
    if escaping is Escaping.ALLOW_UTF8 or (classic and escaping is not Escaping.DOTS):
        return name
    if escaping is Escaping.UNDERSCORES:
        return "".join(char if _allowed(char, at, label) else "_" for at, char in enumerate(name))
    if escaping is Escaping.DOTS:
        return "".join(_dotted(char, at, label) for at, char in enumerate(name))
    return "U__" + "".join(_as_value(char, at, label) for at, char in enumerate(name))


def _allowed(char: str, at: int, label: bool) -> bool:
    if char == ":":
        return not label
    return char.isascii() and (char.isalpha() or char == "_" or (char.isdigit() and at > 0))


def _dotted(char: str, at: int, label: bool) -> str:
    if char == "_":
        return "__"
    if char == ".":
        return "_dot_"
    return char if _allowed(char, at, label) else "__"


def _as_value(char: str, at: int, label: bool) -> str:
    if char == "_":
        return "__"
    return char if _allowed(char, at, label) else f"_{ord(char):x}_"


def line_prefix(name: str, pairs: Pairs, offer: Offer) -> str:
    """A sample line up to and with the blank before its value."""
    escaping = offer.escaping
    shown, inside = _metric_text(name, escaping)
    if not pairs and not inside:
        return f"{shown} "
    parts = [_label_text(label, escaping) + quoted(value) for label, value in pairs]
    if inside:
        parts.insert(0, inside)
    return f"{shown}{{{','.join(parts)}}} "


@lru_cache(maxsize=4096)
def _metric_text(name: str, escaping: Escaping) -> tuple[str, str]:
    """What stands before the braces, and what first inside them: {"my.metric", label="value"}."""
    if escaping is Escaping.ALLOW_UTF8 and _METRIC_NAME.fullmatch(name) is None:
        return "", quoted(name)
    return escape_name(name, escaping), ""


@lru_cache(maxsize=4096)
def _label_text(label: str, escaping: Escaping) -> str:
    """A label name as it is written, with the equals sign."""
    if escaping is Escaping.ALLOW_UTF8 and _LABEL_NAME.fullmatch(label) is None:
        return f"{quoted(label)}="
    return f"{escape_name(label, escaping, label=True)}="


def value_texts(values: Float64s) -> list[str]:
    """The text of each value: the shortest that reads back to the same bits; NaN, +Inf, -Inf."""
    texts = list(map(repr, values.tolist()))
    if not np.isfinite(values).all():
        for at in np.flatnonzero(~np.isfinite(values)).tolist():
            value = values[at]
            texts[at] = "NaN" if value != value else "+Inf" if value > 0 else "-Inf"
    return texts


def family_head(layout: Layout, offer: Offer) -> str:
    """The HELP, TYPE and UNIT lines of a family."""
    if offer.format is Format.OPENMETRICS:
        name = _shown_name(layout.name, offer)
        text = f"# HELP {name} {quoted(layout.help)[1:-1]}\n# TYPE {name} {layout.kind}\n"
        return f"{text}# UNIT {name} {layout.unit}\n" if layout.unit else text
    suffix = {"counter": "_total", "info": "_info"}.get(layout.kind, "")
    kind = {
        "info": "gauge",
        "stateset": "gauge",
        "gaugehistogram": "histogram",
        "unknown": "untyped",
    }.get(layout.kind, layout.kind)
    return _text_head(layout.name + suffix, layout.help, kind, offer)


def _text_head(name: str, help_text: str, kind: str, offer: Offer) -> str:
    shown = _shown_name(name, offer)
    escaped = help_text.replace("\\", r"\\").replace("\n", r"\n")
    return f"# HELP {shown} {escaped}\n# TYPE {shown} {kind}\n"


def _shown_name(name: str, offer: Offer) -> str:
    if offer.escaping is Escaping.ALLOW_UTF8 and _METRIC_NAME.fullmatch(name) is None:
        return quoted(name)
    return escape_name(name, offer.escaping)


def apart(layout: Layout, offer: Offer) -> dict[str, list[int]]:
    """Rows that the text formats show as gauge families of their own, by family name: _created, _gsum ..."""
    found: dict[str, list[int]] = {}
    names = {layout.name + suffix for suffix in _OPENMETRICS_ONLY}
    if offer.format is Format.OPENMETRICS or layout.kind in ("gauge", "info", "stateset", "unknown"):
        return found
    if not layout.keys or layout.keys[-1][0] not in names:  # they are the last ones of each label set
        return found
    for row, (name, _) in enumerate(layout.keys):
        if name in names:
            found.setdefault(name, []).append(row)
    return dict(sorted(found.items()))


def head_apart(name: str, layout: Layout, offer: Offer) -> str:
    """The head of one family of `apart`."""
    return _text_head(name, layout.help, "gauge", offer)


def timestamp_text(stamp: Any, offer: Offer) -> str:
    """A sample's own time with the blank before it; seconds in OpenMetrics, else milliseconds."""
    if stamp is None:
        return ""
    return f" {stamp}" if offer.format is Format.OPENMETRICS else f" {int(float(stamp) * 1000)}"


def exemplar_text(exemplar: Any) -> str:
    """An exemplar with the separator before it (OpenMetrics only)."""
    labels = ",".join(f"{name}={quoted(value)}" for name, value in sorted(exemplar.labels.items()))
    (value,) = value_texts(np.array([exemplar.value], np.float64))
    stamp = "" if exemplar.timestamp is None else f" {exemplar.timestamp}"
    return f" # {{{labels}}} {value}{stamp}"


def join_lines(prefixes: Sequence[str], texts: Sequence[str]) -> str:
    """Lines of prefix and value, one C-level join."""
    pieces = ["\n"] * (3 * len(texts))
    pieces[0::3] = prefixes
    pieces[1::3] = texts
    return "".join(pieces)


def pick(items: Sequence[str], rows: Iterable[int]) -> list[str]:
    """The items of some rows."""
    return [items[row] for row in rows]
