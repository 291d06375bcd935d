"""What a tenant is told: a notice, the JSON it becomes, and the id that it has for one endpoint.

Owns the form of the payload. Refuses to know endpoints' tables and the way to a receiver.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

from sipserver.journal import Entry, Kind


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that happened to a tenant. at: when, aware. seq, at_ms: of an event of a call; at_ms since it began.

    key: what is the same when the same thing is told again, among all that the tenant is told; empty: call_id and seq.
    Notices of one call_id are delivered in order; without one each is on its own.
    """

    tenant: str
    kind: str
    at: datetime
    fields: Mapping[str, Any] = field(default_factory=dict)
    call_id: str = ""
    seq: int | None = None
    at_ms: int | None = None
    key: str = ""

    def __post_init__(self) -> None:
        if not self.key and (not self.call_id or self.seq is None):
            raise ValueError("a notice needs a key, or a call and the number of its event")
        if len(self.call_id) > 64 or len(self.kind) > 64 or len(self.tenant) > 128:
            raise ValueError("the call, the kind or the tenant of a notice is longer than the store keeps")

    def payload(self) -> str:
        """As Standard Webhooks has it; ASCII. The same notice gives the same text."""
        return _json(
            {
                "type": self.kind,
                "timestamp": self.at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
                "data": {
                    "call_id": self.call_id or None,
                    "tenant": self.tenant,
                    "at_ms": self.at_ms,
                    "seq": self.seq,
                    "fields": dict(self.fields),
                },
            }
        )

    def message_id(self, endpoint_id: str) -> str:
        """The `webhook-id`: follows from what is told to whom, so that what is told twice is queued once."""
        key = self.key or f"{self.call_id}/{self.seq}"
        return "msg_" + hashlib.sha256(f"{endpoint_id}\n{key}".encode()).hexdigest()[:32]


def of_entries(entries: Iterable[Entry]) -> Sequence[Notice]:
    """The events among entries of the journal; what is no whole event is left out."""
    return [notice for entry in entries if entry.kind is Kind.EVENT and (notice := _of_entry(entry))]


def _of_entry(entry: Entry) -> Notice | None:
    told = entry.fields
    try:
        return Notice(
            tenant=str(told["tenant"]),
            kind=str(told["kind"]),
            at=datetime.fromtimestamp(entry.at, UTC),
            fields=dict(told["fields"]),
            call_id=entry.call_id,
            seq=int(told["seq"]),
            at_ms=int(told["at_ms"]),
        )
    except (LookupError, TypeError, ValueError, OverflowError, OSError):
        return None


def wanted(kind: str, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns (`call.*`) matches; none: all kinds are wanted."""
    return not patterns or any(fnmatchcase(kind, pattern) for pattern in patterns)


def _json(value: Mapping[str, Any]) -> str:
    try:
        return json.dumps(value, separators=(",", ":"), default=str, allow_nan=False)
    except ValueError:  # JSON has no NaN and no infinity
        return json.dumps(_finite(value), separators=(",", ":"), default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return value
