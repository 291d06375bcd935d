"""Outgoing webhooks over a database of either kind, by a clock that the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from sipserver.store.database import Database
from sipserver.store.settings import StoreSettings
from sipserver.webhooks.outgoing import Outgoing
from sipserver.webhooks.settings import WebhookSettings
from tests.store.conftest import sqlite_settings, store_settings
from tests.webhooks.rig import Clock, Receivers

__all__ = ["sqlite_settings", "store_settings"]

Make = Callable[..., Outgoing]


@pytest.fixture
async def database(store_settings: StoreSettings) -> AsyncIterator[Database]:
    opened = Database(store_settings, connections=4)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def receivers() -> Receivers:
    return Receivers()


@pytest.fixture
async def make(database: Database, clock: Clock, receivers: Receivers) -> AsyncIterator[Make]:
    """Further instances over the same database are as further processes are."""
    made: list[Outgoing] = []

    def one(post: Receivers | None = None, **settings: int) -> Outgoing:
        hooks = Outgoing(
            database, WebhookSettings.model_validate(settings), post=post or receivers, clock=clock, chance=lambda: 0.5
        )
        made.append(hooks)
        return hooks

    yield one
    for hooks in made:
        await hooks.stop()


@pytest.fixture
def hooks(make: Make) -> Outgoing:
    return make()
