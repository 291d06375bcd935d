"""`sipserver privacy`: what is kept about a person, given to them or erased.

Owns the words on the terminal. Files are deleted by the running server of the machine that has them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer

from sipserver import settings
from sipserver.api.sounds.fetching import Fetching
from sipserver.calls import keyring, sound_files
from sipserver.cli.operator_audit import open_log
from sipserver.cli.operator_bus import operator_bus
from sipserver.errors import CallerError
from sipserver.fleet.process import node_name
from sipserver.settings import Settings
from sipserver.store.database import Database
from sipserver.store.persons import PersonRows
from sipserver.store.reader import Reader
from sipserver.tenants.principal import OPERATOR
from sipserver.tenants.privacy import Erased, Given, Privacy

app = typer.Typer(help="Give or erase what is kept about a person.", no_args_is_help=True)

Number = Annotated[str, typer.Argument(metavar="NUMBER", help="As +4930123456, or the user of a SIP address.")]
Tenant = Annotated[str, typer.Option(help="Whose records.")]
Country = Annotated[str, typer.Option(help="Of a number without + of 7 digits or more, as DE.")]
Config = Annotated[Path, typer.Option("--config", help="The settings file.", metavar="FILE")]


@app.command()
def export(
    number: Number,
    tenant: Tenant,
    out: Annotated[Path, typer.Option("--out", help="The ZIP file to write.", metavar="FILE")],
    country: Country = "",
    config: Config = settings.DEFAULT_FILE,
) -> None:
    """Write all that is kept about a number into a ZIP file: records, events, transcripts, sound.

    The file is for its owner alone (mode 0600).
    """
    if out.exists():
        raise CallerError(f"{out} is there already")
    given = asyncio.run(_export(config, tenant, number, out, country))
    typer.echo(f"{given.calls} calls, {given.recordings} sound files in {out}")
    if given.elsewhere:
        typer.echo(
            f"the recordings of {given.elsewhere} calls could not be had from other machines, or are gone", err=True
        )
    _still(given.running)


@app.command()
def erase(
    number: Number,
    tenant: Tenant,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    country: Country = "",
    config: Config = settings.DEFAULT_FILE,
) -> None:
    """Delete all that is kept about a number: records, events, transcripts, sound, what webhooks still have.

    Bills stay; they name no numbers. It cannot be undone.
    """
    if not yes:
        typer.confirm(f"Delete all that {tenant} has about {number}?", abort=True)
    erased = asyncio.run(_erase(config, tenant, number, country))
    typer.echo(f"{erased.calls} calls erased, {erased.messages} messages of webhooks")
    if erased.files:
        typer.echo(f"{erased.files} files go when the servers that have them run: `sipserver retention files`")
    _still(erased.running)


def _still(running: int) -> None:
    if running:
        typer.echo(f"{running} calls of this number are not over: do it again when they are", err=True)


async def _export(config: Path, tenant: str, number: str, out: Path, country: str) -> Given:
    async with _open(config, fetches=True) as privacy:
        try:
            return await privacy.export(tenant, number, out, country=country, actor=OPERATOR)
        except OSError as problem:
            raise CallerError(f"{problem.filename or out}: {problem.strerror or problem}") from problem


async def _erase(config: Path, tenant: str, number: str, country: str) -> Erased:
    async with _open(config) as privacy:
        return await privacy.erase(tenant, number, country=country, actor=OPERATOR)


@asynccontextmanager
async def _open(config: Path, *, fetches: bool = False) -> AsyncIterator[Privacy]:
    """fetches: sound from other machines of a fleet, too."""
    loaded = settings.load(config)
    async with AsyncExitStack() as stack:
        database = Database(loaded.store, connections=2)
        stack.push_async_callback(database.close)
        await database.open()
        log = await open_log(loaded, database)
        opens = sound_files.whatever_is_there(keyring.load(loaded.calls.encryption))
        elsewhere = await _elsewhere(loaded, stack) if fetches and loaded.mode == "fleet" else None
        yield Privacy(PersonRows(database), Reader(database), log, loaded.calls.recordings, opens, elsewhere)


async def _elsewhere(loaded: Settings, stack: AsyncExitStack) -> Fetching:
    """Sound of other machines of the fleet; of our own there is no more than lies here."""
    bus = await stack.enter_async_context(operator_bus(loaded))
    fetching = Fetching(bus.leases, node=node_name(loaded))
    stack.push_async_callback(fetching.close)
    return fetching
