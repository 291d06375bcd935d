"""A cell of the fleet: an exchange that takes its calls from the edge and tells its records to the journal.

Owns what a cell process consists of and the order in which it starts and ends. Refuses to know models and databases:
speech workers and the records writer have them.
"""

from __future__ import annotations

import contextlib
from typing import Any

from sipserver import engines
from sipserver.audio import hold_music
from sipserver.bus import table
from sipserver.bus.contract import Bus, Json
from sipserver.calls.commands import CallCommands
from sipserver.dialplan import watch
from sipserver.dialplan.watch import Snapshot
from sipserver.edge import outside
from sipserver.engines import EngineRoom
from sipserver.exchange import Exchange
from sipserver.fleet import speech
from sipserver.fleet.control import Control
from sipserver.fleet.presence import Presence
from sipserver.fleet.process import ChildSpec
from sipserver.fleet.registrar import REGISTER_AGAIN, TRUNKS, Registrar
from sipserver.settings import Settings
from sipserver.store.journal_sink import JournalSink

FLUSH_S = 5.0
"""How long the end of a cell waits for the bus to take its last entries; the rest is in the spool."""


def preload(settings: Settings, strict: bool) -> Snapshot:
    """The dialplans, read once for all cells, the libraries that all of them will use, and the music on hold that they
    share. Raises DialplanError.
    """
    engines.preload(settings)
    hold_music.gentle()
    table.preload(settings.bus)
    return watch.snapshot(settings.dialplans, strict=strict)


async def main(spec: ChildSpec, control: Control) -> None:
    """Take calls until told to drain."""
    settings = cell_settings(spec)
    bus = table.make(settings.bus, node=spec.node, run=spec.run)
    presence = Presence(bus, spec.name)
    exchange = Exchange(
        settings,
        EngineRoom(settings, speech.uris(settings)),
        JournalSink(spec.node, spec.run, bus.journal.tell),
        listeners=(presence.observe,),
        limits=bus.limits,
        snapshot=spec.warm,
        capacity_hint=spec.capacity,
        claims=bus.leases,
    )

    def facts() -> dict[str, Any]:
        now = beat(exchange)
        presence.beat(now)
        return {**now, "journal": bus.journal.depth, "bus_up": bus.up}

    registrar = Registrar(bus, exchange.cell.trunks)
    commands = CallCommands(exchange.registry)

    async def handle(verb: str, arguments: Json) -> Json:
        if verb == REGISTER_AGAIN:
            return await registrar.again()
        if verb == TRUNKS:
            return {"trunks": list(exchange.trunk_states())}
        return await commands.handle(verb, arguments)

    async def drain(deadline_s: float) -> None:
        await registrar.close()
        await exchange.drain(deadline_s)

    async with contextlib.AsyncExitStack() as stack:
        await bus.open()
        stack.push_async_callback(_close, bus)
        await presence.open(handle)
        stack.push_async_callback(presence.close)
        await stack.enter_async_context(exchange.running())
        if any(trunk.register_ is not None or trunk.keepalive_s for trunk in settings.trunks):
            registrar.open()
            stack.push_async_callback(registrar.close)
        control.beat_with(facts)
        await control.ready(sip_port=exchange.cell.sip_port, calls=exchange.cell.inbound_limit)
        await control.obey(
            drain=drain,
            hurry=exchange.hurry,
            reload=lambda: exchange.start_task(_refresh(exchange), "refresh"),
        )


def cell_settings(spec: ChildSpec) -> Settings:
    """The settings with this cell's own sockets. It hears the edge alone: our own, and those that `sip.allow` names."""
    sip, edge = spec.settings.sip, spec.settings.edge
    own = {
        "host": spec.host,
        "port": spec.sip_port,
        "rtp_ports": spec.rtp_ports,
        "inbound_calls": spec.inbound_calls,
        "behind_edge": True,
        "tcp": False,
        "allow": (*sip.allow, edge.inside),
        "edge_route": outside.route(edge).strip("<>"),
    }
    return spec.settings.model_copy(update={"sip": sip.model_copy(update=own)})


def beat(exchange: Exchange) -> dict[str, Any]:
    """What a cell tells about itself every second; ages in milliseconds."""
    ages = {f"{part}_age_ms": round(age_s * 1000) for part, age_s in exchange.tick_age_s().items()}
    return {"calls": len(exchange.registry.calls), **ages}


async def _refresh(exchange: Exchange) -> None:
    await exchange.watcher.refresh()


async def _close(bus: Bus) -> None:
    await bus.journal.flush(FLUSH_S)
    await bus.close()
