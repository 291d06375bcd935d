"""Formats of the wire: both directions, lengths, and what cannot be sound."""

from __future__ import annotations

import numpy as np
import pytest

from sipserver.audio.frame import FRAME_SAMPLES
from sipserver.errors import BadPayload
from sipserver.streams.contract import WireFormat
from sipserver.streams.wire import FromWire, ToWire, frame_bytes

SIZES: dict[WireFormat, int] = {"mulaw8": 160, "l16_8": 320, "l16_16": 640, "l16_24": 960}


@pytest.mark.parametrize("wire", SIZES)
def test_a_tone_comes_back(wire: WireFormat) -> None:
    sound = (9000 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)).astype(np.int16)
    to, back = ToWire(wire), FromWire(wire)
    payloads = [to.encode(sound[at : at + FRAME_SAMPLES]) for at in range(0, 16_000, FRAME_SAMPLES)]
    assert {len(payload) for payload in payloads} == {SIZES[wire]} == {frame_bytes(wire)}
    heard = np.concatenate([back.decode(payload) for payload in payloads])
    middle = heard[4000:12_000].astype(float)
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.argmax(spectrum) * 16_000 / len(middle) == pytest.approx(440, abs=2)
    assert np.sqrt((middle**2).mean()) == pytest.approx(9000 / np.sqrt(2), rel=0.03)


def test_little_endian() -> None:
    assert FromWire("l16_16").decode(b"\x01\x02").tolist() == [0x0201]
    assert ToWire("l16_16").encode(np.array([0x0201], np.int16)) == b"\x01\x02"


@pytest.mark.parametrize(("wire", "payload"), [("mulaw8", b""), ("l16_16", b""), ("l16_8", b"abc")])
def test_what_cannot_be_sound(wire: WireFormat, payload: bytes) -> None:
    with pytest.raises(BadPayload):
        FromWire(wire).decode(payload)
