"""Which events somebody waits for: those of tenants with an endpoint that wants them. They travel at once, all others
in batches, which costs less.

Owns what a process knows of that, and how it is told on the bus: by whoever delivers, now and then, and by whoever
changes an endpoint. It is about haste alone: an event that is taken for unwanted comes a batch later.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sipserver import log
from sipserver.bus.contract import Bus
from sipserver.journal import Entry, Kind
from sipserver.store.database import UNAVAILABLE, brief
from sipserver.store.webhook_rows import EndpointRows
from sipserver.webhooks.notices import wanted

VERB = "webhooks.wanted"
"""Announced with what `told` gives, to everybody."""
EVERY_S = 10.0
"""So often it is told, for processes that have begun since."""
GOOD_FOR_S = 25.0
MOST = 1_000
"""Tenants: an announcement goes to each process. Events of further ones take the usual way."""


def told(endpoints: Iterable[tuple[str, Sequence[str]]]) -> dict[str, Any]:
    """Of enabled endpoints (tenant, patterns; none: all kinds), what is announced."""
    patterns: dict[str, set[str]] = {}
    for tenant, kinds in endpoints:
        patterns.setdefault(tenant, set()).update(kinds or ("*",))
    return {"tenants": {tenant: sorted(patterns[tenant]) for tenant in sorted(patterns)[:MOST]}}


class Wanted:
    """Of one process; loop thread. clock: seconds that never jump."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._patterns: Mapping[str, Sequence[str]] = {}
        self._until_s = 0.0
        self._known: dict[tuple[str, str], bool] = {}

    async def heed(self, verb: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """As `bus.Handler`. An announcement replaces what was known, for GOOD_FOR_S."""
        if verb == VERB:
            self._patterns, self._known = dict(arguments["tenants"]), {}
            self._until_s = self._clock() + GOOD_FOR_S
        return {}

    def __call__(self, entry: Entry) -> bool:
        """Whether somebody waits for it. Under a microsecond where nobody waits for anything."""
        if not self._patterns or entry.kind is not Kind.EVENT:
            return False
        if self._clock() > self._until_s:
            self._patterns, self._known = {}, {}
            return False
        key = (str(entry.fields.get("tenant")), str(entry.fields.get("kind")))
        found = self._known.get(key)
        if found is None:
            patterns = self._patterns.get(key[0])
            found = self._known[key] = bool(patterns) and wanted(key[1], patterns or ())
        return found


class Announcer:
    """Loop thread. Raises nothing: whoever does not hear it does without haste."""

    def __init__(self, bus: Bus, rows: EndpointRows) -> None:
        self._bus, self._rows = bus, rows
        self._log = log.logger("webhooks")

    async def changed(self) -> None:
        """An endpoint was made, changed or deleted."""
        await self._announce(also_nothing=True)

    async def run(self) -> None:
        """Until it is cancelled; one process of all that do so tells."""
        while True:
            if await self._bus.once.first(VERB, EVERY_S - 1):
                await self._announce(also_nothing=False)
            await asyncio.sleep(EVERY_S)

    async def _announce(self, *, also_nothing: bool) -> None:
        try:
            rows = await self._rows.list(enabled_only=True)
        except UNAVAILABLE as problem:
            self._log.debug("which events are wanted cannot be read", error=brief(problem))
            return
        if rows or also_nothing:
            await self._bus.commands.announce(VERB, told((row.tenant, row.kinds) for row in rows))
