"""Messages in text: long ones in pieces, one after the other, and no more than can be coped with."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np

from sipserver.agent.options import Engines
from sipserver.audio.frame import RATE_HZ
from sipserver.calls.scribe import Message, Scribe, pieces
from sipserver.calls.wav import WavWriter
from sipserver.events import Emit, EngineUsed, Event, Fault, VoicemailTranscribed
from tests.fakes.engines import FakeStt
from tests.fakes.until import until
from tests.fakes.virtual_time import virtual


def engines(*stt: FakeStt) -> Engines:
    unused: Any = None
    return Engines(vad=unused, stt={each.name: each for each in stt}, tts={}, llm={})


def write(path: Path, seconds: float = 1.0) -> Path:
    writer = WavWriter(path, 1)
    writer.write(np.full(round(seconds * RATE_HZ), 3000, "<i2").tobytes())
    writer.close()
    return path


def message(path: Path, emit: Emit) -> Message:
    return Message("b", path, lambda: path.open("rb"), ["whisper"], "en", emit)


def test_pieces_are_cut_where_it_is_quiet() -> None:
    samples = np.full(70 * RATE_HZ, 1000, np.int16)
    for at_s in (25, 50):
        samples[at_s * RATE_HZ : (at_s + 1) * RATE_HZ] = 0
    parts = list(pieces(samples))
    assert [25 <= len(part) / RATE_HZ <= 26 for part in parts[:2]] == [True, True]
    assert (np.concatenate(parts) == samples).all()


def test_a_short_message_is_one_piece_and_an_empty_one_none() -> None:
    samples = np.ones(5 * RATE_HZ, np.int16)
    assert [len(part) for part in pieces(samples)] == [len(samples)]
    assert list(pieces(samples[:0])) == []


@virtual
async def test_a_long_message_is_put_together(tmp_path: Path) -> None:
    events: list[Event] = []
    stt = FakeStt("one", "(coughs)", "three", name="whisper")
    scribe = Scribe()
    scribe.write(message(write(tmp_path / "a.wav", 60), events.append), engines(stt))
    await until(lambda: len(events) == 4)
    *used, told = events
    assert sum(each.quantity for each in used if isinstance(each, EngineUsed)) == 60_000
    assert isinstance(told, VoicemailTranscribed)
    assert told.text == "one three"
    assert all(audio_ms <= 28_000 for audio_ms, _, _ in stt.asked)
    await scribe.close()


@virtual
async def test_one_after_the_other_and_no_more_than_the_bound(tmp_path: Path) -> None:
    told: list[tuple[int, Event]] = []
    stt = FakeStt("text", name="whisper", delay_s=10)
    scribe = Scribe(waiting=2)
    for number in range(3):
        path = write(tmp_path / f"{number}.wav")
        scribe.write(
            message(path, lambda event, number=number: told.append((number, event))),  # type: ignore[misc]
            engines(stt),
        )
    assert [(number, type(event)) for number, event in told] == [(2, Fault)]
    await until(lambda: len(stt.asked) >= 1)
    await asyncio.sleep(5)
    assert len(stt.asked) == 1
    await until(lambda: len(told) >= 5)
    assert [number for number, event in told if not isinstance(event, EngineUsed)] == [2, 0, 1]
    await scribe.close()


@virtual
async def test_closing_leaves_the_rest_unwritten(tmp_path: Path) -> None:
    told: list[Event] = []
    stt = FakeStt("text", name="whisper", delay_s=1000)
    scribe = Scribe()
    scribe.write(message(write(tmp_path / "a.wav"), told.append), engines(stt))
    await until(lambda: bool(stt.asked))
    await scribe.close()
    assert (scribe.depth, stt.cancelled) == (0, 1)
    assert [type(event) for event in told] == [EngineUsed]


@virtual
async def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    told: list[Event] = []
    scribe = Scribe()
    scribe.write(message(tmp_path / "none.wav", told.append), engines())
    await until(lambda: bool(told))
    assert isinstance(told[0], Fault)
