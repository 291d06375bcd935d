"""The audit log in a database of either kind: the chain, many writers at once, whatever can be done to it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from sipserver.errors import SettingsError, SipServerError
from sipserver.store.audit import AuditRows
from sipserver.store.database import Database
from sipserver.store.settings import StoreSettings
from sipserver.tenants.audit_log import AuditLog, Verdict
from sipserver.tenants.audit_secret import AuditSecret
from sipserver.tenants.audit_walk import Damage, Known
from tests.store.conftest import sqlite_settings, store_settings

__all__ = ["sqlite_settings", "store_settings"]

SECRET = AuditSecret(b"a secret of at least thirty-two bytes")
OTHER = AuditSecret(b"another secret of thirty-two bytes or so")
NOW = datetime(2026, 11, 28, 12, 0, 0, 123456, tzinfo=UTC)
ENTRIES = 7
PAGE = 3
"""Small, so that what is broken also lies at the edge of a page: the pages are 1-3, 4-6, 7."""


@pytest.fixture
async def database(store_settings: StoreSettings) -> AsyncIterator[Database]:
    database = Database(store_settings)
    await database.open()
    yield database
    await database.close()


def log_in(database: Database, secret: AuditSecret = SECRET) -> AuditLog:
    return AuditLog(AuditRows(database), secret, page=PAGE)


async def fill(log: AuditLog, count: int = ENTRIES, tenant: str = "acme") -> None:
    for number in range(1, count + 1):
        await log.append(tenant, actor="key:a", action="call.created", subject=f"call:{number}", detail={"n": number})


async def change(database: Database, *statements: str) -> None:
    """By somebody who may do anything to the database, but has no secret."""
    async with database.engine.begin() as connection:
        for statement in statements:
            await connection.execute(sa.text(statement))


def broken(verdict: Verdict) -> tuple[int, Damage] | None:
    return None if verdict.broken is None else (verdict.broken.number, verdict.broken.damage)


# --- the chain --------------------------------------------------------------------------------------------------------


async def test_entries_are_chained_and_kept_as_they_were_given(database: Database) -> None:
    log = AuditLog(AuditRows(database), SECRET, clock=lambda: NOW)
    detail = {"to": "+49 30 \u2603 \U0001f600", "deep": [{"b": 1.5, "a": None, "c": -0.0}], "on": True}
    first = await log.append(
        "acme", actor="user:\x1b[31mJo\u0308rg\n", action="call.created", detail=detail, source="2001:db8::1"
    )
    second = await log.append("acme", actor="system", action="recording.read", subject="call:1")
    assert (first.number, first.previous, first.at, first.detail) == (1, "", NOW, detail)
    assert (second.number, second.previous, second.subject) == (2, first.mac, "call:1")
    assert await log.newest("acme") == [second, first]
    assert [each async for each in log.entries("acme")] == [first, second]
    assert await log.verify("acme") == Verdict("acme", 2, second.mac, None)


async def test_tenants_have_chains_of_their_own(database: Database) -> None:
    log = log_in(database)
    await fill(log, 2, "zenith")
    await fill(log, 3)
    assert await log.tenants() == ["acme", "zenith"]
    assert [(await log.verify(each)).entries for each in ("acme", "zenith", "nobody")] == [3, 2, 0]
    assert broken(await log.verify("nobody")) is None
    assert [each.tenant for each in await log.newest("zenith")] == ["zenith"] * 2


async def test_newest_and_entries_by_number_and_moment(database: Database) -> None:
    moments = iter([NOW + timedelta(minutes=minute) for minute in range(ENTRIES)])
    log = AuditLog(AuditRows(database), SECRET, clock=lambda: next(moments), page=PAGE)
    await fill(log)
    assert [each.number for each in await log.newest("acme", limit=2)] == [7, 6]
    assert [each.number for each in await log.newest("acme", before=6, limit=2)] == [5, 4]
    assert [each.number for each in await log.newest("acme", since=NOW + timedelta(minutes=5))] == [7, 6]
    since, until = NOW + timedelta(minutes=1), NOW + timedelta(minutes=6)
    assert [each.number async for each in log.entries("acme", since=since, until=until)] == [2, 3, 4, 5, 6]
    assert [each.number async for each in log.entries("acme")] == list(range(1, 8))


async def test_nothing_is_written_when_an_entry_cannot_be_made(database: Database) -> None:
    log = log_in(database)
    with pytest.raises(ValueError, match="action"):
        await log.append("acme", actor="system", action="")
    assert await log.tenants() == []


# --- many at once -----------------------------------------------------------------------------------------------------


async def test_many_append_at_once(store_settings: StoreSettings) -> None:
    databases = [Database(store_settings) for _ in range(3)]
    for each in databases:
        await each.open()
    logs = [log_in(each) for each in databases]
    acts = [log.append("acme", actor=f"key:{at}", action="key.created") for at, log in enumerate((logs * 7)[:20])]
    made = await asyncio.gather(*acts)
    assert sorted(each.number for each in made) == list(range(1, 21))
    assert {each.actor for each in await logs[0].newest("acme")} == {f"key:{at}" for at in range(20)}
    verdict = await logs[1].verify("acme")
    assert (verdict.entries, verdict.broken) == (20, None)
    for each in databases:
        await each.close()


APPENDER = """
import asyncio, sys
from sipserver.store.audit import open_audit
from sipserver.store.settings import StoreSettings
from sipserver.tenants.audit_log import AuditLog
from sipserver.tenants.audit_secret import AuditSecret
async def main():
    async with open_audit(StoreSettings(url=sys.argv[1])) as rows:
        log = AuditLog(rows, AuditSecret(b"a secret of at least thirty-two bytes"))
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in range(25):
            await log.append("acme", actor=sys.argv[2], action="call.created")
asyncio.run(main())
"""


def appender(settings: StoreSettings, name: str) -> subprocess.Popen[str]:
    program = [sys.executable, "-c", APPENDER, settings.url, name]
    return subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


async def test_processes_append_at_once(database: Database, store_settings: StoreSettings) -> None:
    programs = [appender(store_settings, name) for name in ("one", "two")]
    for each in programs:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in programs:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    log = log_in(database)
    verdicts = [await log.verify("acme")]
    while any(each.poll() is None for each in programs):
        verdicts.append(await log.verify("acme"))
    for each in programs:
        each.communicate()
        assert each.returncode == 0
    assert [broken(each) for each in verdicts if each.broken] == [], "verified while entries were appended"
    verdict = await log.verify("acme")
    assert (verdict.entries, verdict.broken) == (50, None)
    actors = [each.actor async for each in log.entries("acme")]
    assert actors.count("one") == actors.count("two") == 25


async def test_an_append_that_is_given_up_leaves_no_trace(database: Database) -> None:
    log = log_in(database)
    await fill(log, 2)
    for steps in range(12):
        task = asyncio.create_task(log.append("acme", actor="system", action="gone"))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await fill(log, 1)
    assert broken(await log.verify("acme")) is None


# --- tampering --------------------------------------------------------------------------------------------------------

OF = "WHERE tenant = 'acme' AND number"
COPY = "INSERT INTO audit SELECT {} FROM audit WHERE tenant = 'acme' AND number = 4"
SWAP = [
    f"UPDATE audit SET number = -1 {OF} = 3",
    f"UPDATE audit SET number = 3 {OF} = 4",
    f"UPDATE audit SET number = 4 {OF} = -1",
]
SHIFT = [f"UPDATE audit SET number = -number - 1 {OF} >= 4", f"UPDATE audit SET number = -number {OF} < 0"]
HEAD = "UPDATE audit_heads SET {} WHERE tenant = 'acme'"
LAST_OF_3 = "(SELECT mac FROM audit WHERE tenant = 'acme' AND number = 3)"


def insert(number: int | str) -> str:
    """A copy of entry 4 with another number."""
    return COPY.format(f"tenant, {number}, at, actor, action, subject, detail, source, previous, mac")


TAMPERING = {
    **{
        f"{name} of {number}": ([f"UPDATE audit SET {name} = 'changed' {OF} = {number}"], number, Damage.CHANGED)
        for name in ("actor", "action", "subject", "detail", "source", "previous", "mac")
        for number in (1, 3, 5, 7)
    },
    "at": ([f"UPDATE audit SET at = '2026-11-28 11:00:00.000000' {OF} = 4"], 4, Damage.CHANGED),
    "detail, that means the same": ([f"UPDATE audit SET detail = ' ' || detail {OF} = 4"], 4, Damage.CHANGED),
    "tenant": ([f"UPDATE audit SET tenant = 'zenith' {OF} = 4"], 4, Damage.MISSING),
    "number": ([f"UPDATE audit SET number = 99 {OF} = 4"], 4, Damage.MISSING),
    "first deleted": ([f"DELETE FROM audit {OF} = 1"], 1, Damage.MISSING),
    "middle deleted": ([f"DELETE FROM audit {OF} = 4"], 4, Damage.MISSING),
    "several deleted": ([f"DELETE FROM audit {OF} IN (4, 5, 6)"], 4, Damage.MISSING),
    "last deleted": ([f"DELETE FROM audit {OF} = 7"], 7, Damage.CUT_OFF),
    "end deleted": ([f"DELETE FROM audit {OF} >= 4"], 4, Damage.CUT_OFF),
    "all deleted": ([f"DELETE FROM audit {OF} > 0"], 1, Damage.CUT_OFF),
    "swapped": (SWAP, 3, Damage.INSERTED),
    "gap filled": ([f"DELETE FROM audit {OF} = 4", f"UPDATE audit SET number = 4 {OF} = 5"], 4, Damage.INSERTED),
    "gap filled and linked": (
        [
            f"UPDATE audit SET previous = {LAST_OF_3} {OF} = 5",
            f"DELETE FROM audit {OF} = 4",
            f"UPDATE audit SET number = 4 {OF} = 5",
        ],
        4,
        Damage.INSERTED,
    ),
    "inserted between": ([*SHIFT, insert(4).replace("number = 4", "number = 5")], 5, Damage.INSERTED),
    "inserted at the end": ([insert(8)], 8, Damage.INSERTED),
    "inserted beyond the end": ([insert(10)], 8, Damage.MISSING),
    "inserted before the first": ([insert(0)], 0, Damage.INSERTED),
    "inserted far before the first": ([insert(-5)], -5, Damage.INSERTED),
    "head deleted": (["DELETE FROM audit_heads"], 7, Damage.HEAD),
    "number of head": ([HEAD.format("number = 6")], 7, Damage.HEAD),
    "last of head": ([HEAD.format("last = 'changed'")], 7, Damage.HEAD),
    "mac of head": ([HEAD.format("mac = 'changed'")], 7, Damage.HEAD),
    "tenant of head": ([HEAD.format("tenant = 'zenith'")], 7, Damage.HEAD),
    "cut off, and head deleted": ([f"DELETE FROM audit {OF} = 7", "DELETE FROM audit_heads"], 6, Damage.HEAD),
    "cut off, and head changed": (
        [
            f"DELETE FROM audit {OF} = 7",
            HEAD.format("number = 6, last = (SELECT mac FROM audit WHERE number = 6)"),
        ],
        6,
        Damage.HEAD,
    ),
}


@pytest.mark.parametrize("name", TAMPERING)
async def test_tampering_is_found_and_does_not_heal(database: Database, name: str) -> None:
    statements, number, damage = TAMPERING[name]
    log = log_in(database)
    await fill(log)
    assert broken(await log.verify("acme")) is None
    await change(database, *statements)
    assert broken(await log.verify("acme")) == (number, damage)
    await log.append("acme", actor="system", action="later")
    await log.append("acme", actor="system", action="later")
    again = await log.verify("acme")
    assert again.broken is not None, "what is appended later does not hide it"
    assert again.broken.number in (number, number + 1), "and it is found where it was"
    assert [each.action for each in await log.newest("acme", limit=2)] == ["later", "later"]


async def test_moved_to_another_tenant_an_entry_is_none_of_theirs(database: Database) -> None:
    log = log_in(database)
    await fill(log, 2)
    await fill(log, 1, "zenith")
    await change(database, f"UPDATE audit SET tenant = 'zenith' {OF} = 2")
    assert broken(await log.verify("zenith")) == (2, Damage.INSERTED)


async def test_genuine_entries_of_a_copy_are_not_taken_for_those_of_today(database: Database) -> None:
    log = log_in(database)
    await fill(log, 3)
    await change(database, "CREATE TABLE old_heads AS SELECT * FROM audit_heads")
    await fill(log, 1)
    await change(database, f"CREATE TABLE old AS SELECT * FROM audit {OF} = 4")
    await change(database, f"DELETE FROM audit {OF} = 4", "DELETE FROM audit_heads")
    await change(database, "INSERT INTO audit_heads SELECT * FROM old_heads")
    await fill(log, 2)
    assert broken(await log.verify("acme")) is None
    await change(database, f"DELETE FROM audit {OF} = 4", "INSERT INTO audit SELECT * FROM old")
    assert broken(await log.verify("acme")) == (5, Damage.REPLACED)


async def test_an_older_copy_put_back_is_found_by_what_is_known(database: Database) -> None:
    log = log_in(database)
    await fill(log, 3)
    await change(database, "CREATE TABLE old_heads AS SELECT * FROM audit_heads")
    await fill(log, 2)
    last = (await log.verify("acme")).last
    known = Known(5, last)
    assert broken(await log.verify("acme", known)) is None
    await change(database, f"DELETE FROM audit {OF} > 3", "DELETE FROM audit_heads")
    await change(database, "INSERT INTO audit_heads SELECT * FROM old_heads")
    assert broken(await log.verify("acme")) is None, "nothing in the database itself tells"
    assert broken(await log.verify("acme", known)) == (4, Damage.CUT_OFF)
    await fill(log, 4)
    assert broken(await log.verify("acme", known)) == (5, Damage.REPLACED)


async def test_another_secret_is_named_as_such_and_does_not_go_on(database: Database) -> None:
    await fill(log_in(database))
    wrong = log_in(database, OTHER)
    assert broken(await wrong.verify("acme")) == (1, Damage.FOREIGN)
    with pytest.raises(SettingsError, match="another secret"):
        await wrong.append("acme", actor="system", action="later")
    assert broken(await log_in(database).verify("acme")) is None


async def test_entries_that_have_the_same_number_are_found_at_the_edge_of_a_page(database: Database) -> None:
    log = log_in(database)
    await fill(log)
    await change(
        database,
        "CREATE TABLE copy AS SELECT * FROM audit",
        "DROP TABLE audit",
        "ALTER TABLE copy RENAME TO audit",
        "INSERT INTO audit SELECT * FROM audit WHERE number = 3",
    )
    assert broken(await log.verify("acme")) == (7, Damage.INSERTED)


SPOILT = {
    "at": f"UPDATE audit SET at = 'yesterday' {OF} = 4",
    "at, a number": f"UPDATE audit SET at = 4 {OF} = 4",
    "bytes": f"UPDATE audit SET actor = x'00ff' {OF} = 4",
    "no UTF-8": f"UPDATE audit SET subject = CAST(x'ff' AS TEXT) {OF} = 4",
    "number": f"UPDATE audit SET number = 4.5 {OF} = 4",
}


@pytest.mark.parametrize("name", SPOILT)
async def test_on_sqlite_anything_may_stand_anywhere(sqlite_settings: StoreSettings, name: str) -> None:
    database = Database(sqlite_settings)
    await database.open()
    log = log_in(database)
    await fill(log)
    await change(database, SPOILT[name])
    assert broken(await log.verify("acme")) == (4, Damage.UNREADABLE)
    with pytest.raises(SipServerError, match="cannot be read"):
        _ = [each async for each in log.entries("acme")]
    await log.append("acme", actor="system", action="later")
    assert broken(await log.verify("acme")) == (4, Damage.UNREADABLE)
    await database.close()


@pytest.mark.parametrize("what", ["last = x'00'", "number = 'many'", "mac = CAST(x'ff' AS TEXT)"])
async def test_on_sqlite_a_head_may_be_anything(sqlite_settings: StoreSettings, what: str) -> None:
    database = Database(sqlite_settings)
    await database.open()
    log = log_in(database)
    await fill(log)
    await change(database, HEAD.format(what))
    assert broken(await log.verify("acme")) == (7, Damage.HEAD)
    await log.append("acme", actor="system", action="later")
    assert broken(await log.verify("acme")) == (8, Damage.NOTICED)
    await database.close()


async def test_a_spoilt_last_entry_does_not_keep_others_from_being_written(sqlite_settings: StoreSettings) -> None:
    database = Database(sqlite_settings)
    await database.open()
    log = log_in(database)
    await fill(log)
    await change(database, f"UPDATE audit SET at = 'yesterday' {OF} = 7", insert("'zzz'"))
    added = await log.append("acme", actor="system", action="later")
    assert added.number == 8
    assert broken(await log.verify("acme")) == (7, Damage.UNREADABLE)
    await database.close()


# --- the secret at start ----------------------------------------------------------------------------------------------


async def test_a_secret_that_continues_no_log_is_refused(database: Database) -> None:
    await log_in(database, OTHER).check()  # there is no log yet
    for tenant in ("acme", "zenith"):
        await fill(log_in(database), 2, tenant)
    await log_in(database).check()
    with pytest.raises(SettingsError, match=r"another secret than that of a\.secret: put the earlier one back"):
        await log_in(database, AuditSecret(b"x" * 32, "a.secret")).check()


async def test_one_log_that_was_replaced_does_not_make_a_secret_wrong(database: Database) -> None:
    await fill(log_in(database, OTHER), 2, "acme")
    await fill(log_in(database), 2, "zenith")
    await log_in(database).check()


async def test_a_log_without_its_head_can_be_continued(database: Database) -> None:
    await fill(log_in(database), 2)
    await change(database, "DELETE FROM audit_heads")
    await log_in(database).check()
    with pytest.raises(SettingsError, match="another secret"):
        await log_in(database, OTHER).check()
