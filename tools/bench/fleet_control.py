"""The REST API and webhooks of a fleet beside its calls: how fast a call's state is told, how soon an ordered call's
INVITE is on the wire, and how soon a receiver hears of what happens.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import cast

import aiohttp
from aiohttp import web

from tests.harness.server import ROOT, free_port
from tools.bench.fleet_options import Options
from tools.bench.load import run, sound
from tools.bench.load.sipp import Sipp
from tools.bench.load.target import FleetTarget
from tools.bench.report import Figures, Finding, Row, percentile, progress

CALLS, RATE = 50, 25.0
ASKED_PER_S, SECONDS = 200, 20
PLACED, PLACED_PER_S = 200, 10
LAST_S = 10.0
_COPIED = ("via:", "from:", "to:", "call-id:", "cseq:")
PLAN = """
tenant: bench
targets: ["*"]
flows:
  echo: [answer, echo]
  placed: [hangup]
routes:
  - match: {direction: outbound}
    flow: placed
  - match: {to: echo}
    flow: echo
"""


@dataclass
class Times:
    """Milliseconds. late: how far behind its own pace the asker was: above a few, the figures are the generator's."""

    status: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    invite: list[float] = field(default_factory=list)
    webhook: list[float] = field(default_factory=list)
    refused: int = 0

    def as_figures(self) -> Figures:
        named = (("status", self.status), ("late", self.late), ("invite", self.invite), ("webhook", self.webhook))
        spread = {name: {"p50_ms": median(each), "p99_ms": percentile(each, 0.99)} for name, each in named if each}
        return {**spread, "refused": self.refused}


def measure(folder: Path, options: Options) -> Finding:
    times = Times()
    port = free_port()
    pbx = {"name": "pbx", "host": f"127.0.0.1:{port}", "number_format": "as_is", "sources": ["127.0.0.1/32"]}
    overrides = {"trunks": [pbx], "http": {"api_per_s": 10_000}, "webhooks": {"allow_private": True}}
    with (
        progress("control plane", 1) as begin,
        options.fleet(folder, PLAN, CALLS + 10, overrides) as target,
    ):
        key = _key(target)
        begin(f"{CALLS} calls, {ASKED_PER_S} questions a second")

        def meanwhile(_sipp: Sipp) -> None:
            asyncio.run(_ask_all(target, key, port, times))

        load = run.Load("echo", CALLS, RATE, SECONDS + PLACED / PLACED_PER_S + 5, pattern=sound.clicks())
        seen = run.run(target, folder / "load", load, meanwhile)
    how = f"beside {CALLS} calls, {seen.calls.failed} of them failed"
    rows = [
        Row(
            f"a call's status by REST, {ASKED_PER_S} questions a second",
            _spread(times.status),
            "p99 <= 10 ms",
            f"{how}; {times.refused} refused; asker late by p99 {percentile(times.late, 0.99):.1f} ms",
        ),
        Row(
            "order by REST to INVITE on the wire",
            _spread(times.invite),
            "p99 <= 50 ms",
            f"{how}; {PLACED_PER_S} a second",
        ),
        Row("event of a call to a local webhook receiver", _spread(times.webhook), "p99 <= 100 ms", how),
    ]
    return Finding(rows, [], {}, times.as_figures())


async def _ask_all(target: FleetTarget, key: str, port: int, times: Times) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    base = f"http://127.0.0.1:{target.fleet.http_port}"
    async with (
        aiohttp.ClientSession(base, headers=headers, connector=aiohttp.TCPConnector(limit=0)) as client,
        _receiver(times) as url,
    ):
        await _statuses(client, times)
        async with client.post("/api/v1/webhooks", json={"url": url, "kinds": ["call.*"]}) as answer:
            assert answer.status == 201, await answer.text()
        await _orders(client, port, times)


async def _statuses(client: aiohttp.ClientSession, times: Times) -> None:
    async with client.get("/api/v1/calls", params={"open": "true", "limit": str(CALLS)}) as answer:
        ids = [call["id"] for call in (await answer.json())["calls"]]
    assert ids, "no call is in the records"

    async def ask(call_id: str) -> None:
        began_s = time.perf_counter()
        async with client.get(f"/api/v1/calls/{call_id}/status") as answer:
            await answer.read()
            times.refused += answer.status != 200
        times.status.append((time.perf_counter() - began_s) * 1000)

    await _paced(ASKED_PER_S, ASKED_PER_S * SECONDS, lambda number: ask(ids[number % len(ids)]), times.late)


async def _orders(client: aiohttp.ClientSession, port: int, times: Times) -> None:
    began: dict[str, float] = {}
    over = asyncio.Event()

    def called(user: str, at_s: float) -> None:
        if user in began:
            times.invite.append((at_s - began.pop(user)) * 1000)
        if len(times.invite) == PLACED:
            over.set()

    async def place(number: int) -> None:
        user = f"49{number:06}"
        began[user] = time.perf_counter()
        async with client.post("/api/v1/calls/create", json={"to": user, "trunk": "pbx"}) as answer:
            times.refused += answer.status != 201

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Busy(called), ("127.0.0.1", port))
    try:
        await _paced(PLACED_PER_S, PLACED, place, [])
        await asyncio.wait_for(over.wait(), LAST_S)
        await asyncio.sleep(1)  # the last calls' last events
    finally:
        transport.close()


class _Busy(asyncio.DatagramProtocol):
    """A telephone that is always busy, and says at once who was called."""

    def __init__(self, called: Callable[[str, float], None]) -> None:
        self._called = called
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        now = time.perf_counter()
        text = data.decode()
        if not text.startswith("INVITE "):
            return
        kept = [line for line in text.split("\r\n") if line.lower().startswith(_COPIED)]
        lines = [f"{line};tag=busy" if line.lower().startswith("to:") else line for line in kept]
        answer = "\r\n".join(["SIP/2.0 486 Busy Here", *lines, "Content-Length: 0", "", ""])
        self._transport.sendto(answer.encode(), addr)
        self._called(text.partition("sip:")[2].partition("@")[0], now)


async def _paced(per_s: int, count: int, do: Callable[[int], Awaitable[None]], late: list[float]) -> None:
    began_s = time.perf_counter()
    tasks = []
    for number in range(count):
        due_s = began_s + number / per_s
        await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
        late.append((time.perf_counter() - due_s) * 1000)
        tasks.append(asyncio.ensure_future(do(number)))
    await asyncio.gather(*tasks)


@asynccontextmanager
async def _receiver(times: Times) -> AsyncIterator[str]:
    async def hear(request: web.Request) -> web.Response:
        told = await request.json()
        happened = datetime.fromisoformat(told["timestamp"])
        times.webhook.append(time.time() * 1000 - happened.timestamp() * 1000)
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/hear", hear)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hear"
    finally:
        await runner.cleanup()


def _key(target: FleetTarget) -> str:
    command = [sys.executable, "-m", "sipserver", "keys", "create", "--tenant", "bench", "--name", "bench"]
    command += ["--config", str(target.fleet.settings_file)]
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=True).stdout.strip().splitlines()[-1]


def _spread(times: list[float]) -> str:
    if not times:
        return "nothing was measured"
    return f"p50 {median(times):.1f} ms, p99 {percentile(times, 0.99):.1f} ms (n={len(times)})"
