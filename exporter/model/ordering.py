"""Label order of many label sets, found without holding up other threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from exporter.model.labels import LabelSet

_RUN = 16_384  # texts sorted by one call: some 10 ms
_END = "\0"  # below all that label names and values consist of


def order_of(labels: Sequence[LabelSet], run: int = _RUN) -> list[int]:
    """Positions in ascending label order, equal label sets in their order.

    One call of `sorted` lets no other thread run until it is done: 300 ms for the pairs of 100,000 label
    sets, which would stop an event loop. So they are compared as texts, in runs, which are then merged two
    by two: each merge takes one comparison a label set. `run`: how many one call sorts.
    """
    keys: Sequence[Any] = [_END.join([part for pair in own.pairs for part in pair]) for own in labels]
    if any(key.count(_END) >= 2 * len(own.pairs) > 0 for key, own in zip(keys, labels, strict=True)):
        keys = [own.pairs for own in labels]  # a value holds what should end it
    key = keys.__getitem__
    size = len(keys)
    runs = [sorted(range(first, min(first + run, size)), key=key) for first in range(0, size, run)]
    while len(runs) > 1:
        pairs = zip(runs[::2], [*runs[1::2], []], strict=False)
        runs = [sorted(one + other, key=key) for one, other in pairs]
    return runs[0] if runs else []
