"""A cell that answers every call and joins the calls in pairs.

Prints `ready` and its SIP port, and stops when its input ends.
"""

from __future__ import annotations

import asyncio
import sys

from sipserver.errors import CarrierError
from sipserver.events import Event, LegDisconnected
from sipserver.sip.cell import Cell
from sipserver.sip.leg import SipLeg
from sipserver.sip.settings import SipSettings


class Exchange:
    def __init__(self) -> None:
        self._waiting: SipLeg | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, leg: SipLeg) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(leg))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, leg: SipLeg) -> None:
        def told(event: Event) -> None:
            if isinstance(event, LegDisconnected) and self._waiting is leg:
                self._waiting = None

        leg.attach(told, lambda _heard, _played: None)
        leg.hear(False)
        try:
            await leg.answer()
        except CarrierError:
            return
        other, self._waiting = self._waiting, None
        if other is None:
            self._waiting = leg
            return
        leg.feed(other, True)
        other.feed(leg, True)


async def main() -> None:
    settings = SipSettings(port=0, inbound_calls=4, rtp_ports=(21_000, 21_199), record_messages=False)
    cell = Cell(settings, Exchange().take)
    await cell.start()
    print(f"ready {cell.sip_port}", flush=True)
    try:
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    finally:
        await cell.stop()


if __name__ == "__main__":
    asyncio.run(main())
