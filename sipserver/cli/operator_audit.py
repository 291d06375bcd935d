"""The audit log, as an operator's command continues it: what is read and what is done beside REST.

Owns that no command seals an entry with a secret that is not the server's, and that nothing is read or done that does
not stand in the log. Refuses to know what is noted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from sipserver.api.rest.deeds import Deed
from sipserver.errors import CallerError, SipServerError
from sipserver.settings import Settings
from sipserver.store.audit import AuditRows
from sipserver.store.database import UNAVAILABLE, Database, opened_to_read
from sipserver.tenants import audit_secret
from sipserver.tenants.audit_log import NOBODY, AuditLog
from sipserver.tenants.principal import Principal, of_operator

Done = TypeVar("Done")
_BROKEN = 500


async def open_log(loaded: Settings, database: Database) -> AuditLog:
    """database: open. Raises SettingsError when there is no secret, though there are entries, or another one.

    The secret is made where nothing was noted yet.
    """
    rows = AuditRows(database)
    secret = audit_secret.load(loaded.audit, make=not await rows.tenants())
    log = AuditLog(rows, secret)
    await log.check()
    return log


class OperatorAudit:
    """One command's. database: open. tenant: empty for what belongs to none. Raises SipServerError when it cannot be
    noted, CallerError for a tenant of an impossible name.
    """

    def __init__(self, loaded: Settings, database: Database) -> None:
        self._settings, self._database = loaded, database
        self._log: AuditLog | None = None
        self._read = set[tuple[str, str, str]]()

    async def read(self, tenant: str, action: str, subject: str) -> None:
        """Before it is given away; the same once."""
        if (tenant, action, subject) not in self._read:
            await self._note(of_operator(tenant), action, subject, "")
            self._read.add((tenant, action, subject))

    async def do(
        self,
        tenant: str,
        action: str,
        work: Callable[[], Awaitable[Done]],
        *,
        of: str = "call",
        which: str = "",
        made: Callable[[Done], str] = str,
        detail: Mapping[str, Any] | None = None,
    ) -> Done:
        """Note what is asked, do it, and note what came of it. of, which: to what it is done, and its id; without an id
        `made` tells that of what `work` made. Returns and raises what `work` does.
        """
        deed = Deed(self._note, of_operator(tenant), action, of=of, which=which, source="")
        await deed.ask(detail or {})
        try:
            done = await work()
        except BaseException as problem:
            await deed.failed(problem.http_code if isinstance(problem, SipServerError) else _BROKEN)
            raise
        await deed.done(which or made(done), {})
        return done

    async def _note(
        self, who: Principal, deed: str, subject: str, source: str, detail: Mapping[str, Any] | None = None
    ) -> int:
        try:
            if self._log is None:
                self._log = await open_log(self._settings, self._database)
            entry = await self._log.append(
                who.tenant or NOBODY, actor=who.actor, action=deed, subject=subject, detail=detail, source=source
            )
        except ValueError as problem:
            raise CallerError(str(problem)) from problem
        except UNAVAILABLE as problem:
            raise SipServerError(f"nothing was done or read: the audit log cannot be written: {problem}") from problem
        return entry.number


@asynccontextmanager
async def opened(loaded: Settings) -> AsyncIterator[OperatorAudit]:
    """For commands that need no database otherwise. Raises SettingsError when there is none."""
    async with opened_to_read(loaded.store) as database:
        yield OperatorAudit(loaded, database)
