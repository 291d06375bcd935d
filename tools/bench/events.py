"""Events by WebSocket with an API key: how soon a client has them, and what a thousand clients cost.

A client's latency is from the `timestamp` of an event, when the call told it, to the moment at which the client has
read it; both by the clock of this machine. Calls begin and end one after the other meanwhile. The clients share the
machine with the server, so they only note what comes and when; it is understood afterwards.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import cast

import uvloop
from typer.testing import CliRunner

from sipserver.cli import keys
from sipserver.open_files import raise_limit
from tests.harness.phone import Phone
from tests.harness.server import ServerProcess
from tools.bench.plans import ECHO
from tools.bench.report import Row, percentile

CLIENTS = int(os.environ.get("BENCH_EVENT_CLIENTS", "1000"))
WARM = 20
CALLS = int(os.environ.get("BENCH_EVENT_CALLS", "50"))
AT_A_TIME = 20
TENANT = "bench"
TENANTS = 100
"""For the row in which the same clients belong to many."""
READ_S = 120.0

_HELLO = (
    "GET /ws/events/{tenant} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {key}\r\n"
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
_PING, _PONG = 0x89, b"\x8a\x80\0\0\0\0"


class Client(asyncio.Protocol):
    """came: when (time.time()), and the message. ended: calls whose end it has heard. live: everything comes now."""

    def __init__(self, hello: str) -> None:
        self._hello = hello
        self._unread = bytearray()
        self._upgraded = False
        self.came: list[tuple[float, bytes]] = []
        self.ended = 0
        self.live = asyncio.Event()
        self.gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._hello.encode())

    def data_received(self, received: bytes) -> None:
        now_s = time.time()
        self._unread += received
        if not self._upgraded:
            answer, end, rest = self._unread.partition(b"\r\n\r\n")
            if not end:
                return
            if b" 101 " not in answer:
                raise RuntimeError(f"the server does not let a client in: {answer.decode()}")
            self._unread, self._upgraded = rest, True
        while (end_of := self._frame_end()) is not None:
            begin, end_at = end_of
            self._message(self._unread[0], bytes(self._unread[begin:end_at]), now_s)
            del self._unread[:end_at]

    def connection_lost(self, _problem: Exception | None) -> None:
        self.gone.set()

    def latencies_ms(self) -> list[float]:
        told = ((at_s, json.loads(message)) for at_s, message in self.came)
        return [
            (at_s - datetime.fromisoformat(event["timestamp"]).timestamp()) * 1000
            for at_s, event in told
            if "timestamp" in event
        ]

    def _frame_end(self) -> tuple[int, int] | None:
        """Where the payload of the first frame begins and ends; None: it has not come. None is longer than 64 KB."""
        unread = self._unread
        if len(unread) < 4:
            return (2, 2) if len(unread) >= 2 and not unread[1] else None
        begin, length = (2, unread[1]) if unread[1] < 126 else (4, int.from_bytes(unread[2:4], "big"))
        return (begin, begin + length) if len(unread) >= begin + length else None

    def _message(self, first: int, message: bytes, now_s: float) -> None:
        if first == _PING:
            self.transport.write(_PONG)
            return
        self.came.append((now_s, message))
        if message.startswith(b'{"kind":"call.ended"'):
            self.ended += 1
        elif message.startswith(b'{"kind":"events.live"'):
            self.live.set()


def _of_many(number: int) -> str:
    return f"bench-{number:03}"


def _plans() -> dict[str, str]:
    """That of the calls with one tenant, and as many others, each with a number of its own."""
    others = [_of_many(number) for number in range(TENANTS)]
    named = {name: ECHO.replace("tenant: bench", f"tenant: {name}").replace("to: ", f"to: {name}-") for name in others}
    return {f"{name}.yaml": text for name, text in {TENANT: ECHO, **named}.items()}


def _key(server: ServerProcess, tenant: str) -> str:
    words = ["create", "--tenant", tenant, "--name", "bench", "--config", str(server.settings_file)]
    return CliRunner().invoke(keys.app, words).output.strip().splitlines()[-1]


def _call(server: ServerProcess, number: str) -> None:
    with Phone(server.sip_port) as phone:
        answer = phone.invite(number)
        if answer.code != 200:
            raise RuntimeError(f"the server does not take the call: {answer.code} {answer.reason}")
        phone.bye()


def _hang_up(clients: Sequence[Client]) -> None:
    for client in clients:
        client.transport.abort()


async def _calls(server: ServerProcess, clients: Sequence[Client], number: str = "echo", count: int = CALLS) -> None:
    """The next one begins when all clients have heard the end of the one before."""
    for _ in range(count):
        goal = [client.ended + 1 for client in clients]
        await asyncio.to_thread(_call, server, number)
        async with asyncio.timeout(READ_S):
            while any(client.ended < wanted for client, wanted in zip(clients, goal, strict=True)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def _connect(server: ServerProcess, tenant: str, key: str, count: int) -> Sequence[Client]:
    """Clients that have all that happened before."""
    hello = _HELLO.format(tenant=tenant, port=server.http_port, key=key)
    loop = asyncio.get_running_loop()
    clients: list[Client] = []
    for first in range(0, count, AT_A_TIME):
        some = [Client(hello) for _ in range(min(AT_A_TIME, count - first))]
        for client in some:
            await loop.create_connection(lambda client=client: client, "127.0.0.1", server.http_port)  # type: ignore[misc]
        clients += some
        async with asyncio.timeout(READ_S):
            await asyncio.gather(*(client.live.wait() for client in some))
    return clients


async def _of_many_tenants(server: ServerProcess, keys_of: Mapping[str, str]) -> Row:
    """As many clients, but each hears one tenant of many; all tenants have calls in turn."""
    busy = os.getloadavg()[0]
    of_tenant: dict[str, Sequence[Client]] = {}
    for tenant, key in keys_of.items():
        of_tenant[tenant] = await _connect(server, tenant, key, CLIENTS // TENANTS)
    all_of = [client for clients in of_tenant.values() for client in clients]
    try:
        for tenant, clients in of_tenant.items():
            await _calls(server, clients, f"{tenant}-echo", 1)
        found = [latency for client in all_of for latency in client.latencies_ms()]
    finally:
        _hang_up(all_of)
    await asyncio.gather(*(client.gone.wait() for client in all_of))
    how = f"a call each, {len(found)} messages; load of the machine before: {busy:.1f}"
    what = f"With {len(all_of)} clients of {TENANTS} tenants, 99 of 100"
    return Row(what, f"{percentile(found, 0.99):.1f} ms", "<= 20 ms", how)


async def _measure(server: ServerProcess, key: str, keys_of_many: Mapping[str, str]) -> Sequence[Row]:
    busy = os.getloadavg()[0]
    clients: list[Client] = []

    async def more(count: int) -> None:
        clients.extend(await _connect(server, TENANT, key, count))

    async with AsyncExitStack() as stack:
        stack.callback(lambda: _hang_up(clients))
        await more(1)
        await _calls(server, clients)
        alone = clients[0].latencies_ms()
        await more(WARM)
        before_mb = server.rss_mb()
        await more(CLIENTS)
        each_kb = (server.rss_mb() - before_mb) * 1024 / CLIENTS
        for client in clients:
            client.came.clear()
        used_s = server.cpu_s()
        await _calls(server, clients)
        used_s = server.cpu_s() - used_s
        crowd = [latency for client in clients for latency in client.latencies_ms()]
    await asyncio.gather(*(client.gone.wait() for client in clients))
    many = await _of_many_tenants(server, keys_of_many)
    load = f"load of the machine before: {busy:.1f}"
    how = f"{len(alone)} events of {CALLS} calls, one after the other; {load}"
    all_of = f"{len(clients)} clients, {len(crowd)} messages, the clients on the server's machine; {load}"
    return (
        Row("Event from call to client, median", f"{percentile(alone, 0.5):.1f} ms", "", how),
        Row("Event from call to client, 99 of 100", f"{percentile(alone, 0.99):.1f} ms", "<= 20 ms", how),
        Row(f"With {len(clients)} clients, median", f"{percentile(crowd, 0.5):.1f} ms", "", all_of),
        Row(f"With {len(clients)} clients, 99 of 100", f"{percentile(crowd, 0.99):.1f} ms", "<= 20 ms", all_of),
        many,
        Row("Memory of the server for each client", f"{each_kb:.0f} KB"),
        Row("CPU of the server for them", f"{used_s:.2f} s", "", f"{CALLS} calls, every event to every client"),
    )


def measure(folder: Path) -> Sequence[Row]:
    gate = {"connections": 2 * CLIENTS + 100, "per_address": 2 * CLIENTS + 100, "per_tenant": 2 * CLIENTS + 100}
    overrides = {"gate": {**gate, "opens_per_s": 10_000}, "http": {"host": "127.0.0.1", "api_per_s": 10_000}}
    raise_limit()
    with ServerProcess(folder / "events", _plans(), overrides) as server:
        keys_of_many = {tenant: _key(server, tenant) for tenant in map(_of_many, range(TENANTS))}
        return uvloop.run(_measure(server, _key(server, TENANT), keys_of_many))
