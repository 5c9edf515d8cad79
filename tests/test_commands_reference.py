"""docs/commands.md says of every command what its parser says (QE_UPDATE=1 writes it)."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.cli import build_parser
from exporter.cli.simulate import HISTORY_VARIABLE

PAGE = Path(__file__).parents[1] / "docs" / "commands.md"
_START = "<!-- commands: written by tests/test_commands_reference.py from the parsers -->"
_END = "<!-- end of commands -->"


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers that run something, in their order."""
    groups = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    if not groups:
        yield parser
    for group in groups:
        for child in group.choices.values():
            yield from leaves(child)


def values(action: argparse.Action) -> str:
    """What an option takes, as the usage line has it."""
    if action.nargs == 0:
        return ""
    if action.metavar is not None or action.choices is None:
        name = action.metavar or action.dest.upper()
        word = name if isinstance(name, str) else name[0]
    else:
        word = "{" + ",".join(map(str, action.choices)) + "}"
    return f"{word}..." if action.nargs in ("*", "+") else word


def row(action: argparse.Action) -> str:
    """One argument or option with its meaning and default."""
    word = values(action)
    shown = action.option_strings or [word]
    names = ", ".join(f"`{name}{' ' + word if word and action.option_strings else ''}`" for name in shown)
    meaning = (action.help or "") % {"default": action.default, "prog": "", "dest": action.dest}
    has_default = action.default not in (None, False, "", [], argparse.SUPPRESS)
    if has_default and "default" not in meaning and str(action.default) not in meaning:
        meaning += f" (default: {action.default})" if meaning else f"default: {action.default}"
    if action.required and action.option_strings:
        meaning += " (required)" if meaning else "required"
    return f"| {names} | {meaning} |".replace("||", "\\|\\|")


def usage(parser: argparse.ArgumentParser) -> str:
    """Arguments in the usage line; options are listed below it."""
    words = [parser.prog]
    words += [
        f"{one.option_strings[-1]} {values(one)}"
        for one in parser._actions
        if one.option_strings and one.required
    ]
    words += ["[OPTIONS]"]
    for one in parser._actions:
        if not one.option_strings:
            word = values(one)
            words.append(f"[{word}]" if one.nargs in ("?", "*") else word)
    return " ".join(words)


def reference() -> str:
    """The generated part of the page."""
    out = []
    for parser in leaves(build_parser()):
        out += [f"## {parser.prog.partition(' ')[2]}", "", parser.description or "", ""]
        out += ["```text", usage(parser), "```", ""]
        rows = [row(one) for one in parser._actions if not isinstance(one, argparse._HelpAction)]
        if rows:
            out += ["| argument or option | meaning |", "| --- | --- |", *rows, ""]
        examples = re.findall(
            r"^  (quantum-exporter .*|\w+=\S+ quantum-exporter .*)$", parser.epilog or "", re.M
        )
        if examples:
            out += ["Examples:", "", "```text", *examples, "```", ""]
    return "\n".join(out)


def test_reference_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command stands in the reference with all its options, and no other."""
    monkeypatch.delenv(HISTORY_VARIABLE, raising=False)  # the default of an option
    wanted = f"\n{reference()}"
    text = PAGE.read_text()
    head, rest = text.split(_START)
    table, tail = rest.split(_END)
    if os.environ.get("QE_UPDATE") == "1":
        PAGE.write_text(f"{head}{_START}{wanted}{_END}{tail}")
    else:
        assert table == wanted, "run QE_UPDATE=1 pytest tests/test_commands_reference.py"
