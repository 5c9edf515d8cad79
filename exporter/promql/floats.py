"""Floats as Go prints them: Prometheus' API, `count_values` and the error texts need just these forms."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import numpy as np
import numpy.typing as npt

_SMALL: Final = np.array([str(number) for number in range(4096)], np.object_)  # gauges often are small
_SMALL.flags.writeable = False
_FEW: Final = 8  # values that are told one by one: arrays take longer
_EXACT: Final = 2.0**53  # whole numbers below are exact, and print without an exponent


def api_float(value: float) -> str:
    """The shortest digits that read back the same; exponent below 1e-6 and from 1e21 on (the HTTP API)."""
    text = repr(value)
    if text.endswith(".0"):
        return text[:-2]
    if "e" not in text:
        return text if "n" not in text else _special(value)
    size = abs(value)
    return text if size < 1e-6 or size >= 1e21 else plain_float(value)


def api_floats(values: npt.NDArray[np.float64]) -> list[str]:
    """`api_float` of each value of a flat array."""
    if len(values) <= _FEW:
        return list(map(api_float, values.tolist()))
    with np.errstate(invalid="ignore"):
        whole = bool(((values == np.rint(values)) & (np.abs(values) < _EXACT)).all())
    if whole and not bool(np.signbit(values[values == 0]).any()):
        if float(values.min()) >= 0 and float(values.max()) < len(_SMALL):
            small: list[str] = _SMALL[values.astype(np.intp)].tolist()
            return small
        return list(map(str, values.astype(np.int64).tolist()))
    # One text for all: what most need, a trailing ".0" cut, is then one replacement.
    joined = ",".join(map(repr, values.tolist())) + ","
    texts = joined.replace(".0,", ",").split(",")
    texts.pop()
    if "e" in joined or "n" in joined:
        return [api_float(float(text)) if "e" in text or "n" in text else text for text in texts]
    return texts


def plain_float(value: float) -> str:
    """The shortest digits that read back the same, never an exponent (Go's 'f', -1)."""
    if value != value or value in (float("inf"), float("-inf")):
        return _special(value)
    text = format(Decimal(repr(value)), "f")
    return text[:-2] if text.endswith(".0") else text


def general_float(value: float) -> str:
    """Go's %g and %v: exponent below 1e-4 and from 1e21 on."""
    if value != value or value in (float("inf"), float("-inf")):
        return _special(value)
    size = abs(value)
    if size and (size < 1e-4 or size >= 1e21):
        text = repr(value)
        if "e" in text:
            return text.replace(".0e", "e")
    return plain_float(value)


def _special(value: float) -> str:
    if value != value:
        return "NaN"
    return "+Inf" if value > 0 else "-Inf"


def api_seconds(ts_ms: int) -> str:
    """A time in seconds with three decimals where there are milliseconds."""
    sign, rest = ("-", -ts_ms) if ts_ms < 0 else ("", ts_ms)
    seconds, ms = divmod(rest, 1000)
    return f"{sign}{seconds}.{ms:03d}" if ms else f"{sign}{seconds}"
