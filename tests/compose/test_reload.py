"""A reload of the whole program: what it says, and that a refused one changes nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from exporter.app import App, Options
from exporter.config.load import load_config
from exporter.errors import InputError
from exporter.loops.rules import RuleLoop
from exporter.rules.engine_query import EngineQueries
from exporter.rules.expand import TemplateSettings
from exporter.rules.format import read_rule_file
from exporter.web.auth import WebConfig
from tests.helpers.clock import FakeClock

OLD = "groups: [{name: g, rules: [{alert: A, expr: x > 1}, {alert: B, expr: x > 1}]}]"
NEW = "groups: [{name: g, rules: [{alert: A, expr: x > 1, for: 5m}, {alert: C, expr: x > 1}]}]"
REFUSED = {
    "syntax": "groups: [{name: g, rules: [{alert: A, expr: 'sum('}]}]",
    "key": OLD.replace("alert: B", "alrt: B"),
    "tab": "groups:\n\t- name: g",
    "NUL": "groups: []\n\0",
    "twice": OLD + "\ngroups: []",
}


class World:
    """An app with real rules and a real configuration; what needs a database or a network is left out."""

    def __init__(self, folder: Path) -> None:
        self.rules = folder / "rules.yml"
        self.rules.write_text(OLD)
        config = folder / "config.yml"
        config.write_text("rule_files: [rules.yml]\ncollect: {sql: []}\n")
        loaded = load_config(config, {})
        options = Options(loaded, "127.0.0.1", 0, WebConfig(), "", False, {}, lambda: load_config(config, {}))
        self.app: Any = App(options, FakeClock())
        self.app._build_core()
        self.app._build_queries()
        assert isinstance(self.app._judge, EngineQueries)
        self.app._rules = RuleLoop(
            query=self.app._judge,
            append=self.app._storage.append_batch,
            persist=lambda _: None,
            hand_on=self._nothing,
            clock=FakeClock(),
            metrics=self.app._pipeline,
            default_interval_ms=60_000,
            settings=TemplateSettings(),
            on_fault=lambda *_: None,
        )
        self.app._rules.load(read_rule_file(OLD, str(self.rules)), {})
        self.app._notifying = SimpleNamespace(reload=self._nothing)
        self.app._client = SimpleNamespace(providers=(), resume=lambda _: None)
        self.app._heartbeat = SimpleNamespace(configure=lambda _: None)
        self.app._scrapes = SimpleNamespace(load=self._nothing)

    async def _nothing(self, *_: object) -> None:
        """In place of notification."""

    def names(self) -> list[str]:
        return [rule.name for view in self.app._rules.groups() for rule in view.group.rules]

    def successful(self) -> float | None:
        return self.app._registry.get_sample_value("quantum_config_last_reload_successful")


async def test_a_reload_says_what_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One line: added, changed, removed."""
    world = World(tmp_path)
    world.rules.write_text(NEW)
    with caplog.at_level(logging.INFO, "exporter.app"):
        await world.app.reload()
    assert "reloaded: added: g/C; changed: g/A; removed: g/B" in caplog.messages
    assert (world.names(), world.successful()) == (["A", "C"], 1)
    await world.app.stop()


@pytest.mark.parametrize("kind", REFUSED)
async def test_a_refused_reload_keeps_the_rules_that_run(tmp_path: Path, kind: str) -> None:
    """The problem has its place, the metric says so, and a good file is taken afterwards."""
    world = World(tmp_path)
    world.rules.write_text(REFUSED[kind])
    with pytest.raises(InputError, match=r"rules\.yml:\d+:\d+: "):
        await world.app.reload()
    assert (world.names(), world.successful()) == (["A", "B"], 0)
    world.rules.write_text(NEW)
    await world.app.reload()
    assert (world.names(), world.successful()) == (["A", "C"], 1)
    await world.app.stop()


async def test_a_reload_reads_its_files_beside_the_loop(tmp_path: Path) -> None:
    """Rules that take long to read hold nothing up: here they come from a pipe that the loop itself feeds."""
    world = World(tmp_path)
    world.rules.unlink()
    os.mkfifo(world.rules)
    goes_on, rescued = threading.Event(), threading.Event()

    def rescue() -> None:
        if not goes_on.wait(30):
            rescued.set()
            world.rules.write_text(NEW)

    threading.Thread(target=rescue, daemon=True).start()
    reload = asyncio.create_task(world.app.reload())
    await asyncio.sleep(0)
    goes_on.set()
    assert not rescued.is_set()
    await asyncio.to_thread(world.rules.write_text, NEW)
    await reload
    assert (world.names(), world.successful()) == (["A", "C"], 1)
    await world.app.stop()
