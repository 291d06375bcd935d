"""The schema's history ends in the schema, costs nothing when there is nothing to do, and refuses the future."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from sipserver.errors import SettingsError
from sipserver.store import migrations, schema
from sipserver.store.reader import CallRow, EventRow
from sipserver.store.records import Records
from sipserver.store.settings import StoreSettings

FOLDER = Path(migrations.__file__).parent


def test_the_last_version_is_head() -> None:
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    assert ScriptDirectory.from_config(config).get_heads() == [migrations.HEAD]


def test_migrating_gives_the_schema(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/records.db")
    with engine.begin() as connection:
        assert migrations.version(connection) is None
        assert migrations.apply(connection)
    with engine.connect() as connection:
        assert not migrations.apply(connection)
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []
    engine.dispose()


def test_postgresql_takes_the_schema() -> None:
    """Compiled, not run: every type and constraint has a PostgreSQL form."""
    from sqlalchemy.dialects import postgresql

    statements = [
        str(sa.schema.CreateTable(table).compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]
        for table in schema.metadata.sorted_tables
    ]
    assert "started_at TIMESTAMP WITH TIME ZONE NOT NULL" in statements[0]
    assert "fields JSON NOT NULL" in statements[1]


def test_rows_have_the_columns() -> None:
    for row, table in ((CallRow, schema.calls), (EventRow, schema.events)):
        assert [field.name for field in dataclasses.fields(row)] == [column.name for column in table.columns]


async def test_a_database_of_the_future_is_refused(store_settings: StoreSettings) -> None:
    records = Records(store_settings)
    await records.open()
    await records.close()
    file = store_settings.url.removeprefix("sqlite+aiosqlite:///")
    with contextlib.closing(sqlite3.connect(file)) as newer, newer:
        newer.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SettingsError, match="9999"):
        await Records(store_settings).open()


async def test_alembic_is_imported_only_when_there_is_work(store_settings: StoreSettings) -> None:
    program = (
        "import asyncio, sys\n"
        "from sipserver.store.records import Records\n"
        "from sipserver.store.settings import StoreSettings\n"
        "async def main():\n"
        "    records = Records(StoreSettings(url=sys.argv[1]))\n"
        "    await records.open()\n"
        "    await records.close()\n"
        "    print('alembic' in sys.modules)\n"
        "asyncio.run(main())\n"
    )
    said = [
        subprocess.run(  # noqa: ASYNC221
            [sys.executable, "-c", program, store_settings.url], check=True, capture_output=True, text=True
        ).stdout.strip()
        for _ in range(2)
    ]
    assert said == ["True", "False"]
