"""Go's fmt: a value as each verb prints it; print and println.

Source: Go's fmt documentation, and the running program where it says less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from exporter.template import gofloat
from exporter.template.gotime import Duration, Month, Time, Weekday
from exporter.template.quoting import can_backquote, is_print, quote
from exporter.template.values import AlertData, NilPointer, QueryResult, Sample, fields_of, type_name

_BASES: Final = {"b": 2, "o": 8, "O": 8, "d": 10, "v": 10, "x": 16, "X": 16}
_STRING_METHOD: Final = (Time, Duration, Month, Weekday)


@dataclass(frozen=True, slots=True)
class Spec:
    """One verb with its flags. `plus_v` and `sharp_v` are %+v and %#v."""

    verb: str = "v"
    width: int | None = None
    precision: int | None = None
    minus: bool = False
    plus: bool = False
    sharp: bool = False
    space: bool = False
    zero: bool = False
    plus_v: bool = False
    sharp_v: bool = False


PLAIN: Final = Spec()


def sprint(values: Sequence[object], *, indirect: bool = False) -> str:
    """fmt.Sprint: a space between operands when neither is a string.

    `indirect` prints what a pointer points to.
    """
    out: list[str] = []
    for at, value in enumerate(values):
        if at and not isinstance(value, str) and not isinstance(values[at - 1], str):
            out.append(" ")
        out.append(format_value(value, PLAIN, 0, indirect))
    return "".join(out)


def sprintln(values: Sequence[object]) -> str:
    """fmt.Sprintln: spaces between operands, a newline at the end."""
    return " ".join(format_value(value, PLAIN, 0, False) for value in values) + "\n"


def format_value(value: object, spec: Spec, depth: int, indirect: bool) -> str:
    """The text of one value. `depth` is 0 outside maps, lists and structs; `indirect` follows a pointer."""
    verb = spec.verb
    if verb == "T":
        return _padded(type_name(value), replace(spec, precision=None))
    if value is None:
        return _padded("<nil>", spec) if verb == "v" or depth else f"%!{verb}(<nil>)"
    if verb == "p" and not isinstance(value, (Sample, QueryResult, dict, NilPointer, Time)):
        return _bad(value, spec)
    if isinstance(value, _STRING_METHOD) and verb in "vsxXq" and not spec.sharp_v:
        return _string(str(value), replace(spec, verb="s" if verb == "v" else verb))
    if isinstance(value, bool):
        return _padded("true" if value else "false", spec) if verb in "tv" else _bad(value, spec)
    if isinstance(value, int):
        return _integer(value, spec)
    if isinstance(value, float):
        return _float(value, spec)
    if isinstance(value, complex):
        return _complex(value, spec)
    if isinstance(value, str):
        return _string(value, spec)
    return _composite(value, spec, depth, indirect)


def _bad(value: object, spec: Spec) -> str:
    plain = "<nil>" if value is None else f"{type_name(value)}={format_value(value, PLAIN, 0, False)}"
    return f"%!{spec.verb}({plain})"


def _padded(text: str, spec: Spec) -> str:
    missing = (spec.width or 0) - len(text)
    if missing <= 0:
        return text
    if spec.minus:
        return text + " " * missing
    return ("0" if spec.zero else " ") * missing + text


def _signed(text: str, spec: Spec) -> str:
    """Pads a number; zeros go between the sign and the digits."""
    if spec.zero and spec.width is not None and not spec.minus and text[:1] in "+- ":
        return text[0] + _padded(text[1:], replace(spec, width=spec.width - 1))
    return _padded(text, spec)


def _integer(value: int, spec: Spec) -> str:
    verb = spec.verb
    if spec.sharp_v and verb == "v":
        is_unsigned = type_name(value).startswith("uint")
        return _padded(f"{value:#x}" if is_unsigned else str(int(value)), spec)
    if verb == "c":
        return _padded(_rune(value), spec)
    if verb == "q":
        return _padded(quote(_rune(value), "'", ascii_only=spec.plus), spec)
    if verb == "U":
        text = f"U+{value & (2**64 - 1):0{max(4, spec.precision or 0)}X}"
        if spec.sharp and 0 <= value <= 0x10FFFF and is_print(chr(value)):
            text += f" '{chr(value)}'"
        return _padded(text, replace(spec, zero=False, precision=None))
    if verb not in _BASES:
        return _bad(value, spec)
    digits = _digits(abs(int(value)), _BASES[verb])
    if verb == "X":
        digits = digits.upper()
    sign = "-" if value < 0 else "+" if spec.plus else " " if spec.space else ""
    prefix = ""
    if spec.precision is not None:
        if spec.precision == 0 and value == 0:
            return _padded("", replace(spec, zero=False))
        digits = digits.rjust(spec.precision, "0")
    elif spec.zero and spec.width is not None and not spec.minus:
        digits = digits.rjust(spec.width - len(sign), "0")
    if spec.sharp:
        prefix = {"b": "0b", "x": "0x", "X": "0X"}.get(verb, "0" if verb == "o" and digits[:1] != "0" else "")
    if verb == "O":
        prefix = "0o"
    return _padded(sign + prefix + digits, replace(spec, zero=False))


def _digits(value: int, base: int) -> str:
    return format(value, {2: "b", 8: "o", 10: "d", 16: "x"}[base])


def _rune(value: int) -> str:
    return chr(value) if 0 <= value <= 0x10FFFF and not 0xD800 <= value < 0xE000 else "\ufffd"


def _float(value: float, spec: Spec) -> str:
    verb, precision = spec.verb, spec.precision
    if verb not in "vgGeEfFxXb":
        return _bad(value, spec)
    finite = gofloat.special(value) is None
    text = gofloat.special(value) or _float_digits(value, verb, precision)
    if spec.sharp and finite and verb in "gGeEfFxX":
        text = _kept_point(text, verb, precision)
    if text[0] not in "+-":
        text = "+" + text
    if spec.space and not spec.plus and text[0] == "+":
        text = " " + text[1:]
    if not finite:
        spec = replace(spec, zero=False)
        if text[1:] == "NaN" and not spec.space and not spec.plus:
            text = text[1:]
            return _padded(text, spec)
    if spec.plus or text[0] != "+":
        return _signed(text, spec)
    return _padded(text if text == "+Inf" else text[1:], spec)


def _float_digits(value: float, verb: str, precision: int | None) -> str:
    if verb in "xX":
        return gofloat.hexadecimal(value, precision, upper=verb == "X")
    if verb == "b":
        fraction, exponent = math.frexp(value)
        return f"{int(fraction * 2**53)}p{exponent - 53 if value else -1074:+d}"
    if verb in "vg" and precision is None:
        return gofloat.general(value)
    if verb == "G" and precision is None:
        return gofloat.general(value).upper()
    kind = {"v": "g", "F": "f"}.get(verb, verb)
    return f"{value:.{6 if precision is None else precision}{kind}}"


def _kept_point(text: str, verb: str, precision: int | None) -> str:
    """The # flag: always a decimal point, and trailing zeros up to the precision for %g."""
    head, mark, tail = text, "", ""
    for sign in "ep" if verb not in "xX" else "pP":
        if sign in text.lower():
            at = text.lower().index(sign)
            head, mark, tail = text[:at], text[at], text[at + 1 :]
            break
    if "." not in head:
        head += "."
    if verb in "xX":  # Go counts the x of 0x as a digit
        digits = len(head.lstrip("+-0").replace(".", ""))
        head += "0" * max(0, (6 if precision is None else precision) - digits)
    if verb in "gG":
        wanted = 6 if precision is None else precision
        digits = sum(char.isdigit() for char in head.lstrip("+-0.")) or sum(char.isdigit() for char in head)
        head += "0" * max(0, wanted - digits)
    return head + mark + tail


def _complex(value: complex, spec: Spec) -> str:
    if spec.verb not in "vbgGxXfFeE":
        return _bad(value, spec)
    inner = replace(spec, width=None)
    real = _float(value.real, inner)
    return f"({real}{_float(value.imag, replace(inner, plus=True))}i)"


def _string(value: str, spec: Spec) -> str:
    verb = spec.verb
    if verb in "vs" and not (spec.sharp_v and verb == "v"):
        text = value if spec.precision is None else value[: spec.precision]
        return _padded(text, spec)
    if verb == "q" or verb == "v":
        text = value if spec.precision is None else value[: spec.precision]
        if spec.sharp and can_backquote(text):
            return _padded(f"`{text}`", spec)
        return _padded(quote(text, ascii_only=spec.plus), spec)
    if verb in "xX":
        data = value.encode()
        if spec.precision is not None:
            data = data[: spec.precision]
        mark = ("0x" if verb == "x" else "0X") if spec.sharp else ""
        pairs = [f"{byte:02x}" if verb == "x" else f"{byte:02X}" for byte in data]
        if not pairs:
            return _padded("", spec)
        text = " ".join(mark + pair for pair in pairs) if spec.space else mark + "".join(pairs)
        return _padded(text, spec)
    return _bad(value, spec)


def _composite(value: object, spec: Spec, depth: int, indirect: bool) -> str:
    """Maps, slices, structs and pointers: the verb applies to each element."""
    if isinstance(value, NilPointer):
        if value.type_name.startswith("map"):
            return "map[]"
        return "[]" if value.type_name == "template.queryResult" else _padded("<nil>", spec)
    if spec.verb == "p":
        return _address(value)
    if isinstance(value, Sample) and not indirect:
        if depth:
            if spec.verb == "v":
                return _address(value)
            return f"%!{spec.verb}(*template.sample=&{_struct(value, PLAIN, 0)})"
        return "&" + _struct(value, spec, depth)
    if isinstance(value, (Sample, AlertData)):
        return _struct(value, spec, depth)
    if isinstance(value, dict):
        pairs = (
            f"{format_value(key, spec, depth + 1, False)}:{format_value(value[key], spec, depth + 1, False)}"
            for key in sorted(value)
        )
        if spec.sharp_v:
            return type_name(value) + "{" + ", ".join(pairs) + "}"
        return "map[" + " ".join(pairs) + "]"
    if isinstance(value, QueryResult):
        items = (format_value(item, spec, depth + 1, False) for item in value)
        if spec.sharp_v:
            return "template.queryResult{" + ", ".join(items) + "}"
        return "[" + " ".join(items) + "]"
    return _bad(value, spec) if depth == 0 else str(value)


def _struct(value: object, spec: Spec, depth: int) -> str:
    fields = fields_of(value) or {}
    parts = [
        (f"{name}:" if spec.plus_v or spec.sharp_v else "") + format_value(item, spec, depth + 1, False)
        for name, item in fields.items()
    ]
    if spec.sharp_v:
        return type_name(value).lstrip("*") + "{" + ", ".join(parts) + "}"
    return "{" + " ".join(parts) + "}"


def _address(value: object) -> str:
    """A pointer. Go's differ from run to run; ours is told from the object."""
    return f"0xc{id(value) & 0xFFFFFFFFF:09x}"
