"""amd with `transcript: true`: when words decide, when they do not, how long they may take.

In virtual time, with scripted ears, and once with Whisper's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from sipserver.audio import tones
from sipserver.audio.frame import Frame, Samples
from sipserver.calls.answerer import WORDS_MS, Detection, Words, parameters
from sipserver.calls.steps import amd
from sipserver.errors import ProviderRejected
from sipserver.events import AnswererDetected, Fault, Transcript
from sipserver.speech import service
from sipserver.speech.settings import SpeechSettings
from tests.calls.conftest import Stage
from tests.calls.gathering import FRAME_S, Caller, Gathering, gathering
from tests.fakes.answerers import Greeting, Line, judged, over, spoken
from tests.fakes.engines import FakeStt
from tests.fakes.virtual_time import virtual
from tests.fakes.voice import voice

LINE = Line("line", lead_ms=0, noise_dbfs=-58)
RECORDED, ASKED, NOTHING = "Please leave a message after the tone.", "Hello, who is this?", "Hello?"
FLOW = """
  who:
    - amd: {transcript: true, %s
            on: {human: next, machine: next, beep: next, silence: next, fax: next, unknown: next}}
    - hangup"""


def sound(*parts: Samples, tail_ms: int = 0) -> list[Samples]:
    return over(LINE, np.concatenate(parts), tail_ms=tail_ms)


SHORT = sound(tones.silence(300), voice(0.7, seed=4), tail_ms=2000)
LONG = sound(tones.silence(300), voice(6, seed=3))
BEEP = sound(tones.silence(300), tones.beep(400))
SILENCE = sound(tones.silence(12_000))


async def answers(stage: Gathering, frames: Iterable[Samples], *engines: FakeStt, options: str = "") -> Caller:
    """A call whose other side says the frames, then nothing, until the step is left."""
    stage.stt.update({engine.name: engine for engine in engines})
    chain = ", ".join(engine.name for engine in engines)
    stage.plans(FLOW % options, f"agents: {{a: {{prompt: x, stt: [{chain}]}}}}" if engines else "")
    caller = stage.calls("who")
    await stage.happens(lambda: caller.leg.media)
    for samples in frames:
        caller.said = samples
        await asyncio.sleep(FRAME_S)
    caller.said = None
    await stage.over()
    return caller


def decided(caller: Caller) -> AnswererDetected:
    (event,) = caller.of(AnswererDetected)
    return event


@pytest.mark.parametrize(
    ("said", "text", "who", "why"),
    [
        (
            SHORT,
            RECORDED,
            "machine",
            "those of a recording, against energy and timing (human: a greeting",
        ),
        (SHORT, ASKED, "human", "ms of silence; the words are a person's"),
        (SHORT, NOTHING, "human", "ms of silence; the words do not tell"),
        (LONG, ASKED, "human", "the words are a person's, against energy and timing (machine: a greeting"),
        (LONG, RECORDED, "machine", "words; the words are those of a recording"),
        (LONG, NOTHING, "machine", "words; the words do not tell"),
    ],
)
def test_words_that_tell_decide_against_timing(
    tmp_path: Path, said: list[Samples], text: str, who: str, why: str
) -> None:
    @virtual
    async def test() -> None:
        async with gathering(tmp_path) as stage:
            stt = FakeStt(text, name="ears", delay_s=0.4)
            caller = await answers(stage, said, stt)
            assert caller.left[0] == ("amd", who)
            assert decided(caller).answerer == who
            assert why in decided(caller).why
            (heard,) = caller.of(Transcript)
            assert heard.text == text
            ((audio_ms, language, speculative),) = stt.asked
            assert (language, speculative) == ("auto", False)
            by_timing_ms = decided(caller).after_ms - 400
            assert 1200 <= audio_ms < by_timing_ms  # from a little before the first word
            assert by_timing_ms == pytest.approx(1900 if said is SHORT else 2950, abs=250)

    test()


def test_the_step_says_in_which_language(tmp_path: Path) -> None:
    @virtual
    async def test() -> None:
        async with gathering(tmp_path) as stage:
            stt = FakeStt(NOTHING, name="ears")
            await answers(stage, SHORT, stt, options="language: de,")
            assert [asked[1] for asked in stt.asked] == ["de"]

    test()


@pytest.mark.parametrize(
    ("said", "who"),
    [(SILENCE, "silence"), (sound(tones.silence(300), tones.beep(2600, frequency_hz=2100)), "fax"), (BEEP, "beep")],
    ids=["silence", "fax", "beep"],
)
def test_nobody_is_asked_where_nothing_was_said(tmp_path: Path, said: list[Samples], who: str) -> None:
    @virtual
    async def test() -> None:
        async with gathering(tmp_path) as stage:
            stt = FakeStt(RECORDED, name="ears")
            assert decided(await answers(stage, said, stt)).answerer == who
            assert not stt.asked

    test()


@virtual
async def test_the_beep_of_a_short_recording_is_awaited(tmp_path: Path) -> None:
    """Timing would call it a person and speak into the greeting's end; and it beeps while the words are looked at."""
    async with gathering(tmp_path) as stage:
        said = sound(tones.silence(300), voice(0.7, seed=4), tones.silence(1000), tones.beep(400))
        caller = await answers(stage, said, FakeStt(RECORDED, name="ears", delay_s=1), options="beep_s: 20,")
        assert decided(caller).answerer == "beep"
        assert "1000 Hz for" in decided(caller).why
        assert decided(caller).why.endswith("; the words are those of a recording")
        assert decided(caller).after_ms == pytest.approx(20 * len(said) + 300, abs=700)


@virtual
async def test_a_short_recording_without_a_beep_has_been_quiet_long_enough(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        caller = await answers(stage, SHORT, FakeStt(RECORDED, name="ears"), options="beep_s: 20,")
        assert decided(caller).answerer == "machine"
        assert "no beep" in decided(caller).why
        assert decided(caller).after_ms == pytest.approx(1000 + 3000, abs=300)


@virtual
async def test_a_person_who_talks_long_is_not_kept_waiting_for_a_beep(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        caller = await answers(stage, LONG, FakeStt(ASKED, name="ears", delay_s=0.2), options="beep_s: 20,")
        assert decided(caller).answerer == "human"
        assert decided(caller).after_ms == pytest.approx(3150, abs=250)


@virtual
async def test_a_beep_before_the_words_needs_none(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        said = sound(tones.silence(300), voice(2.7, seed=3), tones.silence(200), tones.beep(300))
        stt = FakeStt(ASKED, name="ears", delay_s=1.9)
        caller = await answers(stage, said, stt, options="beep_s: 20,")
        assert decided(caller).answerer == "beep"
        assert decided(caller).after_ms < 20 * len(said) + 400
        assert stt.cancelled == 1


# --- ears that fail ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", ["refuses", "is slow", "is not there"])
def test_without_a_transcript_timing_decides(tmp_path: Path, problem: str) -> None:
    @virtual
    async def test() -> None:
        async with gathering(tmp_path) as stage:
            stt = {
                "refuses": [FakeStt(ProviderRejected("ears", "no"), name="ears")],
                "is slow": [FakeStt(RECORDED, name="ears", delay_s=30)],
                "is not there": [],
            }[problem]
            caller = await answers(stage, SHORT, *stt)
            assert caller.left[0] == ("amd", "human")
            (fault,) = (fault for fault in caller.of(Fault) if fault.where == "amd")
            assert fault.error.startswith("decided without the words: ")
            assert decided(caller).why.endswith("; there is no transcript")
            assert decided(caller).after_ms <= 2200 + 1000 * amd.WORDS_S

    test()


@virtual
async def test_all_engines_together_have_the_time_of_one(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        slow, good = FakeStt(NOTHING, name="slow", delay_s=30), FakeStt(RECORDED, name="good", delay_s=0.5)
        caller = await answers(stage, SHORT, slow, good)
        assert decided(caller).answerer == "machine"
        assert decided(caller).after_ms == pytest.approx(1900 + 1000 + 500, abs=250)


@virtual
async def test_hanging_up_meanwhile_ends_the_question(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        stt = stage.stt["whisper"] = FakeStt(RECORDED, name="whisper", delay_s=1)
        stage.plans(FLOW % "")
        caller = stage.calls("who")
        await stage.happens(lambda: caller.leg.media)
        for samples in SHORT:
            caller.said = samples
            await asyncio.sleep(FRAME_S)
            if stt.asked:
                break
        caller.hangs_up()
        await stage.over()
        assert caller.left == [("amd", "cancelled")]
        assert caller.of(AnswererDetected) == []
        assert stt.cancelled == 1


@virtual
async def test_what_is_written_down_has_a_bound() -> None:
    asked: list[int] = []

    async def words(samples: Samples) -> Words:
        asked.append(len(samples) // 16)
        return Words(None, "")

    detection = Detection(parameters(20, 0), words)
    for samples in sound(voice(0.7, seed=4), tail_ms=22_000):
        detection.hear(Frame(samples, 0))
    assert (await detection.decision()).who == "human"
    assert asked == [WORDS_MS]


# --- real ears --------------------------------------------------------------------------------------------------------


@pytest.mark.models
async def test_whisper_knows_a_recording_that_timing_takes_for_a_person(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amd, "WORDS_S", 60.0)  # other tests may have the processor
    (said,) = spoken([Greeting("Please leave a message after the tone.")], tmp_path)
    frames = over(LINE, np.concatenate((tones.silence(300), said)), tail_ms=1500)
    assert judged(frames).who == "human"
    speech = await service.load(SpeechSettings(models=tmp_path), stt=["whisper"])
    try:
        stage.stt["whisper"] = speech.stt["whisper"]
        leg, call = stage.call("  main: [{amd: {transcript: true, on: {human: end, machine: end}}}]")
        await stage.until(lambda: call.answered, leg)
        for samples in frames:
            await leg.ticks(1, samples)
        await stage.ended(leg)
        (event,) = stage.records.of(AnswererDetected)
        assert isinstance(event, AnswererDetected)
        assert event.answerer == "machine"
        assert event.why.startswith("the words are those of a recording, against energy and timing (human: ")
    finally:
        await speech.close()
