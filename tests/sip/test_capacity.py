"""How many calls the linked PJSIP holds, asked from a process that ends at once."""

from __future__ import annotations

import asyncio
import subprocess
import sys

from tests.fakes.sip_rig import running


def count() -> str:
    asked = subprocess.run(
        [sys.executable, "-c", "from sipserver.sip import capacity; print(capacity.count())"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return asked.stdout


async def test_a_throw_away_process_counts_what_a_cell_finds() -> None:
    async with running() as rig:
        assert await asyncio.to_thread(count) == f"{rig.cell.capacity}\n"
