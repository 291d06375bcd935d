"""Whoever places calls, by script: the legs that it gives out are driven by the test."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from sipserver.calls.outbound import Order, Way
from sipserver.errors import CallerError, CarrierError, SipServerError
from sipserver.events import LegAnswered, LegDisconnected, LegProgress
from tests.fakes.leg import FakeLeg, FakeOffer, breathe


class PlacedLeg(FakeLeg):
    """A leg that we place, as `sip` has them: `answer` waits for the far end. Nothing of it happens by itself."""

    def __init__(self, to_uri: str = "sip:200@127.0.0.1", sip_call_id: str = "placed@127.0.0.1") -> None:
        super().__init__(
            FakeOffer(
                direction="outbound",
                from_uri="sip:100@127.0.0.1",
                from_user="100",
                to_uri=to_uri,
                to_user=to_uri.partition(":")[2].partition("@")[0],
                source=to_uri.rpartition("@")[2],
                sip_call_id=sip_call_id,
            )
        )
        self.answered = False
        self.cause = ""

    async def answer(self) -> None:
        await self.go_on.wait()
        if self.gone:
            raise CarrierError(f"the leg is gone: {self.cause}", self.refusal)

    def progress(self, code: int = 180, *, media: bool = False) -> None:
        """The far end's provisional answer."""
        self.media = self.media or media
        self.tell(LegProgress(code=code, media=media))

    def picks_up(self) -> None:
        """200 from the far end."""
        self.answered = self.media = True
        self.tell(LegAnswered())
        self.go_on.set()

    def refuses(self, code: int, cause: str = "", *, by_peer: bool = True) -> None:
        """A final answer from the far end, or PJSIP's own when nobody is there."""
        if not self.gone:
            self._is_over(code, cause)
            self.tell(LegDisconnected(code=code, cause=cause, by_peer=by_peer))

    def times_out(self) -> None:
        """The time that the order allows is over: what the cell does then."""
        if not self.answered:
            self.refuses(408, "no answer", by_peer=False)

    def peer_leaves(self) -> None:
        self._is_over(200, "Normal", gone=False)
        super().peer_leaves()

    def _is_over(self, code: int, cause: str, *, gone: bool = True) -> None:
        self.refusal, self.cause, self.gone = code, cause, self.gone or gone
        self.go_on.set()

    def _leave(self, action: str, code: int) -> None:
        if not self.gone:
            self.refusal = 200 if self.answered else 487
            self.go_on.set()
        super()._leave(action, self.refusal)


class FakeOutbound:
    """trunks: names of the trunks that carry every order, in this order. dialled: the ways that were taken, with the
    time that was left. legs: what was given out for them. fails: what the next `dial`s raise instead, None for a leg.
    refuses: what `ways` raises. slow: `dial` waits for `go_on`, as while the INVITE is on its way to the sip thread.
    """

    def __init__(self, *trunks: str, fails: Sequence[SipServerError | None] = ()) -> None:
        self.trunks = trunks or ("carrier",)
        self.fails = list(fails)
        self.refuses: CallerError | None = None
        self.orders: list[tuple[Order, str]] = []
        self.dialled: list[tuple[Way, float]] = []
        self.legs: list[PlacedLeg] = []
        self.slow = False
        self.go_on = asyncio.Event()
        self._changed = asyncio.Event()

    def ways(self, order: Order, tenant: str) -> Sequence[Way]:
        self.orders.append((order, tenant))
        if self.refuses is not None:
            raise self.refuses
        trunks = [trunk for trunk in self.trunks if trunk == order.trunk] if order.trunk else self.trunks
        return [Way(_uri(order.to, trunk), trunk, headers=_plain(order.headers)) for trunk in trunks]

    async def dial(self, way: Way, *, timeout_s: float) -> PlacedLeg:
        self.dialled.append((way, timeout_s))
        if self.slow:
            await self.go_on.wait()
        problem = self.fails.pop(0) if self.fails else None
        if problem is not None:
            raise problem
        leg = PlacedLeg(way.uri, f"{len(self.legs) + 1}@placed")
        self.legs.append(leg)
        asyncio.get_running_loop().call_later(timeout_s, leg.times_out)
        self._changed.set()
        return leg

    async def leg(self, count: int = 1) -> PlacedLeg:
        """The count-th leg that was given out, once it was and whoever wanted it has had time to attach to it."""
        while len(self.legs) < count:
            self._changed.clear()
            await self._changed.wait()
        await breathe()
        return self.legs[count - 1]


def _uri(to: str, trunk: str) -> str:
    return to if to.startswith("sip:") else f"sip:{to}@{trunk}.example"


def _plain(headers: Mapping[str, str]) -> dict[str, str]:
    return dict(headers)
