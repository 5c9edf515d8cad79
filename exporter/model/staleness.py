"""The staleness marker: the one NaN bit pattern that ends a series (Prometheus model/value)."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

STALE_NAN_BITS = 0x7FF0000000000002
STALE_NAN: float = struct.unpack("<d", struct.pack("<Q", STALE_NAN_BITS))[0]


def is_stale(value: float) -> bool:
    """Whether one value is the staleness marker (ordinary NaN is not)."""
    return value != value and struct.pack("<d", value) == struct.pack("<Q", STALE_NAN_BITS)


def stale_mask(values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Where an array of any shape holds the marker. Test right after selection: arithmetic loses the bits."""
    mask: npt.NDArray[np.bool_] = np.ascontiguousarray(values).view(np.uint64) == STALE_NAN_BITS
    return mask
