"""The schema's history ends in the schema, costs nothing when there is nothing to do, and refuses the future."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import AsyncConnection

from sipserver.errors import SettingsError
from sipserver.journal import Entry
from sipserver.store import migrations, schema
from sipserver.store.database import Database
from sipserver.store.open_call import OpenCall
from sipserver.store.reader import CallRow, EventRow
from sipserver.store.records import Records
from sipserver.store.settings import StoreSettings
from tests.store.told import one_call, unfinished

FOLDER = Path(migrations.__file__).parent


def test_the_last_version_is_head() -> None:
    assert ScriptDirectory.from_config(_config()).get_heads() == [migrations.HEAD]


async def test_migrating_gives_the_schema(empty_settings: StoreSettings) -> None:
    def migrate(connection: sa.Connection) -> None:
        assert migrations.version(connection) is None
        assert migrations.apply(connection)
        assert not migrations.apply(connection)

    def compare(connection: sa.Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, schema.metadata))

    database = Database(empty_settings)
    if database.file is not None:
        database.file.parent.mkdir()
    async with database.engine.begin() as connection:
        await connection.run_sync(migrate)
    async with database.engine.connect() as connection:
        assert await connection.run_sync(compare) == []
    await database.close()


async def test_an_older_database_is_brought_up_with_its_calls(empty_settings: StoreSettings) -> None:
    database = Database(empty_settings)
    if database.file is not None:
        database.file.parent.mkdir()
    async with database.engine.begin() as connection:
        await connection.run_sync(_upgrade, "0001")
        for told in (unfinished("c1"), one_call("c2")):
            await _written_by_the_first_server(connection, told)
    await database.close()
    records = Records(empty_settings)
    await records.open()
    assert {call.id for call in await records.list()} == {"c1", "c2"}
    assert {event.at_us for event in await records.events("c2")} == {None}
    await records.close()


async def test_what_earlier_calls_kept_is_counted_as_far_as_it_is_there(empty_settings: StoreSettings) -> None:
    database = Database(empty_settings)
    if database.file is not None:
        database.file.parent.mkdir()
    message = {"seq": 0, "at_ms": 0, "kind": "voicemail.left", "fields": {"path": "/r/m.wav"}}
    used = dict.fromkeys(("leg", "engine", "vendor", "model"), "") | {"unit": "bytes", "metered": 0, "metering": 0}
    async with database.engine.begin() as connection:
        await connection.run_sync(_upgrade, "0010")
        for name, path, left in (("kept", "/r/k.wav", False), ("gone", None, False), ("message", None, True)):
            row = {**OpenCall.opened(one_call(name)[0]).row, "recording_path": path}
            await connection.execute(sa.insert(schema.calls).values(row))
            if left:
                await connection.execute(sa.insert(schema.events).values({**message, "call_id": name}))
            for part, quantity in (("recording.size", 1000), ("recording", 30)):
                of = {"call_id": name, "tenant": "acme", "at": row["started_at"], "part": part, "quantity": quantity}
                await connection.execute(sa.insert(schema.usage).values({**used, **of}))
    await database.close()
    database = Database(empty_settings)
    await database.open()
    async with database.engine.connect() as connection:
        columns = (schema.stored.c.call_id, schema.stored.c.kind, schema.stored.c.bytes)
        found = {tuple(row) for row in await connection.execute(sa.select(*columns))}
    await database.close()
    assert found == {("kept", "recording", 1000), ("message", "voicemail", 1000)}


async def _written_by_the_first_server(connection: AsyncConnection, told: Sequence[Entry]) -> None:
    call = OpenCall.opened(told[0])
    rows = [row for entry in told if (row := call.fold(entry)) is not None]
    await connection.execute(sa.insert(schema.calls).values(call.row))
    for row in rows:
        del row["at_us"]
        await connection.execute(sa.insert(schema.events).values(row))


MIGRANT = """
import asyncio, sys
from sipserver.store.records import Records
from sipserver.store.settings import StoreSettings
async def main():
    records = Records(StoreSettings(url=sys.argv[1]))
    print("ready", flush=True)
    sys.stdin.readline()
    await records.open()
    await records.close()
    print('alembic' in sys.modules)
asyncio.run(main())
"""


def test_processes_that_migrate_at_the_same_moment_do_not_collide(empty_settings: StoreSettings) -> None:
    program = [sys.executable, "-c", MIGRANT, empty_settings.url]
    with contextlib.ExitStack() as stack:
        migrants = [
            stack.enter_context(subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            for _ in range(3)
        ]
        for migrant in migrants:
            assert migrant.stdout is not None
            assert migrant.stdout.readline() == "ready\n"
        for migrant in migrants:
            assert migrant.stdin is not None
            migrant.stdin.write("go\n")
            migrant.stdin.flush()
        assert [migrant.wait(60) for migrant in migrants] == [0, 0, 0]


def test_rows_have_the_columns() -> None:
    for row, table in ((CallRow, schema.calls), (EventRow, schema.events)):
        assert [field.name for field in dataclasses.fields(row)] == [column.name for column in table.columns]


async def test_a_database_of_the_future_is_refused(store_settings: StoreSettings) -> None:
    database = Database(store_settings)
    await database.open()
    async with database.engine.begin() as connection:
        await connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    await database.close()
    with pytest.raises(SettingsError, match="9999"):
        await Records(store_settings).open()
    with pytest.raises(SettingsError, match="9999"):
        await Database(store_settings).open_to_read()


def test_alembic_is_imported_only_when_there_is_work(empty_settings: StoreSettings) -> None:
    program = [sys.executable, "-c", MIGRANT, empty_settings.url]
    said = [
        subprocess.run(program, check=True, capture_output=True, text=True, input="go\n").stdout.split()[-1]
        for _ in range(2)
    ]
    assert said == ["True", "False"]


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    return config


def _upgrade(connection: sa.Connection, version: str) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, version)
