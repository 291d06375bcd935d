"""Users and their sessions in a database of either kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import argon2
import pytest
import sqlalchemy as sa

from sipserver.errors import CallerError, NotFound, TooMany
from sipserver.store.database import Database
from sipserver.store.schema import sessions, users
from sipserver.store.sessions import SessionRows
from sipserver.store.settings import StoreSettings
from sipserver.store.users import UserRows
from sipserver.tenants import passwords
from sipserver.tenants.passwords import Passwords
from sipserver.tenants.roles import Role
from sipserver.tenants.session_book import MOST_SESSIONS, SessionBook
from sipserver.tenants.settings import LoginSettings
from sipserver.tenants.user_book import FREE_TRIES, LOCKS_S, LetIn, UserBook
from sipserver.tenants.users import User
from tests.store.conftest import store_settings
from tests.tenants.test_key_book import Clock

__all__ = ["store_settings"]

PASSWORD = "correct horse battery"


@dataclass
class People:
    """A process's view of them."""

    database: Database
    clock: Clock
    book: UserBook
    sessions: SessionBook

    async def one(self, email: str = "anna@example.com", role: Role = Role.OWNER, tenant: str = "acme") -> User:
        return await self.book.create(tenant, email, "Anna", role, password=PASSWORD)

    async def comes(self, password: str = PASSWORD, email: str = "anna@example.com", tenant: str = "acme") -> LetIn:
        return await self.book.let_in(tenant, email, password)


@pytest.fixture
async def people(store_settings: StoreSettings) -> AsyncIterator[People]:
    database = Database(store_settings, connections=4)
    await database.open()
    clock = Clock()
    book = UserBook(UserRows(database), Passwords(), clock=clock)
    yield People(database, clock, book, SessionBook(SessionRows(database), LoginSettings(), clock=clock))
    await database.close()


async def test_a_user_comes_in_by_the_password_alone(people: People) -> None:
    user = await people.one("Anna@Example.COM")
    found = await people.comes(email=" ANNA@example.com ")
    assert found.user is not None
    assert (found.user.id, found.user.email) == (user.id, "anna@example.com")
    assert (await people.comes("another password")).user is None
    assert (await people.comes(tenant="zenith")).user is None
    async with people.database.engine.connect() as connection:
        kept = (await connection.execute(sa.select(users.c.password))).scalar_one()
    assert kept.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


async def test_an_address_is_of_one_user_in_each_tenant(people: People) -> None:
    await people.one()
    with pytest.raises(CallerError, match="already"):
        await people.one("ANNA@example.com")
    await people.one(tenant="zenith")
    for wrong in ("", "anna", "anna@", "@example.com", "a b@example.com", "a@b\nc", "x" * 250 + "@a.de"):
        with pytest.raises(CallerError, match="address"):
            await people.one(wrong)


async def test_passwords_that_are_too_short_or_too_long_are_not_taken(people: People) -> None:
    for wrong in ("eleven char", "x" * 257):
        with pytest.raises(CallerError, match="12 to 256"):
            await people.book.create("acme", "a@b.de", "", Role.VIEWER, password=wrong)
    user = await people.book.create("acme", "a@b.de", "", Role.VIEWER, password="  ﬁve spaces  ")
    assert (await people.comes("  five spaces  ", user.email)).user is not None, "the same from another keyboard"
    assert (await people.comes("five spaces", user.email)).user is None


async def test_a_hash_of_older_parameters_is_renewed(people: People) -> None:
    user = await people.one()
    weak = argon2.PasswordHasher(1, 8192, 1).hash(PASSWORD)
    async with people.database.engine.begin() as connection:
        await connection.execute(sa.update(users).values(password=weak))
    found = await people.comes()
    assert found.user is not None
    assert found.password != weak
    assert await people.sessions.begin(found, "", "") is not None
    again = await people.comes()
    assert (again.user, again.password) != (None, weak)
    assert user.id == found.user.id


async def test_an_account_locks_for_longer_and_longer(people: People) -> None:
    await people.one()
    for _ in range(FREE_TRIES - 1):
        assert (await people.comes("wrong wrong wrong")).locked is None
    for lock_s in (*LOCKS_S, LOCKS_S[-1]):
        assert (await people.comes("wrong wrong wrong")).locked is not None
        assert await people.comes() == LetIn(None), "not even with the right one"
        people.clock.passes(lock_s - 1)
        assert (await people.comes()).user is None
        people.clock.passes(1)
    assert (await people.comes()).user is not None
    assert (await people.comes("wrong wrong wrong")).locked is None, "it begins anew"


async def test_guesses_at_the_same_moment_are_all_counted(people: People) -> None:
    await people.one()
    found = await asyncio.gather(*(people.comes(f"guess number {number}") for number in range(FREE_TRIES + 5)))
    assert all(each.user is None for each in found)
    assert len([each for each in found if each.locked]) == 1
    assert (await people.comes()).user is None


async def test_a_password_is_looked_at_whether_or_not_there_is_a_user(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str | None] = []
    real = passwords.Turn.verify

    async def counted(self: passwords.Turn, kept: str | None, password: str) -> bool:
        looked.append(kept)
        return await real(self, kept, password)

    monkeypatch.setattr(passwords.Turn, "verify", counted)
    user = await people.one()
    await people.comes("wrong wrong wrong")
    await people.comes(email="nobody@example.com")
    await people.one("bob@example.com")
    await people.book.change(user.id, tenant="acme", role=Role.VIEWER)
    await people.book.change(user.id, tenant="acme", enabled=False)
    await people.comes()
    assert [kept is None for kept in looked] == [False, True, True]


async def test_so_many_wait_and_no_more(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "WAITING", 1)
    found = await asyncio.gather(*(people.comes() for _ in range(10)), return_exceptions=True)
    assert len([each for each in found if isinstance(each, TooMany)]) == 10 - passwords.AT_A_TIME - 1


async def test_the_last_owner_stays_one(people: People) -> None:
    anna = await people.one()
    await people.one("carl@example.com", Role.ADMIN)
    await people.one("other@example.com", tenant="zenith")
    for change in ({"role": Role.ADMIN}, {"enabled": False}):
        with pytest.raises(CallerError, match="last owner"):
            await people.book.change(anna.id, tenant="acme", **change)
    bob = await people.one("bob@example.com")
    goes = [people.book.change(each.id, tenant="acme", role=Role.VIEWER) for each in (anna, bob)]
    found = await asyncio.gather(*goes, return_exceptions=True)
    assert len([each for each in found if isinstance(each, CallerError)]) == 1, "one of them, however close they are"
    assert [user.role for user in await people.book.list("acme")].count(Role.OWNER) == 1


async def test_who_is_deleted_is_gone_with_all_sessions_and_may_come_back(people: People) -> None:
    anna, bob = await people.one(), await people.one("bob@example.com", Role.VIEWER)
    begun = await people.sessions.begin(await people.comes(email="bob@example.com"), "", "")
    assert begun is not None
    came = await people.comes(email="bob@example.com")
    deleted = await people.book.delete(bob.id, tenant="acme")
    assert (deleted.id, deleted.email) == (bob.id, "bob@example.com")
    assert await people.sessions.recognise(begun[1]) is None
    assert await people.sessions.begin(came, "", "") is None, "who was on the way in stays outside"
    async with people.database.engine.connect() as connection:
        left = [tuple(row) for row in await connection.execute(sa.select(users.c.id, users.c.email))]
        assert left == [(anna.id, anna.email)]
        assert not (await connection.execute(sa.select(sessions.c.id))).all()
    for gone in (people.book.get, people.book.delete):
        with pytest.raises(NotFound):
            await gone(bob.id, tenant="acme")
    again = await people.one("bob@example.com", Role.ADMIN)
    assert again.id != bob.id
    assert (await people.comes(email="bob@example.com")).user is not None


async def test_the_last_owner_is_not_deleted_however_close_two_are(people: People) -> None:
    anna = await people.one()
    await people.one("other@example.com", tenant="zenith")
    with pytest.raises(CallerError, match="last owner"):
        await people.book.delete(anna.id, tenant="acme")
    bob = await people.one("bob@example.com")
    goes = [people.book.delete(each.id, tenant="acme") for each in (anna, bob)]
    found = await asyncio.gather(*goes, return_exceptions=True)
    assert len([each for each in found if isinstance(each, CallerError)]) == 1
    assert [user.role for user in await people.book.list("acme")] == [Role.OWNER]
    (left,) = await people.book.list("acme")
    with pytest.raises(NotFound):
        await people.book.delete(left.id, tenant="zenith")


async def test_nobody_reaches_another_tenants_user(people: People) -> None:
    anna = await people.one()
    with pytest.raises(NotFound):
        await people.book.get(anna.id, tenant="zenith")
    with pytest.raises(NotFound):
        await people.book.change(anna.id, tenant="zenith", role=Role.VIEWER)


async def test_a_session_lasts_while_it_is_used_and_not_for_ever(people: People) -> None:
    await people.one()
    begun = await people.sessions.begin(await people.comes(), "192.0.2.1", "a browser")
    assert begun is not None
    session, token = begun
    for _ in range(23):
        people.clock.passes(30 * 60)
        found = await people.sessions.recognise(token)
        assert found is not None
        assert found[0].csrf == session.csrf
    people.clock.passes(30 * 60)
    assert await people.sessions.recognise(token) is None, "twelve hours are over"
    begun = await people.sessions.begin(await people.comes(), "", "")
    assert begun is not None
    people.clock.passes(60 * 60)
    assert await people.sessions.recognise(begun[1]) is None, "nobody used it"
    assert await people.sessions.recognise("") is None
    assert await people.sessions.recognise("x" * 10_000) is None


async def test_a_user_has_so_many_sessions_and_no_more(people: People) -> None:
    anna = await people.one()
    tokens = []
    for _ in range(MOST_SESSIONS + 1):
        people.clock.passes(1)
        begun = await people.sessions.begin(await people.comes(), "", "")
        assert begun is not None
        tokens.append(begun[1])
    assert len(await people.sessions.list(anna.id)) == MOST_SESSIONS
    assert await people.sessions.recognise(tokens[0]) is None
    assert await people.sessions.recognise(tokens[-1]) is not None


async def test_no_session_begins_with_what_is_no_longer_right(people: People) -> None:
    anna = await people.one()
    await people.one("bob@example.com")
    found = await people.comes()
    await people.book.change(anna.id, tenant="acme", password="another horse battery")
    assert await people.sessions.begin(found, "", "") is None, "the password was changed while it was looked at"
    found = await people.comes("another horse battery")
    await people.book.change(anna.id, tenant="acme", enabled=False)
    assert await people.sessions.begin(found, "", "") is None
