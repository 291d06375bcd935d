"""The life of a call: who ends it, in which state, and what the record says."""

from __future__ import annotations

import asyncio
import logging

import pytest

from sipserver import events
from sipserver.agent.options import Outcome
from sipserver.calls import call as call_module
from sipserver.calls.states import EndReason, State
from sipserver.errors import CarrierError
from sipserver.events import CallEnded, CallStateChanged, Fault
from tests.calls.conftest import Stage, outcomes
from tests.fakes.leg import FakeLeg, breathe
from tests.fakes.talk import FakeTalk

WAITING = "  main: [answer, {wait: 60}]"
RINGING = "  main: [{wait: 60}]"


async def test_end_is_idempotent_and_the_first_reason_stays(stage: Stage) -> None:
    leg, call = stage.call(WAITING)
    await stage.until(lambda: call.state is State.ANSWERED, leg)
    call.end(EndReason.DRAIN, "first")
    call.end(EndReason.CRASH, "second")
    leg.peer_leaves()
    assert await stage.ended(leg) == "drain"
    call.end(EndReason.CRASH, "after the end")
    assert stage.records.of(CallEnded) == [CallEnded(reason="drain", sip_code=200, detail="first")]
    assert [change.new for change in stage.records.of(CallStateChanged)] == ["answered", "ending", "ended"]


async def test_caller_hangs_up(stage: Stage) -> None:
    leg, call = stage.call(WAITING)
    await stage.until(lambda: call.state is State.ANSWERED, leg)
    leg.peer_leaves()
    assert await stage.ended(leg) == "caller_hangup"
    assert leg.actions == ["answer"]


async def test_caller_cancels_while_it_rings(stage: Stage) -> None:
    leg, _ = stage.call(RINGING)
    await stage.until(lambda: leg.actions == ["ring"], leg)
    leg.peer_leaves()
    assert await stage.ended(leg) == "cancelled"
    assert stage.records.of(CallEnded)[0].sip_code == 487


async def test_caller_was_gone_before_the_call_attached(stage: Stage) -> None:
    leg = FakeLeg()
    leg.peer_leaves()
    stage.call(WAITING, leg)
    assert await stage.ended(leg) == "cancelled"
    assert outcomes(stage) == []
    assert leg.actions == []


@pytest.mark.parametrize(
    ("code", "reason", "answered"), [(200, "caller_hangup", True), (487, "cancelled", False)], ids=["BYE", "CANCEL"]
)
async def test_caller_leaves_before_the_dialplan_hears_of_the_answer(
    stage: Stage, code: int, reason: str, answered: bool
) -> None:
    leg = FakeLeg()
    leg.slow_answer = True
    _, call = stage.call(WAITING, leg)
    await stage.until(lambda: leg.actions == ["answer"], leg)
    leg.gone = True
    leg.tell(events.LegDisconnected(code=code, cause="Normal", by_peer=True))
    leg.go_on.set()
    assert await stage.ended(leg) == reason
    assert call.answered is answered
    assert [told for told, _ in stage.records.calls].count("answered") == int(answered)
    assert outcomes(stage) == [("answer", "gone")]


async def test_ended_by_us_between_the_200_and_the_ack_it_hangs_up(stage: Stage) -> None:
    leg = FakeLeg()
    leg.slow_answer = True
    _, call = stage.call(WAITING, leg)
    await stage.until(lambda: leg.actions == ["answer"], leg)
    call.end(EndReason.DRAIN)
    assert await stage.ended(leg) == "drain"
    assert leg.actions == ["answer", "hangup"]


async def test_the_leg_is_gone_when_the_dialplan_answers(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_module, "HANGUP_S", 0.02)
    leg = FakeLeg()
    leg.gone = True  # and it never says so
    stage.call(WAITING, leg)
    assert await stage.ended(leg) == "leg_lost"
    assert Fault(where="leg", error="it did not say that it is gone") in stage.records.of(Fault)


async def test_the_leg_is_lost_without_a_bye(stage: Stage) -> None:
    leg, call = stage.call(WAITING)
    await stage.until(lambda: call.state is State.ANSWERED, leg)
    leg.gone = True
    leg.tell(events.LegDisconnected(code=408, cause="session timer", by_peer=False))
    assert await stage.ended(leg) == "leg_lost"
    assert stage.records.of(CallEnded)[0].detail == "408 session timer"


async def test_a_leg_that_cannot_hang_up_does_not_keep_the_record_open(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_module, "HANGUP_S", 0.02)
    leg, call = stage.call(WAITING)
    await stage.until(lambda: call.state is State.ANSWERED, leg)

    async def hangs(code: int = 0) -> None:
        raise CarrierError("no such transaction")

    monkeypatch.setattr(leg, "hangup", hangs)
    call.end(EndReason.DRAIN)
    assert await stage.ended(leg) == "drain"
    assert [fault.where for fault in stage.records.of(Fault)] == ["hangup", "leg"]


async def test_a_dialplan_that_does_not_let_go_is_left_behind(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_module, "HANGUP_S", 0.02)
    release = asyncio.Event()

    class Stubborn(FakeTalk):
        async def run(self) -> Outcome:
            try:
                return await self.outcome
            finally:
                await release.wait()

    talks: list[Stubborn] = []

    def converse(**given: object) -> Stubborn:
        talks.append(Stubborn(**given))
        return talks[-1]

    stage.converse = converse
    leg, call = stage.call("  main: [{agent: {use: desk, on: {failed: end}}}]")
    await stage.until(lambda: talks, leg)
    call.end(EndReason.DRAIN)
    assert await stage.ended(leg) == "drain"
    assert Fault(where="dialplan", error="it did not let go in time") in stage.records.of(Fault)
    release.set()
    await breathe()


async def test_the_longest_call_is_ended(stage: Stage) -> None:
    leg, _ = stage.call(WAITING, max_duration_s=0.02)
    assert await stage.ended(leg) == "max_duration"
    assert leg.actions == ["answer", "hangup"]


async def test_a_mistake_in_the_media_ends_the_call_and_not_the_leg(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg, call = stage.call(WAITING)
    await stage.until(lambda: call.state is State.ANSWERED, leg)

    def breaks(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(call.wiring, "on_media", breaks)
    with call.wiring.listening(breaks):
        leg.tick_now()
    assert await stage.ended(leg) == "internal_error"
    assert stage.records.of(Fault) == [Fault(where="media", error="ZeroDivisionError: a bug")]


async def test_cancelling_the_task_of_a_call_closes_its_record(stage: Stage) -> None:
    leg, call = stage.call(WAITING)
    await stage.until(lambda: call.state is State.ANSWERED, leg)
    (task,) = [task for task in asyncio.all_tasks() if task.get_name() == f"call {call.id}"]
    task.cancel()
    assert await stage.ended(leg) == "drain"
    assert leg.actions == ["answer", "hangup"]


async def test_events_carry_the_calls_own_clock(stage: Stage) -> None:
    leg, _ = stage.call("  main: [answer, {wait: 0.03}]")
    await stage.ended(leg)
    times = [stamped.at_ms for stamped in stage.records.stamped]
    assert times == sorted(times)
    assert times[0] == 0
    assert times[-1] >= 30


# --- media that stays away --------------------------------------------------------------------------------------------


async def test_media_that_stays_away_ends_the_call(stage: Stage) -> None:
    leg, call = stage.call(WAITING, media_timeout_s=0.03)
    await stage.until(lambda: call.state is State.ANSWERED, leg)
    leg.tell(events.MediaStalled(silent_ms=5))
    assert await stage.ended(leg) == "media_timeout"


async def test_media_that_has_been_away_long_enough_ends_it_at_once(stage: Stage) -> None:
    leg, call = stage.call(WAITING)
    await stage.until(lambda: call.state is State.ANSWERED, leg)
    leg.tell(events.MediaStalled(silent_ms=30_000))
    assert await stage.ended(leg) == "media_timeout"


async def test_a_leg_that_gives_up_on_stalled_media_is_a_media_timeout(stage: Stage) -> None:
    leg, call = stage.call(WAITING)
    await stage.until(lambda: call.state is State.ANSWERED, leg)
    leg.tell(events.MediaStalled(silent_ms=5))
    leg.gone = True
    leg.tell(events.LegDisconnected(code=408, cause="no RTP", by_peer=False))
    assert await stage.ended(leg) == "media_timeout"


async def test_media_that_comes_back_saves_the_call(stage: Stage) -> None:
    leg, call = stage.call("  main: [answer, {wait: 0.08}]", media_timeout_s=0.03)
    await stage.until(lambda: call.state is State.ANSWERED, leg)
    leg.tell(events.MediaStalled(silent_ms=5))
    leg.tell(events.MediaRecovered(silent_ms=20))
    assert await stage.ended(leg) == "dialplan_hangup"


async def test_a_held_call_needs_no_media(stage: Stage) -> None:
    leg, call = stage.call("  main: [answer, {wait: 0.08}]", media_timeout_s=0.03)
    await stage.until(lambda: call.state is State.ANSWERED, leg)
    leg.tell(events.MediaStalled(silent_ms=5))
    leg.tell(events.LegHeld())
    assert call.held
    leg.tell(events.MediaStalled(silent_ms=29))
    assert await stage.ended(leg) == "dialplan_hangup"


async def test_a_resumed_call_needs_media_again(stage: Stage) -> None:
    leg, call = stage.call(WAITING, media_timeout_s=0.03)
    await stage.until(lambda: call.state is State.ANSWERED, leg)
    leg.tell(events.LegHeld())
    leg.tell(events.MediaStalled(silent_ms=5))
    leg.tell(events.LegResumed())
    assert not call.held
    assert await stage.ended(leg) == "media_timeout"


# --- the log ----------------------------------------------------------------------------------------------------------


async def test_info_tells_a_call_in_a_few_lines(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    leg, call = stage.call("  main: [answer, {say: One two three.}, {wait: 0.01}, {set: {a: b}}, hangup]")
    monkeypatch.setattr(call, "log", Lines(lines))
    await stage.ended(leg)
    assert lines == ["call.started", "call.routed", "call.state", "call.state", "call.state", "call.ended"]


class Lines:
    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def is_enabled_for(self, level: int) -> bool:
        return level >= logging.INFO

    def log(self, level: int, event: str, **_: object) -> None:
        assert self.is_enabled_for(level)
        self._lines.append(event)


async def test_nothing_is_left_after_many_calls(stage: Stage) -> None:
    stage.plan("  main: [record, {say: Hello there.}, {collect: {timeout_s: 0.01, on: {none: end, other: end}}}]")
    registry = stage.registry()
    legs = [FakeLeg() for _ in range(20)]
    before = asyncio.all_tasks()
    for leg in legs:
        registry.begin(leg)
    async with asyncio.timeout(20):
        while registry.calls:
            for leg in legs:
                leg.tick_now()
            await breathe()
            await asyncio.sleep(0.001)
    await breathe()
    assert asyncio.all_tasks() == before
    assert [facts["reason"] for name, facts in stage.records.calls if name == "ended"] == ["dialplan_hangup"] * 20


async def test_the_last_words_arrive_before_the_bye(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_module, "TAIL_S", 30.0)
    leg, call = stage.call("  main: [{say: Good bye.}, hangup]")
    await stage.until(lambda: call.state is State.ENDING, leg)
    await leg.ticks(5)
    assert leg.actions == ["answer"]
    leg.peer_leaves()  # and a caller who is faster ends the wait
    assert await stage.ended(leg) == "dialplan_hangup"
    assert leg.actions == ["answer"]


async def test_a_call_in_which_nothing_was_said_ends_at_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_module, "TAIL_S", 30.0)
    leg, _ = stage.call("  main: [answer, hangup]")
    assert await stage.ended(leg) == "dialplan_hangup"
    assert leg.actions == ["answer", "hangup"]
