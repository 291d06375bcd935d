"""amd: who answered the call that we placed, from the first frame after the answer, and what the flow does about it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import numpy as np
import pytest

from sipserver.audio import tones
from sipserver.audio.frame import FRAME_SAMPLES, Frame, Samples
from sipserver.calls import answerer
from sipserver.calls.answerer import Detection, FirstWords, parameters
from sipserver.calls.call import Call
from sipserver.calls.outbound import Order
from sipserver.events import AnswererDetected
from tests.calls.conftest import SPOKEN, Stage, outcomes
from tests.fakes.answerers import Line, over
from tests.fakes.leg import FakeLeg, breathe
from tests.fakes.outbound import FakeOutbound, PlacedLeg
from tests.fakes.virtual_time import virtual
from tests.fakes.voice import voice

LINE = Line("line", lead_ms=0, noise_dbfs=-58)
BRANCHES = "{human: person, machine: recorder, beep: recorder, silence: nobody, fax: nobody, unknown: nobody}"
ENDS = """
  person: [{say: Good day.}, hangup]
  recorder: [{say: Please call us back.}, hangup]
  nobody: [hangup]"""


def sound(*parts: Samples, tail_ms: int = 0) -> list[Samples]:
    return over(LINE, np.concatenate(parts), tail_ms=tail_ms)


HELLO = sound(tones.silence(300), voice(0.7, seed=4), tail_ms=2000)
GREETING = sound(tones.silence(300), voice(6, seed=3))
BEEP = sound(tones.silence(300), tones.beep(400))
SILENCE = sound(tones.silence(8000))


async def placed(stage: Stage, flows: str) -> tuple[PlacedLeg, Call]:
    """A call that we place, ringing."""
    stage.outbound = FakeOutbound("carrier")
    stage.head = 'targets: ["+4930123"]'
    stage.plan(flows)
    call = await stage.registry().originate(Order("+4930123"), tenant="acme")
    return stage.outbound.legs[0], call


async def say(leg: FakeLeg, frames: Iterable[Samples]) -> None:
    """The far end's sound, a tick a frame."""
    for samples in frames:
        await leg.ticks(1, samples)


def decided(stage: Stage) -> AnswererDetected:
    event: AnswererDetected
    (event,) = stage.records.of(AnswererDetected)
    assert isinstance(event, AnswererDetected)
    return event


def first_words_of_ours(leg: FakeLeg) -> int:
    """The tick in which we began to speak."""
    return next(number for number, samples in enumerate(leg.played) if (samples == SPOKEN).all())


@pytest.mark.parametrize(
    ("said", "outcome", "spoken"),
    [
        (HELLO, "human", "Good day."),
        (GREETING, "machine", "Please call us back."),
        (SILENCE, "silence", ""),
        (sound(tones.silence(300), tones.beep(2600, frequency_hz=2100)), "fax", ""),
        (sound(tones.busy(5)), "unknown", ""),
        (BEEP + SILENCE[:50], "beep", "Please call us back."),
    ],
    ids=["human", "machine", "silence", "fax", "unknown", "beep"],
)
async def test_each_outcome_takes_its_branch(stage: Stage, said: list[Samples], outcome: str, spoken: str) -> None:
    leg, _ = await placed(stage, f"  main: [{{amd: {{on: {BRANCHES}}}}}]{ENDS}")
    leg.picks_up()
    await breathe()
    await say(leg, said)
    assert await stage.ended(leg) == "dialplan_hangup"
    assert outcomes(stage)[0] == ("amd", outcome)
    assert decided(stage).answerer == outcome
    assert decided(stage).why
    assert 0 < decided(stage).after_ms <= 20 * len(said)
    assert stage.tts.texts == ([spoken] if spoken else [])


async def test_a_message_is_left_after_the_beep(stage: Stage) -> None:
    """Voicemail drop: nothing is said into the greeting, and all of it after the beep."""
    leg, _ = await placed(
        stage, f"  main: [{{amd: {{beep_s: 20, on: {{human: person, silence: nobody}}}}}}, {{goto: recorder}}]{ENDS}"
    )
    leg.picks_up()
    await breathe()
    await say(leg, GREETING)
    assert not stage.tts.texts
    await say(leg, BEEP)
    assert not stage.tts.texts
    await say(leg, SILENCE[:20])
    assert await stage.ended(leg) == "dialplan_hangup"
    assert outcomes(stage) == [("amd", "beep"), ("goto", "done"), ("say", "done"), ("hangup", "done")]
    assert stage.tts.texts == ["Please call us back."]
    begins_ms = 20 * (first_words_of_ours(leg) - len(GREETING) - len(BEEP))
    assert 60 <= begins_ms <= 300
    assert decided(stage).after_ms == pytest.approx(20 * (len(GREETING) + len(BEEP)), abs=300)
    assert "1000 Hz for 400 ms after a greeting of" in decided(stage).why


async def test_a_machine_without_a_beep_gets_its_message_when_it_is_quiet(stage: Stage) -> None:
    leg, _ = await placed(stage, f"  main: [{{amd: {{beep_s: 20, on: {BRANCHES}}}}}]{ENDS}")
    leg.picks_up()
    await breathe()
    await say(leg, GREETING + SILENCE[:170])
    assert await stage.ended(leg) == "dialplan_hangup"
    assert outcomes(stage)[0] == ("amd", "machine")
    assert "no beep" in decided(stage).why


async def test_the_first_words_are_heard_though_other_steps_came_before(stage: Stage) -> None:
    """The whole greeting was said during `wait`: what is left to hear is silence."""
    leg, _ = await placed(stage, f"  main: [answer, {{wait: 0.05}}, {{amd: {{on: {BRANCHES}}}}}]{ENDS}")
    leg.picks_up()
    await breathe()
    assert leg.heard
    await say(leg, HELLO[:60])
    assert not stage.records.of(AnswererDetected)
    assert await stage.ended(leg) == "dialplan_hangup"
    assert outcomes(stage)[:3] == [("answer", "done"), ("wait", "done"), ("amd", "human")]
    assert decided(stage).after_ms == pytest.approx(300 + 700 + 800, abs=400)


async def test_what_was_heard_before_the_answer_does_not_count(stage: Stage) -> None:
    leg, call = await placed(stage, f"  main: [{{amd: {{on: {BRANCHES}}}}}]{ENDS}")
    leg.progress(183, media=True)
    await breathe()
    await say(leg, GREETING[:250])
    leg.picks_up()
    await stage.until(lambda: call.answered, leg)
    await say(leg, HELLO)
    assert await stage.ended(leg) == "dialplan_hangup"
    assert outcomes(stage)[0] == ("amd", "human")
    assert decided(stage).after_ms < 2500


async def test_nothing_is_kept_where_nobody_asks(stage: Stage) -> None:
    leg, call = await placed(stage, "  main: [answer, {wait: 60}]")
    leg.picks_up()
    await stage.until(lambda: call.answered, leg)
    await say(leg, HELLO[:5])
    assert not leg.heard


async def test_who_asks_too_late_hears_what_is_said_from_then_on(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answerer, "KEPT_MS", 400)
    leg, _ = await placed(stage, f"  main: [answer, {{wait: 0.05}}, {{amd: {{on: {BRANCHES}}}}}]{ENDS}")
    leg.picks_up()
    await breathe()
    await say(leg, GREETING[:30])
    assert not leg.heard  # it was given up
    await stage.until(lambda: ("wait", "done") in outcomes(stage), leg)
    await breathe()
    assert leg.heard
    await say(leg, HELLO)
    assert await stage.ended(leg) == "dialplan_hangup"
    assert outcomes(stage)[2] == ("amd", "human")


async def test_it_may_be_asked_again(stage: Stage) -> None:
    """First who it is, then, after something else, whether the beep has come."""
    first, second = "{amd: {on: {human: end}}}", f"{{amd: {{wait_s: 20, beep_s: 20, on: {BRANCHES}}}}}"
    leg, _ = await placed(stage, f"  main: [{first}, {second}]{ENDS}")
    leg.picks_up()
    await breathe()
    await say(leg, GREETING + GREETING + BEEP + SILENCE[:50])
    assert await stage.ended(leg) == "dialplan_hangup"
    assert outcomes(stage)[:2] == [("amd", "machine"), ("amd", "beep")]


async def test_on_a_call_that_came_in_it_listens_from_the_answer_too(stage: Stage) -> None:
    leg, _ = stage.call(f"  main: [{{amd: {{on: {BRANCHES}}}}}]{ENDS}")
    await stage.until(lambda: leg.media, leg)
    await say(leg, HELLO)
    await stage.ended(leg)
    assert outcomes(stage)[0] == ("amd", "human")


async def test_a_far_end_that_hangs_up_meanwhile_is_not_decided(stage: Stage) -> None:
    leg, _ = await placed(stage, f"  main: [{{amd: {{on: {BRANCHES}}}}}]{ENDS}")
    leg.picks_up()
    await breathe()
    await say(leg, HELLO[:20])
    leg.peer_leaves()
    assert await stage.ended(leg) == "callee_hangup"
    assert outcomes(stage) == [("amd", "cancelled")]
    assert not stage.records.of(AnswererDetected)


# --- the parts --------------------------------------------------------------------------------------------------------


def frame(value: int) -> Frame:
    return Frame(np.full(FRAME_SAMPLES, value, np.int16), value)


def test_first_words_begin_with_the_answer_and_are_taken_once() -> None:
    words = FirstWords()
    words.hear(frame(1))
    words.answered()
    words.hear(frame(2))
    words.hear(frame(3))
    assert [each.at_ns for each in words.take()] == [2, 3]
    words.hear(frame(4))
    assert (words.take(), words.wanted) == ([], False)


def test_first_words_that_nobody_takes_are_forgotten() -> None:
    words = FirstWords()
    words.answered()
    for number in range(answerer.KEPT_MS // 20):
        words.hear(frame(number))
    assert words.wanted
    words.hear(frame(0))
    assert not words.wanted
    assert words.take() == []


def test_the_steps_times_become_the_rules() -> None:
    rule = parameters(5, 0)
    assert (rule.total_analysis_ms, rule.initial_silence_ms, rule.beep_ms) == (5000, 3500, 0)
    assert parameters(10, 30.5).beep_ms == 30_500
    assert parameters(10, 0).initial_silence_ms == 7000


@virtual
async def test_without_media_nothing_is_waited_for() -> None:
    detection = Detection(parameters(5, 0))
    deciding = asyncio.create_task(detection.decision())
    for _ in range(10):
        await asyncio.sleep(2)
        detection.hear(frame(0))
    assert not deciding.done()
    decision = await deciding
    assert (decision.who, decision.at_ms) == ("unknown", 200)
    assert "no sound arrives" in decision.why
