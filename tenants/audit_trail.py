"""What happens in calls and belongs into the audit log: the beginning and the end of a time of which nothing is kept.

Owns which events these are, and that none is noted twice by one process. Refuses to know calls: it reads the journal.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

from sipserver.journal import Entry, Kind
from sipserver.store.audit import AuditRows
from sipserver.tenants import audit_secret
from sipserver.tenants.audit_log import AuditLog
from sipserver.tenants.settings import AuditSettings

KINDS = frozenset({"secure.started", "secure.ended"})
REMEMBERED = 10_000
"""Events that are not noted again when the journal tells them again."""


class AuditTrail:
    """Loop thread. Raises SettingsError when the secret cannot be used, SQLAlchemy's errors when the database does not
    answer: what was not noted is noted when it is told again.
    """

    def __init__(self, rows: AuditRows, settings: AuditSettings) -> None:
        self._rows, self._settings = rows, settings
        self._log: AuditLog | None = None
        self._noted: OrderedDict[tuple[str, int], None] = OrderedDict()

    async def tell(self, entries: Sequence[Entry]) -> None:
        """Note what is to be noted, in its order; at once where there is nothing."""
        for entry in entries:
            told = entry.fields
            if entry.kind is not Kind.EVENT or told.get("kind") not in KINDS:
                continue
            key = (entry.call_id, int(told["seq"]))
            if key in self._noted:
                continue
            detail = {"at_ms": told["at_ms"], **told["fields"]}
            log = await self.log()
            await log.append(
                str(told["tenant"]),
                actor="system",
                action=str(told["kind"]),
                subject=f"call:{entry.call_id}",
                detail=detail,
            )
            self._noted[key] = None
            if len(self._noted) > REMEMBERED:
                self._noted.popitem(last=False)

    async def log(self) -> AuditLog:
        """Opened when it is needed first: records are kept also where the secret cannot be used."""
        if self._log is None:
            secret = await asyncio.to_thread(audit_secret.load, self._settings, make=True)
            self._log = AuditLog(self._rows, secret)
        return self._log
