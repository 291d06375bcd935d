"""A call record in memory."""

from __future__ import annotations

from typing import Any

from sipserver.events import Event, Stamped


class FakeRecords:
    """calls: (method, keyword arguments) in order, without `append`, whose events are in `stamped`."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.stamped: list[Stamped] = []

    def started(self, **facts: Any) -> None:
        self.calls.append(("started", facts))

    def answered(self, call_id: str) -> None:
        self.calls.append(("answered", {"call_id": call_id}))

    def append(self, stamped: Stamped) -> None:
        self.stamped.append(stamped)

    def recording(self, **facts: Any) -> None:
        self.calls.append(("recording", facts))

    def ended(self, **facts: Any) -> None:
        self.calls.append(("ended", facts))

    def kinds(self) -> list[str]:
        return [stamped.event.kind for stamped in self.stamped]

    def of(self, *kinds: type[Event]) -> list[Any]:
        """The events of these types, in order."""
        return [stamped.event for stamped in self.stamped if isinstance(stamped.event, kinds)]

    @property
    def reason(self) -> str:
        """How the call ended; fails if it has not ended exactly once."""
        ((_, facts),) = [call for call in self.calls if call[0] == "ended"]
        return str(facts["reason"])
