"""Decoders against damage, in processes of their own: native code that fails must not take the tests along.

`python -m tests.codecs.fuzz CODEC RATE SEED` does the work; what it reports is read here.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from sipserver.codecs import table

KINDS = [*table.CODECS, *(table.OPUS.at(rate_hz) for rate_hz in (8_000, 48_000))]


@pytest.mark.parametrize("codec", KINDS, ids=lambda codec: f"{codec.encoding}-{codec.audio_hz}")
def test_decoders_survive_whatever_comes(codec: table.Codec) -> None:
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.codecs.fuzz", codec.encoding]
    done = subprocess.run(
        [*command, str(codec.clock_hz), str(codec.audio_hz), "4"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report["packets"] == 3000
    assert report["longest"] <= report["bound"]
    assert report["likeness"] > 0.95
    assert report["grown_kb"] < 8_000
