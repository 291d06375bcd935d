"""The audit log behind a settings file, as commands beside the server write and read it."""

from __future__ import annotations

from pathlib import Path

from sipserver.settings import load
from sipserver.store.audit import open_audit
from sipserver.store.database import Database
from sipserver.tenants import audit_secret
from sipserver.tenants.audit_entry import Entry
from sipserver.tenants.audit_log import AuditLog


async def make_database(config: Path) -> None:
    """As the server's first start makes it."""
    database = Database(load(config).store, connections=1)
    await database.open()
    await database.close()


async def audited(config: Path, tenant: str) -> list[Entry]:
    """All entries of a tenant, the oldest first; the chain is whole."""
    loaded = load(config)
    async with open_audit(loaded.store) as rows:
        log = AuditLog(rows, audit_secret.load(loaded.audit, make=True))
        assert (await log.verify(tenant)).broken is None
        return [entry async for entry in log.entries(tenant)]
