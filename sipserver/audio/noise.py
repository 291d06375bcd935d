"""A caller's sound without the noise around them, by WebRTC's noise suppression (package webrtc-noise-gain).

Owns the chunks of 10 ms that it wants. Refuses to know who listens. The library is loaded when it is first used. It
delays the sound by some milliseconds, and takes 0.1 ms for a frame.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from sipserver.audio.frame import FRAME_BYTES, Frame

Level = Literal["off", "low", "moderate", "high"]
LEVELS: dict[Level, int] = {"off": 0, "low": 1, "moderate": 2, "high": 3}
_CHUNK_BYTES = FRAME_BYTES // 2


class NoiseSuppressor:
    """One sound, frame after frame. One thread. Raises ModuleNotFoundError where the package is not installed."""

    def __init__(self, level: Level) -> None:
        from webrtc_noise_gain import AudioProcessor  # 5 MB that most agents do not need

        self._processor: Any = AudioProcessor(0, LEVELS[level])  # no automatic gain: it would pump noise up in pauses

    def clean(self, frame: Frame) -> Frame:
        payload = np.ascontiguousarray(frame.samples).tobytes()
        halves = (payload[:_CHUNK_BYTES], payload[_CHUNK_BYTES:])
        cleaned = b"".join(self._processor.Process10ms(half).audio for half in halves)
        return Frame.of_payload(cleaned, frame.at_ns)
