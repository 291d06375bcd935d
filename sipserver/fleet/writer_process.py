"""The records writer as a process of the fleet: journals into the database, and the metrics of what they tell.

Owns the writer's bus and the socket on which a gateway fetches the metrics. Refuses to know rows and journals: `writer`
does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any

from sipserver import events
from sipserver.api.health import Check
from sipserver.api.metrics import Metrics
from sipserver.api.server import HttpServer
from sipserver.bus import table
from sipserver.calls import keyring
from sipserver.control_plane import Telling
from sipserver.events import Stamped
from sipserver.fleet.control import Control
from sipserver.fleet.process import ChildSpec
from sipserver.fleet.writer import Writer
from sipserver.journal import Entry, Kind
from sipserver.settings import Settings


def metrics_socket(settings: Settings) -> Path:
    """Where the writer of this machine answers GET /metrics."""
    return settings.fleet.runtime / "writer.sock"


BEHIND_CALLS = 5
"""nice(2) of the writer: a burst of records must not make calls wait."""


async def main(spec: ChildSpec, control: Control) -> None:
    """Write until told to end; what is not written then stays in the journal."""
    os.nice(BEHIND_CALLS)
    settings = spec.settings
    metrics = Metrics()
    bus = table.make(settings.bus, node=spec.node, run=spec.run)
    telling = Telling(settings, bus, spec.node)
    metrics.watch_webhooks(telling.attempts, telling.held)
    writer = Writer(
        bus,
        settings.store,
        lease_s=settings.bus.lease_s,
        spool=settings.bus.spool / "records",
        on_entry=lambda entry: _count(metrics, entry, spec.node),
        on_open=telling.start,
        tell=telling.tell,
        ring=keyring.load(settings.calls.encryption),
    )

    def facts() -> dict[str, Any]:
        return {
            "written": writer.written,
            "behind": writer.lag_entries,
            "behind_s": round(writer.lag_s, 1),
            "spooled": writer.spooled,
            "failures": writer.failures,
            "lost": writer.lost,
            "reading": writer.reading,
            "bus_up": bus.up,
        }

    async with contextlib.AsyncExitStack() as stack:
        await bus.open()
        stack.push_async_callback(bus.close)
        http = HttpServer(
            settings.http, lambda: (Check("records", True),), metrics, socket_path=metrics_socket(settings)
        )
        await http.start()
        stack.push_async_callback(http.stop)
        stack.push_async_callback(telling.close)
        writing = asyncio.create_task(writer.run(), name="records writer")
        stack.push_async_callback(_end, writer, writing)
        control.beat_with(facts)
        await control.ready()
        obeying = asyncio.create_task(control.obey(drain=_drain), name="orders")
        stack.push_async_callback(_cancel, obeying)
        await asyncio.wait({writing, obeying}, return_when=asyncio.FIRST_COMPLETED)
        if writing.done():
            writing.result()
        else:
            obeying.result()


def _count(metrics: Metrics, entry: Entry, node: str) -> None:
    """Count an event of this machine; another machine's is counted where it happened."""
    if entry.kind is not Kind.EVENT or entry.node != node:
        return
    event = events.restore(entry.fields["kind"], entry.fields["fields"])
    if event is not None:
        metrics.observe(Stamped(entry.call_id, str(entry.fields["tenant"]), int(entry.fields["at_ms"]), event))


async def _drain(_within_s: float) -> None:
    """The journal keeps what comes after; the next writer goes on from there."""


async def _end(writer: Writer, writing: asyncio.Task[None]) -> None:
    await writer.close()
    await asyncio.gather(writing, return_exceptions=True)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
