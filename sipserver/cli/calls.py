"""`sipserver calls`: which calls there were and are, one of them on a time line, and what an operator does to them.

Owns the words on the terminal. Where calls are found is `call_source`'s business.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sipserver import settings
from sipserver.calls import timeline
from sipserver.cli import live
from sipserver.cli.call_source import LOOK_S, Shown, Source, Told, find, find_live, open_source
from sipserver.dialplan.facts import split_uri
from sipserver.errors import RemoteError, SipServerError

app = typer.Typer(help="Show calls, follow them, end them, hand them over.", no_args_is_help=True)

CallId = Annotated[str, typer.Argument(metavar="ID", help="An id, its beginning or its end, or `last`.")]
LiveId = Annotated[str, typer.Argument(metavar="ID", help="The id of a live call, its beginning or its end.")]
Config = Annotated[Path, typer.Option("--config", help="The settings file.", metavar="FILE")]
Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="SIPSERVER_URL",
        help="Ask this server by REST, with the API key in SIPSERVER_KEY; else what the settings file names.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print what is stored, as JSON.")]

COLUMNS = ("id", "started (UTC)", "tenant", "from", "to", "s", "ended")

app.command("live")(live.live)


@app.command("list")
def list_calls(
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many calls.", min=1)] = 20,
    tenant: Annotated[str | None, typer.Option(help="Only calls of this tenant.")] = None,
    as_json: AsJson = False,
    url: Url = "",
    config: Config = settings.DEFAULT_FILE,
) -> None:
    """Show the newest calls."""
    rows = asyncio.run(_list(config, url, limit, tenant))
    if as_json:
        typer.echo(json.dumps([row.stored for row in rows], default=str, indent=2))
        return
    columns = [column for column in COLUMNS if column != "tenant" or not url]  # by REST they are all the key's
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column == "s" else "left", no_wrap=column != "ended")
    for row in rows:
        facts = _facts(row)
        table.add_row(*(Text(timeline.clean(facts[column])) for column in columns))
    Console().print(table)


def _facts(row: Shown) -> dict[str, str]:
    """A line that fits a terminal, by column: the end of the id, which `show` takes, the users without their hosts."""
    length = "" if row.ended_at is None else f"{(row.ended_at - row.started_at).total_seconds():.1f}"
    users = (split_uri(uri)[0] or uri for uri in (row.from_uri, row.to_uri))
    told = (row.id[-12:], f"{row.started_at:%m-%d %H:%M:%S}", row.tenant or "", *users, length)
    return dict(zip(COLUMNS, (*told, row.end_reason or row.state), strict=True))


@app.command()
def show(
    call_id: CallId,
    private: Annotated[bool, typer.Option("--private", help="Show the digits that were pressed.")] = False,
    as_json: AsJson = False,
    url: Url = "",
    config: Config = settings.DEFAULT_FILE,
) -> None:
    """Draw one call on a time line."""
    row, events = asyncio.run(_show(config, url, call_id))
    if as_json:
        stored = [{"seq": one.seq, "at_ms": one.at_ms, "kind": one.kind, "fields": one.fields} for one in events]
        typer.echo(json.dumps({"call": row.stored, "events": stored}, default=str, indent=2))
        return
    for line in timeline.draw(row, events, private=private):
        typer.echo(line)


@app.command()
def tail(
    call_id: Annotated[str, typer.Argument(metavar="[ID]", help="Follow this call alone, until it is over.")] = "",
    private: Annotated[bool, typer.Option("--private", help="Show the digits that are pressed.")] = False,
    url: Url = "",
    config: Config = settings.DEFAULT_FILE,
) -> None:
    """Show what happens in calls as it happens; without an id in all of them, until Ctrl-C."""

    def print_event(of: str, event: Told) -> None:
        (line,) = timeline.lines([event], private=private)
        who = "" if call_id else f"{of[-12:]}  "
        typer.echo(timeline.clean(f"{who}{event.at_ms / 1000:9.3f}  {line.who:<8}{line.what}"))

    asyncio.run(_tail(config, url, call_id, print_event))


@app.command()
def hangup(call_id: LiveId, url: Url = "", config: Config = settings.DEFAULT_FILE) -> None:
    """End a running call, wherever it lives."""
    typer.echo(f"ended {asyncio.run(_tell(config, url, call_id, 'hangup', detail='sipserver calls hangup'))}")


@app.command()
def transfer(
    call_id: LiveId,
    to: Annotated[str, typer.Argument(metavar="TO", help="A number, user or SIP URI that `targets` allows.")],
    mode: Annotated[str, typer.Option(help="attended, blind or warm.")] = "attended",
    trunk: Annotated[str, typer.Option(help="The trunk to call by; otherwise the first that carries the number.")] = "",
    ring_s: Annotated[float, typer.Option("--ring-s", help="How long it may ring.")] = 30,
    announce: Annotated[str, typer.Option(help="With --mode warm: what the target hears first.")] = "",
    url: Url = "",
    config: Config = settings.DEFAULT_FILE,
) -> None:
    """Hand a running call over. Its events tell the outcome: `sipserver calls tail ID`."""
    options = {"to": to, "mode": mode, "trunk": trunk, "ring_s": ring_s, "announce": announce}
    told = {name: value for name, value in options.items() if value != ""}
    typer.echo(f"being handed over: {asyncio.run(_tell(config, url, call_id, 'transfer', **told))}")


async def _list(config: Path, url: str, limit: int, tenant: str | None) -> Sequence[Shown]:
    async with open_source(config, url) as source:
        return await source.recent(limit, tenant)


async def _show(config: Path, url: str, wanted: str) -> tuple[Shown, Sequence[Told]]:
    async with open_source(config, url) as source:
        row = await find(source, wanted)
        return row, await source.events(row.id)


async def _tell(config: Path, url: str, wanted: str, verb: str, **options: Any) -> str:
    """The id of the call."""
    async with open_source(config, url) as source:
        call_id = await find_live(source, wanted)
        try:
            await source.tell(call_id, verb, **options)
        except RemoteError as refusal:
            raise SipServerError(refusal.text) from None
        return call_id


async def _tail(config: Path, url: str, wanted: str, tell: Callable[[str, Told], None]) -> None:
    async with open_source(config, url) as source:
        if wanted:
            await _follow(source, await find(source, wanted), tell)
        else:
            async for of, event in source.happening():
                tell(of, event)


async def _follow(source: Source, row: Shown, tell: Callable[[str, Told], None]) -> None:
    seen, over = -1, False
    while not over:
        over = ((await source.get(row.id)) or row).ended_at is not None
        for event in await source.events(row.id, seen):
            seen = event.seq
            tell(row.id, event)
        if not over:
            await asyncio.sleep(LOOK_S)
