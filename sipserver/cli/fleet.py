"""`sipserver fleet`: asks the supervisor of this machine, and prints its answer.

Owns the words on the terminal. Every command takes the settings only to find the supervisor's socket.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from sipserver import settings
from sipserver.fleet import admin

app = typer.Typer(help="Look at a running fleet, drain it, renew it.", no_args_is_help=True)

Config = Annotated[Path, typer.Option("--config", help="The settings file.", metavar="FILE")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the whole answer, as JSON.")]

WIDTH = 120


@app.command()
def status(as_json: AsJson = False, config: Config = settings.DEFAULT_FILE) -> None:
    """Show this machine's processes and calls, the edge, other machines, alarms; exit code 1 while any is on."""
    answer = _ask(config, "status")
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
    else:
        _print(answer)
    if answer["alarms"]:
        raise typer.Exit(1)


@app.command()
def drain(config: Config = settings.DEFAULT_FILE) -> None:
    """Take no new calls on this machine; running ones go on, and other machines take the new ones."""
    _print_held(_ask(config, "drain"), "takes no new calls")


@app.command()
def undrain(config: Config = settings.DEFAULT_FILE) -> None:
    """Take new calls again."""
    _print_held(_ask(config, "undrain"), "takes new calls")


@app.command()
def restart(config: Config = settings.DEFAULT_FILE) -> None:
    """Renew all processes with the code, settings and dialplans of now, without losing a call."""
    answer = _ask(config, "restart")
    typer.echo(f"begun; {answer['cells']} cells will be renewed, `sipserver fleet status` shows how far it is")


@app.command()
def reload(config: Config = settings.DEFAULT_FILE) -> None:
    """Read the dialplans again. A wrong file does not replace a good one; exits with 2 then."""
    answer = _ask(config, "reload")
    for problem in answer["problems"]:
        typer.echo(f"error: {problem}", err=True)
    typer.echo(f"{answer['tenants']} tenants")
    if answer["problems"]:
        raise typer.Exit(2)


def _ask(config: Path, verb: str) -> dict[str, Any]:
    return asyncio.run(admin.ask(settings.load(config).fleet.runtime, verb))


def _print_held(answer: Mapping[str, Any], words: str) -> None:
    typer.echo(f"this machine {words}; calls now: {answer['calls']}")


def _print(answer: Mapping[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, WIDTH)  # into a pipe or a narrow window nothing is cut off
    bus = "up" if answer["bus_up"] else "down"
    console.print(
        f"{answer['node']}: {answer['state']}, {answer['cells_ready']} of {answer['cells_wanted']} cells, "
        f"{answer['calls']} of {answer['capacity']} calls, bus {bus}, "
        f"{answer['records_behind']} records behind, supervisor {answer['pid']}, warm parent {answer['warm_parent']}"
    )
    console.print(_children(answer["children"]))
    for orphan in answer["orphans"]:
        console.print(f"orphan {orphan['name']} (pid {orphan['pid']}): it ends when its calls are over")
    for name, program in answer["programs"].items():
        state = "running" if program["running"] else "down"
        console.print(f"{name}: {state}, started again {program['restarts']} times{_edge(name, answer['edge'])}")
    for name, node in sorted(answer["nodes"].items()):
        state = "draining" if node["draining"] else "serving"
        console.print(f"machine {name}: {state}, {len(node['cells'])} cells, {node['calls']} calls")
    for alarm in answer["alarms"]:
        since = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(alarm["since"]))
        console.print(f"alarm {alarm['name']} since {since}: {alarm['detail']}")


def _children(children: list[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("process", "pid", "port", "state", "calls", "age", "restarts", "beat", "lag", "sip", "media"):
        table.add_column(column, justify="left" if column in {"process", "state"} else "right", no_wrap=True)
    for child in children:
        table.add_row(
            child["name"],
            str(child["pid"]),
            str(child["port"] or ""),
            child["state"],
            str(child["calls"]) if child["port"] else "",
            _age(child["age_s"]),
            str(child["restarts"]),
            *(_ms(child[key]) for key in ("silent_ms", "loop_lag_ms", "sip_age_ms", "media_age_ms")),
        )
    return table


def _edge(name: str, edge: Mapping[str, Any]) -> str:
    if name != "edge":
        return ""
    if "error" in edge:
        return f"; {edge['error']}"
    words = f"; {edge['cells_living']} cells answer, {edge['cells_dead']} do not; {edge['calls']} calls"
    return words + ("; it answers new calls 503" if edge["draining"] else "")


def _age(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} ms"
