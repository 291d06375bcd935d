"""What a leg's RTP totals mean: statistics every few seconds, a stall and its end, another source. Pure.

Fed with snapshots about once a second; answers with events. Refuses to know streams, threads and calls.
"""

from __future__ import annotations

from collections.abc import Iterator

from sipserver.events import Event, MediaRecovered, MediaSourceChanged, MediaStalled, RtpStats
from sipserver.sip.facts import Snapshot
from sipserver.sip.quality import opinion, rating

REPORT_S = 5.0
_PACKET_MS = 20.0


class RtpWatch:
    """stalled_s: silence on the wire that counts as a stall. codec: set it when media starts."""

    def __init__(self, stalled_s: float) -> None:
        self._stalled_s = stalled_s
        self.codec = "PCMA"
        self._reported_s: float | None = None
        self._received = 0
        self._heard_s: float | None = None  # when a packet was last known to have come, or media began
        self._stalled = False
        self._source = ""
        self._ssrc: int | None = None

    def observe(self, seen: Snapshot, *, held: bool) -> Iterator[Event]:
        """Events that follow from the totals of this moment. Nothing stalls while the peer holds the call."""
        if self._reported_s is None or self._heard_s is None:
            self._reported_s = self._heard_s = seen.at_s
        yield from self._flow(seen, held)
        yield from self._origin(seen)
        if seen.at_s - self._reported_s >= REPORT_S:
            self._reported_s = seen.at_s
            yield self.report(seen)

    def report(self, seen: Snapshot) -> RtpStats:
        """The statistics event for these totals."""
        return RtpStats(
            received=seen.received,
            lost=seen.lost,
            duplicated=seen.duplicated,
            reordered=seen.reordered,
            discarded=seen.discarded,
            jitter_ms=round(seen.jitter_ms, 2),
            sent=seen.sent,
            remote_lost=seen.remote_lost,
            remote_jitter_ms=round(seen.remote_jitter_ms, 2),
            round_trip_ms=None if seen.round_trip_ms is None else round(seen.round_trip_ms, 2),
            mos=self._mos(seen),
        )

    def _mos(self, seen: Snapshot) -> float | None:
        expected = seen.received + seen.lost
        if not expected or not seen.received:
            return None
        late = max(0, seen.discarded - seen.duplicated)  # a second copy is discarded too, and nobody misses it
        missing = min(100.0, 100.0 * (seen.lost + late) / expected)
        one_way_ms = (seen.round_trip_ms or 0.0) / 2 + seen.buffer_ms + _PACKET_MS
        return round(opinion(rating(one_way_ms, missing, self.codec)), 2)

    def _flow(self, seen: Snapshot, held: bool) -> Iterator[Event]:
        assert self._heard_s is not None
        silent_ms = round((seen.at_s - self._heard_s) * 1000)
        if seen.received != self._received or held:
            if self._stalled and seen.received != self._received:
                yield MediaRecovered(silent_ms)
            self._stalled = self._stalled and held
            self._heard_s = seen.at_s
            self._received = seen.received
        elif not self._stalled and silent_ms >= self._stalled_s * 1000:
            self._stalled = True
            yield MediaStalled(silent_ms)

    def _origin(self, seen: Snapshot) -> Iterator[Event]:
        if not seen.source:
            return
        moved = self._source not in ("", seen.source)
        renumbered = None not in (self._ssrc, seen.ssrc) and seen.ssrc != self._ssrc
        if moved or renumbered:
            yield MediaSourceChanged(_origin(self._source, self._ssrc), _origin(seen.source, seen.ssrc))
        self._source = seen.source
        self._ssrc = seen.ssrc if seen.ssrc is not None else self._ssrc


def _origin(source: str, ssrc: int | None) -> str:
    return source if ssrc is None else f"{source} ssrc {ssrc:08x}"
