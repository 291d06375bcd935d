"""Keys in a database of either kind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from sipserver.errors import Conflict, NotFound
from sipserver.store.database import Database
from sipserver.store.keys import KeyRow, KeyRows
from sipserver.store.settings import StoreSettings
from sipserver.tenants import key_book, keys
from sipserver.tenants.key_book import KeyBook
from sipserver.tenants.keys import ALL, Scope
from tests.store.conftest import store_settings

__all__ = ["store_settings"]

READ = frozenset({Scope.CALLS_READ})


class Clock:
    now = datetime(2026, 11, 28, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
async def rows(store_settings: StoreSettings) -> AsyncIterator[KeyRows]:
    database = Database(store_settings)
    await database.open()
    yield KeyRows(database)
    await database.close()


async def test_a_key_is_recognised_by_its_text_alone(rows: KeyRows) -> None:
    book = KeyBook(rows)
    key, text = await book.create("acme", "crm", READ)
    found = await book.recognise(text)
    assert found is not None
    assert (found.tenant, found.name, found.scopes) == ("acme", "crm", READ)
    assert await KeyBook(rows).recognise(text) is not None, "another process knows it, too"
    assert await book.recognise(keys.new_key().text) is None
    (row,) = await rows.list()
    assert text not in repr(row)
    assert row.id == key.id


async def test_what_a_later_version_lets_a_key_do_is_nothing_here(rows: KeyRows) -> None:
    made = keys.new_key()
    scopes = ["calls:read", "holograms:write"]
    await rows.add(KeyRow(made.id, "acme", "crm", scopes, made.digest, created_at=Clock.now))
    found = await KeyBook(rows, clock=Clock()).recognise(made.text)
    assert found is not None
    assert found.scopes == READ


async def test_a_key_ends_when_its_time_is_over(rows: KeyRows) -> None:
    clock = Clock()
    book = KeyBook(rows, clock=clock)
    _, text = await book.create("acme", "crm", ALL, lives=timedelta(hours=1))
    clock.passes(3599)
    assert await book.recognise(text) is not None
    clock.passes(1)
    assert await book.recognise(text) is None


async def test_a_revoked_key_is_refused_at_once_here_and_soon_elsewhere(rows: KeyRows) -> None:
    clock = Clock()
    here, elsewhere = KeyBook(rows, clock=clock), KeyBook(rows, clock=clock)
    key, text = await here.create("acme", "crm", READ)
    for book in (here, elsewhere):
        assert await book.recognise(text) is not None
        assert await book.recognise(text) is not None
    await here.revoke(key.id)
    assert await here.recognise(text) is None
    clock.passes(key_book.KNOWN_S)
    assert await elsewhere.recognise(text) is None


async def test_two_keys_are_good_while_one_takes_the_place_of_the_other(rows: KeyRows) -> None:
    book = KeyBook(rows)
    (old, old_text), (_, new_text) = await book.create("acme", "old", READ), await book.create("acme", "new", READ)
    assert await book.recognise(old_text) is not None
    assert await book.recognise(new_text) is not None
    await book.revoke(old.id)
    assert await book.recognise(old_text) is None
    assert await book.recognise(new_text) is not None


async def test_a_key_is_replaced_and_ends_when_the_grace_does(rows: KeyRows) -> None:
    clock = Clock()
    book = KeyBook(rows, clock=clock)
    asker, _ = await book.create("acme", "admin", ALL)
    old, old_text = await book.issue(asker, "crm", READ)
    assert await book.recognise(old_text) is not None
    new, new_text = await book.rotate(asker, old.id, timedelta(hours=1))
    assert (new.name, new.scopes, new.expires_at) == ("crm", READ, None)
    clock.passes(3599)
    assert await book.recognise(old_text) is not None
    clock.passes(1)
    assert await book.recognise(old_text) is None
    assert await book.recognise(new_text) is not None
    with pytest.raises(Conflict):
        await book.rotate(asker, old.id, timedelta())
    short, short_text = await book.issue(asker, "short", READ, clock.now + timedelta(minutes=1))
    await book.rotate(asker, short.id, timedelta(hours=1))
    clock.passes(60)
    assert await book.recognise(short_text) is None, "the grace makes no life longer"


async def test_keys_make_so_many_keys_and_no_more(rows: KeyRows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_book, "MOST_GOOD", 2)
    book = KeyBook(rows)
    asker, _ = await book.create("acme", "admin", ALL)
    made, _ = await book.issue(asker, "crm", READ)
    with pytest.raises(Conflict):
        await book.issue(asker, "one more", READ)
    await book.revoke(made.id)
    await book.issue(asker, "another", READ)


async def test_keys_are_listed_and_revoked_by_tenant(rows: KeyRows) -> None:
    book = KeyBook(rows)
    key, _ = await book.create("acme", "crm", READ)
    await book.create("zenith", "erp", READ)
    assert [each.name for each in await book.list("acme")] == ["crm"]
    assert [each.name for each in await book.list()] == ["crm", "erp"]
    with pytest.raises(NotFound):
        await book.revoke(key.id, tenant="zenith")
    with pytest.raises(NotFound):
        await book.revoke("none")
    assert all(each.revoked_at is None for each in await book.list())
    first = (await book.revoke(key.id)).id
    await book.revoke(key.id)
    assert first == key.id


async def test_the_last_use_is_known_to_the_minute(rows: KeyRows) -> None:
    clock = Clock()
    book = KeyBook(rows, clock=clock)
    _, text = await book.create("acme", "crm", READ)
    await book.recognise(text)
    used_at = clock.now
    clock.passes(key_book.USED_EVERY_S - 1)
    await book.recognise(text)
    assert (await book.list())[0].used_at == used_at
    clock.passes(1)
    await book.recognise(text)
    assert (await book.list())[0].used_at == clock.now


async def test_what_is_remembered_is_bounded(rows: KeyRows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_book, "MOST_KNOWN", 3)
    book = KeyBook(rows)
    for _ in range(5):
        assert await book.recognise(keys.new_key().text) is None
    assert len(book._known) == 3
