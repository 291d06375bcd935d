"""Settings for an empty and for a ready database of either kind, and records that are closed at the end of the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sipserver.store.records import Records
from sipserver.store.settings import StoreSettings
from tests.servers.postgres import Postgres

DATABASES = ("sqlite", "postgresql")


@pytest.fixture(params=DATABASES)
def store_settings(request: pytest.FixtureRequest, tmp_path: Path, postgres: Postgres) -> StoreSettings:
    """Of a database with tables, on PostgreSQL, where making them takes long; of a new file on SQLite."""
    if request.param == "sqlite":
        return StoreSettings(url=f"sqlite+aiosqlite:///{tmp_path}/var/records.db", flush_ms=10)
    return StoreSettings(url=postgres.url(postgres.database()), flush_ms=10)


@pytest.fixture(params=DATABASES)
def empty_settings(request: pytest.FixtureRequest, tmp_path: Path, postgres: Postgres) -> StoreSettings:
    """Of a database in which nobody has made tables yet."""
    if request.param == "sqlite":
        return StoreSettings(url=f"sqlite+aiosqlite:///{tmp_path}/var/records.db", flush_ms=10)
    return StoreSettings(url=postgres.url(postgres.database(migrated=False)), flush_ms=10)


@pytest.fixture
def sqlite_settings(tmp_path: Path) -> StoreSettings:
    return StoreSettings(url=f"sqlite+aiosqlite:///{tmp_path}/var/records.db", flush_ms=10)


@pytest.fixture
async def records(store_settings: StoreSettings) -> AsyncIterator[Records]:
    opened = Records(store_settings, node="test")
    await opened.open()
    yield opened
    await opened.close()
