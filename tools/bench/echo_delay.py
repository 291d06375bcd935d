"""RTP echo round trip through jitter buffer, 16 kHz bridge, Python port and asyncio loop, to the sample.

Every 300 ms one packet carries a click at a known sample; the echo's click is found by its peak.
"""

from __future__ import annotations

import audioop
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.harness.phone import PACKET_SAMPLES, ULAW_SILENCE, Phone
from tests.harness.server import ServerProcess
from tools.bench.plans import ECHO
from tools.bench.report import Row, percentile, spread

CALLS, CLICKS = 20, 8
CLICK_AT = 80
SAMPLE_NS = 125_000


def click() -> bytes:
    samples = np.zeros(PACKET_SAMPLES, np.int16)
    samples[CLICK_AT - 2 : CLICK_AT + 3] = (6000, 16_000, 24_000, 16_000, 6000)
    return audioop.lin2ulaw(samples.tobytes(), 2)


def round_trips(phone: Phone, clicks: int, gap_packets: int = 15) -> list[float]:
    """Milliseconds from a click's sending to its return, one figure a click that came back."""
    found: list[float] = []
    for _ in range(clicks):
        first, sent_before = len(phone.received), len(phone.sent_ns)
        phone.say(click() + ULAW_SILENCE * (gap_packets - 1))
        deadline = time.monotonic() + gap_packets * 0.02
        while time.monotonic() < deadline:
            time.sleep(0.01)
        for packet in phone.received[first:]:
            peak = int(np.argmax(np.abs(packet.samples.astype(np.int32))))
            if abs(int(packet.samples[peak])) > 8000:
                sent_ns = next((at for at in phone.sent_ns[sent_before:] if at < packet.at_ns), None)
                if sent_ns is not None:
                    found.append((packet.at_ns - sent_ns + (peak - CLICK_AT) * SAMPLE_NS) / 1e6)
                break
    return found


def measure(folder: Path) -> Sequence[Row]:
    per_call: list[list[float]] = []
    with ServerProcess(folder, {"bench.yaml": ECHO}) as server:
        for _ in range(CALLS):
            with Phone(server.sip_port) as phone:
                assert phone.invite("echo").code == 200
                time.sleep(1)
                per_call.append(round_trips(phone, CLICKS))
    trips = [trip for call in per_call for trip in call]
    drift = max(percentile(call, 0.9) - percentile(call, 0.1) for call in per_call)
    return [
        Row(
            "RTP echo round trip, one call",
            spread(trips, digits=1),
            "p50 <= 42, p95 <= 50 ms",
            f"{CALLS} calls, {CLICKS} clicks each",
        ),
        Row("... its spread within a call (p90 - p10), worst call", f"{drift:.1f} ms", "", "constant within a call"),
    ]
