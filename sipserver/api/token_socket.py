"""The token that opens a WebSocket of events: whose it is, and that the WebSocket ends with it.

Refuses to know what is sent (`event_socket`, `live.socket`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from aiohttp import web

from sipserver.errors import NotAllowed, Unauthorized
from sipserver.gate.close_codes import Close
from sipserver.gate.connection import Connection
from sipserver.gate.gate import Gate
from sipserver.gate.tokens import BadToken, Claims, Tokens

FOLLOWED = "events.followed"
"""What the audit log calls it, for keys as well."""


async def claimed(gate: Gate, request: web.Request, tenant: str) -> Claims:
    """What a request's token says. Raises Unauthorized for none that is good, NotAllowed for one of another tenant or
    for something else.
    """
    token = gate.token_of(request)
    try:
        if gate.tokens.read(token, "events").tenant != tenant:
            raise NotAllowed("the token is for another tenant")
        return await gate.tokens.claim(token, "events")
    except BadToken as problem:
        raise Unauthorized(f"this needs an API key or a token that is good: {problem}") from None


@contextlib.contextmanager
def until_over(tokens: Tokens, claims: Claims, connection: Connection) -> Iterator[None]:
    """For the length of a `with` block the connection is closed as soon as the token is over."""
    left_s = max(0.0, tokens.left_s(claims))
    ending = asyncio.get_running_loop().call_later(left_s, connection.close_soon, Close.KEY_OVER, "the token is over")
    try:
        yield
    finally:
        ending.cancel()
