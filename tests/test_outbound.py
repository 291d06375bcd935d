"""Orders become INVITEs by trunks: which ones, with what, and how many."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sipserver.bus.memory import MemoryBus
from sipserver.calls.outbound import Order, Way
from sipserver.errors import CapacityError, CarrierError, NotAllowed
from sipserver.outbound import TrunkOutbound
from sipserver.trunks.settings import TrunkSettings
from tests.fakes.leg import breathe
from tests.fakes.outbound import PlacedLeg
from tests.fakes.virtual_time import virtual
from tests.trunks.make import trunk


class EndingLeg(PlacedLeg):
    async def ended(self) -> None:
        await self.go_on.wait()


class FakeCell:
    """dialled: what was asked for. fails: raised instead of the next leg."""

    def __init__(self) -> None:
        self.dialled: list[tuple[str, dict[str, Any]]] = []
        self.legs: list[EndingLeg] = []
        self.fails: Exception | None = None

    async def dial(self, uri: str, **facts: Any) -> EndingLeg:
        self.dialled.append((uri, facts))
        if self.fails is not None:
            raise self.fails
        self.legs.append(EndingLeg(uri))
        return self.legs[-1]


def placing(*trunks: TrunkSettings, limits: Any = None, down: tuple[str, ...] = ()) -> tuple[TrunkOutbound, FakeCell]:
    cell = FakeCell()
    outbound = TrunkOutbound(
        cell, trunks, "sipserver", own_address=lambda: "192.0.2.1:5060", limits=limits, down=lambda: down
    )
    return outbound, cell


def test_a_number_goes_by_its_trunk_and_those_after_it() -> None:
    outbound, _ = placing(trunk("one", failover=("two",)), trunk("two", number_format="e164"))
    order = Order("+4930123456", from_user="+4930999", headers={"X-Case": "7", "Subject": "no"})
    ways = outbound.ways(order, "acme")
    assert [(way.uri, way.trunk) for way in ways] == [
        ("sip:+4930123456@one.example", "one"),
        ("sip:4930123456@two.example", "two"),
    ]
    assert all(way.headers == {"X-Case": "7"} for way in ways)
    assert [way.from_uri.partition("@")[2] for way in ways] == ["one.example", "two.example"]


def test_a_trunk_that_is_down_comes_last() -> None:
    outbound, _ = placing(trunk("one", failover=("two",)), trunk("two"), down=("one",))
    assert [way.trunk for way in outbound.ways(Order("+4930123456"), "acme")] == ["two", "one"]


def test_without_trunks_addresses_can_be_called_and_numbers_cannot() -> None:
    outbound, _ = placing()
    assert outbound.ways(Order("sip:200@192.0.2.7", from_display="Acme"), "acme") == [
        Way("sip:200@192.0.2.7", from_uri="sip:sipserver@192.0.2.1:5060", from_display="Acme")
    ]
    (way,) = outbound.ways(Order("sip:200@192.0.2.7", from_user="10 0"), "acme")
    assert way.from_uri == "sip:10%200@192.0.2.1:5060"
    with pytest.raises(NotAllowed, match="no trunk places calls"):
        outbound.ways(Order("+4930123456"), "acme")


@virtual
async def test_the_cell_is_given_all_of_the_way() -> None:
    outbound, cell = placing(trunk())
    way = Way("sip:1@carrier.example", "carrier", "sip:2@carrier.example", "Two", {"X-A": "b"})
    leg = await outbound.dial(way, timeout_s=7)
    assert leg is cell.legs[0]
    facts = {"headers": {"X-A": "b"}, "from_uri": "sip:2@carrier.example", "from_display": "Two"}
    assert cell.dialled == [("sip:1@carrier.example", {**facts, "trunk": "carrier", "timeout_s": 7})]
    await outbound.close()


# --- how many ---------------------------------------------------------------------------------------------------------

WAY = Way("sip:1@carrier.example", "carrier")


@virtual
async def test_a_trunk_has_so_many_places_and_each_comes_back_with_the_end_of_its_leg() -> None:
    limits = MemoryBus(node="here", run="r1").limits
    outbound, cell = placing(trunk(limits={"calls": 2}), limits=limits)
    for _ in range(2):
        await outbound.dial(WAY, timeout_s=1)
    with pytest.raises(CarrierError, match="trunk/carrier has 2 calls") as full:
        await outbound.dial(WAY, timeout_s=1)
    assert full.value.status == 503
    assert len(cell.dialled) == 2
    cell.legs[0].refuses(486)
    await breathe()
    await outbound.dial(WAY, timeout_s=1)
    await outbound.close()
    assert await limits.take({"trunk/carrier": 1}) is None


@virtual
async def test_an_invite_that_is_not_sent_takes_no_place() -> None:
    outbound, cell = placing(trunk(limits={"calls": 1}), limits=MemoryBus(node="here", run="r1").limits)
    for problem in (CapacityError("full"), CarrierError("no transport")):
        cell.fails = problem
        with pytest.raises(type(problem)):
            await outbound.dial(WAY, timeout_s=1)
    cell.fails = None
    await outbound.dial(WAY, timeout_s=1)
    await outbound.close()


@virtual
async def test_a_trunk_is_called_so_often_a_second() -> None:
    outbound, cell = placing(trunk(limits={"calls_per_s": 2}), trunk("other"))
    for _ in range(2):
        await outbound.dial(WAY, timeout_s=1)
    with pytest.raises(CarrierError, match="2 times a second") as fast:
        await outbound.dial(WAY, timeout_s=1)
    assert fast.value.status == 503
    await outbound.dial(Way("sip:1@other.example", "other"), timeout_s=1)
    await asyncio.sleep(0.5)
    await outbound.dial(WAY, timeout_s=1)
    with pytest.raises(CarrierError):
        await outbound.dial(WAY, timeout_s=1)
    await asyncio.sleep(100)
    for _ in range(2):
        await outbound.dial(WAY, timeout_s=1)
    with pytest.raises(CarrierError):
        await outbound.dial(WAY, timeout_s=1)
    assert len(cell.dialled) == 6
    await outbound.close()
