"""Peers and shared data that a test may need: found, or the test is skipped with the reason."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

REQUIRE_PEERS = os.environ.get("QE_REQUIRE_PEERS") == "1"
SHARED = Path(os.environ.get("QE_SHARED", Path(__file__).parents[3] / "shared"))


def peer(program: str) -> str:
    """The path of a Debian peer; skips where it is missing, fails instead under QE_REQUIRE_PEERS=1."""
    found = shutil.which(program)
    if found is not None:
        return found
    reason = f"{program} is not installed (Debian packages prometheus, prometheus-alertmanager)"
    if REQUIRE_PEERS:
        pytest.fail(reason)
    pytest.skip(reason)


def shared(relative: str) -> Path:
    """A path in the shared test data beside the checkout; skips where it is absent."""
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"shared test data {relative} is not beside this checkout")
    return path
