"""What is used up within a time, counted for all processes over Redis.

Owns what is given out while Redis is away. Refuses to know what is counted. A request that came too late may have been
counted although it was answered by share: too much is counted then, never too little.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from sipserver.bus import remote
from sipserver.bus.contract import Draw, Drawn, Full
from sipserver.bus.link import Link
from sipserver.bus.meters import MOST_SCOPES, refused, without_first
from sipserver.bus.script import Script
from sipserver.errors import BusDown

TAKE_S = 0.1
STOOD_STILL_S = 0.01
"""A loop that comes so much too late says nothing about Redis."""

_DRAW = """
local prefix = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function key(scope) return prefix .. ':meter:' .. scope end
local answer = {0, math.max(1, redis.call('ZCOUNT', prefix .. ':limits:runs', now, '+inf'))}
for at = 1, #ARGV, 6 do
  local scope, limit, amount, unsaid, lives, always =
    ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), ARGV[at + 4], ARGV[at + 5]
  local used = tonumber(redis.call('GET', key(scope))) or 0
  if unsaid ~= 0 then
    used = redis.call('INCRBY', key(scope), unsaid)
    redis.call('PEXPIRE', key(scope), lives)
  end
  if answer[1] == 0 and always == '0' and amount >= 0 and used + math.max(1, amount) > limit then
    answer[1] = (at + 5) / 6
  end
  answer[#answer + 1] = used
end
if answer[1] == 0 then
  for at = 1, #ARGV, 6 do
    local amount = tonumber(ARGV[at + 2])
    if amount ~= 0 then
      answer[2 + (at + 5) / 6] = redis.call('INCRBY', key(ARGV[at]), amount)
      redis.call('PEXPIRE', key(ARGV[at]), ARGV[at + 4])
    end
  end
end
return answer
"""
"""KEYS: prefix. ARGV for every scope: its name, limit, amount, what was drawn while Redis was away, how long it matters
(ms), 1 to draw whatever is left. Answers the index of the scope that is full (0: drawn), how many runs live, and what
is used of each."""

_PUT = """
local key = KEYS[1] .. ':meter:' .. ARGV[1]
local used = tonumber(redis.call('GET', key)) or 0
if ARGV[4] == '1' or tonumber(ARGV[2]) > used then redis.call('SET', key, ARGV[2], 'PX', ARGV[3]) end
return {}
"""
"""KEYS: prefix. ARGV: scope, used, how long it matters (ms), 1: also when it is less."""


@dataclass(slots=True)
class _Known:
    """What was used when Redis was heard last."""

    used: int
    until_s: float


class RedisMeters:
    """Loop thread. `renew` with every renewal of leases; `close` at the end."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._draw, self._put = Script(_DRAW), Script(_PUT)
        self._known: dict[str, _Known] = {}
        self._unsaid: Counter[str] = Counter()
        """What was drawn while Redis was away."""
        self._sending: Counter[str] = Counter()
        """What of it is on its way to Redis."""
        self._lives_s: dict[str, float] = {}
        self._living = 1
        self._errands = remote.Errands()

    async def close(self) -> None:
        await self._errands.close()

    async def draw(self, wanted: Mapping[str, Draw]) -> Drawn:
        """See `contract.Meters`."""
        # It goes on when the caller waits no longer: a connection is not to be broken off within an answer.
        asking = self._errands.start(self._try(wanted), "draw")
        for _ in range(2):
            until_s = time.monotonic() + TAKE_S
            await asyncio.wait({asking}, timeout=TAKE_S)
            if asking.done() or time.monotonic() - until_s < STOOD_STILL_S:
                break
            # Redis had less time than that: it was this process that stood still.
        drawn: Drawn | None = asking.result() if asking.done() and not asking.cancelled() else None
        return drawn or self._by_share(wanted)

    async def put(self, scope: str, used: int, lives_s: float, *, lower: bool = False) -> None:
        """See `contract.Meters`."""
        arguments: list[str | int] = [scope, used, int(lives_s * 1000), int(lower)]
        try:
            await self._link.do(lambda redis: self._put.run(redis, self._link.prefix, arguments))
        except BusDown:
            return

    async def renew(self) -> None:
        """Tell what was drawn while Redis was away, and forget what matters no more."""
        now_s = time.monotonic()
        self._known = {scope: known for scope, known in self._known.items() if known.until_s > now_s}
        if unsaid := {scope: Draw(0, 0, self._lives_s.get(scope, 60.0), always=True) for scope in self._unsaid}:
            await self._try(unsaid)

    async def _try(self, wanted: Mapping[str, Draw]) -> Drawn | None:
        """None: Redis is away."""
        try:
            return await self._ask(wanted)
        except BusDown:
            return None

    async def _ask(self, wanted: Mapping[str, Draw]) -> Drawn:
        """Raises BusDown."""
        unsaid = {scope: self._unsaid.pop(scope, 0) for scope in wanted}
        self._sending.update(unsaid)
        arguments: list[str | int] = []
        for scope, draw in wanted.items():
            lives_ms = max(1, int(draw.lives_s * 1000))
            arguments += [scope, draw.limit, draw.amount, unsaid[scope], lives_ms, int(draw.always)]
        try:
            answer = await self._link.do(lambda redis: self._draw.run(redis, self._link.prefix, arguments))
        except BaseException:
            self._unsaid.update({scope: amount for scope, amount in unsaid.items() if amount})
            raise
        finally:
            self._sending.subtract(unsaid)
            self._sending = Counter({scope: amount for scope, amount in self._sending.items() if amount})
        index, self._living = int(answer[0]), int(answer[1])
        now_s, used = time.monotonic(), {}
        for (scope, draw), count in zip(wanted.items(), answer[2:], strict=True):
            used[scope] = int(count)
            self._known.pop(scope, None)
            self._known[scope] = _Known(int(count), now_s + draw.lives_s)
        if len(self._known) > MOST_SCOPES:
            self._known = without_first(self._known)
        scopes = list(wanted)
        full = Full(scopes[index - 1], wanted[scopes[index - 1]].limit, shared=True) if index else None
        return Drawn(full, used)

    def _by_share(self, wanted: Mapping[str, Draw]) -> Drawn:
        """Each process has an equal share of what was left. Of a scope that is new since, every one has some."""
        now_s, used = time.monotonic(), {}
        for scope, draw in wanted.items():
            known = self._known.get(scope)
            here = self._unsaid[scope] + self._sending[scope]
            if known is None or known.until_s <= now_s:
                before, share = 0, max(1, draw.limit // self._living)
            else:
                before, share = known.used, max(0, draw.limit - known.used) // self._living
            used[scope] = before + here
            if refused(draw, here, share):
                return Drawn(Full(scope, draw.limit, shared=False), used)
        for scope, draw in wanted.items():
            if draw.amount:
                self._unsaid[scope] += draw.amount
                self._lives_s[scope] = draw.lives_s
                used[scope] += draw.amount
        if len(self._unsaid) > MOST_SCOPES:
            del self._unsaid[next(iter(self._unsaid))]
        self._lives_s = {
            scope: self._lives_s[scope] for scope in (*self._unsaid, *self._sending) if scope in self._lives_s
        }
        return Drawn(None, used)
