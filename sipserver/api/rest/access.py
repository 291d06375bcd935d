"""Who may ask the REST API for what: programs with API keys, people with sessions, and how often each may ask.

Owns what is asked of whoever asks, and in which order; and that a page of somebody else's cannot use a session
(cross-site request forgery). Refuses to know how keys and sessions are recognised (`tenants`).
"""

from __future__ import annotations

import enum
import hmac
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import hdrs, web

from sipserver.api.rest.cookies import Cookies
from sipserver.api.rest.problems import RATE
from sipserver.errors import NotAllowed, TooMany, Unauthorized
from sipserver.gate.buckets import Buckets
from sipserver.gate.requests import address_of, bearer_of, is_own_page
from sipserver.tenants import principal
from sipserver.tenants.keys import ApiKey, Scope
from sipserver.tenants.principal import Principal
from sipserver.tenants.users import Session, User

Recognise = Callable[[str], Awaitable[ApiKey | None]]
Welcome = Callable[[str], Awaitable[tuple[Session, User] | None]]
OfTenant = Callable[[str], Awaitable[None]]
WRONG_PER_S = 5.0
"""Wrong keys from one address; a burst of twice as many is borne."""
CSRF_HEADER = "X-CSRF-Token"
_SAFE = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})


class Who(enum.Enum):
    """What an operation asks for instead of a scope, as its document tells it."""

    ANYBODY = "Needs neither a key nor a session."
    KNOWN = "Needs a key or a session, of any kind."
    PERSON = "Needs a session: it is for people."


@dataclass(frozen=True, slots=True)
class Left:
    """What somebody may still ask for. limit: per second; reset_s: until nothing is used."""

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


async def no_sessions(_token: str) -> None:
    """Where only programs come."""


class Access:
    """Loop thread. per_s: requests of one key or user a second; twice as many at once. of_tenant: counts those of all
    that are of a tenant; raises TooMany.
    """

    def __init__(
        self,
        recognise: Recognise,
        *,
        per_s: float,
        welcome: Welcome = no_sessions,
        cookies: Cookies | None = None,
        clock: Callable[[], float] = time.monotonic,
        of_tenant: OfTenant | None = None,
    ) -> None:
        self._recognise, self._welcome, self._cookies = recognise, welcome, cookies or Cookies()
        self._of_tenant = of_tenant
        self._known = Buckets(per_s, max(1.0, 2 * per_s), clock)
        self._strangers = Buckets(WRONG_PER_S, 2 * WRONG_PER_S, clock)

    async def admit(self, request: web.Request, needs: Scope | Who, text: str | None = None) -> Principal:
        """Who asks; the request has RATE from then on, also if that is refused. text: a key, where it may come in
        another way than by `Authorization`. Raises Unauthorized (neither a key nor a session that is good), NotAllowed
        (without the scope, or out of a page that is not ours), TooMany.
        """
        if needs is Who.ANYBODY:
            return principal.NOBODY
        address = address_of(request)
        if self._strangers.left(address) < 1:
            raise TooMany("too many wrong API keys from this address")
        who = await self._who(request) if text is None else await self._of_key(text)
        if who is None:
            self._strangers.take(address)
            raise Unauthorized("this needs an API key that is good, `Authorization: Bearer sips_...`, or a session")
        allowed = self._known.take(who.id)
        request[RATE] = Left.of(self._known, who.id).headers()
        if not allowed:
            raise TooMany(f"too many requests of {who.called}")
        if self._of_tenant is not None:
            await self._of_tenant(who.tenant)
        if who.session is not None and request.method not in _SAFE:
            self._check_page(request, who.session)
        if isinstance(needs, Scope) and needs not in who.scopes:
            raise NotAllowed(f"{who.called} does not have the scope {needs}")
        if needs is Who.PERSON and who.session is None:
            raise NotAllowed("this is for people who are logged in, not for API keys")
        return who

    async def _who(self, request: web.Request) -> Principal | None:
        """A key that is given counts alone, also when it is wrong: a browser sends its cookie along unasked."""
        if hdrs.AUTHORIZATION in request.headers:
            return await self._of_key(bearer_of(request))
        found = await self._welcome(self._cookies.session(request))
        return None if found is None else principal.of_user(found[1], found[0])

    async def _of_key(self, text: str) -> Principal | None:
        key = await self._recognise(text)
        return None if key is None else principal.of_key(key)

    def _check_page(self, request: web.Request, session: Session) -> None:
        if not is_own_page(request, self._cookies.gate):
            raise NotAllowed("pages of another origin may not do this")
        given = request.headers.get(CSRF_HEADER, "")
        if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), session.csrf.encode()):
            raise NotAllowed(f"this needs the header {CSRF_HEADER} with the `csrf` that /me tells")
