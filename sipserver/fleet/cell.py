"""A cell of the fleet: it takes its calls from the edge, and one of all cells registers the trunks.

Owns what a cell does beyond having calls. Refuses to know how calls, records and commands come together: `switch` does.
"""

from __future__ import annotations

import contextlib
from importlib import import_module

from sipserver import engines
from sipserver.audio import hold_music
from sipserver.bus import table
from sipserver.bus.contract import Json
from sipserver.dialplan import watch
from sipserver.dialplan.watch import Snapshot
from sipserver.fleet.control import Control
from sipserver.fleet.process import ChildSpec
from sipserver.fleet.registrar import REGISTER_AGAIN, TRUNKS, Registrar
from sipserver.fleet.switch import Switch
from sipserver.settings import Settings


def preload(settings: Settings, strict: bool) -> Snapshot:
    """The dialplans, read once for all cells, the libraries that all of them will use, and the music on hold that they
    share. Raises DialplanError.
    """
    engines.preload(settings)
    if settings.calls_by_http:
        import_module("sipserver.doors")  # gateways have calls then, too
    hold_music.gentle()
    table.preload(settings.bus)
    return watch.snapshot(settings.dialplans, strict=strict, most_agents=settings.most_agents)


async def main(spec: ChildSpec, control: Control) -> None:
    """Take calls until told to drain."""

    async def again() -> Json:
        return await registrar.again()

    async def trunks() -> Json:
        return {"trunks": list(exchange.trunk_states())}

    switch = Switch(spec, {REGISTER_AGAIN: again, TRUNKS: trunks})
    exchange = switch.exchange
    registrar = Registrar(switch.bus, exchange.cell.trunks)

    async def drain(deadline_s: float) -> None:
        await registrar.close()
        await exchange.drain(deadline_s)

    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(switch.running())
        if any(trunk.register_ is not None or trunk.keepalive_s for trunk in switch.settings.trunks):
            registrar.open()
            stack.push_async_callback(registrar.close)
        control.beat_with(switch.facts)
        await control.ready(sip_port=exchange.cell.sip_port, calls=exchange.cell.inbound_limit)
        await control.obey(drain=drain, hurry=exchange.hurry, reload=switch.reload)
