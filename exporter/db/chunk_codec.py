"""Samples of one series and one day as few bytes that plain SQL can unpack too. PURE.

Integers are kept as steps from one to the next, less the smallest step and over what all of them share, in 1,
2 or 4 bits each, or in whole bytes: first the lowest byte of every step, then the next, so that the server's
compression meets like beside like. Times are such integers (microseconds since the first), and a value that
is a decimal with up to nine places is one of them over a power of ten. Whatever does not fit is kept as it
is: single values (a staleness marker, an infinity) beside the steps, with their bits; wholly irregular ones
as the eight bytes of each, byte by byte in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from exporter.model.samples import Float64s, Int64s

Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

MAX_SAMPLES: Final = 8192  # of one chunk: a day at 15 s is one, at 1 s it is eleven
RAW: Final = 0  # the divisor that tells: no decimals, `values` holds the eight bytes of each
SAME: Final = -1  # the divisor that tells: one value throughout, its bits are `base`

_PLACES: Final[tuple[int, ...]] = tuple(10**places for places in range(10))
EXACT: Final = 2**53  # integers that a float64 can hold
_SPAN_US: Final = 2**52  # of the times of one chunk
_ODD_SHARE: Final = 16  # more odd values than one in this many: not worth the trouble
_PROBE: Final = 32  # values that a power of ten is tried on before all of them
_WIDTHS: Final = (0, 1, 2, 4, 8, 16, 24, 32, 40, 48, 56)


@dataclass(frozen=True, slots=True)
class Steps:
    """Integers: number i is base + step * i + unit * (u[1] + ... + u[i]), each u in `width` bits."""

    base: int
    step: int
    unit: int
    width: int
    data: bytes | None


@dataclass(frozen=True, slots=True)
class Chunk:
    """One row of quantum_chunks without its series: `times` in microseconds since 1970, `n` samples.

    `divisor` is the power of ten below the integers of `values`, or RAW, or SAME; sample number `odd_at[k]`
    has the value `odd[k]` instead.
    """

    n: int
    times: Steps
    end_us: int
    values: Steps
    divisor: int
    odd_at: tuple[int, ...] = ()
    odd: tuple[float, ...] = ()


def encode(ts_us: Int64s, values: Float64s) -> list[Chunk]:
    """Chunks of at most MAX_SAMPLES, in order. `ts_us` ascending, without repeats."""
    chunks = []
    for lo in range(0, len(ts_us), MAX_SAMPLES):
        ts, part = ts_us[lo : lo + MAX_SAMPLES], values[lo : lo + MAX_SAMPLES]
        if ts[-1] - ts[0] >= _SPAN_US:
            raise ValueError("the times of one chunk lie years apart")
        chunks.append(_encode(ts, np.ascontiguousarray(part)))
    return chunks


def decode(chunk: Chunk) -> tuple[Int64s, Float64s]:
    """The times in microseconds since 1970 and the values, bit by bit as they were."""
    return integers(chunk.times, chunk.n), decode_values(chunk)


def decimal_divisor(values: Float64s) -> int | None:
    """The least power of ten over which all finite values are integers; None where up to 10^9 none is."""
    finite: Float64s = np.ascontiguousarray(values[np.isfinite(values)])
    for divisor in _PLACES:
        if not (_has_odd(finite[:_PROBE], divisor) or _has_odd(finite, divisor)):
            return divisor
    return None


def decode_values(chunk: Chunk) -> Float64s:
    """The values alone."""
    if chunk.divisor == SAME:
        bits = np.full(chunk.n, chunk.values.base, np.int64)
        return bits.view(np.float64)
    if chunk.divisor == RAW:
        assert chunk.values.data is not None
        planes = np.frombuffer(chunk.values.data, np.uint8).reshape(8, chunk.n)
        return np.ascontiguousarray(planes.T).view("<f8").ravel().astype(np.float64, copy=False)
    values = integers(chunk.values, chunk.n).astype(np.float64)
    if chunk.divisor != 1:
        values /= chunk.divisor
    if chunk.odd_at:
        values[list(chunk.odd_at)] = np.array(chunk.odd, np.float64)
    return values


def integers(steps: Steps, count: int) -> Int64s:
    """int64 (count,), the integers that the steps stand for."""
    if steps.width == 0:
        return steps.base + steps.step * np.arange(count, dtype=np.int64)
    assert steps.data is not None
    moves = _unpack(steps.data, steps.width, count)
    if steps.unit != 1:
        moves *= steps.unit
    moves += steps.step
    moves[0] = steps.base
    return np.cumsum(moves, out=moves)


def _encode(ts_us: Int64s, values: Float64s) -> Chunk:
    times = _steps(ts_us)
    assert times is not None  # their span is bounded
    count, end_us = len(ts_us), int(ts_us[-1])
    bits = values.view(np.int64)
    if (bits == bits[0]).all():
        return Chunk(count, times, end_us, Steps(int(bits[0]), 0, 1, 0, None), SAME)
    for divisor in _PLACES:
        fitted = _fit(values, bits, divisor)
        if fitted is not None:
            whole, odd = fitted
            steps = _steps(whole)
            if steps is not None and steps.width < 56:
                at = np.flatnonzero(odd)
                return Chunk(
                    count, times, end_us, steps, divisor, tuple(at.tolist()), tuple(values[at].tolist())
                )
    planes = np.ascontiguousarray(values.astype("<f8").view(np.uint8).reshape(-1, 8).T)
    return Chunk(count, times, end_us, Steps(0, 0, 1, 64, planes.tobytes()), RAW)


def _fit(values: Float64s, bits: Int64s, divisor: int) -> tuple[Int64s, Bools] | None:
    """The integers over `divisor` that give the values, and where they do not; None where too often."""
    allowed = len(values) // _ODD_SHARE
    probe = values[:: max(1, len(values) // _PROBE)]
    if np.count_nonzero(_odd(probe, probe.view(np.int64), divisor)[1]) > len(probe) // 4:
        return None
    whole, odd = _odd(values, bits, divisor)
    count = np.count_nonzero(odd)
    if count > allowed and not (count <= 2 and len(values) > count + 1):
        return None
    if count:  # an odd place repeats the integer before it (the first: the next good one), and costs no step
        good = np.flatnonzero(~odd)
        whole = whole[good[np.maximum(np.searchsorted(good, np.arange(len(whole)), "right") - 1, 0)]]
    return whole, odd


def _odd(values: Float64s, bits: Int64s, divisor: int) -> tuple[Int64s, Bools]:
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.rint(values * divisor)
        good = np.abs(scaled) < EXACT
        whole = np.where(good, scaled, 0.0).astype(np.int64)
    again = whole.astype(np.float64) / divisor
    return whole, ~good | (again.view(np.int64) != bits)


def _has_odd(values: Float64s, divisor: int) -> bool:
    return bool(_odd(values, values.view(np.int64), divisor)[1].any())


def _steps(numbers: Int64s) -> Steps | None:
    """None where the steps span too much."""
    base = int(numbers[0])
    if len(numbers) == 1:
        return Steps(base, 0, 1, 0, None)
    moves = np.diff(numbers)
    least = int(moves.min())
    most = int(moves.max())
    if most - least >= 2**56:
        return None
    if most == least:
        return Steps(base, least, 1, 0, None)
    # zero must be among the multiples of the unit above `least`: the smallest move is the origin
    above = moves - least
    unit = int(np.gcd.reduce(above))
    if unit > 1:
        above //= unit
    width = next(width for width in _WIDTHS if (most - least) // unit < 1 << width)
    held = np.zeros(len(numbers), np.uint64)
    held[1:] = above
    return Steps(base, least, unit, width, _pack(held, width))


def _pack(numbers: npt.NDArray[np.uint64], width: int) -> bytes:
    if width >= 8:
        planes = numbers.astype("<u8").view(np.uint8).reshape(-1, 8)[:, : width // 8]
        return np.ascontiguousarray(planes.T).tobytes()
    each = 8 // width
    small = np.zeros(-(-len(numbers) // each) * each, np.uint8)
    small[: len(numbers)] = numbers
    shifted = small.reshape(-1, each) << (np.arange(each, dtype=np.uint8) * np.uint8(width))
    packed: Bytes = np.bitwise_or.reduce(shifted, axis=1).astype(np.uint8)
    return packed.tobytes()


def _unpack(data: bytes, width: int, count: int) -> Int64s:
    held = np.frombuffer(data, np.uint8)
    if width == 8:
        return held.astype(np.int64)
    if width > 8:
        planes = held.reshape(width // 8, count)
        total: Int64s = planes[0].astype(np.int64)
        for place in range(1, width // 8):
            total += planes[place].astype(np.int64) << (8 * place)
        return total
    each = 8 // width
    shifts = np.arange(each, dtype=np.uint8) * np.uint8(width)
    small: Int64s = ((held[:, None] >> shifts) & np.uint8((1 << width) - 1)).astype(np.int64)
    return small.ravel()[:count]


def same(ts_us: Int64s, values: Float64s, chunks: Sequence[Chunk]) -> bool:
    """Whether the chunks hold exactly these samples, bit by bit."""
    if not chunks:
        return not len(ts_us)
    parts = [decode(chunk) for chunk in chunks]
    ts = np.concatenate([part[0] for part in parts])
    bits = np.concatenate([part[1] for part in parts]).view(np.int64)
    return np.array_equal(ts, ts_us) and np.array_equal(bits, values.view(np.int64))
