"""The audit log: appends entries, reads them, verifies the chain of a tenant.

Owns where the next entry goes, also when somebody has tampered with the chain: entries go on, but never so that the
damage heals. Refuses to change or delete anything, and to know who asks.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sipserver.errors import SettingsError, SipServerError
from sipserver.log import logger
from sipserver.store.audit import AuditRow, AuditRows, HeadRow, Row
from sipserver.tenants import audit_entry
from sipserver.tenants.audit_entry import BROKEN, Entry, is_sealed
from sipserver.tenants.audit_secret import AuditSecret
from sipserver.tenants.audit_walk import Broken, Damage, Known, Walk

PAGE = 500
NOBODY = "-"
"""Whose log tells what is done to what belongs to no tenant, as calls that no dialplan took. No tenant is called so."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """entries: so many are whole, from the first one on. last: mac of the last of them. broken: what follows them."""

    tenant: str
    entries: int
    last: str
    broken: Broken | None


class AuditLog:
    """Loop thread. Raises SQLAlchemy's errors, or OSError, when the database does not answer. clock: now, aware."""

    def __init__(
        self,
        rows: AuditRows,
        secret: AuditSecret,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        page: int = PAGE,
    ) -> None:
        self._rows, self._secret, self._clock, self._page = rows, secret, clock, page
        self._log = logger("tenants")

    async def append(
        self,
        tenant: str,
        *,
        actor: str,
        action: str,
        subject: str = "",
        detail: Mapping[str, Any] | None = None,
        source: str = "",
    ) -> Entry:
        """It is on the disk when this returns, in turn with all other processes. Safe to cancel: whole or not at all.

        actor: `key:ID`, `user:NAME`, `operator`, `system`. action: `call.created` and the like. subject: `call:ID`.
        source: an address. Text that is too long is cut. Raises ValueError for a tenant or an action that is no name,
        SettingsError when the chain was sealed with another secret.
        """
        done = audit_entry.deed(tenant, actor, action, subject, detail or {}, source)
        secret = self._secret.of(tenant)

        def make(head: HeadRow | None, last: Row | None) -> tuple[AuditRow, HeadRow]:
            number, previous = _place(tenant, head, last, secret)
            if previous == BROKEN:
                self._log.error("the audit log was tampered with", tenant=tenant, number=number)
            return audit_entry.entry(done, number, previous, self._clock(), secret)

        return audit_entry.shown(await self._rows.append(tenant, make))

    async def check(self) -> None:
        """Raises SettingsError when there are logs, and none of them can be continued with this secret.

        One that can says that the secret is right: what is wrong with others then is a matter for `verify`.
        """
        tenants = await self._rows.tenants()
        for tenant in tenants:
            head, newest = await self._rows.head(tenant), await self._rows.newest(tenant, limit=1)
            with contextlib.suppress(SettingsError):
                _place(tenant, head, newest[0] if newest else None, self._secret.of(tenant))
                return
        if tenants:
            reason = f"the logs that there are were sealed with another secret than that of {self._secret.origin}"
            raise SettingsError(f"{reason}: put the earlier one back (docs/security.md)", key="audit")

    def pseudonym(self, tenant: str, name: str) -> str:
        """What stands for a person in the log: whoever has the secret can tell whether two are the same."""
        return hmac.new(self._secret.of(tenant), f"person {name}".encode(), hashlib.sha256).hexdigest()[:32]

    async def verify(self, tenant: str, known: Known | None = None) -> Verdict:
        """Walk the whole chain, in pages; entries may be appended meanwhile. known: an entry as it was once."""
        walk = Walk(self._secret.of(tenant), known)
        broken = await self._walk(tenant, walk)
        if broken is None and await self._rows.count(tenant, up_to=walk.number) != walk.number:
            broken = Broken(walk.number, Damage.INSERTED, "there are entries that have the number of another one")
        return Verdict(tenant, walk.number, walk.last, broken)

    async def newest(
        self, tenant: str, *, before: int | None = None, since: datetime | None = None, limit: int = 50
    ) -> list[Entry]:
        """The newest first. before: a number, for the next page. Raises SipServerError for one that is unreadable."""
        rows = await self._rows.newest(tenant, before=before, since=since, limit=limit)
        return [_shown(row) for row in rows]

    async def entries(
        self, tenant: str, *, since: datetime | None = None, until: datetime | None = None
    ) -> AsyncIterator[Entry]:
        """In order, however many there are. until: not included. Raises SipServerError for one that is unreadable."""
        after = None
        while rows := await self._rows.page(tenant, after=after, since=since, until=until, limit=self._page):
            for row in rows:
                yield _shown(row)
            after = rows[-1].number

    async def tenants(self) -> list[str]:
        """Those who have a log."""
        return await self._rows.tenants()

    async def _walk(self, tenant: str, walk: Walk) -> Broken | None:
        rows = await self._rows.page(tenant, limit=self._page)
        while True:
            for at, row in enumerate(rows):
                if broken := walk.step(row, _following(row, rows[at + 1 : at + 2], None)):
                    return await self._explained(tenant, walk, row, broken)
            head = await self._rows.head(tenant)  # it is read after the entries: what it tells of must be there
            rows = await self._rows.page(tenant, after=walk.number if walk.number else None, limit=self._page)
            if not rows:
                return walk.end(head)

    async def _explained(self, tenant: str, walk: Walk, row: Row, broken: Broken) -> Broken:
        """The same, by what follows the entry, which may stand in the next page, or by all that there is."""
        head = await self._rows.head(tenant)
        if walk.number == 0 and walk.is_foreign(await self._rows.page(tenant, limit=self._page), head):
            reason = "not one entry was sealed with this secret: it is another one, or all of them were replaced"
            return Broken(broken.number, Damage.FOREIGN, reason)
        if not isinstance(row, AuditRow) or broken.damage is not Damage.INSERTED:
            return broken
        later = await self._rows.page(tenant, after=row.number, limit=1)
        return walk.step(row, _following(row, later, head)) or broken


def _place(tenant: str, head: HeadRow | None, last: Row | None, secret: bytes) -> tuple[int, str]:
    """Number of the next entry, and the mac of the one before it.

    The head decides: where entries before it are missing, the gap stays. Where there is no head of ours, or there are
    entries beyond it, the next entry says for ever that the chain was broken.
    """
    if head is None and last is None:
        return 1, ""
    ours = head is not None and is_sealed(head, secret)
    number = 0 if last is None or last.number is None else last.number
    if head is not None and ours and number <= head.number:
        return head.number + 1, head.last
    if not ours and not (isinstance(last, AuditRow) and is_sealed(last, secret)):
        raise SettingsError(f"the log of {tenant} was sealed with another secret, or replaced", key="audit")
    return max(number, head.number if head is not None and ours else 0) + 1, BROKEN


def _following(row: Row, later: Sequence[Row], head: HeadRow | None) -> str | None:
    """Which entry the one with the next number says is before it, or the head says is the last one."""
    if later:
        if isinstance(later[0], AuditRow) and row.number == later[0].number - 1:
            return later[0].previous
        return None
    return head.last if head is not None and head.number == row.number else None


def _shown(row: Row) -> Entry:
    try:
        if isinstance(row, AuditRow):
            return audit_entry.shown(row)
    except (ValueError, RecursionError):
        pass
    which = "an entry" if row.number is None else f"entry {row.number}"
    raise SipServerError(f"{which} of the audit log cannot be read: `sipserver audit verify` says more")
