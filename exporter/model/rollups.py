"""Rollups: numbers that stand for five minutes of samples which are gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

import numpy as np

from exporter.model.blocks import join_blocks
from exporter.model.samples import Float64s, SeriesBlock
from exporter.model.staleness import stale_mask

ROLLUP_MS = 300_000  # five minutes that begin at a multiple of five minutes since 1970


class Rollup(Enum):
    """What a reader wants to know of each five minutes; it stands at their last millisecond.

    COUNTER is LAST, and one millisecond before it the greatest value where that is greater: how a counter
    that was reset in between has grown.
    """

    LAST = auto()
    MINIMUM = auto()
    MAXIMUM = auto()
    SUM = auto()
    COUNT = auto()
    COUNTER = auto()


@dataclass(frozen=True, slots=True, eq=False)
class Remembered:
    """What is still known of a range: the samples that are kept, rollups of where they are not.

    No series has both for the same five minutes. `rollups` holds a block for each kind that was asked for;
    it is empty where no samples are gone.
    """

    samples: SeriesBlock
    rollups: Mapping[Rollup, SeriesBlock] = field(default_factory=dict)
    _joined: dict[Rollup, SeriesBlock] = field(default_factory=dict, init=False)

    def __len__(self) -> int:
        """Numbers held."""
        return len(self.samples.ts_ms) + sum(len(block.ts_ms) for block in self.rollups.values())

    @property
    def rolled_until_ms(self) -> int | None:
        """The time of the newest rollup, None where no samples are gone."""
        ends = (int(block.ts_ms.max()) for block in self.rollups.values() if len(block.ts_ms))
        return max(ends, default=None)

    def of(self, rollup: Rollup) -> SeriesBlock:
        """Rollups of one kind and, for the rest, samples: for COUNT each is 1, else its value."""
        known = self._joined.get(rollup)
        if known is None:
            known = as_rollup(self.samples, rollup)
            if self.rollups:
                known = join_blocks(self.rollups[rollup], known)
            self._joined[rollup] = known
        return known


def as_rollup(samples: SeriesBlock, rollup: Rollup) -> SeriesBlock:
    """Each sample as the rollup of itself alone. Staleness markers stay what they are."""
    if rollup is not Rollup.COUNT:
        return samples
    ones: Float64s = np.where(stale_mask(samples.values), samples.values, 1.0)
    return SeriesBlock(samples.labels, samples.offsets, samples.ts_ms, ones)


def counter_rollup(last: SeriesBlock, maximum: SeriesBlock) -> SeriesBlock:
    """COUNTER from LAST and MAXIMUM of the same five minutes."""
    fell = maximum.values > last.values
    each = 1 + fell.astype(np.int64)
    ends = np.cumsum(each)
    ts_ms, values = np.repeat(last.ts_ms, each), np.repeat(last.values, each)
    before = (ends - each)[fell]
    ts_ms[before] -= 1
    values[before] = maximum.values[fell]
    return SeriesBlock(last.labels, np.concatenate([[0], ends])[last.offsets], ts_ms, values)
