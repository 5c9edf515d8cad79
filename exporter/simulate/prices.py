"""A Bitcoin price that moves: along a seeded random walk, or along recorded candles."""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from exporter.errors import ConfigError, Problem

_MAX_STEPS = 86_400


@dataclass(frozen=True, slots=True)
class MarketPoint:
    """Price in US dollars and volume of the last 24 hours in bitcoins."""

    price_usd: float
    volume_24h_btc: float


class PriceFeed(Protocol):
    """Tells the market at a time."""

    def at(self, now_ms: int) -> MarketPoint:
        """The market at a time (Unix milliseconds); times must not go back."""


class RandomWalk:
    """A walk with one step a second, drawn back towards its start so that it stays believable.

    Step: log(p) += pull * (log(p0) - log(p)) + sigma * N(0, 1); sigma 0.0002 gives about 1 % an hour.
    """

    def __init__(self, seed: int = 1, start_usd: float = 65_000.0, sigma: float = 0.0002) -> None:
        self._rng = random.Random(seed)
        self._start = math.log(start_usd)
        self._log = self._start
        self._sigma = sigma
        self._second: int | None = None

    def at(self, now_ms: int) -> MarketPoint:
        """The market at a time; at most a day of missed steps is made up for."""
        second = now_ms // 1000
        steps = 0 if self._second is None else min(max(0, second - self._second), _MAX_STEPS)
        for _ in range(steps):
            self._log += 1e-5 * (self._start - self._log) + self._sigma * self._rng.gauss(0.0, 1.0)
        if self._second is None or steps:
            self._second = second
        volume = 25_000.0 * (1.0 + 0.2 * math.sin(second / 13_750.0))
        return MarketPoint(math.exp(self._log), volume)


class History:
    """Recorded candles, replayed from the first at the first question; after the last it begins again.

    `candles_per_minute` sets the speed; between two closes the price moves in a straight line. By default an
    hourly candle takes ten minutes: lively, and still a price that is five minutes old does not disagree.
    """

    def __init__(self, candles: Sequence[tuple[float, float]], candles_per_minute: float = 0.1) -> None:
        if len(candles) < 2:
            raise ValueError("a history has two candles at least")
        self._candles = candles
        self._per_ms = candles_per_minute / 60_000.0
        self._start_ms: int | None = None

    def at(self, now_ms: int) -> MarketPoint:
        """The market at a time; the volume is the sum of the last 24 candles."""
        if self._start_ms is None:
            self._start_ms = now_ms
        position = max(0.0, (now_ms - self._start_ms) * self._per_ms) % (len(self._candles) - 1)
        index = int(position)
        (low, _), (high, _) = self._candles[index], self._candles[index + 1]
        volume = sum(amount for _, amount in self._candles[max(0, index - 23) : index + 1])
        return MarketPoint(low + (high - low) * (position - index), volume)


def read_history(folder: Path) -> History:
    """The hourly candles of a folder (the first `*_1h_*.csv`, else the first CSV file by name).

    Columns: a header line with `close` and a volume column (`volume` or `volume_btc`).

    Raises: ConfigError where there is no such file or a line is not readable.
    """
    files = sorted(folder.glob("*.csv")) if folder.is_dir() else [folder] if folder.is_file() else []
    hourly = [file for file in files if "_1h_" in file.name]
    if not files:
        raise ConfigError(
            Problem("no price history here", str(folder), allowed="a folder of CSV files, or one")
        )
    file = (hourly or files)[0]
    candles: list[tuple[float, float]] = []
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            reader = csv.DictReader(lines)
            for row in reader:
                volume = row.get("volume_btc", row.get("volume"))
                candles.append((float(row["close"]), float(volume or 0.0)))
    except (KeyError, TypeError, ValueError) as error:
        line = len(candles) + 2
        allowed = "timestamp,open,high,low,close,volume"
        raise ConfigError(Problem(f"not a candle: {error}", str(file), line, 1, allowed)) from error
    except OSError as error:
        raise ConfigError(Problem(f"cannot be read: {error.strerror}", str(file))) from error
    if len(candles) < 2:
        raise ConfigError(Problem("a history needs two candles at least", str(file)))
    return History(candles)
