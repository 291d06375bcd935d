"""`sipserver conference`: who is in which room now, and what an operator may do about it.

Owns the questions and the words on the terminal. The rooms live in the server: in a single one, which is asked through
its console, or in the cells of a fleet, which are asked over the bus.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sipserver import console, settings
from sipserver.bus.contract import Bus, Json
from sipserver.calls import timeline
from sipserver.cli.operator_audit import opened
from sipserver.cli.operator_bus import operator_bus
from sipserver.errors import NotFound, RemoteError, SipServerError
from sipserver.settings import Settings

app = typer.Typer(help="Look at conference rooms, mute and remove members.", no_args_is_help=True)

CallId = Annotated[str, typer.Argument(metavar="CALL", help="The id of a member's call, its beginning or its end.")]
Config = Annotated[Path, typer.Option("--config", help="The settings file.", metavar="FILE")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answers as JSON.")]

DONE = {
    "conference.mute": "conference.muted",
    "conference.unmute": "conference.unmuted",
    "conference.kick": "conference.kicked",
}
"""What the audit log calls it."""
ANSWER_S = 3.0
WIDTH = 100


@dataclass(frozen=True, slots=True)
class Found:
    """rooms: as `conference.list` answers, each with `node`, `cell` and `run`. silent: cells that did not answer."""

    rooms: Sequence[Mapping[str, Any]]
    silent: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Member:
    """call: its id. run: of the process that has the room."""

    call: str
    tenant: str
    run: str


class Asked(Protocol):
    """The server, or the fleet."""

    async def rooms(self, tenant: str) -> Found: ...

    async def tell(self, run: str, verb: str, call_id: str) -> Json:
        """run: of the process that has the room."""
        ...


@app.command("list")
def list_rooms(
    tenant: Annotated[str, typer.Option(help="Only rooms of this tenant.")] = "",
    as_json: AsJson = False,
    config: Config = settings.DEFAULT_FILE,
) -> None:
    """Show all rooms and their members; exit code 1 when a cell of the fleet does not answer."""
    found = asyncio.run(_list(config, tenant))
    if as_json:
        typer.echo(json.dumps(list(found.rooms), indent=2))
    elif any(room["members"] for room in found.rooms):
        _print(found.rooms)
    else:
        typer.echo("nobody is in a room")
    for cell in found.silent:
        typer.echo(f"error: {cell} does not answer; its rooms are missing here", err=True)
    if found.silent:
        raise typer.Exit(1)


@app.command()
def mute(call_id: CallId, config: Config = settings.DEFAULT_FILE) -> None:
    """Let nobody hear a member, until `unmute` or the member's own *6."""
    typer.echo(f"muted {asyncio.run(_tell(config, 'conference.mute', call_id))}")


@app.command()
def unmute(call_id: CallId, config: Config = settings.DEFAULT_FILE) -> None:
    """Let a member be heard again."""
    typer.echo(f"unmuted {asyncio.run(_tell(config, 'conference.unmute', call_id))}")


@app.command()
def kick(call_id: CallId, config: Config = settings.DEFAULT_FILE) -> None:
    """Remove a member from their room; their call goes on by the branch `kicked`."""
    typer.echo(f"removed {asyncio.run(_tell(config, 'conference.kick', call_id))}")


async def _list(config: Path, tenant: str) -> Found:
    async with _server(settings.load(config)) as server:
        return await server.rooms(tenant)


async def _tell(config: Path, verb: str, wanted: str) -> str:
    loaded = settings.load(config)
    async with _server(loaded) as server:
        member = await find(server, wanted)
        async with opened(loaded) as audit:
            done = partial(tell, server, verb, member)
            return await audit.do(member.tenant, DONE[verb], done, which=member.call)


async def find(server: Asked, wanted: str) -> Member:
    """Raises SipServerError when no member, or more than one, is meant."""
    found = await server.rooms("")
    members = [
        Member(call, str(room["tenant"]), str(room["run"]))
        for room in found.rooms
        for call in (str(member["call"]) for member in room["members"])
        if wanted and (call.startswith(wanted) or call.endswith(wanted))
    ]
    if len(members) > 1:
        raise SipServerError(f"{len(members)} members have {wanted} in the ids of their calls; write more of it")
    if not members:
        silent = f", but {' and '.join(found.silent)} did not answer" if found.silent else ""
        raise SipServerError(f"the call {wanted} is in no room{silent}; `sipserver conference list` shows who is")
    return members[0]


async def tell(server: Asked, verb: str, member: Member) -> str:
    """Returns the id of the call. Raises SipServerError when the server refuses."""
    try:
        await server.tell(member.run, verb, member.call)
    except RemoteError as refusal:  # gone meanwhile
        raise SipServerError(refusal.text) from None
    return member.call


def _print(rooms: Sequence[Mapping[str, Any]]) -> None:
    drawn = Table(box=None, pad_edge=False)
    for column in ("room", "tenant", "member", "call", "state", "s", "cell"):
        drawn.add_column(column, justify="right" if column in {"member", "s"} else "left", no_wrap=True)
    for room in sorted(rooms, key=lambda room: (str(room["tenant"]), str(room["room"]))):
        for member in room["members"]:
            words = [word for word in ("moderator", "muted", "held") if member[word]]
            if not room["open"]:
                words.append("waits")
            facts = (room["room"], room["tenant"], member["member"], member["call"][-12:], ", ".join(words))
            cell = f"{room['node']}/{room['cell']}" if room["cell"] else ""
            row = (*facts, f"{member['since_ms'] / 1000:.0f}", cell)
            drawn.add_row(*(Text(timeline.clean(str(fact))) for fact in row))
    printer = Console(highlight=False)
    printer.width = max(printer.width, WIDTH)
    printer.print(drawn)


@asynccontextmanager
async def _server(loaded: Settings) -> AsyncIterator[Asked]:
    if loaded.mode == "single":
        yield Single(loaded)
        return
    async with operator_bus(loaded) as bus:
        yield Fleet(bus)


class Single:
    """By the server's console."""

    def __init__(self, loaded: Settings) -> None:
        self._settings = loaded

    async def rooms(self, tenant: str) -> Found:
        answer = await console.ask(self._settings, "conference.list", {"tenant": tenant}, ANSWER_S)
        return Found([{**room, "node": "", "cell": "", "run": ""} for room in answer["rooms"]])

    async def tell(self, run: str, verb: str, call_id: str) -> Json:
        return await console.ask(self._settings, verb, {"call": call_id}, ANSWER_S)


class Fleet:
    """By the bus: every cell is asked for its rooms, and a member's cell for the rest."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def rooms(self, tenant: str) -> Found:
        """Raises SipServerError when there is no cell at all."""
        cells = await self._bus.leases.find("run/")
        if not cells:
            raise SipServerError("no cell of the fleet runs")
        runs = [key.removeprefix("run/") for key in cells]
        answers = await asyncio.gather(*(self._rooms_of(run, tenant) for run in runs))
        rooms, silent = [], []
        for run, cell, answer in zip(runs, cells.values(), answers, strict=True):
            where = {"node": str(cell["node"]), "cell": str(cell["name"]), "run": run}
            if answer is None:
                silent.append(f"{where['node']}/{where['cell']}")
            else:
                rooms += [{**room, **where} for room in answer]
        return Found(rooms, silent)

    async def tell(self, run: str, verb: str, call_id: str) -> Json:
        return await self._bus.commands.ask(f"run:{run}", verb, {"call": call_id}, timeout_s=ANSWER_S)

    async def _rooms_of(self, run: str, tenant: str) -> list[dict[str, Any]] | None:
        """None: it does not answer. A cell that is gone has no rooms."""
        try:
            answer = await self._bus.commands.ask(
                f"run:{run}", "conference.list", {"tenant": tenant}, timeout_s=ANSWER_S
            )
        except NotFound:
            return []
        except SipServerError:
            return None
        return list(answer["rooms"])
