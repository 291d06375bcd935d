"""`sipserver calls live`: the calls of the server, or of all machines of the fleet, at this moment.

Owns the words on the terminal. The server is asked itself: that works while the database is away.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sipserver import settings
from sipserver.calls import timeline
from sipserver.cli.call_source import running
from sipserver.dialplan.facts import split_uri

Config = Annotated[Path, typer.Option("--config", help="The settings file.", metavar="FILE")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answers as JSON.")]


def live(as_json: AsJson = False, config: Config = settings.DEFAULT_FILE) -> None:
    """Show the calls that run now; in a fleet, on all machines."""
    calls = asyncio.run(_live(config))
    if as_json:
        typer.echo(json.dumps(calls, indent=2))
        return
    drawn = Table(box=None, pad_edge=False)
    for column in ("id", "tenant", "from", "to", "state", "s", "cell"):
        drawn.add_column(column, justify="right" if column == "s" else "left", no_wrap=True)
    for call in sorted(calls, key=lambda call: -int(call["since_ms"])):
        users = (split_uri(call[key])[0] or call[key] for key in ("from_uri", "to_uri"))
        where = "/".join(filter(None, (call.get("node"), call.get("cell"))))
        facts = (call["id"][-12:], call["tenant"], *users, call["state"], f"{call['since_ms'] / 1000:.0f}", where)
        drawn.add_row(*(Text(timeline.clean(str(fact))) for fact in facts))
    Console().print(drawn)


async def _live(config: Path) -> list[dict[str, Any]]:
    async with running(settings.load(config)) as server:
        return [dict(call) for call in await server.live()]
