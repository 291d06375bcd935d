"""The control plane: what programs ask from outside, put together of the rooms that answer; and what is told to them.

Owns the order in which its parts start and end, and its own connections to the database. Refuses to know calls: they
are asked (`asking`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from aiohttp import web

from sipserver import allowing
from sipserver.api.rest import app
from sipserver.api.rest.access import Access
from sipserver.api.rest.calls import CallOperations
from sipserver.api.rest.usage import UsageOperations
from sipserver.api.rest.webhooks import WebhookOperations
from sipserver.asking import Asking
from sipserver.bus.contract import Bus
from sipserver.errors import TooMany
from sipserver.events import LimitExceeded
from sipserver.journal import Entry
from sipserver.settings import Settings
from sipserver.store.audit import AuditRows
from sipserver.store.database import Database
from sipserver.store.keys import KeyRows
from sipserver.store.reader import Reader
from sipserver.store.usage_meters import UsageMeters
from sipserver.store.usage_rows import UsageRows
from sipserver.tenants import audit_secret, metering
from sipserver.tenants.audit_log import AuditLog
from sipserver.tenants.bills import Bills
from sipserver.tenants.key_book import KeyBook
from sipserver.tenants.keys import ApiKey
from sipserver.tenants.metering import MeterEvent, Metering
from sipserver.tenants.prices import Rating
from sipserver.tenants.spending import Spending
from sipserver.webhooks import notices
from sipserver.webhooks.notices import Notice
from sipserver.webhooks.outgoing import Outgoing

CONNECTIONS = 6
"""To a database server: deliveries may have four at a time."""
STOP_S = 5.0


class Telling:
    """Webhooks out of one process, which publishes what it keeps, and delivers. Loop thread. The tables are made by
    whoever writes records.
    """

    def __init__(self, loaded: Settings, bus: Bus) -> None:
        self._database = Database(loaded.store, connections=CONNECTIONS)
        self.outgoing = Outgoing(self._database, loaded.webhooks)
        self._spending = Spending(UsageRows(self._database), Rating(loaded.prices), loaded.tenants, bus.meters)
        self._metering = Metering(UsageMeters(self._database), loaded.tenants, self._meter)
        self._beside: list[asyncio.Task[None]] = []

    async def tell(self, entries: Sequence[Entry]) -> None:
        """As `store.keeper.Tell`."""
        if told := notices.of_entries(entries):
            await self.outgoing.publish(told)

    def start(self) -> None:
        """Deliver from now on, also what an earlier process left."""
        self.outgoing.start()
        for work, name in ((self._spending.run(), "what tenants spend"), (self._metering.run(), "meter events")):
            self._beside.append(asyncio.create_task(work, name=name))

    async def _meter(self, events: Sequence[MeterEvent]) -> None:
        await self.outgoing.publish(
            [Notice(each.tenant, metering.KIND, each.at, each.fields, key=each.key) for each in events]
        )

    async def close(self) -> None:
        """Attempts under way get STOP_S; what waits is delivered after the next start."""
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        await self.outgoing.stop(STOP_S)
        await self._database.close()


class ControlPlane:
    """Loop thread. `app` at once; `close` at the end. The tables are made by whoever writes records. Raises
    SettingsError when the secret of the audit log cannot be used.
    """

    def __init__(self, loaded: Settings, asking: Asking, bus: Bus) -> None:
        self._database = Database(loaded.store)
        keys = KeyBook(KeyRows(self._database))
        calls = CallOperations(Reader(self._database), asking, bus.once.first, loaded.calls.recordings)
        self._outgoing = Outgoing(self._database, loaded.webhooks)
        self._audit = AuditLog(AuditRows(self._database), audit_secret.load(loaded.audit, make=True))
        self._allowances = allowing.of(loaded, bus)
        access = Access(keys.recognise, per_s=loaded.http.api_per_s, of_tenant=self._one_more)
        bills = Bills(UsageRows(self._database), Rating(loaded.prices))
        offered = [
            *calls.operations(),
            *WebhookOperations(self._outgoing).operations(),
            *UsageOperations(bills, calls.row_of).operations(),
        ]
        self.app: web.Application = app.application(access, self._note, offered)

    async def _note(self, key: ApiKey, deed: str, subject: str, source: str) -> None:
        await self._audit.append(key.tenant, actor=f"key:{key.id}", action=deed, subject=subject, source=source)

    async def _one_more(self, tenant: str) -> None:
        """Raises TooMany when the tenant may not ask now; those who want to hear of it are told."""
        allowed = await self._allowances.request(tenant)
        if allowed.told:
            at = datetime.now(UTC)
            events = [LimitExceeded(told.limit, told.most, told.used) for told in allowed.told]
            await self._outgoing.publish(
                [Notice(tenant, each.kind, at, each.fields(), key=f"{each.limit}/{at.isoformat()}") for each in events]
            )
        if allowed.reached is not None:
            raise TooMany(allowed.reached.text, retry_after_s=allowed.reached.retry_after_s)

    async def close(self) -> None:
        await self._outgoing.stop()
        await self._database.close()
