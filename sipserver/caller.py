"""The built-in caller: places one real call, says its lines, listens to the answers, measures who spoke when.

Beside `app.py` this is the only module that joins rooms: a cell for the telephone side, speech for the words.
It decides by energy alone when the far end speaks, so that its latency figure does not depend on a model.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sipserver.audio.frame import FRAME_MS, Frame, Samples
from sipserver.audio.levels import rms_dbfs
from sipserver.audio.playout import Playout
from sipserver.errors import CarrierError
from sipserver.events import Emit, Event, LegAnswered, LegDisconnected, MediaStarted

VOICED_DBFS = -45.0
PAUSE_MS = 900
"""Silence after speech that ends what the far end says: longer than the gaps between the clauses of an answer."""

LEAD_IN_MS = 200
"""Sound kept from before the first loud frame: a soft first consonant is below the threshold, and Whisper, given a word
that is cut into, may read one word and stop."""

MAX_CALL_MS = 600_000


class CallerLeg(Protocol):
    """What the caller needs from its leg."""

    @property
    def playout(self) -> Playout: ...

    def attach(self, emit: Emit, on_media: Callable[[Frame, Frame], None]) -> None: ...

    async def hangup(self, code: int = 0) -> None: ...

    async def send_digits(self, digits: str, duration_ms: int = 160) -> None: ...


@dataclass(frozen=True, slots=True)
class Line:
    """One thing the caller does when it is its turn: say samples (16 kHz mono int16) or press digits."""

    text: str = ""
    samples: Samples | None = None
    digits: str = ""


@dataclass(frozen=True, slots=True)
class Heard:
    """One stretch of the far end's speech. start_ms and end_ms: since the caller's media began.

    samples: 16 kHz mono int16, with up to LEAD_IN_MS of what came before start_ms.
    """

    start_ms: int
    end_ms: int
    samples: Samples


@dataclass(frozen=True, slots=True)
class Exchange:
    """What the caller did and what came back. response_ms: caller's last sound to the answer's first."""

    said: str
    digits: str
    heard: Heard | None
    response_ms: int | None


@dataclass(frozen=True, slots=True)
class CallResult:
    """stereo: shape (n, 2), the caller left, the far end right."""

    answered: bool
    setup_ms: int
    codec: str
    greeting: Heard | None
    exchanges: tuple[Exchange, ...]
    code: int
    cause: str
    stereo: Samples


class Ear:
    """Cuts the far end's sound into stretches of speech by energy. Loop thread."""

    def __init__(self, pause_ms: int = PAUSE_MS) -> None:
        self._pause_ticks = pause_ms // FRAME_MS
        self._ticks = 0
        self._lead_in: deque[Samples] = deque(maxlen=LEAD_IN_MS // FRAME_MS)
        self._frames: list[Samples] = []
        self._started: int | None = None
        self._quiet = 0
        self.stretches: asyncio.Queue[Heard] = asyncio.Queue()
        self.speaking = asyncio.Event()

    @property
    def now_ms(self) -> int:
        return self._ticks * FRAME_MS

    def hear(self, samples: Samples) -> None:
        self._ticks += 1
        voiced = rms_dbfs(samples) > VOICED_DBFS
        if self._started is None:
            if not voiced:
                self._lead_in.append(samples)
                return
            self._started = self._ticks - 1
            self.speaking.set()
        self._frames.append(samples)
        self._quiet = 0 if voiced else self._quiet + 1
        if self._quiet >= self._pause_ticks:
            self.close()

    def close(self) -> None:
        """End the current stretch, if there is one."""
        if self._started is None:
            return
        spoken = len(self._frames) - self._quiet
        frames, after = self._frames[:spoken], self._frames[spoken:]
        start_ms = self._started * FRAME_MS
        end_ms = start_ms + len(frames) * FRAME_MS
        self.stretches.put_nowait(Heard(start_ms, end_ms, np.concatenate([*self._lead_in, *frames])))
        self._lead_in.clear()
        self._lead_in.extend(after)
        self._started, self._frames, self._quiet = None, [], 0
        self.speaking.clear()


class Caller:
    """Drives one outbound leg through its lines. Loop thread."""

    def __init__(self, leg: CallerLeg) -> None:
        self._leg = leg
        self._ear = Ear()
        self._left: list[Samples] = []
        self._right: list[Samples] = []
        self._last_spoken_ms = 0
        self._answered = asyncio.Event()
        self._gone: asyncio.Future[LegDisconnected] = asyncio.get_running_loop().create_future()
        self._codec = ""

    async def run(
        self, lines: Sequence[Line], *, answer_timeout_s: float = 20, turn_timeout_s: float = 15
    ) -> CallResult:
        """Wait for the answer, hear the greeting, then take turns. Hangs up at the end. Raises CarrierError."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._leg.attach(self._on_event, self._on_media)
        try:
            await self._first(self._answered.wait(), answer_timeout_s)
            if self._gone.done() and not self._answered.is_set():
                gone = self._gone.result()
                raise CarrierError(f"the call was refused: {gone.code} {gone.cause}", gone.code)
            if not self._answered.is_set():
                raise CarrierError(f"no answer within {answer_timeout_s:g} s; does a server listen there?", 408)
            setup_ms = round((loop.time() - began) * 1000)
            greeting = await self._listen(turn_timeout_s / 3, turn_timeout_s)
            exchanges = []
            for line in lines:
                if self._gone.done():
                    break
                exchanges.append(await self._take_turn(line, turn_timeout_s))
        finally:
            await self._leg.hangup()
        gone = await asyncio.wait_for(asyncio.shield(self._gone), 5)
        stereo = (
            np.stack((np.concatenate(self._left), np.concatenate(self._right)), 1)
            if self._left
            else np.zeros((0, 2), np.int16)
        )
        return CallResult(True, setup_ms, self._codec, greeting, tuple(exchanges), gone.code, gone.cause, stereo)

    async def _take_turn(self, line: Line, timeout_s: float) -> Exchange:
        if line.samples is not None:
            clip = self._leg.playout.begin("caller")
            await clip.write(line.samples)
            clip.finish()
            await self._first(clip.heard(), 2 + len(line.samples) / 16_000 * 2)
        if line.digits:
            await self._leg.send_digits(line.digits)
            self._last_spoken_ms = self._ear.now_ms
        ended_ms = self._last_spoken_ms
        while not self._ear.stretches.empty():
            self._ear.stretches.get_nowait()
        heard = await self._listen(timeout_s, timeout_s)
        response_ms = heard.start_ms - ended_ms if heard is not None and heard.start_ms >= ended_ms else None
        return Exchange(line.text, line.digits, heard, response_ms)

    async def _listen(self, begin_s: float, end_s: float) -> Heard | None:
        """The next stretch of the far end's speech; None if it does not begin in time or the call ends before."""
        await self._first(self._ear.speaking.wait(), begin_s)
        if not self._ear.speaking.is_set() and self._ear.stretches.empty():
            return None
        await self._first(self._stretch_ready(), end_s)
        if self._ear.stretches.empty():
            self._ear.close()
        return None if self._ear.stretches.empty() else self._ear.stretches.get_nowait()

    async def _stretch_ready(self) -> None:
        heard = await self._ear.stretches.get()
        self._ear.stretches.put_nowait(heard)

    async def _first(self, waiting: object, timeout_s: float) -> None:
        """Wait for something, the end of the call or the time-out, whichever comes first."""
        task = asyncio.ensure_future(waiting)  # type: ignore[call-overload]
        try:
            await asyncio.wait({task, self._gone}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _on_media(self, inbound: Frame, outbound: Frame) -> None:
        self._ear.hear(inbound.samples)
        if rms_dbfs(outbound.samples) > VOICED_DBFS:
            self._last_spoken_ms = self._ear.now_ms
        if self._ear.now_ms < MAX_CALL_MS:
            self._left.append(outbound.samples)
            self._right.append(inbound.samples)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, MediaStarted):
            self._codec = event.codec
        elif isinstance(event, LegAnswered):
            self._answered.set()
        elif isinstance(event, LegDisconnected) and not self._gone.done():
            self._ear.close()
            self._gone.set_result(event)


def summary(result: CallResult) -> dict[str, object]:
    """The result without its sound, for `--json`."""

    def plain(heard: Heard | None) -> dict[str, int] | None:
        return None if heard is None else {"start_ms": heard.start_ms, "end_ms": heard.end_ms}

    return {
        "answered": result.answered,
        "setup_ms": result.setup_ms,
        "codec": result.codec,
        "greeting": plain(result.greeting),
        "exchanges": [
            {
                "said": exchange.said,
                "digits": exchange.digits,
                "heard": plain(exchange.heard),
                "response_ms": exchange.response_ms,
            }
            for exchange in result.exchanges
        ],
        "code": result.code,
        "cause": result.cause,
    }
