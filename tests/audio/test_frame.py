"""The one PCM frame."""

from __future__ import annotations

import numpy as np
import pytest

from sipserver.audio.frame import FRAME_BYTES, FRAME_SAMPLES, Frame


def test_a_payload_is_wrapped_without_copying() -> None:
    payload = np.arange(FRAME_SAMPLES, dtype=np.int16).tobytes()
    frame = Frame.of_payload(payload, 7)
    assert frame.samples.tolist() == list(range(FRAME_SAMPLES))
    assert (frame.at_ns, frame.samples.nbytes) == (7, FRAME_BYTES)
    with pytest.raises(ValueError, match="read-only"):
        frame.samples[0] = 1


def test_silence_is_shared_and_cannot_be_written() -> None:
    one, two = Frame.silence(1), Frame.silence(2)
    assert one.samples is two.samples
    assert not one.samples.any()
    with pytest.raises(ValueError, match="read-only"):
        one.samples[0] = 1
