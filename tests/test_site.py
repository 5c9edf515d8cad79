"""The documentation as a site: it builds without a warning, and fetches nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.peers import REQUIRE_PEERS

ROOT = Path(__file__).parents[1]
# What a browser fetches by itself: scripts, pictures, frames, style sheets, fonts.
_FETCHED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?(?:https?:)?//"
    r"|<link\b(?=[^>]*\brel=[\"']?(?:stylesheet|preconnect|preload|icon))[^>]*\bhref=[\"']?(?:https?:)?//"
)
_FETCHED_BY_CSS = re.compile(r"url\([\"']?(?:https?:)?//|@import")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("mkdocs") is None:
        if REQUIRE_PEERS:
            pytest.fail("mkdocs is not installed: make docs")
        pytest.skip("mkdocs is not installed")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_built(site: Path) -> None:
    """Links, anchors and the menu are checked by the build itself (--strict)."""
    for page in (ROOT / "docs").rglob("*.md"):
        assert (site / page.relative_to(ROOT / "docs")).with_suffix(".html").is_file()


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    """No page and no style sheet names a script, a picture or a font of another host."""
    assert len(list(site.rglob("*.html"))) > 40
    for path in site.rglob("*.html"):
        assert _FETCHED.search(path.read_text()) is None, path.name
    for path in site.rglob("*.css"):
        assert _FETCHED_BY_CSS.search(path.read_text()) is None, path.name


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://unpkg.com/x.js"></script>',
        "<link href=https://fonts.gstatic.com rel=preconnect crossorigin>",
        '<img alt="x" src="//example.org/x.png">',
    ],
)
def test_what_is_fetched_is_noticed(html: str) -> None:
    """The pattern finds what it looks for; a link to click on is none."""
    assert _FETCHED.search(html)
    assert not _FETCHED.search(
        '<a href="https://example.org">x</a><link rel="canonical" href="https://e.org">'
    )
