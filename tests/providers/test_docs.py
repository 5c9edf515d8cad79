from __future__ import annotations

import re
from pathlib import Path

from exporter.config.positions import Reader, parse_yaml
from exporter.config.providers import read_providers
from exporter.providers import builtin_providers
from exporter.simulate.faults import FaultKind

PAGE = Path(__file__).parents[2] / "docs" / "providers.md"


def test_the_examples_of_the_page_are_accepted() -> None:
    """Every YAML block is a configuration whose providers are read without a problem."""
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.S)
    assert len(blocks) == 2
    for block in blocks:
        reader = Reader("providers.md")
        node = parse_yaml(block).entries["collect"].entries["providers"]  # type: ignore[index]
        configs = read_providers(reader, node)
        assert not reader.problems
        assert len(configs) >= 7


def test_the_tables_of_the_page_are_the_declarations() -> None:
    """Each provider has its rows: key variable, and every ceiling and assumed limit as declared."""
    text = PAGE.read_text("utf-8")
    for name, spec in builtin_providers().items():
        rows = re.findall(rf"^\| `{name}` \|.*$", text, re.M)
        assert len(rows) == 2
        assert not spec.auth.env or f"`{spec.auth.env}`" in rows[0]
        for limit in spec.limits:
            for count in (limit.ceiling, limit.safe):
                assert count is None or f"{count} a {limit.window}" in rows[1]


def test_every_fault_is_named() -> None:
    """The page lists what the simulator can do."""
    text = PAGE.read_text("utf-8")
    assert all(f"`{kind.value}`" in text for kind in FaultKind)
