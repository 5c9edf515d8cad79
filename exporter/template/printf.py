"""Go's fmt.Sprintf: flags, widths, precisions, argument numbers, and the error texts for wrong ones.

Source: Go's fmt documentation, and the running program where it says less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from exporter.template.goformat import PLAIN, Spec, format_value
from exporter.template.values import type_name

_LIMIT: Final = 1_000_000  # widths and precisions beyond it are refused, as in Go
_FLAGS: Final = "+-# 0"


def sprintf(layout: str, values: Sequence[object]) -> str:
    """fmt.Sprintf; a wrong verb or argument shows in the text as Go shows it."""
    return _Printf(layout, values).run()


class _Printf:
    def __init__(self, layout: str, values: Sequence[object]) -> None:
        self._layout = layout
        self._values = values
        self._at = 0
        self._arg = 0
        self._reordered = False
        self._good_index = True
        self._after_index = False

    def run(self) -> str:
        out: list[str] = []
        size = len(self._layout)
        while self._at < size:
            percent = self._layout.find("%", self._at)
            if percent < 0:
                out.append(self._layout[self._at :])
                break
            out.append(self._layout[self._at : percent])
            self._at = percent + 1
            out.append(self._directive())
        if not self._reordered and self._arg < len(self._values):
            extra = ", ".join(
                "<nil>" if value is None else f"{type_name(value)}={format_value(value, PLAIN, 0, False)}"
                for value in self._values[self._arg :]
            )
            out.append(f"%!(EXTRA {extra})")
        return "".join(out)

    def _directive(self) -> str:
        flags: dict[str, bool] = {}
        while (char := self._peek()) and char in _FLAGS:
            flags[char] = True
            self._at += 1
        self._good_index, self._after_index = True, False
        errors = ""
        spec = Spec(
            minus="-" in flags,
            plus="+" in flags,
            sharp="#" in flags,
            space=" " in flags,
            zero="0" in flags and "-" not in flags,
        )
        self._argument_number()
        width, from_arg, problem = self._size("BADWIDTH")
        errors += problem
        if from_arg and width is not None and width < 0:
            width, spec = -width, replace(spec, minus=True, zero=False)
        if not from_arg and self._after_index and width is not None:
            self._good_index = False
        spec = replace(spec, width=width)
        if self._peek() == ".":
            self._at += 1
            if self._after_index:
                self._good_index = False
            self._argument_number()
            precision, from_arg, problem = self._size("BADPREC")
            errors += problem
            if from_arg and precision is not None and precision < 0:
                precision, errors = None, errors + "%!(BADPREC)"
            elif precision is None and not from_arg:
                precision = 0
            spec = replace(spec, precision=precision)
        if not self._after_index:
            self._argument_number()
        return errors + self._verb(spec)

    def _peek(self) -> str:
        return self._layout[self._at] if self._at < len(self._layout) else ""

    def _size(self, fault: str) -> tuple[int | None, bool, str]:
        """A width or precision: (number, whether an argument gave it, error text)."""
        if self._peek() == "*":
            self._at += 1
            value = self._values[self._arg] if self._arg < len(self._values) else None
            if self._arg < len(self._values):
                self._arg += 1
            self._after_index = False
            if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LIMIT:
                return int(value), True, ""
            return None, True, f"%!({fault})"
        start = self._at
        while self._peek() and self._peek() in "0123456789":
            self._at += 1
        if start == self._at:
            return None, False, ""
        number = int(self._layout[start : self._at][:8])
        return (number, False, "") if number <= _LIMIT else (None, False, "")

    def _argument_number(self) -> None:
        """`[n]`: the next argument by its number."""
        if self._peek() != "[":
            return
        self._reordered = True
        end = self._layout.find("]", self._at)
        if end < 0:
            self._good_index = False
            self._at += 1
            return
        digits = self._layout[self._at + 1 : end]
        self._at = end + 1
        good = digits.isascii() and digits.isdigit() and 1 <= int(digits[:8]) <= len(self._values)
        if good:
            self._arg = int(digits) - 1
            self._after_index = True
        else:
            self._good_index = False

    def _verb(self, spec: Spec) -> str:
        verb = self._peek()
        if not verb:
            return "%!(NOVERB)"
        self._at += 1
        if verb == "%":
            return "%"
        if not self._good_index:
            return f"%!{verb}(BADINDEX)"
        if self._arg >= len(self._values):
            return f"%!{verb}(MISSING)"
        value = self._values[self._arg]
        self._arg += 1
        spec = replace(spec, verb=verb)
        if verb == "v":
            spec = replace(spec, sharp_v=spec.sharp, plus_v=spec.plus, sharp=False, plus=False)
        return format_value(value, spec, 0, False)
