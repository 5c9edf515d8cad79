"""Prometheus' Alert Generator Compliance Specification 1.0, section by section.

Each test names the section that it walks. Where Prometheus itself differs from the letter we do as Prometheus
does, and the test says so.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import pytest
import yaml

from exporter.rules.format import read_rule_file
from exporter.rules.model import AlertingRule
from tests.compliance.rig import START_MS, Rig, ms, rig

RULES = """
groups:
- name: g
  interval: 1m
  rules:
  - alert: High
    expr: load > 10
    for: {for_}
    labels: {{severity: page, i: "i{{{{ $labels.i }}}}"}}
    annotations: {{summary: "load is {{{{ $value }}}}"}}
"""
ZERO = RULES.format(for_="0s")
PENDING = RULES.format(for_="3m")


def states(one: Rig) -> dict[str, str]:
    """The instances of the newest evaluation: the label i, and its state."""
    return {
        instance.labels.get("i"): instance.state.text
        for rule in one.evaluations[-1].rules
        for instance in rule.active
    }


def minutes(one: Rig, **labels: str) -> list[tuple[int, str]]:
    """When an alert was sent, in minutes, and whether as firing or as resolved at that time."""
    return [
        (at // 60, "firing" if ms(alert["endsAt"]) > START_MS + at * 1000 else "resolved")
        for at, alert in one.sent
        if labels.items() <= alert["labels"].items()
    ]


# -- Alert Format -----------------------------------------------------------------------------------------


async def test_alert_format() -> None:
    """Alert Format: labels, annotations, startsAt, endsAt, generatorURL; times in RFC 3339 milliseconds."""
    async with rig(ZERO) as one:
        one.hold(load=11)
        await one.evaluate()
    ((_, alert),) = one.sent
    assert alert == {
        "labels": {"alertname": "High", "severity": "page", "i": "i1"},
        "annotations": {"summary": "load is 11"},
        "startsAt": "2023-11-14T22:13:20.000Z",
        "endsAt": "2023-11-14T22:17:20.000Z",
        "generatorURL": "http://x/graph?g0.expr=load > 10",
    }


# -- Alerting Rules ---------------------------------------------------------------------------------------

EXAMPLE = """
groups:
- name: example
  rules:
  - alert: HighRequestLatency
    expr: job:request_latency_seconds:mean5m{job="myjob"} > 0.5
    for: 10m
    labels:
      severity: page
    annotations:
      summary: High request latency
  - alert: VeryHighRequestLatency
    expr: job:request_latency_seconds:mean5m{job="myjob"} > 1
"""


@pytest.mark.parametrize("text", [EXAMPLE, json.dumps(yaml.safe_load(EXAMPLE))], ids=["yaml", "json"])
def test_rule_format(text: str) -> None:
    """Alerting Rules, The Format: the example, as YAML and as the equivalent JSON."""
    (group,) = read_rule_file(text, "example.yml")
    high, very = group.rules
    assert isinstance(high, AlertingRule)
    assert isinstance(very, AlertingRule)
    assert (group.name, group.interval_ms) == ("example", None)
    assert (high.name, high.for_ms, dict(high.labels), dict(high.annotations)) == (
        "HighRequestLatency", 600_000, {"severity": "page"}, {"summary": "High request latency"},
    )  # fmt: skip
    assert (very.for_ms, dict(very.labels), dict(very.annotations)) == (0, {}, {})


async def test_results_are_there_for_the_next_rule() -> None:
    """Constraints 1: rules run in their order, each sees the results of those before it in the same cycle."""
    text = """
groups:
- name: g
  rules:
  - {alert: Early, expr: 'ALERTS{alertname="First"}'}
  - {record: doubled, expr: 2 * load}
  - {alert: First, expr: doubled > 20}
  - {alert: Second, expr: 'ALERTS{alertname="First", alertstate="firing"} == 1'}
"""
    async with rig(text) as one:
        one.hold(load=11)
        await one.evaluate()
        assert {alert["labels"]["alertname"] for _, alert in one.sent} == {"First", "Second"}


TEMPLATES = {
    "{{ $labels.i }} {{ .Labels.i }}": "1 1",
    "{{ $value }} {{ .Value }}": "11.5 11.5",
    "{{ humanize 12345.0 }}": "12.35k",
    "{{ humanize1024 2048.0 }}": "2ki",
    "{{ humanizeDuration 90.0 }}": "1m 30s",
    "{{ humanizePercentage 0.123 }}": "12.3%",
    "{{ humanizeTimestamp 0.0 }}": "1970-01-01 00:00:00 +0000 UTC",
    "{{ title `ab cd` }} {{ toUpper `a` }} {{ toLower `B` }}": "Ab Cd A b",
    "{{ match `a.c` `abc` }} {{ reReplaceAll `b` `x` `abc` }}": "true axc",
    "{{ stripPort `h:80` }}": "h",
    "{{ query `load` | first | value }} {{ query `load` | first | label `i` }}": "11.5 1",
    "{{ range query `load` | sortByLabel `i` }}{{ .Value }};{{ end }}": "11.5;",
    "{{ define `a` }}{{ .arg0 }}{{ end }}{{ template `a` (args 1) }}": "1",
    "{{ if gt $value 1.0 }}yes{{ else }}no{{ end }}": "yes",
    # optional ones: never a reason to refuse the file
    "{{ $externalLabels.cluster }}{{ $externalURL }}": "chttp://x",
    "{{ .ExternalLabels.cluster }}{{ .ExternalURL }}": "chttp://x",
    "{{ safeHtml `a` }}": "a",
}
OPTIONAL = (
    "{{ graphLink `up` }}",
    "{{ tableLink `up` }}",
    "{{ pathPrefix }}",
    "{{ query `load` | first | strvalue }}",
)


@pytest.mark.parametrize("field", ["labels", "annotations"])
async def test_templates(field: str) -> None:
    """Constraints 2: every variable and function in labels and annotations; optional ones are accepted."""
    texts = {f"t{number}": text for number, text in enumerate([*TEMPLATES, *OPTIONAL])}
    rules = {"groups": [{"name": "g", "rules": [{"alert": "A", "expr": "load > 1", field: texts}]}]}
    async with rig(yaml.safe_dump(rules)) as one:
        one.hold(load=11.5)
        evaluation = await one.evaluate()
        assert evaluation.rules[0].error == ""
        ((_, alert),) = one.sent
    found = {name: alert[field].get(name, "") for name in texts}
    wanted = dict(zip(texts, TEMPLATES.values(), strict=False))
    assert {name: found[name] for name in wanted} == wanted


# -- Executing an Alerting Rule ---------------------------------------------------------------------------


async def test_regular_intervals() -> None:
    """Executing an Alerting Rule: an instant query for the current time at the group's interval."""
    async with rig(ZERO.replace("1m", "20s")) as one:
        task = asyncio.create_task(one.rules.run())
        loop = asyncio.get_running_loop()
        for _ in range(12):
            await one.clock.advance(5)
            await loop.run_in_executor(one.rules._pool, lambda: None)  # the evaluation has run before this
            await one.clock.advance(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        times = [evaluation.ts_ms for evaluation in one.evaluations]
    assert len(times) == 3
    assert {later - earlier for earlier, later in itertools.pairwise(times)} == {20_000}
    assert all(START_MS < at <= START_MS + 60_000 for at in times)


async def test_the_default_interval() -> None:
    """Executing an Alerting Rule: without an interval that of `evaluation_interval` counts.

    The specification's default is a minute; here, as in Prometheus, the configuration has the last word.
    """
    async with rig(EXAMPLE, interval_s=60) as one:
        assert (await one.get("/api/v1/rules"))["groups"][0]["interval"] == 60


async def test_step_1_an_alert_for_each_element() -> None:
    """Processing Instant Query Result, Step 1: each element makes an alert of its labels.

    The specification's example keeps the metric name; Prometheus drops it, and so do we.
    """
    text = "groups: [{name: g, rules: [{alert: A, expr: my_metric_total}]}]"
    async with rig(text) as one:
        one.hold_series(
            {
                'my_metric_total{job="foo",status="500"}': 10,
                'my_metric_total{job="foo",status="400"}': 18,
            }
        )
        await one.evaluate()
        labels = [alert["labels"] for _, alert in one.sent]
    assert sorted(labels, key=lambda one: str(one["status"])) == [
        {"alertname": "A", "job": "foo", "status": "400"},
        {"alertname": "A", "job": "foo", "status": "500"},
    ]


async def test_step_2_templates_run_for_each_alert() -> None:
    """Step 2: templates see their own element; labels of the rule override those of the element."""
    async with rig(ZERO) as one:
        one.hold_series({'load{i="1",severity="none"}': 11, 'load{i="2"}': 22})
        await one.evaluate()
        found = {
            (alert["labels"]["i"], alert["labels"]["severity"], alert["annotations"]["summary"])
            for _, alert in one.sent
        }
    assert found == {("i1", "page", "load is 11"), ("i2", "page", "load is 22")}


async def test_step_3_the_name_is_a_label() -> None:
    """Step 3: alertname is added, over any label of that name."""
    text = "groups: [{name: g, rules: [{alert: A, expr: load, labels: {alertname: other}}]}]"
    async with rig(text) as one:
        one.hold_series({'load{alertname="mine",i="1"}': 1})
        await one.evaluate()
        assert [alert["labels"] for _, alert in one.sent] == [{"alertname": "A", "i": "1"}]


async def test_step_4_equal_labels_are_an_error() -> None:
    """Step 4: two alerts of the same labels: nothing is sent, no series is made, /api/v1/rules says why."""
    text = "groups: [{name: g, rules: [{alert: A, expr: load > 0, labels: {i: same}}]}]"
    async with rig(text) as one:
        one.hold_series({'load{i="1"}': 1, 'load{i="2"}': 1})
        await one.evaluate()
        assert one.sent == []
        assert one.series("ALERTS") == {}
        rule = (await one.get("/api/v1/rules"))["groups"][0]["rules"][0]
        assert (rule["health"], rule["state"], rule["alerts"]) == ("err", "inactive", [])
        assert "same labelset" in rule["lastError"]


async def test_step_4_also_for_what_fires() -> None:
    """Step 4: an alert that fired before is not sent either while the rule errs, and again afterwards."""
    text = "groups: [{name: g, rules: [{alert: A, expr: load > 0, labels: {i: same}}]}]"
    async with rig(text) as one:
        one.hold_series({'load{i="1"}': 1})
        await one.evaluate()
        one.hold_series({'load{i="2"}': 1})
        await one.steps(3)
        assert [minute for minute, _ in minutes(one)] == [0]
        one.hold_series({'load{i="2"}': None})
        await one.steps(1)
        assert minutes(one) == [(0, "firing"), (4, "firing")]


async def test_pending_state() -> None:
    """`pending` State Conditions: pending for less than `for` since ActiveAt, annotations new."""
    async with rig(PENDING) as one:
        one.hold(load=11)
        await one.evaluate()
        for value in (12, 13):
            assert states(one) == {"i1": "pending"}
            await one.step(load=value)
        assert states(one) == {"i1": "pending"}
        (alert,) = (await one.get("/api/v1/alerts"))["alerts"]
        assert (alert["state"], ms(alert["activeAt"])) == ("pending", START_MS)
        assert alert["annotations"] == {"summary": "load is 13"}
        assert one.sent == []


async def test_firing_state() -> None:
    """`firing` State Conditions: fires once `for` has passed, greater or equal; FiredAt is that time."""
    async with rig(PENDING) as one:
        one.hold(load=11)
        await one.evaluate()
        await one.steps(3)
        assert states(one) == {"i1": "firing"}
        ((at, alert),) = one.sent
        assert (at, ms(alert["startsAt"])) == (180, START_MS + 180_000)
        await one.step(load=12)
        (alert,) = (await one.get("/api/v1/alerts"))["alerts"]
        assert (ms(alert["activeAt"]), alert["annotations"]) == (START_MS, {"summary": "load is 12"})


async def test_zero_for_skips_pending() -> None:
    """`firing` State Conditions: with `for: 0s` it fires the first time it is created."""
    async with rig(ZERO) as one:
        one.hold(load=11)
        await one.evaluate()
        assert states(one) == {"i1": "firing"}
        assert one.series('ALERTS{alertstate="pending"}') == {}


async def test_small_for_waits_for_the_next_evaluation() -> None:
    """`firing` State Conditions: a `for` shorter than the interval is pending once, then fires."""
    async with rig(RULES.format(for_="5s")) as one:
        one.hold(load=11)
        await one.evaluate()
        assert states(one) == {"i1": "pending"}
        await one.steps(1)
        assert states(one) == {"i1": "firing"}


@pytest.mark.parametrize("rules", [ZERO, PENDING], ids=["firing", "pending"])
async def test_inactive_state(rules: str) -> None:
    """`inactive` State Conditions: what is not produced is inactive at once, later it is new."""
    async with rig(rules) as one:
        one.hold(load=11)
        await one.evaluate()
        await one.step(load=9)
        assert states(one) == {}
        assert (await one.get("/api/v1/alerts"))["alerts"] == []
        await one.step(load=11)
        (alert,) = (await one.get("/api/v1/alerts"))["alerts"]
        assert ms(alert["activeAt"]) == START_MS + 120_000
        assert alert["state"] == ("firing" if rules is ZERO else "pending")


async def test_a_series_that_ends_is_inactive_too() -> None:
    """`inactive` State Conditions: also where the series has gone (missing_data: resolve is the default)."""
    async with rig(ZERO) as one:
        one.hold(load=11)
        await one.evaluate()
        await one.step(load=None)
        assert states(one) == {}
        assert minutes(one) == [(0, "firing"), (1, "resolved")]


async def test_time_series() -> None:
    """Time Series to Create: ALERTS of 1 with the alert's labels and state, none for an inactive alert."""
    text = """
groups: [{name: g, interval: 1m, rules: [{alert: A, expr: load > 10, for: 1m, labels: {severity: page}}]}]
"""
    async with rig(text) as one:
        one.hold_series({'load{alertstate="very_critical",i="1"}': 11})
        await one.evaluate()
        pending = 'ALERTS{alertname="A", alertstate="pending", i="1", severity="page"}'
        assert one.series("ALERTS") == {pending: 1}
        await one.steps(1)
        assert one.series("ALERTS") == {pending.replace("pending", "firing"): 1}
        assert list(one.series("timestamp(ALERTS)").values()) == [(START_MS + 60_000) / 1000]
        one.hold_series({'load{alertstate="very_critical",i="1"}': 1})
        await one.steps(1)
        assert one.series("ALERTS") == {}


# -- Sending Alerts to Alertmanager -----------------------------------------------------------------------


async def test_only_firing_and_inactive_alerts_are_sent() -> None:
    """Sending Alerts to Alertmanager: nothing of a pending alert, also not when it ends unfired."""
    async with rig(PENDING) as one:
        one.hold(load=11)
        await one.evaluate()
        await one.steps(1)
        await one.step(load=1)
        await one.steps(3)
        assert one.posts == []


async def test_sent_after_evaluations_only() -> None:
    """Sending Alerts to Alertmanager: nothing leaves between two evaluations, whatever time passes."""
    async with rig(ZERO) as one:
        one.hold(load=11)
        await one.evaluate()
        before = len(one.posts)
        await one.clock.advance(600)
        assert len(one.posts) == before


@pytest.mark.parametrize(
    ("interval", "every_s"),
    [("15s", 60), ("20s", 60), ("25s", 75), ("45s", 90), ("1m", 60), ("2m", 120)],
)
async def test_firing_is_sent_again(interval: str, every_s: int) -> None:
    """Conditions for Sending `firing` Alerts: at once, then at the first multiple of the interval that is not
    below ResendDelay, one minute."""
    async with rig(ZERO.replace("1m", interval)) as one:
        one.hold(load=11)
        await one.evaluate()
        while one.clock.now_ms() < START_MS + 600_000:
            await one.steps(1)
        times = [at for at, _ in one.sent]
    assert times[0] == 0
    assert {later - earlier for earlier, later in itertools.pairwise(times)} == {every_s}


async def test_inactive_is_sent_for_fifteen_minutes() -> None:
    """Conditions for Sending `inactive` Alerts: at once, each minute again, for less than 15 minutes."""
    async with rig(ZERO) as one:
        one.hold(load=11)
        await one.evaluate()
        await one.step(load=1)
        await one.steps(20)
        assert minutes(one) == [(0, "firing"), *((minute, "resolved") for minute in range(1, 16))]
        assert {ms(alert["endsAt"]) for at, alert in one.sent if at} == {START_MS + 60_000}


@pytest.mark.parametrize(("rules", "state"), [(ZERO, "firing"), (RULES.format(for_="10m"), "pending")])
async def test_a_new_alert_ends_the_repetition(rules: str, state: str) -> None:
    """Conditions for Sending `inactive` Alerts: not once a new active alert has the same labels."""
    async with rig(rules) as one:
        one.hold(load=11)
        await one.evaluate()
        await one.steps(10)
        await one.step(load=1)
        sent = len(one.sent)
        await one.step(load=11)
        assert states(one) == {"i1": state}
        await one.steps(3)
        later = [entry for _, entry in minutes(one)[sent:]]
    assert later == (["firing"] * 4 if state == "firing" else [])


async def test_payload() -> None:
    """Payload Format to Send Alerts to Alertmanager: a list; startsAt is FiredAt also of what is inactive;
    endsAt is ResolvedAt, or four times the longer of ResendDelay and interval ahead.

    The letter counts the latter from startsAt, Prometheus and we from the evaluation: an alert that fires for
    longer would otherwise be over at each repetition.
    """
    for interval_s, ahead_s in ((60, 240), (300, 1200)):
        async with rig(ZERO.replace("1m", f"{interval_s}s")) as one:
            one.hold(load=11)
            await one.evaluate()
            await one.steps(1)
            await one.step(load=1)
            found = [(at, ms(alert["startsAt"]), ms(alert["endsAt"])) for at, alert in one.sent]
        assert found == [
            (at, START_MS, START_MS + 1000 * ends)
            for at, ends in (
                (0, ahead_s),
                (interval_s, interval_s + ahead_s),
                (2 * interval_s, 2 * interval_s),
            )
        ]


async def test_many_alerts_all_arrive() -> None:
    """Payload Format: every alert of an evaluation is in a list that was sent, each once."""
    async with rig(ZERO) as one:
        one.hold_series({f'load{{i="{number}"}}': 11 for number in range(500)})
        await one.evaluate()
        names = [alert["labels"]["i"] for _, alert in one.sent]
    assert sorted(names) == sorted(f"i{number}" for number in range(500))


# -- APIs to Support --------------------------------------------------------------------------------------


async def test_rules_api() -> None:
    """APIs to Support, GET /api/v1/rules: groups, rules and alerts with the fields and values asked for."""
    async with rig(PENDING) as one:
        one.hold(load=11)
        await one.evaluate()
        (group,) = (await one.get("/api/v1/rules"))["groups"]
        assert (group["name"], group["interval"], group["file"]) == ("g", 60, "rules.yml")
        (rule,) = group["rules"]
        assert isinstance(rule.pop("evaluationTime"), int | float)
        assert rule == {
            "type": "alerting",
            "name": "High",
            "query": "load > 10",
            "duration": 180,
            "keepFiringFor": 0,
            "labels": {"severity": "page", "i": "i{{ $labels.i }}"},
            "annotations": {"summary": "load is {{ $value }}"},
            "lastEvaluation": "2023-11-14T22:13:20Z",
            "health": "ok",
            "state": "pending",
            "alerts": [
                {
                    "activeAt": "2023-11-14T22:13:20Z",
                    "state": "pending",
                    "value": "1.1e+01",
                    "labels": {"alertname": "High", "severity": "page", "i": "i1"},
                    "annotations": {"summary": "load is 11"},
                }
            ],
        }


async def test_the_state_of_a_rule() -> None:
    """GET /api/v1/rules: unknown and inactive at first, pending, firing with one that fires, inactive."""
    async with rig(PENDING) as one:

        async def shown() -> tuple[str, str]:
            rule: dict[str, Any] = (await one.get("/api/v1/rules"))["groups"][0]["rules"][0]
            return rule["health"], rule["state"]

        assert await shown() == ("unknown", "inactive")
        one.hold(load=11)
        await one.evaluate()
        assert await shown() == ("ok", "pending")
        await one.steps(3)
        one.hold_series({'load{i="2"}': 11})
        await one.steps(1)
        assert states(one) == {"i1": "firing", "i2": "pending"}
        assert await shown() == ("ok", "firing")
        one.hold_series({'load{i="1"}': 1, 'load{i="2"}': 1})
        await one.steps(1)
        assert await shown() == ("ok", "inactive")


async def test_alerts_api_is_the_union() -> None:
    """GET /api/v1/alerts: the alerts of all rules, as /api/v1/rules shows them."""
    text = """
groups:
- {name: g, rules: [{alert: A, expr: load > 10}, {alert: B, expr: load > 10, for: 5m}]}
- {name: h, rules: [{alert: C, expr: load > 20}]}
"""
    async with rig(text) as one:
        one.hold_series({'load{i="1"}': 11, 'load{i="2"}': 22})
        await one.evaluate()
        groups = (await one.get("/api/v1/rules"))["groups"]
        of_rules = [alert for group in groups for rule in group["rules"] for alert in rule["alerts"]]
        of_alerts = (await one.get("/api/v1/alerts"))["alerts"]
    assert len(of_alerts) == 5
    assert sorted(of_alerts, key=str) == sorted(of_rules, key=str)
