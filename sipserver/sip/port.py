"""The place where a call's sound crosses between PJMEDIA's clock thread and the asyncio loop.

On the clock thread only a bounded copy happens: no lock, no log, no waiting. The loop is woken once per 20 ms for all
calls of the cell, by the port that the conference bridge serves last (the highest slot).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import pjsua2 as pj

from sipserver.audio.frame import FRAME_MS, SILENCE_PAYLOAD
from sipserver.audio.playout import Playout
from sipserver.sip.pcm import PcmCopy
from sipserver.sip.thread_state import KeptState

_BOUND = 50  # frames a call may wait for the loop: one second
_SAMPLES = 500

_now_ns = time.monotonic_ns


class MediaLine:
    """What one leg shares with its port. `muted` (peer holds): nothing is taken from the playout, silence is sent.

    frames: (monotonic ns, received, played) of each tick, 640 bytes each; append on the clock thread, popleft on the
    loop. Overflow: the oldest tick is dropped and counted when the loop is a second late.
    """

    __slots__ = ("frames", "muted", "overruns", "playout")

    def __init__(self, playout: Playout) -> None:
        self.playout = playout
        self.frames: deque[tuple[int, bytes, bytes]] = deque(maxlen=_BOUND)
        self.muted = False
        self.overruns = 0


class MediaClock:
    """Counts ticks and wakes the loop, coalesced. `tick` and `wake`: clock thread; the rest: loop."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.thread_state = KeptState()
        self._wake = wake
        self._woken = False
        self._late: deque[float] = deque(maxlen=_SAMPLES)
        self._last_ns: int | None = None
        self._ticked_ns: int | None = None  # None: the next tick has no predecessor

    @property
    def last_tick_s(self) -> float | None:
        """`time.monotonic()` of the last tick, None while the clock stands still because no call has media."""
        return None if self._last_ns is None else self._last_ns / 1e9

    def tick(self, now_ns: int) -> None:
        before_ns, self._ticked_ns = self._ticked_ns, now_ns
        self._last_ns = now_ns
        if before_ns is not None:
            self._late.append((now_ns - before_ns) / 1e6 - FRAME_MS)
        self.wake()

    def wake(self) -> None:
        if not self._woken:
            self._woken = True
            self._wake()

    def woken(self) -> None:
        """The loop begins to drain: from now on a tick wakes it again."""
        self._woken = False

    def started(self) -> None:
        """A first call gets media: from now on ticks are expected. Sip thread."""
        self._ticked_ns = None
        self._last_ns = _now_ns()

    def stopped(self) -> None:
        """No call has media: no tick is expected. Sip thread."""
        self._last_ns = None

    def take_lateness_ms(self) -> list[float]:
        """How much later than 20 ms after its predecessor each tick came, since the last call; at most 10 s."""
        taken: list[float] = []
        while self._late:
            taken.append(max(0.0, self._late.popleft()))
        return taken


class LegPort(pj.AudioMediaPort):  # type: ignore[misc]
    """One slot of the conference bridge, reused from call to call. Both callbacks: clock thread, never raise.

    The bridge asks all ports for sound first (`onFrameRequested`), then gives each its mix (`onFrameReceived`).
    """

    def __init__(self, clock: MediaClock, copy: PcmCopy) -> None:
        super().__init__()
        self.line: MediaLine | None = None
        self.leads = False
        self._clock = clock
        self._read = copy.read
        self._put = copy.outgoing().put
        self._played = SILENCE_PAYLOAD

    def onFrameRequested(self, frame: Any) -> None:  # noqa: N802
        if not self._clock.thread_state.kept:
            self._clock.thread_state.keep()
        line = self.line
        payload = None if line is None or line.muted else line.playout.pull()
        self._played = payload or SILENCE_PAYLOAD
        frame.type = pj.PJMEDIA_FRAME_TYPE_AUDIO
        self._put(frame, self._played)  # PJSIP has set the size that it wants, which is ours

    def onFrameReceived(self, frame: Any) -> None:  # noqa: N802
        now_ns = _now_ns()
        line = self.line
        if line is not None:
            frames = line.frames
            if len(frames) == _BOUND:
                line.overruns += 1
            frames.append((now_ns, self._read(frame) or SILENCE_PAYLOAD, self._played))
            self._played = SILENCE_PAYLOAD
            if len(frames) > 1:  # the leading port has missed a tick
                self._clock.wake()
        if self.leads:
            self._clock.tick(now_ns)
