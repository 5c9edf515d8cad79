"""The data folder: one exporter in it, one id for its life; and what others are told of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from exporter.compose.data_dir import DataDir, advertised_url, lease_s
from exporter.config.load import load_config
from exporter.config.schema import GlobalConfig, ReplicasConfig
from exporter.errors import ConfigError


def test_a_folder_has_one_exporter_at_a_time(tmp_path: Path) -> None:
    """A second one is refused, since two would write one journal; after the first has gone it may come."""
    first, second = DataDir(tmp_path / "data"), DataDir(tmp_path / "data")
    first.open()
    with pytest.raises(ConfigError, match="in use by another exporter: each replica needs its own"):
        second.open()
    first.close()
    second.close()
    second.open()
    assert second.replica_id == first.replica_id
    second.close()


def test_a_damaged_id_is_replaced(tmp_path: Path) -> None:
    """Whatever stands in the file, the id is one."""
    (tmp_path / "replica_id").write_text("\n")
    folder = DataDir(tmp_path)
    folder.open()
    assert (tmp_path / "replica_id").read_text().strip() == folder.replica_id
    folder.close()


def test_a_folder_that_cannot_be_made_is_a_plain_error(tmp_path: Path) -> None:
    """The name and the reason."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/data cannot be made or written"):
        DataDir(tmp_path / "file" / "data").open()


@pytest.mark.parametrize(
    ("interval_s", "lease", "wanted_s"), [(15, 10, 10), (60, 10, 10), (60, 30, 30), (15, 30, 10), (1, 10, 1)]
)
def test_the_lease_lets_another_take_over_within_two_intervals(
    interval_s: int, lease: int, wanted_s: float
) -> None:
    """At most two thirds of the evaluation interval, at least a second."""
    config = replace(
        load_config(None, {}),
        global_=GlobalConfig(evaluation_interval_ms=1000 * interval_s),
        replicas=ReplicasConfig(lease_ms=1000 * lease),
    )
    assert lease_s(config) == wanted_s


def test_the_listen_address_is_advertised_unless_it_is_every_one() -> None:
    """Others cannot reach 0.0.0.0; what the configuration says goes first."""
    config = load_config(None, {})
    assert advertised_url(config, "http://10.0.0.5:9464") == "http://10.0.0.5:9464"
    assert "0.0.0.0" not in advertised_url(config, "https://0.0.0.0:9464")
    assert advertised_url(config, "https://0.0.0.0:9464").endswith(":9464")
    config = replace(config, replicas=ReplicasConfig("http://x:1"))
    assert advertised_url(config, "http://0.0.0.0:9464") == "http://x:1"
