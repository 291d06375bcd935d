"""`sipserver keys`: API keys of tenants, made, listed and revoked.

Owns the words on the terminal. Works on the database; no server needs to run.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from sipserver import settings, tenant_name
from sipserver.calls import timeline
from sipserver.cli import tables, tenants
from sipserver.cli.operator_audit import OperatorAudit
from sipserver.store.database import Database
from sipserver.store.keys import KeyRows
from sipserver.tenants.key_book import KeyBook
from sipserver.tenants.keys import USUAL, ApiKey, Scope, name_of, scopes_of

app = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)

Config = Annotated[Path, typer.Option("--config", help="The settings file.", metavar="FILE")]


@app.command()
def create(
    tenant: Annotated[str, typer.Option(help="Whose calls it reaches.")],
    name: Annotated[str, typer.Option(help="What it is for; you see it in the list.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help=f"What it may do: {', '.join(Scope)}. May be given more than once; none: all but "
            "keys:write and dialplans:write."
        ),
    ] = None,
    days: Annotated[float | None, typer.Option(min=0.01, max=3650, help="How long it is good; none: for ever.")] = None,
    config: Config = settings.DEFAULT_FILE,
) -> None:
    """Make a key and print it. It is shown this once: what is kept cannot be turned back into it."""
    scopes = scopes_of(scope) if scope else USUAL
    lives = None if days is None else timedelta(days=days)
    text = asyncio.run(_create(config, tenant, name_of(name), scopes, lives))
    tenants.warn_of_unknown(settings.load(config), tenant)
    typer.echo(text)


@app.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Option(help="Only keys of this tenant.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what is stored, as JSON.")] = False,
    config: Config = settings.DEFAULT_FILE,
) -> None:
    """Show the keys, without what opens doors."""
    found = asyncio.run(_list(config, tenant))
    if as_json:
        typer.echo(json.dumps([_fields(key) for key in found], default=str, indent=2))
        return
    columns = ("id", "tenant", "name", "scopes", "state", "last used (UTC)")
    tables.show(columns, map(_facts, found), whole=("id", "last used (UTC)"))


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it, or the key itself.")],
    config: Config = settings.DEFAULT_FILE,
) -> None:
    """End a key, within seconds also on servers that run."""
    wanted = key_id.split("_")[1] if key_id.startswith("sips_") and key_id.count("_") >= 2 else key_id
    key = asyncio.run(_revoke(config, wanted))
    which = f"{key.id} ({timeline.clean(key.name)}) of {key.tenant}"
    if key.revoked_at is None:
        typer.echo(f"revoked {which}")
    else:
        typer.echo(f"{which} was revoked already, {key.revoked_at:%Y-%m-%d %H:%M} UTC")


async def _create(config: Path, tenant: str, name: str, scopes: frozenset[Scope], lives: timedelta | None) -> str:
    async with _book(config) as (book, audit):
        _, text = await audit.do(
            tenant_name.checked(tenant),
            "key.created",
            lambda: book.create(tenant, name, scopes, lives=lives),
            of="key",
            made=lambda made: made[0].id,
            detail={"name": name, "scopes": sorted(scopes)},
        )
        return text


async def _list(config: Path, tenant: str | None) -> list[ApiKey]:
    async with _book(config) as (book, _):
        return list(await book.list(tenant))


async def _revoke(config: Path, key_id: str) -> ApiKey:
    """As it was before. One that is revoked already stays as it is."""
    async with _book(config) as (book, audit):
        key = await book.get(key_id)
        if key.revoked_at is not None:
            return key
        return await audit.do(key.tenant, "key.revoked", lambda: book.revoke(key.id), of="key", which=key.id)


@asynccontextmanager
async def _book(config: Path) -> AsyncIterator[tuple[KeyBook, OperatorAudit]]:
    loaded = settings.load(config)
    database = Database(loaded.store, connections=1)
    await database.open()
    try:
        yield KeyBook(KeyRows(database)), OperatorAudit(loaded, database)
    finally:
        await database.close()


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if not key.is_good(datetime.now(UTC)):
        return "over"
    return "good" if key.expires_at is None else f"good until {key.expires_at:%Y-%m-%d}"


def _facts(key: ApiKey) -> tuple[str, ...]:
    used = f"{key.used_at:%Y-%m-%d %H:%M}" if key.used_at else "never"
    return (key.id, key.tenant, key.name, " ".join(sorted(key.scopes)), _state(key), used)


def _fields(key: ApiKey) -> dict[str, object]:
    return {
        "id": key.id,
        "tenant": key.tenant,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "state": _state(key),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "used_at": key.used_at,
    }
