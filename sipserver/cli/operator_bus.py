"""The bus of a fleet, as an operator's command has it for as long as it asks.

Owns opening and closing it under a name of its own. Refuses to know what is asked.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sipserver.bus import table
from sipserver.bus.contract import Bus
from sipserver.settings import Settings


@asynccontextmanager
async def operator_bus(loaded: Settings) -> AsyncIterator[Bus]:
    """Open for the length of an `async with` block. loaded: of a fleet. Raises BusDown."""
    bus = table.make(loaded.bus, node="operator", run=uuid.uuid4().hex)
    await bus.open()
    try:
        yield bus
    finally:
        await bus.close()
