"""What processes of the fleet that have calls have in common: an exchange whose records go to the journal, and an ear
for commands.

A cell is one that takes calls from the edge; a gateway is one whose calls come by HTTP, and which calls telephones by
the edge. Owns the order in which these parts start and end. Refuses to know models and databases: speech workers and
the records writer have them.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from sipserver import allowing
from sipserver.bus import table
from sipserver.bus.contract import Bus, Json
from sipserver.calls.commands import CallCommands
from sipserver.calls.services import Listener
from sipserver.edge import outside
from sipserver.engines import EngineRoom
from sipserver.exchange import Exchange
from sipserver.fleet import speech
from sipserver.fleet.presence import Presence
from sipserver.fleet.process import ChildSpec
from sipserver.journal import Entry
from sipserver.settings import Settings
from sipserver.store.journal_sink import JournalSink
from sipserver.webhooks.wanted import Wanted

FLUSH_S = 5.0
"""How long the end of a process waits for the bus to take its last entries; the rest is in the spool."""

Verb = Callable[[], Awaitable[Json]]


class Switch:
    """Loop thread. `running` for the length of an `async with` block.

    verbs: what it answers beside commands to calls. listeners: who else is told what happens in calls.
    """

    def __init__(
        self, spec: ChildSpec, verbs: Mapping[str, Verb] | None = None, *, listeners: tuple[Listener, ...] = ()
    ) -> None:
        self.settings = settings = inside_settings(spec)
        self.bus: Bus = table.make(settings.bus, node=spec.node, run=spec.run)
        self._presence = Presence(self.bus, spec.name)
        self._wanted = Wanted()
        self._verbs = dict(verbs or {})
        self.exchange = Exchange(
            settings,
            EngineRoom(settings, speech.uris(settings)),
            JournalSink(spec.node, spec.run, self._tell),
            listeners=(self._presence.observe, *listeners),
            limits=self.bus.limits,
            allowances=allowing.of(settings, self.bus),
            snapshot=spec.warm,
            capacity_hint=spec.capacity,
            claims=self.bus.leases,
        )
        self._commands = CallCommands(self.exchange.registry)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The bus, the presence on it, the exchange. Raises ConfigError, CarrierError (a port is taken)."""
        async with contextlib.AsyncExitStack() as stack:
            await self.bus.open()
            stack.push_async_callback(self._close_bus)
            await self._presence.open(self._handle)
            stack.push_async_callback(self._presence.close)
            told = await self.bus.commands.serve("all", self._wanted.heed)
            stack.push_async_callback(told.close)
            await stack.enter_async_context(self.exchange.running())
            yield

    def facts(self) -> dict[str, Any]:
        """What the process tells about itself with every beat."""
        now = beat(self.exchange)
        self._presence.beat(now)
        return {**now, "journal": self.bus.journal.depth, "bus_up": self.bus.up}

    def reload(self) -> None:
        """The dialplans have changed."""
        self.exchange.start_task(self._refresh(), "refresh")

    def _tell(self, entry: Entry) -> None:
        self.bus.live.tell(entry)
        self.bus.journal.tell(entry, soon=self._wanted(entry))

    async def _handle(self, verb: str, arguments: Json) -> Json:
        own = self._verbs.get(verb)
        return await own() if own is not None else await self._commands.handle(verb, arguments)

    async def _refresh(self) -> None:
        await self.exchange.watcher.refresh()

    async def _close_bus(self) -> None:
        await self.bus.journal.flush(FLUSH_S)
        await self.bus.close()


def inside_settings(spec: ChildSpec) -> Settings:
    """The settings with this process' own sockets. It hears edges alone: our own, and those that `sip.allow` names."""
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
    """What a process with calls tells about itself every second; ages in milliseconds."""
    ages = {f"{part}_age_ms": round(age_s * 1000) for part, age_s in exchange.tick_age_s().items()}
    return {"calls": len(exchange.registry.calls), **ages}
