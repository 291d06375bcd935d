"""What a bot has said and the caller has not heard yet: it may talk far ahead of its time.

Owns the queue of sound and marks, how much of it lies in the call's playout, and which marks are due. Refuses to know
messages and sockets. Loop thread; nothing here blocks or waits: `tick` comes every 20 ms.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from sipserver.audio.frame import FRAME_MS, FRAME_SAMPLES
from sipserver.audio.playout import Clip, Playout
from sipserver.errors import BadPayload
from sipserver.streams.contract import WireFormat
from sipserver.streams.wire import FromWire, frame_bytes

AHEAD_S = 120
"""So much sound of a bot may wait; what comes beyond is dropped and counted. A minute and a half of speech in one piece
is what bots send that have a whole answer spoken before they send it."""

MARKS = 1000
"""So many marks may wait; further ones count as bad messages."""

_LEAD_MS = 200
"""So much of it lies in the playout: what a late tick of the loop needs."""

_PAD_TICKS = 4
"""After so many ticks without sound a part of a frame is not the beginning of something that comes, but an end."""


@dataclass(frozen=True, slots=True)
class _Mark:
    name: str
    pad: bool


class Speaker:
    """on_mark: (name, played). on_drained: nothing is left to play; called while `watch_drain` has asked for it."""

    def __init__(
        self,
        playout: Playout,
        wire: WireFormat,
        on_mark: Callable[[str, bool], None],
        on_drained: Callable[[], None],
        *,
        ahead_s: float = AHEAD_S,
    ) -> None:
        self._playout = playout
        self._from_wire = FromWire(wire)
        self._frame_bytes = frame_bytes(wire)
        self._piece = self._frame_bytes * (_LEAD_MS // FRAME_MS)
        self._bound = int(ahead_s * 1000 / FRAME_MS) * self._frame_bytes
        self._on_mark, self._on_drained = on_mark, on_drained
        self._queue: deque[bytes | _Mark] = deque()
        self._queued_bytes = 0
        self._clips: list[Clip] = []
        self._earlier_ms = 0
        self._due: deque[tuple[int, str]] = deque()
        self._marks = 0
        self._drain = False
        self._quiet_ticks = 0
        self._rest = 0
        self.paused = False
        self.dropped_bytes = 0

    @property
    def waiting_frames(self) -> int:
        """What was sent and not heard, in frames of 20 ms, rounded up."""
        return -(-self._queued_bytes // self._frame_bytes) + self._lying_frames

    @property
    def idle(self) -> bool:
        """Nothing waits, and nothing plays."""
        return not self._queue and not self._due and not self._rest and self._lying_frames == 0

    @property
    def heard_ms(self) -> int:
        return self._earlier_ms + sum(clip.played_ms for clip in self._clips)

    def sound(self, payload: bytes) -> bool:
        """Queue a payload in the wire's format, of any length. False: it, or its end, does not fit and is dropped."""
        kept = 0
        for start in range(0, len(payload), self._piece):
            piece = payload[start : start + self._piece]
            if self._queued_bytes + len(piece) > self._bound:
                break
            self._queue.append(piece)
            self._queued_bytes += len(piece)
            kept += len(piece)
        self.dropped_bytes += len(payload) - kept
        self._quiet_ticks = 0
        self._feed()
        return kept == len(payload)

    def mark(self, name: str, *, pad: bool = False) -> bool:
        """Have a mark told when all before it was played: at once, if nothing waits. False: too many wait."""
        if self._marks >= MARKS:
            return False
        self._marks += 1
        self._queue.append(_Mark(name, pad))
        self._feed()
        self._tell()
        return True

    def watch_drain(self) -> None:
        """Call on_drained once when nothing is left, which may be now."""
        self._drain = True
        self._tell()

    def clear(self) -> None:
        """Throw away what was not played, pauses too. Its marks are told as not played."""
        waiting = [name for _, name in self._due]
        waiting += [each.name for each in self._queue if isinstance(each, _Mark)]
        self._queue.clear()
        self._due.clear()
        self._queued_bytes = self._marks = 0
        self._rest = 0
        self._playout.flush()
        self._earlier_ms += sum(clip.played_ms for clip in self._clips)
        self._clips.clear()
        self.paused = False
        for name in waiting:
            self._on_mark(name, False)
        self._tell()

    def pause(self, on: bool) -> None:
        """Play silence and keep what is there, or go on."""
        self.paused = on
        if on:
            self._playout.pause()
        else:
            self._playout.resume()
            self._feed()

    def stop(self) -> None:
        """No more of it: nothing is told any more. A pause ends, too: others play behind."""
        self._due.clear()
        self._queue.clear()
        self._drain = False
        self.clear()
        self._playout.resume()

    def tick(self) -> None:
        """Every 20 ms: keep the playout fed, tell what was played."""
        self._quiet_ticks += 1
        if self._queue or self._rest:
            self._feed()
        if self._due or self._drain:
            self._tell()

    # --- inside -------------------------------------------------------------------------------------------------------

    @property
    def _lying_frames(self) -> int:
        return self._playout.queued - self._playout.position

    def _feed(self) -> None:
        """Move sound to the playout until it has its lead, and marks with it."""
        while self._queue and self._playout.pending_ms < _LEAD_MS and not self.paused:
            first = self._queue.popleft()
            if isinstance(first, _Mark):
                if first.pad:
                    self._pad()
                self._due.append((self._playout.queued + bool(self._rest), first.name))
            else:
                self._play(first)
        if self._rest and not self._queue and self._quiet_ticks >= _PAD_TICKS:
            self._pad()

    def _play(self, payload: bytes) -> None:
        self._queued_bytes -= len(payload)
        try:
            samples = self._from_wire.decode(payload)
        except BadPayload:
            return
        if not self._clips or self._clips[-1].cancelled:
            self._clips.append(self._playout.begin("bot"))
        self._clips[-1].write_now(samples)
        self._rest = (self._rest + len(samples)) % FRAME_SAMPLES

    def _pad(self) -> None:
        """Let the last part of a frame be heard; what comes next begins a new one."""
        if self._rest and self._clips:
            self._clips[-1].finish()
            self._rest = 0
            self._clips.append(self._playout.begin("bot"))
            for clip in self._clips[:-2]:  # long over: only the last two can still play
                self._earlier_ms += clip.played_ms
            del self._clips[:-2]

    def _tell(self) -> None:
        position = self._playout.position
        while self._due and self._due[0][0] <= position:
            self._marks -= 1
            self._on_mark(self._due.popleft()[1], True)
        if self._drain and self.idle:
            self._drain = False
            self._on_drained()
