"""A running server deletes what is too old beside its calls: the recording of a real call goes from the disk."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from typer.testing import CliRunner

from sipserver.cli import retention as retention_cli
from tests.api.rest.test_audit import entries
from tests.api.rest.test_calls import PLAN, a_call
from tests.fakes.until import eventually, until
from tests.harness.records import records
from tests.harness.server import ServerProcess


async def test_the_recording_of_an_old_call_goes_and_the_call_stays(tmp_path: Path) -> None:
    settings = {"recordings_days": 30, "sweep_s": 0.2}
    server = ServerProcess(tmp_path, {"acme.yaml": PLAN}, {"retention": settings})
    await asyncio.to_thread(server.start)
    try:
        old, young = [await asyncio.to_thread(a_call, server) for _ in range(2)]
        paths = {record.call_id: Path(record.recording) for record in records(server.database)}
        await until(lambda: {record.recording_status for record in records(server.database)} == {"complete"})
        assert all(path.is_file() for path in paths.values())
        with closing(sqlite3.connect(server.database, timeout=10)) as connection, connection:
            connection.execute("UPDATE calls SET ended_at = '2020-01-01 00:00:00.000000' WHERE id = ?", (old,))
        await until(lambda: not paths[old].exists(), "the file is gone")
        assert paths[young].is_file()
        assert {record.call_id: bool(record.recording) for record in records(server.database)} == {
            old: False,
            young: True,
        }
        noted = await eventually(lambda: asyncio.to_thread(entries, server, "acme"), lambda found: len(found) == 2)
        assert [each["action"] for each in noted] == ["retention.deleted", "retention.files_deleted"]
        config = ["--config", str(server.settings_file)]
        dry = await asyncio.to_thread(CliRunner().invoke, retention_cli.app, ["run", "--dry-run", *config])
        assert dry.output == "nothing is too old\n"
    finally:
        await asyncio.to_thread(server.stop)
