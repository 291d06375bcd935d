"""`sipserver usage`: what a tenant used in a month and what that costs, for an invoice.

Owns the words on the terminal. Refuses to write into the database.
"""

from __future__ import annotations

import asyncio
import enum
import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer

from sipserver import settings
from sipserver.calls.timeline import clean
from sipserver.store.usage_rows import open_usage
from sipserver.tenants import bills as forms
from sipserver.tenants.bills import Bills, Month
from sipserver.tenants.prices import Rating

app = typer.Typer(help="Export what tenants used, and what it costs.", no_args_is_help=True)


class Form(enum.StrEnum):
    JSON = "json"
    CSV = "csv"


@app.callback()
def _group() -> None:
    """So that `export` is a command of its own although it is the only one."""


@app.command()
def export(
    tenant: Annotated[str, typer.Option(help="Whose usage.")],
    month: Annotated[str, typer.Option(metavar="YYYY-MM", help="Which month, in UTC.")],
    form: Annotated[Form, typer.Option("--format", help="For programs, or for tables.")] = Form.CSV,
    calls: Annotated[bool, typer.Option("--calls", help="Every call's own lines, as a table.")] = False,
    config: Annotated[
        Path, typer.Option("--config", help="The settings file.", metavar="FILE")
    ] = settings.DEFAULT_FILE,
) -> None:
    """Print the lines of a month's bill, and on standard error their sum."""
    if calls and form is not Form.CSV:
        raise typer.BadParameter("every call's own lines come as a table only", param_hint="--calls")
    currency, total = asyncio.run(_export(config, tenant, Month.of(month), form, each_call=calls))
    typer.echo(clean(f"{tenant} {month}: {total:f} {currency}"), err=True)


async def _export(config: Path, tenant: str, month: Month, form: Form, *, each_call: bool) -> tuple[str, Decimal]:
    loaded = settings.load(config)
    async with open_usage(loaded.store) as rows:
        bills = Bills(rows, Rating(loaded.prices))
        currency, total = bills.currency, forms.NOTHING
        if each_call:
            sys.stdout.write(forms.head())
            async for line in bills.calls(tenant, month.since, month.until):
                sys.stdout.write(forms.as_rows(tenant, month, currency, [line]))
                total += line.cost
            return currency, total
        lines = await bills.between(tenant, month.since, month.until)
        if form is Form.JSON:
            sys.stdout.write(json.dumps(forms.as_json(tenant, month, currency, lines), indent=2) + "\n")
        else:
            sys.stdout.write(forms.head() + forms.as_rows(tenant, month, currency, lines))
        return currency, forms.total(lines)
