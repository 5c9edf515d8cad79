"""`quantum-exporter check`: files proved before they run."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from exporter import __version__
from exporter.cli import check_dashboards
from exporter.cli.alerts import Api, RequestError
from exporter.cli.parsers import add_output
from exporter.cli.replaying import connect, expanded
from exporter.config.load import load_config
from exporter.db.history import History
from exporter.errors import InputError, Problem, RuleFormatError
from exporter.model.durations import parse_duration
from exporter.rules.format import read_rule_file, read_rule_files
from exporter.rules.lint import CODES, Finding, Level, LintOptions, lint
from exporter.rules.lint_report import json_report, problem_json, sarif_report
from exporter.rules.model import RuleGroup
from exporter.web.auth import load_web_config

_METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*", re.ASCII)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its kinds."""
    parser = subparsers.add_parser(
        "check",
        help="check files before they are used",
        description="Checks files before they are used. Exit code 0: fine, 1: a check failed.",
        epilog="examples:\n  quantum-exporter check config config.yml\n"
        "  quantum-exporter check rules rules/mine.yml\n"
        "  quantum-exporter check dashboards",
    )
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    config = kinds.add_parser(
        "config",
        help="check configuration files",
        description="Reads configuration files and the rule files that they name, and starts nothing. Every "
        "problem is told with file:line:column.",
        epilog="examples:\n  quantum-exporter check config config.yml\n"
        "  quantum-exporter check config --output json config.yml",
    )
    config.add_argument("files", nargs="+", metavar="FILE")
    add_output(config, "text", "json")
    config.set_defaults(run=_config)
    rules = kinds.add_parser(
        "rules",
        help="check rule files",
        description="Check rule files: first the format, then what loads and is still not what is meant. "
        "Exit code 1 where a file is refused or a finding is an error.",
        epilog="examples:\n  quantum-exporter check rules rules/mine.yml\n"
        "  quantum-exporter check rules --metrics http://127.0.0.1:9464 --lint-fatal rules/*.yml\n"
        "  quantum-exporter check rules --output sarif rules/mine.yml",
    )
    rules.add_argument("files", nargs="+", metavar="FILE", help="rule files, - for standard input")
    add_output(rules, "text", "json", "sarif")
    rules.add_argument("--lint-fatal", action="store_true", help="exit code 1 for warnings too")
    rules.add_argument(
        "--ignore",
        action="append",
        default=[],
        choices=("all", *CODES),
        metavar="CODE",
        help="leave out a code",
    )
    rules.add_argument(
        "--metrics",
        metavar="SOURCE",
        help="report metric names that nobody has: FILE (a name a line, or the text that /metrics gives), "
        "http://... (a running exporter or Prometheus), or postgres (what is stored)",
    )
    rules.add_argument(
        "--database", default="", metavar="URL", help="for --metrics postgres (default: of the configuration)"
    )
    rules.add_argument("--config.file", dest="config_file", type=Path, metavar="F")
    rules.add_argument(
        "--evaluation-interval", default="15s", metavar="DURATION", help="of groups that tell none (15s)"
    )
    rules.set_defaults(run=_rules)
    web_config = kinds.add_parser(
        "web-config",
        help="check files for --web.config.file",
        description="Checks TLS and basic authentication files in the format of Prometheus' exporters.",
        epilog="examples:\n  quantum-exporter check web-config web.yml",
    )
    web_config.add_argument("files", nargs="+", metavar="FILE")
    add_output(web_config, "text", "json")
    web_config.set_defaults(run=_web_config)
    check_dashboards.add_check(kinds)


def _config(args: argparse.Namespace) -> int:
    return _check_files(args, _judge_config)


def _judge_config(file: str) -> str:
    config = load_config(Path(file), os.environ)
    groups = read_rule_files([(str(path), _read(str(path))) for path in config.rule_files])
    count = sum(len(group.rules) for group in groups)
    return f": {count} rules found in {len(config.rule_files)} rule files"


def _web_config(args: argparse.Namespace) -> int:
    return _check_files(args, _judge_web_config)


def _judge_web_config(file: str) -> str:
    load_web_config(Path(file))
    return ""


def _check_files(args: argparse.Namespace, judge: Callable[[str], str]) -> int:
    """Every file by `judge`, which tells what is good of it or raises InputError; 1 where one failed."""
    answers: list[dict[str, object]] = []
    for file in args.files:
        problems: Sequence[Problem] = ()
        remark = ""
        try:
            remark = judge(file)
        except InputError as error:
            problems = error.problems
        answers.append({"file": file, "problems": [problem_json(problem) for problem in problems]})
        if args.output == "text":
            print(f"Checking {file}")
            if problems:
                print("  FAILED:", *(f"    {problem}" for problem in problems), sep="\n")
            else:
                print(f"  SUCCESS{remark}")
    if args.output == "json":
        print(json.dumps({"files": answers}, indent=2))
    return 1 if any(answer["problems"] for answer in answers) else 0


def _rules(args: argparse.Namespace) -> int:
    try:
        options = _options(args)
    except (OSError, ValueError, RequestError) as error:
        print(f"quantum-exporter: error: {error}", file=sys.stderr)
        return 2
    loaded = _loaded(args.files)
    problems = [
        problem for _, found in loaded if isinstance(found, RuleFormatError) for problem in found.problems
    ]
    findings: list[Finding] = []
    groups = [group for _, found in loaded if not isinstance(found, RuleFormatError) for group in found]
    if "all" not in args.ignore:
        findings = lint(groups, options)
    if args.output == "json":
        print(json_report(problems, findings))
    elif args.output == "sarif":
        print(sarif_report(problems, findings, __version__))
    else:
        _print(loaded, findings, lint_fatal=args.lint_fatal)
    fatal = args.lint_fatal or any(finding.level is Level.ERROR for finding in findings)
    return 1 if problems or (findings and fatal) else 0


_Loaded = Sequence[tuple[str, Sequence[RuleGroup] | RuleFormatError]]


def _loaded(patterns: Sequence[str]) -> _Loaded:
    """Each file with its groups, or with what is wrong with it."""
    found: list[tuple[str, Sequence[RuleGroup] | RuleFormatError]] = []
    for pattern in patterns:
        try:
            files = tuple(expanded((pattern,)))
        except RuleFormatError as error:
            found.append((pattern, error))
            continue
        for file in files:
            try:
                found.append((file, read_rule_file(_read(file), file)))
            except RuleFormatError as error:
                found.append((file, error))
    return found


def _options(args: argparse.Namespace) -> LintOptions:
    known = None if args.metrics is None else _known_metrics(args)
    try:
        interval_ms = parse_duration(args.evaluation_interval)
    except ValueError as error:
        raise ValueError(f"--evaluation-interval: {error}") from error
    return LintOptions(known, interval_ms, frozenset(args.ignore))


def _known_metrics(args: argparse.Namespace) -> frozenset[str]:
    source: str = args.metrics
    if source.startswith(("http://", "https://")):
        answer = Api(source, 30.0).call("GET", "/api/v1/label/__name__/values")
        return frozenset(answer["data"])
    if source == "postgres":
        return asyncio.run(_stored_metrics(args))
    lines = Path(source).read_text(encoding="utf-8").splitlines()
    return frozenset(name[0] for name in (_METRIC_NAME.match(line) for line in lines) if name)


async def _stored_metrics(args: argparse.Namespace) -> frozenset[str]:
    async with contextlib.AsyncExitStack() as stack:
        history = History(await connect(stack, args, "quantum-exporter check"))
        return frozenset(labels.name for labels in await history.series(()))


def _read(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise RuleFormatError(Problem(error.strerror or "cannot be read", file)) from error
    except UnicodeDecodeError as error:
        raise RuleFormatError(Problem("is not UTF-8 text", file)) from error


def _print(loaded: _Loaded, findings: Sequence[Finding], *, lint_fatal: bool) -> None:
    for file, found in loaded:
        print(f"Checking {file}")
        if isinstance(found, RuleFormatError):
            print("  FAILED:", *(f"    {problem}" for problem in found.problems), sep="\n")
            print()
            continue
        own = [finding for finding in findings if finding.file == file]
        errors = sum(finding.level is Level.ERROR for finding in own)
        counts = [(errors, "error"), (len(own) - errors, "warning")]
        told = ", ".join(f"{count} {word}{'s' if count > 1 else ''}" for count, word in counts if count)
        failed = errors or (own and lint_fatal)
        count = sum(len(group.rules) for group in found)
        print(f"  {'FAILED' if failed else 'SUCCESS'}: {count} rules found{told and f', {told}'}")
        for finding in own:
            print(f"    {finding}")
        print()
