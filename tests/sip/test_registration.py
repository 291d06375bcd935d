"""Trunks that register, at a real registrar."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sipserver.errors import CarrierError
from sipserver.sip.cell import Cell
from sipserver.sip.leg import SipLeg
from sipserver.sip.settings import SipSettings
from sipserver.trunks.settings import TrunkSettings
from sipserver.trunks.state import Registered, TrunkState
from tests.fakes.sip_rig import Listener
from tests.servers import registrar
from tests.servers.registrar import REALM, Registrar

USERS = {"alice": "a-password", "bob": "b-password"}
PASSWORDS = {f"{user.upper()}_PASSWORD": password for user, password in USERS.items()}
STATE_S = 10.0

pytestmark = pytest.mark.peers


def trunk_at(place: str, user: str = "alice", **facts: Any) -> TrunkSettings:
    return TrunkSettings.model_validate(
        {
            "name": user,
            "registrar": place,
            "domain": REALM,
            "sources": ["127.0.0.1/32"],
            "srtp": "off",
            "credentials": {"user": user, "password_env": f"{user.upper()}_PASSWORD"},
            "register": {"expires_s": 60, "retry_s": 0.1, "retry_most_s": 0.4},
            **facts,
        }
    )


class Trunks:
    """A cell with trunks, and a way to wait for a state."""

    cell: Cell

    def __init__(self, legs: asyncio.Queue[SipLeg]) -> None:
        self.legs = legs
        self.states: list[TrunkState] = []
        self.changed = asyncio.Event()

    def on_state(self, state: TrunkState) -> None:
        self.states.append(state)
        self.changed.set()

    async def state(self, fits: Callable[[TrunkState], bool], since: int = 0) -> TrunkState:
        async with asyncio.timeout(STATE_S):
            while True:
                for state in self.states[since:]:
                    if fits(state):
                        return state
                self.changed.clear()
                await self.changed.wait()

    async def registered(self, since: int = 0) -> TrunkState:
        return await self.state(lambda state: state.registration is Registered.REGISTERED, since)

    async def failed(self, since: int = 0) -> TrunkState:
        return await self.state(lambda state: state.registration is Registered.FAILED, since)


@asynccontextmanager
async def cell_with(*trunks: TrunkSettings, **settings: Any) -> AsyncIterator[Trunks]:
    legs: asyncio.Queue[SipLeg] = asyncio.Queue()
    sip = SipSettings(**{"port": 0, "rtp_ports": (20_000, 20_199), **settings})
    rig = Trunks(legs)
    cell = Cell(sip, legs.put_nowait, goodbye_s=0.2, trunks=trunks, passwords=PASSWORDS, on_trunk=rig.on_state)
    rig.cell = cell
    await cell.start()
    try:
        yield rig
    finally:
        await cell.stop()


@pytest.fixture
async def kamailio(tmp_path: Path) -> AsyncIterator[Registrar]:
    async with registrar.running(tmp_path, USERS) as found:
        yield found


async def test_registers_takes_calls_there_and_unregisters_at_the_end(kamailio: Registrar) -> None:
    async with cell_with(trunk_at(kamailio.address)) as trunks:
        state = await trunks.registered()
        assert (state.up, state.reason) == (True, "")
        contact = (await kamailio.contacts())["alice"]
        assert contact.startswith(f"sip:alice@127.0.0.1:{trunks.cell.sip_port}")
    assert "alice" not in await kamailio.contacts()
    assert trunks.states[-1].registration is Registered.UNREGISTERED


async def test_calls_out_with_credentials_and_takes_the_call_back_in(kamailio: Registrar) -> None:
    async with cell_with(trunk_at(kamailio.address)) as trunks:
        await trunks.registered()
        leg = await trunks.cell.dial(f"sip:alice@{kamailio.address}", trunk="alice", from_uri=f"sip:alice@{REALM}")
        Listener(leg)
        inbound = await asyncio.wait_for(trunks.legs.get(), STATE_S)
        assert inbound.offer.trunk == "alice"
        listener = Listener(inbound)
        await inbound.answer()
        await leg.answered()
        await leg.hangup()
        await listener.leg.ended()


async def test_a_wrong_password_is_told_and_tried_again_later(tmp_path: Path) -> None:
    async with (
        registrar.running(tmp_path, {"alice": "another"}) as kamailio,
        cell_with(trunk_at(kamailio.address)) as trunks,
    ):
        state = await trunks.failed()
        assert state.reason.startswith("REGISTER: 401")
        assert trunks.cell.trunks.down == {"alice"}
        since = len(trunks.states)
        await trunks.failed(since)
        leg = await trunks.cell.dial(f"sip:bob@{kamailio.address}", trunk="alice")
        with pytest.raises(CarrierError) as refused:
            await leg.answered()
        assert refused.value.status in {401, 407}


async def test_a_registration_is_refreshed_before_it_expires(tmp_path: Path) -> None:
    async with (
        registrar.running(tmp_path, USERS, max_expires=6) as kamailio,
        cell_with(trunk_at(kamailio.address)) as trunks,
    ):
        await trunks.registered()
        await kamailio.forget("alice")
        while "alice" not in await kamailio.contacts():  # noqa: ASYNC110 - the registrar tells nobody
            await asyncio.sleep(0.1)
        assert [state.registration for state in trunks.states] == [Registered.REGISTERING, Registered.REGISTERED]


@pytest.mark.parametrize("transport", ["tcp"])
async def test_a_registrar_that_goes_and_comes_back(tmp_path: Path, transport: str) -> None:
    async with (
        registrar.running(tmp_path, USERS, max_expires=6) as kamailio,
        cell_with(trunk_at(kamailio.address, transport=transport)) as trunks,
    ):
        await trunks.registered()
        await kamailio.stop()
        state = await trunks.failed()
        assert state.reason.startswith("REGISTER: 503")
        assert not state.up
        await trunks.failed(len(trunks.states))
        since = len(trunks.states)
        await kamailio.start()
        assert (await trunks.registered(since)).reason == ""
        assert "alice" in await kamailio.contacts()


async def test_an_interval_that_is_too_brief_is_lengthened(tmp_path: Path) -> None:
    async with (
        registrar.running(tmp_path, USERS, min_expires=600) as kamailio,
        cell_with(trunk_at(kamailio.address)) as trunks,
    ):
        await trunks.registered()
        assert "alice" in await kamailio.contacts()
