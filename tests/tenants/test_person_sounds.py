"""A person is given sound of all machines; what is missing is counted, and a silent machine is asked only once."""

from __future__ import annotations

import json
import zipfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import BinaryIO

import pytest

from sipserver.errors import BusDown, Fault, MachineAway, NotFound, RemoteError, SipServerError
from sipserver.store.database import Database
from sipserver.store.persons import PersonRows
from sipserver.store.reader import Reader
from sipserver.store.settings import StoreSettings
from sipserver.tenants.privacy import Given, Privacy
from tests.store.conftest import sqlite_settings
from tests.tenants.test_retention import House

__all__ = ["sqlite_settings"]


class Others:
    """Machines by name, each with files: path -> content, or what it says instead. asked: how often each was."""

    def __init__(self) -> None:
        self.machines: dict[str, dict[str, bytes | SipServerError]] = {}
        self.down: dict[str, SipServerError] = {}
        self.asked: list[str] = []

    def _of(self, node: str) -> dict[str, bytes | SipServerError]:
        self.asked.append(node)
        if node in self.down:
            raise self.down[node]
        return self.machines.get(node, {})

    async def recordings(self, node: str, tenant: str, call_id: str, path: str) -> Sequence[str]:
        assert tenant == "acme"
        return [each for each in self._of(node) if Path(each).name.startswith(call_id)]

    async def fetch(self, node: str, tenant: str, call_id: str, path: str, into: BinaryIO) -> None:
        assert (tenant, bool(call_id)) == ("acme", True)
        found = self._of(node).get(path, NotFound("gone"))
        if isinstance(found, SipServerError):
            raise found
        into.write(found)


@pytest.fixture
async def house(sqlite_settings: StoreSettings, tmp_path: Path) -> AsyncIterator[House]:
    """Without a file: calls of somebody on machines `one` and `two`; the test says what these have."""
    database = Database(sqlite_settings)
    await database.open()
    made = House(database, tmp_path)
    for name, node in (("a1", "one"), ("a2", "one"), ("b1", "two")):
        await made.call(name, 1, node=node, from_uri="sip:alice@x")
    for file in made.folder.iterdir():
        file.unlink()
    yield made
    await database.close()


@pytest.fixture
def others() -> Others:
    return Others()


async def export(house: House, others: Others, file: Path) -> Given:
    giving = Privacy(PersonRows(house.database), Reader(house.database), house.audit, house.folder, elsewhere=others)
    given = await giving.export("acme", "alice", file, actor="operator")
    with zipfile.ZipFile(file) as archive:
        assert Given(**json.loads(archive.read("manifest.json"))) == given
    assert [found.name for found in file.parent.iterdir() if found.is_file()] == [file.name], "nothing else is left"
    return given


def files(house: House, *names: str) -> dict[str, bytes | SipServerError]:
    return {str(house.folder / name): name.encode() for name in names}


async def test_sound_of_all_machines_is_in_one_file(house: House, others: Others, tmp_path: Path) -> None:
    (house.folder / "b1.wav").write_bytes(b"here")
    (house.folder / "message_b1.wav").write_bytes(b"here")
    others.machines["one"] = files(house, "a1.wav", "a1-2.wav", "message_a1.wav", "a2.wav.enc")
    assert await export(house, others, tmp_path / "x.zip") == Given(calls=3, recordings=6, elsewhere=0, running=0)
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        told = json.loads(archive.read("calls/a1.json"))["recordings"]
        assert told == ["recordings/a1.wav", "recordings/a1-2.wav", "recordings/message_a1.wav"]
        assert archive.read("recordings/a1-2.wav") == b"a1-2.wav"
        assert archive.read("recordings/a2.wav") == b"a2.wav.enc"
        assert archive.read("recordings/b1.wav") == b"here"
    assert set(others.asked) == {"one"}, "what is here is not fetched"


@pytest.mark.parametrize("trouble", [MachineAway("away"), BusDown("away")])
async def test_a_silent_machine_is_asked_once_and_its_calls_are_counted(
    house: House, others: Others, tmp_path: Path, trouble: SipServerError
) -> None:
    others.machines["two"] = files(house, "b1.wav", "message_b1.wav")
    others.down["one"] = trouble
    assert await export(house, others, tmp_path / "x.zip") == Given(calls=3, recordings=2, elsewhere=2, running=0)
    assert others.asked.count("one") == 1


async def test_what_breaks_off_is_left_out_and_what_came_before_stays(
    house: House, others: Others, tmp_path: Path
) -> None:
    others.machines["one"] = {
        **files(house, "a1.wav"),
        str(house.folder / "message_a1.wav"): MachineAway("it broke off"),
    }
    others.machines["two"] = files(house, "b1.wav")
    assert await export(house, others, tmp_path / "x.zip") == Given(calls=3, recordings=2, elsewhere=2, running=0)
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert "recordings/message_a1.wav" not in archive.namelist()
        assert archive.testzip() is None


async def test_what_is_gone_there_or_cannot_be_opened_is_counted(house: House, others: Others, tmp_path: Path) -> None:
    closed = RemoteError("KeyMissing", "no key", fault=Fault.OPERATOR, http_code=503)
    others.machines["one"] = {str(house.folder / "a1.wav"): closed, **files(house, "message_a1.wav", "message_a2.wav")}
    others.machines["two"] = files(house, "b1.wav")  # its message was deleted: nothing is missing
    assert await export(house, others, tmp_path / "x.zip") == Given(calls=3, recordings=3, elsewhere=2, running=0)
