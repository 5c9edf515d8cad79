"""Rule-test results for people and machines: coverage lines and JUnit XML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.etree import ElementTree

from exporter.rules.model import AlertingRule
from exporter.rules.ruletest import FileResult


def coverage_lines(results: Iterable[FileResult]) -> list[str]:
    """Which alerting rules no test makes fire, which no test keeps silent, and the share that has both.

    Only cases count that look: an `alert_rule_test` of that alert, at whose time the rule fired or did not.
    """
    rules: dict[str, AlertingRule] = {}
    fired: set[str] = set()
    silent: set[str] = set()
    for result in results:
        rules.update({rule.key: rule for rule in result.rules})
        for test in result.tests:
            fired |= test.fired
            silent |= test.silent
    lines = []
    for key, rule in sorted(rules.items()):
        gaps = [
            text for text, keys in (("makes it fire", fired), ("keeps it silent", silent)) if key not in keys
        ]
        if gaps:
            lines.append(f"  {rule.name} ({key}): no test {' or '.join(gaps)}")
    covered = sum(key in fired and key in silent for key in rules)
    share = f"{covered / len(rules):.0%}" if rules else "no rules"
    return [
        f"Coverage: {covered} of {len(rules)} alerting rules fire and stay silent in a test ({share})",
        *lines,
    ]


def results_json(results: Sequence[FileResult]) -> dict[str, object]:
    """Every file with its tests; `failures` are promtool's words, none where a test passed."""
    return {
        "passed": all(result.passed for result in results),
        "files": [
            {
                "file": result.file,
                "error": result.error.strip(),
                "tests": [
                    {"name": test.name, "line": test.line, "failures": list(test.failures)}
                    for test in result.tests
                ],
            }
            for result in results
        ],
    }


def junit_xml(results: Sequence[FileResult]) -> str:
    """One testsuite per file, one testcase per test."""
    root = ElementTree.Element("testsuites", name="rule tests")
    for result in results:
        failures = sum(bool(test.failures) for test in result.tests)
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=result.file,
            tests=str(len(result.tests)),
            failures=str(failures),
            errors="1" if result.error else "0",
        )
        if result.error:
            case = ElementTree.SubElement(suite, "testcase", name="load", classname=result.file)
            ElementTree.SubElement(case, "error", message="cannot be loaded").text = _plain(result.error)
        for position, test in enumerate(result.tests, start=1):
            name = test.name or f"test {position} (line {test.line})"
            case = ElementTree.SubElement(suite, "testcase", name=_plain(name), classname=result.file)
            if test.failures:
                text = "\n".join(test.failures)
                ElementTree.SubElement(case, "failure", message="failed").text = _plain(text)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _plain(text: str) -> str:
    """Without the characters that XML cannot hold."""
    return "".join(char if char in "\t\n\r" or ord(char) >= 0x20 else "?" for char in text)
