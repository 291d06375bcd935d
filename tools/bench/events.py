"""Events by WebSocket with an API key: how soon a client has them, and what a thousand clients cost.

A client's latency is from the `timestamp` of an event, when the call told it, to the moment at which the client has
read it; both by the clock of this machine. Calls begin and end one after the other meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
from typer.testing import CliRunner

from sipserver.cli import keys
from tests.harness.phone import Phone
from tests.harness.server import ServerProcess
from tools.bench.plans import ECHO
from tools.bench.report import Row, percentile

CLIENTS = int(os.environ.get("BENCH_EVENT_CLIENTS", "800"))
"""With more, PJSIP in the same process gets sockets beyond 1,024, which its select(2) cannot wait for."""

WARM = 20
CALLS = int(os.environ.get("BENCH_EVENT_CALLS", "50"))
AT_A_TIME = 20
TENANT = "bench"
READ_S = 120.0


class Client:
    """latencies_ms: of the events that came. ended: calls whose end it has heard."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.latencies_ms: list[float] = []
        self.ended = 0
        self.live = asyncio.Event()

    async def read(self) -> None:
        async for message in self.socket:
            now_s = time.time()
            told: dict[str, Any] = message.json()
            if "timestamp" in told:
                self.latencies_ms.append((now_s - datetime.fromisoformat(told["timestamp"]).timestamp()) * 1000)
                self.ended += told["kind"] == "call.ended"
            elif told["kind"] == "events.live":
                self.live.set()


def _key(server: ServerProcess) -> str:
    words = ["create", "--tenant", TENANT, "--name", "bench", "--config", str(server.settings_file)]
    return CliRunner().invoke(keys.app, words).output.strip().splitlines()[-1]


def _call(server: ServerProcess) -> None:
    with Phone(server.sip_port) as phone:
        answer = phone.invite("echo")
        if answer.code != 200:
            raise RuntimeError(f"the server does not take the call: {answer.code} {answer.reason}")
        phone.bye()


async def _calls(server: ServerProcess, clients: Sequence[Client]) -> None:
    """CALLS of them; the next one begins when all clients have heard the end of the one before."""
    for _ in range(CALLS):
        goal = [client.ended + 1 for client in clients]
        await asyncio.to_thread(_call, server)
        async with asyncio.timeout(READ_S):
            while any(client.ended < wanted for client, wanted in zip(clients, goal, strict=True)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def _measure(server: ServerProcess, key: str) -> Sequence[Row]:
    url = f"ws://127.0.0.1:{server.http_port}/ws/events/{TENANT}"
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        clients: list[Client] = []
        reading: list[asyncio.Task[None]] = []

        async def more(count: int) -> None:
            for first in range(0, count, AT_A_TIME):
                opened = [
                    session.ws_connect(url, headers={"Authorization": f"Bearer {key}"}, compress=0)
                    for _ in range(min(AT_A_TIME, count - first))
                ]
                for socket in await asyncio.gather(*opened):
                    clients.append(Client(socket))
                    reading.append(asyncio.create_task(clients[-1].read(), name="event client"))
            await asyncio.gather(*(client.live.wait() for client in clients))

        await more(1)
        await _calls(server, clients)
        alone = list(clients[0].latencies_ms)
        await more(WARM)
        before_mb = server.rss_mb()
        await more(CLIENTS)
        each_kb = (server.rss_mb() - before_mb) * 1024 / CLIENTS
        for client in clients:
            client.latencies_ms.clear()
        used_s = server.cpu_s()
        await _calls(server, clients)
        used_s = server.cpu_s() - used_s
        crowd = [latency for client in clients for latency in client.latencies_ms]
        await asyncio.gather(*(client.socket.close() for client in clients))
        await asyncio.gather(*reading)
    how = f"{len(alone)} events of {CALLS} calls, one after the other"
    all_of = f"{len(clients)} clients, {len(crowd)} messages, the clients beside the server in one process"
    return (
        Row("Event from call to client, median", f"{percentile(alone, 0.5):.1f} ms", "", how),
        Row("Event from call to client, 99 of 100", f"{percentile(alone, 0.99):.1f} ms", "<= 20 ms", how),
        Row(f"With {len(clients)} clients, median", f"{percentile(crowd, 0.5):.1f} ms", "", all_of),
        Row(f"With {len(clients)} clients, 99 of 100", f"{percentile(crowd, 0.99):.1f} ms", "", all_of),
        Row("Memory of the server for each client", f"{each_kb:.0f} KB"),
        Row("CPU of the server for them", f"{used_s:.2f} s", "", f"{CALLS} calls, every event to every client"),
    )


def measure(folder: Path) -> Sequence[Row]:
    gate = {"connections": 2 * CLIENTS + 100, "per_address": 2 * CLIENTS + 100, "per_tenant": 2 * CLIENTS + 100}
    overrides = {"gate": {**gate, "opens_per_s": 10_000}, "http": {"host": "127.0.0.1", "api_per_s": 10_000}}
    with ServerProcess(folder / "events", {"bench.yaml": ECHO}, overrides) as server:
        return asyncio.run(_measure(server, _key(server)))
