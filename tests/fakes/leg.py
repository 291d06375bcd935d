"""A leg and its media clock, driven by hand: behaves as `calls/leg.py` promises, without a network and without time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from sipserver.audio.frame import FRAME_SAMPLES, Frame, Samples
from sipserver.audio.playout import Playout
from sipserver.calls.leg import OnMedia
from sipserver.errors import CarrierError
from sipserver.events import DigitReceived, Emit, Event, LegAnswered, LegDisconnected, ReferProgress


@dataclass(frozen=True)
class FakeOffer:
    direction: str = "inbound"
    from_uri: str = "sip:alice@example.org"
    from_user: str = "alice"
    to_uri: str = "sip:demo@127.0.0.1"
    to_user: str = "demo"
    source: str = "127.0.0.1:5070"
    transport: str = "udp"
    sip_call_id: str = "abc@127.0.0.1"
    headers: Mapping[str, str] = field(default_factory=dict)
    trunk: str = ""


class FakeLeg:
    """actions: what the call asked for, in order. slow_answer: `answer` waits until `go_on` is set; then it is refused
    with `refusal` if there is one. feeds: the legs that hear this one. refer_answer: what comes of a REFER.
    """

    def __init__(
        self,
        offer: FakeOffer | None = None,
        *,
        wants_inband_digits: bool = False,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.clock = clock
        self.offer = offer or FakeOffer()
        self.playout = Playout()
        self.wants_inband_digits = wants_inband_digits
        self.actions: list[str] = []
        self.reject_headers: Mapping[str, str] | None = None
        self.slow_answer = False
        self.silent_hangup = False
        self.go_on = asyncio.Event()
        self.gone = False
        self.media = False
        self.heard = True
        self.looped = False
        self.feeds: set[FakeLeg] = set()
        self.taken: list[tuple[object, Frame]] = []
        self.can_refer = self.can_replace = True
        self.refer_answer: int | CarrierError = 200
        self.refusal = 0
        self.played: list[Samples] = []
        self._earlier: list[Event] = []
        self._emit: Emit | None = None
        self._on_media: OnMedia | None = None

    # --- what the call does -------------------------------------------------------------------------------------------

    def attach(self, emit: Emit, on_media: OnMedia) -> None:
        assert self._emit is None
        self._emit, self._on_media = emit, on_media
        for event in self._earlier:
            emit(event)

    def hear(self, wanted: bool) -> None:
        self.heard = wanted

    def loop_back(self, on: bool) -> None:
        self.looped = on

    def feed(self, other: FakeLeg, on: bool) -> None:
        if on:
            self.feeds.add(other)
        else:
            self.feeds.discard(other)

    def take(self, source: object, frame: Frame) -> None:
        self.taken.append((source, frame))

    async def refer(self, to_uri: str, *, replaces: FakeLeg | None = None) -> int:
        self._do(f"refer {to_uri}{' replaces' if replaces is not None else ''}")
        if isinstance(self.refer_answer, CarrierError):
            raise self.refer_answer
        self.tell(ReferProgress(code=self.refer_answer, final=True))
        return self.refer_answer

    async def ring(self) -> None:
        self._do("ring")

    async def early(self) -> None:
        self._do("early")
        self.media = True

    async def answer(self) -> None:
        self._do("answer")
        if self.slow_answer:
            await self.go_on.wait()
            if self.refusal:
                raise CarrierError("refused", self.refusal)
            self._alive()
        self.media = True
        self.tell(LegAnswered())

    async def reject(self, code: int, reason: str = "", headers: Mapping[str, str] | None = None) -> None:
        self.reject_headers = headers
        self._leave(f"reject {code} {reason}".strip(), code)

    async def hangup(self, code: int = 0) -> None:
        self._leave("hangup", code)

    async def send_digits(self, digits: str, duration_ms: int = 160) -> None:
        self._do(f"digits {digits}")

    # --- what the test does -------------------------------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        """The leg emits; before `attach` it keeps."""
        if self._emit is None:
            self._earlier.append(event)
        else:
            self._emit(event)

    def press(self, digits: str) -> None:
        for digit in digits:
            self.tell(DigitReceived(digit=digit))

    def peer_leaves(self) -> None:
        """BYE or CANCEL came."""
        if not self.gone:
            self.gone = True
            self.tell(LegDisconnected(code=200, cause="Normal", by_peer=True))

    def tick_now(self, inbound: Samples | None = None) -> Samples:
        """One media tick, synchronously. Returns what was played in it."""
        payload = self.playout.pull()
        at_ns = self.clock()
        outbound = Frame.silence(at_ns) if payload is None else Frame.of_payload(payload, at_ns)
        heard = Frame.silence(at_ns) if inbound is None else Frame(inbound, at_ns)
        if self.looped:
            outbound = heard
        self.played.append(outbound.samples)
        self.playout.tick()
        if self.media and self.heard and not self.gone and self._on_media is not None:
            self._on_media(heard, outbound)
        return outbound.samples

    async def ticks(self, count: int, inbound: Samples | None = None) -> None:
        """Media ticks; after each of them everybody who waits for something has had a turn."""
        for _ in range(count):
            self.tick_now(inbound)
            await breathe()

    def _alive(self) -> None:
        if self.gone:
            raise CarrierError("the leg is gone")

    def _do(self, action: str) -> None:
        self._alive()
        self.actions.append(action)

    def _leave(self, action: str, code: int) -> None:
        if self.gone:
            return
        self.actions.append(action)
        self.gone = True
        if not self.silent_hangup:
            self.tell(LegDisconnected(code=code, cause="", by_peer=False))


async def breathe(turns: int = 10) -> None:
    """Let all that is ready run."""
    for _ in range(turns):
        await asyncio.sleep(0)


def level(value: int) -> Samples:
    """A frame whose samples all have one value, so that it can be found again."""
    return np.full(FRAME_SAMPLES, value, np.int16)
