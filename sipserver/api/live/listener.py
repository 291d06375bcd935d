"""One client of a tenant's events: what it wants, how it catches up, and when it is told what happens now.

Owns that it gets everything after its cursor once, each call in order. Refuses to know where events come from
(`feed`), and to throw anything away: a client that is too slow is cut, and comes again with its cursor.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Protocol

from sipserver.api.live.cursor import Cursor, named
from sipserver.api.live.missing import FeedSource, missing
from sipserver.errors import CapacityError
from sipserver.gate.connection import Connection
from sipserver.gate.frames import text_frame
from sipserver.store.database import UNAVAILABLE
from sipserver.store.feed_rows import FeedRow

LIVE = "events.live"
"""Told when everything after the cursor has come, and events come as they happen."""
CURSOR = "events.cursor"
"""Told from time to time to whom nothing else is told, so that their cursor does not grow old."""
PAGE = 500
HELD = 5_000
"""Live events that wait while a client catches up; beyond it they are read from the database, too."""
PAUSE_S = 0.05
AWAY_S = 1.0
PATIENCE_S = 20.0
"""How long the database may lag behind what others have heard already."""

_json = json.JSONEncoder(separators=(",", ":"), default=str, check_circular=False).encode


@dataclass(frozen=True, slots=True)
class Wanted:
    """kinds: patterns of which one must match; none: all. call: this one only; empty: all."""

    kinds: tuple[str, ...] = ()
    call: str = ""

    def has(self, row: FeedRow) -> bool:
        if self.call and row.call_id != self.call:
            return False
        return not self.kinds or any(fnmatchcase(row.kind, pattern) for pattern in self.kinds)


class Told:
    """An event as it is sent. cursor: of those who are neither behind nor ahead. Made once for all."""

    def __init__(self, tenant: str, row: FeedRow, cursor: Cursor) -> None:
        self._tenant, self.row, self.cursor = tenant, row, cursor
        self._frame = b""

    def frame(self) -> bytes:
        self._frame = self._frame or text_frame(self.text_for(self.cursor))
        return self._frame

    def text_for(self, cursor: Cursor) -> str:
        return as_json(self._tenant, self.row, cursor)


class Together:
    """Events that are told at the same moment. Those who want the same get the same bytes, made once for all: a
    thousand clients cost a thousand writes, not a thousand for each event.
    """

    def __init__(self, events: Sequence[Told]) -> None:
        self.events = events
        self._frames: dict[Wanted, tuple[bytes, int]] = {}

    def frames(self, wanted: Wanted) -> tuple[bytes, int]:
        """For a client that is neither behind nor ahead, and how many messages they are."""
        made = self._frames.get(wanted)
        if made is None:
            frames = [told.frame() for told in self.events if wanted.has(told.row)]
            made = self._frames[wanted] = b"".join(frames), len(frames)
        return made


def as_json(tenant: str, row: FeedRow, cursor: Cursor) -> str:
    """One line of ASCII, in the form of `events.catalogue.message_schema`."""
    return _json(
        {
            "kind": row.kind,
            "call_id": row.call_id,
            "tenant": tenant,
            "seq": row.seq,
            "at_ms": row.at_ms,
            "timestamp": datetime.fromtimestamp(row.at_us / 1e6, UTC).isoformat().replace("+00:00", "Z"),
            "fields": row.fields,
            "cursor": cursor.text(),
        }
    )


class Listener:
    """Loop thread. `take` is told everything from the moment on at which it is made; `catch_up` once."""

    def __init__(self, connection: Connection, tenant: str, wanted: Wanted) -> None:
        self.connection = connection
        self._tenant, self._wanted = tenant, wanted
        self._held: list[Told] | None = []
        self._overflown = False
        self._ahead: dict[str, int] = {}
        self._sent_before = -1

    def take(self, together: Together) -> None:
        if self._held is not None:
            self._hold(self._held, together.events)
        elif self._ahead:
            for told in together.events:
                if not self._has(told) and self._wanted.has(told.row):
                    self.connection.send(told.text_for(self._merged(told.cursor)))
        else:
            frames, count = together.frames(self._wanted)
            if count:
                self.connection.send_frames(frames, count)

    def _hold(self, held: list[Told], events: Sequence[Told]) -> None:
        if len(held) + len(events) <= HELD and not self._overflown:
            held.extend(events)
        else:
            self._overflown = True
            held.clear()

    def remind(self, cursor: Cursor) -> None:
        """Called from time to time."""
        if self._held is None and self.connection.sent == self._sent_before:
            self._say(CURSOR, self._merged(cursor))
        self._sent_before = self.connection.sent

    async def catch_up(self, since: Cursor | None, reached: Cursor, now: Reached, source: FeedSource) -> None:
        """Send what came after `since` (None: nothing) up to `reached`, which is what others have had when this
        listener was made, then what was held meanwhile. now: what they have by now. Raises CapacityError when the
        database does not have it in time.
        """
        marks = dict(reached.marks) if since is None else dict(since.marks)
        base_us = reached.base_us if since is None else since.base_us
        if since is not None or self._overflown:
            await self._read(base_us, marks, reached, now, source)
        shared = now()  # tells what has not been told yet: it is held, too
        held, self._held = self._held or [], None
        for told in held:
            run = named(told.row.run)
            if told.row.at_us > max(marks.get(run, 0), base_us):
                marks[run] = told.row.at_us
                if self._wanted.has(told.row):
                    self.connection.send(told.text_for(Cursor(base_us, marks)))
        self._ahead = {run: mark for run, mark in marks.items() if mark > shared.of(run)}
        self._say(LIVE, self._merged(shared))

    async def _read(self, base_us: int, marks: dict[str, int], goal: Cursor, now: Reached, source: FeedSource) -> None:
        """From the database, until the client has everything up to the goal."""

        def mark(run: str) -> int:
            return max(marks.get(run, 0), base_us)

        patient_until, far_us = time.monotonic() + PATIENCE_S, base_us
        while self.connection.open:
            try:
                async for row in missing(source, self._tenant, far_us, mark, PAGE):
                    marks[named(row.run)] = row.at_us
                    patient_until = time.monotonic() + PATIENCE_S
                    if self._wanted.has(row):
                        await self._send(as_json(self._tenant, row, Cursor(base_us, marks)))
            except UNAVAILABLE:
                await asyncio.sleep(AWAY_S)
            if self._overflown:
                self._overflown, goal = False, now()
            behind = [mark(run) for run, reached_us in goal.marks.items() if mark(run) < reached_us]
            if not behind:
                return
            far_us = min(behind)
            if time.monotonic() > patient_until:
                raise CapacityError("the call records are behind; come again later with the same cursor")
            await asyncio.sleep(PAUSE_S)

    async def _send(self, text: str) -> None:
        """Wait for a client that reads slowly; one that does not read at all is cut by its heartbeat."""
        while self.connection.paused and self.connection.open:  # noqa: ASYNC110  a transport tells nobody
            await asyncio.sleep(0.01)
        self.connection.send(text)

    def _has(self, told: Told) -> bool:
        """It read this from the database before others heard it."""
        run = named(told.row.run)
        mark = self._ahead.get(run)
        if mark is None:
            return False
        if told.row.at_us >= mark:
            del self._ahead[run]
        return told.row.at_us <= mark

    def _merged(self, cursor: Cursor) -> Cursor:
        if not self._ahead:
            return cursor
        return Cursor(
            cursor.base_us,
            {run: max(self._ahead.get(run, 0), cursor.of(run)) for run in {*cursor.marks, *self._ahead}},
        )

    def _say(self, kind: str, cursor: Cursor) -> None:
        self.connection.send(_json({"kind": kind, "tenant": self._tenant, "cursor": cursor.text()}))


class Reached(Protocol):
    def __call__(self) -> Cursor: ...
