"""Upstream APIs: latency, errors, limits, cache, breaker, by provider."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.dashboards import thresholds as limits
from exporter.dashboards.common import durations, quantile
from exporter.dashboards.model import GREEN, ORANGE, RED, Dashboard, Panel, Row, Variable
from exporter.dashboards.panels import (
    UP_DOWN,
    alert_links,
    bar_gauge,
    good_above,
    good_below,
    lines,
    prom,
    sql,
    stat,
    table,
    timeline,
    values,
)

PROVIDER = Variable("provider", "Provider", "label_values(quantum_api_requests_total, provider)")
_OF = 'provider=~"$provider"'
_BREAKER = values((0, "closed", GREEN), (1, "half-open", ORANGE), (2, "open", RED))


def upstream() -> Dashboard:
    """How the providers answer, and how much of their limits is left."""
    return Dashboard(
        "quantum-upstream",
        "Quantum / Upstream APIs",
        "Latency, errors, rate limits, cache and breaker of each upstream provider. Cache hits are no calls.",
        (
            Row("Providers", _providers()),
            Row("Latency", _latency()),
            Row("Errors", _errors()),
            Row("Rate limits", _limits()),
            Row("Cache", _cache()),
        ),
        (PROVIDER,),
    )


def _ratio(selector: str, window: str, by: str = "") -> str:
    group = f" by ({by})" if by else ""
    top = f"sum{group} (rate(quantum_api_requests_total{{{_OF},{selector}}}[{window}]))"
    whole = f"sum{group} (rate(quantum_api_requests_total{{{_OF}}}[{window}]))"
    zero = f" or 0 * {whole}" if selector.startswith("outcome!=") else ""
    return f"({top}{zero}) / {whole}"


def _providers() -> Sequence[Panel]:
    return (
        stat(
            "Up",
            prom(f"quantum_provider_up{{{_OF}}}", "{{provider}}"),
            "Whether the provider's last poll succeeded.",
            "none",
            mappings=(UP_DOWN,),
            names=True,
            steps=good_above(1),
            graph=False,
            width=12,
            height=6,
            links=alert_links("AllApisFailing"),
        ),
        bar_gauge(
            "Success ratio (5 min)",
            prom(_ratio('outcome="success"', "5m", "provider"), "{{provider}}"),
            "Share of calls of the last 5 minutes that succeeded, as ApiReliabilityLow judges it.",
            "percentunit",
            highest=1,
            steps=good_above(limits.RELIABILITY_RATIO),
            width=12,
            height=6,
            links=alert_links("ApiReliabilityLow"),
        ),
        timeline(
            "Circuit breaker",
            prom(f"quantum_api_breaker_state{{{_OF}}}", "{{provider}}"),
            "Open: calls are refused at once until the provider recovers. Half-open: one call tries.",
            mappings=(_BREAKER,),
            width=12,
            height=7,
        ),
        lines(
            "Held back at the provider's word",
            prom(f"(quantum_api_paused_seconds{{{_OF}}} > 0) < +Inf", "{{provider}}"),
            "Time for which no call is made: Retry-After or a used-up quota.",
            "s",
            no_value="no provider asks to wait",
            width=12,
            height=7,
        ),
        lines(
            "Polls that failed",
            prom(
                "60 * sum by (provider, outcome) "
                f'(rate(quantum_provider_polls_total{{{_OF},outcome!="success"}}[$__rate_interval])) > 0',
                "{{provider}}: {{outcome}}",
            ),
            "Polls per minute by what went wrong, after all retries.",
            "short",
            no_value="no poll failed",
            height=7,
        ),
        lines(
            "Stopped until someone resumes",
            (
                prom(f"quantum_api_paused_seconds{{{_OF}}} == +Inf", "{{provider}}: bill"),
                prom(
                    f"quantum_api_stopped_endpoints{{{_OF}}} > 0", "{{provider}}: endpoints outside the plan"
                ),
            ),
            "A bill or a plan says no: waiting changes nothing.",
            "short",
            no_value="no provider is stopped",
            height=7,
            links=alert_links("ProviderStopped"),
        ),
        table(
            "Last 24 hours by API",
            sql("""
              SELECT api_name AS "API", calls, succeeded, success_percent / 100.0 AS "success",
                avg_response_ms AS "mean", p95_response_ms AS "p95", last_failure_at AS "last failure",
                last_call_at AS "last call"
              FROM v_api_reliability_summary ORDER BY calls DESC"""),
            "The view v_api_reliability_summary: the platform's own log and the calls measured here.",
            units={
                "success": "percentunit",
                "mean": "ms",
                "p95": "ms",
                "last failure": "dateTimeFromNow",
                "last call": "dateTimeFromNow",
            },
            height=8,
        ),
    )


def _latency() -> Sequence[Panel]:
    mean = (
        f"sum by (provider) (rate(quantum_api_request_duration_seconds_sum{{{_OF}}}[1h])) "
        f"/ sum by (provider) (rate(quantum_api_request_duration_seconds_count{{{_OF}}}[1h]))"
    )
    return (
        *durations(
            "Latency",
            "quantum_api_request_duration_seconds",
            _OF,
            "provider",
            limits.API_P95_S,
            what="calls",
            target="All chosen providers together. The target for p95 is 500 ms.",
            alert="ApiLatencyHigh",
        ),
        lines(
            "Mean over an hour",
            prom(mean, "{{provider}}"),
            "What SlowResponseTime looks at, by provider.",
            "s",
            steps=good_below(limits.SLOW_RESPONSE_S),
            links=alert_links("SlowResponseTime"),
        ),
        table(
            "Slowest calls of the last hour",
            sql("""
              SELECT "timestamp" AS "time", coalesce(context ->> 'provider', '') AS "provider",
                metric_name AS "endpoint", value AS "duration", context ->> 'status' AS "status",
                context ->> 'attempts' AS "attempts", coalesce(context ->> 'error', '') AS "error"
              FROM performance_metrics
              WHERE metric_type = 'api_response' AND "timestamp" > now() - interval '1 hour'
              ORDER BY value DESC LIMIT 20"""),
            "From performance_metrics: one row for each measured call.",
            units={"duration": "ms", "time": "dateTimeAsIsoNoDateIfToday"},
        ),
    )


def _errors() -> Sequence[Panel]:
    failed = f'quantum_api_requests_total{{{_OF},outcome!="success"}}'
    kinds = f"60 * sum by (outcome) (rate({failed}[$__rate_interval])) > 0"
    calls = f"60 * sum by (provider) (rate(quantum_api_requests_total{{{_OF}}}[$__rate_interval]))"
    return (
        lines(
            "Error ratio by provider",
            prom(_ratio('outcome!="success"', "5m", "provider"), "{{provider}}"),
            "Failed calls of the last 5 minutes. HighErrorRate looks at an hour of all providers.",
            "percentunit",
            steps=good_below(limits.ERROR_RATIO),
            highest=1,
            links=alert_links("HighErrorRate", "AllApisFailing"),
        ),
        lines(
            "Errors by kind",
            prom(kinds, "{{outcome}}"),
            "Failed calls per minute by what went wrong.",
            "short",
            no_value="no call failed",
            stacked=True,
        ),
        lines(
            "Calls",
            prom(calls, "{{provider}}"),
            "Calls per minute, retries among them.",
            "short",
            stacked=True,
        ),
        lines(
            "Retries",
            prom(
                f"60 * sum by (provider) (rate(quantum_api_retries_total{{{_OF}}}[$__rate_interval]))",
                "{{provider}}",
            ),
            "Calls per minute that repeat a failed one.",
            "short",
            stacked=True,
        ),
    )


def _limits() -> Sequence[Panel]:
    use = f"quantum_rate_limit_used{{{_OF}}} / quantum_rate_limit_limit{{{_OF}}}"
    over_time = f'quantum_rate_limit_used{{{_OF},window!="second"}} / quantum_rate_limit_limit{{{_OF}}}'
    wait = quantile(0.95, "quantum_rate_limit_wait_seconds", _OF, "provider")
    return (
        bar_gauge(
            "Limit in use",
            prom(use, "{{provider}} / {{window}}"),
            "Share of each window's limit that is used now.",
            "percentunit",
            highest=1,
            steps=good_below(limits.LIMIT_USE_RATIO, 1),
            width=8,
            links=alert_links("RateLimitNearlyUsed"),
        ),
        lines(
            "Limit use",
            prom(over_time, "{{provider}} / {{window}}"),
            "The same over time; windows of a second are left out, since one call fills some.",
            "percentunit",
            highest=1,
            steps=good_below(limits.LIMIT_USE_RATIO, 1),
            width=8,
            links=alert_links("RateLimitNearlyUsed"),
        ),
        table(
            "Limits",
            (
                prom(f"quantum_rate_limit_used{{{_OF}}}", table=True),
                prom(f"quantum_rate_limit_limit{{{_OF}}}", table=True),
                prom(f"quantum_rate_limit_exhaustion_seconds{{{_OF}}}", table=True),
            ),
            "Calls that count now, the limit in force, and when it is used up at the rate of the last hour.",
            merged=True,
            hidden=("Time", "__name__"),
            renamed={"Value #A": "used", "Value #B": "limit", "Value #C": "used up in"},
            units={"used up in": "s"},
            width=8,
            links=alert_links("QuotaRunsOut"),
        ),
        lines(
            "Wait for a slot, p95",
            prom(wait, "{{provider}}"),
            "How long calls wait for their turn.",
            "s",
            width=12,
        ),
        lines(
            "Calls that wait",
            prom(f"quantum_rate_limit_queue_length{{{_OF}}}", "{{provider}}"),
            "Length of each provider's queue.",
            "short",
            width=12,
        ),
    )


def _cache() -> Sequence[Panel]:
    every = f"quantum_api_cache_requests_total{{{_OF}}}"
    served = f'quantum_api_cache_requests_total{{{_OF},result!="miss"}}'
    ratio = f"sum by (provider) (rate({served}[1h])) / sum by (provider) (rate({every}[1h]))"
    whole = f"sum(rate({served}[$__rate_interval])) / sum(rate({every}[$__rate_interval]))"
    return (
        bar_gauge(
            "Hit ratio (1 h)",
            prom(ratio, "{{provider}}"),
            "Requests that needed no call: hit, stale, or shared with a call in flight.",
            "percentunit",
            highest=1,
            steps=good_above(limits.CACHE_HIT_RATIO),
            width=8,
            no_value="nobody asked the cache",
            links=alert_links("CacheHitRatioLow"),
        ),
        lines(
            "Hit ratio",
            prom(whole, "all"),
            "The target is 80 %.",
            "percentunit",
            highest=1,
            steps=good_above(limits.CACHE_HIT_RATIO),
            width=8,
            no_value="nobody asked the cache",
            links=alert_links("CacheHitRatioLow"),
            calcs=("lastNotNull", "min"),
        ),
        lines(
            "Requests by result",
            prom(
                f"60 * sum by (result) (rate({every}[$__rate_interval]))",
                "{{result}}",
            ),
            "Requests per minute by what the cache gave.",
            "short",
            stacked=True,
            width=8,
        ),
        lines(
            "Entries",
            prom("quantum_api_cache_entries", "entries"),
            "Answers and failures in the cache.",
            "short",
            width=12,
            height=6,
        ),
        lines(
            "AI tokens",
            prom(
                f"60 * sum by (provider, kind) (rate(quantum_api_tokens_total{{{_OF}}}[$__rate_interval]))",
                "{{provider}} {{kind}}",
            ),
            "Tokens of AI completions per minute.",
            "short",
            stacked=True,
            width=12,
            height=6,
            no_value="no AI calls",
        ),
    )
