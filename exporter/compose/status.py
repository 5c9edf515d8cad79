"""Facts for /api/v1/status/* and /api/v1/metadata."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

from exporter.model.labels import METRIC_NAME, Matcher, MatchOp
from exporter.storage import MemoryStorage

_TOP = 10


def head_stats(storage: MemoryStorage) -> dict[str, Any]:
    """The data of /api/v1/status/tsdb, over the series of the head; walks all of them."""
    stats = storage.stats()
    by_name: Counter[str] = Counter()
    by_pair: Counter[str] = Counter()
    values: dict[str, set[str]] = {}
    sizes: Counter[str] = Counter()
    everything = [Matcher(METRIC_NAME, MatchOp.REGEX, ".+")]
    for labels in storage.series([everything], -(2**60), 2**60):
        for name, value in labels:
            by_pair[f"{name}={value}"] += 1
            sizes[name] += len(value)
            values.setdefault(name, set()).add(value)
            if name == METRIC_NAME:
                by_name[value] += 1
    counts = Counter({name: len(found) for name, found in values.items()})
    return {
        "headStats": {
            "numSeries": stats.series,
            "numLabelPairs": stats.label_pairs,
            "chunkCount": stats.chunks,
            "minTime": stats.min_time_ms or 0,
            "maxTime": stats.max_time_ms or 0,
        },
        "seriesCountByMetricName": _top(by_name),
        "labelValueCountByLabelName": _top(counts),
        "memoryInBytesByLabelName": _top(sizes),
        "seriesCountByLabelValuePair": _top(by_pair),
    }


def runtime(*, reload_ok: bool, config_time: str, retention: str) -> Mapping[str, Any]:
    """The fields of /api/v1/status/runtimeinfo that describe the process."""
    return {
        "reloadConfigSuccess": reload_ok,
        "lastConfigTime": config_time,
        "corruptionCount": 0,
        "goroutineCount": len(asyncio.all_tasks()),
        "GOMAXPROCS": os.cpu_count() or 1,
        "GOMEMLIMIT": 0,
        "GOGC": "",
        "GODEBUG": "",
        "storageRetention": retention,
    }


def no_targets() -> Mapping[str, Any]:
    """The data of /api/v1/targets where nothing is scraped."""
    return {"activeTargets": [], "droppedTargets": [], "droppedTargetCounts": {}}


def _top(counter: Counter[str]) -> list[dict[str, Any]]:
    return [{"name": name, "value": count} for name, count in counter.most_common(_TOP)]
