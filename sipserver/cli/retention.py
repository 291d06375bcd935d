"""`sipserver retention`: what is too old is deleted now, or counted; and which files still wait to be deleted.

Owns the words on the terminal. Files are deleted by the running server of the machine that has them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer

from sipserver import settings
from sipserver.calls.timeline import clean
from sipserver.cli import tables
from sipserver.errors import CallerError
from sipserver.store.audit import AuditRows
from sipserver.store.database import Database
from sipserver.store.doomed import Doomed, DoomedFiles
from sipserver.store.retention import RetentionRows
from sipserver.tenants.audit_trail import AuditTrail
from sipserver.tenants.retention import Retention, Swept
from sipserver.tenants.shredder import Shredder

app = typer.Typer(help="Delete what is too old, or say what that would be.", no_args_is_help=True)

NOBODY = "(command line)"
"""As a machine: it has no files."""
NO_TENANT = "(no tenant)"

Config = Annotated[Path, typer.Option("--config", help="The settings file.", metavar="FILE")]


@app.command()
def run(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    tenant: Annotated[str | None, typer.Option(help="Only what belongs to this tenant.")] = None,
    config: Config = settings.DEFAULT_FILE,
) -> None:
    """Delete what is older than `retention:` in the settings allows. Servers do this by themselves, every sweep_s."""
    swept = asyncio.run(_run(config, [tenant] if tenant else [], dry_run))
    for each in swept:
        verb = "would be deleted" if dry_run else f"deleted, {each.files} files wait for their machines"
        what = f"{clean(each.tenant or NO_TENANT)}: {each.kind}"
        typer.echo(f"{what}: {each.count} before {each.before:%Y-%m-%d %H:%M} UTC {verb}")
        if each.failed:
            typer.echo(f"{what}: the rest could not be deleted: {clean(each.failed)}", err=True)
    if not swept:
        typer.echo("nothing is too old")
    if any(each.failed for each in swept):
        raise typer.Exit(1)


@app.command()
def files(config: Config = settings.DEFAULT_FILE) -> None:
    """Show files that are to be deleted and still are there, and why, if they were tried."""
    columns = ("machine", "tenant", "call", "attempts", "file", "error")
    tables.show(columns, map(_facts, asyncio.run(_files(config))), whole=("call", "attempts"), right=("attempts",))


def _facts(file: Doomed) -> tuple[str, ...]:
    return (file.node, file.tenant, file.call_id, str(file.attempts), file.path, file.error or "")


async def _run(config: Path, tenants: Sequence[str], dry_run: bool) -> Sequence[Swept]:
    async with _open(config) as (loaded, database):
        trail = AuditTrail(AuditRows(database), loaded.audit)
        shredder = Shredder(NOBODY, loaded.calls.recordings)
        retention = Retention(RetentionRows(database), DoomedFiles(database), shredder, loaded.retention, trail.log)
        if dry_run:
            return [each for each in await retention.plan(tenants) if each.count]
        swept = await retention.sweep(tenants)
        if swept is None:
            raise CallerError("another process is deleting at this moment; it does the same")
        return swept


async def _files(config: Path) -> Sequence[Doomed]:
    async with _open(config) as (_loaded, database):
        return await DoomedFiles(database).waiting()


@asynccontextmanager
async def _open(config: Path) -> AsyncIterator[tuple[settings.Settings, Database]]:
    loaded = settings.load(config)
    database = Database(loaded.store, connections=2)
    await database.open()
    try:
        yield loaded, database
    finally:
        await database.close()
