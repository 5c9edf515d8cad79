"""Exporter: the program itself, from collectors to rules."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.dashboards.common import quantile, snapshot_age
from exporter.dashboards.model import GREEN, ORANGE, RED, Dashboard, Panel, Row
from exporter.dashboards.panels import (
    UP_DOWN,
    YES_NO,
    alert_links,
    coloured,
    good_above,
    good_below,
    heatmap,
    lines,
    prom,
    stat,
    table,
    timeline,
    trouble,
    values,
)

_NO_TARGET = "no target is scraped"


def itself() -> Dashboard:
    """Whether the watcher is well."""
    return Dashboard(
        "quantum-exporter",
        "Quantum / Exporter",
        "The program itself: its process, snapshots, head, rules, collectors, queries and targets.",
        (
            Row("State", _state()),
            Row("Process", _process()),
            Row("Snapshots and head", _head()),
            Row("Rules", _rules()),
            Row("Collectors", _collectors()),
            Row("Queries", _queries()),
            Row("Targets and exposition", _targets()),
        ),
    )


def _state() -> Sequence[Panel]:
    oldest = (
        "max(time() - quantum_rule_group_last_evaluation_timestamp_seconds "
        "- quantum_rule_group_interval_seconds)"
    )
    return (
        stat(
            "Version",
            prom("quantum_build_info", "{{version}}"),
            "Version that runs.",
            "none",
            graph=False,
            names=True,
            mappings=(values((1, "runs", GREEN)),),
        ),
        stat(
            "Up for",
            prom("time() - quantum_process_start_time_seconds", "uptime"),
            "Time since the program started.",
            "s",
            graph=False,
        ),
        stat(
            "Configuration",
            prom("quantum_config_last_reload_successful", "reload"),
            "Whether the last reload succeeded; after a failed one the old configuration runs on.",
            "none",
            mappings=(values((1, "current", GREEN), (0, "reload failed", RED)),),
            steps=good_above(1),
            graph=False,
        ),
        snapshot_age(),
        stat(
            "Evaluation overdue",
            prom(oldest, "overdue"),
            "How long the latest rule group is past its interval; negative: on time.",
            "s",
            steps=good_below(30, 120),
            links=alert_links("MetricsPipelineStalled"),
        ),
        stat(
            "Faults in 24 h",
            prom("sum(increase(quantum_faults_total[24h])) or vector(0)", "faults"),
            "Errors of this program itself that were isolated.",
            "short",
            steps=good_below(1),
            decimals=0,
        ),
    )


def _process() -> Sequence[Panel]:
    return (
        lines(
            "CPU",
            prom("rate(quantum_process_cpu_seconds_total[$__rate_interval])", "cores"),
            "Cores that the program uses.",
            "none",
            decimals=3,
            width=8,
        ),
        lines(
            "Memory",
            (
                prom("quantum_process_resident_memory_bytes", "resident"),
                prom("quantum_process_virtual_memory_bytes", "virtual"),
            ),
            "Memory of the process.",
            "bytes",
            width=8,
        ),
        lines(
            "Event loop",
            prom("quantum_event_loop_lag_seconds", "lag"),
            "Longest delay of the event loop: something computes where it should wait.",
            "s",
            width=8,
            steps=good_below(0.25),
        ),
        lines(
            "Files",
            (
                prom("quantum_process_open_fds", "open"),
                prom("quantum_process_max_fds", "allowed"),
            ),
            "File descriptors.",
            "short",
            width=8,
            height=6,
        ),
        lines(
            "Threads",
            prom("quantum_process_threads", "threads"),
            "Threads of the process.",
            "short",
            width=8,
            height=6,
        ),
        trouble(
            "Faults",
            prom("sum by (component) (increase(quantum_faults_total[1h]))", "{{component}}"),
            "Isolated errors of the last hour, by component.",
            width=8,
            height=6,
        ),
    )


def _head() -> Sequence[Panel]:
    buckets = "sum by (le) (increase(quantum_snapshot_duration_seconds_bucket[$__rate_interval]))"
    return (
        heatmap("Snapshot time", buckets, "Time to copy the registry into the head.", "s"),
        lines(
            "Head",
            (
                prom("quantum_head_series", "series"),
                prom("quantum_head_samples", "samples"),
            ),
            "What is in memory.",
            "short",
        ),
        trouble(
            "Refused and missed",
            (
                prom(
                    "sum by (reason) (increase(quantum_head_rejected_samples_total[1h]))",
                    "refused: {{reason}}",
                ),
                prom("increase(quantum_snapshots_missed_total[1h])", "missed snapshots"),
            ),
            "Samples that the head refused and snapshot slots that passed unused, in the last hour.",
            width=24,
            height=6,
        ),
    )


def _rules() -> Sequence[Panel]:
    share = "quantum_rule_group_last_duration_seconds / quantum_rule_group_interval_seconds"
    return (
        lines(
            "Evaluation time",
            prom("quantum_rule_group_last_duration_seconds", "{{group}}"),
            "Time of each group's last evaluation.",
            "s",
        ),
        lines(
            "Share of the interval",
            prom(share, "{{group}}"),
            "Evaluation time over the interval. At 1 a group misses slots.",
            "percentunit",
            steps=good_below(0.5, 1),
        ),
        trouble(
            "Failed evaluations",
            prom(
                "sum by (group) (increase(quantum_rule_evaluation_failures_total[1h]))",
                "{{group}}",
            ),
            "Rule evaluations of the last hour that failed.",
            width=8,
            links=alert_links("RuleEvaluationFailing"),
        ),
        trouble(
            "Missed slots",
            prom(
                "sum by (group) (increase(quantum_rule_group_iterations_missed_total[1h]))",
                "{{group}}",
            ),
            "Group slots of the last hour that passed unused.",
            width=8,
            links=alert_links("RuleGroupTooSlow"),
        ),
        lines(
            "Alerts by state",
            prom("sum by (state) (quantum_alerts)", "{{state}}"),
            "Alert instances, pending and firing.",
            "short",
            stacked=True,
            overrides=coloured(pending=ORANGE, firing=RED),
            width=8,
        ),
        table(
            "Groups",
            (
                prom("quantum_rule_group_rules", table=True),
                prom("quantum_rule_group_interval_seconds", table=True),
                prom("quantum_rule_group_last_duration_seconds", table=True),
                prom("time() - quantum_rule_group_last_evaluation_timestamp_seconds", table=True),
            ),
            "Each rule group.",
            merged=True,
            hidden=("Time", "__name__"),
            order=("group",),
            renamed={
                "Value #A": "rules",
                "Value #B": "interval",
                "Value #C": "last took",
                "Value #D": "evaluated ago",
            },
            units={"interval": "s", "last took": "s", "evaluated ago": "s"},
        ),
    )


def _collectors() -> Sequence[Panel]:
    return (
        timeline(
            "Collectors",
            prom("quantum_collector_success", "{{collector}}"),
            "Whether each collector's last run succeeded.",
            mappings=(YES_NO,),
            width=12,
            height=13,
        ),
        lines(
            "Collector time",
            prom("topk(8, quantum_collector_duration_seconds)", "{{collector}}"),
            "Time of the last run of the eight slowest collectors.",
            "s",
            height=13,
        ),
        trouble(
            "Failed and skipped runs",
            prom(
                "sum by (collector, outcome) "
                '(increase(quantum_collector_runs_total{outcome!="success"}[1h]))',
                "{{collector}}: {{outcome}}",
            ),
            "Runs of the last hour that gave nothing. Skipped: the run before had not ended.",
            width=12,
        ),
        trouble(
            "Refused values",
            prom(
                "sum by (collector) (increase(quantum_collector_refused_values_total[1h]))",
                "{{collector}}",
            ),
            "Values of the last hour that are no samples: text, NULL, double label sets.",
            width=12,
        ),
    )


def _queries() -> Sequence[Panel]:
    p95 = quantile(0.95, "quantum_query_duration_seconds")
    return (
        lines(
            "Query time, p95",
            prom(p95, "p95"),
            "PromQL queries over HTTP.",
            "s",
            width=8,
            no_value="nobody asked",
        ),
        lines(
            "Queries running",
            prom("quantum_queries_running", "running"),
            "PromQL queries under way.",
            "short",
            width=8,
        ),
        trouble(
            "Failed queries",
            prom("sum(increase(quantum_query_failures_total[1h]))", "failed"),
            "PromQL queries of the last hour that failed.",
            width=8,
        ),
    )


def _targets() -> Sequence[Panel]:
    buckets = "sum by (le) (rate(quantum_exposition_duration_seconds_bucket[$__rate_interval]))"
    return (
        stat(
            "Targets down",
            prom("count(up == 0) or vector(0)", "down"),
            "Targets whose last scrape failed.",
            "short",
            steps=good_below(1),
            links=alert_links("TargetDown"),
            decimals=0,
            width=6,
        ),
        stat(
            "Missed scrapes in 1 h",
            prom("sum(increase(quantum_scrapes_missed_total[1h])) or vector(0)", "missed"),
            "Slots in which a target should have been scraped and was not.",
            "short",
            steps=good_below(1),
            decimals=0,
            width=6,
        ),
        stat(
            "Targets",
            prom("count(up) or vector(0)", "targets"),
            "What collect.targets names or a service discovery found.",
            "short",
            decimals=0,
            width=6,
        ),
        stat(
            "Samples per second",
            prom("sum(rate(quantum_scraped_samples_total[5m])) or vector(0)", "samples"),
            "Samples that targets sent, over 5 minutes.",
            "short",
            width=6,
        ),
        timeline(
            "Target state",
            prom("up", "{{job}} {{instance}}"),
            "Whether each target answered; /api/v1/targets says why one did not.",
            mappings=(UP_DOWN,),
            height=8,
            no_value=_NO_TARGET,
        ),
        lines(
            "Slowest scrapes",
            prom("topk(10, scrape_duration_seconds)", "{{job}} {{instance}}"),
            "Time of a scrape, the ten slowest targets.",
            "s",
            width=8,
            steps=good_below(5),
            no_value=_NO_TARGET,
            links=alert_links("ScrapeSlow"),
        ),
        lines(
            "Series",
            prom("topk(10, scrape_samples_post_metric_relabeling)", "{{job}} {{instance}}"),
            "Series of a target, the ten largest.",
            "short",
            width=8,
            no_value=_NO_TARGET,
            links=alert_links("CardinalityGrowing"),
        ),
        lines(
            "New series",
            prom("topk(10, sum_over_time(scrape_series_added[1h]))", "{{job}} {{instance}}"),
            "Series of the last hour that were not there before, the ten targets with most.",
            "short",
            width=8,
            no_value=_NO_TARGET,
            links=alert_links("CardinalityGrowing"),
        ),
        trouble(
            "Failed scrapes",
            prom(
                'sum by (job, outcome) (increase(quantum_scrapes_total{outcome!="success"}[1h]))',
                "{{job}}: {{outcome}}",
            ),
            "Scrapes of the last hour that failed.",
            width=12,
        ),
        lines(
            "Samples",
            prom("sum by (job) (rate(quantum_scraped_samples_total[$__rate_interval]))", "{{job}}"),
            "Samples that targets sent, per second.",
            "short",
            width=12,
            no_value=_NO_TARGET,
        ),
        lines(
            "Rendering of /metrics, p95",
            prom(f"histogram_quantile(0.95, {buckets})", "p95"),
            "Time to render what others scrape from here.",
            "s",
            lowest=0,
            width=12,
            no_value="nobody scrapes",
        ),
        lines(
            "Samples on /metrics",
            prom("quantum_exposition_samples", "samples"),
            "What others scrape from here.",
            "short",
            lowest=0,
            width=12,
            no_value="nobody scrapes",
        ),
    )
