"""What is too old goes: looked for by one process of all, a batch at a time, beside the calls.

Owns the order: first the audit log says what is deleted, then it is; so nothing goes without a proof, and what a crash
came between is proved twice. Files go on the machine that has them. What cannot be deleted of one tenant keeps nothing
of the others. Refuses to know how rows belong together (`store`).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sipserver.log import logger
from sipserver.store.database import brief, is_trouble
from sipserver.store.doomed import DoomedFiles
from sipserver.store.retention import Kept, RetentionRows
from sipserver.tenants.audit_log import NOBODY, AuditLog
from sipserver.tenants.settings import RetentionSettings
from sipserver.tenants.shredder import Shredder

DUTY = "retention"
LEASE = timedelta(minutes=10)
FILES_S = 30.0
"""How often a machine looks for files that it is to delete."""
REST_S = 0.05
"""Between two batches, so that calls' records get their turn."""

OpenLog = Callable[[], Awaitable[AuditLog]]


@dataclass(frozen=True, slots=True)
class Swept:
    """count: calls, or messages of webhooks, of which this kind was deleted, or would be. tenant: empty: nobody's.
    failed: why the rest of them is still there; empty: nothing is left.
    """

    tenant: str
    kind: Kept
    before: datetime
    count: int
    files: int = 0
    failed: str = ""


class Retention:
    """Loop thread. start, close: the work beside the calls. log: opens the audit log."""

    def __init__(
        self,
        rows: RetentionRows,
        files: DoomedFiles,
        shredder: Shredder,
        settings: RetentionSettings,
        log: OpenLog,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._rows, self._files, self._shredder = rows, files, shredder
        self._settings, self._log_of, self._clock = settings, log, clock
        self._holder = f"{shredder.node[:90]}/{uuid.uuid4().hex}"
        self._log = logger("tenants")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """From now on, until `close`."""
        self._task = asyncio.create_task(self._work(), name="retention")

    async def close(self) -> None:
        """What is begun is done by the next one. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def plan(self, tenants: Iterable[str] = ()) -> Sequence[Swept]:
        """What `sweep` would delete now. tenants: none: all."""
        return [
            Swept(tenant, kind, before, await self._rows.count(tenant, kind, before))
            for tenant in tenants or await self._rows.tenants()
            for kind, before in self._limits(tenant)
        ]

    async def sweep(self, tenants: Iterable[str] = ()) -> Sequence[Swept] | None:
        """Delete what is too old, all of it. None: another process does that at this moment. Safe to cancel. Raises
        what the database raises when it does not answer; anything else ends the work at one kind of one tenant.
        """
        if not await self._claim():
            return None
        swept: list[Swept] = []
        for tenant in tenants or await self._rows.tenants():
            for kind, before in self._limits(tenant):
                count, files, failed = 0, 0, ""
                try:
                    while batch := await self._batch(tenant, kind, before):
                        count, files = count + batch[0], files + batch[1]
                        await asyncio.sleep(REST_S)
                        if not await self._claim():
                            return swept
                except Exception as problem:  # the edge of a tenant
                    if is_trouble(problem):
                        raise
                    failed = brief(problem)
                    self._log.error("too old, and could not be deleted", tenant=tenant, kind=kind.value, error=failed)
                if count or failed:
                    swept.append(Swept(tenant, kind, before, count, files, failed))
                if count:
                    self._log.info("too old, deleted", tenant=tenant, kind=kind.value, count=count, files=files)
        await self._rows.leave(DUTY, self._holder)
        return swept

    async def _claim(self) -> bool:
        """Whether it is this process that sweeps for all, from now on for LEASE; whoever dies is followed after it."""
        now = self._clock()
        return await self._rows.claim(DUTY, self._holder, now, now + LEASE)

    async def _batch(self, tenant: str, kind: Kept, before: datetime) -> tuple[int, int] | None:
        found = await self._rows.find(tenant, kind, before, self._settings.batch)
        if not found.ids:
            return None
        detail = {
            "kind": kind.value,
            "count": len(found.ids),
            "before": before.isoformat(),
            "oldest": found.oldest.isoformat() if found.oldest else None,
            "newest": found.newest.isoformat() if found.newest else None,
            "ids_sha256": digest(found.ids),
        }
        log = await self._log_of()
        await log.append(tenant or NOBODY, actor="system", action="retention.deleted", detail=detail)
        return len(found.ids), await self._rows.delete(kind, found.ids, self._clock())

    def _limits(self, tenant: str) -> Iterable[tuple[Kept, datetime]]:
        """What of a tenant is not kept for ever, with the moment before which it is too old."""
        kept, now = self._settings.of(tenant), self._clock()
        for kind in Kept:
            if days := getattr(kept, f"{kind.value}_days"):
                yield kind, now - timedelta(days=days)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        sweep_at = loop.time()
        while True:
            await asyncio.sleep(min(FILES_S, self._settings.sweep_s))
            if loop.time() >= sweep_at and await self._tried(self.sweep()) is not None:
                sweep_at = loop.time() + self._settings.sweep_s
            await self._tried(self._shredder.work(self._files, self._log_of))

    async def _tried(self, work: Awaitable[object]) -> object:
        """What came of it. None: it failed, and is tried again."""
        try:
            return await work
        except Exception as problem:  # the edge of the work: else nothing would be deleted until the next start
            tell = self._log.warning if is_trouble(problem) else self._log.error
            tell("what is too old could not be deleted; it is tried again", error=brief(problem))
            return None


def digest(ids: Iterable[str]) -> str:
    """SHA-256 of the ids in their order, a line each, without a last line feed."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()
