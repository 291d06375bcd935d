"""What calls need to hand their sound to somebody's bot. `streams.bots.client.BotClient` satisfies it structurally."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, Self

from sipserver.audio.frame import Frame
from sipserver.audio.playout import Playout
from sipserver.events import Emit


@dataclass(frozen=True, slots=True)
class BotOrder:
    """url: ws:// or wss://. protocol: `twilio`, `vonage`, `asterisk`, `asterisk-json`, `pcm`. both: it speaks, too;
    otherwise it only listens. tracks: whose sound it gets: `inbound`, `outbound`, `both`. rate_hz: None: the protocol's
    own. headers_env, sign_env: names of environment variables. silent_s: 0: it may be silent for ever.
    """

    url: str
    protocol: str
    both: bool
    call_id: str
    tenant: str
    from_user: str
    to_user: str
    tracks: str = "inbound"
    rate_hz: int | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    headers_env: Mapping[str, str] = field(default_factory=dict)
    sign_env: str = ""
    connect_s: float = 5.0
    silent_s: float = 0.0


class BotOver(Protocol):
    """How it ended. outcome: `done`, `failed`, `silent`."""

    @property
    def outcome(self) -> str: ...
    @property
    def cause(self) -> str: ...


class Bot(Protocol):
    """A connection, which closes when its async context is left. Loop thread; only `run` waits."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *_: object) -> None: ...

    def hear(self, frame: Frame) -> None:
        """20 ms of the caller, for a bot that speaks."""
        ...

    def overhear(self, inbound: Frame, outbound: Frame) -> None:
        """20 ms of both directions, for a bot that only listens."""
        ...

    def digit(self, digit: str) -> None: ...

    async def run(self) -> BotOver:
        """Until the bot is done, has failed or is silent. Safe to cancel."""
        ...


class Bots(Protocol):
    async def open(self, order: BotOrder, playout: Playout, emit: Emit) -> Bot:
        """Connect within order.connect_s. playout: where the bot is heard. Raises ProviderError. Safe to cancel."""
        ...
