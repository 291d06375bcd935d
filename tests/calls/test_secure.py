"""The step `secure`: it keeps nothing, always ends, and leads where its steps lead."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sipserver.audio.frame import FRAME_SAMPLES, Frame
from sipserver.calls.runner import Busy
from sipserver.calls.steps import EXECUTORS
from sipserver.dialplan import steps
from sipserver.events import (
    DigitReceived,
    Fault,
    RecordingPaused,
    RecordingResumed,
    SecureEnded,
    SecureStarted,
    Spoken,
    StepEntered,
    StepLeft,
    VariableSet,
)
from tests.calls.conftest import Stage, outcomes
from tests.calls.test_registry import registry_of
from tests.fakes.leg import FakeLeg

CARD = "4000123412341239"
TYPE = "{collect: {digits: 16, timeout_s: 60, between_s: 60, into: card, on: {none: bad, other: next}}}"
REST = """
  good: [{set: {told: "card {card}"}}, hangup]
  bad: [hangup]"""


def flows(inside: str, more: str = "") -> str:
    return f"  main: [answer, {{secure: {{do: [{inside}]{more}}}}}, {{goto: good}}]{REST}"


async def typed(stage: Stage, leg: FakeLeg) -> None:
    """The card number is typed once it is asked for."""
    await stage.until(lambda: any(step.step == "collect" for step in stage.records.of(StepEntered)), leg)
    leg.press(CARD)


def told(stage: Stage) -> str:
    return " ".join(str(stamped.event.fields()) for stamped in (*stage.listened, *stage.records.stamped))


def one_end(stage: Stage) -> SecureEnded:
    assert len(stage.records.of(SecureStarted)) == 1
    (ended,) = stage.records.of(SecureEnded)
    assert isinstance(ended, SecureEnded)
    return ended


async def test_digits_and_words_are_told_nobody_and_forgotten(stage: Stage) -> None:
    leg, _call = stage.call(flows(f"{{say: The word is marmalade.}}, {TYPE}, {{say: 'It is {{card}}.'}}"))
    await typed(stage, leg)
    await stage.ended(leg)
    assert (one_end(stage).reason, stage.tts.texts[-1]) == ("done", f"It is {CARD}.")
    assert one_end(stage).hidden > 16
    assert stage.records.of(DigitReceived) == stage.records.of(Spoken) == []
    assert CARD not in told(stage)
    assert "marmalade" not in told(stage)
    assert [each.value for each in stage.records.of(VariableSet)] == ["card "]
    assert ("secure", "done") in outcomes(stage)


async def test_what_is_kept_can_be_used_and_is_hidden(stage: Stage) -> None:
    leg, call = stage.call(flows(TYPE, ", keep: [card]"))
    await typed(stage, leg)
    await stage.ended(leg)
    assert CARD not in told(stage)
    assert [each.value for each in stage.records.of(VariableSet)] == ["card [kept secret]"]
    assert not call.screen.secured


async def test_nothing_that_is_asked_from_outside_interrupts_it(stage: Stage) -> None:
    """Otherwise the rest of what is typed would be kept."""
    stage.head = 'targets: ["*@127.0.0.1"]'
    leg, call = stage.call(flows(TYPE))
    registry = registry_of(stage)
    await stage.until(lambda: any(step.step == "collect" for step in stage.records.of(StepEntered)), leg)
    leg.press(CARD[:9])
    for step in (steps.Say(text="Are you there?"), steps.Handover(to="sip:200@127.0.0.1")):
        with pytest.raises(Busy, match="secure"):
            registry.send(call.id, step)
    with pytest.raises(Busy, match="secure"):
        registry.hold(call.id)
    assert not call.wiring.aside.on_hold
    leg.press(CARD[9:])
    await stage.ended(leg)
    assert one_end(stage).reason == "done"
    assert stage.records.of(DigitReceived) == []


async def test_it_can_be_interrupted_as_any_step_when_it_is_over(stage: Stage) -> None:
    leg, call = stage.call(f"  main: [answer, {{secure: {{do: [{{wait: 0.01}}]}}}}, {{wait: 60}}]{REST}")
    await stage.until(lambda: [step.step for step in stage.records.of(StepEntered)][-1:] == ["wait"], leg)
    await stage.until(lambda: bool(stage.records.of(SecureEnded)), leg)
    registry_of(stage).send(call.id, steps.Hangup())
    assert await stage.ended(leg) == "dialplan_hangup"


async def test_a_branch_leads_out(stage: Stage) -> None:
    leg, _call = stage.call(flows(TYPE.replace("timeout_s: 60", "timeout_s: 0.05")))
    await stage.ended(leg)
    assert one_end(stage).reason == "left"
    assert [step.flow for step in stage.records.of(StepEntered)][-1] == "bad"


async def test_it_ends_when_the_caller_hangs_up(stage: Stage) -> None:
    leg, call = stage.call(flows(TYPE))
    await stage.until(lambda: any(step.step == "collect" for step in stage.records.of(StepEntered)), leg)
    leg.press(CARD[:9])
    leg.peer_leaves()
    assert await stage.ended(leg) == "caller_hangup"
    assert one_end(stage).reason == "call_ended"
    assert stage.records.of(DigitReceived) == []
    assert not call.screen.secured


async def test_it_ends_when_a_step_breaks_and_the_record_does_not_say_with_what(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_step: Any, _scene: Any) -> Any:
        raise ValueError(f"cannot use {CARD}")

    executors: dict[Any, Any] = EXECUTORS
    monkeypatch.setitem(executors, steps.Wait, broken)
    leg, call = stage.call(flows("{wait: 1}"))
    assert await stage.ended(leg) == "internal_error"
    assert one_end(stage).reason == "failed"
    assert CARD not in told(stage)
    assert "ValueError" in stage.records.of(Fault)[-1].error
    assert not call.screen.secured


async def test_what_was_typed_too_much_answers_no_later_question(stage: Stage) -> None:
    leg, call = stage.call(flows(TYPE))
    await stage.until(lambda: any(step.step == "collect" for step in stage.records.of(StepEntered)), leg)
    leg.press(CARD + "99")
    await stage.until(lambda: bool(stage.records.of(SecureEnded)), leg)
    assert not len(call.digits)
    await stage.ended(leg)


async def test_the_recording_is_silent_meanwhile(stage: Stage) -> None:
    inside = f"{TYPE}, {{wait: 0.05}}"
    leg, call = stage.call(
        f"  main: [answer, {{record: start}}, {{secure: {{do: [{inside}]}}}}, {{wait: 0.05}}, {{goto: good}}]{REST}"
    )
    await stage.until(lambda: bool(stage.records.of(SecureStarted)), leg)
    loud = np.full(FRAME_SAMPLES, 9_000, np.int16)
    await leg.ticks(5, loud)
    call.tape.resume()
    await leg.ticks(5, loud)
    assert len(stage.records.of(RecordingPaused)) == 1
    assert stage.records.of(RecordingResumed) == []
    leg.press(CARD)
    await stage.ended(leg)
    kinds = [type(stamped.event) for stamped in stage.records.stamped]
    assert kinds.index(RecordingPaused) < kinds.index(RecordingResumed) < kinds.index(SecureEnded)


async def test_a_pause_of_the_dialplan_outlasts_it(stage: Stage) -> None:
    leg, _call = stage.call(
        f"  main: [answer, {{record: start}}, {{record: pause}}, {{secure: {{do: [{TYPE}]}}}}, {{goto: good}}]{REST}"
    )
    await typed(stage, leg)
    await stage.ended(leg)
    assert stage.records.of(RecordingResumed) == []


async def test_who_only_listens_hears_silence(stage: Stage) -> None:
    leg, call = stage.call(flows(f"{TYPE}"))
    heard: list[Frame] = []
    loud = np.full(FRAME_SAMPLES, 9_000, np.int16)
    await stage.until(lambda: bool(stage.records.of(SecureStarted)), leg)
    with call.wiring.overheard(lambda inbound, _outbound: heard.append(inbound)):
        await leg.ticks(3, loud)
        assert heard
        assert not any(frame.samples.any() for frame in heard)
    leg.press(CARD)
    await stage.ended(leg)


@pytest.mark.parametrize(
    "step", ["{voicemail: x}", "{record: start}", "{secure: {do: [answer]}}", "{agent: {use: desk, on: {failed: bad}}}"]
)
async def test_steps_that_keep_something_are_refused(stage: Stage, step: str) -> None:
    with pytest.raises(AssertionError, match="cannot stand in `secure`"):
        stage.plan(flows(step))


async def test_mistakes_within_are_told_where_they_stand(stage: Stage) -> None:
    with pytest.raises(AssertionError, match=r"unknown flow `nowhere`"):
        stage.plan(flows("{collect: {on: {none: nowhere, other: next}}}"))
    with pytest.raises(AssertionError, match=r"secure\.do\[0\]"):
        stage.plan(flows("{sya: hello}"))


async def test_parts_are_told_with_their_lines(stage: Stage) -> None:
    leg, _call = stage.call(
        "  main:\n    - answer\n    - secure:\n        do:\n          - wait: 0.01\n          - wait: 0.01\n"
        "    - hangup"
    )
    await stage.ended(leg)
    entered = {(step.step, step.line) for step in stage.records.of(StepEntered)}
    lines = sorted(line for step, line in entered if step == "wait")
    (outer,) = (line for step, line in entered if step == "secure")
    assert lines == [outer + 2, outer + 3]
    assert [left.outcome for left in stage.records.of(StepLeft) if left.step == "secure"] == ["done"]
