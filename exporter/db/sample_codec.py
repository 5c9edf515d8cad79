"""Sample batches as frames of a spool segment, which defines each series once."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from exporter.db.spool import Decoder, Encoder, Frame
from exporter.model.labels import LabelSet
from exporter.model.samples import SampleBatch

_DEFINE: Final = 1  # JSON: label pairs of the next series, numbered 0, 1, ... inside the segment
_SAMPLES: Final = 2  # ts_ms, S, then numbers uint32 (S,) and values float64 (S,)
_HEAD: Final = struct.Struct("<qI")


class SampleCodec:
    """Makes the two halves for each segment."""

    def encoder(self) -> Encoder[SampleBatch]:
        """For a new segment: no series is defined yet."""
        return _SampleEncoder()

    def decoder(self) -> Decoder[SampleBatch]:
        """For a segment read from its start."""
        return _SampleDecoder()


class _SampleEncoder:
    def __init__(self) -> None:
        self._numbers: dict[LabelSet, int] = {}
        self._last: tuple[tuple[LabelSet, ...], bytes] = ((), b"")

    def encode(self, items: Sequence[SampleBatch]) -> Iterator[Frame]:
        for batch in items:
            labels, numbers = self._last
            if labels is not batch.labels:
                fresh = [one for one in batch.labels if one not in self._numbers]
                if fresh:
                    for one in fresh:
                        self._numbers[one] = len(self._numbers)
                    yield Frame(_DEFINE, 0, json.dumps([one.pairs for one in fresh]).encode())
                numbers = np.array([self._numbers[one] for one in batch.labels], "<u4").tobytes()
                self._last = (batch.labels, numbers)
            values = np.ascontiguousarray(batch.values, "<f8").tobytes()
            yield Frame(_SAMPLES, len(batch), _HEAD.pack(batch.ts_ms, len(batch)) + numbers + values)


class _SampleDecoder:
    """Batches with the same series share one `labels` tuple, so that their row numbers are looked up once."""

    def __init__(self) -> None:
        self._series: list[LabelSet] = []
        self._last: tuple[bytes, tuple[LabelSet, ...]] = (b"", ())

    def decode(self, frame: Frame) -> Sequence[SampleBatch]:
        try:
            if frame.kind == _DEFINE:
                self._series.extend(
                    LabelSet.of([(name, value) for name, value in pairs])
                    for pairs in json.loads(frame.payload)
                )
                return ()
            ts_ms, count = _HEAD.unpack_from(frame.payload)
            split = _HEAD.size + 4 * count
            raw = frame.payload[_HEAD.size : split]
            if raw != self._last[0]:
                numbers = np.frombuffer(raw, "<u4").tolist()
                self._last = (raw, tuple(self._series[number] for number in numbers))
            # copied: a view would stand on an odd address of the file's bytes
            values = np.frombuffer(frame.payload[split:], "<f8", count).astype(np.float64)
        except (struct.error, IndexError, KeyError, TypeError) as error:
            raise ValueError(f"a spooled batch makes no sense: {error}") from error
        return (SampleBatch(ts_ms, self._last[1], values),)
