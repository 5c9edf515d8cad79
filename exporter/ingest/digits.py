"""Numbers of many lines at once: columns of decimal digits to float64, bit for bit as `float` reads them.

A decimal of an integer m below 2**53 and f digits behind the point is m / 10**f, correctly rounded, since
both are exact (Clinger's fast path). What does not fit is read by `float`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from exporter.ingest.line import read_number
from exporter.model.samples import Float64s, Int64s

Bytes = npt.NDArray[np.uint8]

MAX_WIDTH = 26  # no float needs more
_DOT, _MINUS = 254, 253  # as differences from "0"
_EXACT = 9.0e15
_DIGITS = 15


def read_columns(data: Bytes, starts: Int64s, ends: Int64s) -> Float64s:
    """The numbers that stand at data[starts:ends].

    Raises: ValueError for a text that is no number.
    """
    widths = ends - starts
    width = int(widths.max(initial=0))
    if int(widths.min(initial=1)) < 1 or width > MAX_WIDTH:
        raise ValueError("a value is missing, or too long")
    columns = np.arange(width, 0, -1)
    digits = data[np.maximum(ends[None, :] - columns[:, None], 0)] - np.uint8(48)
    digits[columns[:, None] > widths[None, :]] = 0
    dots = digits == _DOT
    behind = (dots * (columns - 1)[:, None].astype(np.uint8)).max(axis=0, initial=0)
    dotted = dots.sum(axis=0)
    digits[dots] = 0
    negative = data[starts] == 45
    digits[(width - widths)[negative], np.flatnonzero(negative)] = 0
    odd = (digits > 9).any(axis=0) | (dotted > (behind > 0)) | (widths - negative - dotted < 1)
    values = np.empty(len(starts), np.float64)
    for fraction in np.unique(behind).tolist():
        chosen = np.flatnonzero(behind == fraction)
        powers = columns - 1
        if fraction:
            powers = np.where(powers > fraction, powers - 1, powers)
        part = digits if len(chosen) == len(values) else digits[:, chosen]
        mantissa = (10.0**powers) @ part.astype(np.float64)
        odd[chosen] |= mantissa >= _EXACT
        values[chosen] = mantissa / 10.0**fraction if fraction else mantissa
    values[negative] *= -1.0
    for place in np.flatnonzero(odd).tolist():
        values[place] = read_number(data[starts[place] : ends[place]].tobytes().decode())
    return values


def read_block(cells: Bytes) -> Float64s:
    """The numbers of lines of equal width, cells (lines, width); as `read_columns`, sooner.

    Raises: ValueError for a text that is no number.
    """
    count, width = cells.shape
    digits = cells - np.uint8(48)
    fraction = 0
    if _DOT in digits[0] and width > 1:
        place = int(np.argmax(digits[0] == _DOT))
        if bool((digits[:, place] == _DOT).all()):
            fraction = width - 1 - place
            digits = np.delete(digits, place, axis=1)
    if digits.shape[1] > _DIGITS or bool((digits > 9).any()):
        ends = np.arange(1, count + 1) * width
        return read_columns(np.ascontiguousarray(cells).reshape(-1), ends - width, ends)
    numbers: Float64s = digits.astype(np.float64) @ 10.0 ** np.arange(digits.shape[1] - 1, -1, -1)
    return numbers / 10.0**fraction if fraction else numbers
