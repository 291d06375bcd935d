"""Flows, branches and endings."""

from __future__ import annotations

import asyncio

import pytest

from sipserver.calls import runner
from sipserver.calls.states import EndReason
from sipserver.calls.steps import EXECUTORS
from sipserver.dialplan.steps import STEPS, Hangup, Hold, Wait
from sipserver.events import CallEnded, CallRouted, CallStateChanged, Fault, StepEntered, StepLeft, VariableSet
from tests.calls.conftest import Stage, outcomes
from tests.fakes.leg import FakeLeg, FakeOffer
from tests.fakes.until import until


async def test_falling_off_the_end_hangs_up(stage: Stage) -> None:
    leg, call = stage.call("  main: [answer]")
    assert await stage.ended(leg) == "dialplan_hangup"
    assert leg.actions == ["answer", "hangup"]
    assert stage.records.of(CallStateChanged) == [
        CallStateChanged("ringing", "answered"),
        CallStateChanged("answered", "ending"),
        CallStateChanged("ending", "ended"),
    ]
    assert [name for name, _ in stage.records.calls] == ["started", "answered", "ended"]
    assert stage.records.calls[-1][1] == {"call_id": call.id, "reason": "dialplan_hangup", "sip_code": 200}


async def test_the_record_tells_the_route_and_the_steps(stage: Stage) -> None:
    leg, call = stage.call("  main: [answer, {goto: bye}]\n  bye: [hangup]")
    await stage.ended(leg)
    assert stage.records.of(CallRouted) == [CallRouted(route=0, flow="main", why="to=*")]
    entered = [(step.flow, step.index, step.step) for step in stage.records.of(StepEntered)]
    assert entered == [("main", 0, "answer"), ("main", 1, "goto"), ("bye", 0, "hangup")]
    assert all(step.line > 0 for step in stage.records.of(StepEntered))
    assert {stamped.call_id for stamped in stage.records.stamped} == {call.id}
    assert {stamped.tenant for stamped in stage.records.stamped} == {"acme"}
    assert stage.listened == stage.records.stamped


async def test_hangup_before_the_answer_refuses_with_code_and_phrase(stage: Stage) -> None:
    leg, _ = stage.call("  main: [{hangup: {code: 403, reason: Not you}}]")
    assert await stage.ended(leg) == "rejected"
    assert leg.actions == ["reject 403 Not you"]
    assert stage.records.of(CallEnded)[0].sip_code == 403


async def test_hangup_with_a_busy_code_is_busy(stage: Stage) -> None:
    leg, _ = stage.call("  main: [{hangup: 486}]")
    assert await stage.ended(leg) == "busy"
    assert leg.actions == ["reject 486"]


async def test_hangup_in_early_media_refuses(stage: Stage) -> None:
    leg, _ = stage.call("  main: [early, {hangup: 404}]")
    assert await stage.ended(leg) == "rejected"
    assert leg.actions == ["early", "reject 404"]


@pytest.mark.parametrize(
    ("test", "taken"),
    [
        ("is: alice", "yes"),
        ("is: bob", "no"),
        ("in: [bob, alice]", "yes"),
        ("in: [bob]", "no"),
        ("like: 'al*'", "yes"),
        ("like: 'b*'", "no"),
        ("set: true", "yes"),
        ("set: false", "no"),
    ],
)
async def test_when_takes_the_branch(stage: Stage, test: str, taken: str) -> None:
    leg, _ = stage.call(f"""
  main: [{{when: {{var: from, {test}, then: positive}}}}, {{set: {{taken: "no"}}}}, hangup]
  positive: [{{set: {{taken: "yes"}}}}, hangup]""")
    await stage.ended(leg)
    assert [event.value for event in stage.records.of(VariableSet)] == [taken]


async def test_variables_of_the_call_and_of_headers(stage: Stage) -> None:
    leg = FakeLeg(FakeOffer(headers={"x-account": "4711"}))
    _, call = stage.call(
        """
  main:
    - set: {a: "{from} {to} {tenant} {header.X-Account}", b: "<{a}>", c: "{call_id}"}
    - set: {d: "{nobody}!"}""",
        leg,
    )
    await stage.ended(leg)
    values = {event.name: event.value for event in stage.records.of(VariableSet)}
    assert values == {"a": "alice demo acme 4711", "b": "<alice demo acme 4711>", "c": call.id, "d": "!"}
    assert [fault.error for fault in stage.records.of(Fault)] == ["no value for nobody"]


async def test_wait_rings_before_the_answer(stage: Stage) -> None:
    leg, _ = stage.call("  main: [{wait: 0.01}, answer, {wait: 0.01}]")
    await stage.ended(leg)
    assert leg.actions == ["ring", "answer", "hangup"]


async def test_a_media_step_answers_unless_early_media_runs(stage: Stage) -> None:
    leg, _ = stage.call("  main: [{say: Hello.}]")
    await stage.ended(leg)
    early, _ = stage.call("  main: [early, {say: Hello.}, answer]", FakeLeg())
    async with asyncio.timeout(5):
        while not early.gone:
            await early.ticks(1)
    assert leg.actions == ["answer", "hangup"]
    assert early.actions == ["early", "answer", "hangup"]


async def test_a_step_that_answers_does_so_out_of_early_media(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Wait, "answers", True)
    leg, _ = stage.call("  main: [early, {wait: 0.01}]")
    assert await stage.ended(leg) == "dialplan_hangup"
    assert leg.actions == ["early", "answer", "hangup"]


def test_every_step_that_loads_is_at_work() -> None:
    assert set(EXECUTORS) == {*STEPS.values(), Hold}, "a hold stands in no dialplan"


async def test_a_loop_without_waiting_ends_the_call(stage: Stage) -> None:
    stage.tts.broken = True
    leg, _ = stage.call("""
  main: [{say: {text: Hello., on: {failed: again}}}]
  again: [{goto: main}]""")
    assert await stage.ended(leg) == "internal_error"
    assert "loops" in stage.records.of(Fault)[-1].error
    assert len(outcomes(stage)) > runner.MOST_STEPS_AT_ONCE


async def test_outcomes_are_in_the_record(stage: Stage) -> None:
    leg, _ = stage.call("  main: [answer, {set: {x: 1}}, {when: {var: x, is: 1, then: next}}, {say: Good bye.}]")
    await stage.ended(leg)
    assert outcomes(stage) == [("answer", "done"), ("set", "done"), ("when", "decided"), ("say", "done")]


# --- errands ----------------------------------------------------------------------------------------------------------


async def test_an_errand_interrupts_the_step_which_then_begins_again(stage: Stage) -> None:
    registry = stage.registry()
    stage.plan("  main: [answer, {wait: 60}, hangup]")
    leg = FakeLeg(FakeOffer())
    call = registry.begin(leg)
    await until(lambda: len(stage.records.of(StepEntered)) == 2)
    registry.send(call.id, Wait(seconds=0.01))
    await until(lambda: len(stage.records.of(StepEntered)) == 4)
    assert [(step.flow, step.step) for step in stage.records.of(StepEntered)] == [
        ("main", "answer"),
        ("main", "wait"),
        (runner.ERRAND, "wait"),
        ("main", "wait"),
    ]
    assert [step.outcome for step in stage.records.of(StepLeft)] == ["done", "cancelled", "done"]
    leg.peer_leaves()
    assert await stage.ended(leg) == "caller_hangup"


async def test_an_errand_that_ends_the_call_ends_it(stage: Stage) -> None:
    registry = stage.registry()
    stage.plan("  main: [answer, {wait: 60}]")
    leg = FakeLeg(FakeOffer())
    call = registry.begin(leg)
    await until(lambda: len(stage.records.of(StepEntered)) == 2)
    registry.send(call.id, Hangup())
    assert await stage.ended(leg) == "dialplan_hangup"
    assert call.id not in registry._runners


async def test_errands_come_one_at_a_time_and_to_answered_calls_alone(stage: Stage) -> None:
    registry = stage.registry()
    stage.plan("  main: [{wait: 0.05}, answer, {wait: 60}]")
    leg = FakeLeg(FakeOffer())
    call = registry.begin(leg)
    with pytest.raises(runner.Busy, match=r"no flow|not answered"):
        registry.send(call.id, Wait(seconds=1))
    await until(lambda: len(stage.records.of(StepEntered)) == 3)
    registry.send(call.id, Wait(seconds=60))
    with pytest.raises(runner.Busy, match="already"):
        registry.send(call.id, Wait(seconds=1))
    leg.peer_leaves()
    assert await stage.ended(leg) == "caller_hangup"
    with pytest.raises(runner.Busy):
        registry.send(call.id, Wait(seconds=1))


async def test_a_call_that_ends_at_the_same_moment_ends(stage: Stage) -> None:
    registry = stage.registry()
    stage.plan("  main: [answer, {wait: 60}]")
    leg = FakeLeg(FakeOffer())
    call = registry.begin(leg)
    await until(lambda: len(stage.records.of(StepEntered)) == 2)
    registry.send(call.id, Wait(seconds=60))
    call.end(EndReason.OPERATOR_HANGUP)
    assert await stage.ended(leg) == "operator_hangup"
