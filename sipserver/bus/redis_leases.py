"""Leases over Redis: keys that expire unless their owner renews them.

Owns what this process holds and the one task that renews all of it in one go. Refuses to know what the keys mean. A
value is stored as the owner's run, a line feed, and JSON, so that nobody deletes or renews what another has taken over.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.asyncio import Redis

from sipserver.bus.contract import Json
from sipserver.bus.link import Link
from sipserver.errors import BusDown
from sipserver.log import logger

SOON_S = 0.02
SCAN_COUNT = 1_000

_RENEW = """
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, #ARGV[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2], 'PX', ARGV[3])
return 1
"""
_RELEASE = """
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, #ARGV[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class RedisLeases:
    def __init__(self, link: Link, *, run: str) -> None:
        self._link, self._run, self._owner = link, run, f"{run}\n"
        self._log = logger("bus", run=run)
        self._held: dict[str, RedisLease] = {}
        self._changed: set[RedisLease] = set()
        self._dropped: list[str] = []
        """Names in Redis of what is to be deleted; one key has one owner, so nobody looks whose it is."""
        self._soon = asyncio.Event()
        self._everything = True
        self._task: asyncio.Task[None] | None = None
        self.with_renewal: list[Callable[[], Awaitable[None]]] = []

    def open(self) -> None:
        self._link.on_up.append(self._back)
        self._task = asyncio.create_task(self._renew_for_ever(), name="leases")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._held.clear()

    # --- the contract -------------------------------------------------------------------------------------------------

    async def hold(self, key: str, value: Json, *, ttl_s: float | None = None) -> RedisLease:
        lease = self._held[key] = RedisLease(self, key, value, ttl_s or self._link.lease_s, contended=False)
        with contextlib.suppress(BusDown):  # it comes with the first renewal when Redis is back
            await self._link.do(lambda redis: self._write(redis, [lease]))
        return lease

    def keep(self, key: str, value: Json) -> RedisLease:
        lease = self._held[key] = RedisLease(self, key, value, self._link.lease_s, contended=False)
        self.changed(lease)
        return lease

    async def contend(self, key: str, value: Json) -> RedisLease | None:
        """None also while Redis is away."""
        lease = RedisLease(self, key, value, self._link.lease_s, contended=True)
        try:
            (got,) = await self._link.do(lambda redis: self._write(redis, [lease]))
        except BusDown:
            return None
        if not got:
            return None
        self._held[key] = lease
        return lease

    async def get(self, key: str) -> Json | None:
        """Raises BusDown, also when it may only be missing because Redis has just come back."""
        name = self._name(key)
        stored: bytes | None = await self._link.do(lambda redis: redis.get(name))
        if stored is None:
            self._must_be_settled()
            return None
        return _value(stored)

    async def find(self, prefix: str) -> dict[str, Json]:
        """Raises BusDown, also for a while after an outage, when leases may be missing that are held."""
        self._must_be_settled()
        stored = await self._link.do(lambda redis: self._scan(redis, prefix))
        return {key: _value(held) for key, _, held in stored}

    async def forget(self, run: str) -> None:
        """All leases of a run go. Raises BusDown."""
        owner = f"{run}\n".encode()

        async def sweep(redis: Redis) -> None:
            theirs = [name for _, name, held in await self._scan(redis, "") if held.startswith(owner)]
            if theirs:
                await redis.delete(*theirs)

        await self._link.do(sweep)

    async def _scan(self, redis: Redis, prefix: str) -> list[tuple[str, bytes, bytes]]:
        """(key, its name in Redis, what is stored) of all leases whose key begins so."""
        begin = self._name("")
        pattern = _escaped(begin + prefix) + "*"
        names: list[bytes] = [name async for name in redis.scan_iter(pattern, count=SCAN_COUNT)]
        stored: list[Any] = await redis.mget(names) if names else []
        pairs = zip(names, stored, strict=True)
        return [(name.decode().removeprefix(begin), name, held) for name, held in pairs if held is not None]

    # --- keeping what is ours -----------------------------------------------------------------------------------------

    def changed(self, lease: RedisLease) -> None:
        if self._held.get(lease.key) is lease:
            self._changed.add(lease)
            self._soon.set()

    def _back(self) -> None:
        """Redis is there again: it may have forgotten everything."""
        self._everything = True
        self._soon.set()

    async def release(self, lease: RedisLease) -> None:
        if self._held.get(lease.key) is not lease:
            return
        del self._held[lease.key]
        name = self._name(lease.key)
        with contextlib.suppress(BusDown):  # it runs out
            await self._link.do(lambda redis: redis.eval(_RELEASE, 1, name, self._owner))

    def drop(self, lease: RedisLease) -> None:
        """For leases of `hold` and `keep`. While Redis is away it runs out."""
        if self._held.get(lease.key) is not lease:
            return
        del self._held[lease.key]
        self._dropped.append(self._name(lease.key))
        self._soon.set()

    async def _renew_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        next_at = 0.0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(next_at):
                    await self._soon.wait()
                    await asyncio.sleep(SOON_S)
            self._soon.clear()
            everything, self._everything = self._everything or loop.time() >= next_at, False
            changed, self._changed = self._changed, set()
            dropped, self._dropped = self._dropped, []
            if everything:
                next_at = loop.time() + self._link.lease_s / 3
            with contextlib.suppress(BusDown):
                await self._renew(list(self._held.values()) if everything else list(changed), dropped)
            for renew in self.with_renewal if everything else ():
                await renew()

    async def _renew(self, leases: Sequence[RedisLease], dropped: Sequence[str] = ()) -> None:
        leases = [lease for lease in leases if self._held.get(lease.key) is lease]
        if not leases and not dropped:
            return
        kept = await self._link.do(lambda redis: self._write(redis, leases, dropped))
        for lease, still in zip(leases, kept, strict=True):
            if not still and self._held.get(lease.key) is lease:
                del self._held[lease.key]
                self._log.warning("lease lost to another", key=lease.key)

    async def _write(self, redis: Redis, leases: Sequence[RedisLease], dropped: Sequence[str] = ()) -> list[bool]:
        """One round trip. False for those that another has."""
        async with redis.pipeline(transaction=False) as pipe:
            for lease in leases:
                name, text = self._name(lease.key), json.dumps(lease.value, separators=(",", ":"), default=str)
                ttl_ms = int(lease.ttl_s * 1000)
                if lease.contended:
                    pipe.eval(_RENEW, 1, name, self._owner, text, ttl_ms)
                else:
                    pipe.set(name, self._owner + text, px=ttl_ms)
            if dropped:
                pipe.delete(*dropped)
            answers = await pipe.execute()
        return [bool(answer) for answer in answers[: len(leases)]]

    def _name(self, key: str) -> str:
        return self._link.key("lease", key)

    def _must_be_settled(self) -> None:
        if not self._link.settled:
            raise BusDown("Redis is away or has just come back")


class RedisLease:
    def __init__(self, leases: RedisLeases, key: str, value: Json, ttl_s: float, *, contended: bool) -> None:
        self.key, self.value, self.ttl_s, self.contended = key, value, ttl_s, contended
        self._leases = leases

    def update(self, value: Json, *, soon: bool = True) -> None:
        self.value = value
        if soon:
            self._leases.changed(self)

    async def close(self) -> None:
        await self._leases.release(self)

    def drop(self) -> None:
        self._leases.drop(self)


def _value(stored: bytes) -> Json:
    value: dict[str, Any] = json.loads(stored.partition(b"\n")[2])
    return value


def _escaped(pattern: str) -> str:
    """As a glob that matches only itself (redis.io, KEYS)."""
    return "".join(f"\\{character}" if character in "*?[]\\^" else character for character in pattern)
