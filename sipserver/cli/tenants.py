"""Which tenants there are, as far as an operator's command can see: by the folder of dialplans, and by `tenants:`.

Owns whose dialplan is meant where nobody says it. Refuses to know keys, users and calls. Blocks on the disk.
"""

from __future__ import annotations

import typer

from sipserver.calls.timeline import clean
from sipserver.dialplan import book
from sipserver.errors import DialplanError, NotFound
from sipserver.settings import Settings
from sipserver.tenant_name import is_name


def of_dialplans(loaded: Settings, wanted: str) -> str:
    """The tenant that is wanted; empty: the only one. Raises NotFound, DialplanError for a folder that cannot be read.

    Of what cannot be read a server may have what it was before: then whatever can be a name is taken.
    """
    try:
        reading = book.read(loaded.dialplans, loaded.most_agents)
    except DialplanError:
        if is_name(wanted):
            return wanted
        raise
    there = [plan.tenant for plan in reading.book.plans]
    if not wanted and len(there) == 1:
        return there[0]
    if wanted in there or (reading.errors and is_name(wanted)):
        return wanted
    known = ", ".join(there) or "none"
    what = f"no dialplan is for the tenant {wanted!r}; there are" if wanted else "name a tenant (--tenant):"
    raise NotFound(f"{what} {known}")


def warn_of_unknown(loaded: Settings, tenant: str) -> None:
    """Say on the error output that nothing else knows the tenant, and which ones there are."""
    try:
        plans = book.read(loaded.dialplans, loaded.most_agents).book.plans
    except DialplanError:
        return  # so that nobody knows
    known = sorted({*loaded.tenants, *(plan.tenant for plan in plans)})
    if tenant not in known:
        what = f"warning: neither a valid dialplan nor `tenants:` in the settings knows {tenant}"
        typer.echo(clean(f"{what}; there are {', '.join(known) or 'none'}"), err=True)
