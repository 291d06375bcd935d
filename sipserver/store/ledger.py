"""Entries of the journal become rows: the one place where records are made, for a single server and for a fleet.

Owns which calls are in memory; a call that is not is loaded, so that a restarted writer goes on with right counts.
Refuses to wait: what the database does not take now is the caller's to keep and to bring again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from sipserver.journal import Entry, Kind
from sipserver.store import batch, crashed
from sipserver.store.database import Database
from sipserver.store.open_call import OpenCall, Row
from sipserver.store.reader import CallFile
from sipserver.store.schema import calls

BATCH = 200
"""Entries a transaction: building one holds the loop up for some milliseconds."""
SOON_EVERY_S = 0.025
"""What somebody waits for is written at once, with so much time between two transactions: busy times make batches."""
REMEMBERED = 256
"""Ended calls that are kept in memory, for entries that follow their end."""


@dataclass
class Applied:
    """What came of entries. lost: rows that the database would never take. strays: entries about unknown calls, or
    without the fields that they should have. crashed: calls that were closed because their process is dead. broken:
    calls of dead processes whose recordings should be repaired. ends: of calls of dead processes, for those who must
    hear of each event.
    """

    lost: int = 0
    strays: int = 0
    crashed: list[CallFile] = field(default_factory=list)
    broken: list[CallFile] = field(default_factory=list)
    ends: list[Entry] = field(default_factory=list)


class Ledger:
    """Loop thread. One at a time may write the calls of a run."""

    def __init__(self, database: Database) -> None:
        self._engine = database.engine
        self._by_server = not database.is_sqlite
        self._calls: dict[str, OpenCall] = {}
        self._ended: deque[str] = deque()
        self._lock = asyncio.Lock()

    async def apply(self, entries: Sequence[Entry]) -> Applied:
        """Write what they say; again does no harm. Safe to cancel.

        Raises SQLAlchemyError or OSError when the database cannot write now, and what a broken driver raises: bring
        the same entries again then, before later ones of the same runs.
        """
        applied = Applied()
        async with self._lock:
            for part in _parts(entries):
                if part[0].kind is Kind.RUN_GONE:
                    await self._close_run(part[0].run, str(part[0].fields.get("detail", "")), applied)
                    continue
                written = False
                try:
                    await self._write(part, applied)
                    written = True
                finally:
                    if not written:  # what the database has is what counts from here on
                        self._forget(entry.call_id for entry in part)
            self._forget_ended()
        return applied

    def forget(self) -> None:
        """Another process may have written meanwhile: load every call anew."""
        self._calls.clear()
        self._ended.clear()

    async def close_run(self, run: str, detail: str) -> Applied:
        """The same as a RUN_GONE of the journal."""
        applied = Applied()
        async with self._lock:
            await self._close_run(run, detail, applied)
        return applied

    async def _close_run(self, run: str, detail: str, applied: Applied) -> None:
        self._forget([call_id for call_id, call in self._calls.items() if call.row["run"] == run])
        detail = detail or "the process died during the call"
        applied.crashed += await crashed.close(self._engine, crashed.of_run(run), detail)
        applied.broken += await crashed.unrepaired(self._engine, crashed.of_run(run))
        applied.ends += await crashed.ends(self._engine, crashed.of_run(run))

    async def _write(self, entries: Sequence[Entry], applied: Applied) -> None:
        await self._load({entry.call_id for entry in entries} - self._calls.keys())
        event_rows: list[Row] = []
        touched: dict[str, OpenCall] = {}
        for entry in entries:
            try:
                call = self._call(entry)
                row = call.fold(entry)
            except (LookupError, TypeError, ValueError, AttributeError):
                applied.strays += 1
                continue
            touched[entry.call_id] = call
            if row is not None:
                event_rows.append(row)
        changed = [call for call in touched.values() if call.dirty]
        if changed or event_rows:
            over = [call.row for call in changed if call.over]
            applied.lost += await batch.write(self._engine, [call.row for call in changed], event_rows, over)
        for call in changed:
            call.dirty = False
        self._ended.extend(call_id for call_id, call in touched.items() if call.over)

    def _call(self, entry: Entry) -> OpenCall:
        """Raises LookupError for a call that nobody has opened."""
        if entry.kind is Kind.OPENED and entry.call_id not in self._calls:
            self._calls[entry.call_id] = OpenCall.opened(entry)
        return self._calls[entry.call_id]

    async def _load(self, call_ids: set[str]) -> None:
        if not call_ids:
            return
        wanted = sorted(call_ids)
        among = calls.c.id == sa.any_(sa.literal(wanted, sa.ARRAY(sa.String))) if self._by_server else None
        query = sa.select(calls).where(calls.c.id.in_(wanted) if among is None else among)
        async with self._engine.connect() as connection:
            for row in (await connection.execute(query)).mappings():
                self._calls[row["id"]] = OpenCall(dict(row))

    def _forget(self, call_ids: Iterable[str]) -> None:
        for call_id in call_ids:
            self._calls.pop(call_id, None)

    def _forget_ended(self) -> None:
        while len(self._ended) > REMEMBERED:
            call = self._calls.get(oldest := self._ended.popleft())
            if call is not None and call.over:
                del self._calls[oldest]


def _parts(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """In order, BATCH at most; a RUN_GONE stands alone."""
    start = 0
    for index, entry in enumerate(entries):
        alone = entry.kind is Kind.RUN_GONE
        if start < index and (alone or index - start >= BATCH):
            yield entries[start:index]
            start = index
        if alone:
            yield entries[index : index + 1]
            start = index + 1
    if start < len(entries):
        yield entries[start:]
