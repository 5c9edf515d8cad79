"""Fixtures of the PromQL tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.peers import peer
from tests.promql.prometheus import Prometheus


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """An empty Debian Prometheus; the test is skipped where it is not installed."""
    home: Path = tmp_path_factory.mktemp("prometheus")
    with Prometheus(peer("prometheus"), peer("promtool"), home) as server:
        yield server
