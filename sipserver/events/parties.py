"""Others that a call brings in: bridges, transfers, who answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sipserver.events.base import Event, private


@dataclass(frozen=True, slots=True)
class PartyDialed(Event):
    """A further party is called for this call. party: its name in this call. attempt: 1 for the first trunk."""

    kind: ClassVar[str] = "party.dialed"
    party: str
    to: str = private()
    trunk: str = ""
    attempt: int = 1
    sip_call_id: str = ""


@dataclass(frozen=True, slots=True)
class PartyEnded(Event):
    """outcome: what became of the attempt to reach the party (answered | busy | no_answer | declined | failed |
    caller_gone); an answered one hung up, or was hung up, by `by`: party | us.
    """

    kind: ClassVar[str] = "party.ended"
    party: str
    outcome: str
    code: int = 0
    cause: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class AnswererDetected(Event):
    """Who answered a call that we placed. answerer: human | machine | beep | silence | fax | unknown. after_ms: since
    the answer.
    """

    kind: ClassVar[str] = "amd.decided"
    answerer: str
    after_ms: int
    why: str = ""
    party: str = ""


@dataclass(frozen=True, slots=True)
class Bridged(Event):
    """Caller and party hear each other. after_ms: since the party's answer."""

    kind: ClassVar[str] = "bridge.started"
    party: str
    after_ms: int = 0


@dataclass(frozen=True, slots=True)
class Unbridged(Event):
    """reason: caller_hangup | party_hangup | media_timeout | max_duration | transferred | step_over."""

    kind: ClassVar[str] = "bridge.ended"
    party: str
    reason: str
    lasted_ms: int = 0


@dataclass(frozen=True, slots=True)
class TransferStarted(Event):
    """The call is to be handed over to somebody else."""

    kind: ClassVar[str] = "transfer.started"
    mode: str  # blind | attended | warm
    to: str = private()


@dataclass(frozen=True, slots=True)
class TransferEnded(Event):
    """outcome: answered | busy | no_answer | declined | failed | caller_gone. how: refer | replaces | bridge."""

    kind: ClassVar[str] = "transfer.ended"
    mode: str
    outcome: str
    how: str = ""
    code: int = 0
    took_ms: int = 0
