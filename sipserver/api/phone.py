"""`/phone`: a page from which a browser calls the server, and the tokens that its calls need.

Owns the page's files and headers, and who gets a token. Refuses to know how the sound travels: the page speaks WebRTC
or the plain voice WebSocket, which other rooms answer.
"""

from __future__ import annotations

import functools
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from sipserver.api.settings import HttpSettings
from sipserver.errors import BadPayload, NotAllowed, TooMany
from sipserver.gate.buckets import Buckets
from sipserver.gate.requests import address_of, public_url
from sipserver.gate.settings import GateSettings
from sipserver.gate.tokens import Claims, Tokens

FOLDER = Path(__file__).parent / "phone_page"
FILES: Mapping[str, tuple[str, str]] = {
    "/phone": ("index.html", "text/html"),
    "/phone/phone.js": ("phone.js", "text/javascript"),
    "/phone/parts.js": ("parts.js", "text/javascript"),
    "/phone/webrtc.js": ("webrtc.js", "text/javascript"),
    "/phone/voice.js": ("voice.js", "text/javascript"),
    "/phone/worklet.js": ("worklet.js", "text/javascript"),
    "/phone/phone.css": ("phone.css", "text/css"),
    "/phone/icon.svg": ("icon.svg", "image/svg+xml"),
}
CALLER = "browser"
"""As whom the page calls: `from` of its calls."""
TOKENS_PER_MINUTE = 30
"""From one address."""
MOST_USER = 128
"""Letters of a user."""


class Phone:
    """Loop thread. ice_servers: what a browser needs of them, as RTCIceServer (W3C). clock: monotonic seconds."""

    def __init__(
        self,
        settings: HttpSettings,
        gate: GateSettings,
        tokens: Tokens,
        *,
        ice_servers: Sequence[Mapping[str, Any]] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._gate, self._tokens = settings, gate, tokens
        self._ice_servers = [dict(server) for server in ice_servers]
        self._asking = Buckets(TOKENS_PER_MINUTE / 60, TOKENS_PER_MINUTE, clock)

    def routes(self) -> list[web.RouteDef]:
        """None when the page is switched off: its paths are unknown then."""
        if not self._settings.phone:
            return []
        return [
            *(web.get(path, self._file) for path in FILES),
            web.get("/phone/users", self._users),
            web.post("/phone/token", self._token),
        ]

    async def _file(self, request: web.Request) -> web.Response:
        name, kind = FILES[request.path]
        headers = {"Content-Security-Policy": _policy(request, self._gate), "Permissions-Policy": "microphone=(self)"}
        return web.Response(text=_text(name), content_type=kind, charset="utf-8", headers=headers)

    async def _users(self, _request: web.Request) -> web.Response:
        """Whom the page offers: the users that are named; free: others may be typed in."""
        users = self._settings.phone_users
        named = [user for user in users if not set(user) & set("*?[")]
        return web.json_response({"users": named, "free": len(named) < len(users)})

    async def _token(self, request: web.Request) -> web.Response:
        self._require_own_page(request)
        if not self._asking.take(address_of(request)):
            raise TooMany("too many calls from this address; wait a minute")
        to = await _user(request)
        if not any(fnmatchcase(to, pattern) for pattern in self._settings.phone_users):
            raise NotAllowed("the page may not call this user (http.phone_users)")
        call_id = str(uuid.uuid4())

        def token(use: Any) -> str:
            return self._tokens.issue(Claims(use=use, to=to, from_user=CALLER, call_id=call_id))

        return web.json_response(
            {
                "call_id": call_id,
                "token": token("webrtc"),
                "voice_token": token("voice"),
                "ice_servers": self._ice_servers,
            }
        )

    def _require_own_page(self, request: web.Request) -> None:
        """Only the page itself may ask: a page of somebody else could call in the name of whoever looks at it. Browsers
        tell by Sec-Fetch-Site (W3C Fetch Metadata) and by Origin; a request with neither comes from no page at all.
        """
        own = {request.host.lower(), urlsplit(self._gate.public_url).netloc.lower()} - {""}
        origin = request.headers.get(hdrs.ORIGIN)
        if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin" or (
            origin is not None and urlsplit(origin.lower()).netloc not in own
        ):
            raise NotAllowed("only the page /phone itself may ask for this")
        if request.content_type != "application/json":
            raise BadPayload("application/json is needed")


def _policy(request: web.Request, gate: GateSettings) -> str:
    """Everything of our own and nothing inline. Safari's `self` does not cover WebSockets: they are named."""
    sockets = public_url(request, gate, websocket=True)
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self' blob: mediastream:; "
        f"connect-src 'self' {sockets}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


async def _user(request: web.Request) -> str:
    try:
        body = await request.json()
    except ValueError:
        raise BadPayload("the body is no JSON") from None
    to = body.get("to") if isinstance(body, dict) else None
    if not isinstance(to, str) or not 0 < len(to) <= MOST_USER or not to.isprintable() or " " in to or "/" in to:
        raise BadPayload("`to` has to name a user")
    return to


@functools.cache
def _text(name: str) -> str:
    return (FOLDER / name).read_text("utf-8")
