"""Playout: what is played, heard, thrown away, and refused, also while a media clock pulls."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from sipserver.audio.frame import FRAME_BYTES, FRAME_SAMPLES, Samples
from sipserver.audio.playout import Playout


def frames(count: int, first: int = 1) -> Samples:
    """Frame k holds the value first + k in every sample."""
    return np.repeat(np.arange(first, first + count, dtype=np.int16), FRAME_SAMPLES)


def value(payload: bytes | None) -> int | None:
    return None if payload is None else int(np.frombuffer(payload, np.int16)[0])


async def test_plays_frames_in_the_order_in_which_they_were_written() -> None:
    playout = Playout()
    first, second = playout.begin("one"), playout.begin("two")
    first.write_now(frames(2))
    second.write_now(frames(2, first=10))
    assert [value(playout.pull()) for _ in range(5)] == [1, 2, 10, 11, None]


async def test_every_frame_is_640_bytes_whatever_the_pieces_written() -> None:
    playout = Playout()
    clip = playout.begin("pieces")
    sound = np.arange(1000, dtype=np.int16)
    for start in range(0, 1000, 37):
        clip.write_now(sound[start : start + 37])
    assert clip.queued_ms == 60
    clip.finish()
    played = [payload for _ in range(4) if (payload := playout.pull()) is not None]
    assert [len(payload) for payload in played] == [FRAME_BYTES] * 4
    joined = np.frombuffer(b"".join(played), np.int16)
    assert np.array_equal(joined[:1000], sound)
    assert not joined[1000:].any()
    assert playout.pull() is None


async def test_heard_is_true_once_the_last_frame_was_pulled_and_ticked() -> None:
    playout = Playout()
    clip = playout.begin("x")
    clip.write_now(frames(2))
    clip.finish()
    heard = asyncio.create_task(clip.heard())
    playout.pull()
    playout.tick()
    await asyncio.sleep(0)
    assert not heard.done()
    assert clip.played_ms == 20
    playout.pull()
    playout.tick()
    assert await heard is True
    assert clip.played_ms == clip.queued_ms == 40


async def test_an_empty_clip_is_heard_when_it_is_finished() -> None:
    playout = Playout()
    clip = playout.begin("nothing")
    clip.finish()
    assert await clip.heard() is True
    assert clip.played_ms == 0


async def test_a_cancelled_listener_does_not_cancel_the_clip() -> None:
    playout = Playout()
    clip = playout.begin("x")
    clip.write_now(frames(1))
    clip.finish()
    impatient = asyncio.create_task(clip.heard())
    await asyncio.sleep(0)
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    playout.pull()
    playout.tick()
    assert await clip.heard() is True


async def test_flush_cuts_clips_and_fixes_what_was_played() -> None:
    playout = Playout()
    done, cut, later = (playout.begin(label) for label in ("done", "cut", "later"))
    done.write_now(frames(1))
    done.finish()
    cut.write_now(frames(3))
    later.write_now(frames(2))
    playout.pull()
    playout.pull()
    assert playout.flush() == [cut, later]
    assert (done.played_ms, cut.played_ms, later.played_ms) == (20, 20, 0)
    assert (done.cancelled, cut.cancelled, later.cancelled) == (False, True, True)
    assert await done.heard() is True
    assert await cut.heard() is False
    assert playout.pull() is None
    cut.write_now(frames(5))
    cut.finish()
    assert (playout.pull(), cut.played_ms, playout.pending_ms) == (None, 20, 0)


async def test_positions_stay_right_after_a_flush() -> None:
    playout = Playout()
    playout.begin("thrown").write_now(frames(7))
    playout.flush()
    clip = playout.begin("next")
    clip.write_now(frames(3))
    assert clip.played_ms == 0
    playout.pull()
    assert clip.played_ms == 20


async def test_clips_written_in_turns_know_their_own_share() -> None:
    playout = Playout()
    one, two = playout.begin("one"), playout.begin("two")
    for clip in (one, two, one):
        clip.write_now(frames(2))
    for _ in range(5):
        playout.pull()
    assert (one.played_ms, two.played_ms) == (60, 40)
    playout.tick()
    one.finish()
    two.finish()
    playout.tick()
    assert await two.heard() is True
    playout.pull()
    playout.tick()
    assert await one.heard() is True


async def test_pause_plays_silence_and_resume_goes_on_with_the_next_frame() -> None:
    playout = Playout()
    clip = playout.begin("x")
    clip.write_now(frames(3))
    assert value(playout.pull()) == 1
    playout.pause()
    assert playout.paused
    assert [playout.pull(), playout.pull()] == [None, None]
    assert (clip.played_ms, playout.pending_ms) == (20, 40)
    playout.resume()
    assert [value(playout.pull()), value(playout.pull())] == [2, 3]


async def test_flush_ends_a_pause() -> None:
    playout = Playout()
    playout.begin("x").write_now(frames(1))
    playout.pause()
    playout.flush()
    playout.begin("y").write_now(frames(1, first=9))
    assert value(playout.pull()) == 9


async def test_write_now_beyond_the_bound_drops_the_newest_and_counts() -> None:
    playout = Playout(bound_ms=60)
    clip = playout.begin("x")
    clip.write_now(frames(5))
    assert (playout.dropped, clip.queued_ms, playout.free_frames) == (2, 60, 0)
    assert [value(playout.pull()) for _ in range(4)] == [1, 2, 3, None]


async def test_write_waits_for_room_and_loses_nothing_however_long_the_sound() -> None:
    playout = Playout(bound_ms=60)
    clip = playout.begin("long")
    sound = np.concatenate((frames(10), np.full(100, 11, np.int16)))
    writing = asyncio.create_task(clip.write(sound))
    played: list[int | None] = []
    for _ in range(40):
        await asyncio.sleep(0)
        if (payload := playout.pull()) is not None:
            played.append(value(payload))
        playout.tick()
    await writing
    clip.finish()
    played.append(value(playout.pull()))
    assert played == list(range(1, 12))
    assert playout.dropped == 0


async def test_a_flush_releases_a_writer_that_waits() -> None:
    playout = Playout(bound_ms=40)
    clip = playout.begin("long")
    writing = asyncio.create_task(clip.write(frames(50)))
    await asyncio.sleep(0)
    playout.flush()
    await writing
    assert (playout.pending_ms, playout.dropped) == (0, 0)


async def test_drained_waits_for_played_and_flushed_clips() -> None:
    playout = Playout()
    clip = playout.begin("x")
    clip.write_now(frames(2))
    drained = asyncio.create_task(playout.drained())
    await asyncio.sleep(0)
    assert not drained.done()
    playout.flush()
    await drained
    await playout.drained()


class MediaClock:
    """A thread that pulls as fast as it can and keeps what it got."""

    def __init__(self, playout: Playout) -> None:
        self._playout = playout
        self._stop = threading.Event()
        self.played: list[int] = []
        self._thread = threading.Thread(target=self._run, name="media clock")

    def __enter__(self) -> MediaClock:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            payload = self._playout.pull()
            if payload is not None:
                self.played.append(int(np.frombuffer(payload, np.int16)[0]))


async def test_a_media_clock_thread_gets_every_frame_once_and_in_order() -> None:
    playout = Playout(bound_ms=400)
    with MediaClock(playout) as clock:
        clip = playout.begin("long")

        async def tick() -> None:
            while True:
                playout.tick()
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        for start in range(0, 2000, 10):
            await clip.write(frames(10, first=start))
        clip.finish()
        assert await clip.heard() is True
        ticking.cancel()
    assert clock.played == list(range(2000))
    assert clip.played_ms == 40_000


async def test_flush_is_exact_to_the_frame_while_the_clock_pulls() -> None:
    """Round by round: what the clip says was played is what the clock got."""
    playout = Playout()
    with MediaClock(playout) as clock:
        for _ in range(300):
            before = len(clock.played)
            clip = playout.begin("round")
            clip.write_now(frames(200))
            playout.flush()
            # The clock may hold one frame that it has not noted yet; the next round's first frame comes behind it.
            marker = playout.begin("marker")
            marker.write_now(frames(1, first=9999))
            marker.finish()
            while marker.played_ms == 0 or clock.played[-1:] != [9999]:  # noqa: ASYNC110  the clock is a thread
                await asyncio.sleep(0)
            playout.tick()
            assert clip.played_ms == 20 * (len(clock.played) - before - 1)
