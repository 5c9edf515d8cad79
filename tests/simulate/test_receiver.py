"""The receiver to try notifications with."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from exporter.errors import ExporterError
from exporter.simulate.receiver import NotificationReceiver, as_json, describe


async def test_each_post_is_told_and_answered() -> None:
    """Any path; 200, so that the sender counts it as delivered."""
    told: list[bytes] = []
    receiver = NotificationReceiver(told.append)
    url = await receiver.start("127.0.0.1", 0)
    try:
        payload = {"status": "firing", "title": "[FIRING] Down", "message": "a\nb", "alerts": [{}]}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{url}/hook/x", json=payload) as answer,
        ):
            assert answer.status == 200
        (body,) = told
        assert describe(body) == ["firing: [FIRING] Down", "a", "b"]
        assert json.loads(as_json(body)) == payload
        assert as_json(b"plain") == '{"body": "plain"}'
        with pytest.raises(ExporterError, match=r"cannot listen on 127\.0\.0\.1"):
            await NotificationReceiver(told.append).start("127.0.0.1", int(url.rpartition(":")[2]))
    finally:
        await asyncio.wait_for(receiver.stop(), 5)


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        (
            json.dumps(
                {
                    "status": "resolved",
                    "alerts": [
                        {
                            "status": "resolved",
                            "labels": {"alertname": "A", "x": "1"},
                            "annotations": {"summary": "over"},
                        }
                    ],
                }
            ),
            ["resolved: 1 alerts", "resolved alertname=A x=1 over"],
        ),
        ("", ["an empty body"]),
        ("plain \x1b[2Jtext", ["plain \\x1b[2Jtext"]),
        ('{"alerts": 3}', ['{"alerts": 3}']),
        ('{"alerts": [3, {"labels": null}]}', ["unknown: 1 alerts", "unknown"]),
        ("\x80", ["\N{REPLACEMENT CHARACTER}"]),
    ],
)
def test_what_is_told(body: str, lines: list[str]) -> None:
    """Alertmanager's own payload by its alerts, other bodies as they are, nothing that steers a terminal."""
    assert describe(body.encode("latin-1") if body == "\x80" else body.encode()) == lines
