"""What the parsers of all commands share: how help is laid out, and the options that many have."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import Any


class _Formatter(argparse.HelpFormatter):
    """Wraps paragraphs; lines that begin with two spaces (the examples) stay as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines: list[str] = []
        for line in text.splitlines():
            kept = line.startswith("  ") or not line
            lines += [line] if kept else textwrap.wrap(line, width, break_on_hyphens=False)
        return "\n".join(indent + line for line in lines)


class Parser(argparse.ArgumentParser):
    """A parser, and the class of its sub-parsers, whose help is laid out as a manual page is."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options.setdefault("formatter_class", _Formatter)
        super().__init__(*args, **options)


def add_config_file(parser: argparse.ArgumentParser) -> None:
    """`--config.file F`; None stands for the built-in configuration."""
    parser.add_argument(
        "--config.file", dest="config_file", type=Path, metavar="F", help="configuration (YAML)"
    )


def add_output(parser: argparse.ArgumentParser, *formats: str) -> None:
    """`--output`; the first format is the default."""
    parser.add_argument(
        "-o", "--output", choices=formats, default=formats[0], help=f"how to print (default: {formats[0]})"
    )
