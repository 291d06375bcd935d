"""Counted places over Redis: each process holds a quota of every scope that it uses, and the quotas never exceed the
limit.

Owns the quotas of this process and how they follow its use. Refuses to know why somebody wants a place. A place within
the quota is given out without a word to Redis, also while Redis is away; beyond it Redis is asked (`limits_script`).
With little free there is nothing but what is in use, so the last place goes to whoever comes first, wherever it is.

Two cases in which there can be too many: a process that Redis does not hear for longer than a lease, while others do,
counts as dead although it lives; and a process that starts when Redis has just lost everything, and is quicker than
those that remember.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sipserver.bus import limits_script, remote
from sipserver.bus.contract import Full
from sipserver.bus.link import Link
from sipserver.bus.redis_commands import RedisCommands
from sipserver.bus.script import Script
from sipserver.errors import BusDown
from sipserver.log import logger

TAKE_S = 0.1
STOOD_STILL_S = 0.01
"""A loop that comes so much too late says nothing about Redis."""
SOON_S = 0.02
RETRY_S = 0.004
IDLE_S = 600.0
"""A scope that has not been used for so long is no longer held; a share for the case of an outage goes with it."""


@dataclass(slots=True)
class _Scope:
    """own: places given out. told: how many of these Redis has surely heard of. quota: places that are ours; at least
    own unless a limit was lowered or an outage ran over a lease. spare: how many of them may stay unused."""

    limit: int
    own: int = 0
    told: int = 0
    quota: int = 0
    spare: int = 0
    used_at: float = 0.0


class RedisLimits:
    def __init__(self, link: Link, commands: RedisCommands, *, run: str) -> None:
        self._link, self._commands, self._run = link, commands, run
        self._log = logger("bus", run=run)
        self._scopes: dict[str, _Scope] = {}
        self._script = Script(limits_script.TELL)
        self._forget, self._used = Script(limits_script.FORGET), Script(limits_script.USED)
        self._talking = asyncio.Lock()
        self._number = 0
        self._born = 0
        self._listens = False
        self._telling: asyncio.TimerHandle | None = None
        self._errands = remote.Errands()

    async def close(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
        await self._errands.close()

    # --- the contract -------------------------------------------------------------------------------------------------

    async def take(self, places: Mapping[str, int]) -> Full | None:
        scopes = {name: self._scope(name, limit) for name, limit in places.items()}
        if self._take_own(scopes):
            return None
        for _ in range(2):
            until = time.monotonic() + TAKE_S
            try:
                async with asyncio.timeout(TAKE_S):
                    await self._listen()
                    return await self._take(scopes)
            except TimeoutError:
                if time.monotonic() - until < STOOD_STILL_S:
                    break
            # Redis had less time than that: it was this process that stood still.
        return self._by_share(scopes)

    def give(self, scopes: Sequence[str]) -> None:
        for name in scopes:
            scope = self._scopes.get(name)
            if scope is None or scope.own == 0:
                continue
            scope.own -= 1
            scope.used_at = time.monotonic()
            if scope.quota - scope.own > scope.spare:
                self._tell_soon()

    async def used(self, scopes: Sequence[str]) -> Mapping[str, int]:
        if not scopes:
            return {}
        answer = await self._link.do(lambda redis: self._used.run(redis, self._link.prefix, scopes))
        return {scope: int(count) for scope, count in zip(scopes, answer, strict=True)}

    # --- taking -------------------------------------------------------------------------------------------------------

    def _scope(self, name: str, limit: int) -> _Scope:
        scope = self._scopes.setdefault(name, _Scope(limit))
        scope.quota = max(scope.own, min(scope.quota, limit))
        scope.limit, scope.used_at = limit, time.monotonic()
        return scope

    def _take_own(self, scopes: Mapping[str, _Scope]) -> bool:
        if not all(scope.own < min(scope.quota, scope.limit) for scope in scopes.values()):
            return False
        for scope in scopes.values():
            scope.own += 1
        return True

    async def _take(self, scopes: Mapping[str, _Scope]) -> Full | None:
        """Ask until somebody's unused place has come back, but no longer than the caller waits."""
        names, pause_s = list(scopes), RETRY_S
        while not self._take_own(scopes):
            # A request goes on when the caller waits no longer: what it brings is ours for the next one.
            word, index = await asyncio.shield(self._errands.start(self._ask(scopes), "ask for places"))
            match word:
                case "ok":
                    continue
                case "full":
                    return Full(names[index - 1], scopes[names[index - 1]].limit, shared=True)
                case "wait":
                    await asyncio.sleep(pause_s)
                    pause_s *= 2
                case _:
                    return self._by_share(scopes)
        return None

    async def _ask(self, scopes: Mapping[str, _Scope]) -> tuple[str, int]:
        try:
            async with self._talking:
                if all(scope.own < min(scope.quota, scope.limit) for scope in scopes.values()):
                    return "ok", 0  # the request before this one brought enough
                return await self._tell(scopes, take=True)
        except BusDown:
            return "away", 0

    async def _listen(self) -> None:
        """To those who find no place; from the first place on."""
        if not self._listens:
            self._listens = True
            await self._commands.listen("limits", self.give_back)

    def _by_share(self, scopes: Mapping[str, _Scope]) -> Full | None:
        if self._take_own(scopes):
            return None
        name, scope = next(
            (name, scope) for name, scope in scopes.items() if scope.own >= min(scope.quota, scope.limit)
        )
        return Full(name, scope.limit, shared=False)

    # --- telling ------------------------------------------------------------------------------------------------------

    async def renew(self) -> None:
        """Tell everything, so that this run counts as alive and its counts are right. One that has nothing to tell asks
        once when the counts began, so that it notices when Redis loses them.
        """
        if self._scopes or not self._born:
            await self._tell_all(dict(self._scopes))

    def give_back(self, scope_name: bytes) -> None:
        """Somebody finds no place: what is not in use goes back at once. Places given out without a word look unused
        until Redis hears of them, and whoever asks waits for them in vain."""
        name = scope_name.decode()
        scope = self._scopes.get(name)
        if scope is not None and (scope.quota > scope.own or scope.own > scope.told):
            scope.quota = min(scope.quota, scope.own)
            self._errands.start(self._tell_all({name: scope}, spare=0), "give places back")

    async def forget(self, run: str) -> None:
        """Raises BusDown."""
        await self._link.do(lambda redis: self._forget.run(redis, self._link.prefix, [run]))

    def _tell_soon(self) -> None:
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(SOON_S, self._now)

    def _now(self) -> None:
        self._telling = None
        unsaid = {name: scope for name, scope in self._scopes.items() if scope.quota - scope.own > scope.spare}
        if unsaid:
            self._errands.start(self._tell_all(unsaid), "tell places")

    async def _tell_all(self, scopes: Mapping[str, _Scope], *, spare: int = limits_script.SPARE_MOST) -> None:
        try:
            async with self._talking:
                await self._tell(scopes, spare=spare)
        except BusDown:
            return  # the next renewal says it
        now = time.monotonic()
        for name in [name for name, scope in scopes.items() if not scope.own and now - scope.used_at > IDLE_S]:
            if scopes[name].quota == 0:
                self._scopes.pop(name, None)

    async def _tell(
        self, scopes: Mapping[str, _Scope], *, take: bool = False, spare: int = limits_script.SPARE_MOST
    ) -> tuple[str, int]:
        """One request at a time; the lock is held. Answers the word and the index of the scope that it is about. A
        place that was taken is in the quota; to give it out is the caller's.
        """
        self._number += 1
        lease_ms = int(self._link.lease_s * 1000)
        arguments: list[str | int] = [self._run, self._number, lease_ms, self._born, int(take)]
        now = time.monotonic()
        for name, scope in scopes.items():
            if scope.quota - scope.own > scope.spare:
                scope.quota = scope.own + scope.spare
            wanted = 0 if not scope.own and now - scope.used_at > IDLE_S else spare
            arguments += [name, scope.limit, scope.own, scope.quota, wanted]
        before = [scope.own for scope in scopes.values()]
        answer = await self._link.do(lambda redis: self._script.run(redis, self._link.prefix, arguments))
        word, self._born = answer[0].decode(), int(answer[1])
        if word != "late":
            for scope, own in zip(scopes.values(), before, strict=True):
                scope.told = own + (take and word == "ok")
        if word != "ok":
            return word, int(answer[2])
        for scope, own, quota in zip(scopes.values(), before, answer[2:], strict=True):
            scope.spare = max(0, int(quota) - own - take)
            scope.quota = int(quota)
        return word, 0
