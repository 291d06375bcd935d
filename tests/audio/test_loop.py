"""A loop has no seam, queues little, falls silent at once, and goes on where it was heard last."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from sipserver.audio.frame import FRAME_SAMPLES, Samples
from sipserver.audio.loop import CHUNK_MS, Loop, playing
from sipserver.audio.playout import Playout
from sipserver.audio.sound_file import write_wav
from sipserver.errors import ConfigError
from tests.fakes.leg import breathe

CLIP = np.arange(1, 16_001, dtype=np.int16)
"""A second in which every sample is another."""


async def played(playout: Playout, frames: int) -> Samples:
    """Let the media clock take frames; each that is missing is silence."""
    heard = []
    for _ in range(frames):
        payload = playout.pull()
        heard.append(np.zeros(FRAME_SAMPLES, np.int16) if payload is None else np.frombuffer(payload, np.int16))
        playout.tick()
        await breathe(4)
    return np.concatenate(heard)


def test_samples_come_again_and_again() -> None:
    loop = Loop(CLIP[:1000])
    taken = np.concatenate([loop.take(700) for _ in range(10)])
    assert np.array_equal(taken, np.tile(CLIP[:1000], 7))
    assert loop.at_ms == 0
    assert len(Loop(CLIP[:3]).take(1000)) == 1000


def test_nothing_cannot_be_repeated() -> None:
    with pytest.raises(ValueError, match="nothing to repeat"):
        Loop(np.zeros(0, np.int16))


async def test_it_plays_without_a_seam_and_queues_little() -> None:
    playout = Playout()
    async with playing(playout, Loop(CLIP), "music"):
        await breathe()
        most = playout.pending_ms
        heard = await played(playout, 160)
        assert np.array_equal(heard, np.tile(CLIP, 4)[: len(heard)])
        assert max(most, playout.pending_ms) <= 2 * CHUNK_MS < 1000
    assert playout.pending_ms == 0
    assert playout.dropped == 0


async def test_a_flush_ends_it_at_once_and_it_goes_on_from_there() -> None:
    playout, loop = Playout(), Loop(CLIP)
    task = asyncio.create_task(loop.play(playout, "music"))
    await breathe()
    first = await played(playout, 37)
    playout.flush()
    await asyncio.wait({task}, timeout=5)
    assert task.done()
    assert playout.pull() is None
    assert loop.at_ms == 37 * 20
    async with playing(playout, loop, "music"):
        await breathe()
        second = await played(playout, 30)
    assert np.array_equal(np.concatenate((first, second)), np.tile(CLIP, 2)[: 67 * FRAME_SAMPLES])


@pytest.mark.parametrize("frames", [0, 1, 19, 20, 21, 40, 41])
async def test_a_flush_at_any_place_leaves_nothing_behind(frames: int) -> None:
    playout, loop = Playout(), Loop(CLIP)
    task = asyncio.create_task(loop.play(playout, "music"))
    await breathe()
    for _ in range(frames):
        playout.pull()
        playout.tick()
    playout.flush()
    await asyncio.wait({task}, timeout=5)
    assert playout.pending_ms == 0
    assert loop.at_ms == min(frames * 20, 2 * CHUNK_MS)


async def test_cancelled_before_it_began() -> None:
    playout, loop = Playout(), Loop(CLIP)
    async with playing(playout, loop, "music"):
        pass
    assert (playout.pending_ms, loop.at_ms) == (0, 0)


async def test_it_waits_behind_what_is_queued_already() -> None:
    playout = Playout(bound_ms=200)
    before = playout.begin("words")
    before.write_now(np.full(10 * FRAME_SAMPLES, -5, np.int16))
    before.finish()
    async with playing(playout, Loop(CLIP), "music"):
        await breathe()
        heard = await played(playout, 30)
    assert (heard[: 10 * FRAME_SAMPLES] == -5).all()
    assert np.array_equal(heard[10 * FRAME_SAMPLES :], np.tile(CLIP, 2)[: 20 * FRAME_SAMPLES])
    assert playout.dropped == 0


async def test_a_file(tmp_path: Path) -> None:
    write_wav(tmp_path / "music.wav", CLIP[:800])
    loop = await Loop.of_file(tmp_path / "music.wav")
    assert np.array_equal(loop.take(1600), np.tile(CLIP[:800], 2))
    with pytest.raises(ConfigError, match=r"missing\.wav"):
        await Loop.of_file(tmp_path / "missing.wav")
