"""Calls as they tell their record about themselves."""

from __future__ import annotations

from typing import Protocol

from sipserver.events import Event, Stamped


class Sink(Protocol):
    def started(
        self, *, call_id: str, tenant: str, direction: str, from_uri: str, to_uri: str, source: str, sip_call_id: str
    ) -> None: ...
    def append(self, stamped: Stamped) -> None: ...


def start(records: Sink, call_id: str = "c1", *, tenant: str = "acme", from_uri: str = "sip:ann@a") -> None:
    records.started(
        call_id=call_id,
        tenant=tenant,
        direction="inbound",
        from_uri=from_uri,
        to_uri="sip:demo@b",
        source="127.0.0.1:5062",
        sip_call_id=f"{call_id}@peer",
    )


def tell(records: Sink, event: Event, call_id: str = "c1", *, tenant: str = "acme", at_ms: int = 0) -> None:
    records.append(Stamped(call_id, tenant, at_ms, event))
