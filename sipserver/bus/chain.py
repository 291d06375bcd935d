"""Each event of a run says which one came before it, so that whoever hears them knows whether one is missing."""

from __future__ import annotations

from sipserver.journal import Entry, Kind, micros


class Chain:
    """Of one process. `link` for all its events, those of each run in order."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], int] = {}

    def link(self, entry: Entry) -> tuple[str, int] | None:
        """The tenant, and the moment of its event of this run before this one, 0 if there was none. None: no event of a
        tenant.
        """
        if entry.kind is not Kind.EVENT or not (tenant := entry.fields.get("tenant")):
            return None
        before_us = self._last.get((entry.run, tenant), 0)
        self._last[entry.run, tenant] = micros(entry.at)
        return tenant, before_us
