"""`sipserver conference`: whom it asks, what it shows, and what it says when there is nobody to ask."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sipserver import console
from sipserver.bus.memory import Hub, MemoryBus
from sipserver.calls.commands import CallCommands
from sipserver.calls.conference import NoMember
from sipserver.cli import conference
from sipserver.cli import main as cli
from sipserver.cli.conference import Asked, Fleet, Found, Single, find
from sipserver.errors import BusDown, RemoteError, SipServerError
from sipserver.events import ConferenceMuted, StepLeft
from sipserver.settings import Settings
from tests.calls.conftest import Stage
from tests.fakes.leg import FakeLeg
from tests.harness.audited import audited, make_database

ANN, BEN, CY = "01a0-ann-7777", "01a1-ben-7777", "01a2-cy-9999"


def room(name: str, *calls: str, tenant: str = "acme", **facts: Any) -> dict[str, Any]:
    member = {"moderator": False, "muted": False, "held": False, "since_ms": 61_200}
    members = [{"member": number, "call": call, **member, **facts} for number, call in enumerate(calls, start=1)]
    return {"tenant": tenant, "room": name, "open": True, "members": members}


async def tell(server: Asked, verb: str, wanted: str) -> str:
    return await conference.tell(server, verb, await find(server, wanted))


# --- a single server --------------------------------------------------------------------------------------------------


@pytest.fixture
def settings() -> Iterator[Settings]:
    with tempfile.TemporaryDirectory(prefix="conference-") as folder:  # a socket's path holds 107 bytes (unix(7))
        yield Settings.model_validate({"fleet": {"runtime": f"{folder}/run"}, "sip": {"port": 5098}})


async def test_a_single_server_is_asked_through_its_console(tmp_path: Path, settings: Settings) -> None:
    stage = Stage(tmp_path)
    stage.recorder.open()
    try:
        stage.plan("  main: [{conference: {room: team, on: {failed: end, kicked: end}}}]")
        registry, leg = stage.registry(), FakeLeg()
        ann = registry.begin(leg).id
        await stage.until(lambda: [len(room.members) for room in stage.rooms] == [1], leg)
        ben = registry.begin(FakeLeg()).id
        await stage.until(lambda: [len(room.members) for room in stage.rooms] == [2], leg)
        server = Single(settings)
        async with console.listening(settings, CallCommands(registry).handle):
            assert (await server.rooms("other")).rooms == []
            (team,) = (await server.rooms("acme")).rooms
            assert [member["call"] for member in team["members"]] == [ann, ben]
            assert await tell(server, "conference.mute", ben[-12:]) == ben
            assert [member["muted"] for member in (await server.rooms("")).rooms[0]["members"]] == [False, True]
            assert await tell(server, "conference.unmute", ben) == ben
            muted = stage.records.of(ConferenceMuted)
            assert [(event.muted, event.by) for event in muted] == [(True, "operator"), (False, "operator")]
            assert await tell(server, "conference.kick", ann) == ann
            await stage.until(lambda: ann not in registry.calls, leg)
            (left,) = stage.records.of(StepLeft)
            assert (left.step, left.outcome) == ("conference", "kicked")
            with pytest.raises(SipServerError, match=f"the call {ann} is in no room; `sipserver conference list`"):
                await tell(server, "conference.mute", ann)
    finally:
        await stage.close()


@pytest.mark.parametrize("words", [("list",), ("mute", ANN), ("unmute", ANN), ("kick", ANN)])
def test_no_server_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    file = tmp_path / "sipserver.yaml"
    file.write_text(f"fleet: {{runtime: {tmp_path}/run}}\n")
    with pytest.raises(SystemExit) as stopped:
        cli.main(["conference", *words, "--config", str(file)])
    assert stopped.value.code == 1
    assert "error: no server answers at" in capsys.readouterr().err


# --- a fleet ----------------------------------------------------------------------------------------------------------


class Cell:
    """A cell on the bus. rooms: its answer, or what it raises."""

    def __init__(self, hub: Hub, name: str, rooms: list[dict[str, Any]] | Exception) -> None:
        self.bus = MemoryBus(node="m1", run=f"r-{name}", hub=hub)
        self.name, self.rooms = name, rooms
        self.asked: list[tuple[str, Mapping[str, Any]]] = []

    async def open(self) -> None:
        await self.bus.leases.hold(f"run/{self.bus.run}", {"node": "m1", "name": self.name, "calls": 1})
        await self.bus.commands.serve(f"run:{self.bus.run}", self._handle)

    async def _handle(self, verb: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        self.asked.append((verb, arguments))
        if isinstance(self.rooms, Exception):
            raise self.rooms
        if verb == "conference.list":
            return {"rooms": [each for each in self.rooms if arguments["tenant"] in ("", each["tenant"])]}
        if arguments["call"] == CY:
            raise NoMember(f"call {CY} is in no room")
        return {"call": arguments["call"]}


@asynccontextmanager
async def fleet(**rooms: list[dict[str, Any]] | Exception) -> AsyncIterator[tuple[Fleet, dict[str, Cell]]]:
    hub = Hub()
    cells = {name: Cell(hub, name, answer) for name, answer in rooms.items()}
    for cell in cells.values():
        await cell.open()
    gone = MemoryBus(node="m1", run="r-gone", hub=hub)
    if rooms:
        await gone.leases.hold("run/r-gone", {"node": "m1", "name": "gone"})
    operator = MemoryBus(node="operator", run="operator", hub=hub)
    try:
        yield Fleet(operator), cells
    finally:
        for bus in (operator, gone, *(cell.bus for cell in cells.values())):
            await bus.close()


async def test_all_cells_are_asked_and_the_one_that_has_the_member_is_told() -> None:
    async with fleet(a=[room("team", ANN)], b=[room("team", BEN, tenant="other"), room("desk", CY)]) as (server, cells):
        found = await server.rooms("")
        assert [(each["cell"], each["room"]) for each in found.rooms] == [("a", "team"), ("b", "team"), ("b", "desk")]
        assert found.silent == []
        assert len((await server.rooms("other")).rooms) == 1
        assert await tell(server, "conference.mute", "01a1-ben") == BEN
        assert cells["b"].asked[-1] == ("conference.mute", {"call": BEN})
        assert [verb for verb, _ in cells["a"].asked] == ["conference.list"] * 3


async def test_a_cell_that_does_not_answer_is_named() -> None:
    async with fleet(a=[room("team", ANN)], b=BusDown("run:b did not answer")) as (server, _):
        assert (await server.rooms("")).silent == ["m1/b"]
        assert await tell(server, "conference.kick", ANN) == ANN
        with pytest.raises(SipServerError, match="is in no room, but m1/b did not answer"):
            await tell(server, "conference.kick", BEN)


async def test_an_id_that_means_nobody_or_several_or_one_who_is_gone() -> None:
    async with fleet(a=[room("team", ANN, BEN, CY)]) as (server, cells):
        with pytest.raises(SipServerError, match="2 members have 7777 in the ids"):
            await tell(server, "conference.kick", "7777")
        for nobody in ("ann", ""):
            with pytest.raises(SipServerError, match=f"the call {nobody} is in no room; "):
                await tell(server, "conference.kick", nobody)
        with pytest.raises(SipServerError, match=f"^call {CY} is in no room$") as refused:
            await tell(server, "conference.kick", CY)
        assert not isinstance(refused.value, RemoteError)
        assert cells["a"].asked[-1][0] == "conference.kick"


async def test_a_fleet_without_a_cell() -> None:
    async with fleet() as (server, _):
        with pytest.raises(SipServerError, match="no cell of the fleet runs"):
            await server.rooms("")


# --- the terminal -----------------------------------------------------------------------------------------------------


class Told:
    """A server that answers as it was told."""

    def __init__(self, found: Found) -> None:
        self.found = found

    async def rooms(self, tenant: str) -> Found:
        return self.found

    async def tell(self, run: str, verb: str, call_id: str) -> Mapping[str, Any]:
        return {}


CONFIG = """
sip: {port: 5097}
store: {url: 'sqlite+aiosqlite:///records.db'}
audit: {secret_file: audit.secret}
"""


def printed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, found: Found, *words: str, code: int = 0) -> str:
    @asynccontextmanager
    async def server(_: Settings) -> AsyncIterator[Told]:
        yield Told(found)

    monkeypatch.setattr(conference, "_server", server)
    (tmp_path / "sipserver.yaml").write_text(CONFIG)
    result = CliRunner().invoke(
        conference.app, [*words, "--config", str(tmp_path / "sipserver.yaml")], catch_exceptions=False
    )
    assert result.exit_code == code, result.output
    return result.output


def at(cell: str, rooms: dict[str, Any]) -> dict[str, Any]:
    return {**rooms, "node": "m1" if cell else "", "cell": cell, "run": cell}


def test_members_are_shown_with_what_an_operator_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    team = at("cell-2", room("team\x1b", ANN, BEN, muted=True, moderator=True))
    shut = at("cell-1", {**room("shut", CY), "open": False})
    lines = printed(monkeypatch, tmp_path, Found([team, shut]), "list").splitlines()
    words = [line.split() for line in lines]
    assert words[0] == ["room", "tenant", "member", "call", "state", "s", "cell"]
    assert words[1] == ["shut", "acme", "1", CY[-12:], "waits", "61", "m1/cell-1"]
    assert words[2] == ["team·", "acme", "1", ANN[-12:], "moderator,", "muted", "61", "m1/cell-2"]
    assert len(lines) == 4


def test_an_empty_house(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert printed(monkeypatch, tmp_path, Found([]), "list") == "nobody is in a room\n"


def test_missing_rooms_are_told_and_are_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    output = printed(monkeypatch, tmp_path, Found([at("a", room("team", ANN))], ["m1/b"]), "list", code=1)
    assert ANN[-12:] in output
    assert "error: m1/b does not answer; its rooms are missing here" in output


def test_the_list_as_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = [at("a", room("team", ANN))]
    assert json.loads(printed(monkeypatch, tmp_path, Found(found), "list", "--json")) == found


@pytest.mark.parametrize(("verb", "word"), [("mute", "muted"), ("unmute", "unmuted"), ("kick", "removed")])
def test_what_was_done_and_that_the_audit_log_has_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verb: str, word: str
) -> None:
    (tmp_path / "sipserver.yaml").write_text(CONFIG)
    asyncio.run(make_database(tmp_path / "sipserver.yaml"))
    found = Found([at("a", room("team", ANN))])
    assert printed(monkeypatch, tmp_path, found, verb, ANN[-4:]) == f"{word} {ANN}\n"
    deed = {"mute": "conference.muted", "unmute": "conference.unmuted", "kick": "conference.kicked"}[verb]
    asked, done = asyncio.run(audited(tmp_path / "sipserver.yaml", "acme"))
    assert (asked.action, asked.actor, asked.subject) == (f"{deed}.asked", "operator", f"call:{ANN}")
    assert (done.action, done.subject, done.detail) == (deed, f"call:{ANN}", {"asked": asked.number})
