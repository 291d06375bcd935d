"""What only the memory backend promises; what both promise is in test_contract."""

from __future__ import annotations

import pytest

from sipserver.bus import memory
from sipserver.bus.memory import MemoryBus
from sipserver.journal import Entry, Kind


async def test_a_journal_that_nobody_reads_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MOST_ENTRIES", 3)
    bus = MemoryBus(node="one", run="r1")
    for number in range(5):
        bus.journal.tell(Entry(Kind.EVENT, "one", "r1", f"c{number}", 0.0))
    assert bus.journal.dropped == 2
    reader = bus.journal.read("one")
    delivery = await anext(reader)
    assert [entry.call_id for entry in delivery.entries] == ["c0", "c1", "c2"]
    await delivery.done()
    bus.journal.tell(Entry(Kind.EVENT, "one", "r1", "c5", 0.0))
    assert [entry.call_id for entry in (await anext(reader)).entries] == ["c5"]
    await reader.aclose()
