"""What legs have in common whose sound passes through Python: those over WebSockets and from browsers.

Owns the events that wait for a listener, who else hears the far end, what others say to it, and that there is one last
word. Refuses to know wires, protocols and when a frame is due. Satisfies the part of `calls.leg.Leg` that it has.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from sipserver.audio import tones
from sipserver.audio.clock import LegClock
from sipserver.audio.frame import SILENCE_PAYLOAD, Frame, Samples
from sipserver.audio.inlet import Inlet, Taker
from sipserver.audio.playout import Playout
from sipserver.errors import CallerError, CarrierError
from sipserver.events import DigitsSent, Emit, Event, LegDisconnected

OnMedia = Callable[[Frame, Frame], None]

_EARLIER_EVENTS = 1000  # kept until `attach`; beyond it the oldest go


class SoftLeg:
    """All methods: loop thread. clock: calls the leg's tick; its time stamps the frames."""

    def __init__(self, clock: LegClock) -> None:
        self._clock = clock
        self._playout, self._inlet = Playout(), Inlet()
        self._earlier: deque[Event] = deque(maxlen=_EARLIER_EVENTS)
        self._emit: Emit = self._earlier.append
        self._on_media: OnMedia | None = None
        self._hears, self._loops = True, False
        self._takers: tuple[Taker, ...] = ()
        self._gone: LegDisconnected | None = None
        self._ended = asyncio.Event()

    # --- calls.leg.Leg ------------------------------------------------------------------------------------------------

    @property
    def can_replace(self) -> bool:
        return False

    def attach(self, emit: Emit, on_media: OnMedia) -> None:
        """Connect the call; delivers what happened before."""
        earlier, self._emit, self._on_media = self._earlier, emit, on_media
        self._earlier = deque()
        for event in earlier:
            emit(event)

    def hear(self, wanted: bool) -> None:
        """Whether `on_media` is to be called; sound that nobody hears is not even decoded."""
        self._hears = wanted

    def loop_back(self, on: bool) -> None:
        """Send the far end's sound straight back as it came, without decoding it."""
        self._loops = on

    def feed(self, other: Taker, on: bool) -> None:
        """Tell another leg of this process what the far end says; see `calls.leg.Leg`."""
        others = tuple(taker for taker in self._takers if taker is not other)
        self._takers = (*others, other) if on and self._gone is None else others

    def take(self, source: object, frame: Frame) -> None:
        """20 ms of another leg's sound for the far end; see `calls.leg.Leg`."""
        if self._gone is None:
            self._inlet.put(source, frame.samples.tobytes())

    # --- beyond calls.leg.Leg -----------------------------------------------------------------------------------------

    async def ended(self) -> LegDisconnected:
        """Wait until the leg is gone."""
        await self._ended.wait()
        assert self._gone is not None
        return self._gone

    @property
    def is_gone(self) -> bool:
        return self._gone is not None

    # --- for those who are such legs ----------------------------------------------------------------------------------

    @property
    def _listened(self) -> bool:
        """Whether anybody wants to know what the far end says."""
        return self._hears or bool(self._takers)

    def _hand_over(self, samples: Samples | None, played: bytes | None) -> None:
        """What came in this tick, None: nothing, and what was played meanwhile, to all who hear it."""
        at_ns = self._clock.at_ns
        received = Frame.silence(at_ns) if samples is None else Frame(samples, at_ns)
        for taker in self._takers:
            taker.take(self, received)
        if self._hears and self._on_media is not None:
            if self._loops:
                self._on_media(received, received)
            else:
                silent = played is None or played is SILENCE_PAYLOAD
                self._on_media(received, Frame.silence(at_ns) if silent else Frame.of_payload(played or b"", at_ns))

    def _keys(self, digits: str) -> str:
        """Digits that are about to be sent, and told so. Raises CallerError for others, CarrierError when gone."""
        keys = digits.upper()
        if not keys or any(key not in tones.DIGITS for key in keys):
            raise CallerError("digits must be 0-9, *, # and A-D")
        self._require()
        self._emit(DigitsSent(keys))
        return keys

    async def _play_tones(self, keys: str, duration_ms: int) -> None:
        """Returns when the last one is over."""
        clip = self._playout.begin("digits")
        await clip.write(tones.digits(keys, duration_ms))
        clip.finish()
        await clip.heard()

    def _require(self) -> None:
        """Raises CarrierError when the leg is gone."""
        if self._gone is not None:
            raise CarrierError(f"the leg is gone: {self._gone.cause}", self._gone.code)

    def _last_word(self, code: int, cause: str, *, by_peer: bool) -> None:
        """The leg is gone from here on. Called once."""
        self._gone = LegDisconnected(code, cause, by_peer)
        self._takers = ()
        self._emit(self._gone)
        self._playout.flush()
        self._ended.set()
