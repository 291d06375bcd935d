"""What Vonage asks and tells us by HTTP: what to do with a call, answered in NCCO, and what becomes of calls.

Owns the check that it is Vonage who asks. Refuses to know streams, calls and NCCO: whoever has them says what is
answered. Source: Vonage, "Voice API webhooks" and "Signed webhooks".
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import jwt
from aiohttp import web

from sipserver.errors import NotFound
from sipserver.gate.gate import Gate
from sipserver.log import logger

OLDEST_S = 300
"""A signature that is older is not believed, nor is one from further than LEAD_S in the future."""
LEAD_S = 60
ABOUT = ("call", "refer")
"""The keys of the queries that we give Vonage for its events."""


@dataclass(frozen=True, slots=True)
class HookAccount:
    """signature_secret: signs Vonage's requests; empty: nothing of this account is believed."""

    name: str
    application_id: str
    signature_secret: str = field(repr=False)


class Calls(Protocol):
    """Who has the calls. base_url: how Vonage reaches us. What is returned is an NCCO."""

    def answer(self, account: str, base_url: str, fields: Mapping[str, str]) -> list[dict[str, Any]]: ...

    def event(
        self, account: str, base_url: str, about: Mapping[str, str], fields: Mapping[str, str]
    ) -> list[dict[str, Any]] | None: ...


class VonageHooks:
    """`routes`. Loop thread. clock: seconds since the epoch."""

    def __init__(
        self, accounts: Iterable[HookAccount], gate: Gate, calls: Calls, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._accounts = {account.name: account for account in accounts}
        self._gate, self._calls, self._clock = gate, calls, clock
        self._log = logger("webhooks")

    def routes(self) -> list[web.RouteDef]:
        if not self._accounts:
            return []
        path = "/webhooks/vonage/{account}"
        return [
            web.get(f"{path}/answer", self._answer),
            web.post(f"{path}/answer", self._answer),
            web.get(f"{path}/event", self._event),
            web.post(f"{path}/event", self._event),
        ]

    async def _answer(self, request: web.Request) -> web.Response:
        """A call has come to one of the application's numbers."""
        account, fields = await self._asked(request)
        return web.json_response(self._calls.answer(account.name, self._gate.public_url(request), fields))

    async def _event(self, request: web.Request) -> web.Response:
        account, fields = await self._asked(request)
        about = {name: request.query[name] for name in ABOUT if name in request.query}
        actions = self._calls.event(account.name, self._gate.public_url(request), about, fields)
        return web.Response(status=204) if actions is None else web.json_response(actions)

    async def _asked(self, request: web.Request) -> tuple[HookAccount, Mapping[str, str]]:
        """The account and the fields of a request that Vonage signed. Raises NotFound; 401, and not why."""
        account = self._accounts.get(request.match_info["account"])
        if account is None:
            raise NotFound("no such account")
        body = await request.read()
        if why := self._distrusted(request, account, body):
            self._log.warning(
                "a webhook without Vonage's signature", account=account.name, peer=request.remote, error=why
            )
            raise web.HTTPUnauthorized
        return account, _fields(request, body)

    def _distrusted(self, request: web.Request, account: HookAccount, body: bytes) -> str:
        """Why this is not from Vonage; empty: it is. A JWT (HS256 by the signature secret) says when it was signed
        (`iat`) and the SHA-256 of the body (`payload_hash`).
        """
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not account.signature_secret:
            return "no token, or no secret to check it with"
        try:
            claims = jwt.decode(
                token.strip(),
                account.signature_secret,
                algorithms=["HS256"],
                options={"verify_iat": False, "verify_aud": False, "require": ["iat"]},
            )
            age_s = self._clock() - float(claims["iat"])
        except (jwt.InvalidTokenError, TypeError, ValueError) as problem:
            return f"{type(problem).__name__}"
        if not -LEAD_S <= age_s <= OLDEST_S:
            return f"signed {age_s:.0f} s ago"
        if claims.get("application_id", account.application_id) != account.application_id:
            return "of another application"
        told = str(claims.get("payload_hash", ""))
        if (body or told) and not hmac.compare_digest(told.lower().encode(), hashlib.sha256(body).hexdigest().encode()):
            return "the body is not what was signed"
        return ""


def _fields(request: web.Request, body: bytes) -> Mapping[str, str]:
    """What the request says: a JSON object, or a query."""
    if not body:
        return {name: value for name, value in request.query.items() if name not in ABOUT}
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        raise web.HTTPBadRequest from None
    if not isinstance(said, dict):
        raise web.HTTPBadRequest
    return {str(name): value if isinstance(value, str) else json.dumps(value) for name, value in said.items()}
