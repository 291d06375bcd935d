"""What happens to the call as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sipserver.events.base import Event, private


@dataclass(frozen=True, slots=True)
class CallStarted(Event):
    """A call begins: somebody calls us, or we call somebody."""

    kind: ClassVar[str] = "call.started"
    direction: str  # inbound | outbound
    from_uri: str = private()
    to_uri: str = private()
    source: str = ""  # host:port of the peer
    sip_call_id: str = ""
    trunk: str = ""  # by which it came; empty without one


@dataclass(frozen=True, slots=True)
class CallCarried(Event):
    """A call that we place was answered. trunk: by which it went in the end; empty without one."""

    kind: ClassVar[str] = "call.carried"
    trunk: str


@dataclass(frozen=True, slots=True)
class CallRouted(Event):
    """The dialplan knows what to do with the call."""

    kind: ClassVar[str] = "call.routed"
    route: int  # index in the tenant's routes
    flow: str
    why: str = ""  # the match that won, as `dialplan explain` prints it


@dataclass(frozen=True, slots=True)
class CallLimited(Event):
    """No place was left. shared: for nobody; otherwise for this process, and another one may have a place."""

    kind: ClassVar[str] = "call.limited"
    scope: str  # trunk/<name> | tenant/<name>
    limit: int
    shared: bool = True


@dataclass(frozen=True, slots=True)
class CallStateChanged(Event):
    """The call goes from one state to the next: ringing, early, answered, ending, ended."""

    kind: ClassVar[str] = "call.state"
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class CallMuted(Event):
    """Somebody outside had the caller muted, or heard again."""

    kind: ClassVar[str] = "call.muted"
    muted: bool


@dataclass(frozen=True, slots=True)
class CallOnHold(Event):
    """Somebody outside put the caller on hold, or ended that. What the caller's own telephone holds is `leg.held`."""

    kind: ClassVar[str] = "call.on_hold"
    on: bool


@dataclass(frozen=True, slots=True)
class CallEnded(Event):
    """The call is over. docs/operations.md lists the reasons. Only a leg's last statistics, and what is done with a
    message that was left, may follow.
    """

    kind: ClassVar[str] = "call.ended"
    reason: str  # calls.states.EndReason
    sip_code: int = 0
    detail: str = ""
