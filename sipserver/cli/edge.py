"""`sipserver edge`: Kamailio's configuration from the settings, and Kamailio itself where no supervisor runs it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from sipserver import log, settings
from sipserver.edge import rtpengine
from sipserver.edge.cells import CellAddress
from sipserver.edge.edge import Edge, EdgeState
from sipserver.errors import SettingsError, SipServerError

app = typer.Typer(help="The edge in front of the cells: Kamailio.", no_args_is_help=True)

Config = Annotated[Path, typer.Option("--config", help="The settings file.", metavar="FILE")]
Cell = Annotated[
    list[str], typer.Option("--cell", help="A cell that takes calls, host:port:calls. Repeat it.", metavar="CELL")
]


class NotRunning(SipServerError):
    """There is no Kamailio of these settings."""


def _edge(config: Path) -> tuple[settings.Settings, Edge]:
    loaded = settings.load(config)
    log.setup(loaded.log.level, loaded.log.format, loaded.log.private)
    return loaded, Edge(loaded.edge, loaded.trunks, loaded.sip.codecs)


def _cells(texts: list[str]) -> list[CellAddress] | None:
    cells = []
    for text in texts:
        try:
            host, port, calls = text.rsplit(":", 2)
            cells.append(CellAddress(host, int(port), int(calls)))
        except ValueError:
            raise SettingsError(f"{text!r} is not host:port:calls", key="--cell") from None
    return cells or None


@app.command()
def render(
    out: Annotated[Path | None, typer.Option(help="Write here instead of edge.folder.", metavar="FOLDER")] = None,
    config: Config = settings.DEFAULT_FILE,
) -> None:
    """Write Kamailio's files (and rtpengine's, where it is set) from the settings."""
    loaded, edge = _edge(config)
    texts = edge.render()
    if loaded.edge.rtpengine is not None:
        texts[rtpengine.config_file(Path()).name] = rtpengine.render(loaded.edge.rtpengine, loaded.edge.folder)
    folder = out or loaded.edge.folder
    edge.write(texts, folder)
    for name in sorted(texts):
        typer.echo(folder / name)


@app.command()
def check(config: Config = settings.DEFAULT_FILE) -> None:
    """Let Kamailio read what the settings lead to. Nothing is changed."""
    _, edge = _edge(config)
    asyncio.run(edge.check())
    typer.echo("ok")


@app.command()
def start(cell: Cell = [], config: Config = settings.DEFAULT_FILE) -> None:  # noqa: B006 (typer's way)
    """Start Kamailio, or leave the running one if nothing has changed. It runs on when this command has ended."""
    _, edge = _edge(config)

    async def work() -> None:
        await edge.start(_cells(cell))
        typer.echo(f"{'runs already' if edge.adopted else 'started'}, pid {edge.pid}")
        await edge.leave()

    asyncio.run(work())


@app.command()
def reload(cell: Cell = [], config: Config = settings.DEFAULT_FILE) -> None:  # noqa: B006 (typer's way)
    """Take over changed settings and, if given, another list of cells. Running calls go on."""
    _, edge = _edge(config)

    async def work() -> None:
        cells = _cells(cell)
        if not await edge.adopt():
            raise NotRunning("no edge runs; start it with: sipserver edge start")
        pid = edge.pid
        await edge.start(cells)
        typer.echo("taken over" if edge.pid == pid else f"started anew with the changed settings, pid {edge.pid}")
        await edge.leave()

    asyncio.run(work())


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print everything, as JSON.")] = False,
    config: Config = settings.DEFAULT_FILE,
) -> None:
    """Show the running edge: its cells, their calls, whether it takes new ones."""
    _, edge = _edge(config)

    async def work() -> EdgeState:
        if not await edge.adopt():
            raise NotRunning("no edge runs")
        try:
            return await edge.state()
        finally:
            await edge.leave()

    state = asyncio.run(work())
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(state), indent=2))
        return
    typer.echo(f"{'draining' if state.draining else 'takes calls'}, up for {state.uptime_s} s")
    table = Table(box=None, pad_edge=False)
    for column in ("cell", "state", "calls", "room for"):
        table.add_column(column, justify="right" if column in ("calls", "room for") else "left", no_wrap=True)
    for cell in state.cells:
        table.add_row(cell.name, cell.state, str(cell.calls), str(cell.calls_at_most))
    Console().print(table)
