"""Rule-test files in promtool's format: YAML to test groups, or every problem with its place.

Source: Prometheus' page "Unit testing for rules". `exp_notifications` is our addition: the notifications that
an alert sends, cooldown applied.
"""

from __future__ import annotations

import calendar
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from exporter.config.positions import Reader, YamlNode, parse_yaml
from exporter.errors import InputError, QueryError, RuleFormatError
from exporter.model.labels import EMPTY_LABELS, LabelSet
from exporter.promql.notation import parse_metric, parse_series

_FILE_KEYS = ("rule_files", "evaluation_interval", "fuzzy_compare", "group_eval_order", "tests")
_GROUP_KEYS = (
    "interval",
    "input_series",
    "name",
    "start_timestamp",
    "alert_rule_test",
    "promql_expr_test",
    "external_labels",
    "external_url",
)
_NULL = YamlNode(0, 0, "tag:yaml.org,2002:null", text="")
_GO_INFINITY = re.compile(r"[+-]?\.?inf(inity)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class InputSeries:
    """One series of a test; a missing sample is None."""

    labels: LabelSet
    values: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class ExpectedAlert:
    """A firing instance: its labels with alertname, its annotations."""

    labels: LabelSet
    annotations: LabelSet


@dataclass(frozen=True, slots=True)
class ExpectedNotification:
    """One notification sent: when (after the start), firing or resolved, the labels with alertname.

    `suppressed` None leaves the number of held-back firings unchecked.
    """

    at_ms: int
    status: str
    labels: LabelSet
    suppressed: int | None = None


@dataclass(frozen=True, slots=True)
class AlertCase:
    """One check of an alert's firing instances, and of all it has sent up to then where that is given."""

    alertname: str
    eval_time_ms: int
    alerts: tuple[ExpectedAlert, ...]
    notifications: tuple[ExpectedNotification, ...] | None = None
    line: int = 0


@dataclass(frozen=True, slots=True)
class ExprCase:
    """One check of an expression's samples; `labels` keep the metric name."""

    expr: str
    eval_time_ms: int
    samples: tuple[tuple[LabelSet, float], ...]
    line: int = 0


@dataclass(frozen=True, slots=True)
class TestGroup:
    """One test: its series and what is expected of them."""

    __test__ = False  # not a test class of pytest's

    name: str
    interval_ms: int
    start_ms: int
    series: tuple[InputSeries, ...]
    alert_cases: tuple[AlertCase, ...]
    expr_cases: tuple[ExprCase, ...]
    external_labels: Mapping[str, str] = field(default_factory=dict)
    external_url: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class TestFile:
    """A rule-test file; `rule_files` are glob patterns relative to its folder."""

    __test__ = False

    file: str
    rule_files: tuple[str, ...]
    evaluation_interval_ms: int
    fuzzy_compare: bool
    group_eval_order: tuple[str, ...]
    tests: tuple[TestGroup, ...]


def read_test_file(text: str, file: str) -> TestFile:
    """A rule-test file.

    Raises: RuleFormatError with every problem, in file order.
    """
    try:
        root = parse_yaml(text, file)
    except InputError as error:
        raise RuleFormatError(error.problems) from error
    reader = _TestReader(file)
    found = reader.file_of(root)
    if reader.problems:
        raise RuleFormatError(sorted(reader.problems, key=lambda problem: (problem.line, problem.column)))
    return found


class _TestReader(Reader):
    """Reads one test file; faults go to `problems`."""

    def file_of(self, root: YamlNode) -> TestFile:
        entries = self.mapping(root, "a rule-test file", _FILE_KEYS)
        interval_ms = self._duration(entries, "evaluation_interval") or 60_000
        order = self.strings(entries.get("group_eval_order", _NULL), "group_eval_order")
        for name in sorted({name for name in order if order.count(name) > 1}):
            self.problem(entries["group_eval_order"], f'group "{name}" is repeated in group_eval_order')
        fuzzy = entries.get("fuzzy_compare", _NULL)
        return TestFile(
            file=self.file,
            rule_files=self.strings(entries.get("rule_files", _NULL), "rule_files"),
            evaluation_interval_ms=interval_ms,
            fuzzy_compare=not fuzzy.is_null and bool(self.boolean(fuzzy, "fuzzy_compare")),
            group_eval_order=order,
            tests=tuple(
                self._group(node, interval_ms) for node in self.sequence(entries.get("tests", _NULL), "tests")
            ),
        )

    def _group(self, node: YamlNode, evaluation_interval_ms: int) -> TestGroup:
        entries = self.mapping(node, "a test", _GROUP_KEYS)
        alert_nodes = self.sequence(entries.get("alert_rule_test", _NULL), "alert_rule_test")
        expr_nodes = self.sequence(entries.get("promql_expr_test", _NULL), "promql_expr_test")
        series_nodes = self.sequence(entries.get("input_series", _NULL), "input_series")
        return TestGroup(
            name=self._text(entries, "name"),
            interval_ms=self._duration(entries, "interval") or evaluation_interval_ms,
            start_ms=self._start_ms(entries.get("start_timestamp", _NULL)),
            series=tuple(filter(None, map(self._series, series_nodes))),
            alert_cases=tuple(filter(None, map(self._alert_case, alert_nodes))),
            expr_cases=tuple(map(self._expr_case, expr_nodes)),
            external_labels=self.string_map(entries.get("external_labels", _NULL), "external_labels"),
            external_url=self._text(entries, "external_url"),
            line=node.line,
        )

    def _series(self, node: YamlNode) -> InputSeries | None:
        entries = self.mapping(node, "an input series", ("series", "values"))
        series, values = self._text(entries, "series"), self._text(entries, "values")
        try:
            return InputSeries(*parse_series(f"{series} {values}"))
        except QueryError as error:
            self.problem(entries.get("series", node), f"input series does not parse: {error}")
            return None

    def _alert_case(self, node: YamlNode) -> AlertCase | None:
        known = ("eval_time", "alertname", "exp_alerts", "exp_notifications")
        entries = self.mapping(node, "an item of alert_rule_test", known)
        name = self._text(entries, "alertname")
        at_ms = self._duration(entries, "eval_time")
        if not name:
            self.problem(node, "an item under alert_rule_test misses required attribute alertname")
            return None
        alerts = []
        for item in self.sequence(entries.get("exp_alerts", _NULL), "exp_alerts"):
            alert = self.mapping(item, "an item of exp_alerts", ("exp_labels", "exp_annotations"))
            labels = self.string_map(alert.get("exp_labels", _NULL), "exp_labels")
            annotations = self.string_map(alert.get("exp_annotations", _NULL), "exp_annotations")
            alerts.append(ExpectedAlert(LabelSet.of({**labels, "alertname": name}), LabelSet.of(annotations)))
        sent: tuple[ExpectedNotification, ...] | None = None
        if "exp_notifications" in entries:
            items = self.sequence(entries["exp_notifications"], "exp_notifications")
            sent = tuple(self._notification(item, name) for item in items)
        return AlertCase(name, at_ms or 0, tuple(alerts), sent, node.line)

    def _notification(self, node: YamlNode, alertname: str) -> ExpectedNotification:
        known = ("at", "status", "exp_labels", "suppressed")
        entries = self.mapping(node, "an item of exp_notifications", known)
        status = self.choice(entries.get("status", node), "status", ("firing", "resolved"))
        labels = self.string_map(entries.get("exp_labels", _NULL), "exp_labels")
        count = entries.get("suppressed", _NULL)
        return ExpectedNotification(
            self._duration(entries, "at") or 0,
            status or "firing",
            LabelSet.of({**labels, "alertname": alertname}),
            None if count.is_null else self.integer(count, "suppressed", minimum=0),
        )

    def _expr_case(self, node: YamlNode) -> ExprCase:
        entries = self.mapping(node, "an item of promql_expr_test", ("expr", "eval_time", "exp_samples"))
        samples = []
        for item in self.sequence(entries.get("exp_samples", _NULL), "exp_samples"):
            sample = self.mapping(item, "an item of exp_samples", ("labels", "value", "histogram"))
            if "histogram" in sample:
                self.problem(sample["histogram"], "native histograms are not supported", "labels, value")
            value = self._value(sample.get("value", _NULL))
            samples.append((self._metric(sample.get("labels", _NULL)), value))
        return ExprCase(
            self._text(entries, "expr"),
            self._duration(entries, "eval_time") or 0,
            tuple(samples),
            node.line,
        )

    def _metric(self, node: YamlNode) -> LabelSet:
        text = "" if node.is_null else self.string(node, "labels") or ""
        if not text.strip():
            return EMPTY_LABELS
        try:
            return parse_metric(text)
        except QueryError as error:
            self.problem(node, f"labels do not parse: {error}")
            return EMPTY_LABELS

    def _value(self, node: YamlNode) -> float:
        """A number as Go's YAML reads it: 1e3, .inf and NaN among them; 0 where it is left out."""
        if node.is_null:
            return 0.0
        text = (node.text or "").replace("_", "")
        if _GO_INFINITY.fullmatch(text):
            return -math.inf if text.startswith("-") else math.inf
        if text.lower() in (".nan", "nan"):
            return math.nan
        try:
            return float(text) if not text.lower().startswith(("0x", "0o", "0b")) else float(int(text, 0))
        except ValueError:
            self.problem(node, f"value must be a number, not {node.text or node.kind}")
            return math.nan

    def _start_ms(self, node: YamlNode) -> int:
        text = "" if node.is_null else node.text or ""
        if not text:
            return 0
        try:
            return round(float(text) * 1000)
        except ValueError:
            pass
        try:
            moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
            if moment.tzinfo is None:
                raise ValueError("no zone")
        except ValueError:
            allowed = "Unix seconds, or RFC 3339 such as 2021-01-01T00:00:00Z"
            self.problem(node, f'start_timestamp must not be "{text}"', allowed)
            return 0
        return calendar.timegm(moment.utctimetuple()) * 1000 + moment.microsecond // 1000

    def _duration(self, entries: Mapping[str, YamlNode], key: str) -> int | None:
        node = entries.get(key, _NULL)
        return None if node.is_null else self.duration_ms(node, key)

    def _text(self, entries: Mapping[str, YamlNode], key: str) -> str:
        node = entries.get(key, _NULL)
        return "" if node.is_null else self.string(node, key) or ""
