"""The queue between the loop, which has sound to play, and a media clock, which takes one frame every 20 ms.

Owns what was queued, what was really played and what was thrown away. Refuses to know codecs, texts and legs.
A `Clip` is one thing to play (a clause, a file, a prompt); clips play in the order in which they were begun.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import numpy as np

from sipserver.audio.frame import FRAME_MS, FRAME_SAMPLES, Samples


class Clip:
    """One thing to play. All methods: loop thread only. Made by `Playout.begin`."""

    def __init__(self, playout: Playout, label: str) -> None:
        self.label = label
        self._playout = playout
        self._spans: list[list[int]] = []  # [first, end) positions in the playout's queue
        self._rest: Samples = np.zeros(0, np.int16)
        self._finished = False
        self._cancelled_at_ms: int | None = None
        self._heard: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    @property
    def queued_ms(self) -> int:
        """Milliseconds of sound accepted so far, played or not."""
        return FRAME_MS * sum(end - first for first, end in self._spans)

    @property
    def played_ms(self) -> int:
        """Milliseconds that the media clock has taken; what a flush threw away is not in it."""
        if self._cancelled_at_ms is not None:
            return self._cancelled_at_ms
        return self.played_ms_at(self._playout.position)

    @property
    def cancelled(self) -> bool:
        return self._cancelled_at_ms is not None

    @property
    def end(self) -> int | None:
        """The position in the playout's queue after its last frame; None while more may come, or when there is none."""
        return self._spans[-1][1] if self._finished and self._spans else None

    async def write(self, samples: Samples) -> None:
        """Queue sound of any length, in parts as the playout gets room; nothing is dropped.

        Ignored once the clip was flushed. Safe to cancel: what was queued until then will play.
        """
        start = 0
        while start < len(samples) and not self.cancelled:
            await self._playout.room()
            fits = self._playout.free_frames * FRAME_SAMPLES - len(self._rest)
            self.write_now(samples[start : start + fits])
            start += fits

    def write_now(self, samples: Samples) -> None:
        """Queue sound without waiting. What exceeds the playout's bound is dropped and counted there."""
        if self._cancelled_at_ms is not None or self._finished:
            return
        joined = np.concatenate((self._rest, samples)) if len(self._rest) else samples
        whole = len(joined) // FRAME_SAMPLES * FRAME_SAMPLES
        self._rest = joined[whole:]
        self._append(joined[:whole])

    def finish(self) -> None:
        """No more sound will come: pads the last frame with silence. `heard()` resolves once all of it was played."""
        if self._finished or self._cancelled_at_ms is not None:
            return
        if len(self._rest):
            self._append(np.concatenate((self._rest, np.zeros(FRAME_SAMPLES - len(self._rest), np.int16))))
            self._rest = np.zeros(0, np.int16)
        self._finished = True
        self._playout.tick()

    async def heard(self) -> bool:
        """Wait until the clip was played to its end (True) or flushed (False). Safe to cancel."""
        return await asyncio.shield(self._heard)

    def _append(self, samples: Samples) -> None:
        if not len(samples):
            return
        first = self._playout.queued
        self._playout.append(samples)
        end = self._playout.queued
        if self._spans and self._spans[-1][1] == first:
            self._spans[-1][1] = end
        else:
            self._spans.append([first, end])

    def played_ms_at(self, position: int) -> int:
        """Milliseconds played when `position` frames had left the queue. For `Playout`."""
        return FRAME_MS * sum(max(0, min(end, position) - first) for first, end in self._spans)

    def settle(self, position: int) -> bool:
        """Resolve `heard()` if all was played. True when the playout may forget the clip."""
        if self._finished and (not self._spans or position >= self._spans[-1][1]):
            if not self._heard.done():
                self._heard.set_result(True)
            return True
        return False

    def cancel_at(self, played_ms: int) -> None:
        self._cancelled_at_ms = played_ms
        if not self._heard.done():
            self._heard.set_result(False)


class Playout:
    """Bounded queue of 20 ms frames. `pull` belongs to the media clock thread, everything else to the loop.

    Overflow: `Clip.write` waits; `Clip.write_now` beyond the bound drops the newest frames and counts them in
    `dropped`. The two threads share only `deque` operations that are atomic under the GIL; no lock is held.
    """

    def __init__(self, bound_ms: int = 30_000) -> None:
        self._frames: deque[bytes] = deque()
        self._bound = bound_ms // FRAME_MS
        self._clips: list[Clip] = []
        self._room: asyncio.Event | None = None
        self._paused = False
        self.first_use: Callable[[], None] | None = None
        """Called once, when the first clip begins: a leg that never plays need not ask for its sound."""
        self.unheard: Callable[[], int] = _nothing
        """How many of the frames that have left the queue still lie with a far end that buffers them: 0 for most."""
        self.on_flush: Callable[[], object] = _nothing
        """Called by `flush` after the positions of the clips are fixed: a far end that buffers is told to clear."""
        self.queued = 0
        """Frames ever accepted. The position of the next frame to be queued."""
        self.dropped = 0
        """Frames refused because the queue was full."""

    @property
    def position(self) -> int:
        """Frames that have left the queue, and the far end's buffer as far as that is known."""
        return self.queued - len(self._frames) - self.unheard()

    @property
    def pending_ms(self) -> int:
        return FRAME_MS * len(self._frames)

    @property
    def taken(self) -> int:
        """Frames that have left the queue, whether they have been heard or not."""
        return self.queued - len(self._frames)

    def ends(self) -> list[int]:
        """Where the clips end that get no more sound and are not settled: positions in the queue, in order. For far
        ends that can tell when they have played so far.
        """
        return [end for clip in self._clips if (end := clip.end) is not None]

    @property
    def free_frames(self) -> int:
        """Frames that still fit. Never shrinks but by the loop thread itself."""
        return self._bound - len(self._frames)

    @property
    def watched(self) -> bool:
        """Whether a tick may settle something. Any thread."""
        return bool(self._clips) or self._room is not None

    @property
    def paused(self) -> bool:
        return self._paused

    def pull(self) -> bytes | None:
        """One frame of 640 bytes, or None for silence. Media clock thread; never blocks, never allocates PCM."""
        if self._paused:
            return None
        try:
            return self._frames.popleft()
        except IndexError:
            return None

    def begin(self, label: str) -> Clip:
        """Start a clip behind those begun before. Write to one clip at a time: sound plays in the order of writing."""
        clip = Clip(self, label)
        self._clips.append(clip)
        if self.first_use is not None:
            first_use, self.first_use = self.first_use, None
            first_use()
        return clip

    def append(self, samples: Samples) -> None:
        """Queue whole frames (len a multiple of 320). For `Clip`."""
        payload = np.ascontiguousarray(samples, np.int16).tobytes()
        size = FRAME_SAMPLES * 2
        for start in range(0, len(payload), size):
            if len(self._frames) >= self._bound:
                self.dropped += (len(payload) - start) // size
                return
            self._frames.append(payload[start : start + size])
            self.queued += 1

    def flush(self) -> list[Clip]:
        """Throw away what was not played yet. Returns the clips that were cut short; their `played_ms` is then fixed.

        Exact to the frame although the media clock goes on pulling: every frame is taken either by it or here.
        """
        thrown = 0
        try:
            while True:
                self._frames.pop()
                thrown += 1
        except IndexError:
            pass
        position = self.queued - thrown - self.unheard()
        cut = [clip for clip in self._clips if not clip.settle(position)]
        for clip in cut:
            clip.cancel_at(clip.played_ms_at(position))
        self._clips.clear()
        self._paused = False
        self._release_room()
        self.on_flush()
        return cut

    def pause(self) -> None:
        """Play silence from the next frame on and keep the queue."""
        self._paused = True

    def resume(self) -> None:
        """Go on with the frame that would have come next."""
        self._paused = False

    def tick(self) -> None:
        """Settle what was played. Called by the leg on the loop once per 20 ms while the queue is `watched`."""
        if self._clips:
            position = self.position
            self._clips = [clip for clip in self._clips if not clip.settle(position)]
        self._release_room()

    async def room(self) -> None:
        """Wait until the queue is below its bound. Safe to cancel."""
        while len(self._frames) >= self._bound:
            if self._room is None:
                self._room = asyncio.Event()
            await self._room.wait()

    async def drained(self) -> None:
        """Wait until every clip begun so far was played or flushed."""
        for clip in list(self._clips):
            await clip.heard()

    def _release_room(self) -> None:
        if self._room is not None and len(self._frames) < self._bound:
            self._room.set()
            self._room = None


def _nothing() -> int:
    return 0
