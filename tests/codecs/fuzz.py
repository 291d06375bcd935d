"""Feeds one decoder junk of every kind, and says as JSON what came of it. What crashes takes this process along."""

from __future__ import annotations

import json
import random
import resource
import sys

import numpy as np

from sipserver.codecs import table
from sipserver.codecs.contract import Decoder
from sipserver.codecs.opus import OpusDecoder
from sipserver.errors import BadPayload
from tests.fakes.voice import voice
from tests.fakes.wire import packets

PACKETS = 3000
LONGEST_MS = 120


def damaged(chance: random.Random, good: list[bytes]) -> bytes:
    """Noise, flipped bits, a part, two in one, a good first byte before noise, a packet too long for any codec."""
    payload = chance.choice(good)
    kind = chance.randrange(7)
    if kind == 0:
        return chance.randbytes(chance.randrange(1500))
    if kind == 1:
        flipped = bytearray(payload)
        for _ in range(chance.randrange(1, 9)):
            flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
        return bytes(flipped)
    if kind == 2:
        return payload[: chance.randrange(len(payload))]
    if kind == 3:
        return payload + chance.choice(good)
    if kind == 4:
        return payload[:1] + chance.randbytes(chance.randrange(400))
    if kind == 5:
        # every first byte that Opus can have, with every count of frames
        return bytes((chance.randrange(256), chance.randrange(256))) + chance.randbytes(chance.randrange(200))
    return chance.randbytes(chance.choice((1275, 1276, 7657, 7658, 20_000)))


def use(decoder: Decoder, payload: bytes, chance: random.Random) -> list[int]:
    """As a call would: decoded, or concealed where it is refused; now and then it stands after a loss."""
    lengths = []
    if isinstance(decoder, OpusDecoder) and chance.randrange(4) == 0:
        try:
            lengths.append(len(decoder.decode_fec(payload, chance.choice((10, 20, 60)))))
        except BadPayload:
            lengths.append(len(decoder.conceal(20)))
    try:
        samples = decoder.decode(payload)
        assert samples.dtype == np.int16
        assert samples.ndim == 1
        assert len(samples)
        lengths.append(len(samples))
    except BadPayload:
        lengths.append(len(decoder.conceal(chance.choice((10, 20, 60)))))
    return lengths


def main(encoding: str, clock_hz: int, audio_hz: int, seed: int) -> None:
    found = table.find(encoding, clock_hz)
    assert found is not None
    codec = found.at(audio_hz)
    chance = random.Random(seed)
    good = packets(codec, voice(3, rate_hz=audio_hz))
    decoder, clean = table.decoder(codec), table.decoder(codec)
    longest, warm_kb = 0, 0
    for number in range(PACKETS):
        if number == PACKETS // 3:
            warm_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        longest = max(longest, *use(decoder, damaged(chance, good), chance))
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - warm_kb
    pairs = [(decoder.decode(payload), clean.decode(payload)) for payload in good]
    one, other = (np.concatenate([pair[side] for pair in pairs[len(good) // 2 :]]).astype(float) for side in (0, 1))
    # of a packet of 20,000 bytes G.711 makes as many samples, G.722 twice as many; Opus never more than 120 ms
    bound = audio_hz * LONGEST_MS // 1000 if encoding == "opus" else 2 * 20_000
    likeness = float(np.corrcoef(one, other)[0, 1])
    report = {"packets": PACKETS, "longest": longest, "bound": bound, "likeness": likeness, "grown_kb": grown_kb}
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
