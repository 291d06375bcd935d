"""`sipserver audit`: whether the audit log is as it was written, what is in it, and all of it for other programs.

Owns the words on the terminal. Refuses to write: it makes neither a database nor a secret.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from sipserver import settings
from sipserver.calls.timeline import clean
from sipserver.cli import tables
from sipserver.store.audit import open_audit
from sipserver.tenants import audit_export, audit_secret
from sipserver.tenants.audit_entry import Entry
from sipserver.tenants.audit_export import Form
from sipserver.tenants.audit_log import AuditLog, Verdict
from sipserver.tenants.audit_walk import Known

app = typer.Typer(help="Verify, list and export the audit log.", no_args_is_help=True)

EXIT_BROKEN = 2
_KNOWN = re.compile(r"^([1-9][0-9]{0,18}):([0-9a-f]{64})$")

Config = Annotated[Path, typer.Option("--config", help="The settings file.", metavar="FILE")]
Tenant = Annotated[str, typer.Option(help="Whose log.")]
Since = Annotated[str | None, typer.Option(metavar="MOMENT", help="From then on, e.g. 2026-11-28T09:30 (UTC).")]
Until = Annotated[str | None, typer.Option(metavar="MOMENT", help="Before then.")]


@app.command()
def verify(
    tenant: Annotated[str | None, typer.Option(help="Only the log of this tenant.")] = None,
    known: Annotated[
        str | None, typer.Option(metavar="NUMBER:MAC", help="What this said once: that the log must go through there.")
    ] = None,
    config: Config = settings.DEFAULT_FILE,
) -> None:
    """Say where logs are broken first, and how. Exits 0 when all are as they were written, 2 when one is not."""
    if known is not None and tenant is None:
        raise typer.BadParameter("it belongs to a tenant: say whose", param_hint="--known")
    verdicts = asyncio.run(_verify(config, tenant, _known(known)))
    for verdict in verdicts:
        typer.echo(_told(verdict))
    if not verdicts:
        typer.echo("the audit log is empty")
    if any(verdict.broken for verdict in verdicts):
        raise typer.Exit(EXIT_BROKEN)


@app.command("list")
def list_entries(
    tenant: Tenant,
    since: Since = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many entries.", min=1)] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print all there is, as JSON.")] = False,
    config: Config = settings.DEFAULT_FILE,
) -> None:
    """Show the newest entries."""
    found = asyncio.run(_list(config, tenant, _moment(since, "--since"), limit))
    if as_json:
        typer.echo(json.dumps([audit_export.as_json(entry) for entry in found], indent=2))
        return
    columns = ("number", "at (UTC)", "actor", "action", "subject", "from", "detail")
    tables.show(columns, map(_facts, found), whole=("number", "at (UTC)", "subject", "from"), right=("number",))


@app.command()
def export(
    tenant: Tenant,
    form: Annotated[Form, typer.Option("--format", help="Exact, or for tables.")],
    since: Since = None,
    until: Until = None,
    config: Config = settings.DEFAULT_FILE,
) -> None:
    """Print entries in order, the oldest first, and on standard error which ones they are."""
    numbers = asyncio.run(_export(config, tenant, form, _moment(since, "--since"), _moment(until, "--until")))
    count, first, last = numbers
    which = f"entries {first} to {last}, {count} of them" if count else "no entries"
    typer.echo(clean(f"{tenant}: {which}"), err=True)


@contextlib.asynccontextmanager
async def _opened(config: Path) -> AsyncIterator[AuditLog]:
    loaded = settings.load(config)
    async with open_audit(loaded.store) as rows:
        yield AuditLog(rows, audit_secret.load(loaded.audit, make=False))


async def _verify(config: Path, tenant: str | None, known: Known | None) -> Sequence[Verdict]:
    async with _opened(config) as log:
        return [await log.verify(each, known) for each in ([tenant] if tenant is not None else await log.tenants())]


async def _list(config: Path, tenant: str, since: datetime | None, limit: int) -> Sequence[Entry]:
    async with _opened(config) as log:
        return await log.newest(tenant, since=since, limit=limit)


async def _export(
    config: Path, tenant: str, form: Form, since: datetime | None, until: datetime | None
) -> tuple[int, int, int]:
    """How many there were, and the numbers of the first and the last one."""
    count = first = last = 0
    async with _opened(config) as log:
        sys.stdout.write(audit_export.head(form))
        async for entry in log.entries(tenant, since=since, until=until):
            count, first, last = count + 1, first or entry.number, entry.number
            sys.stdout.write(audit_export.line(entry, form))
    return count, first, last


def _told(verdict: Verdict) -> str:
    """The last words are what `--known` takes."""
    who = clean(verdict.tenant)
    if verdict.broken is not None:
        broken = verdict.broken
        return f"{who}: BROKEN at entry {broken.number}: {clean(broken.text)} ({broken.damage.value})"
    if not verdict.entries:
        return f"{who}: no entries"
    return f"{who}: {verdict.entries} entries, as they were written; the last is {verdict.entries}:{verdict.last}"


def _facts(entry: Entry) -> tuple[str, ...]:
    detail = ", ".join(f"{name}={value}" for name, value in entry.detail.items())
    at = f"{entry.at:%Y-%m-%d %H:%M:%S}"
    return (str(entry.number), at, entry.actor, entry.action, entry.subject, entry.source, detail)


def _moment(given: str | None, option: str) -> datetime | None:
    """In UTC, unless it says otherwise."""
    if given is None:
        return None
    try:
        moment = datetime.fromisoformat(given)
    except ValueError:
        raise typer.BadParameter(f"{given} is no moment such as 2026-11-28T09:30", param_hint=option) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _known(given: str | None) -> Known | None:
    if given is None:
        return None
    found = _KNOWN.match(given)
    if found is None:
        raise typer.BadParameter("it is what `audit verify` says of the last entry", param_hint="--known")
    return Known(int(found[1]), found[2])
