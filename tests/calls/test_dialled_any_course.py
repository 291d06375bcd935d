"""Whatever trunks, the far ends and the caller do in whatever order: one end is told, one answer at most, and no leg is
left behind.
"""

from __future__ import annotations

import asyncio
import random

import pytest

from sipserver.calls.dialled import DialledLeg
from sipserver.calls.outbound import Order
from sipserver.errors import CapacityError, CarrierError, SipServerError
from sipserver.events import Event, LegAnswered, LegDisconnected, LegProgress, PartyDialed
from tests.fakes.leg import breathe
from tests.fakes.outbound import FakeOutbound, PlacedLeg
from tests.fakes.virtual_time import virtual

STATUSES = [0, 302, 404, 408, 480, 486, 500, 503, 603]


def far_end(chance: random.Random, leg: PlacedLeg) -> None:
    """Something that a far end could do at any moment."""
    match chance.randrange(8):
        case 0 if not leg.gone and not leg.answered:
            leg.picks_up()
        case 1 | 2 if not leg.answered:
            leg.refuses(chance.choice(STATUSES), "Sorry")
        case 3 if leg.answered:
            leg.peer_leaves()
        case 4 | 5 if not leg.gone:
            leg.tell(LegProgress(code=chance.choice([100, 180, 183]), media=chance.random() < 0.5))
        case _:
            pass


@pytest.mark.parametrize("seed", range(100))
def test_it_ends_once_and_leaves_no_leg(seed: int) -> None:
    @virtual
    async def course() -> None:
        chance = random.Random(seed)
        problems: list[SipServerError | None] = [None, None, CarrierError("no transport", chance.choice([0, 503]))]
        fails = [chance.choice([*problems, CapacityError("full")]) for _ in range(3)]
        outbound = FakeOutbound("one", "two", "three", fails=fails)
        outbound.slow = chance.random() < 0.3
        leg = DialledLeg(outbound, Order("+4930123", ring_s=chance.choice([3, 10, 30])), "acme", party="party-1")
        events: list[Event] = []
        leg.attach(events.append, lambda *_: None)
        answering = asyncio.create_task(leg.answer(), name="answering")
        for _ in range(chance.randrange(1, 30)):
            await asyncio.sleep(chance.choice([0, 0.1, 1, 2]))
            for placed in outbound.legs:
                far_end(chance, placed)
            match chance.randrange(20):
                case 0:
                    answering.cancel()
                case 1:
                    await leg.hangup()
                case 2 | 3 | 4:
                    outbound.go_on.set()
        outbound.go_on.set()
        await breathe()
        await asyncio.sleep(chance.choice([0, 60]))
        await leg.hangup()
        await breathe()
        await asyncio.gather(answering, return_exceptions=True)

        assert all(placed.gone for placed in outbound.legs)
        kinds = [type(event) for event in events]
        assert kinds.count(LegDisconnected) == 1
        assert kinds[-1] is LegDisconnected
        assert kinds.count(LegAnswered) <= 1
        assert kinds.count(PartyDialed) <= len(outbound.dialled) <= 3
        if not answering.cancelled() and answering.exception() is None:
            assert kinds.count(LegAnswered) == 1
        elif not answering.cancelled():
            assert isinstance(answering.exception(), CarrierError)

    course()
