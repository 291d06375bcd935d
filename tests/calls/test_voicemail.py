"""Messages: what ends them, what is kept, and what becomes of the words."""

from __future__ import annotations

import asyncio
import wave
from pathlib import Path

import numpy as np
import pytest

from sipserver.audio import tones
from sipserver.audio.frame import FRAME_SAMPLES, Samples
from sipserver.calls.keyring import Keyring
from sipserver.errors import ProviderRejected
from sipserver.events import Fault, VoicemailLeft, VoicemailTranscribed
from tests.calls.gathering import FRAME_S, Caller, Gathering, gathering
from tests.fakes.engines import FakeStt
from tests.fakes.recorder import InstantRecorder
from tests.fakes.virtual_time import virtual
from tests.fakes.voice import voice

BOX = """
  box:
    - voicemail: {box: sales, greeting: Nobody is here., max_s: 20, silence_s: 3, %s
                  on: {recorded: kept, empty: nothing, failed: sorry}}
  kept: [{say: Thank you.}, hangup]
  nothing: [hangup]
  sorry: [hangup]"""


def plan(stage: Gathering, options: str = "transcript: false,", head: str = "") -> None:
    stage.plans(BOX % options, head)


def beeped(caller: Caller) -> bool:
    beep = tones.beep(300)
    return caller.heard_sound().tobytes().find(beep[: len(beep) // FRAME_SAMPLES * FRAME_SAMPLES].tobytes()) >= 0


async def speak(stage: Gathering, caller: Caller, seconds: float, then: Samples | None = None) -> Samples:
    """After the beep, for so long; then another sound. Returns what was said."""
    await stage.happens(lambda: beeped(caller))
    said = voice(seconds, seed=2) if seconds else tones.silence(0)
    sound = said if then is None else np.concatenate((said, then))
    for start in range(0, len(sound) - FRAME_SAMPLES + 1, FRAME_SAMPLES):
        caller.said = sound[start : start + FRAME_SAMPLES]
        await asyncio.sleep(FRAME_S)
    caller.said = None
    return said


def message(stage: Gathering) -> tuple[Path, Samples]:
    (path,) = stage.recorder.folder.rglob("*.wav")
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getframerate()) == (1, 16_000)
        return path, np.frombuffer(file.readframes(file.getnframes()), "<i2")


@virtual
async def test_a_message_is_the_caller_alone_and_silence_ends_it(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        plan(stage)
        ann = stage.calls("box")
        said = await speak(stage, ann, 2)
        await stage.over()
        assert ann.left == [("voicemail", "recorded"), ("say", "done"), ("hangup", "done")]
        assert stage.tts.texts == ["Nobody is here.", "Thank you."]
        path, samples = message(stage)
        assert path.parent == stage.recorder.folder / "voicemail" / "acme" / "sales"
        assert path.stem.endswith(f"_{ann.call.id}")
        before, whole, after = samples.tobytes().partition(said.tobytes())
        assert whole, "what was said is in the message"
        assert not any(before + after), "and nothing else: neither the beep nor what we say later"
        (left,) = ann.of(VoicemailLeft)
        assert (left.box, left.path, left.ended_by) == ("sales", str(path), "silence")
        assert left.duration_ms == len(samples) // 16
        assert left.duration_ms == pytest.approx(5000, abs=400)
        assert not ann.leg.heard


@virtual
async def test_a_key_ends_the_greeting_and_another_one_the_message(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        stage.plans(BOX.replace("Nobody is here.", " ".join(["word"] * 500)) % "transcript: false,")
        ann = stage.calls("box")
        await stage.happens(lambda: len(ann.leg.played) > 20)
        ann.leg.press("1")
        await speak(stage, ann, 1)
        assert len(ann.leg.played) < 200
        ann.leg.press("#")
        await stage.over()
        (left,) = ann.of(VoicemailLeft)
        assert left.ended_by == "key"
        assert left.duration_ms == pytest.approx(1000, abs=200)


@virtual
async def test_a_message_has_a_longest_time(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        plan(stage)
        ann = stage.calls("box")
        await speak(stage, ann, 25)
        await stage.over()
        (left,) = ann.of(VoicemailLeft)
        assert left.ended_by == "max"
        assert left.duration_ms == pytest.approx(20_000, abs=100)


@virtual
async def test_hanging_up_leaves_the_message(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        plan(stage)
        ann = stage.calls("box")
        said = await speak(stage, ann, 2)
        ann.hangs_up()
        await stage.over()
        assert ann.left == [("voicemail", "cancelled")]
        (left,) = ann.of(VoicemailLeft)
        assert left.ended_by == "hangup"
        assert said.tobytes() in message(stage)[1].tobytes()


@pytest.mark.parametrize("tone", ["busy", "congestion", "dial tone"])
def test_the_tones_of_a_network_end_it_and_are_cut_off(tmp_path: Path, tone: str) -> None:
    @virtual
    async def test() -> None:
        async with gathering(tmp_path) as stage:
            plan(stage)
            ann = stage.calls("box")
            hung_up = {
                "busy": tones.busy(8),
                "congestion": np.tile(np.concatenate((tones.tone((425,), 240, (-15,)), tones.silence(240))), 16),
                "dial tone": tones.tone((425,), 6000, (-15,)),
            }[tone]
            said = await speak(stage, ann, 4, hung_up)
            await stage.over()
            assert ann.left[0] == ("voicemail", "recorded")
            (left,) = ann.of(VoicemailLeft)
            assert left.ended_by == "tone"
            samples = message(stage)[1]
            assert left.duration_ms == len(samples) // 16 == pytest.approx(4000, abs=250)
            length = min(len(samples), len(said)) - FRAME_SAMPLES
            assert said[:length].tobytes() in samples.tobytes()

    test()


@virtual
async def test_who_hangs_up_at_once_leaves_nothing_but_tones(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        plan(stage)
        ann = stage.calls("box")
        await speak(stage, ann, 0, tones.busy(12))
        await stage.over()
        assert ann.left[0] == ("voicemail", "empty")
        assert ann.of(VoicemailLeft) == []
        assert list(stage.recorder.folder.rglob("*.wav")) == []


@pytest.mark.parametrize("hangs_up", [True, False])
def test_an_empty_message_is_dropped(tmp_path: Path, hangs_up: bool) -> None:
    @virtual
    async def test() -> None:
        async with gathering(tmp_path) as stage:
            plan(stage)
            ann = stage.calls("box")
            await speak(stage, ann, 0.1)
            if hangs_up:
                ann.hangs_up()
            await stage.over()
            assert ann.left[0] == ("voicemail", "cancelled" if hangs_up else "empty")
            assert ann.of(VoicemailLeft) == []
            assert list(stage.recorder.folder.rglob("*.wav")) == []

    test()


@pytest.mark.parametrize("frames", [1, 40])
def test_hanging_up_before_the_message_leaves_nothing(tmp_path: Path, frames: int) -> None:
    @virtual
    async def test() -> None:
        async with gathering(tmp_path) as stage:
            stage.plans(BOX.replace("Nobody is here.", " ".join(["word"] * 20)) % "transcript: false,")
            ann = stage.calls("box")
            await stage.happens(lambda: len(ann.leg.played) > frames)
            ann.hangs_up()
            await stage.over()
            assert ann.left == [("voicemail", "cancelled")]
            assert list(stage.recorder.folder.rglob("*.wav")) == []

    test()


@virtual
async def test_a_greeting_that_cannot_be_said_leaves_the_beep(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        stage.tts.broken = True
        plan(stage)
        ann = stage.calls("box")
        await speak(stage, ann, 1)
        await stage.over()
        assert ann.left[0] == ("voicemail", "recorded")


@pytest.mark.parametrize("when", ["before", "within"])
def test_a_full_disk_fails_and_the_call_goes_on(tmp_path: Path, when: str) -> None:
    @virtual
    async def test() -> None:
        async with gathering(tmp_path) as stage:
            plan(stage)
            if when == "before":
                (tmp_path / "recordings").write_text("a file where the folder should be")
            ann = stage.calls("box")
            await speak(stage, ann, 1)
            stage.recorder.full_disk = True  # type: ignore[attr-defined]
            await stage.over()
            assert ann.left == [("voicemail", "failed"), ("hangup", "done")]
            assert [fault.where for fault in ann.of(Fault)] == ["voicemail"]
            assert ann.of(VoicemailLeft) == []

    test()


@virtual
async def test_a_name_that_leads_elsewhere_is_no_box(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        stage.plans("  box: [{voicemail: {box: '{header.x-box}', transcript: false}}]")
        ann = stage.calls("box")
        await stage.over()
        assert ann.left[0] == ("voicemail", "failed")


# --- the words --------------------------------------------------------------------------------------------------------


async def left_by(stage: Gathering, user: str, seconds: float = 2) -> Caller:
    caller = stage.calls("box", user)
    await speak(stage, caller, seconds)
    caller.hangs_up()
    await stage.over()
    return caller


@virtual
async def test_a_message_is_written_down_when_the_call_is_over(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        stt = FakeStt("call me back", name="whisper", delay_s=30)
        stage.stt["whisper"] = stt
        plan(stage, "")
        ann = await left_by(stage, "ann")
        assert ann.of(VoicemailLeft)
        assert not ann.of(VoicemailTranscribed)
        await stage.happens(lambda: ann.of(VoicemailTranscribed))
        (told,) = ann.of(VoicemailTranscribed)
        assert (told.text, told.box, told.path) == ("call me back", "sales", str(message(stage)[0]))
        ((audio_ms, language, speculative),) = stt.asked
        assert audio_ms == pytest.approx(2000, abs=50)
        assert (language, speculative) == ("en", True)
        await stage.happens(lambda: stage.scribe.depth == 0)


@virtual
async def test_the_engines_of_the_tenants_agents_are_asked_in_their_order(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        broken, good = FakeStt(ProviderRejected("one", "no"), name="one"), FakeStt("hello", name="two")
        stage.stt.update(one=broken, two=good)
        head = "agents:\n  a: {prompt: x, stt: [one, two]}\n  b: {prompt: y, stt: [two]}"
        plan(stage, "", head)
        ann = await left_by(stage, "ann")
        await stage.happens(lambda: ann.of(VoicemailTranscribed))
        assert ann.of(VoicemailTranscribed)[0].text == "hello"
        assert broken.asked


@virtual
async def test_a_message_that_cannot_be_written_down_stays(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        plan(stage, "")
        ann = await left_by(stage, "ann")
        await stage.happens(lambda: ann.of(Fault))
        assert "not written down" in ann.of(Fault)[0].error
        assert message(stage)[0].exists()


@virtual
async def test_a_message_that_is_encrypted_is_written_down_all_the_same(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        stage.recorder = InstantRecorder(tmp_path, ring=Keyring({"a": bytes(range(32))}), seal=True)
        stage.stt["whisper"] = FakeStt("call me back", name="whisper")
        plan(stage, "")
        ann = stage.calls("box")
        said = await speak(stage, ann, 2)
        await stage.over()
        await stage.happens(lambda: ann.of(VoicemailTranscribed))
        assert ann.of(VoicemailTranscribed)[0].text == "call me back"
        path = Path(ann.of(VoicemailLeft)[0].path)
        assert path.name.endswith(f"_{ann.call.id}.wav.enc")
        with stage.recorder.read(path, "acme") as sound:
            assert said.tobytes() in sound.read()
