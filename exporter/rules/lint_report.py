"""Findings and refused files as text, JSON and SARIF 2.1.0."""

from __future__ import annotations

import json
from collections.abc import Sequence

from exporter.errors import Problem
from exporter.rules.lint import CODES, Finding, Level

_REFUSED = "refused"
_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def json_report(problems: Sequence[Problem], findings: Sequence[Finding]) -> str:
    """One document: `problems` keep a file from loading, `findings` do not."""
    document = {
        "problems": [problem_json(one) for one in problems],
        "findings": [
            {
                "code": one.code,
                "level": one.level.value,
                "file": one.file,
                "line": one.line,
                "column": one.column,
                "group": one.group,
                "rule": one.rule,
                "message": one.message,
            }
            for one in findings
        ],
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def problem_json(problem: Problem) -> dict[str, object]:
    """What keeps a file from loading, and where, as a JSON object."""
    return {
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "message": problem.message,
        "allowed": problem.allowed,
    }


def sarif_report(problems: Sequence[Problem], findings: Sequence[Finding], version: str) -> str:
    """A SARIF log with one run, for editors and code scanning."""
    rules = [{"id": _REFUSED, "shortDescription": {"text": "The file cannot be loaded."}}]
    rules += [{"id": code, "shortDescription": {"text": text}} for code, text in CODES.items()]
    results = [
        _result(
            _REFUSED,
            Level.ERROR,
            str(Problem(one.message, allowed=one.allowed)),
            one.file,
            one.line,
            one.column,
        )
        for one in problems
    ]
    results += [
        _result(one.code, one.level, f"{one.rule}: {one.message}", one.file, one.line, one.column)
        for one in findings
    ]
    driver = {"name": "quantum-exporter", "version": version, "rules": rules}
    document = {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def _result(code: str, level: Level, text: str, file: str, line: int, column: int) -> dict[str, object]:
    region = {"startLine": max(1, line), "startColumn": max(1, column)}
    place = {"artifactLocation": {"uri": file}, "region": region}
    return {
        "ruleId": code,
        "level": level.value,
        "message": {"text": text},
        "locations": [{"physicalLocation": place}],
    }
