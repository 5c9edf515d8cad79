"""The keys of `replicas`."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.config.load import load_config
from exporter.config.schema import ReplicasConfig
from exporter.errors import ConfigError


def test_all_keys_are_read(tmp_path: Path) -> None:
    """A slash at the end of the URL does not matter."""
    path = tmp_path / "config.yml"
    path.write_text("replicas: {advertise_url: 'http://10.0.0.5:9464/', lease: 5s}\n")
    assert load_config(path, {}).replicas == ReplicasConfig("http://10.0.0.5:9464", 5_000)
    assert load_config(None, {}).replicas == ReplicasConfig()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("replicas: {advertise_url: 'host:9464'}", "1:27: replicas.advertise_url is not an HTTP URL"),
        ("replicas: {leas: 1s}", '1:12: unknown key "leas" in replicas, did you mean "lease"?'),
        ("replicas: {lease: 10ms}", "replicas.lease"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """With its place and what is allowed."""
    path = tmp_path / "config.yml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, {})
    assert said in str(caught.value)
