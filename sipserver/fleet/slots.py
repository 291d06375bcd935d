"""Who has which place for a cell. Owns the free ones; refuses to know who asks for them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence

from sipserver.fleet.plan import Slot
from sipserver.log import logger


class Slots:
    """Loop thread. Hands out places whose SIP port is really free: an orphan of an earlier supervisor, or a stranger,
    may sit there for a while."""

    def __init__(self, slots: Sequence[Slot], host: str) -> None:
        self._free = list(slots)
        self._host = host
        self._freed = asyncio.Event()
        self._log = logger("fleet")

    @property
    def free(self) -> int:
        return len(self._free)

    def take(self) -> Slot | None:
        """The lowest place whose port nobody holds; None if there is none now."""
        for slot in self._free:
            if port_is_free(self._host, slot.sip_port):
                self._free.remove(slot)
                return slot
            self._log.debug("a port is taken by somebody else, the next one is used", port=slot.sip_port)
        return None

    def give(self, slot: Slot) -> None:
        self._free.append(slot)
        self._free.sort(key=lambda one: one.index)
        self._freed.set()

    async def wait(self, at_most_s: float) -> None:
        """Until a place is given back, or for so long: a stranger tells nobody that it leaves a port."""
        self._freed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                await self._freed.wait()


def port_is_free(host: str, port: int) -> bool:
    """For UDP and TCP alike. Opens and closes two sockets."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(family, kind) as probe:
            if kind is socket.SOCK_STREAM:  # connections of the last owner linger without holding the port
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True
