"""What the documentation says of the code is true."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from exporter.config.jsonschema import config_schema
from exporter.config.reference import option_rows, option_table
from exporter.rules.jsonschema import rules_schema
from exporter.web.auth import WebConfig
from exporter.web.server import create_app

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


def keys_of(node: Any, root: dict[str, Any], seen: frozenset[str] = frozenset()) -> Iterator[str]:
    """Every key that a JSON Schema names."""
    if isinstance(node, list):
        for child in node:
            yield from keys_of(child, root, seen)
    elif isinstance(node, dict):
        reference = node.get("$ref", "").removeprefix("#/definitions/")
        if reference and reference not in seen:
            yield from keys_of(root["definitions"][reference], root, seen | {reference})
        properties = node.get("properties", {})
        yield from properties
        for child in (*properties.values(), *(node.get(part) for part in _PARTS)):
            yield from keys_of(child, root, seen)


_PARTS = ("items", "additionalProperties", "anyOf", "oneOf", "allOf")


@pytest.mark.parametrize("schema", [config_schema, rules_schema])
def test_every_key_is_described(schema: Callable[[], dict[str, Any]]) -> None:
    """What a configuration or a rule file may hold stands in a document, as code or in an example."""
    text = "\n".join(page.read_text() for page in DOCS.rglob("*.md"))
    root = schema()
    keys = set(keys_of(root, root))
    assert len(keys) > 10
    assert [key for key in sorted(keys) if not re.search(rf"`[^`]*\b{key}\b[^`]*`|\b{key}:", text)] == []


class _NothingBehind:
    """Dependencies of a server that is asked for its routes only."""

    def __getattr__(self, name: str) -> _NothingBehind:
        return self


def test_every_endpoint_has_its_row() -> None:
    """docs/http-api.md lists the methods and paths that the server has, and no other."""
    router = create_app(cast(Any, _NothingBehind()), WebConfig(), loopback=True).router
    served = {
        (route.method, route.resource.canonical)
        for route in router.routes()
        if route.method != "HEAD" and route.resource is not None
    }
    page = (DOCS / "http-api.md").read_text()
    rows = re.findall(r"^\| ([A-Z, ]+) \| `(/[^`]*)` \|", page, re.M)
    assert {(method, path) for methods, path in rows for method in methods.split(", ")} == served
