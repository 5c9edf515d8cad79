"""`quantum-exporter test rules`: rule unit tests in promtool's format, with promtool's exit codes."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from exporter.cli.parsers import add_output
from exporter.errors import InputError, Problem, RuleFormatError
from exporter.rules.format import read_rule_files
from exporter.rules.ruletest import FileResult, run_tests
from exporter.rules.ruletest_format import read_test_file
from exporter.rules.ruletest_report import coverage_lines, junit_xml, results_json

_Step = Callable[[int, int], None]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "test",
        help="run unit tests",
        description="Runs unit tests. Exit code 0: all pass, 1: one fails.",
        epilog="examples:\n  quantum-exporter test rules rules/tests/mine_test.yml",
    )
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    rules = kinds.add_parser(
        "rules",
        help="run rule unit tests",
        description="Runs rule unit tests in promtool's format; exp_notifications tells besides what is sent "
        "after the cooldown.",
        epilog="examples:\n  quantum-exporter test rules rules/tests/mine_test.yml\n"
        "  quantum-exporter test rules --coverage --junit results.xml rules/tests/mine_test.yml\n"
        "  quantum-exporter test rules --run 'boundary' rules/tests/mine_test.yml",
    )
    rules.add_argument("files", nargs="+", metavar="FILE", help="rule-test files")
    rules.add_argument(
        "--run",
        dest="run_patterns",
        action="append",
        default=[],
        metavar="REGEX",
        help="run only tests whose name matches",
    )
    rules.add_argument(
        "--coverage", action="store_true", help="list the alerts that no test makes fire or keeps silent"
    )
    add_output(rules, "text", "json")
    rules.add_argument("--junit", metavar="FILE", help="write the results as JUnit XML")
    rules.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the tests; 0 where all pass, 1 where one fails."""
    return test_rules(
        args.files,
        args.run_patterns,
        coverage=args.coverage,
        junit=args.junit,
        as_json=args.output == "json",
    )


def test_rules(
    files: Sequence[str],
    patterns: Sequence[str],
    *,
    coverage: bool,
    junit: str | None,
    as_json: bool,
) -> int:
    """Run rule-test files and report; 0 where all pass, 1 where one fails, 2 for a bad pattern."""
    try:
        wanted = _filter(patterns)
    except re.error as error:
        print(f"quantum-exporter: error: --run: {error}", file=sys.stderr)
        return 2
    results: list[FileResult] = []
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(files))
        for number, file in enumerate(files):
            progress.update(task, description=file, completed=number)

            def step(done: int, total: int, number: int = number) -> None:
                progress.update(task, completed=number + done / max(total, 1))

            result = _run_file(file, wanted, step)
            results.append(result)
            if not as_json:
                _print_result(result)
    if as_json:
        document = results_json(results)
        print(json.dumps(document | ({"coverage": coverage_lines(results)} if coverage else {}), indent=2))
    elif coverage:
        print("\n".join(coverage_lines(results)))
    if junit is not None:
        Path(junit).write_text(junit_xml(results), encoding="utf-8")
    return 0 if all(result.passed for result in results) else 1


test_rules.__test__ = False  # type: ignore[attr-defined]  # a function of the command, not a test of pytest's


def _filter(patterns: Sequence[str]) -> Callable[[str], bool]:
    if not patterns:
        return lambda _: True
    compiled = [re.compile(pattern) for pattern in patterns]
    return lambda name: any(pattern.search(name) for pattern in compiled)


def _run_file(file: str, wanted: Callable[[str], bool], step: _Step) -> FileResult:
    try:
        test_file = read_test_file(_read(Path(file)), file)
        folder = Path(file).parent
        rule_files: list[tuple[str, str]] = []
        for pattern in test_file.rule_files:
            found = _glob(folder, pattern)
            if not found:
                print("  WARNING: no file match pattern", folder / pattern, file=sys.stderr)
            rule_files.extend((str(path), _read(path)) for path in found)
        return run_tests(test_file, read_rule_files(rule_files), wanted=wanted, before_each=step)
    except InputError as error:
        return FileResult(file, error="\n".join(f"    {problem}" for problem in error.problems))


def _glob(folder: Path, pattern: str) -> list[Path]:
    """The files that a pattern names, relative to the test file unless it is absolute."""
    if Path(pattern).is_absolute():
        folder, pattern = Path("/"), pattern.lstrip("/")
    exact = folder / pattern
    if not any(char in pattern for char in "*?["):
        return [exact] if exact.is_file() else []
    return sorted(path for path in folder.glob(pattern) if path.is_file())


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RuleFormatError(Problem(error.strerror or "cannot be read", str(path))) from error
    except UnicodeDecodeError as error:
        raise RuleFormatError(Problem("is not UTF-8 text", str(path))) from error


def _print_result(result: FileResult) -> None:
    print("Unit Testing: ", result.file)
    if result.passed:
        print("  SUCCESS\n")
        return
    sys.stdout.flush()
    print("  FAILED:", file=sys.stderr)
    for text in [result.error] if result.error else [one for test in result.tests for one in test.failures]:
        print(text, file=sys.stderr)
    sys.stderr.flush()
    print()
