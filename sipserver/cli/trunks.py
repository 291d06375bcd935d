"""`sipserver trunks`: asks for the state of the trunks: a single server over its HTTP port, in a fleet the cell that
registers them, over the bus.

Owns the question and the words on the terminal.
"""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sipserver import settings
from sipserver.asking import Everywhere
from sipserver.calls import timeline
from sipserver.cli.operator_bus import operator_bus
from sipserver.errors import SipServerError
from sipserver.settings import Settings

ANSWER_S = 3.0
WIDTH = 120
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104


def trunks(
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
    config: Annotated[
        Path, typer.Option("--config", help="The settings file.", metavar="FILE")
    ] = settings.DEFAULT_FILE,
) -> None:
    """Show each trunk's state and why; exit code 1 when one is down."""
    found = _ask(config)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    elif found:
        _print(found)
    else:
        typer.echo("the server has no trunks")
    if not all(trunk["up"] for trunk in found):
        raise typer.Exit(1)


def _ask(config: Path) -> list[dict[str, Any]]:
    loaded = settings.load(config)
    if loaded.mode == "fleet":
        return asyncio.run(_ask_fleet(loaded))
    host = _ANY.get(loaded.http.host, loaded.http.host)
    place = f"[{host}]" if ":" in host else host
    url = f"http://{place}:{loaded.http.port}/trunks"
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_S) as answer:  # nosec B310
            found: list[dict[str, Any]] = json.load(answer)["trunks"]
    except (OSError, ValueError, KeyError) as problem:
        reason = problem.reason if isinstance(problem, urllib.error.URLError) else problem
        raise SipServerError(f"no server answers at {url}: {reason}") from None
    return found


async def _ask_fleet(loaded: Settings) -> list[dict[str, Any]]:
    async with operator_bus(loaded) as bus:
        return [dict(trunk) for trunk in await Everywhere(bus, answer_s=ANSWER_S).trunks()]


def _print(found: Sequence[Mapping[str, Any]]) -> None:
    drawn = Table(box=None, pad_edge=False)
    for column in ("trunk", "state", "since", "calls", "reason"):
        drawn.add_column(column, justify="right" if column == "calls" else "left", no_wrap=column != "reason")
    for trunk in found:
        since = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(trunk["since"]))
        facts = (trunk["name"], trunk["state"], since, str(trunk["calls"]), trunk["reason"])
        drawn.add_row(*(Text(timeline.clean(fact)) for fact in facts), style="" if trunk["up"] else "red")
    console = Console(highlight=False)
    console.width = max(console.width, WIDTH)
    console.print(drawn)
