"""Calls from browsers by HTTP: an offer in, an answer out, as WHIP does it (RFC 9725).

Owns the sessions: how long ICE may take, what becomes of a path that breaks, when all is over. Refuses to know calls: a
leg is handed over when its path is there, not earlier.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable
from typing import Protocol

from aiohttp import hdrs, web

from sipserver.audio.clock import LegClock
from sipserver.errors import CallerError, CapacityError, Draining, NotAllowed, NotFound
from sipserver.gate.gate import Gate
from sipserver.gate.requests import address_of
from sipserver.gate.tokens import Claims
from sipserver.log import logger
from sipserver.webrtc.leg import BrowserLeg, BrowserOffer
from sipserver.webrtc.peer import Peer
from sipserver.webrtc.settings import WebRtcSettings

MOST_SDP = 32_768
"""Bytes; Chromium's offer for sound and a channel has 3,000."""
SDP = "application/sdp"
_EXPOSED = "ETag, Link, Location"


class Accept(Protocol):
    """Who makes calls of legs."""

    def __call__(self, leg: BrowserLeg, claims: Claims) -> None: ...


class Session:
    """One browser, one leg, one connection after the other. Loop thread."""

    def __init__(
        self,
        settings: WebRtcSettings,
        offer: BrowserOffer,
        claims: Claims,
        clock: LegClock,
        accept: Accept,
        on_over: Callable[[Session], object],
    ) -> None:
        self.id, self.etag = offer.sip_call_id, ""
        self._settings, self._offer, self._claims = settings, offer, claims
        self._clock, self._accept, self._on_over = clock, accept, on_over
        self._leg: BrowserLeg | None = None
        self._peer: Peer | None = None
        self._next: Peer | None = None
        self._limit: asyncio.TimerHandle | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = False
        self._log = logger("webrtc").bind(session=self.id[:8])

    async def answer(self, sdp: str) -> str:
        """An answer to a first offer, or to that of an ICE restart. Raises what `Peer.answer` raises, and NotFound when
        the session ends, or another restart takes this one's place, before the answer is there.
        """
        peer = Peer(self._settings)
        before, self._next = self._next, peer
        if before is not None:
            self._later(before.close())
        peer.on_state = lambda state: self._changed(peer, state)
        peer.on_packet = lambda *packet: self._heard(peer, *packet)
        peer.on_text = lambda text: self._told(peer, text)
        peer.on_channel = lambda: self._opened(peer)
        try:
            answer = await peer.answer(sdp)
        except BaseException as problem:
            overtaken = self._next is not peer or self._over
            if self._next is peer:
                self._next = None
            await peer.close()
            if overtaken and isinstance(problem, Exception):
                raise NotFound("the session went on without this offer") from problem
            raise
        if self._next is not peer or self._over:
            await peer.close()
            raise NotFound("the session went on without this offer")
        self.etag = f'"{secrets.token_hex(8)}"'
        if self._leg is None:
            self._arm(self._settings.ice_s, f"no path to the browser within {self._settings.ice_s:g} s")
        else:
            if self._patience is not None:
                self._patience.cancel()
            self._patience = asyncio.get_running_loop().call_later(self._settings.restart_s, self._abandon, peer)
        return answer

    def end(self, cause: str, *, by_peer: bool) -> None:
        """Idempotent."""
        if self._leg is not None:
            self._leg.gone(0, cause, by_peer=by_peer)
        else:
            self._finish(cause)

    async def closed(self) -> None:
        """Wait until the connections are closed."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _changed(self, peer: Peer, state: str) -> None:
        self._log.debug("a path changed", state=state)
        if state == "connected" and peer is self._next:
            self._connected(peer)
        elif state == "failed" and self._leg is not None and peer is self._next:
            self._abandon(peer)
        elif state in ("failed", "closed") and peer is self._peer and self._leg is not None:
            self._peer = None
            self._later(peer.close())
            self._leg.dropped(state)
            if self._next is None or self._limit is None:
                self._arm(self._settings.restart_s, "the browser is gone")

    def _connected(self, peer: Peer) -> None:
        if self._over:
            return
        self._disarm()
        before, self._peer, self._next = self._peer, peer, None
        if before is not None:
            self._later(before.close())
        if self._leg is not None:
            self._leg.use(peer)
            return
        leg = self._leg = BrowserLeg(
            self._offer,
            self._settings.bit_rates,
            lambda: self._finish("the call is over"),
            self._clock,
            stalled_s=2.0,
        )
        leg.use(peer)
        try:
            self._accept(leg, self._claims)
        except Exception:
            self._log.exception("a browser's call was not taken")
            leg.gone(500, "not taken", by_peer=False)

    def _abandon(self, peer: Peer) -> None:
        """A restart that leads nowhere; the path that there was goes on."""
        if peer is self._next:
            self._next = None
            self._later(peer.close())

    def _heard(self, peer: Peer, sequence: int, timestamp: int, payload: bytes) -> None:
        if peer is self._peer and self._leg is not None:
            self._leg.heard(sequence, timestamp, payload)

    def _told(self, peer: Peer, text: str) -> None:
        if peer is self._peer and self._leg is not None:
            self._leg.told(text)

    def _opened(self, peer: Peer) -> None:
        if peer is self._peer and self._leg is not None:
            self._leg.opened()

    def _finish(self, cause: str) -> None:
        if self._over:
            return
        self._over = True
        self._disarm()
        if self._patience is not None:
            self._patience.cancel()
        self._log.info("a browser's session is over", cause=cause)
        if self._peer is not None:
            self._later(self._peer.close(() if self._leg is None else self._leg.unshown))
        if self._next is not None:
            self._later(self._next.close())
        self._on_over(self)

    def _arm(self, after_s: float, cause: str) -> None:
        self._disarm()
        self._limit = asyncio.get_running_loop().call_later(after_s, lambda: self.end(cause, by_peer=True))

    def _disarm(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None

    def _later(self, closing: object) -> None:
        task: asyncio.Task[None] = asyncio.create_task(closing, name="close webrtc")  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class WebRtcServer:
    """`routes`, `close`. Loop thread. accept: takes a leg when the path to its browser is there. home: put into
    addresses of sessions, so that requests come to the process that has them (`fleet.relay`).
    """

    def __init__(
        self,
        settings: WebRtcSettings,
        gate: Gate,
        accept: Accept,
        room: Callable[[], bool] = lambda: True,
        *,
        home: str = "",
    ) -> None:
        self._settings, self._gate, self._accept, self._room = settings, gate, accept, room
        self._home = home
        self._clock = LegClock()
        self._sessions: dict[str, Session] = {}
        self._ending: set[Session] = set()
        self._beginning = 0
        self._shut = False

    @property
    def sessions(self) -> int:
        return len(self._sessions)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/webrtc/ice", self._ice),
            web.patch("/webrtc/sessions/{id}", self._change),
            web.delete("/webrtc/sessions/{id}", self._delete),
            web.options("/webrtc/sessions/{id}", self._preflight),
            web.post("/webrtc/{to}", self._begin),
            web.options("/webrtc/{to}", self._preflight),
        ]

    async def close(self) -> None:
        """End all sessions; none begins any more."""
        self._shut = True
        for session in list(self._sessions.values()):
            session.end("the server is shutting down", by_peer=False)
        await asyncio.gather(*(session.closed() for session in list(self._ending)))

    def ice_servers(self) -> list[dict[str, object]]:
        """As RTCConfiguration.iceServers wants them."""
        servers: list[dict[str, object]] = []
        for server in self._settings.ice_servers:
            entry: dict[str, object] = {"urls": list(server.urls)}
            if server.username:
                entry["username"] = server.username
                entry["credential"] = os.environ.get(server.password_env, "")
            servers.append(entry)
        return servers

    async def _begin(self, request: web.Request) -> web.Response:
        origin = self._allowed(request)
        token = self._gate.token_of(request)
        claims = self._gate.tokens.read(token, "webrtc")
        to_user = request.match_info["to"]
        if claims.to not in ("", to_user):
            raise NotAllowed("the token is for somebody else")
        sdp = await _sdp(request)
        if self._is_full():
            raise CapacityError("no room for one more call from a browser")
        claims = await self._gate.tokens.claim(token, "webrtc")
        offer = BrowserOffer(
            to_user=to_user,
            from_user=claims.from_user or "anonymous",
            source=address_of(request),
            sip_call_id=secrets.token_urlsafe(24),
            trunk=claims.trunk,
            variables=claims.variables,
            call_id=claims.call_id,
            tenant=claims.tenant,
        )
        session = Session(self._settings, offer, claims, self._clock, self._accept, self._forget)
        self._beginning += 1
        try:
            answer = await session.answer(sdp)
        finally:
            self._beginning -= 1
        self._sessions[session.id] = session
        if self._shut:
            session.end("the server is shutting down", by_peer=False)
            await session.closed()
            raise Draining("the server is shutting down")
        headers = {
            hdrs.LOCATION: f"/webrtc/sessions/{session.id}{self._home}",
            hdrs.ETAG: session.etag,
            **_cors(origin),
        }
        response = web.Response(status=201, text=answer, content_type=SDP, headers=headers)
        for link in self._links():
            response.headers.add(hdrs.LINK, link)
        return response

    async def _change(self, request: web.Request) -> web.Response:
        """An ICE restart: a whole new offer, of the same or of a new RTCPeerConnection."""
        origin = self._allowed(request)
        session = self._session(request)
        if request.content_type != SDP:
            allowed = {"Accept-Patch": SDP, **_cors(origin)}
            return web.Response(status=405, text="send a whole offer; nothing is trickled here", headers=allowed)
        wanted = request.headers.get(hdrs.IF_MATCH, "*")
        if wanted not in ("*", session.etag):
            return web.Response(status=412, text="another restart came first", headers=_cors(origin))
        answer = await session.answer(await _sdp(request))
        return web.Response(text=answer, content_type=SDP, headers={hdrs.ETAG: session.etag, **_cors(origin)})

    async def _delete(self, request: web.Request) -> web.Response:
        origin = self._allowed(request)
        self._session(request).end("hung up", by_peer=True)
        return web.Response(headers=_cors(origin))

    async def _ice(self, request: web.Request) -> web.Response:
        """For whoever has a token: it is not used up."""
        origin = self._allowed(request)
        self._gate.tokens.read(self._gate.token_of(request), "webrtc")
        body = {"iceServers": self.ice_servers(), "ice_s": self._settings.ice_s}
        return web.json_response(body, headers=_cors(origin))

    async def _preflight(self, request: web.Request) -> web.Response:
        headers = {
            "Access-Control-Allow-Methods": "POST, PATCH, DELETE",
            "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match",
            "Accept-Post": SDP,
            **_cors(self._allowed(request)),
        }
        return web.Response(status=204, headers=headers)

    def _is_full(self) -> bool:
        return self._shut or not self._room() or len(self._sessions) + self._beginning >= self._settings.calls

    def _allowed(self, request: web.Request) -> str:
        if not self._gate.is_ours(request):
            raise NotAllowed("pages of this origin may not call here")
        return request.headers.get(hdrs.ORIGIN, "")

    def _session(self, request: web.Request) -> Session:
        session = self._sessions.get(request.match_info["id"].partition("@")[0])
        if session is None:
            raise NotFound("no such session")
        return session

    def _links(self) -> list[str]:
        """RFC 9725, 4.6."""
        links = []
        for server in self.ice_servers():
            for url in server["urls"]:  # type: ignore[attr-defined]
                link = f'<{url}>; rel="ice-server"'
                if "username" in server:
                    name, credential = server["username"], server["credential"]
                    link += f'; username="{name}"; credential="{credential}"; credential-type="password"'
                links.append(link)
        return links

    def _forget(self, session: Session) -> None:
        self._sessions.pop(session.id, None)
        self._ending.add(session)
        task = asyncio.create_task(session.closed(), name="webrtc session")
        task.add_done_callback(lambda _: self._ending.discard(session))


async def _sdp(request: web.Request) -> str:
    """Raises CallerError for what is no SDP, 413 and 415."""
    if request.content_type != SDP:
        raise web.HTTPUnsupportedMediaType(reason=f"an offer is {SDP}")
    if (request.content_length or 0) > MOST_SDP:
        raise web.HTTPRequestEntityTooLarge(max_size=MOST_SDP, actual_size=request.content_length or 0)
    payload = await request.read()
    if len(payload) > MOST_SDP:
        raise web.HTTPRequestEntityTooLarge(max_size=MOST_SDP, actual_size=len(payload))
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        raise CallerError("the offer is no text") from None
    if not text.startswith("v=0"):
        raise CallerError("the offer is no SDP")
    return text


def _cors(origin: str) -> dict[str, str]:
    if not origin:
        return {}
    return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": _EXPOSED, "Vary": "Origin"}
