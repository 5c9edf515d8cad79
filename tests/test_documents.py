"""The examples in README.md and docs/: every block is of a kind that something reads, and is read by it."""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml

from exporter.cli import build_parser
from exporter.collectors.sqlconfig import read_sql_file
from exporter.config.load import load_config
from exporter.promql.parse import parse_expr
from exporter.rules.format import read_rule_files
from exporter.rules.ruletest_format import read_test_file
from tests.helpers.documents import ROOT, Block, all_blocks, all_commands, pages
from tests.helpers.peers import peer

BLOCKS = all_blocks()
LANGUAGES = {"console", "text", "yaml", "json", "python", "promql", "sql"}
# keys of what others read: kustomize, a web configuration (its certificates are the reader's), Prometheus
# (the page runs promtool on it)
FOREIGN = {"resources", "tls_server_config", "scrape_configs"}
_PARSER = build_parser()


def blocks(language: str) -> Any:
    chosen = [block for block in BLOCKS if block.language == language]
    return pytest.mark.parametrize("block", chosen, ids=[block.place for block in chosen])


def test_every_block_says_what_it_is() -> None:
    """One of a few languages, each of which something reads; `text` is for output and drawings."""
    assert [(block.place, block.language) for block in BLOCKS if block.language not in LANGUAGES] == []


def test_no_command_hides_in_an_indented_block() -> None:
    """Commands stand in `console` blocks, where they are run; the examples of the command reference parse."""
    for page in pages():
        fenced = {
            number
            for block in BLOCKS
            if block.page == page.relative_to(ROOT).as_posix()
            for number in range(block.line, block.line + block.text.count("\n"))
        }
        for number, line in enumerate(page.read_text().splitlines(), 1):
            hidden = number not in fenced and re.match(r" {4,}(\$ |quantum-exporter |curl )", line)
            assert not hidden, f"{page.relative_to(ROOT)}:{number}"
    for block in BLOCKS:
        if block.language == "text" and block.page != "docs/commands.md":
            assert not re.search(r"^(\$ |curl )", block.text, re.M), block.place


@blocks("yaml")
def test_yaml_is_read_by_what_it_is_for(block: Block, tmp_path: Path) -> None:
    """Rules, rule tests, collectors and configurations, by the code that reads such files."""
    document = yaml.safe_load(block.text)
    if block.text.startswith("# alertmanager.yml"):
        check_alertmanager(block, tmp_path)
    elif document is None or FOREIGN & set(document):
        pass
    elif "groups" in document:
        assert read_rule_files([(block.place, block.text)])
    elif "tests" in document:
        assert read_test_file(block.text, block.place).tests
    elif "collectors" in document:
        assert read_sql_file(block.text, block.place, expand=lambda _: "postgresql://x/y").collectors
    else:
        check_configuration(block, tmp_path)


def check_alertmanager(block: Block, folder: Path) -> None:
    (folder / "alertmanager.yml").write_text(block.text)
    done = subprocess.run(
        [peer("amtool"), "check-config", "alertmanager.yml"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def check_configuration(block: Block, folder: Path) -> None:
    """It loads where the shipped files are, and those that the page tells to write."""
    for name in ("rules", "sql"):
        shutil.copytree(ROOT / name, folder / name)
    for other in BLOCKS:
        if other.title and other.page == block.page:
            (folder / other.title).parent.mkdir(parents=True, exist_ok=True)
            (folder / other.title).write_text(other.text)
    (folder / "the.yml").write_text(block.text)
    load_config(folder / "the.yml", _Anything())


class _Anything(dict[str, str]):
    """An environment in which every variable that is asked for has a fitting value."""

    def __missing__(self, name: str) -> str:
        return "postgresql://app@db/app" if name.endswith("DATABASE_URL") else "https://example.org/x"

    def __contains__(self, name: object) -> bool:
        return True

    def get(self, name: str, default: Any = None) -> Any:
        return self[name]


@blocks("json")
def test_json_parses(block: Block) -> None:
    """It is JSON."""
    json.loads(block.text)


@blocks("promql")
def test_promql_parses(block: Block) -> None:
    """One expression; the acceptance tests ask the demo."""
    parse_expr(block.text)


@blocks("python")
def test_python_compiles_and_its_imports_exist(block: Block) -> None:
    """Every name that is imported from the package is there."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    compile(block.text, block.place, "exec", flags)
    tree = compile(block.text, block.place, "exec", flags | ast.PyCF_ONLY_AST)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("exporter"):
            module = importlib.import_module(node.module or "")
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@pytest.mark.postgres
@blocks("sql")
async def test_sql_runs(block: Block, migrated_url: str) -> None:
    """On a migrated database, in a transaction that is undone."""
    connection = await asyncpg.connect(migrated_url)
    try:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(block.text)
        await transaction.rollback()
    finally:
        await connection.close()


def words_of(text: str) -> list[str]:
    """The words of a call up to a pipe or a redirection; a process substitution stands for a file."""
    lexer = shlex.shlex(re.sub(r"<\(.*?\)", "FILE", text), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = []
    for word in lexer:
        if word[0] in "|>&;)":
            break
        words.append(word)
    return words


def calls() -> list[Any]:
    """Calls of the program in blocks and in running text; there also the bare names of commands."""
    found = []
    for command in all_commands():
        text = command.text.replace("\\\n", " ")
        own = re.findall(r"(?:^|[|(]\s*|\w=\S+ )quantum-exporter (.*)", text)
        found += [pytest.param(words_of(call), id=command.place) for call in own]
    for page in pages():
        for text in re.findall(r"`quantum-exporter (\w[^`]*)`", page.read_text()):
            words = words_of(text)
            found.append(pytest.param(words, id=f"{page.relative_to(ROOT)}-{'-'.join(words[:3])}"))
    return found


def is_name(words: list[str]) -> bool:
    """Whether the words name a command, or a group of commands, and no more."""
    parser: argparse.ArgumentParser = _PARSER
    for word in words:
        groups = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
        if not groups or word not in groups[0].choices:
            return False
        parser = groups[0].choices[word]
    return True


@pytest.mark.parametrize("words", calls())
def test_every_call_of_the_program_is_one_that_it_takes(words: list[str]) -> None:
    """Its parser accepts command and options."""
    if not is_name(words) or words[0] == "run":
        _PARSER.parse_args(words)
