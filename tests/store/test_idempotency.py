"""Keys of requests on both databases: one is the first, until it is over, gave up, or died."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from sipserver.store.database import Database
from sipserver.store.idempotency import IdempotencyRow, IdempotencyRows
from sipserver.store.settings import StoreSettings

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
async def rows(store_settings: StoreSettings) -> AsyncIterator[IdempotencyRows]:
    database = Database(store_settings)
    await database.open()
    yield IdempotencyRows(database)
    await database.close()


def row(name: str = "k", at: datetime = NOW, request: str = "r") -> IdempotencyRow:
    return IdempotencyRow(name, "acme", request, uuid.uuid4().hex, str(uuid.uuid4()), at, at + DAY)


async def test_of_many_at_the_same_moment_one_is_the_first(rows: IdempotencyRows) -> None:
    asked = [row() for _ in range(8)]
    found = await asyncio.gather(*map(rows.claim, asked))
    (first,) = [each for each, earlier in zip(asked, found, strict=True) if earlier is None]
    assert [each for each in found if each is not None] == [first] * 7
    assert await rows.claim(row("another")) is None


async def test_what_was_answered_stays_until_the_day_is_over(rows: IdempotencyRows) -> None:
    first = row()
    await rows.claim(first)
    await rows.settle(first, 201, {"Location": "/x"}, '{"id": "1"}')
    kept = await rows.claim(row(at=NOW + DAY - timedelta(seconds=1)))
    assert kept is not None
    assert (kept.claim, kept.status, kept.headers, kept.answer) == (first.claim, 201, {"Location": "/x"}, '{"id": "1"}')
    await rows.release(first)
    assert await rows.claim(row()) == kept, "what was done is not given up"
    late = row(at=NOW + DAY)
    assert await rows.claim(late) is None
    assert await rows.claim(row(at=NOW + DAY)) == late, "with nothing of the earlier one"


async def test_a_key_that_is_given_up_is_free(rows: IdempotencyRows) -> None:
    first, second = row(), row()
    await rows.claim(first)
    await rows.release(second)
    assert await rows.claim(second) == first, "nobody gives up another one's"
    await rows.release(first)
    assert await rows.claim(second) is None


async def test_one_alone_takes_over_and_the_earlier_one_changes_nothing_any_more(rows: IdempotencyRows) -> None:
    first, second, third = row(), row(at=NOW + timedelta(minutes=5)), row()
    await rows.claim(first)
    assert await rows.take_over(first, second)
    assert not await rows.take_over(first, third)
    await rows.settle(first, 201, {}, None)
    await rows.release(first)
    assert await rows.claim(third) == second
    await rows.settle(second, 201, {}, None)
    assert not await rows.take_over(second, third), "its work came to an end"


async def test_what_is_over_is_swept(rows: IdempotencyRows) -> None:
    for name, at in (("old", NOW - DAY), ("older", NOW - 2 * DAY), ("new", NOW)):
        await rows.claim(row(name, at))
    assert await rows.sweep(NOW) == 2
    assert await rows.sweep(NOW) == 0
    assert await rows.claim(row("new")) is not None
