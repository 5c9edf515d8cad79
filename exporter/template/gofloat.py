"""Numbers as Go's strconv and fmt write them."""

from __future__ import annotations

import math
import re

from exporter.template.quoting import quote

_HEX = re.compile(r"(-?)0x([01])(?:\.([0-9a-f]+))?p([+-]\d+)")
_FLOAT = re.compile(
    r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
    r"|0[xX](?:[0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)[pP][+-]?\d+)",
    re.ASCII,
)
_SPECIAL = re.compile(r"[+-]?(?:inf|infinity)|nan", re.IGNORECASE)


def special(value: float) -> str | None:
    """`NaN`, `+Inf` or `-Inf`; None for a finite number."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return None


def shortest(value: float, threshold: int) -> str:
    """The shortest decimal text that reads back as the same float64.

    Scientific form is used where the decimal exponent is under -4 or at least `threshold`.
    """
    found = special(value)
    if found is not None:
        return found
    sign = "-" if math.copysign(1.0, value) < 0 else ""
    if value == 0:
        return sign + "0"
    mantissa, _, exponent_text = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    if fraction == "0":
        fraction = ""
    digits = whole + fraction
    point = len(whole) + (int(exponent_text) if exponent_text else 0)
    stripped = digits.lstrip("0")
    point -= len(digits) - len(stripped)
    digits = stripped.rstrip("0")
    exponent = point - 1
    if exponent < -4 or exponent >= threshold:
        tail = "." + digits[1:] if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{tail}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    if point >= len(digits):
        return sign + digits + "0" * (point - len(digits))
    return f"{sign}{digits[:point]}.{digits[point:]}"


def general(value: float) -> str:
    """What %v and %g print: shortest digits, scientific from 1e6 on and under 1e-4 (as 1e+06)."""
    return shortest(value, 6)


def hexadecimal(value: float, precision: int | None, *, upper: bool = False) -> str:
    """What %x prints: `0x1.8p+01`, the mantissa rounded half to even to `precision` hex digits."""
    found = special(value)
    if found is not None:
        return found
    sign = "-" if math.copysign(1.0, value) < 0 else ""
    mantissa, exponent = math.frexp(abs(value))
    lead, digits = 0, ""
    if value != 0:
        bits = int(mantissa * 2**53)  # 53 bits: one before the point, 13 hex digits after it
        exponent -= 1
        if precision is not None and precision < 13:
            drop = 4 * (13 - precision)
            half, rest = 1 << (drop - 1), bits & ((1 << drop) - 1)
            bits >>= drop
            if rest > half or (rest == half and bits & 1):
                bits += 1
            if bits >> (4 * precision) > 1:
                bits >>= 1
                exponent += 1
            bits <<= drop
        lead, digits = bits >> 52, f"{bits & (2**52 - 1):013x}"
    else:
        exponent = 0
    if precision is None:
        digits = digits.rstrip("0")
    else:
        digits = digits[:precision].ljust(precision, "0")
    tail = "." + digits if digits else ""
    text = f"{sign}0x{lead}{tail}p{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
    return text.upper() if upper else text


def parse_float(text: str) -> float:
    """A float64 as Go's strconv.ParseFloat reads it.

    Raises: ValueError with strconv's words.
    """
    if _SPECIAL.fullmatch(text):
        return float(text)
    if not _FLOAT.fullmatch(text):
        raise ValueError(f"strconv.ParseFloat: parsing {quote(text)}: invalid syntax")
    try:
        value = float.fromhex(text) if "x" in text.lower() else float(text)
    except OverflowError:
        value = math.inf
    if math.isinf(value):
        raise ValueError(f"strconv.ParseFloat: parsing {quote(text)}: value out of range")
    return value
