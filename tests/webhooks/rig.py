"""What tests of outgoing webhooks need: a clock, a receiver without sockets, and one with them."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook

from sipserver.webhooks.notices import Notice
from sipserver.webhooks.sender import Answer

URL = "https://hooks.example.com/in"


class Clock:
    """Passes only when it is told to."""

    def __init__(self, now: datetime = datetime(2026, 11, 28, 12, tzinfo=UTC)) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def passes(self, seconds: float = 0, **units: float) -> None:
        self.now += timedelta(seconds=seconds, **units)


def event(call_id: str, seq: int, kind: str = "call.state", *, tenant: str = "acme", **fields: Any) -> Notice:
    at = datetime(2026, 11, 28, 11, 59, seq % 60, tzinfo=UTC)
    return Notice(tenant, kind, at, fields, call_id=call_id, seq=seq, at_ms=seq * 20)


@dataclass(frozen=True)
class Got:
    """One request."""

    url: str
    id: str
    headers: Mapping[str, str]
    payload: str

    @property
    def told(self) -> dict[str, Any]:
        return dict(json.loads(self.payload))

    @property
    def call_id(self) -> str:
        return str(self.told["data"]["call_id"])

    @property
    def seq(self) -> int:
        return int(self.told["data"]["seq"])


Behaviour = Callable[[Got], Answer]


def ok(_got: Got) -> Answer:
    return Answer(200, 3, body="thank you")


def status(code: int, **headers: str) -> Behaviour:
    return lambda _got: Answer(code, 3, body="no", headers={name.replace("_", "-"): headers[name] for name in headers})


def away(_got: Got) -> Answer:
    return Answer(None, 5, "ClientConnectorError: refused")


def _open() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate


@dataclass
class Receivers:
    """A `Post`: answers as `behave` does while `gate` is open. most: requests at a time so far."""

    behave: Behaviour = ok
    got: list[Got] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=_open)
    running: int = 0
    most: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, url: str, payload: bytes, headers: Mapping[str, str]) -> Answer:
        got = Got(url, headers["webhook-id"], headers, payload.decode())
        self.got.append(got)
        self.running += 1
        self.most = max(self.most, self.running)
        self.arrived.set()
        try:
            await asyncio.sleep(0)
            await self.gate.wait()
            return self.behave(got)
        finally:
            self.running -= 1

    def seqs(self) -> dict[str, list[int]]:
        """By call, in the order in which they came."""
        found: dict[str, list[int]] = defaultdict(list)
        for got in self.got:
            found[got.call_id].append(got.seq)
        return dict(found)


class Site:
    """A receiver as a customer has it: a real server that refuses what is not signed. statuses: of the next answers;
    200 when there is none left.
    """

    def __init__(self) -> None:
        self.secret = ""
        self.got: list[Got] = []
        self.statuses: list[int] = []
        self.url = ""
        self.held = asyncio.Event()
        self._go = asyncio.Event()
        self._go.set()
        self._hold_from = 0

    def hold_from(self, count: int) -> None:
        """From this request on nothing is answered until `let_go`; `held` tells when it has come."""
        self._hold_from = count
        self._go.clear()

    def let_go(self) -> None:
        self._go.set()

    async def _receive(self, request: web.Request) -> web.Response:
        payload = (await request.read()).decode()
        Webhook(self.secret).verify(payload, dict(request.headers))  # raises: 500
        self.got.append(Got(str(request.url), request.headers["webhook-id"], dict(request.headers), payload))
        if len(self.got) >= self._hold_from and not self._go.is_set():
            self.held.set()
            await self._go.wait()
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200, text="received")

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Site]:
        app = web.Application()
        app.add_routes([web.post("/in", self._receive)])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/in"
        try:
            yield self
        finally:
            await runner.cleanup()
