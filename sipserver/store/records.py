"""The call records: what the server tells about its calls, written in batches by one task.

Owns the queue between the calls and the database. Its rules: the row of a call, with its start, its end and its
counts, is held until it is written, however long that takes; events are held up to `queue`, and one that finds the
queue full is dropped and counted in its call's row. A database that is full, locked or gone costs no call anything: it
is logged once, counted, and tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import platform
import uuid
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from sipserver import log
from sipserver.events import CallEnded, Stamped
from sipserver.store import batch
from sipserver.store.database import Database, brief
from sipserver.store.open_call import OpenCall, fitting
from sipserver.store.reader import CallFile, CallRow, Calls, EventRow, Files, Reader
from sipserver.store.schema import calls, events
from sipserver.store.settings import StoreSettings

__all__ = ["CallFile", "CallRow", "EventRow", "Records"]

BATCH = 200
"""Events a transaction: building one holds the loop up for 2 ms or so."""
REMEMBERED = 256
"""Ended calls that may still get an event or the end of their recording."""
LONGEST_PAUSE_S = 5.0
CLOSE_S = 10.0


def _now() -> datetime:
    return datetime.now(UTC)


class Records:
    """Satisfies `calls.RecordSink`. Loop thread only.

    node: this server's name in a shared database; the host's name by default. now: the time of day, aware.
    failures: transactions that failed. lost: rows that the database would never take. strays: what was told about
    unknown calls.
    """

    def __init__(self, settings: StoreSettings, *, node: str = "", now: Callable[[], datetime] = _now) -> None:
        """Raises SettingsError for an impossible URL."""
        self._settings, self._now = settings, now
        self._node = fitting("node", node or platform.node() or "localhost")
        self._run = uuid.uuid4().hex
        self._database = Database(settings.url)
        self._reader = Reader(self._database)
        self._calls: dict[str, OpenCall] = {}
        self._ended: deque[str] = deque()
        self._recordings: dict[str, dict[str, str | None]] = {}
        self._events: deque[batch.Row] = deque()
        self._log = log.logger("store")
        self._work = asyncio.Event()
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._failing = False
        self.failures = 0
        self.lost = 0
        self.strays = 0
        self.dropped = 0

    @property
    def depth(self) -> int:
        """Events that wait to be written."""
        return len(self._events)

    @property
    def failing(self) -> bool:
        """The last transaction failed."""
        return self._failing

    # --- lifetime -----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open or make the database, migrate it, start the writer. Raises SettingsError."""
        await self._database.open()
        self._task = asyncio.create_task(self._write_for_ever(), name="call records")

    async def close(self) -> None:
        """Write what is left, for 10 s at most, and stop. What could not be written is named in the log. Idempotent."""
        if self._task is None:
            return
        task, self._task = self._task, None
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                while not await self.flush():  # noqa: ASYNC110  a database does not tell when it can write again
                    await asyncio.sleep(self._settings.flush_ms / 1000)
        unwritten = [call_id for call_id, call in self._calls.items() if call.dirty]
        if unwritten or self._events:
            self._log.error("call records are lost", calls=unwritten, events=len(self._events))
        await self._database.close()

    # --- what the calls tell (sync, never blocks, never raises) -------------------------------------------------------

    def started(
        self,
        *,
        call_id: str,
        tenant: str,
        direction: str,
        from_uri: str,
        to_uri: str,
        source: str,
        sip_call_id: str,
    ) -> None:
        """A call has begun. Telling it twice is a stray."""
        if call_id in self._calls:
            self.strays += 1
            return
        self._calls[call_id] = OpenCall(
            id=call_id,
            tenant=tenant,
            node=self._node,
            run=self._run,
            direction=direction,
            from_uri=from_uri,
            to_uri=to_uri,
            source=source,
            sip_call_id=sip_call_id,
            started_at=self._now(),
        )
        self._work.set()

    def answered(self, call_id: str) -> None:
        if call := self._known(call_id):
            call.answered(self._now())

    def append(self, stamped: Stamped) -> None:
        """Queue an event; dropped and counted when the queue is full. About 10 us."""
        call = self._known(stamped.call_id)
        if call is None:
            return
        dropped = len(self._events) >= self._settings.queue
        seq = call.note(stamped.event, dropped=dropped)
        if dropped:
            self.dropped += 1
            return
        self._events.append(
            {
                "call_id": call.row["id"],
                "seq": seq,
                "at_ms": stamped.at_ms,
                "kind": stamped.event.kind,
                "fields": stamped.event.fields(),
            }
        )

    def recording(self, *, call_id: str, path: str, status: str) -> None:
        """status: recording | complete | failed. Also for calls of an earlier run, whose recording was repaired."""
        if call := self._calls.get(call_id):
            call.set(recording_path=path, recording_status=status)
        else:
            self._recordings[call_id] = {
                "recording_path": fitting("recording_path", path),
                "recording_status": fitting("recording_status", status),
            }
        self._work.set()

    def ended(self, *, call_id: str, reason: str, sip_code: int) -> None:
        """The call is over; events and the recording's end may still follow."""
        call = self._known(call_id)
        if call is None or call.row["ended_at"] is not None:
            return
        call.ended(self._now(), reason, sip_code)
        self._ended.append(call_id)

    def _known(self, call_id: str) -> OpenCall | None:
        call = self._calls.get(call_id)
        if call is None:
            self.strays += 1
        else:
            self._work.set()
        return call

    # --- writing ------------------------------------------------------------------------------------------------------

    async def flush(self) -> bool:
        """Write everything told so far. False if the database cannot write now: all is kept then. Safe to cancel."""
        async with self._writing:
            while self._unwritten():
                if not await self._write_batch():
                    return False
            self._forget_ended()
            return True

    def _unwritten(self) -> bool:
        return bool(self._events or self._recordings) or any(call.dirty for call in self._calls.values())

    async def _write_for_ever(self) -> None:
        pause_s = self._settings.flush_ms / 1000
        while True:
            await self._work.wait()
            await asyncio.sleep(pause_s)
            self._work.clear()
            if await self.flush():
                pause_s = self._settings.flush_ms / 1000
            else:
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                self._work.set()

    async def _write_batch(self) -> bool:
        """All changed calls and the oldest events, in one transaction. What is not written stays in the queue."""
        changed = [call for call in self._calls.values() if call.dirty]
        rows = [dict(call.row) for call in changed]
        oldest = [self._events[index] for index in range(min(BATCH, len(self._events)))]
        recordings = dict(self._recordings)
        for call in changed:
            call.dirty = False
        written = False
        try:
            lost = await batch.write(self._database.engine, rows, oldest)
            await self._write_recordings(recordings)
            written = True
        except Exception as problem:  # whatever a driver raises, the writer goes on and the rows stay
            self._failed(problem)
            return False
        finally:
            if not written:
                for call in changed:
                    call.dirty = True
        for _ in oldest:
            self._events.popleft()
        for call_id, columns in recordings.items():
            if self._recordings.get(call_id) is columns:
                del self._recordings[call_id]
        self._succeeded(lost)
        return True

    async def _write_recordings(self, recordings: dict[str, dict[str, str | None]]) -> None:
        if not recordings:
            return
        async with self._database.engine.begin() as connection:
            for call_id, columns in recordings.items():
                await connection.execute(sa.update(calls).where(calls.c.id == call_id).values(**columns))

    def _failed(self, problem: Exception) -> None:
        self.failures += 1
        if not self._failing:
            self._failing = True
            self._log.error("call records cannot be written; calls go on, rows are kept", error=brief(problem))

    def _succeeded(self, lost: int) -> None:
        if lost:
            self.lost += lost
            self._log.error("the database refuses some rows of call records", rows=lost)
        if self._failing:
            self._failing = False
            self._log.warning("call records are written again", failures=self.failures, dropped=self.dropped)

    def _forget_ended(self) -> None:
        while len(self._ended) > REMEMBERED and not self._calls[self._ended[0]].dirty:
            del self._calls[self._ended.popleft()]

    # --- calls of processes that died ---------------------------------------------------------------------------------

    async def sweep_crashed(self) -> Files:
        """Close the calls that an earlier process of this node left open, with reason `crash`; call once after `open`.

        They end when their last event was written. Returns them, so that their recordings can be repaired; a recording
        that was running is `failed` until somebody tells better. Raises SQLAlchemyError.
        """
        left_open = sa.and_(calls.c.ended_at.is_(None), calls.c.node == self._node, calls.c.run != self._run)
        last = (
            sa.select(
                events.c.call_id,
                sa.func.count().label("written"),
                sa.func.max(events.c.seq).label("seq"),
                sa.func.max(events.c.at_ms).label("at_ms"),
            )
            .where(events.c.call_id.in_(sa.select(calls.c.id).where(left_open)))
            .group_by(events.c.call_id)
            .subquery()
        )
        query = (
            sa.select(calls, last.c.written, last.c.seq, last.c.at_ms)
            .outerjoin(last, last.c.call_id == calls.c.id)
            .where(left_open)
            .order_by(calls.c.started_at, calls.c.id)
        )
        swept = []
        async with self._database.engine.begin() as connection:
            for row in (await connection.execute(query)).mappings().all():
                at_ms, seq = row["at_ms"] or 0, -1 if row["seq"] is None else row["seq"]
                closing = CallEnded(reason="crash", detail="the server's process died during the call")
                status = "failed" if row["recording_status"] == "recording" else row["recording_status"]
                await connection.execute(
                    sa.update(calls)
                    .where(calls.c.id == row["id"])
                    .values(
                        ended_at=row["started_at"] + timedelta(milliseconds=at_ms),
                        end_reason="crash",
                        state="ended",
                        recording_status=status,
                        events=(row["written"] or 0) + 1,
                    )
                )
                await connection.execute(
                    sa.insert(events).values(
                        call_id=row["id"], seq=seq + 1, at_ms=at_ms, kind=closing.kind, fields=closing.fields()
                    )
                )
                swept.append(CallFile(row["id"], row["tenant"], row["recording_path"]))
        return swept

    # --- reading (what was written; `flush` first to see what was told a moment ago) ----------------------------------

    async def get(self, call_id: str) -> CallRow | None:
        return await self._reader.get(call_id)

    async def events(self, call_id: str, *, after_seq: int = -1, limit: int = 10_000) -> list[EventRow]:
        return await self._reader.events(call_id, after_seq=after_seq, limit=limit)

    async def list(
        self,
        limit: int = 50,
        before: datetime | None = None,
        *,
        tenant: str | None = None,
        sip_call_id: str | None = None,
        open_only: bool = False,
    ) -> Calls:
        return await self._reader.list(limit, before, tenant=tenant, sip_call_id=sip_call_id, open_only=open_only)

    async def delete_older_than(self, moment: datetime) -> Files:
        return await self._reader.delete_older_than(moment)
