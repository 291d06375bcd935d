"""The control plane: what programs ask from outside, put together of the rooms that answer; and what is told to them.

Owns the order in which its parts start and end, and its own connections to the database. Refuses to know calls: they
are asked (`asking`).
"""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from sipserver.api.rest import app
from sipserver.api.rest.access import Access
from sipserver.api.rest.calls import CallOperations
from sipserver.api.rest.webhooks import WebhookOperations
from sipserver.asking import Asking
from sipserver.bus.contract import Once
from sipserver.journal import Entry
from sipserver.settings import Settings
from sipserver.store.audit import AuditRows
from sipserver.store.database import Database
from sipserver.store.doomed import DoomedFiles
from sipserver.store.keys import KeyRows
from sipserver.store.reader import Reader
from sipserver.store.retention import RetentionRows
from sipserver.tenants import audit_secret
from sipserver.tenants.audit_log import AuditLog
from sipserver.tenants.audit_trail import AuditTrail
from sipserver.tenants.key_book import KeyBook
from sipserver.tenants.keys import ApiKey
from sipserver.tenants.retention import Retention
from sipserver.tenants.shredder import Shredder
from sipserver.webhooks import notices
from sipserver.webhooks.outgoing import Outgoing

CONNECTIONS = 6
"""To a database server: deliveries may have four at a time."""
STOP_S = 5.0


class Telling:
    """Webhooks out of one process, which publishes what it keeps, and delivers; what the audit log is told of calls;
    and what is deleted because it is too old. Loop thread. node: this machine, as calls name it. The tables are made by
    whoever writes records.
    """

    def __init__(self, loaded: Settings, node: str) -> None:
        self._database = Database(loaded.store, connections=CONNECTIONS)
        self.outgoing = Outgoing(self._database, loaded.webhooks)
        self._trail = AuditTrail(AuditRows(self._database), loaded.audit)
        self.retention = Retention(
            RetentionRows(self._database),
            DoomedFiles(self._database),
            Shredder(node, loaded.calls.recordings),
            loaded.retention,
            self._trail.log,
        )

    async def tell(self, entries: Sequence[Entry]) -> None:
        """As `store.keeper.Tell`."""
        if told := notices.of_entries(entries):
            await self.outgoing.publish(told)
        await self._trail.tell(entries)

    def start(self) -> None:
        """Deliver from now on, also what an earlier process left, and delete what is too old."""
        self.outgoing.start()
        self.retention.start()

    async def close(self) -> None:
        """Attempts under way get STOP_S; what waits is delivered after the next start."""
        await self.retention.close()
        await self.outgoing.stop(STOP_S)
        await self._database.close()


class ControlPlane:
    """Loop thread. `app` at once; `close` at the end. The tables are made by whoever writes records. Raises
    SettingsError when the secret of the audit log cannot be used.
    """

    def __init__(self, loaded: Settings, asking: Asking, once: Once) -> None:
        self._database = Database(loaded.store)
        keys = KeyBook(KeyRows(self._database))
        calls = CallOperations(Reader(self._database), asking, once.first, loaded.calls.recordings)
        self._outgoing = Outgoing(self._database, loaded.webhooks)
        self._audit = AuditLog(AuditRows(self._database), audit_secret.load(loaded.audit, make=True))
        access = Access(keys.recognise, per_s=loaded.http.api_per_s)
        offered = [*calls.operations(), *WebhookOperations(self._outgoing).operations()]
        self.app: web.Application = app.application(access, self._note, offered)

    async def _note(self, key: ApiKey, deed: str, subject: str, source: str) -> None:
        await self._audit.append(key.tenant, actor=f"key:{key.id}", action=deed, subject=subject, source=source)

    async def close(self) -> None:
        await self._outgoing.stop()
        await self._database.close()
