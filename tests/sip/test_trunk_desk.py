"""When trunks register and are asked whether they are there: moments that a real registrar does not hit on demand."""

from __future__ import annotations

import asyncio
from typing import Any

from sipserver.sip.trunk_desk import TrunkDesk
from sipserver.trunks.settings import TrunkSettings
from sipserver.trunks.state import Registered
from tests.fakes.until import until


class SilentSender:
    """Counts what is sent; the test answers."""

    def __init__(self) -> None:
        self.registers = self.probes = 0

    async def register(self, trunk: str) -> None:
        self.registers += 1

    async def unregister(self, trunk: str) -> bool:
        return False

    async def probe(self, trunk: str) -> None:
        self.probes += 1


def desk_of(sender: SilentSender, **facts: Any) -> TrunkDesk:
    place = {"name": "pbx", "host": "192.0.2.1", "keepalive_s": 1, **facts}
    return TrunkDesk([TrunkSettings.model_validate(place)], sender)


async def test_it_stops_in_the_moment_in_which_an_answer_comes() -> None:
    sender = SilentSender()
    desk = desk_of(sender)
    desk.start()
    await until(lambda: sender.probes == 1, "OPTIONS")
    await asyncio.sleep(0)
    desk.probe_ended("pbx", 200, "OK")
    await asyncio.sleep(0)  # the answer has woken who waits for it, and nobody has looked yet
    async with asyncio.timeout(10):
        await desk.stop()


async def test_a_registrar_that_was_away_is_told_again_at_once() -> None:
    """It may have forgotten everybody, and the next refresh is minutes away."""
    sender = SilentSender()
    desk = desk_of(sender, registrar="192.0.2.1", register={"user": "100", "expires_s": 3600})
    desk.start()
    try:
        await until(lambda: sender.registers == 1, "REGISTER")
        desk.registration("pbx", 200, "OK", 3600)
        await until(lambda: desk.states["pbx"].registration is Registered.REGISTERED, "registered")
        desk.probe_ended("pbx", 200, "OK")
        desk.probe_ended("pbx", 408, "Request Timeout")
        desk.probe_ended("pbx", 408, "Request Timeout")
        assert not desk.states["pbx"].up
        assert sender.registers == 1
        desk.probe_ended("pbx", 200, "OK")
        await until(lambda: sender.registers == 2, "REGISTER again")
        desk.registration("pbx", 200, "OK", 3600)
        await until(lambda: desk.states["pbx"].up, "registered")
        desk.probe_ended("pbx", 200, "OK")
        await asyncio.sleep(0)
        assert sender.registers == 2
    finally:
        await desk.stop()
