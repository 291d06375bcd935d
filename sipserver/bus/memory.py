"""The bus of one process: everything is handed over in memory, nothing can be away.

A `Hub` is what the buses of several nodes and runs of one process share. Loop thread.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field

from sipserver.bus import remote
from sipserver.bus.chain import Chain
from sipserver.bus.contract import Full, Handler, Heard, Json
from sipserver.bus.meters import MemoryMeters
from sipserver.bus.once import MemoryOnce
from sipserver.errors import NotFound
from sipserver.journal import Entry
from sipserver.log import logger

MOST_ENTRIES = 100_000
"""Entries that wait for the reader, which lives in the same process. Beyond it the newest are dropped and counted."""

BATCH = 500


class MemoryBus:
    """`up` always."""

    def __init__(self, *, node: str, run: str, hub: Hub | None = None) -> None:
        self.node, self.run = node, run
        self._hub = hub or Hub()
        self.journal = _Journal(self._hub, node)
        self.commands = _Commands(self._hub)
        self.leases = _Leases(self._hub, run)
        self.limits = _Limits(self._hub, run)
        self.meters = self._hub.meters
        self.once = self._hub.once
        self.live = _Live(self._hub)

    @property
    def up(self) -> bool:
        return True

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        await self.forget_run(self.run)
        await self.commands.close()

    async def forget_run(self, run: str) -> None:
        for key in [key for key, held in self._hub.leases.items() if held.run == run]:
            del self._hub.leases[key]
        for counts in self._hub.counts.values():
            counts.pop(run, None)


@dataclass
class Hub:
    """journals: by node. served: by address. leases: by key. counts: scope -> run -> places taken. heard: by
    tenant.
    """

    journals: defaultdict[str, _Kept] = field(default_factory=lambda: defaultdict(_Kept))
    served: defaultdict[str, list[_Served]] = field(default_factory=lambda: defaultdict(list))
    leases: dict[str, _Held] = field(default_factory=dict)
    counts: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    meters: MemoryMeters = field(default_factory=MemoryMeters)
    once: MemoryOnce = field(default_factory=MemoryOnce)
    heard: defaultdict[str, list[Heard]] = field(default_factory=lambda: defaultdict(list))


# --- the journal ------------------------------------------------------------------------------------------------------


class _Kept:
    """The entries of a node that are not done. first: number of the oldest; numbers only grow."""

    def __init__(self) -> None:
        self.entries: deque[Entry] = deque()
        self.first = 0
        self.dropped = 0
        self.soon = False
        self.news = asyncio.Event()


@dataclass(frozen=True)
class _Delivery:
    """end: number after the last entry."""

    entries: Sequence[Entry]
    soon: bool
    kept: _Kept
    end: int

    async def done(self) -> None:
        while self.kept.first < self.end:
            self.kept.entries.popleft()
            self.kept.first += 1


class _Journal:
    def __init__(self, hub: Hub, node: str) -> None:
        self._hub, self._node = hub, node
        self._log = logger("bus")

    @property
    def depth(self) -> int:
        return 0

    @property
    def dropped(self) -> int:
        return self._hub.journals[self._node].dropped

    def tell(self, entry: Entry, *, soon: bool = False) -> None:
        kept = self._hub.journals[self._node]
        if len(kept.entries) >= MOST_ENTRIES:
            kept.dropped += 1
            if kept.dropped % 1_000 == 1:
                self._log.error("nobody reads the journal, entries are lost", dropped=kept.dropped)
            return
        kept.entries.append(entry)
        kept.soon |= soon
        kept.news.set()

    async def flush(self, timeout_s: float) -> bool:
        return True

    async def adopt(self, run: str) -> int:
        return 0

    async def read(self, node: str) -> AsyncGenerator[_Delivery, None]:
        kept = self._hub.journals[node]
        seen = kept.first
        while True:
            seen = max(seen, kept.first)
            begin = seen - kept.first
            if fresh := list(itertools.islice(kept.entries, begin, begin + BATCH)):
                seen += len(fresh)
                soon, kept.soon = kept.soon, kept.soon and len(kept.entries) > seen - kept.first
                yield _Delivery(fresh, soon, kept, seen)
            else:
                kept.news.clear()
                await kept.news.wait()


# --- commands ---------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Served:
    handler: Handler
    others: list[_Served]

    async def close(self) -> None:
        if self in self.others:
            self.others.remove(self)


class _Commands:
    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._errands = remote.Errands()

    async def serve(self, address: str, handler: Handler) -> _Served:
        served = _Served(handler, self._hub.served[address])
        served.others.append(served)
        return served

    async def ask(self, address: str, verb: str, arguments: Json, *, timeout_s: float = 2.0) -> Json:
        served = self._hub.served.get(address)
        if not served and (call_id := remote.call_of(address)):
            held = self._hub.leases.get(f"call/{call_id}")
            served = self._hub.served.get(f"run:{held.value.get('run', held.run)}") if held is not None else None
            arguments = {"call_id": call_id, **arguments}
        if not served:
            raise NotFound(f"nobody serves {address}")
        try:
            async with asyncio.timeout(timeout_s):
                return remote.unpacked(await remote.answer(served[0].handler, verb, arguments))
        except TimeoutError:
            raise remote.late(address, timeout_s) from None

    async def announce(self, verb: str, arguments: Json) -> None:
        for served in tuple(self._hub.served["all"]):
            self._errands.start(remote.answer(served.handler, verb, arguments), f"announced {verb}")

    async def close(self) -> None:
        await self._errands.close()


# --- leases -----------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Held:
    key: str
    value: Json
    run: str
    leases: dict[str, _Held]

    def update(self, value: Json, *, soon: bool = True) -> None:
        self.value = value

    async def close(self) -> None:
        self.drop()

    def drop(self) -> None:
        if self.leases.get(self.key) is self:
            del self.leases[self.key]


class _Leases:
    """A lease ends when it is closed or its run is forgotten; times to live mean nothing within one process."""

    def __init__(self, hub: Hub, run: str) -> None:
        self._held, self._run = hub.leases, run

    async def hold(self, key: str, value: Json, *, ttl_s: float | None = None) -> _Held:
        return self.keep(key, value)

    def keep(self, key: str, value: Json) -> _Held:
        held = self._held[key] = _Held(key, value, self._run, self._held)
        return held

    async def contend(self, key: str, value: Json) -> _Held | None:
        return None if key in self._held else await self.hold(key, value)

    async def get(self, key: str) -> Json | None:
        held = self._held.get(key)
        return None if held is None else held.value

    async def find(self, prefix: str) -> dict[str, Json]:
        return {key: held.value for key, held in self._held.items() if key.startswith(prefix)}


# --- limits -----------------------------------------------------------------------------------------------------------


class _Limits:
    def __init__(self, hub: Hub, run: str) -> None:
        self._counts, self._run = hub.counts, run

    async def take(self, places: Mapping[str, int]) -> Full | None:
        for scope, limit in places.items():
            if self._counts[scope].total() >= limit:
                return Full(scope, limit, shared=True)
        for scope in places:
            self._counts[scope][self._run] += 1
        return None

    def give(self, scopes: Sequence[str]) -> None:
        for scope in scopes:
            if self._counts[scope][self._run] > 0:
                self._counts[scope][self._run] -= 1

    async def used(self, scopes: Sequence[str]) -> Mapping[str, int]:
        return {scope: self._counts[scope].total() if scope in self._counts else 0 for scope in scopes}


# --- live events ------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Hearing:
    heard: Heard
    others: list[Heard]

    async def close(self) -> None:
        if self.heard in self.others:
            self.others.remove(self.heard)


class _Live:
    def __init__(self, hub: Hub) -> None:
        self._heard, self._chain = hub.heard, Chain()
        self._log = logger("bus")

    def tell(self, entry: Entry) -> None:
        link = self._chain.link(entry)
        if link is None:
            return
        tenant, before_us = link
        for heard in tuple(self._heard.get(tenant, ())):
            try:
                heard(entry, before_us)
            except Exception as problem:  # no call is worth less than its listeners
                self._log.error("a live event was not understood", exc_info=problem)

    async def hear(self, tenant: str, heard: Heard) -> _Hearing:
        self._heard[tenant].append(heard)
        return _Hearing(heard, self._heard[tenant])
