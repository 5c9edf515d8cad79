"""The keys of `heartbeat`."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.config.load import load_config
from exporter.config.schema import HeartbeatConfig
from exporter.errors import ConfigError


def test_all_keys(tmp_path: Path) -> None:
    """Each key is read; the URL comes from the environment and is not in the configuration's page."""
    path = tmp_path / "c.yml"
    path.write_text("heartbeat: {url: '${BEAT}', interval: 30s, method: POST, timeout: 3s}\n")
    config = load_config(path, {"BEAT": "https://example.org/secret"})
    assert config.heartbeat == HeartbeatConfig("https://example.org/secret", 30_000, "POST", 3_000)
    assert "secret" not in config.text
    assert load_config(None, {}).heartbeat == HeartbeatConfig()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("heartbeat: {url: 'ftp://x'}", "1:18: heartbeat.url is not an HTTP URL"),
        ("heartbeat: {urls: x}", '1:13: unknown key "urls" in heartbeat, did you mean "url"?'),
        ("heartbeat: {interval: 10ms}", "heartbeat.interval"),
        ("heartbeat: {method: PUT}", "heartbeat.method"),
        ("heartbeat: 5", "heartbeat"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    """With its place and what is allowed."""
    path = tmp_path / "c.yml"
    path.write_text(f"{text}\n")
    with pytest.raises(ConfigError) as refused:
        load_config(path, {})
    assert problem in str(refused.value)
