"""JSON as Go's encoder writes it. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from exporter.model.labels import LabelSet

ZERO_TIME = "0001-01-01T00:00:00Z"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def go_json_number(value: float) -> str:
    """A finite float64 as Go's encoding/json writes it: shortest, exponent under 1e-6 and from 1e21 on."""
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    text = repr(float(value))
    size = abs(value)
    if 1e-6 <= size < 1e21:
        if "e" in text:
            text = format(Decimal(text), "f")
        return text[:-2] if text.endswith(".0") else text
    mantissa, exponent = _scientific(value)
    return f"{mantissa}e{'-' if exponent < 0 else '+'}{abs(exponent)}"


def go_exponent(value: float) -> str:
    """strconv.FormatFloat(value, 'e', -1, 64): how the API writes an alert's value."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    mantissa, exponent = _scientific(value)
    return f"{mantissa}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"


def _scientific(value: float) -> tuple[str, int]:
    """Mantissa and exponent with the fewest digits that identify a finite float (those of its repr)."""
    mantissa, _, exponent = f"{Decimal(repr(value)):e}".partition("e")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return mantissa, 0 if value == 0 else int(exponent)


def rfc3339(ts_ms: int) -> str:
    """A time as Go marshals it in UTC, without trailing zeros; 0 (never) is Go's zero time."""
    if ts_ms == 0:
        return ZERO_TIME
    moment = _EPOCH + timedelta(milliseconds=ts_ms)
    fraction = f".{ts_ms % 1000:03d}".rstrip("0").rstrip(".")
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + fraction + "Z"


def dump(document: Any) -> bytes:
    """JSON bytes as Go's encoder writes them: no blanks, <, > and & escaped, floats shortest.

    Takes dicts, label sets, lists, tuples, strings, numbers, booleans and None; `RawJson` is put in as is.
    """
    out: list[bytes] = []
    _write(document, out.append)
    return b"".join(out)


@dataclass(frozen=True, slots=True)
class RawJson:
    """JSON that is encoded already, such as a query result."""

    data: bytes


def _write(value: Any, put: Callable[[bytes], None]) -> None:
    if isinstance(value, str):
        put(_string(value))
    elif value is None or isinstance(value, bool):
        put(b"null" if value is None else b"true" if value else b"false")
    elif isinstance(value, int):
        put(str(int(value)).encode())
    elif isinstance(value, float):
        put(go_json_number(value).encode())
    elif isinstance(value, RawJson):
        put(value.data)
    elif isinstance(value, (Mapping, LabelSet)):
        put(b"{")
        items = value.pairs if isinstance(value, LabelSet) else value.items()
        for index, (key, item) in enumerate(items):
            put(b"," if index else b"")
            put(_string(key) + b":")
            _write(item, put)
        put(b"}")
    else:
        put(b"[")
        for index, item in enumerate(value):
            put(b"," if index else b"")
            _write(item, put)
        put(b"]")


def _string(text: str) -> bytes:
    encoded = json.dumps(text, ensure_ascii=False)
    if not encoded.isalnum():
        for char, escape in _ESCAPES.items():
            if char in encoded:
                encoded = encoded.replace(char, escape)
    return encoded.encode("utf-8", "replace")
