"""`sipserver calls live|hangup`: the calls of all machines of a fleet at this moment, over the bus.

Owns the questions and the words on the terminal. A single server has no bus that another process could reach.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sipserver import settings
from sipserver.asking import Everywhere
from sipserver.bus.contract import Bus
from sipserver.calls import timeline
from sipserver.cli.operator_bus import operator_bus
from sipserver.dialplan.facts import split_uri
from sipserver.errors import SettingsError, SipServerError

Config = Annotated[Path, typer.Option("--config", help="The settings file.", metavar="FILE")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answers as JSON.")]

ANSWER_S = 3.0


def live(as_json: AsJson = False, config: Config = settings.DEFAULT_FILE) -> None:
    """Show the calls that run now, on all machines of the fleet."""
    calls = asyncio.run(_live(config))
    if as_json:
        typer.echo(json.dumps(calls, indent=2))
        return
    drawn = Table(box=None, pad_edge=False)
    for column in ("id", "tenant", "from", "to", "state", "s", "cell"):
        drawn.add_column(column, justify="right" if column == "s" else "left", no_wrap=True)
    for call in sorted(calls, key=lambda call: -int(call["since_ms"])):
        users = (split_uri(call[key])[0] or call[key] for key in ("from_uri", "to_uri"))
        where = f"{call['node']}/{call['cell']}"
        facts = (call["id"][-12:], call["tenant"], *users, call["state"], f"{call['since_ms'] / 1000:.0f}", where)
        drawn.add_row(*(Text(timeline.clean(str(fact))) for fact in facts))
    Console().print(drawn)


def hangup(
    call_id: Annotated[str, typer.Argument(metavar="ID", help="The id of a live call, or its end.")],
    config: Config = settings.DEFAULT_FILE,
) -> None:
    """End a running call, wherever it lives."""
    typer.echo(f"ended {asyncio.run(_hangup(config, call_id))}")


async def _live(config: Path) -> list[dict[str, Any]]:
    async with _bus(config) as bus:
        return [dict(call) for call in await Everywhere(bus, answer_s=ANSWER_S).live()]


async def _hangup(config: Path, wanted: str) -> str:
    async with _bus(config) as bus:
        keys = await bus.leases.find("call/")
        found = [key.removeprefix("call/") for key in keys if key.endswith(wanted)]
        if len(found) != 1:
            what = "no live call has" if not found else f"{len(found)} live calls have"
            raise SipServerError(f"{what} {wanted} at the end of its id; `sipserver calls live` lists them")
        answer = await Everywhere(bus, answer_s=ANSWER_S).ask(found[0], "hangup", detail="sipserver calls hangup")
        return str(answer["ended"])


@asynccontextmanager
async def _bus(config: Path) -> AsyncIterator[Bus]:
    loaded = settings.load(config)
    if loaded.mode != "fleet":
        raise SettingsError("live calls can be asked for in a fleet only", file=config, key="mode")
    async with operator_bus(loaded) as bus:
        yield bus
