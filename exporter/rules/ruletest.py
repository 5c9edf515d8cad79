"""Rule tests: made-up series through the same evaluation as live rules, then a look at what came out.

Source: Prometheus' page "Unit testing for rules", and promtool's behaviour where the page is silent: groups
run at the test file's evaluation interval whatever their own is, samples are appended as time goes on, a
rule that cannot be evaluated ends its test, an `eval_time` between two evaluations sees the one before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from exporter.errors import QueryError
from exporter.model.durations import format_duration
from exporter.model.labels import EMPTY_LABELS, LabelSet
from exporter.model.samples import SampleBatch
from exporter.promql.engine import Engine
from exporter.promql.values import InstantVector, ScalarValue
from exporter.rules.ahead_query import AheadQueries, Grid
from exporter.rules.alert import AlertInstance, AlertState
from exporter.rules.emptiness import fruitful
from exporter.rules.engine_query import EngineQueries
from exporter.rules.evaluation import GroupEvaluation
from exporter.rules.expand import TemplateSettings
from exporter.rules.group import GroupState, evaluate_group
from exporter.rules.model import AlertingRule, RuleGroup
from exporter.rules.ruletest_diff import alert_difference, notification_difference, sample_difference
from exporter.rules.ruletest_format import AlertCase, ExpectedAlert, ExprCase, TestFile, TestGroup
from exporter.rules.ruletest_notify import Sender
from exporter.storage import MemoryStorage

Samples = list[tuple[LabelSet, float]]


@dataclass(frozen=True, slots=True)
class TestResult:
    """One test: what failed, in promtool's words ('' for nothing), and which rules it proved.

    `fired` and `silent` are keys of alerting rules whose firing, or not firing, a case looked at.
    """

    __test__ = False

    name: str
    line: int
    failures: tuple[str, ...] = ()
    fired: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class FileResult:
    """All tests of one file, and the alerting rules of its rule files."""

    file: str
    tests: tuple[TestResult, ...] = ()
    rules: tuple[AlertingRule, ...] = ()
    error: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.error and not any(test.failures for test in self.tests)


def run_tests(
    test_file: TestFile,
    groups: Sequence[RuleGroup],
    *,
    lookback_delta_ms: int = 300_000,
    wanted: Callable[[str], bool] = lambda name: True,  # noqa: ARG005
    before_each: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005
) -> FileResult:
    """Run the tests of a file over the groups of its rule files; `wanted` chooses by test name."""
    ordered = _in_order(groups, test_file.group_eval_order)
    chosen = [test for test in test_file.tests if wanted(test.name)]
    results = []
    for position, test in enumerate(chosen):
        before_each(position, len(chosen))
        results.append(_Test(test_file, test, ordered, lookback_delta_ms).run())
    rules = tuple(rule for group in groups for rule in group.rules if isinstance(rule, AlertingRule))
    return FileResult(test_file.file, tuple(results), rules)


def _in_order(groups: Sequence[RuleGroup], order: Sequence[str]) -> list[RuleGroup]:
    places = {name: position for position, name in enumerate(order)}
    return sorted(groups, key=lambda group: places.get(group.name, len(places)))


@dataclass(slots=True)
class _Findings:
    failures: list[str] = field(default_factory=list)
    fired: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)


class _Test:
    """One test in progress."""

    def __init__(
        self, test_file: TestFile, test: TestGroup, groups: Sequence[RuleGroup], lookback_delta_ms: int
    ) -> None:
        self._fuzzy = test_file.fuzzy_compare
        self._interval_ms = test_file.evaluation_interval_ms
        self._test = test
        self._storage = MemoryStorage()
        self._lookback_delta_ms = lookback_delta_ms
        self._queries = EngineQueries(self._engine(self._storage))
        names = {series.labels.name for series in test.series}
        alive = fruitful((rule for group in groups for rule in group.rules), names)
        # A rule that can return nothing in this test is not evaluated: it changes no outcome, only the time.
        self._groups = [
            replace(group, rules=tuple(rule for rule in group.rules if rule.key in alive)) for group in groups
        ]
        self._all_groups = groups
        self._states = {group.key: GroupState() for group in groups}
        self._settings = TemplateSettings(test.external_labels, test.external_url)
        self._sender = Sender()
        self._sends = any(case.notifications is not None for case in test.alert_cases)

    def run(self) -> TestResult:
        found = _Findings()
        if self._evaluate(found):
            for case in self._test.expr_cases:
                found.failures.extend(self._check_expr(case))
        return TestResult(
            self._test.name,
            self._test.line,
            tuple(found.failures),
            frozenset(found.fired),
            frozenset(found.silent),
        )

    def _engine(self, storage: MemoryStorage) -> Engine:
        return Engine(storage, lookback_delta_ms=self._lookback_delta_ms, subquery_step_ms=self._interval_ms)

    def _ahead(self, end_ms: int) -> AheadQueries:
        """Queries that know the whole test beforehand."""
        whole = MemoryStorage()
        _Feed(self._test, whole).until(end_ms)
        grid = Grid(self._test.start_ms, self._interval_ms, end_ms // self._interval_ms + 1)
        rules = [rule for group in self._groups for rule in group.rules]
        return AheadQueries(self._queries, self._engine(whole), rules, grid)

    def _evaluate(self, found: _Findings) -> bool:
        """Walk through the test's time; False where a rule failed."""
        cases = sorted(self._test.alert_cases, key=lambda case: case.eval_time_ms)
        times = [case.eval_time_ms for case in self._test.alert_cases]
        times += [case.eval_time_ms for case in self._test.expr_cases]
        end_ms = max(times, default=0)
        self._rule_queries = self._ahead(end_ms)
        feed = _Feed(self._test, self._storage)
        for at_ms in range(0, end_ms + 1, self._interval_ms):
            feed.until(at_ms)
            errors: list[str] = []
            for group in self._groups:
                evaluation = self._run_group(group, at_ms)
                errors.extend(_errors(evaluation, at_ms))
                if self._sends:
                    self._sender.take(evaluation)
            if errors:
                found.failures.extend(errors)
                return False
            while cases and at_ms <= cases[0].eval_time_ms < at_ms + self._interval_ms:
                self._check_alert(cases.pop(0), found)
        return True

    def _run_group(self, group: RuleGroup, at_ms: int) -> GroupEvaluation:
        return evaluate_group(
            group,
            self._states[group.key],
            self._test.start_ms + at_ms,
            self._rule_queries(),
            self._storage.append_batch,
            settings=self._settings,
        )

    def _check_alert(self, case: AlertCase, found: _Findings) -> None:
        got: list[ExpectedAlert] = []
        for group in self._all_groups:
            for rule in group.rules:
                if not isinstance(rule, AlertingRule) or rule.name != case.alertname:
                    continue
                firing = _firing(self._states[group.key].of(rule).instances.values())
                (found.fired if firing else found.silent).add(rule.key)
                got.extend(firing)
        head = self._head(f"alertname: {case.alertname}, time: {format_duration(case.eval_time_ms)}")
        difference = alert_difference(case.alerts, got)
        if difference:
            found.failures.append(head + difference)
        if case.notifications is not None:
            sent = [one for one in self._sender.sent if one.labels.get("alertname") == case.alertname]
            sent = [replace(one, at_ms=one.at_ms - self._test.start_ms) for one in sent]
            difference = notification_difference(case.notifications, sent)
            if difference:
                found.failures.append(head + difference)

    def _check_expr(self, case: ExprCase) -> Iterator[str]:
        head = self._head(f'expr: "{case.expr}", time: {format_duration(case.eval_time_ms)}')
        try:
            got = self._vector(case.expr, self._test.start_ms + case.eval_time_ms)
        except QueryError as error:
            yield f"{head} err: {error}"
            return
        difference = sample_difference(case.samples, got, self._same_value)
        if difference:
            yield head + difference

    def _vector(self, text: str, ts_ms: int) -> Samples:
        value = self._queries()(text, ts_ms)
        if isinstance(value, ScalarValue):
            return [(EMPTY_LABELS, value.value)]
        if isinstance(value, InstantVector):
            return list(zip(value.labels, value.values.tolist(), strict=True))
        raise QueryError("rule result is not a vector or scalar")

    def _same_value(self, one: float, other: float) -> bool:
        if one == other or (math.isnan(one) and math.isnan(other)):
            return True
        return self._fuzzy and other in (math.nextafter(one, math.inf), math.nextafter(one, -math.inf))

    def _head(self, what: str) -> str:
        return (f"    name: {self._test.name},\n" if self._test.name else "") + f"    {what},"


class _Feed:
    """Appends a test's samples as its time goes on."""

    def __init__(self, test: TestGroup, storage: MemoryStorage) -> None:
        self._storage = storage
        self._start_ms = test.start_ms
        self._interval_ms = test.interval_ms
        self._next = 0
        self._steps = max((len(series.values) for series in test.series), default=0)
        self._series = test.series
        self._all = tuple(series.labels for series in test.series)

    def until(self, at_ms: int) -> None:
        """Append every sample that is not later than `at_ms` after the start."""
        while self._next < self._steps and self._next * self._interval_ms <= at_ms:
            step = self._next
            present = [
                (series.labels, value)
                for series in self._series
                if step < len(series.values) and (value := series.values[step]) is not None
            ]
            labels = tuple(one for one, _ in present)
            if len(labels) == len(self._all):
                labels = self._all
            values = np.array([value for _, value in present], np.float64)
            if labels:
                ts_ms = self._start_ms + step * self._interval_ms
                self._storage.append_batch(SampleBatch(ts_ms, labels, values))
            self._next += 1


def _firing(instances: Iterable[AlertInstance]) -> list[ExpectedAlert]:
    return [
        ExpectedAlert(instance.labels, LabelSet.of(instance.annotations))
        for instance in instances
        if instance.state is AlertState.FIRING
    ]


def _errors(evaluation: GroupEvaluation, at_ms: int) -> Iterator[str]:
    for one in evaluation.rules:
        if one.error and not one.template_faults:
            yield f"    rule: {one.rule.name}, time: {format_duration(at_ms)}, err: {one.error}"
