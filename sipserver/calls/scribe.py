"""Messages that callers left, written down while nobody waits for it.

Owns the order in which messages are transcribed and how many may wait. Refuses to record, and to choose engines.
"""

from __future__ import annotations

import asyncio
import wave
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sipserver.agent.options import Engines
from sipserver.agent.transcriber import Transcriber
from sipserver.audio.frame import RATE_HZ, Samples
from sipserver.errors import SipServerError
from sipserver.events import Emit, Fault, VoicemailTranscribed

WAITING = 100
"""Messages that may wait. Further ones are kept without a transcript, and their records say so."""

PIECE_S = 28.0
"""What an engine takes at once is 30 s."""

_SEARCH_S = 6.0
_QUIET_S = 0.2
_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Message:
    """A file with one channel of 16 kHz int16. opens: gives it as WAV; called in a thread. chain: the engines to ask,
    in this order. emit: of the call's record.
    """

    box: str
    path: Path
    opens: Callable[[], BinaryIO]
    chain: Sequence[str]
    language: str
    emit: Emit


class Scribe:
    """One message after the other; callers who talk with an agent go first. Loop thread."""

    def __init__(self, waiting: int = WAITING) -> None:
        self._bound = waiting
        self._turn = asyncio.Semaphore(1)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def depth(self) -> int:
        """Messages that wait or are being written down."""
        return len(self._tasks)

    def write(self, message: Message, engines: Engines) -> None:
        """Returns at once. A `VoicemailTranscribed` or a `Fault` is told to the message's record later."""
        if len(self._tasks) >= self._bound:
            message.emit(Fault(where="voicemail", error=f"not written down: {self._bound} messages are waiting"))
            return
        task = asyncio.create_task(self._write(message, engines), name=f"transcript of {message.path.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Leave the rest unwritten."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _write(self, message: Message, engines: Engines) -> None:
        loop = asyncio.get_running_loop()
        transcriber = Transcriber(engines.stt, message.chain, message.language, _TIMEOUT_S, message.emit)
        async with self._turn:
            began_s, texts, language = loop.time(), [], message.language
            try:
                for piece in pieces(await asyncio.to_thread(_read, message.opens)):
                    heard = await transcriber.transcribe(piece, speculative=True)
                    texts.append(heard.text)
                    language = heard.language or language
            except (SipServerError, OSError, wave.Error) as problem:
                message.emit(Fault(where="voicemail", error=f"not written down: {problem}"))
                return
        text = " ".join(filter(None, texts))
        took_ms = round((loop.time() - began_s) * 1000)
        message.emit(VoicemailTranscribed(message.box, str(message.path), text, language, took_ms))


def pieces(samples: Samples, longest_s: float = PIECE_S) -> Iterator[Samples]:
    """Parts of at most longest_s in order, cut where the last seconds of each are quietest. Pure."""
    longest, search, quiet = (
        round(seconds * RATE_HZ) for seconds in (longest_s, min(_SEARCH_S, longest_s / 2), _QUIET_S)
    )
    while len(samples) > longest:
        tail = samples[longest - search : longest].astype(np.float32)
        power = np.add.reduceat(tail**2, np.arange(0, len(tail), quiet))
        cut = longest - search + int(power.argmin()) * quiet + quiet // 2
        yield samples[:cut]
        samples = samples[cut:]
    if len(samples):
        yield samples


def _read(opens: Callable[[], BinaryIO]) -> Samples:
    with opens() as opened, wave.open(opened) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.int16)
