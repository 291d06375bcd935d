"""RTP statistics are totals since a leg began; a counter of the process wants what was added since the last report."""

from __future__ import annotations

from collections import OrderedDict

from sipserver.events import RtpStats

MAX_CALLS = 1024
FATES = ("received", "sent", "lost", "duplicated", "reordered", "discarded", "remote_lost")


class RtpTotals:
    """The last report of each leg of each call. Keeps the MAX_CALLS legs that reported most lately."""

    def __init__(self) -> None:
        self._last: OrderedDict[tuple[str, str], RtpStats] = OrderedDict()

    def grown(self, call_id: str, stats: RtpStats) -> dict[str, int]:
        """Packets since the leg's previous report, by fate; never negative (a leg that starts anew starts at zero)."""
        key = (call_id, stats.leg)
        before = self._last.get(key)
        self._last[key] = stats
        self._last.move_to_end(key)
        if len(self._last) > MAX_CALLS:
            self._last.popitem(last=False)
        return {fate: max(0, getattr(stats, fate) - (getattr(before, fate) if before else 0)) for fate in FATES}

    def last_mos(self, call_id: str) -> float | None:
        """The estimate in the latest report of the call's own leg, if it had one."""
        last = self._last.get((call_id, ""))
        return last.mos if last else None
