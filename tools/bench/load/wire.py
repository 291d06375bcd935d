"""What the wire showed: from the arrivals of all calls to lost and late frames, gaps, round trips. Pure.

Owns the definitions. A frame is lost when its number in the server's own sequence never came. It is late when it came
more than LATE_MS after its turn: after the moment that its RTP time stamp names on the call's own clock, which the
earliest hundredth of the call's frames sets; a receiver with a jitter buffer of LATE_MS would have missed it. A gap is
the time between two arrivals of a call. A round trip is from the system call that sent a click to the kernel's stamp of
the packet that brought it back, corrected by the click's place in the two packets. Sound is lost when a click did not
come back at all, whatever the sequence numbers say.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tools.bench.load.sound import CLICK_AT

LATE_MS = 40.0
SAMPLE_NS = 125_000
FRAME_NS = 20_000_000
LONGEST_TRIP_NS = 450_000_000
START_NS = 1_000_000_000
"""The far end's sound path may still be under construction: clicks within it are not counted as lost."""
SILENT_NS = 200_000_000
"""A call that heard nothing for so long before its end was cut off."""

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Arrivals:
    """One entry a packet, in order of arrival. call: its number. at_ns: CLOCK_REALTIME. click: its sample, or -1."""

    call: Ints
    sequence: Ints
    stamp: Ints
    at_ns: Ints
    click: Ints

    def of(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Arrivals:
        return Arrivals(
            self.call[chosen], self.sequence[chosen], self.stamp[chosen], self.at_ns[chosen], self.click[chosen]
        )


@dataclass(frozen=True, slots=True)
class CallOnWire:
    """One call. gap_ms: the longest. cut: it fell silent before its caller had hung up."""

    call: int
    frames: int
    lost: int
    late: int
    gap_ms: float
    trips_ms: tuple[float, ...]
    clicks_sent: int
    cut: bool


@dataclass(frozen=True, slots=True)
class Wire:
    """All calls of a load within the window that was looked at."""

    calls: tuple[CallOnWire, ...] = ()
    sent: int = 0
    strays: int = 0
    generator_drops: int = 0
    """Packets that the generator's own sockets dropped: its fault, not the server's. Must be 0."""
    trips_ms: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    @property
    def frames(self) -> int:
        return sum(call.frames for call in self.calls)

    @property
    def lost(self) -> int:
        return sum(call.lost for call in self.calls)

    @property
    def late(self) -> int:
        return sum(call.late for call in self.calls)

    @property
    def bad_percent(self) -> float:
        """Lost and late frames of all that should have come."""
        return 100 * (self.lost + self.late) / max(1, self.frames + self.lost)

    @property
    def sound_lost_percent(self) -> float:
        """Clicks that did not come back."""
        sent = sum(call.clicks_sent for call in self.calls)
        return 100 * max(0, sent - len(self.trips_ms)) / max(1, sent)

    @property
    def longest_gap_ms(self) -> float:
        return max((call.gap_ms for call in self.calls), default=0.0)


def unwrapped(values: Ints, bits: int) -> Ints:
    """Counters that wrap, made monotonic around their first value."""
    half = 1 << (bits - 1)
    steps = (np.diff(values) + half) % (1 << bits) - half
    return np.concatenate([values[:1], values[:1] + np.cumsum(steps)]) if len(values) else values


def round_trips(arrivals: Arrivals, sent_ns: Ints) -> NDArray[np.float64]:
    """Milliseconds of the clicks of one call that came back. sent_ns: when each left, in order."""
    back = arrivals.of(arrivals.click >= 0)
    before = np.searchsorted(sent_ns, back.at_ns) - 1
    known = before >= 0
    trip = back.at_ns[known] - sent_ns[before[known]] + (back.click[known] - CLICK_AT) * SAMPLE_NS
    return np.asarray(trip[trip < LONGEST_TRIP_NS] / 1e6, np.float64)


def look(call: int, arrivals: Arrivals, clicks_ns: Ints, until_ns: int) -> CallOnWire:
    """One call's packets, in order of arrival, within a window that ends with the call or at until_ns."""
    if not len(arrivals.at_ns):
        return CallOnWire(call, 0, 0, 0, 0.0, (), len(clicks_ns), True)
    numbers = unwrapped(arrivals.sequence, 16)
    expected = int(numbers.max() - numbers.min()) + 1
    turn = arrivals.at_ns - unwrapped(arrivals.stamp, 32) * SAMPLE_NS
    late = int(np.count_nonzero(turn - np.quantile(turn, 0.01) > LATE_MS * 1e6))
    gap_ns = int(np.diff(arrivals.at_ns).max(initial=0))
    return CallOnWire(
        call,
        frames=len(numbers),
        lost=expected - len(np.unique(numbers)),
        late=late,
        gap_ms=gap_ns / 1e6,
        trips_ms=tuple(round_trips(arrivals, clicks_ns)),
        clicks_sent=len(clicks_ns),
        cut=until_ns - int(arrivals.at_ns[-1]) > SILENT_NS,
    )


@dataclass(frozen=True, slots=True)
class Recording:
    """All that one run of the generator saw. started_ns and ended_ns by call; 0 in ended_ns: never told to end.
    clicks: (call, when it was sent)."""

    arrivals: Arrivals
    started_ns: Ints
    ended_ns: Ints
    click_call: Ints
    click_ns: Ints
    sent: int
    strays: int
    generator_drops: int


def judge(recording: Recording, from_ns: int = 0, to_ns: int = 0) -> Wire:
    """What happened between two moments (CLOCK_REALTIME; 0: from the first to the last packet)."""
    last_ns = int(recording.arrivals.at_ns.max(initial=0))
    to_ns = to_ns or last_ns
    inside = (recording.arrivals.at_ns >= from_ns) & (recording.arrivals.at_ns <= to_ns)
    arrivals = recording.arrivals.of(inside)
    # a click that left within the last half second may still be on its way
    counted = (recording.click_ns >= from_ns) & (recording.click_ns <= to_ns - LONGEST_TRIP_NS)
    order = np.argsort(arrivals.call, kind="stable")
    arrivals = arrivals.of(order)
    calls: list[CallOnWire] = []
    lived = np.flatnonzero(
        (recording.started_ns > 0)
        & (recording.started_ns <= to_ns)
        & ((recording.ended_ns == 0) | (recording.ended_ns >= from_ns))
    )
    for call in lived:
        first, after = np.searchsorted(arrivals.call, [call, call + 1])
        ended_ns = int(recording.ended_ns[call]) or to_ns
        mine = counted & (recording.click_call == call) & (recording.click_ns <= ended_ns - LONGEST_TRIP_NS)
        mine &= recording.click_ns >= recording.started_ns[call] + START_NS
        packets = arrivals.of(np.arange(first, after))
        packets = packets.of(packets.at_ns <= ended_ns)
        calls.append(look(int(call), packets, recording.click_ns[mine], min(ended_ns, to_ns)))
    trips = np.concatenate([np.array(call.trips_ms) for call in calls]) if calls else np.zeros(0)
    return Wire(tuple(calls), recording.sent, recording.strays, recording.generator_drops, trips)
