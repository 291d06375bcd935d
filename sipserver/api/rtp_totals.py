"""RTP statistics are totals since a leg began; a counter of the process wants what was added since the last report."""

from __future__ import annotations

from collections import OrderedDict

from sipserver.events import RtpStats

MAX_CALLS = 1024
FATES = ("received", "sent", "lost", "duplicated", "reordered", "discarded", "remote_lost")


class RtpTotals:
    """The last report of each call. Keeps the MAX_CALLS calls that reported most lately; the oldest is forgotten."""

    def __init__(self) -> None:
        self._last: OrderedDict[str, RtpStats] = OrderedDict()

    def grown(self, call_id: str, stats: RtpStats) -> dict[str, int]:
        """Packets since the call's previous report, by fate; never negative (a leg that starts anew starts at zero)."""
        before = self._last.get(call_id)
        self._last[call_id] = stats
        self._last.move_to_end(call_id)
        if len(self._last) > MAX_CALLS:
            self._last.popitem(last=False)
        return {fate: max(0, getattr(stats, fate) - (getattr(before, fate) if before else 0)) for fate in FATES}

    def last_mos(self, call_id: str) -> float | None:
        """The estimate in the call's latest report, if it had one."""
        last = self._last.get(call_id)
        return last.mos if last else None
