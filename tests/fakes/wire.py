"""Sound through a codec and back, packet by packet, as a call would carry it."""

from __future__ import annotations

import numpy as np

from sipserver.audio.frame import RATE_HZ, Samples
from sipserver.audio.resample import resample
from sipserver.codecs import table


def packets(codec: table.Codec, samples: Samples) -> list[bytes]:
    """Payloads of one packet time each; samples at the codec's audio rate, the last packet padded with silence."""
    count = codec.audio_hz * codec.ptime_ms // 1000
    padded = np.concatenate((samples, np.zeros(-len(samples) % count, np.int16)))
    encoder = table.encoder(codec)
    return [encoder.encode(padded[start : start + count]) for start in range(0, len(padded), count)]


def through(codec: table.Codec, samples: Samples) -> Samples:
    """16 kHz samples encoded, decoded and back at 16 kHz; delayed by what the codec delays."""
    decoder = table.decoder(codec)
    payloads = packets(codec, resample(samples, RATE_HZ, codec.audio_hz))
    decoded = np.concatenate([decoder.decode(payload) for payload in payloads])
    return resample(decoded, codec.audio_hz, RATE_HZ)
