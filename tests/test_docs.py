"""What the documentation says of the code is true."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from exporter.config.reference import option_rows, option_table

DOCS = Path(__file__).parents[1] / "docs"
_START = "<!-- options: written by tests/test_docs.py from exporter/config/schema.py -->"
_END = "<!-- end of options -->"


def test_every_option_has_its_row() -> None:
    """The option table is the one the schema gives (QE_UPDATE=1 writes it)."""
    path = DOCS / "configuration.md"
    text = path.read_text()
    head, rest = text.split(_START)
    table, tail = rest.split(_END)
    wanted = f"\n{option_table()}\n"
    if os.environ.get("QE_UPDATE") == "1":
        path.write_text(f"{head}{_START}{wanted}{_END}{tail}")
    else:
        assert table == wanted, "run QE_UPDATE=1 pytest tests/test_docs.py"


def test_no_option_is_without_meaning() -> None:
    """Each has a sentence."""
    for key, _, meaning in option_rows():
        assert len(meaning) > 10, key


def test_links_between_documents_lead_somewhere() -> None:
    """Relative links point at files that exist."""
    root = DOCS.parent
    for page in [*DOCS.rglob("*.md"), root / "README.md"]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
            if not target.startswith(("http:", "https:", "mailto:")):
                assert (page.parent / target).exists(), f"{page.relative_to(root)} links to {target}"


def test_every_page_stands_in_the_menu() -> None:
    """mkdocs.yml names each page of docs/ once, and no other."""

    def pages(entry: Any) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        else:
            for child in entry.values() if isinstance(entry, dict) else entry:
                yield from pages(child)

    named = list(pages(yaml.safe_load((DOCS.parent / "mkdocs.yml").read_text())["nav"]))
    assert sorted(named) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))
