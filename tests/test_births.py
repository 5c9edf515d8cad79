"""The garbage collector stands aside during mass births, and only then."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from exporter.births import Births, mass_birth


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    frozen = gc.get_freeze_count()
    yield
    if gc.get_freeze_count() != frozen:
        gc.unfreeze()
    gc.enable()


def test_many_births_are_set_apart() -> None:
    """No collection meanwhile; what was born is walked by none afterwards."""
    before = gc.get_freeze_count()
    with mass_birth():
        assert not gc.isenabled()
        born = [[number] for number in range(100_000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() - before >= len(born)


def test_few_births_are_left_to_the_collector() -> None:
    """A repeated scrape sets nothing apart."""
    before = gc.get_freeze_count()
    with mass_birth():
        born = [[number] for number in range(1000)]
    assert born
    assert gc.get_freeze_count() == before


def test_whoever_turned_the_collector_off_keeps_it_off() -> None:
    """Also where the inside fails, and in the inner of two."""
    gc.disable()
    with pytest.raises(ValueError, match="x"), mass_birth():
        raise ValueError("x")
    assert not gc.isenabled()
    gc.enable()
    with mass_birth():
        with mass_birth():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_births_little_by_little_are_set_apart_a_few_times_only() -> None:
    """A fleet is set apart as it grows; ten million births later in a dozen steps."""
    steps: list[int] = []
    born = 0
    births = Births(lambda: steps.append(born))
    for _ in range(10_000):
        born += 1000
        births.add(1000)
    assert steps[0] == 20_000
    assert 10 < len(steps) < 40
    before = gc.get_freeze_count()
    grown = [[number] for number in range(1000)]
    Births().add(20_000)
    assert gc.get_freeze_count() - before >= len(grown)
