"""The dialplan that SIPp and baresip call. It needs no models: sound files, echo, digits, recording."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from tests.peers.rtp import tone

PROMPT_HZ = 700.0
PROMPT_MS = 600

PLAN = """
tenant: peers
flows:
  echo: [answer, echo]
  slow: [{wait: 1.2}, answer, echo]
  quick: [answer, {wait: 0.4}, hangup]
  refuse: [hangup]
  busy: [{hangup: {code: 486, reason: Closed today}}]
  early: [early, {play: prompt.wav}, answer, echo]
  long: [answer, {wait: 60}]
  menu:
    - answer
    - collect: {digits: 3, timeout_s: 6, into: choice, on: {"427": right, none: wrong, other: wrong}}
  right: [{play: prompt.wav}, hangup]
  wrong: [{wait: 0.1}, hangup]
  record: [answer, record, {play: prompt.wav}, {wait: 0.4}, {record: stop}, hangup]
  echo_record: [answer, record, echo]
  headers:
    - when: {var: header.diversion, like: "*reason=no-answer*", then: known, else: next}
    - hangup
  known:
    - when: {var: header.user-to-user, like: "56a390f3*", then: quick, else: next}
    - hangup: {code: 480}
routes:
  - match: {to: headers, headers: {P-Asserted-Identity: "*+4930123456*", X-Campaign: spring}}
    flow: headers
  - match: {to: headers}
    flow: refuse
""" + "".join(
    f"  - match: {{to: {name}}}\n    flow: {name}\n"
    for name in ("echo", "slow", "quick", "refuse", "busy", "early", "long", "menu", "record", "echo_record")
)


def write_prompt(folder: Path, hz: float = PROMPT_HZ, milliseconds: int = PROMPT_MS) -> Path:
    """`prompt.wav`, a tone at 16 kHz, beside the dialplan."""
    return write_wav(folder / "prompt.wav", tone((hz,), milliseconds, 16_000), 16_000)


def write_wav(path: Path, samples: np.ndarray[tuple[int], np.dtype[np.int16]], rate_hz: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(samples.tobytes())
    return path
