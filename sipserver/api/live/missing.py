"""What the database has of a tenant's events and somebody has not yet, without a gap.

Owns the one way of reading that is right while others write. Refuses to know who reads.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from sipserver.api.live.cursor import named
from sipserver.store.feed_rows import FeedRow, Newest


class FeedSource(Protocol):
    """As `store.feed_rows.FeedRows`."""

    async def newest(self, tenant: str, after_us: int) -> Newest: ...

    async def after(self, tenant: str, after_us: int, limit: int) -> Sequence[FeedRow]: ...


async def missing(
    source: FeedSource, tenant: str, after_us: int, mark: Callable[[str], int], page: int
) -> AsyncIterator[FeedRow]:
    """Rows beyond the mark of their run, the oldest first. after_us: how far back the database is asked. mark: of a
    `named` run, as it is when it is asked.

    The newest row of each run is found out first: all before it are there then, and pages show them all. What is
    written while pages are read may lie before the page that comes next: it waits for the next time.
    """
    ends = {named(run): at_us for run, at_us in (await source.newest(tenant, after_us)).items()}
    low_us = min((mark(run) for run, end_us in ends.items() if end_us > mark(run)), default=None)
    while low_us is not None:
        rows = await source.after(tenant, low_us, page)
        for row in rows:
            run = named(row.run)
            if mark(run) < row.at_us <= ends.get(run, 0):
                yield row
        low_us = rows[-1].at_us - 1 if len(rows) == page and rows[-1].at_us <= max(ends.values()) else None
