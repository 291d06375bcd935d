"""Which child hangs, and which part of it. Pure; the caller brings the time."""

from __future__ import annotations

from sipserver.fleet.control import Beat


def hung_part(beat: Beat, silent_s: float, hang_s: float) -> str:
    """The part of a child that stands still, or an empty string. silent_s: since its last word.

    A loop that hangs sends no beat; the sip thread and the media clock are told of by their age in the beat.
    """
    most_ms = hang_s * 1000
    if silent_s > hang_s:
        return "loop"
    if beat.sip_age_ms is not None and beat.sip_age_ms > most_ms:
        return "sip thread"
    if beat.media_age_ms is not None and beat.media_age_ms > most_ms:
        return "media clock"
    return ""


class Watch:
    """Whether the judge itself was awake: after a pause of the supervisor or of the whole machine, everybody's last
    word is old, and nobody is to blame."""

    def __init__(self, interval_s: float) -> None:
        self._most_s = 2 * interval_s
        self._last_s: float | None = None
        self.awake_since = 0.0
        """Silence counts from here at the earliest."""

    def look(self, now_s: float) -> None:
        """Once every interval, before judging."""
        if self._last_s is None or now_s - self._last_s > self._most_s:
            self.awake_since = now_s
        self._last_s = now_s

    def silent_s(self, heard_at_s: float, now_s: float) -> float:
        return now_s - max(heard_at_s, self.awake_since)
