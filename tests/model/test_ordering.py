from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.model.labels import LabelSet
from exporter.model.ordering import order_of

parts = st.text(st.sampled_from("\0\x01 ab~é\U0001f600"), max_size=3)
label_sets = st.lists(st.dictionaries(parts.filter(bool), parts.filter(bool), max_size=3), max_size=30)


@given(label_sets)
def test_the_order_is_that_of_the_pairs(dicts: list[dict[str, str]]) -> None:
    """Whatever the labels are made of, NUL among it; equal ones in their order."""
    labels = [LabelSet.of(own) for own in dicts]
    assert order_of(labels) == sorted(range(len(labels)), key=[own.pairs for own in labels].__getitem__)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 47, 48, 49, 100])
def test_runs_are_merged(size: int) -> None:
    """At every number of runs, whole or not."""
    rng = random.Random(size)
    labels = [LabelSet.of({"a": str(rng.randrange(40)), "b": "x"}) for _ in range(size)]
    assert order_of(labels, 16) == sorted(range(size), key=[own.pairs for own in labels].__getitem__)
