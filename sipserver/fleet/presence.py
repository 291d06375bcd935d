"""What a cell shows of itself on the bus: that it lives, which calls it has, and an ear for commands about them.

Owns the leases `run/<run>` and `call/<call id>`. Refuses to know what the commands do.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from sipserver.bus.contract import Bus, Handler, Json, Lease
from sipserver.events import CallEnded, CallStarted, Stamped


class Presence:
    """Loop thread. `open`, then `observe` every event, `beat` now and then, `close`. A bus that is away holds nothing
    up: its leases come back by themselves.
    """

    def __init__(self, bus: Bus, name: str) -> None:
        self._bus, self._name = bus, name
        self._run: Lease | None = None
        self._calls: dict[str, Lease] = {}
        self._stack = AsyncExitStack()

    async def open(self, handler: Handler) -> None:
        """Be there for commands to this run; those for a call find it by the call's lease."""
        self._run = await self._bus.leases.hold(f"run/{self._bus.run}", self._value({}))
        self._stack.push_async_callback(self._run.close)
        serving = await self._bus.commands.serve(f"run:{self._bus.run}", handler)
        self._stack.push_async_callback(serving.close)

    def beat(self, facts: Json) -> None:
        """The newest facts about this process: what others read in its lease."""
        if self._run is not None:
            self._run.update(self._value(facts), soon=False)

    def observe(self, stamped: Stamped) -> None:
        """A listener for the events of all calls."""
        match stamped.event:
            case CallStarted():
                value = {"run": self._bus.run, "tenant": stamped.tenant}
                self._calls[stamped.call_id] = self._bus.leases.keep(f"call/{stamped.call_id}", value)
            case CallEnded():
                self._let_go(stamped.call_id)
            case _:
                pass

    async def close(self) -> None:
        """Let go of everything at once. Idempotent."""
        for call_id in list(self._calls):
            self._let_go(call_id)
        await self._stack.aclose()

    def _value(self, facts: Json) -> dict[str, Any]:
        return {"node": self._bus.node, "name": self._name, **facts}

    def _let_go(self, call_id: str) -> None:
        lease = self._calls.pop(call_id, None)
        if lease is not None:
            lease.drop()
