"""What the bus costs over a real Redis on this machine: round trips, places, the journal, a whole call."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import uvloop

from sipserver.bus import table
from sipserver.bus.redis_bus import RedisBus
from sipserver.bus.settings import BusSettings
from sipserver.journal import Entry, Kind
from tests.bus.conftest import until
from tests.servers.redis import RedisServer
from tools.bench.report import Row, percentile

ASKS = 1_000
TAKES = 500
ENTRIES = 20_000
CALLS = 24
CALLS_AT_A_TIME = 4
IDLE_S = 5.0
ASKED_FOR = frozenset({"set", "eval", "evalsha", "xadd", "publish", "subscribe", "ping", "xreadgroup", "xack", "xdel"})
FIELDS: Mapping[str, Any] = {
    "tenant": "acme",
    "seq": 7,
    "at_ms": 12_345,
    "kind": "step.entered",
    "fields": {"flow": "main", "index": 3, "step": "say", "line": 17},
}


def measure(folder: Path) -> Sequence[Row]:
    """Takes about 20 s."""
    server = RedisServer(folder / "redis", appendonly=True)
    server.start()
    try:
        settings = BusSettings(url=server.url, spool=folder / "spool")
        fork_kb = _forked_kb(settings)
        with subprocess.Popen([sys.executable, "-m", "tools.bench.bus", server.url, str(folder)]) as cell:
            try:
                return [*uvloop.run(_measure(settings)), Row("memory of the bus in a forked process", f"{fork_kb} KB")]
            finally:
                cell.terminate()
    finally:
        server.stop()


async def _measure(settings: BusSettings) -> list[Row]:
    bus = RedisBus(settings, node="bench", run="bench")
    await bus.open()
    await until(lambda: _there(bus))
    asks = await _times(ASKS, lambda: bus.commands.ask("call:c", "status", {"a": 1}))
    wide = await _places(bus, 100_000)
    tight = await _places(bus, TAKES)
    journal = await _journal(bus)
    call = await _calls(bus)
    await bus.close()
    return [
        Row("command to a call in another process", _line(asks), "p99 < 20 ms", f"{ASKS} in a row, found by its lease"),
        Row("place in two limits, much is free", _line(wide), "", f"{TAKES} in a row"),
        Row("place in two limits, to the last one", _line(tight), "", f"{TAKES} of {TAKES}, in a row"),
        *journal,
        *call,
    ]


async def _there(bus: RedisBus) -> bool:
    return await bus.leases.get("call/c") is not None


async def _times(count: int, work: Callable[[], Awaitable[object]]) -> list[float]:
    """Milliseconds of each."""
    took = []
    for _ in range(count):
        began = time.perf_counter()
        await work()
        took.append((time.perf_counter() - began) * 1000)
    return took


def _line(took: Sequence[float]) -> str:
    return f"p50 {statistics.median(took):.2f} ms, p99 {percentile(took, 0.99):.2f} ms (n={len(took)})"


async def _places(bus: RedisBus, limit: int) -> list[float]:
    scopes = {f"tenant/t{limit}": limit, f"trunk/t{limit}": limit}

    async def take() -> None:
        assert await bus.limits.take(scopes) is None

    took = await _times(TAKES, take)
    for _ in range(TAKES):
        bus.limits.give(list(scopes))
    return took


def _entry(call_id: str) -> Entry:
    return Entry(Kind.EVENT, "bench", "bench", call_id, time.time(), FIELDS)


async def _journal(bus: RedisBus) -> list[Row]:
    """As fast as it goes, in pieces that fit into the memory queue."""
    began, cpu = time.perf_counter(), time.process_time()
    for _ in range(ENTRIES // 500):
        for number in range(500):
            bus.journal.tell(_entry(f"c{number}"))
        assert await bus.journal.flush(10)
    took, used = time.perf_counter() - began, time.process_time() - cpu
    size = await bus._link.client.memory_usage(bus._link.key("journal", "bench"), samples=0)
    reader, read = bus.journal.read("bench"), 0
    began = time.perf_counter()
    while read < ENTRIES:
        delivery = await anext(reader)
        read += len(delivery.entries)
        await delivery.done()
    read_took = time.perf_counter() - began
    await reader.aclose()
    return [
        Row("journal: memory of Redis", f"{(size or 0) / ENTRIES:.0f} bytes an entry that waits", "", "200 a message"),
        Row("journal: telling", f"{ENTRIES / took:.0f} entries/s, {used / ENTRIES * 1e6:.0f} us CPU an entry"),
        Row("journal: reading", f"{ENTRIES / read_took:.0f} entries/s", "", "decoded, acknowledged and deleted"),
    ]


async def _calls(bus: RedisBus) -> list[Row]:
    """What a cell does for its calls: lease, places, twelve entries in two bursts."""
    redis = bus._link.client
    cpu = time.process_time()
    await asyncio.sleep(IDLE_S)
    idle = (time.process_time() - cpu) / IDLE_S

    async def call(number: int) -> None:
        lease = await bus.leases.hold(f"call/b{number}", {"run": bus.run, "tenant": "acme"})
        scopes = {"tenant/acme": 30, "trunk/carrier": 30}
        assert await bus.limits.take(scopes) is None
        for burst in (7, 5):
            for _ in range(burst):
                bus.journal.tell(_entry(f"b{number}"))
            await asyncio.sleep(0.3)
        bus.limits.give(list(scopes))
        await lease.close()

    async def one_after_the_other(first: int) -> None:
        for number in range(first, CALLS, CALLS_AT_A_TIME):
            await call(number)
            await asyncio.sleep(0.1)

    operations, cpu, began = await _operations(redis), time.process_time(), time.perf_counter()
    await asyncio.gather(*(one_after_the_other(first) for first in range(CALLS_AT_A_TIME)))
    used = time.process_time() - cpu - idle * (time.perf_counter() - began)
    counted = await _operations(redis) - operations
    return [
        Row("a call on the bus: CPU in its process", f"{used / CALLS * 1000:.2f} ms", "<= 1.5 ms", "12 entries"),
        Row("a call on the bus: commands that Redis runs", f"{counted / CALLS:.1f}", "", "those within scripts apart"),
        Row("a process with an open bus, idle", f"{idle * 100:.3f} % of a core", "~ 0", f"over {IDLE_S:.0f} s"),
    ]


async def _operations(redis: Any) -> int:
    """Commands from clients, without those that their scripts run."""
    statistics_of = await redis.info("commandstats")
    return sum(
        int(each["calls"])
        for name, each in statistics_of.items()
        if name.removeprefix("cmdstat_").partition("|")[0] in ASKED_FOR
    )


def _forked_kb(settings: BusSettings) -> int:
    """Private memory that an open bus adds to a child of a warm parent, whose loop runs already."""
    read, write = os.pipe()
    gc.collect()
    gc.freeze()
    child = os.fork()
    if child == 0:
        os.write(write, json.dumps(uvloop.run(_opened_kb(settings))).encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as answer:
        return int(answer.read())


async def _opened_kb(settings: BusSettings) -> int:
    before = _private_kb()
    bus = RedisBus(settings, node="bench", run="forked")
    await bus.open()
    await bus.leases.hold("run/forked", {})
    await bus.limits.take({"tenant/acme": 10})
    bus.journal.tell(_entry("c"))
    await bus.journal.flush(5)
    opened = _private_kb()
    await bus.close()
    return opened - before


def _private_kb() -> int:
    rollup = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in rollup if line.startswith("Private_"))


async def _cell(url: str, folder: str) -> None:
    """The other process: answers until it is terminated."""
    bus = table.make(BusSettings(url=url, spool=Path(folder) / "spool"), node="bench", run="cell")
    await bus.open()

    async def handle(verb: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"verb": verb, **arguments}

    await bus.commands.serve("run:cell", handle)
    await bus.leases.hold("call/c", {"run": "cell", "tenant": "acme"})
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_cell(*sys.argv[1:]))
