"""The query log: a line of JSON for each query of the HTTP API, in the shape of Prometheus' query log."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

from exporter.errors import ConfigError


class QueryLog:
    """Appends to a file, which may be moved away under it: the next line then begins a new one."""

    def __init__(self, path: Path) -> None:
        """Raises: ConfigError where the file cannot be written."""
        try:
            self._handler = WatchedFileHandler(path, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"query.log_file {path} cannot be written: {error.strerror}") from error
        self._handler.setFormatter(logging.Formatter("%(message)s"))

    def write(
        self,
        params: Mapping[str, Any],
        *,
        ts_ms: int,
        queued_s: float,
        total_s: float,
        peak_samples: int,
        error: str,
    ) -> None:
        """One line. Times in seconds, `peak_samples` what the query held at its peak."""
        document: dict[str, Any] = {"params": dict(params)}
        if error:
            document["error"] = error
        document["stats"] = {
            "timings": {
                "evalTotalTime": round(total_s - queued_s, 9),
                "execQueueTime": round(queued_s, 9),
                "execTotalTime": round(total_s, 9),
            },
            "samples": {"peakSamples": peak_samples},
        }
        document["ts"] = iso(ts_ms)
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
        self._handler.handle(logging.makeLogRecord({"msg": text, "levelno": logging.INFO}))

    def close(self) -> None:
        """Close the file."""
        self._handler.close()


def iso(ts_ms: int) -> str:
    """RFC 3339 with milliseconds; a time that no calendar holds as its number."""
    try:
        moment = datetime.fromtimestamp(ts_ms // 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return str(ts_ms)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ts_ms % 1000:03d}Z"
