"""What all calls of a process share. `app` fills it in."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from sipserver.agent.options import AgentOptions, Engines, Fetch, Outcome
from sipserver.agent.voice import AudioCache, Voice
from sipserver.audio.frame import Frame
from sipserver.audio.playout import Playout
from sipserver.calls.bots import Bots
from sipserver.calls.conference import Rooms
from sipserver.calls.deciding import Decides
from sipserver.calls.digits import DigitBuffer
from sipserver.calls.limits import Allowances, Limits
from sipserver.calls.outbound import Outbound
from sipserver.calls.queues import Queues
from sipserver.calls.record import RecordSink
from sipserver.calls.recording import Recorder
from sipserver.calls.scribe import Scribe
from sipserver.calls.settings import CallSettings, Redact
from sipserver.dialplan.book import Book
from sipserver.dialplan.facts import CallFacts
from sipserver.events import Emit, Stamped

Listener = Callable[[Stamped], None]
"""Somebody who counts (metrics) or shows what happens. Loop thread; never blocks, never raises."""


class Talk(Protocol):
    """One agent step at work, as `sipserver.agent.conversation.Conversation` is."""

    def hear(self, frame: Frame) -> None: ...
    def digit(self, digit: str) -> None: ...
    async def run(self) -> Outcome: ...


class Converse(Protocol):
    """Makes a `Talk`. `sipserver.agent.conversation.Conversation` itself is one."""

    def __call__(
        self,
        *,
        options: AgentOptions,
        engines: Engines,
        playout: Playout,
        emit: Emit,
        digits: DigitBuffer,
        variables: dict[str, str],
        voice: Voice,
        fetch: Fetch | None,
    ) -> Talk: ...


LimitsOf = Callable[[str, str], Mapping[str, int]]
"""(tenant, trunk) -> the scopes in which a call needs a place, with their limits; empty: it needs none."""


def _unlimited(_tenant: str, _trunk: str) -> Mapping[str, int]:
    return {}


def _anybody(_facts: CallFacts) -> Collection[str]:
    return ()


def _cards(_tenant: str) -> Redact:
    return Redact.CARDS


def _idle() -> float:
    return 0.0


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Services:
    """book: answers the dialplans that are valid now. clock: monotonic nanoseconds. now: the time of day, aware.

    tenants_of: whose routes an arriving call asks; none named: everybody's. redact_of: what of a tenant's calls is not
    told. load: percent of this process' places that are taken. outbound: who places calls; None: nobody does here.
    bots: who connects callers to bots; None: nobody does. decides: who asks other servers; None: nobody does. rooms:
    where the callers of this process meet. queues: where they wait. scribe: who writes their messages down.
    """

    settings: CallSettings
    engines: Engines
    speech_cache: AudioCache
    converse: Converse
    book: Callable[[], Book]
    recorder: Recorder
    records: RecordSink
    listeners: tuple[Listener, ...] = ()
    limits: Limits | None = None
    limits_of: LimitsOf = _unlimited
    tenants_of: Callable[[CallFacts], Collection[str]] = _anybody
    allowances: Allowances | None = None
    redact_of: Callable[[str], Redact] = _cards
    load: Callable[[], float] = _idle
    outbound: Outbound | None = None
    bots: Bots | None = None
    decides: Decides | None = None
    rooms: Rooms = field(default_factory=Rooms)
    queues: Queues = field(default_factory=Queues)
    scribe: Scribe = field(default_factory=Scribe)
    clock: Callable[[], int] = time.monotonic_ns
    now: Callable[[], datetime] = _now
