"""The records writer alone: entries a second and CPU a call, on SQLite and on PostgreSQL; what telling costs a cell.

The process time of the writer (user and system); PostgreSQL's is shown beside it. Calls tell 15 entries each, in turns
of 50 calls, through the bus in memory, so that what is measured is the folding and the writing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from sipserver import events
from sipserver.bus.memory import Hub, MemoryBus
from sipserver.events import Stamped
from sipserver.fleet.writer import Writer
from sipserver.journal import Entry
from sipserver.store.journal_sink import JournalSink
from sipserver.store.settings import StoreSettings
from tests.servers.postgres import Postgres
from tools.bench.report import Row

CALLS = 3_000
AT_ONCE = 50
PACED_CALLS_S = 40
PACED_S = 8
TELLING = 100_000


def _told(call_id: str) -> Iterator[events.Event | str]:
    """A call with an agent, short: what it tells, in order."""
    yield "started"
    yield events.CallStarted("inbound", "sip:alice@example.org", "sip:demo@example.org", "192.0.2.7:5060", call_id)
    yield events.CallRouted(0, "main", "to demo")
    yield "answered"
    yield events.CallStateChanged("ringing", "answered")
    yield events.MediaStarted("PCMU", 0, 8000, "192.0.2.7:20000", 101)
    yield events.StepEntered("main", 0, "agent", 7)
    yield events.VoiceStarted(0.9)
    yield events.Transcript("What are your opening hours?", engine="whisper", took_ms=80)
    yield events.Spoken("We are open from nine to five.", "We are open from nine to five.", 2100, 2100)
    yield events.StepLeft("main", 0, "agent", "done", 5000)
    yield events.RtpStats(500, 0, 0, 0, 0, 0.4, 500, 0, 0.3, 12.0, 4.4)
    yield events.LegDisconnected(200, "Normal call clearing", True)
    yield events.CallEnded("caller_hangup", 200)
    yield "ended"


def _tell(sink: JournalSink, call_id: str, what: events.Event | str, at_ms: int) -> None:
    if isinstance(what, events.Event):
        sink.append(Stamped(call_id, "demo", at_ms, what))
    elif what == "started":
        facts = {"direction": "inbound", "from_uri": "sip:alice@example.org", "to_uri": "sip:demo@example.org"}
        sink.started(call_id=call_id, tenant="demo", source="192.0.2.7:5060", sip_call_id=call_id, **facts)
    elif what == "answered":
        sink.answered(call_id)
    else:
        sink.ended(call_id=call_id, reason="caller_hangup", sip_code=200)


class Work:
    """A writer on a database, and a process that tells."""

    def __init__(self, url: str, folder: Path) -> None:
        hub = Hub()
        self.bus = MemoryBus(node="bench", run="writer", hub=hub)
        self.cell = MemoryBus(node="bench", run="cell", hub=hub)
        self.sink = JournalSink("bench", "cell", self.cell.journal.tell)
        self.writer = Writer(self.bus, StoreSettings(url=url), lease_s=60, spool=folder / "spool")
        self.entries = 0

    async def ready(self) -> asyncio.Task[None]:
        await self.cell.leases.hold("run/cell", {})
        running = asyncio.create_task(self.writer.run())
        while not self.writer.ready:  # noqa: ASYNC110  it tells nobody
            await asyncio.sleep(0.01)
        return running

    def tell(self, call_ids: Sequence[str]) -> None:
        """Whole calls, taken in turn."""
        for at_ms, turn in enumerate(zip(*(_told(call_id) for call_id in call_ids), strict=True)):
            for call_id, what in zip(call_ids, turn, strict=True):
                _tell(self.sink, call_id, what, at_ms)
                self.entries += 1

    async def written(self) -> None:
        while self.writer.written < self.entries:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def _flat_out(url: str, folder: Path) -> tuple[float, float]:
    """Entries a second, and CPU milliseconds a call."""
    work = Work(url, folder)
    running = await work.ready()
    for first in range(0, CALLS, AT_ONCE):
        work.tell([f"flat-{number:06}" for number in range(first, first + AT_ONCE)])
    began, cpu = time.perf_counter(), time.process_time()
    await work.written()
    took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    await work.writer.close()
    await running
    return work.entries / took_s, cpu_s / CALLS * 1000


async def _paced(url: str, folder: Path) -> float:
    """CPU milliseconds a call, telling included, when calls come evenly and each tells for two seconds."""
    work = Work(url, folder)
    running = await work.ready()
    calls = [(f"paced-{number:06}", _told(f"paced-{number:06}")) for number in range(PACED_CALLS_S * PACED_S)]
    due = sorted(
        (number / PACED_CALLS_S + step * 2 / 15, number, step) for number in range(len(calls)) for step in range(15)
    )
    began, cpu = time.perf_counter(), time.process_time()
    for at_s, number, step in due:
        if (ahead_s := at_s - (time.perf_counter() - began)) > 0:
            await asyncio.sleep(ahead_s)
        call_id, told = calls[number]
        _tell(work.sink, call_id, next(told), step)
        work.entries += 1
    await work.written()
    cpu_s = time.process_time() - cpu
    await work.writer.close()
    await running
    return cpu_s / len(calls) * 1000


def _telling_us() -> float:
    """CPU microseconds an event, in the cell."""
    told: list[Entry] = []
    sink = JournalSink("bench", "cell", told.append)
    _tell(sink, "c1", "started", 0)
    stamped = Stamped("c1", "demo", 5, events.Transcript("What are your opening hours?", engine="whisper"))
    began = time.process_time()
    for _ in range(TELLING):
        sink.append(stamped)
    return (time.process_time() - began) / TELLING * 1e6


def _server_cpu_s(server: Postgres) -> float:
    """Of all its processes, so far; those that have ended are in the first one's account."""
    ticks = 0
    for process in server.processes:
        with contextlib.suppress(OSError):  # it has just ended
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(folder: Path) -> Sequence[Row]:
    """For `python -m tools.bench records`."""
    rows = [Row("Telling one event, in the cell", f"{_telling_us():.1f} us CPU", "", "JournalSink.append")]
    server = Postgres()
    try:
        server.make()
        for name in ("SQLite", "PostgreSQL"):
            urls = [
                f"sqlite+aiosqlite:///{folder}/{part}.db" if name == "SQLite" else server.url(server.database())
                for part in ("flat", "paced")
            ]
            server_s = _server_cpu_s(server)
            rate, flat_ms = asyncio.run(_flat_out(urls[0], folder / name))
            server_ms = (_server_cpu_s(server) - server_s) / CALLS * 1000
            paced_ms = asyncio.run(_paced(urls[1], folder / name))
            beside = "" if name == "SQLite" else f", {server_ms:.2f} ms in the server"
            rows += [
                Row(f"Writer on {name}, flat out", f"{rate:,.0f} entries/s", "", f"{CALLS} calls, 15 entries each"),
                Row("... CPU a call", f"{flat_ms:.2f} ms{beside}", "< 5 ms"),
                Row(
                    f"Writer on {name}, {PACED_CALLS_S} calls/s: CPU a call",
                    f"{paced_ms:.2f} ms",
                    "< 5 ms",
                    f"{PACED_S} s, entries spread over 2 s, a transaction every 200 ms",
                ),
            ]
    finally:
        server.remove()
    return rows
