"""The command line as one meets it: help, examples, completion."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.cli import COMMANDS, build_parser, main


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers that run something."""
    actions = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    if not actions:
        yield parser
    for action in actions:
        for child in action.choices.values():
            yield from leaves(child)


PARSER = build_parser()
LEAVES = list(leaves(PARSER))
each = pytest.mark.parametrize("parser", LEAVES, ids=[one.prog for one in LEAVES])


def examples(parser: argparse.ArgumentParser) -> list[str]:
    lines = (parser.epilog or "").splitlines()
    assert lines[:1] == ["examples:"], f"{parser.prog} shows no example"
    return [line.strip() for line in lines[1:]]


@each
def test_every_command_is_described_with_examples(parser: argparse.ArgumentParser) -> None:
    """A sentence on what it does, and commands to copy, each of which parses."""
    assert len(parser.description or "") > 12
    found = examples(parser)
    assert any(parser.prog in example for example in found)
    for example in found:
        words = shlex.split(example.partition(" > ")[0].replace("$DATABASE_URL", "postgresql://app@db/app"))
        while "=" in words[0]:  # variables of the environment
            words.pop(0)
        assert words[0] == "quantum-exporter"
        PARSER.parse_args(words[1:])


@each
def test_every_command_that_prints_can_print_json(parser: argparse.ArgumentParser) -> None:
    """--output json wherever there is something for a program to read."""
    if parser.prog.split()[1] in ("run", "simulate", "completion"):
        return
    output = next(one for one in parser._actions if "--output" in one.option_strings)
    assert "json" in (output.choices or ())


def test_help_fits_a_terminal() -> None:
    """Prose is wrapped; only examples may be longer than a line."""
    for parser in (PARSER, *LEAVES):
        text, _, _ = parser.format_help().partition("examples:")
        assert max(map(len, text.splitlines())) <= 100, parser.prog


def test_only_the_chosen_command_is_imported() -> None:
    """`--version` and a small command do not wait for the server's imports."""
    script = "import sys; from exporter.cli import main; main(['completion', '--help'])"
    watch = (
        "import atexit, sys; atexit.register(lambda: print('aiohttp' in sys.modules, 'numpy' in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{watch}\n{script}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False False"


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The script names each command and the options of `run`."""
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for command in COMMANDS:
        assert command in script
    assert "config.file" in script


def test_bash_completes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A real bash offers commands, kinds, options and the words of an option."""
    assert main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)

    def complete(*words: str) -> set[str]:
        line = " ".join(shlex.quote(word) for word in words)
        command = (
            f"source {tmp_path}/script; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; "
            f"COMP_LINE={shlex.quote(' '.join(words))}; COMP_POINT=${{#COMP_LINE}}; "
            "f=$(complete -p quantum-exporter | sed 's/.*-F \\([^ ]*\\).*/\\1/'); "
            "$f quantum-exporter; printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        done = subprocess.run(
            ["bash", "--norc", "-c", command], capture_output=True, text=True, check=False, env=os.environ
        )
        assert done.returncode == 0, done.stderr
        return {word.strip() for word in done.stdout.splitlines()}

    assert {"check", "why", "init"} <= complete("quantum-exporter", "")
    assert {"rules", "config", "dashboards"} <= complete("quantum-exporter", "check", "")
    assert "--simulate" in complete("quantum-exporter", "run", "--s")
    assert {"text", "json", "sarif"} <= complete("quantum-exporter", "check", "rules", "--output", "")
