"""Sound as it comes from a stream, in chunks of any length and at any moment, as one 20 ms frame a tick.

Owns the few frames that wait, what is made up when none came in time, what is cut when too many wait, and the estimate
of how far the peer's clock is from ours. Pure: the tick is the only time that it knows.

A clock that runs 0.5 % faster than ours makes 100 ms too many in 20 s. What waits is kept near its target by cutting or
repeating a piece whose ends fit (the best match within some milliseconds, crossfaded), which is not heard.
"""

from __future__ import annotations

import numpy as np

from sipserver.audio.frame import FRAME_MS, FRAME_SAMPLES, RATE_HZ, Samples
from sipserver.codecs.concealment import Fading

WAIT_MS = 40
"""So much is gathered before a stream is heard, at first and after a gap."""
MOST_MS = 1000
"""More than this does not wait for a carrier's caller: the oldest goes."""
_LOOK_TICKS = 50
"""How often the least that waited is looked at: a second."""
_SPARE_MS = 30
"""So much more than needed may wait all the time before a piece is cut."""
_MORE_MS = 60
"""For every so much beyond that a further piece goes, so that a burst is worked off in some seconds."""
_LOW_MS = 8
"""With less than this waiting at the worst moment, a piece is repeated before the stream runs dry."""

_FADE = RATE_HZ * 5 // 1000
_SHORTEST, _LONGEST = RATE_HZ * 4 // 1000, RATE_HZ * 14 // 1000
"""Of a piece that is cut or repeated: a period of the voice, 70 to 250 Hz."""
_DRIFT_AFTER_S = 10.0
_RISE = np.linspace(0, 1, _FADE, dtype=np.float32)


class Inbound:
    """`put` what came, `pull` a frame every 20 ms. One thread. 16 kHz mono int16.

    received: samples; concealed, discarded: in frames' worth of sound.
    """

    def __init__(self, *, wait_ms: int = WAIT_MS, most_ms: int = MOST_MS) -> None:
        self._wait = wait_ms * RATE_HZ // 1000
        self._most = most_ms * RATE_HZ // 1000
        self._chunks: list[Samples] = []
        self._waiting = 0
        self._flows = False
        self._least: int | None = None
        self._ticks = 0
        self._fading = Fading(RATE_HZ)
        self._gap = False
        self._discarded = 0
        self._started_tick = 0
        self.received = 0
        self.concealed = 0

    @property
    def waiting_ms(self) -> float:
        return self._waiting * 1000 / RATE_HZ

    @property
    def discarded(self) -> int:
        """Frames' worth of sound that came too much."""
        return self._discarded // FRAME_SAMPLES

    @property
    def drift_ppm(self) -> float | None:
        """How much faster the peer's clock runs than ours, in the long run; None before that can be said."""
        ticks = self._ticks - self._started_tick
        if not self.received or ticks * FRAME_MS / 1000 < _DRIFT_AFTER_S or self.concealed > ticks // 10:
            return None
        return round((self.received / (ticks * FRAME_SAMPLES) - 1) * 1e6, 1)

    def put(self, samples: Samples) -> None:
        """Shape (n,). Beyond most_ms the oldest goes."""
        if not self.received:
            self._started_tick = self._ticks
        self.received += len(samples)
        self._chunks.append(samples)
        self._waiting += len(samples)
        over = self._waiting - self._most
        if over > 0:
            whole = self._joined()
            self._discarded += over
            self._keep(_crossfaded(whole[: self._wait], whole[over:]))

    def pull(self) -> Samples | None:
        """Shape (320,), or None while there is nothing: before the sound begins, and after a gap that was too long to
        make anything up.
        """
        self._ticks += 1
        if not self._flows:
            if self._waiting < max(self._wait, FRAME_SAMPLES):
                return self._made_up()
            self._flows, self._least = True, None
        if self._waiting < FRAME_SAMPLES:
            self._flows = False
            return self._made_up()
        whole = self._joined()
        frame, rest = whole[:FRAME_SAMPLES], whole[FRAME_SAMPLES:]
        self._keep(rest)
        if self._gap:
            self._gap = False
            frame = _crossfaded(self._fading.conceal(FRAME_MS), frame)
        self._watch()
        return self._fading.heard(frame)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _made_up(self) -> Samples | None:
        if not self.received:
            return None
        frame = self._fading.conceal(FRAME_MS)
        if not frame.any():
            return None
        self.concealed += 1
        self._gap = True
        return frame

    def _watch(self) -> None:
        """Once a second: did more wait than is ever needed, or nearly nothing?"""
        self._least = self._waiting if self._least is None else min(self._least, self._waiting)
        if self._ticks % _LOOK_TICKS:
            return
        least_ms = self._least * 1000 / RATE_HZ
        self._least = None
        if least_ms > _SPARE_MS:
            for _ in range(1 + int(least_ms - _SPARE_MS) // _MORE_MS):
                self._shorten()
        elif least_ms < _LOW_MS:
            self._lengthen()

    def _shorten(self) -> None:
        whole = self._joined()
        length = _period(whole)
        if length:
            self._keep(_crossfaded(whole, whole[length:]))
            self._discarded += length

    def _lengthen(self) -> None:
        whole = self._joined()
        length = _period(whole)
        if length:
            self._keep(np.concatenate((whole[:length], _crossfaded(whole[length:], whole))))

    def _joined(self) -> Samples:
        if len(self._chunks) == 1:
            return self._chunks[0]
        whole = np.concatenate(self._chunks) if self._chunks else np.zeros(0, np.int16)
        self._chunks = [whole]
        return whole

    def _keep(self, samples: Samples) -> None:
        self._chunks = [samples] if len(samples) else []
        self._waiting = len(samples)


def _period(samples: Samples) -> int:
    """The distance at which the sound is most like itself; 0 when there is too little of it."""
    if len(samples) < _LONGEST + _FADE:
        return 0
    head = samples[:_FADE].astype(np.float32)
    span = samples[_SHORTEST : _LONGEST + _FADE].astype(np.float32)
    products = np.correlate(span, head, "valid")
    energies = np.convolve(span * span, np.ones(_FADE, np.float32), "valid")
    return _SHORTEST + int(np.argmax(products / np.sqrt(energies + 1)))


def _crossfaded(before: Samples, after: Samples) -> Samples:
    """`after`, whose first milliseconds come out of `before`."""
    count = min(_FADE, len(before), len(after))
    if not count:
        return after
    rise = _RISE[:count] if count == _FADE else np.linspace(0, 1, count, dtype=np.float32)
    mixed = after.copy()
    mixed[:count] = np.rint(before[:count] * (1 - rise) + after[:count] * rise).astype(np.int16)
    return mixed
