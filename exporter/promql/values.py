"""What a query returns, and its form in Prometheus' HTTP API."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from exporter.model.labels import LabelSet
from exporter.model.samples import Float64s, Int64s
from exporter.promql.floats import api_floats, api_seconds, plain_float
from exporter.promql.seriesset import Bools, SeriesSet, labels_json

# Strings go through Go's own encoder, which escapes for HTML; label sets do not.
_STRING_ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _seconds(ts_ms: int) -> float | int:
    return ts_ms // 1000 if ts_ms % 1000 == 0 else ts_ms / 1000


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """Where the series of a value stand in the set they were chosen from, which keeps their JSON."""

    series: SeriesSet
    positions: Sequence[int]

    def json(self) -> list[str]:
        """The JSON objects of the label sets."""
        return list(map(self.series.json, self.positions))


def _metrics(labels: Sequence[LabelSet], origin: Origin | None) -> list[str]:
    return list(map(labels_json, labels)) if origin is None else origin.json()


@dataclass(frozen=True, slots=True, eq=False)
class InstantVector:
    """One value for each of S series at one time. `labels` (S,), `values` float64 (S,)."""

    labels: Sequence[LabelSet]
    values: Float64s
    ts_ms: int
    origin: Origin | None = None

    type_name = "vector"

    def __len__(self) -> int:
        return len(self.labels)

    def to_json(self) -> list[dict[str, Any]]:
        """`result` of the HTTP API."""
        at = _seconds(self.ts_ms)
        return [
            {"metric": labels.as_dict(), "value": [at, text]}
            for labels, text in zip(self.labels, api_floats(self.values), strict=True)
        ]

    def to_json_bytes(self) -> bytes:
        """`to_json` as JSON text."""
        at = f',"value":[{api_seconds(self.ts_ms)},"'
        metrics = _metrics(self.labels, self.origin)
        series = [
            f'{{"metric":{metric}{at}{text}"]}}'
            for metric, text in zip(metrics, api_floats(self.values), strict=True)
        ]
        return _encoded(f"[{','.join(series)}]")


@dataclass(frozen=True, eq=False)
class RangeMatrix:
    """Samples of S series over time: of a range query, or a range vector at one time.

    A range query fills `ts_ms` int64 (T,), `values` float64 (S, T), `present` bool (S, T). A range vector
    fills the flat form of a `SeriesBlock`: `offsets` int64 (S + 1,) into `ts_ms` (N,) and `values` (N,).
    """

    labels: Sequence[LabelSet]
    ts_ms: Int64s
    values: Float64s
    present: Bools | None = None
    offsets: Int64s | None = None
    origin: Origin | None = None

    type_name = "matrix"

    def __len__(self) -> int:
        return len(self.labels)

    def series(self, position: int) -> tuple[Int64s, Float64s]:
        """Timestamps and values of one series."""
        if self.offsets is not None:
            lo, hi = int(self.offsets[position]), int(self.offsets[position + 1])
            return self.ts_ms[lo:hi], self.values[lo:hi]
        if self.present is None:
            return self.ts_ms, self.values[position]
        mask = self.present[position]
        return self.ts_ms[mask], self.values[position][mask]

    @cached_property
    def _columns(self) -> list[tuple[list[int], list[str]]]:
        out = []
        for position in range(len(self.labels)):
            ts_ms, values = self.series(position)
            out.append((ts_ms.tolist(), api_floats(values)))
        return out

    def to_json(self) -> list[dict[str, Any]]:
        """`result` of the HTTP API."""
        return [
            {
                "metric": labels.as_dict(),
                "values": [[_seconds(at), text] for at, text in zip(ts_ms, texts, strict=True)],
            }
            for labels, (ts_ms, texts) in zip(self.labels, self._columns, strict=True)
        ]

    def to_json_bytes(self) -> bytes:
        """`to_json` as JSON text."""
        metrics = _metrics(self.labels, self.origin)
        heads = [f'[{api_seconds(at)},"%s"]' for at in self.ts_ms.tolist()]
        texts = api_floats(self.values.ravel())
        steps = len(heads)
        every = ",".join(heads)  # one formatting for a whole series where it has a sample at every step
        out = []
        for position, metric in enumerate(metrics):
            if self.offsets is not None:
                lo, hi = int(self.offsets[position]), int(self.offsets[position + 1])
                points = ",".join(heads[lo:hi]) % tuple(texts[lo:hi])
            else:
                own = texts[position * steps : (position + 1) * steps]
                if self.present is None or bool(self.present[position].all()):
                    points = every % tuple(own)
                else:
                    held = np.flatnonzero(self.present[position]).tolist()
                    points = ",".join([heads[i] for i in held]) % tuple([own[i] for i in held])
            out.append(f'{{"metric":{metric},"values":[{points}]}}')
        return _encoded(f"[{','.join(out)}]")


@dataclass(frozen=True, slots=True)
class ScalarValue:
    """A number at a time."""

    ts_ms: int
    value: float

    type_name = "scalar"

    def to_json(self) -> list[Any]:
        """`result` of the HTTP API."""
        return [_seconds(self.ts_ms), plain_float(self.value)]

    def to_json_bytes(self) -> bytes:
        """`to_json` as JSON text."""
        return f'[{api_seconds(self.ts_ms)},"{plain_float(self.value)}"]'.encode()


@dataclass(frozen=True, slots=True)
class StringValue:
    """A string at a time."""

    ts_ms: int
    value: str

    type_name = "string"

    def to_json(self) -> list[Any]:
        """`result` of the HTTP API."""
        return [_seconds(self.ts_ms), self.value]

    def to_json_bytes(self) -> bytes:
        """`to_json` as JSON text."""
        text = json.dumps(self.value, ensure_ascii=False).translate(_STRING_ESCAPES)
        return _encoded(f"[{api_seconds(self.ts_ms)},{text}]")


Value = InstantVector | RangeMatrix | ScalarValue | StringValue


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """The answer to a query: its value and what the user should know about it.

    `samples` counts what was held in memory at the peak, in samples.
    """

    value: Value
    warnings: tuple[str, ...] = ()
    infos: tuple[str, ...] = ()
    samples: int = 0

    def to_json(self) -> dict[str, Any]:
        """The `data` field of Prometheus' HTTP API."""
        return {"resultType": self.value.type_name, "result": self.value.to_json()}

    def to_json_bytes(self) -> bytes:
        """`to_json` as JSON text in UTF-8."""
        return b'{"resultType":"%b","result":%b}' % (
            self.value.type_name.encode(),
            self.value.to_json_bytes(),
        )
