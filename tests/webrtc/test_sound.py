"""Packets to sound and back: losses that FEC heals, and an encoder that adapts while it runs."""

from __future__ import annotations

import numpy as np

from sipserver.audio.frame import FRAME_SAMPLES, Samples
from sipserver.codecs import table
from sipserver.codecs.opus import OpusDecoder
from sipserver.webrtc.bit_rate import Sending
from sipserver.webrtc.sound import FromNetwork, ToNetwork
from tests.fakes.voice import voice


def sent(sending: Sending, frames: int = 60) -> list[bytes]:
    to, sound = ToNetwork(table.OPUS, sending), voice(frames * 0.02)
    return [to.encode(sound[at : at + FRAME_SAMPLES]) for at in range(0, frames * FRAME_SAMPLES, FRAME_SAMPLES)]


def heard(payloads: list[bytes], lost: set[int]) -> tuple[FromNetwork, Samples]:
    """Three packets wait at any time, so that the one after a loss is there."""
    source, frames = FromNetwork(table.OPUS), []
    for number, payload in enumerate(payloads):
        if number not in lost:
            source.put(number, number * 960, payload)
        if number >= 3:
            frame = source.pull()
            frames.append(np.zeros(FRAME_SAMPLES, np.int16) if frame is None else frame)
    return source, np.concatenate(frames)


def test_fec_heals_what_was_lost() -> None:
    payloads, decoder = sent(Sending(24_000, 20)), OpusDecoder()
    source, sound = heard(payloads, {20})
    for payload in payloads[:20]:
        decoder.decode(payload)
    told = decoder.decode_fec(payloads[21])
    assert np.array_equal(sound[20 * FRAME_SAMPLES : 21 * FRAME_SAMPLES], told)
    assert source.concealed == 1


def test_an_encoder_adapts_without_a_new_beginning() -> None:
    to, sound = ToNetwork(table.OPUS, Sending(40_000, 0)), voice(1.6)
    sizes = []
    for number in range(80):
        if number == 40:
            to.set(Sending(12_000, 0))
        sizes.append(len(to.encode(sound[number * FRAME_SAMPLES : (number + 1) * FRAME_SAMPLES])))
    assert sum(sizes[45:]) < 0.6 * sum(sizes[5:40])


def test_junk_is_counted_and_made_up_for() -> None:
    payloads = sent(Sending(24_000, 0))
    payloads[30] = b""
    source, sound = heard(payloads, set())
    assert source.bad == 1
    assert len(sound) == (len(payloads) - 3) * FRAME_SAMPLES
