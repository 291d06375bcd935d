"""One entry of the audit log: who did what to what, its canonical form, its seal. Pure.

An entry is sealed with HMAC-SHA256 over all of its fields, the seal of the entry before it among them. What is sealed
is a JSON object with sorted keys, in which text is quoted and escaped: nothing that somebody puts into a field can pass
for another field. Owns what outside text is made to fit, before it is sealed: what is stored is what was sealed.
Refuses to know databases and where secrets come from.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sipserver.store.audit import AuditRow, HeadRow

BROKEN = "broken"
"""Stands for the seal of the entry before it in one that was written when the chain had been tampered with already."""
LONGEST = {"actor": 256, "subject": 512, "source": 128}
"""Characters; the rest is cut off, and `…` says so."""
LONGEST_NAME = {"tenant": 128, "action": 64}
"""Characters of what is ours, and is refused instead."""
DETAIL_BYTES = 16_384
DEEPEST = 20
"""Levels of lists and objects in detail; what is deeper is `…`."""
_CUT = "…"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry, as people see it. number: 1, 2, 3 ... for each tenant. at: aware, in UTC. previous, mac: in hex."""

    tenant: str
    number: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]
    source: str
    previous: str
    mac: str


@dataclass(frozen=True, slots=True)
class Deed:
    """What somebody did, made to fit. detail: JSON."""

    tenant: str
    actor: str
    action: str
    subject: str
    detail: str
    source: str


def deed(tenant: str, actor: str, action: str, subject: str, detail: Mapping[str, Any], source: str) -> Deed:
    """Raises ValueError for a tenant or an action that is empty, too long, or text that no database keeps."""
    for name, value in (("tenant", tenant), ("action", action)):
        if not value or len(value) > LONGEST_NAME[name] or _plain(value) != value:
            raise ValueError(f"{name} is not what a database keeps, or not of 1 to {LONGEST_NAME[name]} characters")
    given = {"actor": actor, "subject": subject, "source": source}
    fitted = {name: _cut(_plain(text), LONGEST[name]) for name, text in given.items()}
    return Deed(tenant=tenant, action=action, detail=_detail(detail), **fitted)


def seal(row: AuditRow, secret: bytes) -> str:
    """The mac that the entry ought to have."""
    sealed = asdict(row)
    del sealed["mac"]
    sealed["at"] = row.at.astimezone(UTC).isoformat(timespec="microseconds")
    return _mac({"audit": 1, **sealed}, secret)


def seal_head(head: HeadRow, secret: bytes) -> str:
    return _mac({"head": 1, "tenant": head.tenant, "number": head.number, "last": head.last}, secret)


def is_sealed(row: AuditRow | HeadRow, secret: bytes) -> bool:
    expected = seal(row, secret) if isinstance(row, AuditRow) else seal_head(row, secret)
    return hmac.compare_digest(expected.encode(), row.mac.encode())


def entry(done: Deed, number: int, previous: str, at: datetime, secret: bytes) -> tuple[AuditRow, HeadRow]:
    """The entry of that number, and the head that goes with it."""
    row = AuditRow(
        tenant=done.tenant,
        number=number,
        at=at.astimezone(UTC),
        actor=done.actor,
        action=done.action,
        subject=done.subject,
        detail=done.detail,
        source=done.source,
        previous=previous,
        mac="",
    )
    row = replace(row, mac=seal(row, secret))
    head = HeadRow(row.tenant, number, row.mac, "")
    return row, replace(head, mac=seal_head(head, secret))


def shown(row: AuditRow) -> Entry:
    """Raises ValueError, or RecursionError, when detail is no JSON that somebody of ours wrote."""
    found = json.loads(row.detail)
    if not isinstance(found, dict):
        raise ValueError("detail is no object")
    return Entry(**{**asdict(row), "detail": found})


def _mac(fields: Mapping[str, Any], secret: bytes) -> str:
    return hmac.new(secret, _json(fields).encode(), hashlib.sha256).hexdigest()


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _detail(given: Mapping[str, Any]) -> str:
    text = _json(_fit(given))
    if len(text) <= DETAIL_BYTES:
        return text
    return _json({"too_long": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()})


def _fit(value: Any, depth: int = 0) -> Any:
    """What JSON has and databases keep; anything else as text."""
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, (Mapping, list, tuple)) and depth >= DEEPEST:
        return _CUT
    if isinstance(value, Mapping):
        return {_plain(str(key)): _fit(each, depth + 1) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_fit(each, depth + 1) for each in value]
    return _plain(str(value))


def _plain(text: str) -> str:
    """Without NUL and halves of characters."""
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return whole.replace("\x00", "\ufffd")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + _CUT
