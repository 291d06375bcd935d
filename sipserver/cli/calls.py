"""`sipserver calls`: which calls there were, one of them on a time line; `live` has those that run."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sipserver import settings
from sipserver.calls import timeline
from sipserver.cli import live
from sipserver.dialplan.facts import split_uri
from sipserver.errors import SipServerError
from sipserver.store.reader import CallRow, EventRow, Reader, open_reader

app = typer.Typer(help="Show the records of calls.", no_args_is_help=True)

Config = Annotated[Path, typer.Option("--config", help="The settings file.", metavar="FILE")]
AsJson = Annotated[bool, typer.Option("--json", help="Print what is stored, as JSON.")]

app.command("live")(live.live)
app.command("hangup")(live.hangup)

RECENT = 500
"""How many calls back `show` looks for a part of an id."""


@app.command("list")
def list_calls(
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many calls.", min=1)] = 20,
    tenant: Annotated[str | None, typer.Option(help="Only calls of this tenant.")] = None,
    as_json: AsJson = False,
    config: Config = settings.DEFAULT_FILE,
) -> None:
    """Show the newest calls."""
    rows = asyncio.run(_list(config, limit, tenant))
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(row) for row in rows], default=str, indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("id", "started (UTC)", "tenant", "from", "to", "s", "ended"):
        table.add_column(column, justify="right" if column == "s" else "left", no_wrap=column != "ended")
    for row in rows:
        table.add_row(*(Text(timeline.clean(fact)) for fact in _facts(row)))
    Console().print(table)


def _facts(row: CallRow) -> tuple[str, ...]:
    """A line that fits a terminal: the end of the id, which `show` takes, and the users without their hosts."""
    length = "" if row.ended_at is None else f"{(row.ended_at - row.started_at).total_seconds():.1f}"
    users = (split_uri(uri)[0] or uri for uri in (row.from_uri, row.to_uri))
    return (row.id[-12:], f"{row.started_at:%m-%d %H:%M:%S}", row.tenant, *users, length, row.end_reason or row.state)


@app.command()
def show(
    call_id: Annotated[str, typer.Argument(metavar="ID", help="An id, its beginning or its end, or `last`.")],
    private: Annotated[bool, typer.Option("--private", help="Show the digits that were pressed.")] = False,
    as_json: AsJson = False,
    config: Config = settings.DEFAULT_FILE,
) -> None:
    """Draw one call on a time line."""
    row, events = asyncio.run(_show(config, call_id))
    if as_json:
        stored = {"call": dataclasses.asdict(row), "events": [dataclasses.asdict(event) for event in events]}
        typer.echo(json.dumps(stored, default=str, indent=2))
        return
    for line in timeline.draw(row, events, private=private):
        typer.echo(line)


async def _list(config: Path, limit: int, tenant: str | None) -> list[CallRow]:
    async with open_reader(settings.load(config).store) as reader:
        return await reader.list(limit, tenant=tenant)


async def _show(config: Path, wanted: str) -> tuple[CallRow, list[EventRow]]:
    async with open_reader(settings.load(config).store) as reader:
        row = await _find(reader, wanted)
        events: list[EventRow] = []
        while page := await reader.events(row.id, after_seq=events[-1].seq if events else -1):
            events += page
        return row, events


async def _find(reader: Reader, wanted: str) -> CallRow:
    """Raises SipServerError when no call, or more than one, has that id."""
    if (exact := await reader.get(wanted)) is not None:
        return exact
    recent = await reader.list(RECENT)
    if wanted == "last":
        found = recent[:1]
    else:
        found = [row for row in recent if row.id.startswith(wanted) or row.id.endswith(wanted)]
    if not found:
        raise SipServerError(f"no call with the id {wanted} among the last {RECENT}")
    if len(found) > 1:
        raise SipServerError(f"{len(found)} calls have {wanted} in their id; write more of it")
    return found[0]
