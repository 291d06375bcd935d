"""One cell registers, another one when that dies or drains, and never two for long."""

from __future__ import annotations

import asyncio

from sipserver.bus.contract import Handler, Json
from sipserver.bus.memory import Hub, MemoryBus
from sipserver.errors import BusDown
from sipserver.fleet.registrar import LOOK_S, REGISTER_AGAIN, Registrar
from tests.fakes.virtual_time import virtual


class FakeDesk:
    """told: what it was asked to do, in order."""

    def __init__(self, told: list[str], name: str) -> None:
        self._told, self._name = told, name
        self.runs = False

    def start(self) -> None:
        assert not self.runs, "started twice"
        self.runs = True
        self._told.append(f"{self._name} starts")

    async def stop(self) -> None:
        await asyncio.sleep(0.3)  # the registrar's answer
        self.runs = False
        self._told.append(f"{self._name} stops")


class Cells:
    """Three cells on a bus in memory."""

    def __init__(self) -> None:
        self.hub, self.told = Hub(), list[str]()
        self.buses = {name: MemoryBus(node="here", run=name, hub=self.hub) for name in ("one", "two", "three")}
        self.desks = {name: FakeDesk(self.told, name) for name in self.buses}
        self.registrars = {name: Registrar(bus, self.desks[name]) for name, bus in self.buses.items()}

    async def __aenter__(self) -> Cells:
        for name, registrar in self.registrars.items():
            await self.buses[name].commands.serve(f"run:{name}", self._handler(registrar))
            registrar.open()
        await asyncio.sleep(0.01)
        return self

    async def __aexit__(self, *_: object) -> None:
        for name, registrar in self.registrars.items():
            await registrar.close()
            await self.buses[name].close()

    @staticmethod
    def _handler(registrar: Registrar) -> Handler:
        async def handle(verb: str, _arguments: Json) -> Json:
            assert verb == REGISTER_AGAIN
            return await registrar.again()

        return handle

    @property
    def holders(self) -> list[str]:
        return [name for name, desk in self.desks.items() if desk.runs]


@virtual
async def test_one_of_all_registers() -> None:
    async with Cells() as cells:
        await asyncio.sleep(10 * LOOK_S)
        assert cells.told == ["one starts"]
        assert [name for name, registrar in cells.registrars.items() if registrar.registers] == ["one"]
    assert cells.told[:2] == ["one starts", "one stops"]


@virtual
async def test_a_cell_that_drains_ends_its_registrations_before_another_begins() -> None:
    async with Cells() as cells:
        await cells.registrars["one"].close()
        await asyncio.sleep(LOOK_S)
        assert cells.told[:2] == ["one starts", "one stops"]
        assert len(cells.holders) == 1
        await cells.registrars["one"].close()
        assert len(cells.holders) == 1


@virtual
async def test_another_cell_takes_over_from_a_dead_one() -> None:
    async with Cells() as cells:
        cells.registrars["one"]._task.cancel()  # type: ignore[union-attr]  # as if it were dead
        await cells.buses["two"].forget_run("one")
        await asyncio.sleep(LOOK_S)
        assert cells.told == ["one starts", "two starts"]
        cells.desks["one"].runs = False


@virtual
async def test_who_was_cut_off_gives_way_and_has_its_successor_register_again() -> None:
    async with Cells() as cells:
        del cells.hub.leases["registrar"]  # it ran out while its holder could not be heard
        assert await cells.buses["three"].leases.contend("registrar", {"run": "three", "node": "here"})
        cells.registrars["three"]._lease = await cells.buses["three"].leases.hold(
            "registrar", {"run": "three", "node": "here"}
        )
        cells.desks["three"].start()
        await asyncio.sleep(2 * LOOK_S)
        assert cells.told == ["one starts", "three starts", "one stops", "three stops", "three starts"]
        assert cells.holders == ["three"]


@virtual
async def test_while_the_bus_is_away_the_holder_goes_on() -> None:
    async with Cells() as cells:

        async def away(key: str) -> Json | None:
            raise BusDown("away")

        leases = cells.buses["one"].leases
        asked, leases.get = leases.get, away  # type: ignore[method-assign]
        await asyncio.sleep(10 * LOOK_S)
        assert cells.holders == ["one"]
        leases.get = asked  # type: ignore[method-assign]
        await asyncio.sleep(2 * LOOK_S)
        assert cells.told == ["one starts"]
