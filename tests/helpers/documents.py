"""What stands in README.md and docs/: code blocks, and the commands in them.

In a `console` block what follows `$ ` is a command, all else is output. A comment `# exit code N` says how a
command ends that does not end with 0. A block with a title is a file of that name, which
the commands of the page find.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?[^\n]*\n", re.M)
_COMMENT = re.compile(r"\s+# .*$")
_EXIT_CODE = re.compile(r"# exit code (\d+)")


@dataclass(frozen=True)
class Block:
    """One fenced block; `line` is that of its first line of text."""

    page: str
    line: int
    language: str
    title: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """One command as a reader would type it, without its comment."""

    page: str
    line: int
    text: str
    exit_code: int = 0

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """README first, then the tutorial, then all others by name."""
    docs = ROOT / "docs"
    first = [ROOT / "README.md", docs / "tutorial.md"]
    return first + sorted(page for page in docs.rglob("*.md") if page not in first)


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, in their order."""
    text = page.read_text()
    found, start = [], 0
    while opening := _FENCE.search(text, start):
        indent = opening["indent"]
        end = text.index(f"\n{indent}```", opening.end() - 1)
        body = text[opening.end() : end + 1]
        lines = (line.removeprefix(indent) for line in body.splitlines(keepends=True))
        number = text.count("\n", 0, opening.end()) + 1
        name = page.relative_to(ROOT).as_posix()
        found.append(Block(name, number, opening["language"], opening["title"] or "", "".join(lines)))
        start = end + len(indent) + 4
    return found


def all_blocks() -> list[Block]:
    return [block for page in pages() for block in blocks_of(page)]


def commands_of(block: Block) -> list[Command]:
    """The commands of a `console` block; none of any other."""
    found: list[Command] = []
    lines = iter(enumerate(block.text.splitlines(), block.line))
    for number, line in lines:
        if block.language == "console" and line.startswith("$ "):
            typed = [line.removeprefix("$ ")]
            while typed[-1].endswith("\\"):
                typed.append(next(lines)[1])
            text = "\n".join(typed)
            code = _EXIT_CODE.search(text)
            found.append(Command(block.page, number, _COMMENT.sub("", text), int(code[1]) if code else 0))
    return found


def all_commands() -> list[Command]:
    return [command for block in all_blocks() for command in commands_of(block)]
