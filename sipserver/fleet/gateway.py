"""A gateway of the fleet: HTTP for the whole machine, on a port that all gateways share.

Owns what it knows of the supervisor and of the records writer, and asks again every second; and, where the settings let
calls come by HTTP, the switch that has them. Refuses to know how they come: `doors` does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web

from sipserver.api.fleet_metrics import FleetMetrics
from sipserver.api.health import Check
from sipserver.api.rest.app import PREFIX
from sipserver.api.server import HttpServer
from sipserver.api.sounds.fetching import Fetching
from sipserver.api.sounds.giving import Giving
from sipserver.asking import Everywhere
from sipserver.bus import table
from sipserver.bus.contract import Bus
from sipserver.control_plane import ControlPlane
from sipserver.errors import InternalError
from sipserver.events import Stamped
from sipserver.fleet import admin
from sipserver.fleet.control import Control
from sipserver.fleet.process import ChildSpec
from sipserver.fleet.relay import Relay
from sipserver.fleet.switch import Switch
from sipserver.fleet.writer_process import metrics_socket
from sipserver.gate.gate import Gate
from sipserver.gate.tokens import Tokens, secret_of

if TYPE_CHECKING:
    from sipserver.doors import Doors

LOOK_S = 1.0
WRITER_S = 2.0
"""How long a scrape waits for the records writer, and for the supervisor's word about the edge."""


class Watch:
    """The newest facts of the supervisor; None while it does not answer. Loop thread. `run` until cancelled."""

    def __init__(self, spec: ChildSpec) -> None:
        self._runtime = spec.settings.fleet.runtime
        self.facts: Mapping[str, Any] | None = None

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        try:
            self.facts = await admin.ask(self._runtime, "facts")
        except InternalError:
            self.facts = None

    def checks(self) -> Sequence[Check]:
        """What a call to this machine needs. A bus or a supervisor that is away costs no call anything."""
        facts = self.facts
        if facts is None:
            return (Check("supervisor", False, "it does not answer"),)
        return (
            Check("cells", facts["cells_ready"] > 0, "no cell is ready"),
            Check("serving", facts["state"] == "serving", f"the fleet is {facts['state']}"),
        )


async def main(spec: ChildSpec, control: Control) -> None:
    """Answer HTTP until told to end."""
    settings = spec.settings
    watch = Watch(spec)
    connector = aiohttp.UnixConnector(str(metrics_socket(settings)))
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=WRITER_S))
        )

        async def counted() -> bytes | None:
            try:
                async with client.get("http://writer/metrics") as answer:
                    return await answer.read()
            except (aiohttp.ClientError, TimeoutError):
                return None

        async def edge() -> Mapping[str, Any]:
            try:
                return await admin.ask(settings.fleet.runtime, "edge", WRITER_S)
            except InternalError:
                return {}

        metrics = FleetMetrics(lambda: watch.facts, counted, edge)
        relay = Relay(settings.fleet.runtime, spec.run, settings.gate)
        switch, doors = _switch(spec, relay.home) if settings.calls_by_http else (None, None)
        plane, giving, event_routes = await _control_plane(
            spec, switch, doors, stack, lambda: all(check.ok for check in watch.checks())
        )
        http = HttpServer(
            settings.http,
            watch.checks,
            metrics,
            routes=[*(() if doors is None else doors.routes), *event_routes],
            reuse_port=True,
            side_path=None if doors is None else relay.socket,
            middlewares=() if doors is None else (relay.middleware(),),
            apps={} if plane is None else {PREFIX: plane.app},
        )
        if switch is not None and doors is not None:
            await stack.enter_async_context(relay.open())
            await stack.enter_async_context(switch.running())
            await stack.enter_async_context(doors.open())
            control.beat_with(switch.facts)
        if giving is not None:
            await giving.start()
            stack.push_async_callback(giving.stop)
        await http.start()
        stack.push_async_callback(http.stop)
        watching = asyncio.create_task(watch.run(), name="watch the supervisor")
        stack.push_async_callback(_cancel, watching)

        async def drain(within_s: float) -> None:
            """Requests in flight are finished when the server stops; another gateway has the port."""
            await http.close_door()
            if switch is not None:
                await switch.exchange.drain(within_s)

        await control.ready(http_port=http.port)
        if switch is None:
            await control.obey(drain=drain)
        else:
            await control.obey(drain=drain, hurry=switch.exchange.hurry, reload=switch.reload)


def _switch(spec: ChildSpec, home: str) -> tuple[Switch, Doors]:
    """What has the calls that come by HTTP, and the doors by which they come; `cell.preload` has imported these."""
    from sipserver.doors import Doors

    def observe(stamped: Stamped) -> None:
        doors.observe(stamped)

    switch = Switch(spec, listeners=(observe,))
    doors = Doors(switch.settings, switch.exchange, once=switch.bus.once, home=home)
    return switch, doors


async def _control_plane(
    spec: ChildSpec,
    switch: Switch | None,
    doors: Doors | None,
    stack: contextlib.AsyncExitStack,
    takes_calls: Callable[[], bool],
) -> tuple[ControlPlane | None, Giving | None, Sequence[web.RouteDef]]:
    """It asks calls over the bus, one of its own where the gateway has no calls; the door for sound that other machines
    want, not yet open; and the WebSocket of events, by a gate of its own there, too. None: the settings want none.
    """
    if not spec.settings.http.api:
        return None, None, ()
    if switch is not None:
        bus: Bus = switch.bus
    else:
        bus = table.make(spec.settings.bus, node=spec.node, run=spec.run)
        await bus.open()
        stack.push_async_callback(bus.close)
    fetching = Fetching(bus.leases, node=spec.node)
    stack.push_async_callback(fetching.close)
    plane = ControlPlane(
        spec.settings, Everywhere(bus), bus, takes_calls=takes_calls, bus_up=lambda: bus.up, elsewhere=fetching
    )
    stack.push_async_callback(plane.close)
    await plane.check()
    host, port = spec.settings.fleet.host, spec.settings.fleet.files_port
    giving = Giving(plane.sounds, bus.leases, node=spec.node, run=spec.run, host=host, port=port)
    if doors is not None:
        gate = doors.gate
    else:
        gate = Gate(spec.settings.gate, Tokens(secret_of(spec.settings.gate), bus.once))
        stack.push_async_callback(gate.close_all)
    return plane, giving, plane.events(gate, bus.live).routes()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
