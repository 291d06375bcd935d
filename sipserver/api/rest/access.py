"""Who may ask the REST API for what: API keys, their scopes, and how often each may ask.

Owns the buckets. Refuses to know how a key is recognised (`tenants.key_book`) and what is asked.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import hdrs, web

from sipserver.errors import NotAllowed, TooMany, Unauthorized
from sipserver.gate.requests import address_of
from sipserver.tenants.keys import ApiKey, Scope

Recognise = Callable[[str], Awaitable[ApiKey | None]]
MOST_BUCKETS = 10_000
"""Of keys and addresses; beyond it those that were quiet longest are forgotten."""
WRONG_PER_S = 5.0
"""Wrong keys from one address; a burst of twice as many is borne."""


@dataclass(frozen=True, slots=True)
class Left:
    """What a key may still ask for. limit: per second; reset_s: until nothing is used."""

    limit: int
    remaining: int
    reset_s: int

    def headers(self) -> dict[str, str]:
        """As draft-ietf-httpapi-ratelimit-headers, in the form that is in use (version 05)."""
        return {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(self.reset_s),
        }


class Buckets:
    """By name; per_s drip in, twice as many fit. clock: monotonic seconds."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._most, self._clock = per_s, max(1.0, 2 * per_s), clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def left(self, name: str) -> float:
        """What it may ask for now."""
        left, seen_s = self._left.get(name, (self._most, 0.0))
        return min(self._most, left + (self._clock() - seen_s) * self._per_s)

    def take(self, name: str) -> Left | None:
        """None: nothing is left."""
        left = self.left(name)
        if left < 1:
            return None
        self._left.pop(name, None)
        self._left[name] = (left - 1, self._clock())
        if len(self._left) > MOST_BUCKETS:
            self._left.popitem(last=False)
        reset_s = math.ceil((self._most - left + 1) / self._per_s)
        return Left(math.floor(self._most), math.floor(left - 1), reset_s)


class Access:
    """Loop thread. per_s: requests of one key a second; twice as many at once."""

    def __init__(self, recognise: Recognise, *, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._recognise = recognise
        self._keys, self._strangers = Buckets(per_s, clock), Buckets(WRONG_PER_S, clock)

    async def admit(self, request: web.Request, scope: Scope) -> tuple[ApiKey, Left]:
        """Whose request it is, and what the key has left. Raises Unauthorized (no key that is good), NotAllowed (a key
        without the scope), TooMany.
        """
        address = address_of(request)
        if self._strangers.left(address) < 1:
            raise TooMany("too many wrong API keys from this address")
        key = await self._recognise(_key_of(request))
        if key is None:
            self._strangers.take(address)
            raise Unauthorized("this needs an API key that is good: `Authorization: Bearer sips_...`")
        left = self._keys.take(key.id)
        if left is None:
            raise TooMany("too many requests with this API key")
        if scope not in key.scopes:
            raise NotAllowed(f"the key {key.id} does not have the scope {scope}")
        return key, left


def _key_of(request: web.Request) -> str:
    scheme, _, given = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""
