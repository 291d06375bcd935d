"""The composition root: reads the settings, hands each room its part, connects them, starts and stops them in order.

With `engines.py` the only module that sees every room. Owns the order of things and what a signal means; refuses to
know how any of them works.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import platform
import signal
import statistics
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import uvloop

from sipserver import log, settings, systemd_notify
from sipserver.agent.conversation import Conversation
from sipserver.api.health import Check
from sipserver.api.metrics import Metrics, Probes
from sipserver.api.server import HttpServer
from sipserver.calls import recording
from sipserver.calls.recording import Recorder
from sipserver.calls.registry import Registry
from sipserver.calls.services import Services
from sipserver.dialplan.book import Book
from sipserver.dialplan.watch import Watcher
from sipserver.engines import EngineRoom
from sipserver.errors import ConfigError, SipServerError
from sipserver.log import logger
from sipserver.settings import Settings
from sipserver.sip.cell import Cell
from sipserver.sip.leg import SipLeg
from sipserver.store.records import Records

SIP_HANGS_S = 2.0
"""The sip thread turns at least ten times a second; a standstill of this length means that it hangs."""


def run(settings_file: Path) -> int:
    """Serve until a signal says stop; returns the exit code. Raises ConfigError, CarrierError (a port is taken)."""
    loaded = settings.load(settings_file)
    log.setup(loaded.log.level, loaded.log.format, loaded.log.private)
    uvloop.run(_serve(loaded))
    return 0


async def _serve(loaded: Settings) -> None:
    """SIGTERM and SIGINT drain and stop; a second one ends the running calls at once. SIGHUP reloads the dialplans."""
    server, loop, stop = Server(loaded), asyncio.get_running_loop(), asyncio.Event()

    def asked_to_stop() -> None:
        if stop.is_set():
            server.hurry()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_stop)
    loop.add_signal_handler(signal.SIGHUP, server.reload)
    async with server.running():
        await stop.wait()


class Server:
    """One process with one cell, the API in the same loop, SQLite, local speech (`mode: single`). Loop thread."""

    def __init__(self, loaded: Settings) -> None:
        self._settings = loaded
        self._log = logger("app")
        self._book = Book()
        self._tasks: set[asyncio.Task[None]] = set()
        self._hurry = asyncio.Event()
        self.engines = EngineRoom(loaded)
        self.records = Records(loaded.store, node=f"{platform.node()}:{loaded.sip.port}")
        self.recorder = Recorder(loaded.calls.recordings)
        self.watcher = Watcher(loaded.dialplans, on_change=self._on_book, on_problem=self._on_problem)
        self.metrics = Metrics(self._probes())
        self.http = HttpServer(loaded.http, self._readiness, self.metrics)
        self.registry = Registry(
            Services(
                settings=loaded.calls,
                engines=self.engines.engines,
                speech_cache=self.engines.cache,
                converse=Conversation,
                book=lambda: self._book,
                recorder=self.recorder,
                records=self.records,
                listeners=(self.metrics.observe,),
            )
        )
        self.cell = Cell(loaded.sip, self._on_leg)
        self._serving = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start in order; stop in reverse when the block ends, calls first. A start that fails stops what had begun."""
        async with contextlib.AsyncExitStack() as stack:
            await self.http.start()
            stack.push_async_callback(self.http.stop)
            await self._open_records(stack)
            await self._open_dialplans(stack)
            self.recorder.open()
            stack.push_async_callback(self.recorder.close)
            await self.cell.start()
            stack.push_async_callback(self.cell.stop)
            self._serving = True
            stack.push_async_callback(self._end_tasks)
            self._start(self._watchdog(), "watchdog")
            self._start(self.engines.warm(self._book), "warm")
            gc.collect()
            gc.freeze()
            self._log.info(
                "ready",
                sip=f"{self._settings.sip.host}:{self.cell.sip_port}",
                http=self.http.port,
                calls=self.cell.inbound_limit,
            )
            systemd_notify.ready(f"up to {self.cell.inbound_limit} calls")
            try:
                yield
            finally:
                await self._drain()

    def hurry(self) -> None:
        """End the running calls now instead of waiting for them (second SIGTERM)."""
        self._hurry.set()

    def reload(self) -> None:
        """Read the dialplans again (SIGHUP)."""
        systemd_notify.reloading()
        self._start(self._reload(), "reload")

    def _on_leg(self, leg: SipLeg) -> None:
        self.registry.accept(leg)

    async def _open_records(self, stack: contextlib.AsyncExitStack) -> None:
        await self.records.open()
        stack.push_async_callback(self.records.close)
        for crashed in await self.records.sweep_crashed():
            self._log.warning("closed a call that died with the last process", call=crashed.call_id)
            if crashed.recording_path:
                await self._repair(crashed.call_id, crashed.recording_path)

    async def _repair(self, call_id: str, path: str) -> None:
        """Make the recording of a call that died readable, up to the last second that reached the disk."""
        try:
            await asyncio.to_thread(recording.repair, Path(path))
        except (OSError, ValueError) as problem:
            self._log.warning("recording not readable", call=call_id, path=path, error=str(problem))
            return
        self.records.recording(call_id=call_id, path=path, status="complete")

    async def _open_dialplans(self, stack: contextlib.AsyncExitStack) -> None:
        book = await self.watcher.start()
        stack.push_async_callback(self.watcher.stop)
        for unknown in self.engines.unknown(book):
            raise unknown
        stack.push_async_callback(self.engines.close)
        await self.engines.load(book)
        self._book = book

    def _on_book(self, book: Book) -> None:
        self._start(self._adopt(book), "adopt")

    async def _adopt(self, book: Book) -> None:
        """Take a new book; a tenant whose engines are unknown or cannot be loaded keeps the plan it had."""
        unknown = self.engines.unknown(book)
        for problem in unknown:
            self._on_problem(problem)
        refused = {problem.file for problem in unknown}
        plans = [self._book.plan(plan.tenant) if str(plan.file) in refused else plan for plan in book.plans]
        adopted = Book(tuple(plan for plan in plans if plan is not None))
        try:
            await self.engines.load(adopted)
        except SipServerError as problem:
            self._log.error("dialplans not taken over: an engine cannot be loaded", error=str(problem))
            return
        self._book = adopted
        self._log.info("dialplans taken over", tenants=len(adopted.plans))
        await self.engines.warm(adopted)

    def _on_problem(self, problem: ConfigError) -> None:
        self._log.error("dialplan refused, the old one stays", file=problem.file, line=problem.line, error=str(problem))

    async def _reload(self) -> None:
        await self.watcher.reload()
        systemd_notify.ready()

    async def _drain(self) -> None:
        """New calls get 503, running ones go on until the deadline or until somebody is in a hurry."""
        self._serving = False
        self.cell.drain()
        left = len(self.registry.calls)
        self._log.info("draining", calls=left, deadline_s=self._settings.calls.drain_s)
        systemd_notify.stopping(f"draining {left} calls")
        draining = asyncio.create_task(self.registry.drain(self._settings.calls.drain_s), name="drain")
        hurry = asyncio.create_task(self._hurry.wait(), name="hurry")
        await asyncio.wait({draining, hurry}, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not draining.done():
            await self.registry.drain(0)
        ended = await draining
        self._log.info("drained", ended=ended)

    async def _watchdog(self) -> None:
        interval_s = systemd_notify.watchdog_interval_s()
        if interval_s is None:
            return
        sip_moves = systemd_notify.moved(lambda: _milliseconds(self.cell.last_sip_tick_s))
        media_moves = systemd_notify.moved(lambda: _milliseconds(self.cell.last_media_tick_s))
        checks = {"sip": sip_moves, "media": lambda: media_moves() or self.cell.last_media_tick_s is None}
        await systemd_notify.Watchdog(interval_s, checks).run()

    def _readiness(self) -> Sequence[Check]:
        if not self._serving:
            return (Check("server", False, "starting" if not self.registry.draining else "draining"),)
        return (
            Check("sip", self._sip_moves(), "the sip thread does not move"),
            Check("dialplans", bool(self._book.plans), f"no dialplan in {self._settings.dialplans}"),
            *self.engines.checks(self._book),
        )

    def _probes(self) -> Probes:
        return Probes(
            calls=lambda: {str(state): count for state, count in self.registry.counts().items()},
            capacity=lambda: {"inbound": self.cell.inbound_limit, "total": self.cell.capacity} if self._serving else {},
            queues=self._queues,
            refused=lambda: self.cell.refused,
            media_clock_late_s=self._lateness_s,
            tick_age_s=self._tick_age_s,
            record_faults=lambda: {
                "failures": self.records.failures,
                "dropped": self.records.dropped,
                "lost": self.records.lost,
            },
        )

    def _sip_moves(self) -> bool:
        ticked_s = self.cell.last_sip_tick_s
        return ticked_s is not None and time.monotonic() - ticked_s < SIP_HANGS_S

    def _tick_age_s(self) -> Mapping[str, float]:
        now_s = time.monotonic()
        ticks = {"sip": self.cell.last_sip_tick_s, "media": self.cell.last_media_tick_s}
        return {part: now_s - ticked_s for part, ticked_s in ticks.items() if ticked_s is not None}

    def _lateness_s(self) -> Mapping[str, float]:
        late_ms = self.cell.take_lateness_ms()
        if not late_ms:
            return {}
        return {"median": statistics.median(late_ms) / 1000, "max": max(late_ms) / 1000}

    def _queues(self) -> Mapping[str, float]:
        return {**self.engines.depths(), "recorder": self.recorder.depth, "records": self.records.depth}

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            self._log.error("a task of the server broke", task=task.get_name(), exc_info=problem)

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _milliseconds(moment_s: float | None) -> int:
    return -1 if moment_s is None else int(moment_s * 1000)
