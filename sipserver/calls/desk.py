"""An agent who has dialled in, as somebody whom another call can be joined with.

Owns nothing: the agent's call owns it all. Satisfies `calls.join.Partner`. Refuses to end either call.
"""

from __future__ import annotations

from collections.abc import Callable

from sipserver.calls.call import Call
from sipserver.calls.digits import DigitBuffer
from sipserver.calls.leg import Leg
from sipserver.calls.queues import Server
from sipserver.calls.tape import Tape
from sipserver.calls.wiring import Wiring
from sipserver.events import LegEvent


class Desk:
    """Loop thread. call: the one that is joined, in whose record the agent has a party's name."""

    answered_at_ms: int | None = None
    stalled = False  # the agent's own call watches

    def __init__(self, call: Call, server: Server) -> None:
        self.name = f"party-{next(call.party_numbers)}"
        self.server = server

    @property
    def leg(self) -> Leg:
        return self.server.call.leg

    @property
    def digits(self) -> DigitBuffer:
        return self.server.call.digits

    @property
    def wiring(self) -> Wiring:
        return self.server.call.wiring

    @property
    def tape(self) -> Tape | None:
        return self.server.call.tape

    @property
    def held(self) -> bool:
        return self.server.call.held

    @property
    def gone(self) -> Server | None:
        return self.server if self.server.gone else None

    @property
    def listener(self) -> Callable[[LegEvent], None] | None:
        return self.server.call.listener

    @listener.setter
    def listener(self, listener: Callable[[LegEvent], None] | None) -> None:
        self.server.call.listener = listener
