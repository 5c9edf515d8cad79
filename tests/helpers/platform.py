"""Fixtures: a database with the platform's tables and nothing else. Import them where they are used."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.assets import asset_dir
from exporter.db.migrate import migrate_up
from tests.helpers.postgres import PostgresServer


@pytest.fixture(scope="session")
def platform_template(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a database with migrations 001 to 006."""
    folder: Path = tmp_path_factory.mktemp("sql")
    for file in sorted(asset_dir("sql").glob("00[1-6]_*.sql")):
        shutil.copy(file, folder)
    name = postgres_server.create_database()
    asyncio.run(migrate_up(postgres_server.url(name), folder))
    return name


@pytest.fixture
def platform_url(postgres_server: PostgresServer, platform_template: str) -> Iterator[str]:
    """The URL of a new database with the platform's tables, empty."""
    name = postgres_server.create_database(platform_template)
    yield postgres_server.url(name)
    postgres_server.drop_database(name)
