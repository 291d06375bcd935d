"""Other sample rates <-> 16 kHz, mono int16: whole clips by soxr, live streams by FFmpeg's swresample.

Two engines because their merits exclude each other. soxr is all but free of aliases (-79 dB) but hands out sound in
blocks: as a stream it keeps back 114 ms between 8 and 16 kHz and 37 ms from 24 kHz. swresample keeps back 2 ms at 8 kHz
and 1 ms above, its first alias lies at -52 dB for 3.4 kHz (the edge of the telephone band), and it is what a call in
progress needs. PyAV is imported with the first live stream only: it costs 17 MB.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from sipserver.audio.frame import RATE_HZ, Samples

if TYPE_CHECKING:
    from collections.abc import Iterable

LOWEST_HZ, HIGHEST_HZ = 4_000, 192_000


def resample(samples: Samples, from_hz: int, to_hz: int = RATE_HZ) -> Samples:
    """Convert a whole clip, shape (n,) int16 -> shape (about n * to_hz / from_hz,) int16; aligned in time.

    Any thread. Blocks for about 1 ms per second of sound. Raises ValueError for rates outside 4-192 kHz.
    """
    _check(from_hz, to_hz)
    if from_hz == to_hz or not len(samples):
        return samples
    import soxr

    converted: Samples = soxr.resample(np.ascontiguousarray(samples, np.int16), from_hz, to_hz, "HQ")
    return converted


class Resampler:
    """A live stream from one rate to another, in chunks of any length. One thread at a time.

    Latency: 2 ms when either rate is 8 kHz, 1 ms otherwise; the first chunk comes out that much shorter, later ones do
    not. Over the whole stream, `flush` included, the lengths agree to a sample. About 50 us a chunk. Equal rates pass
    through untouched. Raises ValueError for rates outside 4-192 kHz.
    """

    def __init__(self, from_hz: int, to_hz: int = RATE_HZ) -> None:
        _check(from_hz, to_hz)
        self.from_hz, self.to_hz = from_hz, to_hz
        self._engine: Any = None
        self._frame_of: Any = None
        if from_hz != to_hz:
            self._start()

    def convert(self, samples: Samples) -> Samples:
        """Take a chunk, shape (n,) int16; return what is ready, possibly nothing."""
        if self._engine is None:
            return samples
        if not len(samples):
            return samples[:0]
        frame = self._frame_of(np.ascontiguousarray(samples, np.int16)[np.newaxis, :])
        frame.sample_rate = self.from_hz
        return _joined(self._engine.resample(frame))

    def flush(self) -> Samples:
        """The rest of the stream. The resampler then begins a new one."""
        if self._engine is None:
            return np.zeros(0, np.int16)
        rest = _joined(self._engine.resample(None))
        self._start()
        return rest

    def _start(self) -> None:
        import av

        self._frame_of = functools.partial(av.AudioFrame.from_ndarray, format="s16", layout="mono")
        self._engine = av.AudioResampler(format="s16", layout="mono", rate=self.to_hz)


def _joined(frames: Iterable[Any]) -> Samples:
    parts = [frame.to_ndarray()[0] for frame in frames]
    if len(parts) == 1:
        only: Samples = parts[0]
        return only
    return np.concatenate(parts) if parts else np.zeros(0, np.int16)


def _check(*rates_hz: int) -> None:
    for rate_hz in rates_hz:
        if not LOWEST_HZ <= rate_hz <= HIGHEST_HZ:
            raise ValueError(f"{rate_hz} Hz is not a sample rate between {LOWEST_HZ} and {HIGHEST_HZ} Hz")
