"""Each step at work: what the caller hears, which branch it takes, and what happens to digits."""

from __future__ import annotations

import asyncio
import wave
from pathlib import Path

import numpy as np
import pytest

from sipserver.agent.options import Outcome
from sipserver.audio.frame import FRAME_SAMPLES
from sipserver.errors import ProviderTimeout
from sipserver.events import Fault, ProviderFailed, RecordingPaused, RecordingResumed, Spoken, StepEntered, VariableSet
from tests.calls.conftest import SPOKEN, Stage, outcomes
from tests.fakes.leg import FakeLeg, breathe, level


def spoken_frames(leg: FakeLeg) -> int:
    return sum(bool((samples == SPOKEN).all()) for samples in leg.played)


def flows(stage: Stage) -> list[str]:
    """Flows in the order in which they were entered."""
    found: list[str] = []
    for step in stage.records.of(StepEntered):
        if not found or found[-1] != step.flow:
            found.append(step.flow)
    return found


# --- say and play -----------------------------------------------------------------------------------------------------


async def test_say_is_heard_to_its_end(stage: Stage) -> None:
    leg, _ = stage.call("  main: [{say: 'Hello {from} and good day.'}]")
    await stage.ended(leg)
    assert stage.tts.texts == ["Hello alice and good day."]
    assert spoken_frames(leg) == 5
    assert [spoken.complete for spoken in stage.records.of(Spoken)] == [True]


async def test_a_digit_ends_say_and_is_kept_for_collect(stage: Stage) -> None:
    words = " ".join(["word"] * 100)
    leg, _ = stage.call(f"""
  main: [{{say: {words}}}, {{collect: {{digits: 2, on: {{"12": good, none: end, other: end}}}}}}]
  good: [hangup]""")
    await stage.until(lambda: spoken_frames(leg) == 3, leg)
    leg.press("1")
    await stage.until(lambda: outcomes(stage) == [("say", "done")], leg)
    leg.press("2")
    await stage.ended(leg)
    assert spoken_frames(leg) < 10
    assert flows(stage) == ["main", "good"]
    assert sum(spoken.heard_ms for spoken in stage.records.of(Spoken)) == 20 * spoken_frames(leg)
    assert not any(spoken.complete for spoken in stage.records.of(Spoken))


async def test_a_say_that_is_not_interruptible_keeps_digits_for_later(stage: Stage) -> None:
    leg, _ = stage.call("""
  main: [{say: {text: one two three four, interruptible: false}}, {collect: {on: {"7": good, none: end, other: end}}}]
  good: [hangup]""")
    await stage.until(lambda: spoken_frames(leg) == 1, leg)
    leg.press("7")
    await stage.ended(leg)
    assert spoken_frames(leg) == 4
    assert flows(stage) == ["main", "good"]


async def test_say_that_fails_takes_its_branch(stage: Stage) -> None:
    stage.tts.broken = True
    leg, _ = stage.call("""
  main: [{say: {text: Hello., on: {failed: sorry}}}]
  sorry: [{hangup: 503}]""")
    assert await stage.ended(leg) == "dialplan_hangup"
    assert flows(stage) == ["main", "sorry"]
    assert stage.records.of(ProviderFailed)


async def test_say_that_fails_to_the_end_is_the_providers_fault(stage: Stage) -> None:
    stage.tts.broken = True
    leg, _ = stage.call("  main: [{say: {text: Hello., on: {failed: end}}}]")
    assert await stage.ended(leg) == "provider_failed"


def write_sound(path: Path, frames: int, value: int = 777) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(np.full(frames * FRAME_SAMPLES, value, "<i2").tobytes())


async def test_play_is_heard_sample_for_sample(stage: Stage) -> None:
    write_sound(stage.folder / "a.wav", 7)
    leg, _ = stage.call("  main: [{play: a.wav}]")
    await stage.ended(leg)
    assert sum(bool((samples == 777).all()) for samples in leg.played) == 7


async def test_a_digit_ends_play(stage: Stage) -> None:
    write_sound(stage.folder / "a.wav", 3_000)
    leg, _ = stage.call("  main: [{play: a.wav}, {collect: {on: {none: end, other: end}}}]")
    await stage.until(lambda: any(samples.any() for samples in leg.played), leg)
    leg.press("5")
    await stage.ended(leg)
    assert len(leg.played) < 1_000
    assert [event.value for event in stage.records.of(VariableSet)] == ["5"]


async def test_a_file_that_went_away_takes_the_branch(stage: Stage) -> None:
    write_sound(stage.folder / "a.wav", 1)
    leg, _ = stage.call("""
  main: [{play: {file: a.wav, on: {failed: sorry}}}]
  sorry: [hangup]""")
    (stage.folder / "a.wav").unlink()
    await stage.ended(leg)
    assert flows(stage) == ["main", "sorry"]
    assert [fault.where for fault in stage.records.of(Fault)] == ["play"]


# --- collect ----------------------------------------------------------------------------------------------------------

MENU = """
  main: [{collect: {say: Press one., timeout_s: 0.05, between_s: 0.05, %s on: {"1": one, none: nothing, other: wrong}}}]
  one: [hangup]
  nothing: [hangup]
  wrong: [hangup]"""


@pytest.mark.parametrize(("digit", "flow"), [("1", "one"), ("2", "wrong"), ("", "nothing")])
async def test_collect_takes_the_branch(stage: Stage, digit: str, flow: str) -> None:
    leg, _ = stage.call(MENU % "")
    await stage.until(lambda: spoken_frames(leg) == 1, leg)
    leg.press(digit)
    await stage.ended(leg)
    assert flows(stage) == ["main", flow]
    assert [event.value for event in stage.records.of(VariableSet)] == [digit]
    assert outcomes(stage)[0] == ("collect", {"1": "digits", "2": "other", "": "none"}[digit])


async def test_typed_ahead_digits_skip_the_question(stage: Stage) -> None:
    leg = FakeLeg()
    leg.press("1")
    stage.call(MENU % "", leg)
    await stage.ended(leg)
    assert flows(stage) == ["main", "one"]
    assert stage.tts.texts == []


async def test_too_few_digits_are_asked_for_again(stage: Stage) -> None:
    leg, _ = stage.call(MENU.replace('"1"', '"123"') % "digits: 3, min_digits: 2, tries: 2,")
    await stage.until(lambda: spoken_frames(leg) == 1, leg)
    leg.press("1")
    await stage.until(lambda: spoken_frames(leg) == 3, leg)
    leg.press("123")
    await stage.ended(leg)
    assert flows(stage) == ["main", "one"]


async def test_after_the_last_try_the_branch_says_what_was_wrong(stage: Stage) -> None:
    leg, _ = stage.call(MENU.replace('"1"', '"123"') % "digits: 3, min_digits: 2, tries: 2,")
    await stage.until(lambda: spoken_frames(leg) == 2, leg)
    await stage.until(lambda: spoken_frames(leg) == 3, leg)
    leg.press("1#")
    await stage.ended(leg)
    assert flows(stage) == ["main", "wrong"]


async def test_a_question_that_cannot_be_put_still_takes_digits(stage: Stage) -> None:
    stage.tts.broken = True
    leg, _ = stage.call(MENU.replace("timeout_s: 0.05", "timeout_s: 5") % "")
    await stage.until(lambda: stage.records.of(Fault), leg)
    leg.press("1")
    await stage.ended(leg)
    assert flows(stage) == ["main", "one"]


async def test_collect_can_play_a_file(stage: Stage) -> None:
    write_sound(stage.folder / "a.wav", 3)
    leg, _ = stage.call("  main: [{collect: {play: a.wav, timeout_s: 0.02, on: {none: end, other: end}}}]")
    await stage.ended(leg)
    assert sum(bool((samples == 777).all()) for samples in leg.played) == 3


# --- agent ------------------------------------------------------------------------------------------------------------

DESK = """
  main: [{agent: {use: desk, on: {done: done, failed: failed, transfer: transfer, silence: silence,
                                  max_duration: max_duration}}}]
  done: [hangup]
  failed: [hangup]
  transfer: [hangup]
  silence: [hangup]
  max_duration: [hangup]"""


@pytest.mark.parametrize("kind", ["done", "failed", "transfer", "silence", "max_duration"])
async def test_every_outcome_of_a_conversation_has_its_branch(stage: Stage, kind: str) -> None:
    leg, call = stage.call(DESK)
    await stage.until(lambda: stage.converse.talks, leg)
    (talk,) = stage.converse.talks
    await leg.ticks(3, level(9))
    assert [int(frame.samples[0]) for frame in talk.heard[-3:]] == [9, 9, 9]
    assert talk.given["options"].prompt == "You talk to alice."
    assert talk.given["playout"] is leg.playout
    assert talk.given["digits"] is call.digits
    talk.outcome.set_result(Outcome(kind))  # type: ignore[arg-type]
    await stage.ended(leg)
    assert flows(stage) == ["main", kind]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("failed", "provider_failed"), ("silence", "silence_watchdog"), ("max_duration", "max_duration")],
)
async def test_an_outcome_that_leads_to_the_end_names_the_ending(stage: Stage, kind: str, reason: str) -> None:
    on = ", ".join(sorted({"failed: end", f"{kind}: end"}))
    leg, _ = stage.call(f"  main: [{{agent: {{use: desk, on: {{{on}}}}}}}]")
    await stage.until(lambda: stage.converse.talks, leg)
    stage.converse.talks[0].outcome.set_result(Outcome(kind))  # type: ignore[arg-type]
    assert await stage.ended(leg) == reason


async def test_digits_go_to_the_conversation_unless_it_collects_them(stage: Stage) -> None:
    leg, _ = stage.call("""
  main: [{agent: {use: desk, on: {failed: end}}}, {collect: {timeout_s: 0.02, on: {none: end, other: end}}}]""")
    await stage.until(lambda: stage.converse.talks, leg)
    (talk,) = stage.converse.talks
    leg.press("12")
    collecting = asyncio.create_task(talk.given["digits"].collect(1, 5))
    await breathe()
    leg.press("34")  # so fast that the second one comes before anybody took the first
    assert await collecting == "3"
    leg.press("5")
    assert talk.typed == "125"
    stage.converse.talks[0].outcome.set_result(Outcome("done"))
    await stage.ended(leg)
    assert [event.value for event in stage.records.of(VariableSet)] == [""]


async def test_a_conversation_that_breaks_ends_this_call_only(stage: Stage) -> None:
    leg, _ = stage.call("  main: [{agent: {use: desk, on: {failed: end}}}]")
    await stage.until(lambda: stage.converse.talks, leg)
    stage.converse.talks[0].outcome.set_exception(RuntimeError("a bug"))
    assert await stage.ended(leg) == "internal_error"
    assert outcomes(stage) == [("agent", "broken")]
    assert stage.records.of(Fault) == [Fault(where="dialplan", error="RuntimeError: a bug")]


# --- echo -------------------------------------------------------------------------------------------------------------


async def test_echo_is_the_legs_own_business(stage: Stage) -> None:
    leg, _ = stage.call("  main: [echo]")
    await stage.until(lambda: leg.looped, leg)
    assert not leg.heard
    leg.peer_leaves()
    assert await stage.ended(leg) == "caller_hangup"
    assert not leg.looped


async def test_echo_ends_in_time(stage: Stage) -> None:
    leg, _ = stage.call("  main: [{echo: 0.02}, {say: Good bye.}]")
    await stage.ended(leg)
    assert outcomes(stage) == [("echo", "done"), ("say", "done")]
    assert not leg.looped
    assert spoken_frames(leg) == 2


# --- record -----------------------------------------------------------------------------------------------------------


def recordings(stage: Stage) -> list[tuple[str, str]]:
    """(file name, status) as the record was told."""
    told = [facts for name, facts in stage.records.calls if name == "recording"]
    return [(Path(facts["path"]).name, facts["status"]) for facts in told]


async def test_record_start_pause_resume_stop(stage: Stage) -> None:
    leg, call = stage.call("""
  main:
    - record
    - agent: {use: desk, on: {failed: end}}
    - record: pause
    - agent: {use: desk, on: {failed: end}}
    - record: resume
    - agent: {use: desk, on: {failed: end}}
    - record: stop""")
    for number, value in enumerate((10, 20, 30), 1):
        await stage.until(lambda number=number: len(stage.converse.talks) == number, leg)  # type: ignore[misc]
        await leg.ticks(5, level(value))
        stage.converse.talks[-1].outcome.set_result(Outcome("done"))
        await breathe()
    await stage.ended(leg)
    (path,) = stage.recorder.folder.rglob("*.wav")
    assert path.parent.parent == stage.recorder.folder / "acme"
    assert path.name == f"{call.id}.wav"
    assert recordings(stage) == [(path.name, "recording"), (path.name, "complete")]
    with wave.open(str(path)) as file:
        left = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)[:, 0]
    (paused,), (resumed,) = stage.records.of(RecordingPaused), stage.records.of(RecordingResumed)
    assert paused.at_sample < resumed.at_sample < len(left)
    assert (left[paused.at_sample - 5 * FRAME_SAMPLES : paused.at_sample] == 10).all()
    assert not left[paused.at_sample : resumed.at_sample].any()
    assert (left[resumed.at_sample :] == 30).any()


async def test_a_call_that_ends_while_it_records_closes_the_file(stage: Stage) -> None:
    leg, call = stage.call("  main: [record, {say: One two three.}]")
    await stage.ended(leg)
    assert recordings(stage) == [(f"{call.id}.wav", "recording"), (f"{call.id}.wav", "complete")]
    (path,) = stage.recorder.folder.rglob("*.wav")
    with wave.open(str(path)) as file:
        right = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)[:, 1]
    assert (right == SPOKEN).sum() == 3 * FRAME_SAMPLES


async def test_a_second_recording_has_its_own_file(stage: Stage) -> None:
    leg, call = stage.call("  main: [record, {record: stop}, {record: pause}, {record: {stereo: false}}]")
    await stage.ended(leg)
    assert sorted(path.name for path in stage.recorder.folder.rglob("*.wav")) == sorted(
        [f"{call.id}.wav", f"{call.id}-2.wav"]
    )


async def test_a_full_disk_does_not_end_the_call(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    from sipserver.calls import wav

    def full(_self: wav.WavWriter, _payload: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(wav.WavWriter, "write", full)
    leg, _ = stage.call("  main: [record, {agent: {use: desk, on: {failed: end}}}, {say: Still here.}]")
    await stage.until(lambda: "recording.failed" in stage.records.kinds(), leg)
    stage.converse.talks[0].outcome.set_result(Outcome("done"))
    assert await stage.ended(leg) == "dialplan_hangup"
    assert spoken_frames(leg) == 2
    assert [status for _, status in recordings(stage)] == ["recording", "failed"]


# --- the caller hangs up ----------------------------------------------------------------------------------------------

LONG = " ".join(["word"] * 500)


@pytest.mark.parametrize(
    "step",
    [
        f"say: {LONG}",
        f"say: {{text: {LONG}, interruptible: false}}",
        "play: long.wav",
        f"collect: {{say: {LONG}, on: {{none: end, other: end}}}}",
        "collect: {timeout_s: 60, on: {none: end, other: end}}",
        "agent: {use: desk, on: {failed: end}}",
        "echo: 60",
        "wait: 60",
    ],
)
async def test_hanging_up_ends_every_step_at_once(stage: Stage, step: str) -> None:
    write_sound(stage.folder / "long.wav", 3_000)
    leg, call = stage.call(f"  main: [answer, record, {{{step}}}]")
    await stage.until(lambda: len(stage.records.of(StepEntered)) == 3, leg)
    await leg.ticks(5)
    leg.peer_leaves()
    assert await stage.ended(leg) == "caller_hangup"
    assert outcomes(stage)[-1][1] == "cancelled"
    assert leg.actions == ["answer"]
    assert not call.tape.running
    assert leg.playout.pending_ms == 0
    assert stage.records.kinds()[-1] == "call.ended"


async def test_a_provider_error_that_a_conversation_lets_through_is_told(stage: Stage) -> None:
    leg, _ = stage.call("""
  main: [{agent: {use: desk, on: {failed: sorry}}}]
  sorry: [hangup]""")
    await stage.until(lambda: stage.converse.talks, leg)
    stage.converse.talks[0].outcome.set_exception(ProviderTimeout("llm", "too slow"))
    await stage.ended(leg)
    assert flows(stage) == ["main", "sorry"]
