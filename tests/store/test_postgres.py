"""PostgreSQL alone: who is let in and what the operator is told, a server that stops, restarts, dies and hangs."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa
import structlog
from typer.testing import CliRunner

from sipserver import events
from sipserver.cli.calls import app
from sipserver.errors import SettingsError
from sipserver.store import database as database_module
from sipserver.store.database import Database, DatabaseAway
from sipserver.store.reader import open_reader
from sipserver.store.records import Records
from sipserver.store.settings import StoreSettings
from tests.fakes.told import start, tell
from tests.servers.postgres import GUARDED, PASSWORD, Postgres

VARIABLE = "SIPSERVER_DATABASE_PASSWORD"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "CONNECT_S", 0.5)
    monkeypatch.setattr(database_module, "ANSWER_S", 0.5)


@pytest.fixture
def settings(postgres: Postgres) -> StoreSettings:
    return StoreSettings(url=postgres.url(postgres.database()), flush_ms=10)


async def refused(url: str) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        await Database(StoreSettings(url=url)).open()
    return caught.value


# --- getting in -------------------------------------------------------------------------------------------------------


async def test_the_password_comes_from_the_environment(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    name = postgres.database()
    postgres.sql(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {GUARDED}", name)
    monkeypatch.setenv(VARIABLE, PASSWORD)
    records = Records(StoreSettings(url=postgres.url(name, role=GUARDED)))
    await records.open()
    start(records)
    await records.close()
    async with open_reader(StoreSettings(url=postgres.url(name, role=GUARDED))) as reader:
        assert [call.id for call in await reader.list()] == ["c1"]


async def test_a_wrong_password_is_refused_with_a_remedy_and_never_printed(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "battery staple")
    problem = await refused(postgres.url(postgres.database(migrated=False), role=GUARDED))
    assert f"put it into the environment variable {VARIABLE}" in str(problem)
    assert not isinstance(problem, DatabaseAway)
    shown, cause = [str(problem), repr(problem)], problem.__cause__
    while cause is not None:
        shown += [str(cause), repr(cause)]
        cause = cause.__cause__ or cause.__context__
    assert "staple" not in " ".join(shown)


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        (
            "postgresql+asyncpg://sipserver@HERE/missing",
            "no database missing: make it with `createdb -O sipserver missing`",
        ),
        ("postgresql+asyncpg://stranger@HERE/postgres", "pg_hba.conf"),
        ("postgresql+asyncpg://guarded:correct%20horse@HERE/postgres", "ALTER DATABASE postgres OWNER TO guarded"),
        ("postgresql+asyncpg://sipserver@HERE/postgres?colour=red", "colour"),
        ("postgresql+asyncpg://sipserver:secret@HERE9x/postgres", "not a database that can be used"),
    ],
)
async def test_who_cannot_get_in_learns_why(postgres: Postgres, url: str, remedy: str) -> None:
    problem = await refused(url.replace("HERE", f"127.0.0.1:{postgres.port}"))
    assert remedy in str(problem)
    assert not isinstance(problem, DatabaseAway)
    assert "secret" not in str(problem)


@pytest.mark.parametrize("spelling", ["postgresql://", "postgres://", "postgresql+asyncpg://"])
async def test_urls_as_people_write_them(postgres: Postgres, spelling: str) -> None:
    where = f"sipserver@127.0.0.1:{postgres.port}/{postgres.database()}"
    database = Database(StoreSettings(url=f"{spelling}{where}?sslmode=disable"))
    await database.open()
    await database.close()


async def test_a_server_that_is_away_is_told_from_one_that_refuses(postgres: Postgres) -> None:
    url = postgres.url(postgres.database())
    with postgres.stopped():
        problem = await refused(url)
    assert isinstance(problem, DatabaseAway)
    assert f"127.0.0.1:{postgres.port}: is it running?" in str(problem)
    with postgres.paused():
        assert isinstance(await refused(url), DatabaseAway)


async def test_a_full_house_counts_as_away(postgres: Postgres) -> None:
    name = postgres.database()
    postgres.sql(f"ALTER DATABASE {name} CONNECTION LIMIT 0")
    assert isinstance(await refused(postgres.url(name, role=GUARDED).replace("@", ":correct%20horse@")), DatabaseAway)


# --- what is written there --------------------------------------------------------------------------------------------


async def test_moments_are_kept_in_utc_whatever_the_server_s_zone(settings: StoreSettings, postgres: Postgres) -> None:
    noon = datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    records = Records(settings, now=lambda: noon, clock=lambda: 0.0)
    await records.open()
    start(records)
    await records.flush()
    call = await records.get("c1")
    assert call is not None
    assert (call.started_at, call.started_at.tzinfo) == (noon, UTC)
    assert await records.list(before=noon + timedelta(seconds=1)) == [call]
    assert await records.list(before=noon) == []
    await records.close()
    name = settings.url.rpartition("/")[2]
    assert postgres.sql("SELECT started_at AT TIME ZONE 'UTC' FROM calls", name) == "2026-07-01 10:00:00"


async def test_who_writes_takes_four_connections_and_who_reads_one(settings: StoreSettings, postgres: Postgres) -> None:
    records = Records(settings)
    await records.open()
    name = settings.url.rpartition("/")[2]
    count = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND application_name = 'sipserver'"
    start(records)
    await asyncio.gather(records.flush(), *(records.list() for _ in range(10)))
    taken = int(postgres.sql(count))
    assert taken in (3, 4), "two for reading, and one or two for writing"
    async with open_reader(settings) as reader:
        await asyncio.gather(*(reader.list() for _ in range(10)))
        assert postgres.sql(count) == f"{taken + 1}"
    await records.close()


def test_the_command_line_shows_calls(settings: StoreSettings, tmp_path: Path) -> None:
    async def make() -> None:
        records = Records(settings)
        await records.open()
        start(records)
        tell(records, events.CallStarted("inbound", "sip:ann@a", "sip:demo@b"))
        tell(records, events.CallEnded("caller_hangup", 200), at_ms=2000)
        records.ended(call_id="c1", reason="caller_hangup", sip_code=200)
        await records.close()

    asyncio.run(make())
    file = tmp_path / "sipserver.yaml"
    file.write_text(f"store: {{url: '{settings.url}'}}\n")
    for words, expected in ((("list",), "caller_hangup"), (("show", "last"), "from sip:ann@a")):
        result = CliRunner().invoke(app, [*words, "--config", str(file)], catch_exceptions=False)
        assert expected in result.output


# --- a server in trouble ----------------------------------------------------------------------------------------------


async def test_a_restart_is_not_noticed(settings: StoreSettings, postgres: Postgres) -> None:
    records = Records(settings)
    await records.open()
    for number in range(3):
        start(records, f"c{number}")
        assert await records.flush()
        postgres.restart()
    assert len(await records.list()) == 3
    assert records.failures == 0
    await records.close()


@pytest.mark.parametrize("how", ["stopped", "paused"])
async def test_what_is_told_while_it_is_away_waits_on_disk_and_follows(
    settings: StoreSettings, postgres: Postgres, tmp_path: Path, how: str
) -> None:
    records = Records(settings, spool=tmp_path / "spool")
    await records.open()
    start(records)
    await records.flush()
    with structlog.testing.capture_logs() as logs, getattr(postgres, how)():
        for number in range(50):
            tell(records, events.DigitReceived("1"), at_ms=number)
        assert not await records.flush()
        assert (records.failing, records.depth, records.spooled) == (True, 50, 50)
        records.ended(call_id="c1", reason="caller_hangup", sip_code=200)
    async with asyncio.timeout(10):
        while records.depth:  # noqa: ASYNC110  what is counted is the point
            await asyncio.sleep(0.01)
    call = await records.get("c1")
    assert call is not None
    assert (call.digits, call.end_reason, call.events_dropped) == (50, "caller_hangup", 0)
    assert [event.at_ms for event in await records.events("c1")] == list(range(50))
    assert records.dropped == 0
    assert [entry["event"] for entry in logs] == [
        "call records cannot be written; calls go on, entries are kept",
        "call records are written again",
    ][: len(logs)]
    await records.close()
    assert not list((tmp_path / "spool").rglob("*.jsonl"))


async def test_a_transaction_that_a_crash_cut_off_is_repeated(settings: StoreSettings, postgres: Postgres) -> None:
    records = Records(settings)
    await records.open()
    for number in range(5):
        start(records, f"c{number}")
        for _ in range(100):
            tell(records, events.DigitReceived("1"), f"c{number}")
        flushing = asyncio.create_task(records.flush())
        for _ in range(number * 3):
            await asyncio.sleep(0)
        postgres.kill()
        postgres.start()
        await flushing
    assert await records.flush()
    assert {(call.digits, call.events) for call in await records.list()} == {(100, 100)}
    await records.close()


async def test_a_writer_that_hangs_within_a_transaction_loses_its_locks(
    settings: StoreSettings, postgres: Postgres
) -> None:
    database = Database(settings)
    await database.open()
    async with database.engine.connect() as connection:
        found = (await connection.execute(sa.text("SHOW idle_in_transaction_session_timeout"))).scalar()
    assert found == "10s"
    await database.close()
