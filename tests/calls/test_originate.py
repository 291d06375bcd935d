"""Calls that we place, from the order to the record."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from sipserver import events
from sipserver.audio.frame import Samples
from sipserver.calls.commands import CallCommands
from sipserver.calls.outbound import Order
from sipserver.calls.registry import Registry
from sipserver.calls.states import EndReason, State
from sipserver.dialplan.book import Book
from sipserver.dialplan.steps import Amd
from sipserver.errors import (
    CallerError,
    CapacityError,
    CarrierError,
    Draining,
    NoRoute,
    NotAllowed,
    NotFound,
    SipServerError,
)
from sipserver.events import AnswererDetected, CallEnded, CallLimited, CallRouted, CallStarted, CallStateChanged, Fault
from tests.calls.conftest import Stage, outcomes
from tests.calls.test_amd import GREETING, HELLO, say
from tests.calls.test_registry import FakeLimits
from tests.fakes.leg import breathe
from tests.fakes.outbound import FakeOutbound, PlacedLeg

ORDER = Order("+4930123", ring_s=20)
FLOWS = "  main: [answer, {say: Good day.}, {wait: 60}]\n  other: [{wait: 60}]"


class Placing:
    """A registry that places calls by script."""

    def __init__(self, stage: Stage, outbound: FakeOutbound, **settings: Any) -> None:
        self.stage, self.outbound = stage, outbound
        stage.head = stage.head or 'targets: ["*"]'
        stage.plan(FLOWS)
        stage.outbound = outbound
        self.registry: Registry = stage.registry(**settings)

    def last(self) -> tuple[str, int]:
        """Reason and SIP code in the record of the only call."""
        (ended,) = self.stage.records.of(CallEnded)
        return ended.reason, ended.sip_code


@pytest.fixture
async def placing(stage: Stage) -> Placing:
    return Placing(stage, FakeOutbound("one", "two"))


async def test_an_answered_call_runs_its_flow_and_is_recorded_as_outbound(placing: Placing, stage: Stage) -> None:
    call = await placing.registry.originate(ORDER, tenant="acme", variables={"case": "7"})
    assert placing.registry.calls == {call.id: call}
    leg = placing.outbound.legs[0]
    await breathe()
    assert (call.state, outcomes(stage)) == (State.RINGING, [])
    leg.progress(180)
    leg.progress(183, media=True)
    assert call.state is State.EARLY
    leg.picks_up()
    await stage.until(lambda: "Good day." in stage.tts.texts, leg)
    assert call.answered
    leg.peer_leaves()
    assert await stage.ended(leg) == "callee_hangup"
    started = stage.records.of(CallStarted)[0]
    assert (started.direction, started.to_uri, started.sip_call_id) == (
        "outbound",
        "sip:+4930123@one.example",
        "1@placed",
    )
    assert stage.records.of(CallRouted) == [CallRouted(route=0, flow="main", why="to=*")]
    assert [change.new for change in stage.records.of(CallStateChanged)] == ["early", "answered", "ending", "ended"]
    assert [name for name, _ in stage.records.calls] == ["started", "answered", "ended"]
    assert placing.last() == ("callee_hangup", 200)
    assert placing.outbound.orders == [(ORDER, "acme")]


async def test_our_hangup_is_a_bye(placing: Placing, stage: Stage) -> None:
    call = await placing.registry.originate(ORDER, tenant="acme", flow="other")
    leg = placing.outbound.legs[0]
    leg.picks_up()
    await stage.until(lambda: call.answered, leg)
    call.end(EndReason.DIALPLAN_HANGUP)
    assert await stage.ended(leg) == "dialplan_hangup"
    assert leg.actions == ["hangup"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [(486, "busy"), (480, "no_answer"), (603, "declined"), (404, "carrier_failed"), (302, "carrier_failed")],
)
async def test_a_refusal_is_the_reason_in_the_record(placing: Placing, stage: Stage, code: int, reason: str) -> None:
    call = await placing.registry.originate(ORDER, tenant="acme")
    leg = placing.outbound.legs[0]
    leg.refuses(code, "No")
    assert await stage.ended(leg) == reason
    assert placing.last() == (reason, code)
    assert stage.records.of(CallEnded)[0].detail == f"{code} No"
    assert not call.answered
    assert [name for name, _ in stage.records.calls] == ["started", "ended"]
    assert outcomes(stage) == []
    assert len(placing.outbound.legs) == 1


async def test_nobody_answers_in_time(placing: Placing, stage: Stage) -> None:
    await placing.registry.originate(Order("200", ring_s=0.05), tenant="acme")
    leg = placing.outbound.legs[0]
    leg.progress(180)
    assert await stage.ended(leg) == "no_answer"
    assert placing.last() == ("no_answer", 408)


async def test_the_next_trunk_answers_in_the_same_call(placing: Placing, stage: Stage) -> None:
    call = await placing.registry.originate(ORDER, tenant="acme")
    placing.outbound.legs[0].refuses(503, "Service Unavailable")
    leg = await placing.outbound.leg(2)
    leg.picks_up()
    await stage.until(lambda: call.answered, leg)
    leg.peer_leaves()
    assert await stage.ended(leg) == "callee_hangup"
    assert [fault.where for fault in stage.records.of(Fault)] == ["trunk one"]


async def test_no_trunk_can_be_asked_and_the_record_says_so(placing: Placing, stage: Stage) -> None:
    placing.outbound.fails = [CarrierError("no route to host"), CarrierError("connection refused", 503)]
    call = await placing.registry.originate(ORDER, tenant="acme")
    await stage.until(lambda: call.state is State.ENDED, PlacedLeg())
    assert placing.last() == ("carrier_failed", 503)
    assert not placing.outbound.legs


async def test_an_operator_ends_it_while_it_rings(placing: Placing, stage: Stage) -> None:
    call = await placing.registry.originate(ORDER, tenant="acme")
    leg = placing.outbound.legs[0]
    leg.progress(180)
    await breathe()
    call.end(EndReason.OPERATOR_HANGUP)
    assert await stage.ended(leg) == "operator_hangup"
    assert leg.actions == ["hangup"]
    assert len(placing.outbound.dialled) == 1


async def test_it_answers_and_dies_at_once(placing: Placing, stage: Stage) -> None:
    await placing.registry.originate(ORDER, tenant="acme")
    leg = placing.outbound.legs[0]
    leg.picks_up()
    leg.peer_leaves()
    assert await stage.ended(leg) == "callee_hangup"
    assert placing.last() == ("callee_hangup", 200)
    assert [name for name, _ in stage.records.calls] == ["started", "answered", "ended"]
    assert outcomes(stage) == []


async def test_a_drain_ends_it(placing: Placing, stage: Stage) -> None:
    await placing.registry.originate(ORDER, tenant="acme")
    assert await placing.registry.drain(0.01) == 1
    assert stage.records.reason == "drain"
    assert placing.outbound.legs[0].gone


async def test_the_longest_call_is_ended(stage: Stage) -> None:
    placing = Placing(stage, FakeOutbound(), max_duration_s=0.02)
    await placing.registry.originate(ORDER, tenant="acme")
    leg = placing.outbound.legs[0]
    leg.picks_up()
    assert await stage.ended(leg) == "max_duration"


async def test_silence_before_the_answer_is_no_fault_and_after_it_one(stage: Stage) -> None:
    placing = Placing(stage, FakeOutbound(), media_timeout_s=0.05)
    call = await placing.registry.originate(ORDER, tenant="acme")
    leg = placing.outbound.legs[0]
    leg.progress(183, media=True)
    leg.tell(events.MediaStalled(silent_ms=60))
    await asyncio.sleep(0.1)
    assert call.state is State.EARLY
    leg.picks_up()
    assert await stage.ended(leg) == "media_timeout"


async def test_the_silence_of_one_trunk_is_not_that_of_the_next(stage: Stage) -> None:
    placing = Placing(stage, FakeOutbound("one", "two"), media_timeout_s=0.02)
    call = await placing.registry.originate(ORDER, tenant="acme")
    placing.outbound.legs[0].tell(events.MediaStalled(silent_ms=60))
    placing.outbound.legs[0].refuses(503)
    leg = await placing.outbound.leg(2)
    leg.tell(events.MediaStarted(codec="PCMA", payload_type=8, clock_hz=8000, remote="127.0.0.1:9"))
    leg.picks_up()
    await asyncio.sleep(0.05)
    assert call.state is State.ANSWERED
    leg.peer_leaves()
    await stage.ended(leg)


# --- limits -----------------------------------------------------------------------------------------------------------


async def test_it_takes_a_place_of_its_tenant_and_gives_it_back(stage: Stage) -> None:
    stage.limits = limits = FakeLimits()
    stage.limits_of = lambda tenant, trunk: {f"tenant/{tenant}": 9}
    placing = Placing(stage, FakeOutbound())
    await placing.registry.originate(ORDER, tenant="acme")
    leg = placing.outbound.legs[0]
    assert (limits.asked, limits.given) == ([{"tenant/acme": 9}], [])
    leg.refuses(486)
    await stage.ended(leg)
    await breathe()
    assert limits.given == ["tenant/acme"]


async def test_a_tenant_without_a_place_calls_nobody_and_has_a_record(stage: Stage) -> None:
    stage.limits = FakeLimits(free=0)
    stage.limits_of = lambda tenant, trunk: {f"tenant/{tenant}": 9}
    placing = Placing(stage, FakeOutbound())
    call = await placing.registry.originate(ORDER, tenant="acme")
    await stage.until(lambda: call.state is State.ENDED, PlacedLeg())
    assert placing.last() == ("limit", 486)
    assert stage.records.of(CallLimited) == [CallLimited(scope="tenant/acme", limit=9)]
    assert not placing.outbound.dialled


# --- what cannot begin ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("problem", "kind"),
    [(CapacityError("all 4 calls are taken"), CapacityError), (Draining("the cell is draining"), Draining)],
)
async def test_without_room_there_is_no_record_and_no_place_taken(
    stage: Stage, problem: SipServerError, kind: type[SipServerError]
) -> None:
    stage.limits = limits = FakeLimits()
    stage.limits_of = lambda tenant, trunk: {f"tenant/{tenant}": 9}
    placing = Placing(stage, FakeOutbound("one", "two", fails=[problem]))
    with pytest.raises(kind):
        await placing.registry.originate(ORDER, tenant="acme")
    assert not placing.registry.calls
    assert not stage.records.calls
    assert limits.free == 1


async def test_what_is_asked_wrongly_has_no_record(placing: Placing, stage: Stage) -> None:
    originate = placing.registry.originate
    with pytest.raises(NotFound, match="no dialplan is for the tenant"):
        await originate(ORDER, tenant="zeta")
    with pytest.raises(NotFound, match="no flow"):
        await originate(ORDER, tenant="acme", flow="nothing")
    with pytest.raises(NotAllowed, match="targets"):
        await originate(Order("sip:+4930123@192.0.2.66"), tenant="acme", flow="other")
    with pytest.raises(CallerError, match="UUID"):
        await originate(ORDER, tenant="acme", call_id="../../etc/passwd")
    placing.outbound.refuses = CallerError("premium-rate numbers are not called")
    with pytest.raises(CallerError, match="premium"):
        await originate(ORDER, tenant="acme")
    assert not stage.records.calls
    assert not placing.outbound.dialled


async def test_a_server_that_drains_or_places_no_calls(placing: Placing, stage: Stage) -> None:
    stage.outbound = None
    with pytest.raises(CallerError, match="places no calls"):
        await stage.registry().originate(ORDER, tenant="acme")
    await placing.registry.drain(0)
    with pytest.raises(Draining):
        await placing.registry.originate(ORDER, tenant="acme")
    assert not placing.outbound.dialled


async def test_a_drain_that_begins_while_the_invite_is_sent_takes_it_back(placing: Placing, stage: Stage) -> None:
    placing.outbound.slow = True
    asking = asyncio.create_task(placing.registry.originate(ORDER, tenant="acme"))
    await breathe()
    await placing.registry.drain(0)
    placing.outbound.go_on.set()
    with pytest.raises(Draining):
        await asking
    assert placing.outbound.legs[0].actions == ["hangup"]
    assert not stage.records.calls


async def test_cancelling_the_order_leaves_nothing(stage: Stage) -> None:
    stage.limits = limits = FakeLimits()
    stage.limits_of = lambda tenant, trunk: {f"tenant/{tenant}": 9}
    placing = Placing(stage, FakeOutbound())
    placing.outbound.slow = True
    asking = asyncio.create_task(placing.registry.originate(ORDER, tenant="acme"))
    await breathe()
    asking.cancel()
    await asyncio.wait({asking})
    placing.outbound.go_on.set()
    leg = await placing.outbound.leg()
    assert leg.actions == ["hangup"]
    assert limits.free == 1
    assert not stage.records.calls


# --- by command -------------------------------------------------------------------------------------------------------

UUID = "0197c0de-0000-7000-8000-000000000001"


async def test_a_command_places_a_call_under_the_id_that_was_asked_for(placing: Placing, stage: Stage) -> None:
    commands = CallCommands(placing.registry)
    asked = {"to": " +4930123 ", "tenant": "acme", "flow": "other", "trunk": "two", "ring_s": 5, "call": UUID}
    asked |= {"from_user": "100", "from_display": "Acme", "headers": {"X-Case": "7"}, "variables": {"case": "7"}}
    assert await commands.handle("originate", asked) == {"call": UUID}
    ((order, tenant),) = placing.outbound.orders
    assert (order, tenant) == (Order("+4930123", "two", "100", "Acme", {"X-Case": "7"}, 5), "acme")
    assert [way.trunk for way, _ in placing.outbound.dialled] == ["two"]
    assert (await commands.handle("status", {"call": UUID}))["direction"] == "outbound"
    with pytest.raises(CallerError, match="lives already"):
        await commands.handle("originate", asked)
    leg = placing.outbound.legs[0]
    await commands.handle("hangup", {"call": UUID})
    assert await stage.ended(leg) == "operator_hangup"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"to": ""}, "to: "),
        ({"to": "+4930\r\nX: y"}, "to: "),
        ({"ring_s": 0}, "ring_s: "),
        ({"headers": {"X-A": "b\r\nX-B: c"}}, "headers.X-A: "),
        ({"headers": {"X A": "b"}}, "headers.X A"),
        ({"from_display": "a\nb"}, "from_display: "),
        ({"timeout": 3}, "timeout: "),
        ({"variables": {"to": "x"}}, "'to' cannot be set"),
    ],
)
async def test_a_command_that_says_something_impossible(placing: Placing, change: dict[str, Any], says: str) -> None:
    with pytest.raises(CallerError, match=says):
        await CallCommands(placing.registry).handle("originate", {"to": "+4930123", **change})
    assert not placing.outbound.dialled


async def test_a_number_without_a_route_needs_a_flow(placing: Placing, stage: Stage) -> None:
    stage.book = Book((replace(stage.book.plans[0], routes=()),))
    with pytest.raises(NoRoute, match="name a flow"):
        await CallCommands(placing.registry).handle("originate", {"to": "+4930123"})


# --- who answered -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("said", "answerer"), [(HELLO, "human"), (GREETING, "machine")], ids=["human", "machine"])
async def test_who_answered_is_known_before_the_flow_begins(
    placing: Placing, stage: Stage, said: list[Samples], answerer: str
) -> None:
    stage.head = "targets: ['*']\nvariables: {answerer: nobody}"
    stage.plan("  main: [{say: 'Good day, {answerer}.'}, hangup]")
    asked = {"to": "+4930123", "amd": {"wait_s": 8}}
    await CallCommands(placing.registry).handle("originate", asked)
    leg = placing.outbound.legs[0]
    leg.picks_up()
    await breathe()
    await say(leg, said)
    assert await stage.ended(leg) == "dialplan_hangup"
    assert stage.tts.texts == [f"Good day, {answerer}."]
    (decided,) = stage.records.of(AnswererDetected)
    assert decided.answerer == answerer


async def test_a_refused_call_asks_nobody_who_answered(placing: Placing, stage: Stage) -> None:
    await placing.registry.originate(ORDER, tenant="acme", amd=Amd())
    leg = placing.outbound.legs[0]
    leg.refuses(486)
    assert await stage.ended(leg) == "busy"
    assert not stage.records.of(AnswererDetected)


async def test_branches_have_no_place_in_an_order(placing: Placing) -> None:
    with pytest.raises(CallerError, match=r"amd: .*`on` belongs into a dialplan"):
        await CallCommands(placing.registry).handle("originate", {"to": "1", "amd": {"on": {"human": "main"}}})
