"""`sipserver dialplan`: check files before they go live, explain what a call would do, print the JSON Schema."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from sipserver import settings as all_settings
from sipserver.dialplan import book, load
from sipserver.dialplan.explain import explain as explain_call
from sipserver.dialplan.facts import CallFacts
from sipserver.dialplan.schema import schema as json_schema
from sipserver.dialplan.targets import allows_target
from sipserver.errors import DialplanError
from sipserver.settings import Settings

app = typer.Typer(help="Check, explain and describe dialplan files.", no_args_is_help=True)

Config = Annotated[
    Path | None, typer.Option("--config", help="The settings file (default: etc/sipserver.yaml).", show_default=False)
]


@app.command()
def check(
    path: Annotated[
        Path | None, typer.Argument(help="A file or a folder (default: the settings' folder).", show_default=False)
    ] = None,
    config: Config = None,
) -> None:
    """Print every mistake as `file:line: key: reason`. Exit code 1 if there is one; warnings alone are 0."""
    settings = _settings(config)
    reading = _read(path or settings.dialplans, settings)
    missing = reading.book.unknown_engines(settings.speech.stt, settings.speech.tts, settings.llm)
    for warning in reading.warnings:
        typer.echo(f"warning: {warning}")
    errors = (*reading.errors, *missing)
    for error in errors:
        typer.echo(str(error), err=True)
    if errors:
        raise typer.Exit(1)
    tenants = [plan.tenant for plan in reading.book.plans]
    typer.echo(f"no mistakes; tenants: {', '.join(tenants)}")


@app.command()
def explain(
    *,
    to: Annotated[str, typer.Option(help="Whom the call is for: a user, a number or a SIP URI.")],
    caller: Annotated[str, typer.Option("--from", help="Who calls: a user, a number or a SIP URI.")] = "anonymous",
    header: Annotated[list[str] | None, typer.Option(help="A header as NAME=VALUE; may be repeated.")] = None,
    source: Annotated[str, typer.Option(help="The address that the call comes from.")] = "127.0.0.1",
    transport: Annotated[str, typer.Option(help="udp, tcp, tls or ws.")] = "udp",
    trunk: Annotated[str, typer.Option(help="Name of the trunk that the call comes through.")] = "",
    outbound: Annotated[bool, typer.Option("--outbound", help="A call that this server places.")] = False,
    load: Annotated[
        float, typer.Option(min=0, max=100, help="Percent of the process' places that are taken.", show_default=False)
    ] = 0,
    at: Annotated[str, typer.Option(help="Time of the call in ISO 8601 (default: now).", show_default=False)] = "",
    path: Annotated[
        Path | None, typer.Option("--path", help="A file or a folder (default: the settings' folder).")
    ] = None,
    config: Config = None,
) -> None:
    """Say which route would take a call and why the earlier ones would not, and print its flow as a tree.

    Exit code 1 if no route takes the call, or if it is one that this server may not place.
    """
    settings = _settings(config)
    reading = _read(path or settings.dialplans, settings)
    for error in reading.errors:
        typer.echo(f"left out: {error}", err=True)
    facts = CallFacts.of(
        to,
        caller,
        source,
        transport,
        dict(_header(text) for text in header or ()),
        trunk=trunk,
        direction="outbound" if outbound else "inbound",
        load=load,
    )
    explanation = explain_call(reading.book, facts, _time(at))
    for line in explanation.lines():
        typer.echo(line)
    if explanation.routed is None:
        raise typer.Exit(1)
    if outbound and not allows_target(explanation.routed.plan, to):
        typer.echo(f"not placed: `targets` of the tenant {explanation.routed.plan.tenant} does not allow it")
        raise typer.Exit(1)


@app.command()
def schema() -> None:
    """Print the JSON Schema of dialplan files, for editors that complete YAML."""
    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


def _settings(config: Path | None) -> Settings:
    """The named file must exist; the default one need not, so that a single file can be checked anywhere."""
    file = config or all_settings.DEFAULT_FILE
    if config is None and not file.exists():
        return Settings().resolved(file.resolve().parent)
    return all_settings.load(file)


def _read(path: Path, settings: Settings) -> book.Reading:
    if path.is_dir():
        reading = book.read(path, settings.most_agents)
        if not (reading.book.plans or reading.errors):
            raise DialplanError("no dialplan (*.yaml) is in this folder", file=path)
        return reading
    report = load.check(path, settings.most_agents)
    return book.Reading(book.Book((report.plan,) if report.plan else ()), report.errors, report.warnings)


def _header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--header")
    return name, value


def _time(text: str) -> datetime:
    """Times without a zone are this machine's."""
    try:
        return datetime.fromisoformat(text).astimezone() if text else datetime.now(UTC)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time such as 2026-12-24T18:00", param_hint="--at") from None
