"""The place where a call's sound crosses between PJMEDIA's clock thread and the asyncio loop.

On the clock thread only a bounded copy happens: no lock, no log, no waiting. The loop is woken at most once per 20 ms
for all calls of the cell, and only when one of them has something for it: sound that somebody hears, or a clip that
plays. Refuses to know how PJMEDIA is reached (`native_port.py`, `swig_port.py`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from sipserver.audio.frame import FRAME_MS, SILENCE_PAYLOAD
from sipserver.audio.inlet import Inlet, joined
from sipserver.audio.playout import Playout
from sipserver.sip.thread_state import KeptState

_BOUND = 50  # frames a call may wait for the loop: one second
_SAMPLES = 500

_now_ns = time.monotonic_ns


@dataclass(frozen=True, slots=True)
class Wires:
    """Which ways a call's sound takes. hears: to the loop. speaks: from the playout. loops: straight back.

    feeds: to these other calls of the cell, by their serials, within the bridge.
    """

    hears: bool = True
    speaks: bool = False
    loops: bool = False
    feeds: frozenset[int] = frozenset()


NO_WIRES = Wires(hears=False)


class MediaLine:
    """What one leg shares with its port. `muted` (peer holds): nothing is taken from the playout, silence is sent.

    inlet: sound of legs of other kinds, summed with the playout's.

    frames: (monotonic ns, received, played) of each tick, 640 bytes each; append on the clock thread, popleft on the
    loop. Overflow: the oldest tick is dropped and counted when the loop is a second late.
    wanted: set on the loop; wired: what is connected now, set on the sip thread.
    """

    __slots__ = ("frames", "inlet", "muted", "overruns", "playout", "wanted", "wired")

    def __init__(self, playout: Playout) -> None:
        self.playout = playout
        self.inlet = Inlet()
        self.frames: deque[tuple[int, bytes, bytes]] = deque(maxlen=_BOUND)
        self.muted = False
        self.overruns = 0
        self.wanted = Wires()
        self.wired = NO_WIRES


class MediaClock:
    """Counts ticks and wakes the loop, coalesced. `pull`, `push`: clock thread, as a jack whose slot lies behind those
    of the legs and before those of the streams; the rest: loop.

    read_rtp: called at the beginning of a tick, before the streams are asked for their sound.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.thread_state = KeptState()
        self.lines: tuple[MediaLine, ...] = ()
        """The lines of the calls that have media. Set on the sip thread."""
        self.read_rtp: Callable[[], object] = lambda: None
        self.thread_began: Callable[[], object] = lambda: None
        self._wake = wake
        self._woken = False
        self._late: deque[float] = deque(maxlen=_SAMPLES)
        self._last_ns: int | None = None
        self._ticked_ns: int | None = None  # None: the next tick has no predecessor

    @property
    def last_tick_s(self) -> float | None:
        """`time.monotonic()` of the last tick, None while the clock stands still because no call has media."""
        return None if self._last_ns is None else self._last_ns / 1e9

    def pull(self) -> bytes | None:
        """The tick begins: the packets that came in the last 20 ms are read now, all at once."""
        if not self.thread_state.kept:
            self.thread_state.keep()
            self.thread_began()
        self.read_rtp()
        return None

    def push(self, payload: bytes) -> None:
        """The tick ends: every call's sound has been pushed."""
        self.tick(_now_ns())

    def tick(self, now_ns: int) -> None:
        before_ns, self._ticked_ns = self._ticked_ns, now_ns
        if not self.lines:
            return
        self._last_ns = now_ns
        if before_ns is not None:
            self._late.append((now_ns - before_ns) / 1e6 - FRAME_MS)
        if not self._woken and any(line.frames or line.playout.watched for line in self.lines):
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


class LegJack:
    """One call's end of a port, used from call to call. `pull` and `push`: clock thread. line: set by the sip thread,
    None while no call has the port.
    """

    __slots__ = ("_played", "line")

    def __init__(self) -> None:
        self.line: MediaLine | None = None
        self._played: bytes | None = None

    def pull(self) -> bytes | None:
        line = self.line
        if line is None or line.muted:
            self._played = None
            return None
        self._played = line.playout.pull()  # what other legs say is told by them
        return joined(self._played, line.inlet.pull())

    def push(self, payload: bytes) -> None:
        line = self.line
        if line is None or not line.wired.hears:
            return
        frames = line.frames
        if len(frames) == _BOUND:
            line.overruns += 1
        played, self._played = self._played, None
        if line.wired.loops and not line.muted:
            played = payload
        frames.append((_now_ns(), payload, played or SILENCE_PAYLOAD))
