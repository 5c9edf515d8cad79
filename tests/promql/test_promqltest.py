"""Prometheus' own engine scripts, and ours in the same language."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest

from exporter.storage import MemoryStorage
from tests.helpers.peers import SHARED
from tests.promql.promqltest import Case, Load, build_storage, read_script, run_case

OWN = Path(__file__).parent / "testdata"
THEIRS = Path(os.environ.get("QE_PROMQLTEST", SHARED / "data/promqltest"))


def _cases() -> list[Case]:
    paths = [*sorted(OWN.glob("*.test")), *sorted(THEIRS.glob("*.test"))]
    return [case for path in paths for case in read_script(path)]


@cache
def _storage(loads: tuple[int, ...]) -> MemoryStorage:
    return build_storage([LOADS[number] for number in loads])


CASES = _cases()
LOADS: dict[int, Load] = {id(load): load for case in CASES for load in case.loads}


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_eval(case: Case) -> None:
    """One eval of a script gives what the script says."""
    if case.native:
        pytest.skip("native histograms are refused")
    run_case(case, _storage(tuple(map(id, case.loads))))


def test_few_evals_need_native_histograms() -> None:
    """What is skipped are evals on native histograms; the rest, the far larger part, runs."""
    skipped = sum(case.native for case in CASES)
    assert skipped * 4 < len(CASES)


def test_own_scripts_exist() -> None:
    """A checkout without Prometheus' scripts still has evals to run."""
    assert any(case.file in {path.name for path in OWN.glob("*.test")} for case in CASES)
