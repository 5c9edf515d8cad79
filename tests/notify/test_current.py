"""What is told of a rule that is ill: faults of templates and limits never stop an alert."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exporter.rules.evaluation import RuleHealth
from tests.notify.stage import rule, running


@pytest.mark.parametrize(
    ("ill", "said"),
    [
        ({"template_faults": ("annotation summary: no such function",)}, ["firing a"]),
        ({"limited": True}, ["firing a"]),
        ({}, []),
    ],
    ids=["template", "limit", "query"],
)
async def test_an_ill_rule(tmp_path: Path, ill: dict[str, Any], said: list[str]) -> None:
    """An evaluation with a template fault or a limit counts; one that failed leaves everything as it was."""
    async with running(tmp_path, [rule()]) as rig:
        rig.ops  # noqa: B018 - the receiver is there
        evaluation = rig.stage.evaluate(rig.clock.now_ms(), ["a"])
        found = [replace(one, health=RuleHealth.ERR, error="ill", **ill) for one in evaluation.rules]
        await rig.dispatcher.handle(replace(evaluation, rules=tuple(found)))
        await rig.settle()
        assert rig.ops.said == said
