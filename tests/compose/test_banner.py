"""The first lines on the terminal."""

from __future__ import annotations

from exporter.compose.banner import banner_lines
from exporter.config.load import load_config


def lines(environ: dict[str, str], simulator_url: str = "") -> str:
    config = load_config(None, environ)
    return "\n".join(
        banner_lines(
            config,
            [],
            config.collect.providers,
            base_url="http://127.0.0.1:9464",
            database_url="postgresql://there/db",
            replica="this replica notifies",
            simulator_url=simulator_url,
        )
    )


def test_they_say_where_things_are_and_what_is_off() -> None:
    """Without a configuration: the embedded database, providers without a key, what lacks one and why."""
    found = lines({})
    assert "metrics    http://127.0.0.1:9464/metrics" in found
    assert "database   postgresql://there/db (embedded Postgres, data)" in found
    assert "providers  coingecko, kraken, blockchain\n" in found
    assert "off        lunarcrush: no API key (LUNARCRUSH_API_KEY)" in found
    assert "off        cron endpoint: no secret (CRON_SECRET)" in found
    assert "replica" not in found
    assert "simulator" not in found


def test_they_say_who_notifies_where_there_may_be_replicas() -> None:
    """With a database of one's own the line is there; with a secret the cron endpoint is not off."""
    found = lines({"DATABASE_URL": "postgresql://there/db", "CRON_SECRET": "s"}, "http://127.0.0.1:9465")
    assert "database   postgresql://there/db (database.url)" in found
    assert "replica    this replica notifies" in found
    assert "cron endpoint" not in found
    assert "simulator  http://127.0.0.1:9465" in found
