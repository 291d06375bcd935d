"""The journal over Redis: a stream a node, some entries a message, one consumer group with one reader at a time.

Owns sending (in batches, again until Redis has it, over the disk while it is away) and reading. Refuses to know what
entries mean. At least once: an answer of Redis that was lost, or a reader that died, repeats entries.

There is one consumer name for all readers: a reader that takes over finds what the one before it had not finished as
its own, in order, without waiting for it to be idle. Two at a time would share the stream; the lease `writer/<node>`
keeps them apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis import exceptions
from redis.asyncio import Redis

from sipserver.bus.link import TIMEOUT_S, Link
from sipserver.bus.outbox import Outbox
from sipserver.bus.settings import BusSettings
from sipserver.errors import BusDown
from sipserver.journal import Entry, Kind
from sipserver.log import logger
from sipserver.spool import Spool

FLUSH_S = 0.15
SOON_S = 0.01
"""For what somebody waits for. And nobody knows of a call that has just begun but its process, which may die."""
FLUSH_ENTRIES = 50
MOST_ENTRIES = 200
SPOOL_AFTER_S = 2.0
PAUSE_S = 0.5
TO_DISK_S = 3.0
CLOSE_S = 2.0
GROUP = CONSUMER = "writer"
LINES, SOON = b"e", b"s"
READ_MESSAGES = 64
BLOCK_S = 5.0
GATHER_S = 0.05
"""A reader that has caught up lets so much time pass before it asks again: many cells speak, a few messages each."""
GATHER_SOON_S = 0.01
"""As GATHER_S, for LATELY_S after somebody waited for an entry."""
LATELY_S = 2.0


class RedisJournal:
    def __init__(self, link: Link, settings: BusSettings, *, node: str, run: str) -> None:
        self._link, self._node, self._folder = link, node, settings.spool
        self._log = logger("bus", run=run)
        self._outbox = Outbox(settings.spool, run, settings.queue)
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._soon = False
        self._sender: asyncio.Task[None] | None = None
        self._progress = asyncio.Event()
        self._failing_since: float | None = None
        self._to_disk_now = False

    def open(self) -> None:
        self._sender = asyncio.create_task(self._send(), name="journal")

    async def close(self) -> None:
        await self.flush(CLOSE_S if self._link.up else 0)
        if self._timer is not None:
            self._timer.cancel()
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)
        await self._outbox.close()

    # --- telling ------------------------------------------------------------------------------------------------------

    @property
    def depth(self) -> int:
        return self._outbox.depth

    @property
    def dropped(self) -> int:
        return self._outbox.dropped

    def tell(self, entry: Entry, *, soon: bool = False) -> None:
        self._outbox.put(entry.encode(), dear=entry.kind is not Kind.EVENT)
        self._soon |= soon
        if self._outbox.in_memory >= FLUSH_ENTRIES:
            self._wake.set()
            return
        due_s = asyncio.get_running_loop().time() + (SOON_S if soon or entry.kind is Kind.OPENED else FLUSH_S)
        if self._timer is not None:
            if self._timer.when() <= due_s:
                return
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(due_s, self._due)

    def _due(self) -> None:
        self._timer = None
        self._wake.set()

    async def flush(self, timeout_s: float) -> bool:
        if await self._reached(lambda: not self._outbox.depth, timeout_s):
            return True
        self._to_disk_now = True
        await self._reached(lambda: not self._outbox.in_memory, TO_DISK_S)
        self._to_disk_now = False
        return not self._outbox.depth

    async def _reached(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self._progress.clear()
                    self._wake.set()
                    await self._progress.wait()
        except TimeoutError:
            return condition()
        return True

    # --- sending ------------------------------------------------------------------------------------------------------

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            more = True
            while self._outbox.depth and more:
                try:
                    lines = await self._outbox.oldest(MOST_ENTRIES)
                    soon, self._soon = self._soon, False
                    await self._add(lines, soon=soon)
                    await self._outbox.sent(len(lines))
                    self._failing_since = None
                    # What was told meanwhile has a timer of its own.
                    more = len(lines) == MOST_ENTRIES or self._outbox.depth > self._outbox.in_memory
                except BusDown:
                    await self._endure()
                except OSError as problem:
                    self._log.error("cannot read the spool", error=str(problem))
                    await asyncio.sleep(PAUSE_S)
                self._progress.set()

    async def _add(self, lines: Sequence[bytes], *, soon: bool = False) -> None:
        message = {LINES: b"\n".join(lines), **({SOON: b""} if soon else {})}
        stream = self._stream(self._node)
        await self._link.do(lambda redis: redis.xadd(stream, message))  # type: ignore[arg-type]  # dict is invariant

    async def _endure(self) -> None:
        """Redis is away: wait a moment; what there is goes to the disk when it is much or this takes long."""
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        long = now - self._failing_since >= SPOOL_AFTER_S
        if self._outbox.in_memory and (long or self._outbox.crowded or self._to_disk_now):
            await self._outbox.to_disk()
            self._progress.set()
        if self._link.up:  # it answers, but refuses
            await asyncio.sleep(PAUSE_S)
        else:
            await self._link.wait_up(PAUSE_S)

    async def adopt(self, run: str) -> int:
        """Waits for Redis if it is away; what was not sent when it is cancelled stays in the spool."""
        spool = await asyncio.to_thread(Spool, self._folder, run)
        count = 0
        try:
            while lines := (batch := await asyncio.to_thread(spool.read, MOST_ENTRIES)).lines:
                try:
                    await self._add(lines)
                except BusDown:
                    await (asyncio.sleep(PAUSE_S) if self._link.up else self._link.wait_up())
                    continue
                await asyncio.to_thread(spool.done, batch)
                count += len(lines)
        finally:
            spool.close()
        return count

    # --- reading ------------------------------------------------------------------------------------------------------

    async def read(self, node: str) -> AsyncGenerator[StreamDelivery, None]:
        """While Redis is away it waits."""
        acknowledge = _Acknowledge(self._link, self._stream(node))
        last, fresh, begun = b"0", False, False
        waited_for_s = -LATELY_S
        while True:
            try:
                if not begun:
                    await self._begin(self._stream(node))
                    begun = True
                messages = await self._fetch(self._stream(node), b">" if fresh else last)
            except BusDown:
                # What Redis gave while its answer was lost is among the pending ones.
                fresh = False
                await (asyncio.sleep(PAUSE_S) if self._link.up else self._link.wait_up())
                continue
            if not messages:
                fresh = True
                continue
            last = messages[-1][0]
            numbers = tuple(number for number, _ in messages)
            soon = any(SOON in (fields or {}) for _, fields in messages)
            if soon:
                waited_for_s = time.monotonic()
            yield StreamDelivery(self._entries(messages), soon, numbers, acknowledge)
            if fresh and len(messages) < READ_MESSAGES:
                lately = time.monotonic() - waited_for_s < LATELY_S
                await asyncio.sleep(GATHER_SOON_S if lately else GATHER_S)

    async def _begin(self, stream: str) -> None:
        """Make the group anew, from the oldest message that is not done (deleted). A reader before us that hangs
        in a blocked read gets an error then; else Redis would hand it the next message, and nobody would write that.
        """

        async def renew(redis: Redis) -> None:
            with contextlib.suppress(exceptions.ResponseError):  # BUSYGROUP: it is there
                await redis.xgroup_create(stream, GROUP, id="0", mkstream=True)
            async with redis.pipeline(transaction=True) as pipe:
                pipe.xgroup_destroy(stream, GROUP)
                pipe.xgroup_create(stream, GROUP, id="0", mkstream=True)
                await pipe.execute()

        await self._link.do(renew)

    async def _fetch(self, stream: str, after: bytes) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """Messages in order: new ones (waits for some), or those that were given and not acknowledged."""
        block_ms = int(BLOCK_S * 1000) if after == b">" else None

        async def ask(redis: Redis) -> Any:
            try:
                return await redis.xreadgroup(GROUP, CONSUMER, {stream: after}, READ_MESSAGES, block=block_ms)
            except exceptions.ResponseError as problem:
                if not str(problem).startswith("NOGROUP"):
                    raise
            with contextlib.suppress(exceptions.ResponseError):  # BUSYGROUP: somebody was quicker
                await redis.xgroup_create(stream, GROUP, id="0", mkstream=True)
            return None

        found = await self._link.do(ask, timeout_s=BLOCK_S + TIMEOUT_S)
        return found[0][1] if found else []

    def _entries(self, messages: Sequence[tuple[bytes, dict[bytes, bytes]]]) -> list[Entry]:
        entries = []
        for number, fields in messages:
            for line in (fields or {}).get(LINES, b"").splitlines():
                try:
                    entries.append(Entry.decode(line))
                except ValueError as problem:
                    self._log.error("left out of the journal", message=number.decode(), error=str(problem))
        return entries

    def _stream(self, node: str) -> str:
        return self._link.key("journal", node)


@dataclass
class _Acknowledge:
    """Forgets messages, later if Redis is away now."""

    link: Link
    stream: str
    waiting: list[bytes] = field(default_factory=list)

    async def __call__(self, numbers: Sequence[bytes]) -> None:
        self.waiting += numbers
        now = tuple(self.waiting)

        async def forget(redis: Redis) -> None:
            async with redis.pipeline(transaction=False) as pipe:
                pipe.xack(self.stream, GROUP, *now)
                pipe.xdel(self.stream, *now)
                await pipe.execute()

        with contextlib.suppress(BusDown):
            await self.link.do(forget)
            del self.waiting[: len(now)]


@dataclass(frozen=True)
class StreamDelivery:
    """numbers: of the messages that the entries came in."""

    entries: Sequence[Entry]
    soon: bool
    numbers: Sequence[bytes]
    acknowledge: Callable[[Sequence[bytes]], Awaitable[None]]

    async def done(self) -> None:
        """Never raises: what Redis does not hear now is told again with the next."""
        await self.acknowledge(self.numbers)
