"""Questions to calls and trunks, wherever they live: in this process, or anywhere in a fleet.

Owns who is asked, and in which order when a new call may begin anywhere. Refuses to know what is asked
(`calls.commands`) and who wants to know.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from sipserver.bus.contract import Bus, Handler, Json
from sipserver.errors import BusDown, CapacityError, Draining, NotFound, RemoteError, SipServerError
from sipserver.fleet.registrar import LEASE, TRUNKS

ANSWER_S = 5.0
_NO_ROOM = frozenset({CapacityError.__name__, Draining.__name__})


class Asking(Protocol):
    """Calls of one process or of many. Loop thread."""

    async def originate(self, wanted: Json) -> str:
        """The id of a call that is on its way. wanted: the fields of `calls.commands.Originate`. Raises what it raises,
        also as RemoteError, and CapacityError when nobody can place one.
        """
        ...

    async def ask(self, call_id: str, verb: str, **arguments: Any) -> Json:
        """Raises NotFound or UnknownCall (http_code 404) when no such call lives, BusDown, or what was raised there."""
        ...

    async def live(self) -> Sequence[Json]:
        """The calls that live now, as `calls.commands.describe` has them. Raises BusDown."""
        ...

    async def trunks(self) -> Sequence[Json]:
        """The trunks, as `exchange.trunk_states` has them. Raises BusDown, CapacityError when no cell runs."""
        ...


class Here:
    """In one process, whose commands are at hand or behind a socket."""

    def __init__(self, handler: Handler, trunks: Callable[[], Sequence[Json]] = tuple) -> None:
        self._handler, self._trunks = handler, trunks

    async def originate(self, wanted: Json) -> str:
        return str((await self._handler("originate", wanted))["call"])

    async def ask(self, call_id: str, verb: str, **arguments: Any) -> Json:
        return await self._handler(verb, {"call": call_id, **arguments})

    async def live(self) -> Sequence[Json]:
        return list((await self._handler("calls", {}))["calls"])

    async def trunks(self) -> Sequence[Json]:
        return self._trunks()


class Everywhere:
    """In all processes of a fleet, over its bus."""

    def __init__(self, bus: Bus, *, answer_s: float = ANSWER_S) -> None:
        self._bus, self._answer_s = bus, answer_s

    async def originate(self, wanted: Json) -> str:
        """Processes are asked one after the other, the emptiest first; one without a free leg says so at once."""
        runs = await self._bus.leases.find("run/")
        refusals = []
        for key in sorted(runs, key=lambda key: int(runs[key].get("calls", 0))):
            address = f"run:{key.removeprefix('run/')}"
            try:
                answer = await self._bus.commands.ask(address, "originate", wanted, timeout_s=self._answer_s)
            except RemoteError as refusal:  # after any other failure the call may be under way
                if refusal.name not in _NO_ROOM:
                    raise
                refusals.append(refusal.text)
            except NotFound as problem:
                refusals.append(str(problem))
            else:
                return str(answer["call"])
        raise CapacityError(f"no cell can place the call: {refusals[0]}" if refusals else "no cell of the fleet runs")

    async def ask(self, call_id: str, verb: str, **arguments: Any) -> Json:
        wanted = {"call": call_id, **arguments}
        return await self._bus.commands.ask(f"call:{call_id}", verb, wanted, timeout_s=self._answer_s)

    async def live(self) -> Sequence[Json]:
        """A process that dies meanwhile has none. Each call has the `node` and `cell` where it is."""
        runs = await self._bus.leases.find("run/")
        found = await asyncio.gather(*(self._of(key.removeprefix("run/"), value) for key, value in runs.items()))
        return [call for calls in found for call in calls]

    async def trunks(self) -> Sequence[Json]:
        """Of the cell that registers, or, where nothing is to be registered, of any."""
        holder = await self._bus.leases.get(LEASE)
        runs = [key.removeprefix("run/") for key in await self._bus.leases.find("run/")]
        for run in [*([str(holder["run"])] if holder is not None else []), *runs]:
            with contextlib.suppress(NotFound, RemoteError):  # it has just ended, or is a gateway, which has no trunks
                answer = await self._bus.commands.ask(f"run:{run}", TRUNKS, {}, timeout_s=self._answer_s)
                return list(answer["trunks"])
        raise CapacityError("no cell of the fleet runs")

    async def _of(self, run: str, where: Json) -> Sequence[Json]:
        try:
            answer = await self._bus.commands.ask(f"run:{run}", "calls", {}, timeout_s=self._answer_s)
        except BusDown:
            raise
        except SipServerError:
            return []
        return [{**call, "node": where["node"], "cell": where["name"]} for call in answer["calls"]]
