"""Legs become calls; calls are counted, refused and let go."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from sipserver.calls.limits import Places
from sipserver.calls.registry import Registry
from sipserver.calls.states import State
from sipserver.dialplan.book import Book
from sipserver.events import CallEnded, CallLimited, CallRouted
from tests.calls.conftest import Stage
from tests.fakes.dialplans import plan
from tests.fakes.leg import FakeLeg, FakeOffer, breathe

WAITING = "  main: [answer, {wait: 60}]"


async def test_no_route_is_404_and_has_a_record(stage: Stage) -> None:
    leg = FakeLeg()
    stage.registry().accept(leg)
    assert await stage.ended(leg) == "no_route"
    assert leg.actions == ["reject 404"]
    assert stage.records.calls[0][1]["tenant"] == ""
    assert stage.records.of(CallEnded)[0].sip_code == 404


@pytest.mark.parametrize(
    ("trunk", "load", "reason"), [("carrier", 50.0, "rejected"), ("", 50.0, "no_route"), ("carrier", 49.0, "no_route")]
)
async def test_routes_see_trunk_direction_and_load(stage: Stage, trunk: str, load: float, reason: str) -> None:
    stage.load = load
    routes = "- {match: {trunk: carrier, direction: inbound, load: '>= 50'}, flow: main}"
    stage.book = Book((plan("main: [{hangup: 480}]", routes=routes),))
    leg = FakeLeg(FakeOffer(trunk=trunk))
    stage.registry().accept(leg)
    assert await stage.ended(leg) == reason


async def test_calls_by_id_and_by_state(stage: Stage) -> None:
    leg, call = stage.call(WAITING)
    registry = registry_of(stage)
    assert registry.calls == {call.id: call}
    assert registry.counts() == {State.RINGING: 1, State.EARLY: 0, State.ANSWERED: 0, State.ENDING: 0}
    await stage.until(lambda: registry.counts()[State.ANSWERED] == 1, leg)
    leg.peer_leaves()
    await stage.ended(leg)
    assert registry.calls == {}


async def test_draining_refuses_new_calls_and_lets_running_ones_go_on(stage: Stage) -> None:
    stage.plan("  main: [answer, {agent: {use: desk, on: {failed: end}}}]")
    registry = stage.registry()
    running, late = FakeLeg(), FakeLeg()
    call = registry.begin(running)
    await stage.until(lambda: stage.converse.talks, running)
    draining = asyncio.create_task(registry.drain(60))
    await stage.until(lambda: registry.draining, running)
    refused = registry.begin(late)
    await stage.until(lambda: refused.state is State.ENDED, running)
    assert late.actions == ["reject 503"]
    assert late.reject_headers == {"Retry-After": "5", "X-Sipserver-Refusal": "draining"}
    assert call.state is State.ANSWERED
    running.peer_leaves()
    assert await draining == 0
    assert [facts["reason"] for name, facts in stage.records.calls if name == "ended"] == ["drain", "caller_hangup"]


async def test_the_deadline_of_a_drain_ends_what_is_left(stage: Stage) -> None:
    leg, call = stage.call(WAITING)
    await stage.until(lambda: call.state is State.ANSWERED, leg)
    assert await registry_of(stage).drain(0.02) == 1
    assert stage.records.reason == "drain"
    assert leg.actions == ["answer", "hangup"]


async def test_a_call_keeps_the_plan_it_began_with(stage: Stage) -> None:
    leg, _ = stage.call("  main: [{wait: 0.02}, {goto: old}]\n  old: [{hangup: 480}]")
    await stage.until(lambda: leg.actions == ["ring"], leg)
    stage.plan("  main: [hangup]")
    await stage.ended(leg)
    assert leg.actions == ["ring", "reject 480"]


async def test_routing_that_breaks_answers_500(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object) -> None:
        raise ZeroDivisionError

    leg = FakeLeg()
    monkeypatch.setattr(Book, "route", breaks)
    stage.registry().begin(leg)
    assert await stage.ended(leg) == "internal_error"
    assert leg.actions == ["reject 500"]


async def test_a_record_that_breaks_takes_no_other_call_with_it(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(**_: Any) -> None:
        raise ZeroDivisionError

    stage.plan(WAITING)
    registry = stage.registry()
    leg = FakeLeg()
    with monkeypatch.context() as patch:
        patch.setattr(stage.records, "started", breaks)
        unlucky = FakeLeg()
        registry.begin(unlucky)
        await stage.until(lambda: unlucky.gone, leg)
        assert unlucky.actions == ["reject 500"]
        await stage.until(lambda: not registry.calls, leg)
    call = registry.begin(leg)
    await stage.until(lambda: call.state is State.ANSWERED, leg)
    leg.peer_leaves()
    await stage.until(lambda: not registry.calls, leg)
    ends = [facts["reason"] for name, facts in stage.records.calls if name == "ended"]
    assert ends == ["internal_error", "caller_hangup"]


# --- limits -----------------------------------------------------------------------------------------------------------


class FakeLimits:
    """free: places left in every scope. shared: of the answer when there is none. slow: `take` waits for `go_on`."""

    def __init__(self, free: int = 1, *, shared: bool = True, slow: bool = False) -> None:
        self.free, self.shared = free, shared
        self.asked: list[dict[str, int]] = []
        self.given: list[str] = []
        self.go_on = asyncio.Event()
        if not slow:
            self.go_on.set()

    async def take(self, places: Mapping[str, int]) -> Full | None:
        self.asked.append(dict(places))
        await self.go_on.wait()
        if not self.free:
            scope, limit = next(iter(places.items()))
            return Full(scope, limit, self.shared)
        self.free -= 1
        return None

    def give(self, scopes: Sequence[str]) -> None:
        self.free += 1
        self.given += scopes


@dataclass(frozen=True)
class Full:
    scope: str
    limit: int
    shared: bool


def limited(stage: Stage, limits: FakeLimits) -> Registry:
    stage.plan(WAITING)
    stage.limits = limits
    stage.limits_of = lambda tenant, trunk: {f"trunk/{trunk}": 7, f"tenant/{tenant}": 9} if trunk else {}
    return stage.registry()


async def test_a_call_takes_its_places_and_gives_them_back(stage: Stage) -> None:
    limits = FakeLimits()
    registry = limited(stage, limits)
    leg = FakeLeg(FakeOffer(trunk="carrier"))
    call = registry.begin(leg)
    await stage.until(lambda: call.state is State.ANSWERED, leg)
    assert limits.asked == [{"trunk/carrier": 7, "tenant/acme": 9}]
    assert limits.given == []
    leg.peer_leaves()
    await stage.ended(leg)
    assert limits.given == ["trunk/carrier", "tenant/acme"]


@pytest.mark.parametrize(
    ("shared", "refusal"), [(True, {}), (False, {"X-Sipserver-Refusal": "full"})], ids=["everywhere", "here"]
)
async def test_no_place_is_486_and_says_whether_another_cell_may_do(
    stage: Stage, shared: bool, refusal: dict[str, str]
) -> None:
    limits = FakeLimits(free=0, shared=shared)
    registry = limited(stage, limits)
    leg = FakeLeg(FakeOffer(trunk="carrier"))
    registry.begin(leg)
    assert await stage.ended(leg) == "limit"
    assert leg.actions == ["reject 486"]
    assert leg.reject_headers == {"Retry-After": "5", **refusal}
    assert stage.records.of(CallLimited, CallEnded) == [
        CallLimited(scope="trunk/carrier", limit=7, shared=shared),
        CallEnded(reason="limit", sip_code=486, detail="trunk/carrier has 7 calls"),
    ]
    assert not stage.records.of(CallRouted)
    assert limits.given == []


async def test_a_call_without_limits_asks_nobody(stage: Stage) -> None:
    limits = FakeLimits()
    registry = limited(stage, limits)
    leg = FakeLeg()
    call = registry.begin(leg)
    await stage.until(lambda: call.state is State.ANSWERED, leg)
    leg.peer_leaves()
    await stage.ended(leg)
    assert (limits.asked, limits.given) == ([], [])


async def test_a_caller_who_leaves_while_places_are_taken_takes_none(stage: Stage) -> None:
    limits = FakeLimits(slow=True)
    registry = limited(stage, limits)
    leg = FakeLeg(FakeOffer(trunk="carrier"))
    registry.begin(leg)
    await stage.until(lambda: limits.asked, leg)
    leg.peer_leaves()
    assert await stage.ended(leg) == "cancelled"
    limits.go_on.set()
    await stage.until(lambda: limits.free == 1, leg)


async def test_places_that_come_after_the_end_go_back_at_once() -> None:
    limits = FakeLimits(slow=True)
    places = Places(limits)
    taking = asyncio.create_task(places.take({"tenant/acme": 1}))
    await breathe()
    places.give_back()
    limits.go_on.set()
    assert await taking is None
    places.give_back()
    assert (limits.free, limits.given) == (1, ["tenant/acme"])


async def test_a_count_that_breaks_ends_the_call(stage: Stage) -> None:
    limits = FakeLimits()
    registry = limited(stage, limits)
    limits.take = None  # type: ignore[assignment, method-assign]
    leg = FakeLeg(FakeOffer(trunk="carrier"))
    registry.begin(leg)
    assert await stage.ended(leg) == "internal_error"
    assert limits.given == []


def registry_of(stage: Stage) -> Registry:
    (registry,) = stage.registries
    return registry
