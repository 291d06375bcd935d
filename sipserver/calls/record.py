"""Where a call writes its record. Declares what the call needs; `store` keeps it, and refuses nothing of it."""

from __future__ import annotations

from typing import Protocol

from sipserver.events import Stamped


class RecordSink(Protocol):
    """A call's record from start to end. Loop thread; every method only queues: none blocks, none raises.

    Events may still be appended after `ended`: a leg's last statistics can come late.
    """

    def started(
        self,
        *,
        call_id: str,
        tenant: str,
        direction: str,
        from_uri: str,
        to_uri: str,
        source: str,
        sip_call_id: str,
    ) -> None: ...

    def answered(self, call_id: str) -> None: ...

    def append(self, stamped: Stamped) -> None: ...

    def recording(self, *, call_id: str, path: str, status: str) -> None:
        """status: recording | complete | failed | refused (without a path)."""
        ...

    def ended(self, *, call_id: str, reason: str, sip_code: int) -> None: ...
