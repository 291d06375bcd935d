"""Vonage's cloud in small: calls that follow NCCO, its REST API as a real HTTP server, its signed events.

Owns calls from the answer webhook to `completed`: it connects their WebSockets (`vonage`), calls numbers that answer as
`targets` says, and does what `PUT /v1/calls/{uuid}` and `POST /v1/calls` ask. Not owned: the rules on the WebSocket.
Source: developer.vonage.com, "Voice API reference", "NCCO reference".
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import jwt
from aiohttp import web

from tools.conformance.kit import PATIENCE_S
from tools.conformance.vonage import Endpoint, VonageStream, ask, connected

_FAILS = ("timeout", "failed", "rejected", "unanswered", "busy", "cancelled")


@dataclass(eq=False)
class CloudCall:
    """One caller, or one who was called. streams: its WebSockets, the last one is the present one."""

    uuid: str
    number: str
    event_url: str
    streams: list[VonageStream] = field(default_factory=list)
    digits: list[str] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    work: asyncio.Task[None] | None = None

    async def stream(self, number: int = 1) -> VonageStream:
        """Its nth WebSocket, once it is there."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.streams) < number:
                self.news.clear()
                await self.news.wait()
        return self.streams[number - 1]

    async def ended(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.over.wait()


class Cloud:
    """`async with cloud.running()`; `url` is then that of its API. Loop thread.

    targets: number or SIP URI -> the status with which it answers; others answer. public_key: of the application, which
    signs what it asks of the API. asked: (method, path, body) of all requests. released: those who are called answer
    only when it is set. refuses: an HTTP status for all requests; 0: none. stays: calls go on when their NCCO is over.
    """

    def __init__(self, application_id: str, secret: str, public_key: str) -> None:
        self._application_id, self._secret, self._public_key = application_id, secret, public_key
        self.targets: dict[str, str] = {}
        self.asked: list[tuple[str, str, Any]] = []
        self.refused: list[str] = []
        self.calls: dict[str, CloudCall] = {}
        self.released = asyncio.Event()
        self.released.set()
        self.refuses = 0
        self.stays = False
        self.event_url = ""
        self.url = ""
        self._client: aiohttp.ClientSession
        self._tasks: set[asyncio.Task[Any]] = set()

    @contextlib.asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator[Cloud]:
        app = web.Application()
        app.add_routes(
            [
                web.post("/v1/calls", self._create),
                web.put("/v1/calls/{uuid}", self._update),
                web.put("/v1/calls/{uuid}/dtmf", self._dtmf),
            ]
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            async with aiohttp.ClientSession() as self._client:
                try:
                    yield self
                finally:
                    while self._tasks:
                        for task in tuple(self._tasks):
                            task.cancel()
                        await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:
            await runner.cleanup()

    async def incoming(self, answer_url: str, to: str, from_number: str = "493098765432") -> CloudCall:
        """Somebody calls one of the application's numbers."""
        call = self._new(from_number, self.event_url)
        fields = {"to": to, "from": from_number, "uuid": call.uuid, "conversation_uuid": f"CON-{call.uuid}"}
        status, text = await ask(self._client, answer_url, self._application_id, self._secret, fields)
        assert status == 200, f"{status}: {text}"
        self._goes_on(call, json.loads(text))
        return call

    async def hang_up(self, call: CloudCall) -> None:
        """The person at the phone hangs up."""
        if call.work is not None:
            call.work.cancel()
            await asyncio.gather(call.work, return_exceptions=True)
        await self._complete(call)

    # --- NCCO ---------------------------------------------------------------------------------------------------------

    def _new(self, number: str, event_url: str) -> CloudCall:
        call = CloudCall(str(uuid.uuid4()), number, event_url)
        self.calls[call.uuid] = call
        return call

    def _goes_on(self, call: CloudCall, actions: Any) -> None:
        call.work = self._start(self._follow(call, actions))

    async def _follow(self, call: CloudCall, actions: Any) -> None:
        waiting = list(actions)
        while waiting:
            action = waiting.pop(0)
            assert action["action"] == "connect", action
            if action["endpoint"][0]["type"] == "websocket":
                await self._stream(call, Endpoint.parse([action]))
                continue
            instead = await self._reach(call, action)
            if instead is not None:
                waiting = instead
        if not self.stays:
            await self._complete(call)

    async def _stream(self, call: CloudCall, endpoint: Endpoint) -> None:
        async with connected(self._client, endpoint) as stream:
            call.streams.append(stream)
            call.news.set()
            await stream.ended(3600)

    async def _reach(self, call: CloudCall, action: Mapping[str, Any]) -> list[Any] | None:
        """Call somebody. What is to be done instead of the rest; None: nothing else."""
        endpoint, url = action["endpoint"][0], action["eventUrl"][0]
        to = str(endpoint.get("number") or endpoint.get("uri"))
        leg = {"uuid": str(uuid.uuid4()), "conversation_uuid": f"CON-{call.uuid}", "from": call.number, "to": to}
        for status in ("started", "ringing"):
            await self._tell(url, leg, status)
        await self.released.wait()
        status = self.targets.get(to, "answered")
        text = await self._tell(url, leg, status)
        if status in _FAILS:
            synchronous = action.get("eventType") == "synchronous"
            return json.loads(text) if synchronous and text else None
        await call.over.wait()  # they talk until somebody hangs up
        return None

    async def _complete(self, call: CloudCall, status: str = "completed") -> None:
        if not call.over.is_set():
            call.over.set()
            if call.event_url:
                await self._tell(call.event_url, {"uuid": call.uuid, "conversation_uuid": f"CON-{call.uuid}"}, status)

    async def _tell(self, url: str, leg: Mapping[str, str], status: str) -> str:
        fields = {**leg, "status": status, "direction": "outbound"}
        code, text = await ask(self._client, url, self._application_id, self._secret, fields)
        assert code in (200, 204), f"{status}: {code}: {text}"
        return text

    # --- REST ---------------------------------------------------------------------------------------------------------

    async def _create(self, request: web.Request) -> web.Response:
        body = await self._allowed(request)
        (to,) = body["to"]
        call = self._new(str(to.get("number") or to.get("uri")), body["event_url"][0])
        call.work = self._start(self._ring(call, body["ncco"]))
        return web.json_response(
            {
                "uuid": call.uuid,
                "status": "started",
                "direction": "outbound",
                "conversation_uuid": f"CON-{call.uuid}",
            },
            status=201,
        )

    async def _ring(self, call: CloudCall, actions: Any) -> None:
        leg = {"uuid": call.uuid, "conversation_uuid": f"CON-{call.uuid}"}
        for status in ("started", "ringing"):
            await self._tell(call.event_url, leg, status)
        await self.released.wait()
        status = self.targets.get(call.number, "answered")
        await self._tell(call.event_url, leg, status)
        if status == "answered":
            await self._follow(call, actions)
        else:
            await self._complete(call)

    async def _update(self, request: web.Request) -> web.Response:
        body = await self._allowed(request)
        call = self._found(request)
        if call.work is not None:
            call.work.cancel()
        if body["action"] == "hangup":
            self._start(self._complete(call))
        elif body["action"] == "transfer":
            self._goes_on(call, body["destination"]["ncco"])
        else:
            raise web.HTTPBadRequest
        return web.Response(status=204)

    async def _dtmf(self, request: web.Request) -> web.Response:
        body = await self._allowed(request)
        call = self._found(request)
        call.digits.append(body["digits"])
        call.news.set()
        return web.json_response({"message": "DTMF sent", "uuid": call.uuid})

    async def _allowed(self, request: web.Request) -> Any:
        body = await request.json()
        self.asked.append((request.method, request.path, body))
        try:
            token = request.headers["Authorization"].removeprefix("Bearer ")
            claims = jwt.decode(token, self._public_key, algorithms=["RS256"], options={"require": ["iat", "jti"]})
        except (KeyError, jwt.InvalidTokenError) as problem:
            self.refused.append(repr(problem))
            raise web.HTTPUnauthorized from None
        if claims.get("application_id") != self._application_id:
            self.refused.append("another application")
            raise web.HTTPUnauthorized
        if self.refuses:
            raise web.HTTPBadRequest if self.refuses < 500 else web.HTTPInternalServerError
        return body

    def _found(self, request: web.Request) -> CloudCall:
        call = self.calls.get(request.match_info["uuid"])
        if call is None or call.over.is_set():
            raise web.HTTPNotFound
        return call

    def _start(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(work, name="vonage call")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
