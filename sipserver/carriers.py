"""Calls that carriers' accounts place for us, beside those that go by trunks: who takes which order.

Satisfies `calls.outbound.Outbound`. An order that names an account of `streams` goes there, every other one to the
trunks. Refuses to know trunks, carriers and SIP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from sipserver.calls.leg import Leg
from sipserver.calls.outbound import Order, Outbound, Way


class Carrier(Protocol):
    """An account by which calls are placed, as `streams.vonage_outbound.VonageOutbound` is."""

    def check(self, to: str) -> None:
        """Raises NotAllowed, with the reason, for what it cannot call."""
        ...

    async def dial(
        self, to: str, *, from_user: str = "", timeout_s: float, headers: Mapping[str, str] | None = None
    ) -> Leg: ...


class Carriers:
    """Loop thread. carriers: by the name of their account; more may be added while it is in use."""

    def __init__(self, trunks: Outbound, carriers: dict[str, Carrier] | None = None) -> None:
        self._trunks = trunks
        self.carriers: dict[str, Carrier] = {} if carriers is None else carriers

    def ways(self, order: Order, tenant: str) -> Sequence[Way]:
        """See `calls.outbound.Outbound`. An account is asked alone: no trunk fails over to it."""
        carrier = self.carriers.get(order.trunk)
        if carrier is None:
            return self._trunks.ways(order, tenant)
        carrier.check(order.to)
        return [Way(order.to, order.trunk, order.from_user, order.from_display, order.headers)]

    async def dial(self, way: Way, *, timeout_s: float) -> Leg:
        """See `calls.outbound.Outbound`."""
        carrier = self.carriers.get(way.trunk)
        if carrier is None:
            return await self._trunks.dial(way, timeout_s=timeout_s)
        return await carrier.dial(way.uri, from_user=way.from_uri, timeout_s=timeout_s, headers=way.headers)
