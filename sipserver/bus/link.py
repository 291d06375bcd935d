"""The connection to Redis: is it there, and since when.

Owns the client, the names of keys, and the word whether Redis answers; everything that goes to Redis goes through `do`.
Refuses to know what is asked of it. Loop thread; made after the fork.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from sipserver.bus.settings import BusSettings
from sipserver.errors import BusDown, SettingsError
from sipserver.log import logger

OLDEST = (6, 2)
"""What every distribution that is still maintained has; older ones are not tested."""

TIMEOUT_S = 1.0
CONNECTIONS = 32
"""At most, a process. One is subscribed, one waits for each journal that is read; the others are for crowds."""
KEEPALIVE: dict[str, Any] = {
    "socket_keepalive": True,
    "socket_keepalive_options": {socket.TCP_KEEPIDLE: 5, socket.TCP_KEEPINTVL: 2, socket.TCP_KEEPCNT: 3},
}
"""So that a subscription notices within 11 s that the server's machine is gone; nothing is sent on it otherwise."""

PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8)
_AWAY = (exceptions.ConnectionError, exceptions.TimeoutError, OSError, TimeoutError)


class Link:
    """up: Redis answers. server: the id of this life of the Redis server; another one after a restart.

    settled: what is not there is really not there; False for a lease's length after an outage in which leases may have
    run out, until everybody has renewed his.
    """

    def __init__(self, settings: BusSettings, *, node: str, run: str) -> None:
        self.prefix = settings.prefix
        self.lease_s = settings.lease_s
        self.up = False
        self.server = ""
        self.on_up: list[Callable[[], None]] = []
        self._settings = settings
        self._log = logger("bus", run=run)
        self._came_up = asyncio.Event()
        self._reviving: asyncio.Task[None] | None = None
        self._away_since: float | None = None
        self._unsettled_until = 0.0
        self._closed = False
        pool = BlockingConnectionPool.from_url(
            settings.url,
            max_connections=CONNECTIONS,
            timeout=None,  # `do` has its own
            password=os.environ.get(settings.password_env) or None,
            client_name=f"sipserver:{node}:{run[:12]}",
            protocol=2,
            driver_info=None,  # reading the library's metadata costs every process 1.4 MB
            socket_timeout=None,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            **({} if settings.url.startswith("unix:") else KEEPALIVE),
        )
        self.client = Redis.from_pool(pool)

    def key(self, *parts: str) -> str:
        return ":".join((self.prefix, *parts))

    @property
    def settled(self) -> bool:
        return self.up and time.monotonic() >= self._unsettled_until

    async def open(self) -> None:
        """Connect. One that is away is waited for in the background. Raises SettingsError for one that refuses us."""
        try:
            await self._greet()
        except BusDown as problem:
            self._fell(problem)

    async def close(self) -> None:
        self._closed = True
        if self._reviving is not None:
            self._reviving.cancel()
            await asyncio.gather(self._reviving, return_exceptions=True)
        self.up = False
        await self.client.aclose()

    async def do(self, work: Callable[[Redis], Awaitable[Any]], *, timeout_s: float = TIMEOUT_S) -> Any:
        """Ask Redis. Raises BusDown: at once while it is known to be away, after timeout_s when it hangs."""
        if not self.up:
            raise BusDown("Redis is away")
        try:
            return await self._asked(work, timeout_s)
        except exceptions.NoScriptError:
            raise
        except exceptions.ResponseError as problem:  # it answers, but cannot: out of memory, read only, no space
            raise BusDown(f"Redis refuses: {problem}") from problem
        except _AWAY as problem:
            self._fell(problem)
            raise BusDown(f"Redis is away: {problem or 'no answer in time'}") from problem

    async def wait_up(self, timeout_s: float | None = None) -> bool:
        """Until Redis answers; False after timeout_s."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._came_up.wait()
        except TimeoutError:
            return False
        return True

    @property
    def away_s(self) -> float:
        """For how long Redis has been away; 0 while it is there."""
        return 0.0 if self._away_since is None else time.monotonic() - self._away_since

    def suspect(self, problem: BaseException) -> None:
        """A connection broke: look whether Redis is there, and whether it is still the same."""
        if self.up:
            self._fell(problem)

    # --- away and back ------------------------------------------------------------------------------------------------

    def _fell(self, problem: BaseException) -> None:
        if self._closed or self._reviving is not None:
            return
        self.up = False
        self._came_up.clear()
        self._away_since = time.monotonic()
        self._reviving = asyncio.create_task(self._revive(str(problem) or type(problem).__name__), name="revive redis")

    async def _revive(self, why: str) -> None:
        """Until it answers. One that answers at once was only slow, or a connection was old: no word about that."""
        attempt = 0
        while True:
            try:
                await self._greet()
                break
            except BusDown:
                if not attempt:
                    self._log.warning("Redis is away", error=why)
            except SettingsError as problem:  # changed while we run: nothing to do but to say so and to go on trying
                if not attempt:
                    self._log.error("Redis refuses us", error=str(problem))
            await asyncio.sleep(PAUSES_S[min(attempt, len(PAUSES_S) - 1)])
            attempt += 1
        self._reviving = None
        if attempt:
            self._log.warning("Redis is back")

    async def _greet(self) -> None:
        """Look who is there, and say so to those who wait."""
        try:
            facts = await self._asked(lambda redis: redis.info("everything"), TIMEOUT_S)
        except exceptions.InvalidResponse as problem:
            raise SettingsError(f"what answers is no Redis: {problem}", key="bus.url") from None
        except (exceptions.ResponseError, *_AWAY) as problem:
            match _root(problem):
                case exceptions.AuthenticationError() | exceptions.NoPermissionError():
                    raise self._refusal(f"Redis refuses us: {problem}") from None
                case socket.gaierror() | ssl.SSLCertVerificationError():
                    reason = f"cannot connect: {problem}; check host and certificate"
                    raise SettingsError(reason, key="bus.url") from None
                case _:
                    raise BusDown(str(problem) or "no answer in time") from None
        self._check(facts)
        away_s, before = self.away_s, self.server
        self.server = str(facts["run_id"])
        if self._away_since is not None and (away_s > self.lease_s / 3 or before != self.server):
            self._unsettled_until = time.monotonic() + self.lease_s
        self._away_since = None
        self.up = True
        self._came_up.set()
        for tell in self.on_up:
            tell()

    def _check(self, facts: dict[str, Any]) -> None:
        version = tuple(int(part) for part in str(facts["redis_version"]).split(".")[:2])
        if version < OLDEST:
            oldest = ".".join(map(str, OLDEST))
            raise SettingsError(f"Redis {facts['redis_version']} is too old; install {oldest} or newer", key="bus.url")
        if self.server:
            return
        if facts.get("maxmemory") and facts.get("maxmemory_policy") != "noeviction":
            self._log.warning("Redis may evict records and leases: set maxmemory-policy noeviction")
        if not facts.get("aof_enabled"):
            self._log.warning("Redis forgets waiting records when it restarts: set appendonly yes")

    def _refusal(self, reason: str) -> SettingsError:
        variable = self._settings.password_env
        given = "is set but wrong" if os.environ.get(variable) else "is not set"
        return SettingsError(f"{reason}; the environment variable {variable} {given}", key="bus.url")

    async def _asked(self, work: Callable[[Redis], Awaitable[Any]], timeout_s: float) -> Any:
        async with asyncio.timeout(timeout_s):
            return await work(self.client)


def _root(problem: BaseException) -> BaseException:
    while (cause := problem.__cause__ or problem.__context__) is not None:
        problem = cause
    return problem
