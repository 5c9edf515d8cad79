"""Trading: accuracy, quality, trades, anomalies, prices."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.dashboards import thresholds as limits
from exporter.dashboards.common import accuracy, active_trades, data_quality
from exporter.dashboards.model import BLUE, ORANGE, RED, Dashboard, Panel, Row, Step, Variable
from exporter.dashboards.panels import (
    alert_links,
    bar_gauge,
    coloured,
    good_above,
    good_below,
    lines,
    prom,
    severity_column,
    sql,
    stat,
    table,
)

_OF = 'provider=~"$provider"'
PROVIDER = Variable("provider", "Provider", "label_values(quantum_btc_price_usd, provider)")
_SEVERITIES = coloured(FATAL="dark-red", CRITICAL=RED, ERROR=RED, WARNING=ORANGE, INFO=BLUE)
_TRADE_STATUS = Variable("status", "Trade status", "ACTIVE,HIT,NOT_HIT,INVALIDATED,EXPIRED", custom=True)


def trading() -> Dashboard:
    """How good the signals are, and the market they are about."""
    return Dashboard(
        "quantum-trading",
        "Quantum / Trading",
        "Accuracy and data quality of the signals, trades, anomalies, users, and prices by provider.",
        (
            Row("Signals", _signals()),
            Row("Trades", _trades()),
            Row("Anomalies", _anomalies()),
            Row("Market", _market()),
        ),
        (PROVIDER, _TRADE_STATUS),
        time_from="now-24h",
    )


def _signals() -> Sequence[Panel]:
    users = "quantum_users_active_last_24h / quantum_users_active_previous_24h"
    return (
        accuracy(height=5),
        data_quality(height=5),
        stat(
            "Mean confidence",
            prom("quantum_trades_confidence_ratio", "confidence"),
            "Mean confidence of the active trades.",
            "percentunit",
            height=5,
        ),
        active_trades(height=5),
        stat(
            "Trades in 24 h",
            prom("quantum_trades_generated_24h", "generated"),
            "Trades generated in the last 24 hours.",
            "short",
            height=5,
        ),
        stat(
            "Users against the day before",
            prom(users, "ratio"),
            "Users with a trade in the last 24 hours over those of the 24 hours before.",
            "percentunit",
            steps=good_above(limits.ENGAGEMENT_RATIO),
            height=5,
            links=alert_links("UserEngagementDrop"),
        ),
        lines(
            "Accuracy",
            (
                prom("quantum_prediction_accuracy_ratio", "overall"),
                prom("quantum_prediction_accuracy_by_timeframe_ratio", "{{timeframe}}"),
            ),
            "Share of predictions that hit, overall and by timeframe.",
            "percentunit",
            highest=1,
            steps=good_above(limits.ACCURACY_RATIO),
            calcs=("lastNotNull", "min"),
        ),
        lines(
            "Data quality",
            prom("quantum_data_quality_ratio", "mean of 3 h"),
            "DataQualityLow fires under 70 %.",
            "percentunit",
            highest=1,
            steps=good_above(limits.DATA_QUALITY_RATIO),
            calcs=("lastNotNull", "min"),
            links=alert_links("DataQualityLow"),
        ),
    )


def _trades() -> Sequence[Panel]:
    return (
        lines(
            "Trades by status",
            prom(
                'sum by (status) (quantum_trades_by_status{status=~"$status"})',
                "{{status}}",
            ),
            "All trades by status.",
            "short",
            stacked=True,
        ),
        bar_gauge(
            "Active trades by timeframe",
            prom(
                'sum by (timeframe) (quantum_trades_by_status{status="ACTIVE"})',
                "{{timeframe}}",
            ),
            "Trades with status ACTIVE.",
            "short",
            steps=(Step(None, BLUE),),
            width=12,
        ),
        table(
            "Outcome by timeframe",
            sql("""
              SELECT timeframe, total_trades AS "trades", active, hit, not_hit AS "not hit",
                hit_rate_percent / 100.0 AS "hit rate", avg_confidence / 100.0 AS "confidence",
                avg_confidence_hit / 100.0 AS "of hits", avg_confidence_not_hit / 100.0 AS "of misses"
              FROM v_trade_performance_summary ORDER BY timeframe"""),
            "The view v_trade_performance_summary. Confidence should be higher for hits than for misses.",
            units=dict.fromkeys(("hit rate", "confidence", "of hits", "of misses"), "percentunit"),
            width=12,
        ),
        table(
            "Newest active trades",
            sql("""
              SELECT generated_at AS "generated", symbol, timeframe, confidence_score / 100.0 AS "confidence",
                entry_optimal AS "entry", snapshot_price AS "price", deviation_from_prediction AS "deviation",
                expires_at AS "expires"
              FROM v_active_trades_with_snapshot ORDER BY generated_at DESC LIMIT 20"""),
            "The view v_active_trades_with_snapshot: each trade with its newest snapshot.",
            units={
                "generated": "dateTimeFromNow",
                "expires": "dateTimeFromNow",
                "confidence": "percentunit",
                "entry": "currencyUSD",
                "price": "currencyUSD",
            },
            width=12,
        ),
        lines(
            "Users",
            (
                prom("quantum_users_active_last_24h", "last 24 h"),
                prom("quantum_users_active_previous_24h", "24 h before"),
            ),
            "Users with a trade generated. UserEngagementDrop fires under 75 % of the day before.",
            "short",
            links=alert_links("UserEngagementDrop"),
        ),
        lines(
            "Confidence",
            prom("quantum_trades_confidence_ratio", "active trades"),
            "Mean confidence of the active trades.",
            "percentunit",
            highest=1,
        ),
    )


def _anomalies() -> Sequence[Panel]:
    growth = "quantum_anomalies_last_hour / (quantum_anomalies_previous_hour > 0)"
    return (
        stat(
            "Suspended",
            prom("quantum_system_suspended", "suspensions"),
            "Anomalies of the last 5 minutes that suspended the system.",
            "short",
            steps=good_below(1),
            graph=False,
            height=5,
            links=alert_links("SystemSuspended"),
        ),
        stat(
            "Fatal (5 min)",
            prom('quantum_anomalies_recent{severity="FATAL"}', "fatal"),
            "Anomalies of severity FATAL in the last 5 minutes.",
            "short",
            steps=good_below(1),
            height=5,
            links=alert_links("FatalAnomaly"),
        ),
        stat(
            "Last hour",
            prom("quantum_anomalies_last_hour", "anomalies"),
            "Anomalies of the last hour.",
            "short",
            height=5,
        ),
        stat(
            "Against the hour before",
            prom(growth, "factor"),
            "Anomalies of the last hour over those of the hour before; nothing where that had none.",
            "none",
            decimals=2,
            steps=good_below(limits.ANOMALY_FACTOR),
            height=5,
            links=alert_links("AnomalySpike"),
            no_value="-",
        ),
        lines(
            "Anomalies of the last 5 minutes",
            prom("quantum_anomalies_recent", "{{severity}}"),
            "Anomalies that the last 5 minutes saw, by severity.",
            "short",
            stacked=True,
            overrides=_SEVERITIES,
            bars=True,
            width=8,
            height=5,
            calcs=("max",),
        ),
        table(
            "Newest anomalies",
            sql("""
              SELECT detected_at AS "detected", anomaly_type AS "type", upper(severity) AS "severity",
                description, impact, system_suspended AS "suspended", resolved_at AS "resolved"
              FROM quantum_anomaly_logs WHERE $__timeFilter(detected_at)
              ORDER BY detected_at DESC LIMIT 100"""),
            "From quantum_anomaly_logs, in the chosen period.",
            units={"detected": "dateTimeFromNow", "resolved": "dateTimeFromNow"},
            overrides=(severity_column("severity"),),
            width=16,
            no_value="no anomaly in this period",
        ),
        lines(
            "Anomalies begun",
            sql(
                """
              SELECT $__timeGroup(detected_at, $__interval) AS "time", upper(severity) AS metric,
                count(*) AS value
              FROM quantum_anomaly_logs WHERE $__timeFilter(detected_at) GROUP BY 1, 2 ORDER BY 1""",
                series=True,
            ),
            "Counted by SQL, so that it reaches as far back as the table.",
            "short",
            bars=True,
            stacked=True,
            overrides=_SEVERITIES,
            width=8,
            calcs=("sum",),
            no_value="no anomaly in this period",
        ),
    )


def _market() -> Sequence[Panel]:
    return (
        lines(
            "BTC price by provider",
            prom(f"quantum_btc_price_usd{{{_OF}}}", "{{provider}}"),
            "The same coin as each provider quotes it.",
            "currencyUSD",
            calcs=("lastNotNull", "min", "max"),
            lowest=None,
            width=16,
        ),
        lines(
            "Spread between providers",
            prom("quantum_btc_price_spread_ratio", "spread"),
            "Highest less lowest price over the median. Providers that disagree: one is stale or wrong.",
            "percentunit",
            decimals=3,
            width=8,
        ),
        lines(
            "Market capitalisation",
            prom(f"quantum_btc_market_cap_usd{{{_OF}}}", "{{provider}}"),
            "Price times coins in circulation.",
            "currencyUSD",
            lowest=None,
            width=8,
        ),
        lines(
            "Volume of 24 hours",
            prom(f"quantum_btc_volume_24h_usd{{{_OF}}}", "{{provider}}"),
            "As each provider counts it.",
            "currencyUSD",
            width=8,
        ),
        lines(
            "Sentiment",
            prom(f"quantum_market_sentiment_ratio{{{_OF}}}", "{{provider}}"),
            "0 is all negative, 1 all positive.",
            "percentunit",
            highest=1,
            width=8,
            no_value="no provider of sentiment is on",
        ),
        lines(
            "Distance from the median",
            prom(f"quantum_btc_price_deviation_ratio{{{_OF}}}", "{{provider}}"),
            "How far each provider's price is from the median of all. PriceDisagrees fires over 2 %.",
            "percentunit",
            steps=good_below(limits.PRICE_DEVIATION_RATIO),
            links=alert_links("PriceDisagrees"),
            decimals=3,
            width=8,
        ),
        lines(
            "Age of the data",
            prom(f"quantum_provider_data_age_seconds{{{_OF}}}", "{{provider}}"),
            "Time since each provider made the data that it gave last.",
            "s",
            links=alert_links("FeedFrozen"),
            width=8,
        ),
        lines(
            "Price unchanged for",
            prom(f"quantum_btc_price_unchanged_seconds{{{_OF}}}", "{{provider}}"),
            "A price that stands still for long comes from a source that has stopped.",
            "s",
            links=alert_links("FeedFrozen"),
            width=8,
        ),
        lines(
            "Hash rate",
            prom("quantum_bitcoin_hash_rate_hashes_per_second", "{{provider}}"),
            "Estimated work of the Bitcoin network, hashes per second.",
            "Hs",
            lowest=None,
            width=12,
            height=6,
        ),
        lines(
            "Price at snapshots",
            sql(
                """
              SELECT $__timeGroup(snapshot_at, $__interval) AS "time", avg(price)::float8 AS "price",
                avg(deviation_from_prediction)::float8 AS "deviation"
              FROM btc_hourly_snapshots WHERE $__timeFilter(snapshot_at) GROUP BY 1 ORDER BY 1""",
                series=True,
            ),
            "Mean price and deviation from the prediction at the platform's own snapshots.",
            "short",
            lowest=None,
            width=12,
            height=6,
        ),
    )
