"""A database file and records that are closed at the end of the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sipserver.store.records import Records
from sipserver.store.settings import StoreSettings


@pytest.fixture
def store_settings(tmp_path: Path) -> StoreSettings:
    return StoreSettings(url=f"sqlite+aiosqlite:///{tmp_path}/var/records.db", flush_ms=10)


@pytest.fixture
async def records(store_settings: StoreSettings) -> AsyncIterator[Records]:
    opened = Records(store_settings, node="test")
    await opened.open()
    yield opened
    await opened.close()
