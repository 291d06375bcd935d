"""Placing calls: joins the choice of a trunk with the cell that sends the INVITE, and counts each trunk's calls.

Satisfies `calls.outbound.Outbound`. Owns the places that calls which we place take in their trunks, and the pace at
which trunks are called. Refuses to know why somebody is called and what is said to a refusal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol
from urllib.parse import quote

from sipserver.calls.leg import Leg
from sipserver.calls.limits import Limits, Places
from sipserver.calls.outbound import Order, Way
from sipserver.errors import CarrierError, NotAllowed
from sipserver.trunks.choice import TrunkChoice
from sipserver.trunks.settings import TrunkSettings

_FULL = 503
_USER_SAFE = "-_.!~*'()&=+$,;?/"  # RFC 3261, section 25.1


class PlacedLeg(Leg, Protocol):
    """A leg of the cell, which can be asked for its end."""

    async def ended(self) -> object:
        """Wait until the leg is gone."""
        ...


class Dials(Protocol):
    """Whoever sends the INVITE, as `sip.cell.Cell` does."""

    async def dial(
        self,
        uri: str,
        *,
        headers: Mapping[str, str] | None = None,
        from_uri: str = "",
        from_display: str = "",
        trunk: str = "",
        timeout_s: float = 60.0,
    ) -> PlacedLeg: ...


class TrunkOutbound:
    """Loop thread. `close` when the cell has stopped.

    trunks: in the order of the settings. own_user: `sip.user`. own_address: `host:port` of From where no trunk says
    otherwise, once the cell runs. limits: who counts a trunk's calls; None: nobody does. down: the names of trunks that
    do not work at this moment: the others are tried first.
    """

    def __init__(
        self,
        cell: Dials,
        trunks: Iterable[TrunkSettings],
        own_user: str,
        *,
        own_address: Callable[[], str],
        limits: Limits | None = None,
        down: Callable[[], Collection[str]] = frozenset,
    ) -> None:
        self._cell, self._limits, self._down = cell, limits, down
        self._own_user, self._own_address = own_user, own_address
        self._trunks = {trunk.name: trunk for trunk in trunks}
        self._all = TrunkChoice(self._trunks.values(), own_user)
        self._choices: dict[str, TrunkChoice] = {}
        self._paces = {name: _Pace(trunk.limits.calls_per_s) for name, trunk in self._trunks.items()}
        self._watches: set[asyncio.Task[None]] = set()

    def ways(self, order: Order, tenant: str) -> Sequence[Way]:
        """See `calls.outbound.Outbound`. By trunks that serve the tenant; an address of another one's is refused."""
        owner = self._all.owner(order.to)
        if owner is not None and not owner.serves(tenant):
            raise NotAllowed("no trunk carries calls to this address")
        routes = self._choice_of(tenant).routes(
            order.to,
            trunk=order.trunk,
            from_user=order.from_user,
            from_display=order.from_display,
            headers=order.headers,
            down=self._down(),
        )
        return [
            Way(route.uri, route.trunk, route.from_uri, route.from_display, route.headers)
            if route.trunk
            else Way(route.uri, "", self._own_from(order), order.from_display, route.headers)
            for route in routes
        ]

    def _choice_of(self, tenant: str) -> TrunkChoice:
        """Among the trunks that serve the tenant."""
        if tenant not in self._choices:
            serving = [trunk for trunk in self._trunks.values() if trunk.serves(tenant)]
            self._choices[tenant] = TrunkChoice(serving, self._own_user)
        return self._choices[tenant]

    async def dial(self, way: Way, *, timeout_s: float) -> Leg:
        """See `calls.outbound.Outbound`. A trunk whose places are all taken, or that is called too often, is told as
        CarrierError 503: the next one may do.
        """
        places = await self._place(way.trunk)
        try:
            leg = await self._cell.dial(
                way.uri,
                headers=way.headers,
                from_uri=way.from_uri,
                from_display=way.from_display,
                trunk=way.trunk,
                timeout_s=timeout_s,
            )
        except BaseException:
            places.give_back()
            raise
        watch = asyncio.create_task(_until_gone(leg), name=f"place in {way.trunk or 'no trunk'}")
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)
        watch.add_done_callback(lambda _: places.give_back())
        return leg

    async def close(self) -> None:
        """Give back what legs still hold."""
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)

    async def _place(self, name: str) -> Places:
        places = Places(self._limits)
        trunk = self._trunks.get(name)
        if trunk is None:
            return places
        if not self._paces[name].take():
            raise CarrierError(f"{name} is called {trunk.limits.calls_per_s} times a second already", _FULL)
        if trunk.limits.calls:
            full = await places.take({f"trunk/{name}": trunk.limits.calls})
            if full is not None:
                raise CarrierError(f"{full.scope} has {full.limit} calls", _FULL)
        return places

    def _own_from(self, order: Order) -> str:
        user = quote(order.from_user, safe=_USER_SAFE) if order.from_user else self._own_user
        return f"sip:{user}@{self._own_address()}"


async def _until_gone(leg: PlacedLeg) -> None:
    await leg.ended()


class _Pace:
    """So many a second, and as many at once; 0: no limit. Loop thread."""

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._left = float(per_s)
        self._at_s: float | None = None

    def take(self) -> bool:
        if not self._per_s:
            return True
        now_s = asyncio.get_running_loop().time()
        rest_s = 0.0 if self._at_s is None else now_s - self._at_s
        self._left, self._at_s = min(float(self._per_s), self._left + rest_s * self._per_s), now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True
