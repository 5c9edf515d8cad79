"""The simulated platform's history as a function of seed and time: which rows fall into a stretch of time.

Each table has slots of equal length; what happens in a slot depends on the seed and the slot's number
only, so that a history made at once and one made in many small steps are the same rows, ids included.
No clock, no IO.
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import Any
from uuid import UUID

SECOND = 1000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

USERS = 200
TRADE_SLOT = 6 * MINUTE  # 240 a day: some 140 of the 200 users are active on any day
SNAPSHOT_SLOT = 5 * MINUTE
ANOMALY_SLOT = 5 * MINUTE  # one each: 12 in any hour, so that only a scenario makes a spike
ACCURACY_SLOT = HOUR
API_SLOT = 2 * MINUTE

_TIMEFRAMES = (("1h", 1, 30), ("4h", 4, 35), ("1d", 24, 25), ("1w", 168, 10))
_ENDINGS = (("HIT", 62), ("NOT_HIT", 20), ("INVALIDATED", 6), ("EXPIRED", 12))
_APIS = (
    ("coinmarketcap", "/v1/cryptocurrency/quotes/latest", 240),
    ("coingecko", "/simple/price", 180),
    ("kraken", "/0/public/Ticker", 90),
    ("blockchain", "/stats", 210),
    ("lunarcrush", "/public/coins/btc/v1", 320),
)
_PATTERNS = ("IMPULSE", "CORRECTION", "TRIANGLE", "FLAT", "ZIGZAG")
_INFO = ("price_divergence", "volume_outlier", "sentiment_shift", "mempool_growth", "whale_transfer")
_WARNINGS = ("feed_delay", "source_disagreement", "api_latency")

Row = tuple[Any, ...]

COLUMNS: dict[str, tuple[str, ...]] = {
    "users": ("id", "created_at"),
    "btc_trades": (
        "id", "user_id", "symbol", "entry_min", "entry_max", "entry_optimal", "tp1_price", "tp2_price",
        "tp3_price", "stop_loss_price", "max_loss_percent", "timeframe", "timeframe_hours",
        "confidence_score", "quantum_reasoning", "mathematical_justification", "wave_pattern_collapse",
        "data_quality_score", "cross_api_proof", "historical_triggers", "status", "generated_at",
        "expires_at", "last_validated_at", "created_at",
    ),
    "btc_hourly_snapshots": (
        "id", "trade_id", "price", "volume_24h", "market_cap", "mempool_size", "whale_transactions",
        "difficulty", "sentiment_score", "social_dominance", "deviation_from_prediction",
        "phase_shift_detected", "data_quality_score", "snapshot_at", "created_at",
    ),
    "quantum_anomaly_logs": (
        "id", "anomaly_type", "severity", "description", "impact", "affected_sources", "system_suspended",
        "suspension_duration_minutes", "resolution_action", "trade_id", "market_conditions", "detected_at",
        "resolved_at", "created_at",
    ),
    "prediction_accuracy_database": (
        "id", "total_trades", "trades_hit", "trades_not_hit", "trades_invalidated", "trades_expired",
        "overall_accuracy_rate", "average_confidence_winning", "average_confidence_losing",
        "average_deviation_score", "accuracy_1h", "accuracy_4h", "accuracy_1d", "accuracy_1w",
        "average_data_quality", "api_reliability_cmc", "api_reliability_coingecko",
        "api_reliability_kraken", "api_reliability_blockchain", "api_reliability_lunarcrush",
        "total_anomalies", "fatal_anomalies", "system_suspensions", "period_start", "period_end",
        "created_at",
    ),
    "api_latency_reliability_logs": (
        "id", "api_name", "endpoint", "http_method", "response_time_ms", "status_code", "success",
        "error_message", "error_type", "request_id", "user_id", "trade_id", "request_payload",
        "response_size_bytes", "retry_count", "requested_at", "created_at",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Trade:
    """A planned trade: who, when, and how it ends; times are Unix milliseconds."""

    id: UUID
    user: int
    generated_ms: int
    expires_ms: int
    ends_ms: int
    ending: str
    timeframe: str
    hours: int
    confidence: int
    quality: int

    def status_at(self, now_ms: int) -> str:
        """ACTIVE until it ends."""
        return self.ending if self.ends_ms <= now_ms else "ACTIVE"


def moment(ms: int) -> datetime.datetime:
    """A UTC datetime of Unix milliseconds."""
    return datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC)


def number(value: float, digits: int = 2) -> Decimal:
    """A decimal with that many digits."""
    return Decimal(f"{value:.{digits}f}")


class TradingPlan:
    """What the simulated platform does, by seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.users = tuple(self._id("user", user) for user in range(USERS))

    def price(self, ms: int) -> float:
        """The simulated price in USD at a time: slow and fast waves, and noise by the minute."""
        day = ms / DAY
        noise = self._rng("price", ms // MINUTE).gauss(0, 0.0015)
        wave = 0.06 * math.sin(day * 2 * math.pi / 9) + 0.02 * math.sin(day * 2 * math.pi / 1.3)
        return 64_000.0 * (1.0 + wave + noise)

    def trades(self, after_ms: int, until_ms: int) -> Iterator[Trade]:
        """The trades generated in (after, until], in order."""
        for slot, rng, at_ms in self._slots("trade", TRADE_SLOT, after_ms, until_ms):
            timeframe, hours, _ = rng.choices(_TIMEFRAMES, [weight for *_, weight in _TIMEFRAMES])[0]
            ending, _ = rng.choices(_ENDINGS, [weight for _, weight in _ENDINGS])[0]
            expires_ms = at_ms + hours * HOUR
            share = 1.0 if ending == "EXPIRED" else rng.uniform(0.2, 0.95)
            yield Trade(
                self._id("trade", slot),
                rng.randrange(USERS),
                at_ms,
                expires_ms,
                at_ms + int(hours * HOUR * share),
                ending,
                timeframe,
                hours,
                min(99, max(50, round(rng.gauss(78, 8)))),
                min(100, max(72, round(rng.gauss(88, 4)))),
            )

    def trade_row(self, trade: Trade, now_ms: int) -> Row:
        """The row of a trade with its status at a time."""
        price = self.price(trade.generated_ms)
        step = price * 0.006 * (1 + math.log2(trade.hours) / 4)
        generated = moment(trade.generated_ms)
        proof = {
            name: round(price * (1 + shift), 2)
            for (name, *_), shift in zip(_APIS, (0, 1e-4, -1e-4), strict=False)
        }
        return (
            trade.id, self.users[trade.user], "BTC",
            number(price - step / 2), number(price + step / 2), number(price),
            number(price + step), number(price + 2 * step), number(price + 3 * step),
            number(price - 1.5 * step),
            number(150 * step / price), trade.timeframe, trade.hours, trade.confidence,
            f"Signal for {trade.timeframe}.", "Mean reversion within two deviations.",
            _PATTERNS[trade.id.int % len(_PATTERNS)], trade.quality, json.dumps(proof), json.dumps([]),
            trade.status_at(now_ms), generated, moment(trade.expires_ms),
            moment(min(now_ms, trade.ends_ms)), generated,
        )  # fmt: skip

    def user_rows(self, now_ms: int) -> list[Row]:
        """All users."""
        return [(user, moment(now_ms - 60 * DAY)) for user in self.users]

    def snapshot_rows(self, after_ms: int, until_ms: int, quality: int | None = None) -> list[Row]:
        """The price snapshots taken in (after, until]; `quality` replaces the planned data quality."""
        rows = []
        for slot, rng, at_ms in self._slots("snapshot", SNAPSHOT_SLOT, after_ms, until_ms):
            price, at = self.price(at_ms), moment(at_ms)
            # the trade of an earlier slot: its row is there, whether it is active or not
            trade = self._id("trade", at_ms // TRADE_SLOT - 1 - rng.randrange(40))
            planned = min(100, max(70, round(rng.gauss(86, 4))))
            rows.append((
                self._id("snapshot", slot), trade, number(price), number(rng.uniform(2.2e10, 3.6e10)),
                number(price * 19_700_000), rng.randrange(5_000, 90_000), rng.randrange(40, 260),
                number(8.3e13), rng.randrange(35, 80), number(rng.uniform(15, 35)),
                number(rng.gauss(0, 1.2), 4), rng.random() < 0.04,
                planned if quality is None else quality, at, at,
            ))  # fmt: skip
        return rows

    def anomaly_rows(self, after_ms: int, until_ms: int, fatal_before_ms: int = 0) -> list[Row]:
        """The anomalies of (after, until]: INFO and WARNING; rare FATAL ones only before a time."""
        rows = []
        for slot, rng, at_ms in self._slots("anomaly", ANOMALY_SLOT, after_ms, until_ms):
            fatal = slot % 401 == 0 and at_ms < fatal_before_ms
            severity = "FATAL" if fatal else "WARNING" if rng.random() < 0.3 else "INFO"
            kind = (
                "multi_source_failure" if fatal else rng.choice(_WARNINGS if severity == "WARNING" else _INFO)
            )
            rows.append(self.anomaly_row(self._id("anomaly", slot), kind, severity, at_ms, suspends=fatal))
        return rows

    def anomaly_row(
        self,
        row_id: UUID,
        kind: str,
        severity: str,
        at_ms: int,
        *,
        suspends: bool = False,
        resolved: bool = True,
    ) -> Row:
        """One anomaly row; resolved after ten minutes unless said otherwise."""
        at = moment(at_ms)
        return (
            row_id, kind, severity, f"{kind.replace('_', ' ')} seen",
            "signals held back" if suspends else "none",
            json.dumps([_APIS[row_id.int % len(_APIS)][0]]), suspends, 30 if suspends else None,
            "resumed by hand" if suspends else None, None, json.dumps({"price": round(self.price(at_ms), 2)}),
            at, moment(at_ms + 10 * MINUTE) if resolved else None, at,
        )  # fmt: skip

    def accuracy_rows(self, after_ms: int, until_ms: int, rate: float | None = None) -> list[Row]:
        """The accuracy reports of (after, until]; `rate` replaces the planned overall rate in percent."""
        return [
            self.accuracy_row(self._id("accuracy", slot), rng, at_ms, rate)
            for slot, rng, at_ms in self._slots("accuracy", ACCURACY_SLOT, after_ms, until_ms)
        ]

    def accuracy_row(self, row_id: UUID, rng: Random, at_ms: int, rate: float | None = None) -> Row:
        """One accuracy report about the 30 days before."""
        overall = min(88.0, max(66.0, rng.gauss(74, 2.5))) if rate is None else rate
        total = 7200
        hit = round(total * overall / 100)
        lost = round((total - hit) * 0.55)
        invalid = round((total - hit) * 0.15)
        frames = [number(min(95.0, max(5.0, overall + shift + rng.gauss(0, 1)))) for shift in (-3, -1, 2, 4)]
        reliable = [number(rng.uniform(97, 99.9)) for _ in _APIS]
        at = moment(at_ms)
        return (
            row_id, total, hit, lost, invalid, total - hit - lost - invalid, number(overall),
            number(rng.uniform(78, 84)), number(rng.uniform(64, 70)), number(rng.uniform(0.5, 2), 4), *frames,
            number(rng.uniform(84, 90)), *reliable, 8640, rng.randrange(3), rng.randrange(2),
            moment(at_ms - 30 * DAY), at, at,
        )  # fmt: skip

    def api_rows(self, after_ms: int, until_ms: int) -> list[Row]:
        """The platform's own log of API calls in (after, until]."""
        rows = []
        for slot, rng, at_ms in self._slots("api", API_SLOT, after_ms, until_ms):
            name, endpoint, typical = _APIS[slot % len(_APIS)]
            works = rng.random() < 0.985
            code = 200 if works else rng.choice((429, 500, 502, 504))
            at = moment(at_ms)
            rows.append((
                self._id("api", slot), name, endpoint, "GET",
                max(20, round(rng.lognormvariate(math.log(typical), 0.35))),
                code, works, None if works else f"HTTP {code}", None if works else "http",
                self._id("request", slot), None, None, json.dumps({}), rng.randrange(400, 9000),
                0 if works else 2, at, at,
            ))  # fmt: skip
        return rows

    def _slots(
        self, what: str, length: int, after_ms: int, until_ms: int
    ) -> Iterator[tuple[int, Random, int]]:
        """Each slot with an event in (after, until]: its number, its chance, the time of its event."""
        for slot in range(after_ms // length, until_ms // length + 1):
            rng = self._rng(what, slot)
            # in the first half of the slot: neighbours keep their distance
            at_ms = slot * length + int(rng.random() * length / 2)
            if after_ms < at_ms <= until_ms:
                yield slot, rng, at_ms

    def _rng(self, what: str, slot: int) -> Random:
        return Random(f"{self._seed}:{what}:{slot}")

    def _id(self, what: str, slot: int) -> UUID:
        return UUID(int=self._rng(f"{what}-id", slot).getrandbits(128), version=4)
