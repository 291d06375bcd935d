"""The detector: chunks cut right, batches shared, streams that come and go, an engine that falls behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sipserver.audio.frame import FRAME_SAMPLES, Frame, Samples
from sipserver.errors import ModelMissing
from sipserver.speech.vendors import silero
from sipserver.speech.vendors.silero import (
    BACKLOG_CHUNKS,
    CHUNK_SAMPLES,
    HUSH_AFTER_CHUNKS,
    HUSH_PEAK,
    SileroStream,
    SileroVad,
)

FRAME_NS = 20_000_000


class FakeSession:
    """Answers with the loudness of each row, and counts the chunks of a stream in its state. Can be held back."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.go_on = threading.Event()
        self.go_on.set()
        self.begun = threading.Event()
        self.failures = 0
        self.last: Any = None

    def run(self, _names: None, inputs: dict[str, Any]) -> tuple[Any, Any]:
        self.begun.set()
        assert self.go_on.wait(timeout=10)
        if self.failures:
            self.failures -= 1
            raise RuntimeError("no")
        sound, state = inputs["input"], inputs["state"]
        assert sound.shape == (state.shape[1], 288)
        assert sound.dtype == np.float32
        assert inputs["sr"] == 8000
        self.batches.append(len(sound))
        self.last = sound
        return np.abs(sound[:, 32:]).max(axis=1, keepdims=True), state + 1


class Ear:
    """A stream with what it was told. Frames are fed 20 ms apart on a clock of the test's own."""

    def __init__(self, vad: SileroVad) -> None:
        self.told: list[tuple[float, int]] = []
        self.stream: SileroStream = vad.stream(self._tell)
        self._news = asyncio.Event()
        self._at_ns = 0

    def _tell(self, probability: float, at_ns: int) -> None:
        self.told.append((probability, at_ns))
        self._news.set()

    def hear(self, samples: Samples) -> None:
        for start in range(0, len(samples), FRAME_SAMPLES):
            self._at_ns += FRAME_NS
            self.stream.hear(Frame(samples[start : start + FRAME_SAMPLES], self._at_ns))

    async def told_of(self, chunks: int) -> None:
        async with asyncio.timeout(10):
            while len(self.told) < chunks:
                self._news.clear()
                await self._news.wait()


def tone(seconds: float, level: int = 8000) -> Samples:
    return (level * np.sin(np.arange(int(seconds * 16_000)) * 2 * np.pi * 400 / 16_000)).astype(np.int16)


@pytest.fixture
def session() -> FakeSession:
    return FakeSession()


@pytest.fixture
async def vad(session: FakeSession) -> AsyncIterator[SileroVad]:
    vad = SileroVad(session)
    yield vad
    session.go_on.set()
    await vad.close()


def test_the_rate_is_halved_without_a_seam_and_without_what_lies_above() -> None:
    whole = tone(0.1)
    first, second = whole[:606], whole[512 : 512 + 606]
    both = silero.halve_rate(np.stack([first, second]))
    assert both.shape == (2, 288)
    np.testing.assert_allclose(both[0, -32:], both[1, :32], atol=1e-6)
    np.testing.assert_allclose(both[0], silero.halve_rate(first[None])[0])
    assert np.abs(both).max() == pytest.approx(8000 / 32768, rel=0.02)
    high = (8000 * np.sin(np.arange(606) * 2 * np.pi * 6000 / 16_000)).astype(np.int16)
    assert np.abs(silero.halve_rate(high[None])).max() < 0.002


async def test_chunks_of_32_ms_are_told_in_order_with_their_ends(vad: SileroVad) -> None:
    ear = Ear(vad)
    ear.hear(np.concatenate([tone(0.16), np.zeros(2560, np.int16)]))
    await ear.told_of(10)
    assert [at_ns for _, at_ns in ear.told] == [32_000_000 * number for number in range(1, 11)]
    probabilities = [probability for probability, _ in ear.told]
    assert min(probabilities[:5]) > 0.2
    assert max(probabilities[6:]) < 0.01


async def test_the_context_is_the_sound_before(vad: SileroVad, session: FakeSession) -> None:
    ear = Ear(vad)
    sound = tone(0.08)
    ear.hear(sound)
    await ear.told_of(2)
    before = np.concatenate([np.zeros(94, np.int16), sound])[CHUNK_SAMPLES : CHUNK_SAMPLES + 606]
    np.testing.assert_allclose(session.last, silero.halve_rate(before[None]))


async def test_streams_fed_in_one_turn_share_a_batch(vad: SileroVad, session: FakeSession) -> None:
    ears = [Ear(vad) for _ in range(5)]
    for ear in ears:
        ear.hear(tone(0.04))
    for ear in ears:
        await ear.told_of(1)
    assert session.batches == [5]


async def test_each_stream_keeps_its_own_state(vad: SileroVad) -> None:
    early = Ear(vad)
    early.hear(tone(0.04))
    await early.told_of(1)
    late = Ear(vad)
    early.hear(tone(0.04))
    late.hear(tone(0.04))
    await early.told_of(2)
    await late.told_of(1)
    assert (early.stream.state == 2).all()
    assert (late.stream.state == 1).all()


async def test_streams_on_other_clocks_are_gathered(
    vad: SileroVad, session: FakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silero, "GATHER_S", 0.2)
    first, *others = [Ear(vad) for _ in range(4)]
    first.hear(tone(0.04))
    await first.told_of(1)
    for ear in others:
        ear.hear(tone(0.04))
        await asyncio.sleep(0)
    assert vad.depth == 3
    for ear in others:
        await ear.told_of(1)
    assert session.batches == [1, 3]


async def test_a_stream_closed_in_the_middle_of_a_batch_is_told_nothing(vad: SileroVad, session: FakeSession) -> None:
    session.go_on.clear()
    gone, stays = Ear(vad), Ear(vad)
    gone.hear(tone(0.04))
    stays.hear(tone(0.04))
    await asyncio.to_thread(session.begun.wait, 10)
    gone.stream.close()
    session.go_on.set()
    await stays.told_of(1)
    gone.hear(tone(0.08))
    stays.hear(tone(0.08))
    await stays.told_of(3)
    assert gone.told == []


async def test_a_callback_may_close_other_streams(vad: SileroVad) -> None:
    other = Ear(vad)
    told = asyncio.Event()

    def close_other(_probability: float, _at_ns: int) -> None:
        told.set()
        other.stream.close()

    first = vad.stream(close_other)
    sound = tone(0.04)
    for start in (0, FRAME_SAMPLES):
        first.hear(Frame(sound[start : start + FRAME_SAMPLES], start))
    other.hear(sound)
    await asyncio.wait_for(told.wait(), 10)
    assert other.told == []


async def test_an_engine_that_falls_behind_drops_the_oldest(vad: SileroVad, session: FakeSession) -> None:
    session.go_on.clear()
    ear = Ear(vad)
    ear.hear(tone(0.04))
    await asyncio.to_thread(session.begun.wait, 10)
    ear.hear(tone(0.6))
    assert ear.stream.dropped == vad.dropped == 20 - 1 - BACKLOG_CHUNKS
    session.go_on.set()
    await ear.told_of(1 + BACKLOG_CHUNKS)
    at = [at_ns // 32_000_000 for _, at_ns in ear.told]
    assert at == [1, *range(20 - BACKLOG_CHUNKS + 1, 21)]


async def test_a_batch_that_fails_is_counted_and_the_next_one_works(vad: SileroVad, session: FakeSession) -> None:
    session.failures = 1
    ear = Ear(vad)
    ear.hear(tone(0.08))
    await ear.told_of(1)
    assert ear.told[0][1] == 64_000_000
    assert vad.failed == 1


async def test_hush_after_silence_does_not_wake_the_model(vad: SileroVad, session: FakeSession) -> None:
    ear = Ear(vad)
    quiet = tone(0.16, level=HUSH_PEAK - 2)
    for turn in range(4):
        ear.hear(quiet)
        await ear.told_of(5 * (turn + 1))
    assert (len(session.batches), vad.hushed) == (HUSH_AFTER_CHUNKS, 20 - HUSH_AFTER_CHUNKS)
    assert {probability for probability, _ in ear.told[HUSH_AFTER_CHUNKS:]} == {0.0}
    assert [at_ns for _, at_ns in ear.told] == [32_000_000 * number for number in range(1, 21)]
    ear.hear(tone(0.16, level=20_000))
    await ear.told_of(25)
    assert len(session.batches) == HUSH_AFTER_CHUNKS + 5
    ear.hear(quiet)
    await ear.told_of(30)
    assert len(session.batches) == HUSH_AFTER_CHUNKS + 10, "the end of speech is the model's to judge"


async def test_after_closing_nothing_is_told(session: FakeSession) -> None:
    vad = SileroVad(session)
    ear = Ear(vad)
    await vad.close()
    ear.hear(tone(0.1))
    await vad.close()
    assert ear.told == session.batches == []


def test_the_thread_ends_when_the_loop_is_gone(session: FakeSession) -> None:
    async def begin_and_leave() -> SileroVad:
        session.go_on.clear()
        vad = SileroVad(session)
        Ear(vad).hear(tone(0.04))
        await asyncio.to_thread(session.begun.wait, 10)
        return vad

    vad = asyncio.run(begin_and_leave())
    session.go_on.set()
    vad._thread.join(timeout=10)
    assert not vad._thread.is_alive()


async def test_a_missing_model_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sipserver.speech.models._package_folder", lambda _package: None)
    with pytest.raises(ModelMissing, match="sipserver models install silero"):
        await silero.load(tmp_path)
