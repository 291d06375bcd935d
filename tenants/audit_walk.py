"""Walks a chain of the audit log and says where it is broken first, and how. Pure.

Owns the judgement. Refuses to read: rows are brought, in order, and the head when there are no more.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sipserver.store.audit import AuditRow, HeadRow, Row, SpoiledRow
from sipserver.tenants.audit_entry import BROKEN, is_sealed, seal


class Damage(enum.StrEnum):
    """CHANGED: a field of it. INSERTED: or replaced, or moved there. MISSING: there are later ones. CUT_OFF: it was the
    last one, or there were later ones that are missing, too. REPLACED: it has a seal of ours, of another history. HEAD:
    the entries are whole as far as they go, what says where they end is not. NOTICED: our seal, on an entry that says
    that the chain was tampered with before it. UNREADABLE: no entry of ours could look like that. FOREIGN: nothing has
    been sealed with our secret.
    """

    CHANGED = "changed"
    INSERTED = "inserted"
    MISSING = "missing"
    CUT_OFF = "cut_off"
    REPLACED = "replaced"
    HEAD = "head"
    NOTICED = "noticed"
    UNREADABLE = "unreadable"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Broken:
    """number: the first entry that is not as it was written, or that is missing. text: what happened, in words."""

    number: int
    damage: Damage
    text: str


@dataclass(frozen=True, slots=True)
class Known:
    """An entry as somebody noted it down elsewhere."""

    number: int
    mac: str


class Walk:
    """After `number` entries that are whole; `last` is the mac of the one that was walked last."""

    def __init__(self, secret: bytes, known: Known | None = None) -> None:
        self.number, self.last = 0, ""
        self._secret, self._known = secret, known

    def step(self, row: Row, following: str | None) -> Broken | None:
        """following: which entry the next one, or the head, says is before it; None if there is neither."""
        if isinstance(row, SpoiledRow) or row.number != self.number + 1:
            return self._out_of_place(row.number)
        if not is_sealed(row, self._secret):
            return self._unsealed(row, following)
        if row.previous != self.last:
            return self._unlinked(row)
        if self._known is not None and row.number == self._known.number and row.mac != self._known.mac:
            return Broken(row.number, Damage.REPLACED, "its mac is not the one that is known")
        self.number, self.last = row.number, row.mac
        return None

    def end(self, head: HeadRow | None) -> Broken | None:
        """There are no more entries."""
        if head is None:
            if self.number:
                return Broken(self.number, Damage.HEAD, "what says that it is the last one is missing")
        elif not is_sealed(head, self._secret):
            return Broken(self.number, Damage.HEAD, "what says where the log ends was changed")
        elif head.number > self.number:
            return Broken(self.number + 1, Damage.CUT_OFF, f"the log goes to {head.number}, and ends at {self.number}")
        elif (head.number, head.last) != (self.number, self.last):
            return Broken(self.number, Damage.HEAD, f"what says where the log ends is old: it says {head.number}")
        if self._known is not None and self.number < self._known.number:
            reason = f"the log went to {self._known.number} once, and ends at {self.number}"
            return Broken(self.number + 1, Damage.CUT_OFF, reason)
        return None

    def is_foreign(self, rows: Sequence[Row], head: HeadRow | None) -> bool:
        """Whether not one of these was sealed with our secret."""
        sealed: list[AuditRow | HeadRow] = [row for row in rows if isinstance(row, AuditRow)]
        if head is not None:
            sealed.append(head)
        return not any(is_sealed(each, self._secret) for each in sealed)

    def _out_of_place(self, number: int | None) -> Broken:
        """What stands where the next entry should: one that cannot be read (of whatever number), or another one."""
        expected = self.number + 1
        if number is None or number == expected:
            return Broken(expected, Damage.UNREADABLE, "it holds what no entry of ours holds")
        if number < expected:
            return Broken(number, Damage.INSERTED, f"{number} comes after {self.number}")
        gone = f"{expected} is" if number == expected + 1 else f"{expected} to {number - 1} are"
        return Broken(expected, Damage.MISSING, f"{gone} missing: {number} comes after {self.number}")

    def _unsealed(self, row: AuditRow, following: str | None) -> Broken:
        """One field is wrong if the rest fits those around it; otherwise all of it is."""
        if is_sealed(replace(row, previous=self.last), self._secret):
            return Broken(row.number, Damage.CHANGED, "its field `previous` was changed")
        if seal(row, self._secret) == following:
            return Broken(row.number, Damage.CHANGED, "its field `mac` was changed")
        if row.mac == following and row.previous == self.last:
            return Broken(row.number, Damage.CHANGED, "it was changed after it was written")
        return Broken(row.number, Damage.INSERTED, "it was not written there: inserted, replaced or moved")

    def _unlinked(self, row: AuditRow) -> Broken:
        if row.previous == BROKEN:
            return Broken(row.number, Damage.NOTICED, "when it was written the log before it had been tampered with")
        return Broken(row.number, Damage.REPLACED, f"it was written after another {self.number} than the one there")
