"""What a connection to a bot needs of its protocol, and what a bot may ask for.

A `Dialect` is pure: it makes messages and reads them, once a connection, in order. Text messages are str, binary ones
bytes. What no dialect needs to answer has a default here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from sipserver.streams.contract import WireFormat

Message = str | bytes


class Order(Protocol):
    """What the call wants; `calls.bots.BotOrder` is one.

    url: ws:// or wss://. protocol: a key of `client.DIALECTS`. both: the bot speaks, too; otherwise it only listens.
    tracks: whose sound it gets: `inbound` (the caller), `outbound` (what the caller hears), `both`. rate_hz: None: as
    the protocol has it. headers: of the handshake; headers_env: further ones, by the name of the environment variable
    with the value. sign_env: the variable with the key of X-Twilio-Signature; empty: none. silent_s: 0: it may be
    silent for ever.
    """

    @property
    def url(self) -> str: ...
    @property
    def protocol(self) -> str: ...
    @property
    def both(self) -> bool: ...
    @property
    def tracks(self) -> str: ...
    @property
    def rate_hz(self) -> int | None: ...
    @property
    def parameters(self) -> Mapping[str, str]: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def headers_env(self) -> Mapping[str, str]: ...
    @property
    def sign_env(self) -> str: ...
    @property
    def connect_s(self) -> float: ...
    @property
    def silent_s(self) -> float: ...
    @property
    def call_id(self) -> str: ...
    @property
    def tenant(self) -> str: ...
    @property
    def from_user(self) -> str: ...
    @property
    def to_user(self) -> str: ...


# --- what a bot asks for ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sound:
    """To be played behind what was sent before, in the dialect's wire format, of any length."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Mark:
    """Tell (`Dialect.marked`) when all that was sent before was played. pad: a last part of a frame is played, too."""

    name: str
    pad: bool = False


@dataclass(frozen=True, slots=True)
class Clear:
    """Throw away what was not played yet."""


@dataclass(frozen=True, slots=True)
class Drained:
    """Tell (`Dialect.drained`) once when nothing is left to play."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Play silence and keep what is there (on), or go on."""

    on: bool


@dataclass(frozen=True, slots=True)
class Direction:
    """Whether the bot's sound is taken, and whether it gets the caller's."""

    speaks: bool
    hears: bool


@dataclass(frozen=True, slots=True)
class Status:
    """Tell (`Dialect.status`) how much waits."""


@dataclass(frozen=True, slots=True)
class HangUp:
    """It is over for the bot, at once."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Well formed, and nothing that we know: ignored and counted."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """Known, and nothing that we have to act on."""


Ask = Nothing | Sound | Mark | Clear | Drained | Pause | Direction | Status | HangUp | Unknown


class Dialect(ABC):
    """One connection's protocol. wire: of the sound in both directions. subprotocols: what the handshake offers."""

    wire: WireFormat
    subprotocols: ClassVar[tuple[str, ...]] = ()
    per_track: ClassVar[bool] = False
    """Whether messages say whose sound they carry."""

    @abstractmethod
    def opening(self) -> Sequence[Message]:
        """What we say first."""

    @abstractmethod
    def sound(self, payload: bytes, track: str, at_ms: int) -> Message:
        """20 ms of a track (`inbound`, `outbound`). at_ms: since the opening."""

    @abstractmethod
    def digit(self, digit: str) -> Message: ...

    @abstractmethod
    def read(self, message: Message) -> Ask:
        """Raises BadPayload for what is none of the protocol."""

    def marked(self, name: str, *, played: bool) -> Message | None:
        """played: False when its sound was thrown away."""
        return None

    def cleared(self) -> Message | None:
        return None

    def drained(self) -> Message | None:
        return None

    def level(self, frames: int) -> Message | None:
        """So many frames wait now: whether the bot has to be told."""
        return None

    def status(self, frames: int, *, paused: bool) -> Message | None:
        return None

    def closing(self, reason: str) -> Sequence[Message]:
        """What we say last, before we close."""
        return ()
