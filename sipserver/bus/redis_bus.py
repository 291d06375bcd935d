"""The bus of a fleet: Redis, and what to do while it is away.

Puts the parts together, opens them in order and closes them in reverse. Loop thread; made after the fork.
"""

from __future__ import annotations

import contextlib

from sipserver.bus.link import Link
from sipserver.bus.redis_commands import RedisCommands
from sipserver.bus.redis_journal import RedisJournal
from sipserver.bus.redis_leases import RedisLeases
from sipserver.bus.redis_limits import RedisLimits
from sipserver.bus.redis_live import RedisLive
from sipserver.bus.redis_meters import RedisMeters
from sipserver.bus.redis_once import RedisOnce
from sipserver.bus.settings import BusSettings
from sipserver.errors import BusDown, SettingsError


class RedisBus:
    def __init__(self, settings: BusSettings, *, node: str, run: str) -> None:
        self.node, self.run = node, run
        self._spool = settings.spool
        self._link = Link(settings, node=node, run=run)
        self.journal = RedisJournal(self._link, settings, node=node, run=run)
        self.leases = RedisLeases(self._link, run=run)
        self.commands = RedisCommands(self._link, self.leases, run=run)
        self.limits = RedisLimits(self._link, self.commands, run=run)
        self.meters = RedisMeters(self._link)
        self.once = RedisOnce(self._link)
        self.live = RedisLive(self._link, self.commands)
        self.leases.with_renewal += [self.limits.renew, self.meters.renew]

    @property
    def up(self) -> bool:
        return self._link.up

    async def open(self) -> None:
        try:
            self._spool.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise SettingsError(f"cannot make {self._spool}: {problem.strerror}", key="bus.spool") from None
        await self._link.open()
        self.journal.open()
        self.live.open()
        self.leases.open()
        await self.limits.renew()

    async def close(self) -> None:
        """The journal is flushed (or spooled), leases and counts of this run are given up."""
        await self.journal.close()
        await self.live.close()
        await self.commands.close()
        await self.limits.close()
        await self.meters.close()
        await self.leases.close()
        await self.forget_run(self.run)
        await self._link.close()

    async def forget_run(self, run: str) -> None:
        """While Redis is away nothing happens: they run out by themselves."""
        with contextlib.suppress(BusDown):
            await self.leases.forget(run)
            await self.limits.forget(run)
