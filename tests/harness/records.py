"""The call records of a server that runs in another process, read from its database while it writes."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes.until import until

WRITE_S = 5.0
"""How long a record may take to reach the file after the call ended."""


@dataclass(frozen=True, slots=True)
class Record:
    """One call. reason is empty while it lives. events: (kind, fields) in order; numbers: theirs, without gaps when
    nothing is missing."""

    call_id: str
    sip_call_id: str
    reason: str
    sip_code: int
    answered: bool
    recording: str
    recording_status: str
    events: tuple[tuple[str, dict[str, Any]], ...]
    numbers: tuple[int, ...]

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.events]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The fields of all events of a kind."""
        return [fields for each, fields in self.events if each == kind]


def records(database: Path | str, sip_call_id: str = "") -> list[Record]:
    """Calls in the order in which they began; with this Call-ID if one is given. database: a file of SQLite, or the URL
    of a PostgreSQL.
    """
    if isinstance(database, str):
        from tests.harness.postgres_records import postgres_records

        return postgres_records(database, sip_call_id)
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)) as connection:
        connection.row_factory = sqlite3.Row
        rows = connection.execute(
            "SELECT * FROM calls WHERE ? IN ('', sip_call_id) ORDER BY started_at, id", (sip_call_id,)
        ).fetchall()
        return [_record(row, _events(connection, row["id"])) for row in rows]


def execute(database: Path | str, statement: str) -> None:
    """A change by hand beside the server. Blocks."""
    if isinstance(database, str):
        from tests.harness.postgres_records import psql

        psql(database, statement)
        return
    with closing(sqlite3.connect(database, timeout=10)) as connection, connection:
        connection.execute(statement)


def _events(connection: sqlite3.Connection, call_id: str) -> list[sqlite3.Row]:
    return connection.execute(
        "SELECT seq, kind, fields FROM events WHERE call_id = ? ORDER BY seq", (call_id,)
    ).fetchall()


def _record(row: sqlite3.Row, told: list[sqlite3.Row]) -> Record:
    return Record(
        row["id"],
        row["sip_call_id"],
        row["end_reason"] or "",
        row["sip_code"] or 0,
        row["answered_at"] is not None,
        row["recording_path"] or "",
        row["recording_status"] or "",
        tuple((event["kind"], json.loads(event["fields"])) for event in told),
        tuple(event["seq"] for event in told),
    )


def ended(database: Path | str, sip_call_id: str = "", *, at_least: int = 1) -> list[Record]:
    """The same once there are so many and all of them are closed. Fails when that takes longer than WRITE_S."""
    deadline = time.monotonic() + WRITE_S
    while True:
        found = records(database, sip_call_id)
        if len(found) >= at_least and all(record.reason and record.kinds[-1:] == ["call.ended"] for record in found):
            return found
        assert time.monotonic() < deadline, [(record.sip_call_id, record.kinds[-3:]) for record in found]
        time.sleep(0.05)


async def record_of(database: Path, sip_call_id: str) -> Record:
    """The record of one call, once it is closed; the loop runs meanwhile."""
    await until(
        lambda: any(record.reason for record in records(database, sip_call_id)), f"the end of the call {sip_call_id}"
    )
    return records(database, sip_call_id)[0]
