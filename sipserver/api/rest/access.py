"""Who may ask the REST API for what: API keys, their scopes, and how often each may ask.

Owns what is asked of a key, and in which order. Refuses to know how a key is recognised (`tenants.key_book`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from sipserver.errors import NotAllowed, TooMany, Unauthorized
from sipserver.gate.buckets import Buckets
from sipserver.gate.requests import address_of, bearer_of
from sipserver.tenants.keys import ApiKey, Scope

Recognise = Callable[[str], Awaitable[ApiKey | None]]
WRONG_PER_S = 5.0
"""Wrong keys from one address; a burst of twice as many is borne."""


@dataclass(frozen=True, slots=True)
class Left:
    """What a key may still ask for. limit: per second; reset_s: until nothing is used."""

    limit: int
    remaining: int
    reset_s: int

    @classmethod
    def of(cls, buckets: Buckets, name: str) -> Left:
        left = buckets.left(name)
        return cls(math.floor(buckets.most), math.floor(left), math.ceil((buckets.most - left) / buckets.per_s))

    def headers(self) -> dict[str, str]:
        """As draft-ietf-httpapi-ratelimit-headers, in the form that is in use (version 05)."""
        return {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(self.reset_s),
        }


class Access:
    """Loop thread. per_s: requests of one key a second; twice as many at once."""

    def __init__(self, recognise: Recognise, *, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._recognise = recognise
        self._keys = Buckets(per_s, max(1.0, 2 * per_s), clock)
        self._strangers = Buckets(WRONG_PER_S, 2 * WRONG_PER_S, clock)

    async def admit(self, request: web.Request, scope: Scope, text: str | None = None) -> tuple[ApiKey, Left]:
        """Whose request it is, and what the key has left. text: the key, where it may come in another way than by
        `Authorization`. Raises Unauthorized (no key that is good), NotAllowed (a key without the scope), TooMany.
        """
        address = address_of(request)
        if self._strangers.left(address) < 1:
            raise TooMany("too many wrong API keys from this address")
        key = await self._recognise(bearer_of(request) if text is None else text)
        if key is None:
            self._strangers.take(address)
            raise Unauthorized("this needs an API key that is good: `Authorization: Bearer sips_...`")
        if not self._keys.take(key.id):
            raise TooMany("too many requests with this API key")
        if scope not in key.scopes:
            raise NotAllowed(f"the key {key.id} does not have the scope {scope}")
        return key, Left.of(self._keys, key.id)
