"""Tokens: what lets somebody in, signed by us, and for one purpose each.

A token is a JWT (RFC 7519, HS256) by PyJWT. Owns the secret, the claims and the moment at which one that is good for
one use only has been used. Refuses to know who gives tokens to whom.
"""

from __future__ import annotations

import os
import secrets
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import jwt

from sipserver.errors import NotAllowed
from sipserver.gate.settings import GateSettings

Use = Literal["twilio", "vonage", "voice", "webrtc", "events", "phone"]
"""What a token is good for: a stream of Twilio or Vonage, a plain voice WebSocket, a call from a browser, the events of
a tenant, or to ask for further tokens from the phone page."""

_LEAST_SECRET = 32
_ALGORITHM = "HS256"


class BadToken(NotAllowed):
    """There is none, or it is none of ours, over, or used: nothing is known of who shows it."""


class Once(Protocol):
    """Who remembers what has been used, for all processes that take the same tokens."""

    async def first(self, key: str, within_s: float) -> bool:
        """True for the first one that asks for this key within within_s; False for all others, and when nobody can
        know.
        """
        ...


@dataclass(frozen=True, slots=True)
class Claims:
    """use: the purpose. to: the dialplan user or number that it may call; from_user: as whom. tenant: whose it is;
    empty: the route decides. trunk: the account by which the call comes. once: it is good for one use. call_id: the
    call that it belongs to, if that is known. variables: start values of the dialplan's variables. serial: its own id.
    """

    use: Use
    to: str = ""
    from_user: str = ""
    tenant: str = ""
    trunk: str = ""
    call_id: str = ""
    once: bool = True
    variables: Mapping[str, str] = field(default_factory=dict)
    serial: str = ""
    ends_s: float = field(default=0.0, compare=False)
    """When one that was read is over, in seconds since the epoch."""


class Tokens:
    """Any thread for `issue`; `claim` on the loop. Raises ValueError for a secret that is too short.

    secret: at least 32 bytes. once: who remembers used ones. clock: seconds since the epoch.
    """

    def __init__(
        self, secret: bytes, once: Once, *, lives_s: float = 120.0, clock: Callable[[], float] = time.time
    ) -> None:
        if len(secret) < _LEAST_SECRET:
            raise ValueError(f"the secret of tokens has {len(secret)} bytes; at least {_LEAST_SECRET} are needed")
        self._secret, self._once, self._lives_s, self._clock = secret, once, lives_s, clock

    def issue(self, claims: Claims, lives_s: float | None = None) -> str:
        """A new token: letters, digits, `-`, `_` and `.`, some 200 characters."""
        now_s = self._clock()
        body: dict[str, Any] = {
            "use": claims.use,
            "jti": claims.serial or uuid.uuid4().hex,
            "iat": int(now_s),
            "exp": int(now_s + (self._lives_s if lives_s is None else lives_s)),
        }
        for name in ("to", "from_user", "tenant", "trunk", "call_id"):
            if value := getattr(claims, name):
                body[name] = value
        if not claims.once:
            body["once"] = False
        if claims.variables:
            body["variables"] = dict(claims.variables)
        return jwt.encode(body, self._secret, algorithm=_ALGORITHM)

    def read(self, token: str, use: Use) -> Claims:
        """What a token says, without using it up. Raises BadToken; NotAllowed: it is for something else."""
        if not token:
            raise BadToken("a token is needed")
        try:
            body = jwt.decode(
                token,
                self._secret,
                algorithms=[_ALGORITHM],
                options={"verify_exp": False, "verify_iat": False, "require": ["exp", "iat", "jti"]},
            )
        except jwt.InvalidTokenError as problem:
            raise BadToken(f"the token is none of ours: {problem}") from problem
        if float(body["exp"]) <= self._clock():
            raise BadToken("the token is over")
        if body.get("use") != use:
            raise NotAllowed(f"the token is not for this: it is for {body.get('use')}, {use} is needed")
        return Claims(
            use=use,
            to=str(body.get("to", "")),
            from_user=str(body.get("from_user", "")),
            tenant=str(body.get("tenant", "")),
            trunk=str(body.get("trunk", "")),
            call_id=str(body.get("call_id", "")),
            once=body.get("once") is not False,
            variables={str(name): str(value) for name, value in dict(body.get("variables") or {}).items()},
            serial=str(body["jti"]),
            ends_s=float(body["exp"]),
        )

    async def claim(self, token: str, use: Use) -> Claims:
        """As `read`; one that is good for one use is used up. Raises BadToken also when it has been used."""
        claims = self.read(token, use)
        if claims.once and not await self._once.first(f"token/{claims.serial}", max(1.0, self.left_s(claims) + 1)):
            raise BadToken("the token has been used")
        return claims

    def left_s(self, claims: Claims) -> float:
        """For how long a token that was read is good still."""
        return claims.ends_s - self._clock()


def secret_of(settings: GateSettings) -> bytes:
    """What signs tokens: of the environment, or one that dies with this process."""
    return os.environ.get(settings.secret_env, "").encode() or secrets.token_bytes(32)
