"""`sipserver run` with `mode: fleet`: builds the supervisor with its bus and its edge, and gives signals their meaning.

Owns the process of the supervisor. Refuses to know how the parts work.
"""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import Callable
from pathlib import Path

import uvloop

from sipserver import log
from sipserver.bus import table
from sipserver.calls import keyring
from sipserver.edge.adopted import Adopted
from sipserver.edge.edge import Edge
from sipserver.edge.rtpengine import Rtpengine
from sipserver.fleet.process import become_subreaper, node_name, set_process_name
from sipserver.fleet.programs import Program
from sipserver.fleet.supervisor import State, Supervisor
from sipserver.open_files import raise_limit
from sipserver.settings import Settings
from sipserver.trunks import secrets


def run(loaded: Settings, settings_file: Path) -> int:
    """Supervise until a signal says stop; returns the exit code. Raises ConfigError, InternalError."""
    node = node_name(loaded)
    log.setup(loaded.log.level, loaded.log.format, loaded.log.private, process="supervisor", node=node)
    raise_limit()
    become_subreaper()
    set_process_name("sipserver-fleet")
    with log.background():
        uvloop.run(serve(lambda: build(loaded, settings_file.resolve(), node)))
    return 0


def build(loaded: Settings, settings_file: Path, node: str) -> Supervisor:
    """The supervisor with what the settings name: its bus, its edge, its media relay. Loop thread. Raises SettingsError
    for a trunk without its password, and for recordings without a key.

    What systemd runs (`edge.run_by`) is used, but neither started nor stopped.
    """
    secrets.check(loaded.trunks, os.environ)
    keyring.load(loaded.calls.encryption)
    bus = table.make(loaded.bus, node=node, run=uuid.uuid4().hex)
    wanted = loaded.edge
    if not wanted.enabled:
        return Supervisor(loaded, settings_file, bus)
    edge = Edge(wanted, loaded.trunks, loaded.sip.codecs)
    servers: dict[str, Edge | Rtpengine] = {"edge": edge}
    if wanted.rtpengine is not None:
        servers["rtpengine"] = Rtpengine(wanted.rtpengine, wanted.folder)
    programs: dict[str, Program] = {
        name: Adopted(server, f"sipserver-{name}.service") if wanted.run_by == "systemd" else server
        for name, server in servers.items()
    }
    return Supervisor(loaded, settings_file, bus, edge=edge, programs=programs)


async def serve(make: Callable[[], Supervisor]) -> None:
    """SIGTERM and SIGINT drain and stop; a second one ends the running calls. SIGHUP reloads the dialplans, SIGUSR2
    restarts all processes, one after the other, without losing a call.
    """
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    supervisor = make()

    async def body() -> None:
        async with supervisor.running():
            await stop.wait()

    work = asyncio.create_task(body(), name="supervisor")

    def asked_to_stop() -> None:
        if supervisor.state is State.STARTING:
            work.cancel()
        elif stop.is_set():
            supervisor.hurry()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_stop)
    loop.add_signal_handler(signal.SIGHUP, supervisor.reload)
    loop.add_signal_handler(signal.SIGUSR2, supervisor.ask_restart)
    try:
        await work
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
