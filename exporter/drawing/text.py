"""How wide text is, without a font at hand: advance widths of a plain sans serif."""

from __future__ import annotations

from typing import Final

# hundredths of the font size, from the space to the tilde
_ADVANCES: Final = (
    22, 25, 34, 58, 58, 74, 65, 18, 31, 32, 55, 58, 22, 27, 23, 30, 58, 58, 58, 58, 58, 58, 58, 58,
    58, 58, 23, 23, 58, 58, 58, 50, 84, 64, 63, 70, 71, 59, 57, 71, 73, 27, 55, 61, 58, 87, 72, 74,
    60, 73, 62, 58, 61, 68, 62, 95, 63, 58, 59, 31, 30, 30, 58, 50, 30, 54, 60, 53, 62, 55, 29, 62,
    59, 24, 24, 52, 25, 85, 59, 58, 60, 62, 33, 45, 32, 60, 51, 79, 48, 51, 46, 30, 26, 30, 59,
)  # fmt: skip
_OTHER: Final = 60
_MONO: Final = 60
_BOLD: Final = 1.06


def text_width(text: str, size: float, *, bold: bool = False, mono: bool = False) -> float:
    """Width in pixels of one line of text."""
    if mono:
        return len(text) * _MONO * size / 100
    hundredths = sum(_ADVANCES[ord(sign) - 32] if " " <= sign <= "~" else _OTHER for sign in text)
    return hundredths * size / 100 * (_BOLD if bold else 1.0)


def fitted(text: str, width: float, size: float, *, bold: bool = False, mono: bool = False) -> str:
    """The text, or as much of its beginning as fits into a width, with an ellipsis."""
    if text_width(text, size, bold=bold, mono=mono) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if text_width(text[:middle].rstrip() + "…", size, bold=bold, mono=mono) <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + "…" if low else ""
