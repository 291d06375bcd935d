"""A tenant's dialplan by REST: looked at, checked, changed, taken back; and the same on all machines.

The versions in the database say what is in force, once a tenant's dialplan was changed by REST: every machine's files
follow them. A file that somebody changed by hand becomes the next version. Tenants whose dialplan was never changed by
REST have no versions; their files are left alone. Owns this order of things. Refuses to know requests, and how a
changed file gets into calls (`dialplan.watch`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sipserver.api.plan_checks import Checked, PlanChecks
from sipserver.dialplan.plan import Plan
from sipserver.dialplan.shelf import Found, Mark, Shelf, digest_of
from sipserver.errors import ConfigError, Conflict, DialplanError, NotFound, Outdated, SipServerError
from sipserver.log import logger
from sipserver.store.database import is_trouble
from sipserver.store.dialplans import Head, VersionRow, VersionRows

LOOK_S = 2.0
"""How often a machine asks whether another one has a new version."""
OPERATOR, SYSTEM = "operator", "system"

SETTLE_S = 1.0
"""A file that was changed later than this long ago may be half of one."""
GONE_S = 10.0
"""A file that is not there for so long was deleted."""
_TAKEN = "the server has another file of this name, or one that is broken: ask the operator"

Noted = Callable[[str, str, str], Awaitable[None]]
"""(tenant, action, name): what somebody did at the files, for the audit log."""


@dataclass(frozen=True, slots=True)
class Current:
    """A dialplan as it is now. number: its version; 0: it was never changed by REST, and nobody knows who made it."""

    name: str
    text: str
    digest: str
    number: int
    at: datetime | None
    actor: str


class Refused(DialplanError):
    """A dialplan that cannot be taken. errors: all that is wrong with it."""

    http_code = 422

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        super().__init__("the dialplan is not as it should be")
        self.errors = errors


class Plans:
    """Loop thread; disks and checks are in threads. Raises the database's errors when it does not answer."""

    def __init__(self, rows: VersionRows, folder: Path, checks: PlanChecks, noted: Noted) -> None:
        self._rows, self._shelf, self._checks, self._noted = rows, Shelf(folder), checks, noted
        self._turn = asyncio.Lock()
        self._gone: dict[str, float] = {}
        self._log = logger("dialplans")

    async def current(self, tenant: str) -> Current | None:
        """The tenant's dialplan; None: it has none."""
        async with self._turn:
            return await self._now(tenant)

    async def get(self, tenant: str, name: str) -> Current:
        """Raises NotFound, also for the name of another tenant's."""
        return _named(await self.current(tenant), name)

    async def plan(self, tenant: str) -> Plan | None:
        """What stands in it; None: there is none, or it is wrong."""
        now = await self.current(tenant)
        return None if now is None else await self._checks.read(now.text)

    async def check(self, tenant: str, text: str) -> Checked:
        """What would be said to a change to this text. Changes nothing."""
        now = await self.current(tenant)
        return await self._check(tenant, text, now)

    async def put(
        self, tenant: str, name: str, text: str, actor: str, *, expects: Collection[str] | None
    ) -> tuple[Current, bool]:
        """Change it; or make it, expects None. And whether it was made. A text that is there already makes no version.

        expects: digests, one of which it must have now; empty: any will do. Raises NotFound, Outdated, Conflict,
        Refused, DiskFull; then nothing has changed.
        """
        before = await self.current(tenant)
        if expects is None:
            if before is not None:
                raise Outdated("the tenant has a dialplan already: change that one")
            if name != tenant:
                raise Conflict("a tenant has one dialplan, and a new one is called as the tenant is")
        else:
            _expect(_named(before, name), expects)
        verdict = await self._check(tenant, text, before)
        if verdict.errors:
            raise Refused(verdict.errors)
        return await self._change(tenant, name, text, actor, before), expects is None

    async def rollback(
        self, tenant: str, name: str, number: int, actor: str, expects: Collection[str]
    ) -> tuple[Current, bool]:
        """A new version with the text of an old one, if that may still be."""
        _named(await self.current(tenant), name)
        row = await self._rows.get(tenant, number)
        if row is None or not row.digest:
            raise NotFound(f"there is no version {number}")
        return await self.put(tenant, name, row.text, actor, expects=expects)

    async def delete(self, tenant: str, name: str, actor: str, expects: Collection[str]) -> None:
        """Raises Conflict for the last one of the server, which does not start without any."""
        now = _named(await self.current(tenant), name)
        _expect(now, expects)
        await self._change(tenant, name, "", actor, now)

    async def history(self, tenant: str, name: str, *, before: int | None, limit: int) -> list[Head]:
        """The newest first; also of one that was deleted."""
        now = await self.current(tenant)
        found = await self._rows.history(tenant, before=before, limit=limit)
        if (now is None or now.name != name) and not (found and found[0].name == name):
            raise NotFound("there is no such dialplan")
        return found

    async def version(self, tenant: str, name: str, number: int) -> VersionRow:
        await self.history(tenant, name, before=None, limit=1)
        row = await self._rows.get(tenant, number)
        if row is None:
            raise NotFound(f"there is no version {number}")
        return row

    async def follow(self) -> None:
        """Keep this machine's files as the versions say, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Once. What goes wrong is logged, and tried again the next time."""
        try:
            heads = await self._rows.heads()
        except Exception as problem:
            if not is_trouble(problem):
                raise
            return
        for head in heads:
            async with self._turn:
                try:
                    await self._settle(head.tenant)
                except Outdated:
                    continue
                except Exception as problem:
                    if not (is_trouble(problem) or isinstance(problem, SipServerError)):
                        raise
                    self._log.warning("a dialplan is not as its version says", tenant=head.tenant, error=str(problem))

    # --- one tenant's file and versions -------------------------------------------------------------------------------

    async def _now(self, tenant: str, *, to_change: bool = False) -> Current | None:
        """to_change: raises Conflict while somebody is at the file."""
        row, settled = await self._settle(tenant)
        if to_change and not settled:
            raise Conflict("the operator is changing this dialplan: try again in a moment, or ask")
        if row is not None:
            return Current(row.name, row.text, row.digest, row.number, row.at, row.actor) if row.digest else None
        found = await asyncio.to_thread(self._shelf.find, tenant)
        if found is None or found.text is None:
            return None
        return Current(found.file.stem, found.text, found.digest, 0, None, OPERATOR)

    async def _settle(self, tenant: str) -> tuple[VersionRow | None, bool]:
        """The newest version, the file being as it says; what stood there by hand is a version now. None: none is.
        And whether it could be settled: not while somebody writes the file, or what stands there is no dialplan.
        """
        row = await self._rows.newest(tenant)
        if row is None:
            return None, True
        found = await asyncio.to_thread(self._shelf.find, tenant, row.name)
        mark = await asyncio.to_thread(self._shelf.mark, tenant)
        digest = "" if found is None else found.digest
        if found is not None or not row.digest:
            self._gone.pop(tenant, None)
        if found is not None and found.text is None:
            return row, False
        if digest != row.digest and await self._by_hand(tenant, digest, mark):
            if not await self._is_meant(tenant, found):
                return row, False
            row = await self._keep(row, found, restored=mark is None)
        try:
            if digest != row.digest:
                await self._put_down(row, found)
            if mark is None or (mark.number, mark.digest) != (row.number, row.digest):
                await asyncio.to_thread(self._shelf.set_mark, tenant, Mark(row.number, row.digest))
        except SipServerError as problem:
            self._log.warning("a dialplan is not as its version says", tenant=tenant, error=str(problem))
            return row, False
        return row, True

    async def _by_hand(self, tenant: str, digest: str, mark: Mark | None) -> bool:
        """Whether somebody changed the file since this machine had a version of it. A machine that never had one, and
        no file, is behind; so is one whose file is as a later version, which another process has just written.
        """
        if mark is None and not digest:
            return False
        if digest and await self._rows.number_of(tenant, digest) > (0 if mark is None else mark.number):
            return False
        return mark is None or digest != mark.digest

    async def _is_meant(self, tenant: str, found: Found | None) -> bool:
        """Half a file, and one that is gone for a moment, come from somebody who writes it."""
        if found is not None and found.text is not None:
            if found.age_s < SETTLE_S:
                return False
            plan = await asyncio.to_thread(self._checks.by_hand, found.text, found.file)
            return plan is not None and plan.tenant == tenant
        known, unknown = await asyncio.to_thread(self._shelf.count)
        now_s = time.monotonic()
        return now_s - self._gone.setdefault(tenant, now_s) >= GONE_S and known > 0 and not unknown

    async def _keep(self, last: VersionRow, found: Found | None, *, restored: bool) -> VersionRow:
        """Keep what an operator did to the file. restored: this machine never had a version, so it goes on with the
        last one of the others.
        """
        text = "" if found is None or found.text is None else found.text
        made = _row(last.tenant, last.number + 1, last.name, OPERATOR, text)
        rows = [made, _row(last.tenant, last.number + 2, last.name, SYSTEM, last.text)] if restored else [made]
        await self._rows.add(*rows)
        self._log.info("a dialplan was changed by hand", tenant=last.tenant, version=made.number)
        await self._noted(last.tenant, "dialplan.changed" if text else "dialplan.deleted", last.name)
        return rows[-1]

    async def _put_down(self, row: VersionRow, found: Found | None) -> None:
        shelf = self._shelf
        file = shelf.file(row.name) if found is None else found.file
        if found is None and row.digest and not await asyncio.to_thread(shelf.is_free, file):
            raise Conflict(_TAKEN)
        if row.digest:
            prepared = await asyncio.to_thread(shelf.prepare, file, row.text)
            await asyncio.to_thread(shelf.commit, prepared, file)
        else:
            await asyncio.to_thread(shelf.remove, file)

    async def _change(self, tenant: str, name: str, text: str, actor: str, before: Current | None) -> Current:
        """The next version: on the disk first, where there may be no room, then in the database, where somebody else
        may have been faster, then in force. text: empty: there is none any more.
        """
        async with self._turn:
            now = await self._now(tenant, to_change=True)
            if (now and (now.number, now.digest)) != (before and (before.number, before.digest)):
                raise Outdated("somebody else has changed it meanwhile: read it again, and change that")
            if now is not None and text and now.digest == digest_of(text):
                return now
            if not text and (await asyncio.to_thread(self._shelf.count))[0] <= 1:
                raise Conflict("this is the server's only dialplan: without any it does not start")
            rows = await self._next(tenant, name, text, actor, now)
            shelf, found = self._shelf, await asyncio.to_thread(self._shelf.find, tenant, name)
            if found is None and not await asyncio.to_thread(self._has_room, name):
                raise Conflict(_TAKEN)
            file = shelf.file(name) if found is None else found.file
            prepared = await asyncio.to_thread(shelf.prepare, file, text) if text else None
            try:
                await self._rows.add(*rows)
            except BaseException:
                if prepared is not None:
                    await asyncio.to_thread(shelf.discard, prepared)
                raise
            made = rows[-1]
            await asyncio.shield(asyncio.to_thread(self._in_force, prepared, file, made))
        return Current(name, text, made.digest, made.number, made.at, made.actor)

    def _has_room(self, name: str) -> bool:
        """Whether a new file may have this name, and no broken one may be the tenant's."""
        return self._shelf.is_free(self._shelf.file(name)) and not self._shelf.count()[1]

    def _in_force(self, prepared: Path | None, file: Path, made: VersionRow) -> None:
        """What fails here is done again by the next look: the version counts."""
        try:
            if prepared is None:
                self._shelf.remove(file)
            else:
                self._shelf.commit(prepared, file)
            self._shelf.set_mark(made.tenant, Mark(made.number, made.digest))
        except SipServerError as problem:
            self._log.warning("a dialplan is not in its place yet", tenant=made.tenant, error=str(problem))

    async def _next(self, tenant: str, name: str, text: str, actor: str, now: Current | None) -> list[VersionRow]:
        """What was there before REST is the first version."""
        if now is not None and now.number == 0:
            return [_row(tenant, 1, now.name, OPERATOR, now.text), _row(tenant, 2, name, actor, text)]
        if now is not None:
            return [_row(tenant, now.number + 1, name, actor, text)]
        deleted = await self._rows.newest(tenant)
        return [_row(tenant, 1 if deleted is None else deleted.number + 1, name, actor, text)]

    async def _check(self, tenant: str, text: str, now: Current | None) -> Checked:
        """By what the operator's last dialplan has."""
        if now is not None and now.number == 0:
            return await self._checks.judge(tenant, text, now.text)
        row = await self._rows.newest(tenant, actor=OPERATOR)
        return await self._checks.judge(tenant, text, None if row is None else row.text)


def _row(tenant: str, number: int, name: str, actor: str, text: str) -> VersionRow:
    return VersionRow(tenant, number, name, datetime.now(UTC), actor, digest_of(text) if text else "", text)


def _named(now: Current | None, name: str) -> Current:
    if now is None or now.name != name:
        raise NotFound("there is no such dialplan")
    return now


def _expect(now: Current, digests: Collection[str]) -> None:
    if digests and now.digest not in digests:
        raise Outdated("it is no longer as you have read it: read it again, and change that")
