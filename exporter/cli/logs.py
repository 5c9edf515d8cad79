"""Log lines as logfmt or JSON on standard error, in UTC with milliseconds, as Prometheus writes them."""

from __future__ import annotations

import json
import logging
import sys
import time

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
_NAMES = {"WARNING": "warn", "CRITICAL": "error"}


class _Logfmt(logging.Formatter):
    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(self, record)
        return " ".join(f"{name}={_logfmt_value(value)}" for name, value in fields.items())


class _Json(logging.Formatter):
    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_fields(self, record), ensure_ascii=False)


def _fields(formatter: logging.Formatter, record: logging.LogRecord) -> dict[str, str]:
    moment = formatter.formatTime(record, "%Y-%m-%dT%H:%M:%S")
    fields = {
        "ts": f"{moment}.{int(record.msecs):03d}Z",
        "level": _NAMES.get(record.levelname, record.levelname.lower()),
        "component": record.name.removeprefix("exporter."),
        "msg": record.getMessage(),
    }
    if record.exc_info:
        fields["error"] = formatter.formatException(record.exc_info)
    return fields


def _logfmt_value(text: str) -> str:
    if text and all(char.isalnum() or char in "-_.:/+@" for char in text):
        return text
    return json.dumps(text, ensure_ascii=False)


def configure_logging(level: str, form: str) -> None:
    """Send every log line to standard error. Libraries speak from warning on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Logfmt())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(_LEVELS[level], logging.WARNING) if level != "debug" else logging.DEBUG)
    logging.getLogger("exporter").setLevel(_LEVELS[level])
    for noisy in ("asyncio", "aiohttp", "apprise", "urllib3", "markdown"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
