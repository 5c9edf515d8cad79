"""Two days of a small platform in a real database, with figures that a pocket calculator confirms."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import numpy as np

from exporter.clock import SystemClock
from exporter.db.copier import SampleCopier
from exporter.db.pool import Database
from exporter.model.labels import LabelSet
from exporter.model.samples import SampleBatch

END_MS = 1_772_582_400_000  # 2026-03-04 00:00 UTC
DAY_MS = 86_400_000
START_MS = END_MS - 2 * DAY_MS
STEP_MS = 60_000
FIRST_HALF_OF_LAST_HOUR = (END_MS - 3_600_000, END_MS - 1_800_000)

PROVIDERS = ("kraken", "coingecko")
SERIES = (
    LabelSet.of({"__name__": "quantum_snapshot_last_timestamp_seconds"}),
    LabelSet.of({"__name__": "quantum_database_up"}),
    LabelSet.of({"__name__": "quantum_data_quality_ratio"}),
    LabelSet.of({"__name__": "quantum_prediction_accuracy_ratio"}),
    *(LabelSet.of({"__name__": "quantum_provider_up", "provider": name}) for name in PROVIDERS),
    *(
        LabelSet.of({"__name__": "quantum_api_requests_total", "provider": name, "outcome": outcome})
        for name in PROVIDERS
        for outcome in ("success", "http")
    ),
    *(
        LabelSet.of({"__name__": name, "provider": "kraken", "window": "minute"})
        for name in ("quantum_rate_limit_used", "quantum_rate_limit_limit")
    ),
)


def samples() -> Iterator[SampleBatch]:
    """One a minute. On the second day a tenth of kraken's calls fails, the database is away for 36 min."""
    for at in range(2 * DAY_MS // STEP_MS + 1):
        ts_ms = START_MS + at * STEP_MS
        second = max(0, at - DAY_MS // STEP_MS)
        away = 100 <= second < 136
        values = [
            ts_ms / 1000, 0.0 if away else 1.0, 0.9, 0.75,
            0.0 if 0 < second <= 144 else 1.0, 1.0,
            10.0 * at - second, float(second), 4.0 * at, 0.0,
            45.0 if second == 500 else 6.0, 60.0,
        ]  # fmt: skip
        yield SampleBatch(ts_ms, SERIES, np.array(values))


async def fill(url: str) -> None:
    """Samples, episodes and measured calls into a migrated database."""
    database = Database(url, SystemClock())
    try:
        await SampleCopier(database).write(list(samples()))
    finally:
        await database.close()
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "select quantum_ensure_day_partitions('performance_metrics', $1::date, $2::date)",
            at(START_MS).date(), at(END_MS).date(),
        )  # fmt: skip
        await connection.executemany(_EVENT, list(events()))
        await connection.executemany(_ALERT, list(episodes()))
    finally:
        await connection.close()


_EVENT = """
insert into performance_metrics (metric_type, metric_name, value, unit, context, "timestamp")
values ('api_response', $1, $2, 'ms', $3::jsonb, $4)
"""
_ALERT = """
insert into system_alerts (severity, type, title, message, fingerprint, labels, triggered_at, resolved_at,
    resolve_reason, notification_count, suppressed_count)
values ($1, $2, $2, '-', $3, $4::jsonb, $5, $6, $7, $8, $9)
"""


def events() -> Iterator[tuple[Any, ...]]:
    """Kraken took 1 to 100 ms on the first day, 10 to 1000 ms on the second; one call has no provider."""
    for day in (0, 1):
        for number in range(1, 101):
            moment = at(START_MS + day * DAY_MS + number * 600_000)
            yield ("/Ticker", number * 10.0**day, json.dumps({"provider": "kraken"}), moment)
    yield ("/own", 5.0, "{}", at(END_MS - DAY_MS + 1))


def episodes() -> Iterator[tuple[Any, ...]]:
    """Before: one. In the period: High four times (one instance three times), Quiet once, still open."""
    day = END_MS - DAY_MS
    minute = 60_000
    yield row("WARNING", "High", "a", day - 300 * minute, day - 290 * minute, "recovered", 2, 0)
    yield row("WARNING", "Gone", "g", day - 100 * minute, day - 90 * minute, "recovered", 1, 0)
    yield row("WARNING", "High", "a", day + 10 * minute, day + 20 * minute, "recovered", 2, 0)
    yield row("WARNING", "High", "a", day + 30 * minute, day + 35 * minute, "recovered", 0, 1)
    yield row("WARNING", "High", "a", day + 40 * minute, day + 45 * minute, "by hand", 0, 1)
    yield row("WARNING", "High", "b", day - 10 * minute, day + 60 * minute, "recovered", 1, 0)
    yield row("CRITICAL", "Quiet", "c", END_MS - 30 * minute, None, None, 1, 0)
    yield row("INFO", "Watchdog", "w", day - DAY_MS, None, None, 9, 0, role="heartbeat")


def row(
    severity: str, name: str, instance: str, start_ms: int, end_ms: int | None, reason: str | None,
    sent: int, held: int, **labels: str,
) -> tuple[Any, ...]:  # fmt: skip
    ended = None if end_ms is None else at(end_ms)
    return severity, name, instance, json.dumps(labels), at(start_ms), ended, reason, sent, held


def at(ms: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=ms)
