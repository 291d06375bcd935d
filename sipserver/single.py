"""`mode: single`: one process with everything; hands each room its part, connects them, starts and stops them in order.

With `exchange.py` and `engines.py` the only modules that see every room. Owns the order of things and what a signal
means; refuses to know how any of them works.
"""

from __future__ import annotations

import asyncio
import contextlib
import platform
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from sipserver import allowing, console, log, systemd_notify
from sipserver.api import event_socket
from sipserver.api.event_socket import EventHub
from sipserver.api.metrics import Metrics, with_websockets
from sipserver.api.rest.app import PREFIX
from sipserver.api.server import HttpServer
from sipserver.asking import Here
from sipserver.bus import table
from sipserver.calls import keyring, sound_files
from sipserver.calls.commands import CallCommands
from sipserver.control_plane import ControlPlane, Telling
from sipserver.engines import EngineRoom
from sipserver.errors import SipServerError
from sipserver.events import Stamped
from sipserver.exchange import Exchange
from sipserver.gate.gate import Gate
from sipserver.gate.tokens import Tokens, secret_of
from sipserver.log import logger
from sipserver.open_files import raise_limit
from sipserver.settings import Settings
from sipserver.store.records import Records

if TYPE_CHECKING:
    from sipserver.doors import Doors


def run(loaded: Settings) -> int:
    """Serve until a signal says stop; returns the exit code. Raises ConfigError, CarrierError (a port is taken)."""
    log.setup(loaded.log.level, loaded.log.format, loaded.log.private)
    raise_limit()
    with log.background():
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
        node = f"{platform.node()}:{loaded.sip.port}"
        self._bus = table.make(loaded.bus.model_copy(update={"url": ""}), node=platform.node(), run="single")
        self._ring = keyring.load(loaded.calls.encryption)
        self._telling = Telling(loaded, self._bus, node)
        self.records = Records(
            loaded.store,
            node=node,
            spool=loaded.bus.spool / "records",
            tell=self._telling.tell,
            hear=self._bus.live.tell,
            soon=self._telling.wanted,
        )
        events = EventHub()
        self.exchange = Exchange(
            loaded,
            EngineRoom(loaded),
            self.records,
            listeners=(self._observe, events.observe),
            limits=self._bus.limits,
            allowances=allowing.of(loaded, self._bus),
        )
        self.doors = self._doors() if loaded.calls_by_http else None
        if self.doors is None:
            self.gate = Gate(loaded.gate, Tokens(secret_of(loaded.gate), self._bus.once))
        else:
            self.gate = self.doors.gate
        probes = self.exchange.probes(self._queues, self._record_faults)
        self.metrics = Metrics(with_websockets(probes, self.gate.facts))
        self.metrics.watch_webhooks(self._telling.attempts, self._telling.held)
        self._commands = CallCommands(self.exchange.registry)
        self._control = self._control_plane() if loaded.http.api else None
        for_keys = self._control.events(self.gate, self._bus.live) if self._control is not None else None
        self.http = HttpServer(
            loaded.http,
            self.exchange.readiness,
            self.metrics,
            trunks=self.exchange.trunk_states,
            routes=[
                *(() if self.doors is None else self.doors.routes),
                *event_socket.routes(events, self.gate, self._telling.note, for_keys),
            ],
            apps={} if self._control is None else {PREFIX: self._control.app},
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start in order; stop in reverse when the block ends, calls first. A start that fails stops what had begun."""
        exchange = self.exchange
        async with contextlib.AsyncExitStack() as stack:
            await self._open_http(stack)
            await self._open_records(stack)
            if self._control is not None:
                await self._control.check()
            await stack.enter_async_context(exchange.running())
            if self.doors is None:
                stack.push_async_callback(self.gate.close_all)
            else:
                await stack.enter_async_context(self.doors.open())
            await stack.enter_async_context(console.listening(self._settings, self._commands.handle))
            exchange.start_task(self._watchdog(), "watchdog")
            self._log.info(
                "ready",
                sip=f"{self._settings.sip.host}:{exchange.cell.sip_port}",
                http=self.http.port,
                calls=exchange.cell.inbound_limit,
            )
            systemd_notify.ready(f"up to {exchange.cell.inbound_limit} calls")
            try:
                yield
            finally:
                systemd_notify.stopping(f"draining {len(exchange.registry.calls)} calls")
                await exchange.drain(self._settings.calls.drain_s)

    async def _open_http(self, stack: contextlib.AsyncExitStack) -> None:
        """The control plane ends before the server, which would wait for its event sockets; it has begun to read when a
        start fails.
        """
        try:
            await self.http.start()
        except BaseException:
            if self._control is not None:
                await self._control.close()
            raise
        stack.push_async_callback(self.http.stop)
        if self._control is not None:
            stack.push_async_callback(self._control.close)

    def _doors(self) -> Doors:
        """Imported here: the libraries of carriers and browsers are a fifth of a start."""
        from sipserver.doors import Doors

        return Doors(self._settings, self.exchange, once=self._bus.once)

    def _control_plane(self) -> ControlPlane:
        asking = Here(self._commands.handle, self.exchange.trunk_states)
        return ControlPlane(self._settings, asking, self._bus, takes_calls=self._takes_calls)

    def _takes_calls(self) -> bool:
        return all(check.ok for check in self.exchange.readiness())

    def hurry(self) -> None:
        """End the running calls now instead of waiting for them (second SIGTERM)."""
        self.exchange.hurry()

    def reload(self) -> None:
        """Read the dialplans again (SIGHUP)."""
        systemd_notify.reloading()
        self.exchange.start_task(self._reload(), "reload")

    def _observe(self, stamped: Stamped) -> None:
        self.metrics.observe(stamped)
        if self.doors is not None:
            self.doors.observe(stamped)

    async def _open_records(self, stack: contextlib.AsyncExitStack) -> None:
        stack.push_async_callback(self._telling.close)
        await self.records.open()
        stack.push_async_callback(self.records.close)
        self._telling.start()
        for crashed in await self.records.sweep_crashed():
            self._log.warning("closed a call that died with the last process", call=crashed.call_id)
            if crashed.recording_path:
                await self._repair(crashed.call_id, crashed.recording_path)

    async def _repair(self, call_id: str, path: str) -> None:
        """Make the recording of a call that died readable, up to the last second that reached the disk."""
        try:
            await asyncio.to_thread(sound_files.repair, Path(path), self._ring)
        except (OSError, ValueError, SipServerError) as problem:
            self._log.warning("recording not readable", call=call_id, path=path, error=str(problem))
            return
        self.records.recording(call_id=call_id, path=path, status="complete")

    async def _reload(self) -> None:
        await self.exchange.watcher.reload()
        systemd_notify.ready()

    async def _watchdog(self) -> None:
        interval_s = systemd_notify.watchdog_interval_s()
        if interval_s is None:
            return
        cell = self.exchange.cell
        sip_moves = systemd_notify.moved(lambda: _milliseconds(cell.last_sip_tick_s))
        media_moves = systemd_notify.moved(lambda: _milliseconds(cell.last_media_tick_s))
        checks = {"sip": sip_moves, "media": lambda: media_moves() or cell.last_media_tick_s is None}
        await systemd_notify.Watchdog(interval_s, checks).run()

    def _queues(self) -> Mapping[str, float]:
        return {"records": self.records.depth}

    def _record_faults(self) -> Mapping[str, float]:
        records = self.records
        return {"failures": records.failures, "dropped": records.dropped, "lost": records.lost}


def _milliseconds(moment_s: float | None) -> int:
    return -1 if moment_s is None else int(moment_s * 1000)
