"""Event WebSockets that nothing happens on: what each costs the server, and whether all are there after a minute."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp

from sipserver.bus.once import MemoryOnce
from sipserver.gate.settings import GateSettings
from sipserver.gate.tokens import Claims, Tokens
from tests.harness.server import ServerProcess
from tools.bench.plans import ECHO
from tools.bench.report import Row

SOCKETS = 1000
WARM = 40
"""Opened first, so that what the first of all costs does not count."""

SECONDS = 60
TENANT = "bench"
AT_A_TIME = 20


async def _hold(server: ServerProcess, token: str) -> Sequence[Row]:
    url = f"ws://127.0.0.1:{server.http_port}/ws/events/{TENANT}"
    async with AsyncExitStack() as stack:
        connector = aiohttp.TCPConnector(limit=0)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        lost: list[int] = []

        async def stay(socket: aiohttp.ClientWebSocketResponse) -> None:
            """Pings are answered while somebody reads."""
            async for _ in socket:
                pass
            lost.append(socket.close_code or 0)

        sockets: list[aiohttp.ClientWebSocketResponse] = []
        readers: list[asyncio.Task[None]] = []

        async def more(count: int) -> None:
            for _ in range(count // AT_A_TIME):
                opened = [
                    session.ws_connect(url, headers={"Authorization": f"Bearer {token}"}, compress=0)
                    for _ in range(AT_A_TIME)
                ]
                for socket in await asyncio.gather(*opened):
                    sockets.append(socket)
                    readers.append(asyncio.create_task(stay(socket), name="idle socket"))

        await more(WARM)
        await asyncio.sleep(1)
        before_mb, began_s = server.rss_mb(), time.monotonic()
        await more(SOCKETS)
        took_s = time.monotonic() - began_s
        used_s, at_s = server.cpu_s(), time.monotonic()
        await asyncio.sleep(SECONDS)
        percent = (server.cpu_s() - used_s) / (time.monotonic() - at_s) * 100
        each_kb = (server.rss_mb() - before_mb) * 1024 / SOCKETS
        gone = len(lost)
        await asyncio.gather(*(socket.close() for socket in sockets))
        await asyncio.gather(*readers)
    how = f"{SOCKETS} event WebSockets with a token each, none of whose tenant has a call"
    return (
        Row("Memory of the server for each idle event WebSocket", f"{each_kb:.0f} KB", "< 60 KB", how),
        Row(f"Of these lost within {SECONDS} s", str(gone), "0", f"a ping every {GateSettings().heartbeat_s:.0f} s"),
        Row("CPU of the server with them", f"{percent:.1f} % of a core"),
        Row("Time to open them", f"{took_s:.1f} s", "", f"{AT_A_TIME} at a time, the client beside the server"),
    )


def measure(folder: Path) -> Sequence[Row]:
    settings = GateSettings()
    os.environ[settings.secret_env] = secrets.token_hex(32)
    tokens = Tokens(os.environ[settings.secret_env].encode(), MemoryOnce())
    token = tokens.issue(Claims("events", tenant=TENANT, once=False), lives_s=3600)
    gate = {"connections": 2 * SOCKETS, "per_address": 2 * SOCKETS, "per_tenant": 2 * SOCKETS, "opens_per_s": 10_000}
    try:
        with ServerProcess(folder / "idle", {"bench.yaml": ECHO}, {"gate": gate}) as server:
            return asyncio.run(_hold(server, token))
    finally:
        del os.environ[settings.secret_env]
