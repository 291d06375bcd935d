"""Callers meet, wait, leave a message: conferences, queues, voicemail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sipserver.events.base import Event, private


@dataclass(frozen=True, slots=True)
class ConferenceJoined(Event):
    """member: this caller's number in the room, which nobody else gets. members: so many are in it now."""

    kind: ClassVar[str] = "conference.joined"
    room: str
    member: int
    members: int
    moderator: bool = False


@dataclass(frozen=True, slots=True)
class ConferenceLeft(Event):
    """reason: hangup (this call is over) | kicked | moderator_left (the room is over). members: who stay."""

    kind: ClassVar[str] = "conference.left"
    room: str
    member: int
    reason: str
    members: int
    lasted_ms: int = 0


@dataclass(frozen=True, slots=True)
class ConferenceMuted(Event):
    """Nobody in the room hears this caller any more, or they do again. by: key | operator."""

    kind: ClassVar[str] = "conference.muted"
    room: str
    member: int
    muted: bool
    by: str


@dataclass(frozen=True, slots=True)
class QueueEntered(Event):
    """position: 1 is the next to be served. waiting: so many wait now."""

    kind: ClassVar[str] = "queue.entered"
    queue: str
    position: int
    waiting: int


@dataclass(frozen=True, slots=True)
class QueueOffered(Event):
    """An agent is called for the caller, or gets them. waited_ms: since the caller came into the queue."""

    kind: ClassVar[str] = "queue.offered"
    queue: str
    agent: str = private()
    waited_ms: int = 0


@dataclass(frozen=True, slots=True)
class QueueConnected(Event):
    """Caller and agent hear each other. call: the id of the other one's call, if the agent dialled in."""

    kind: ClassVar[str] = "queue.connected"
    queue: str
    agent: str = private()
    waited_ms: int = 0
    call: str = ""


@dataclass(frozen=True, slots=True)
class QueueLeft(Event):
    """reason: answered (they talked with an agent) | timeout | abandoned (by key) | hangup | failed. waited_ms: until
    they were connected, or left.
    """

    kind: ClassVar[str] = "queue.left"
    queue: str
    reason: str
    waited_ms: int = 0


@dataclass(frozen=True, slots=True)
class QueueServed(Event):
    """In the record of an agent that dialled in: a caller was with them, from `queue.connected` to here."""

    kind: ClassVar[str] = "queue.served"
    queue: str
    call: str
    lasted_ms: int = 0


@dataclass(frozen=True, slots=True)
class VoicemailLeft(Event):
    """A message lies in a box. ended_by: key | silence | tone (of a network, after the caller hung up) | max |
    hangup.
    """

    kind: ClassVar[str] = "voicemail.left"
    box: str
    path: str
    duration_ms: int
    ended_by: str


@dataclass(frozen=True, slots=True)
class VoicemailTranscribed(Event):
    """What a message says. It may come when the call is long over. text: empty when there were no words."""

    kind: ClassVar[str] = "voicemail.transcribed"
    box: str
    path: str
    text: str = private()
    language: str = ""
    took_ms: int = 0
