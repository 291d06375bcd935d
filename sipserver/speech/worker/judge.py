"""Voice activity of all streams of a segment: one batch a tick, on one thread.

Owns the thread, the model's state of every slot, and when a voice starts and stops. Refuses to know who fills the slots
and where events go. Nothing here is done for each stream: ready streams are found, cut out of their rings, judged and
answered by operations on arrays, which is why two hundred of them cost little more than the model itself.

Silence after silence is not shown to the model, as in `vendors/silero.py`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sipserver import log
from sipserver.errors import ProviderBusy
from sipserver.speech.segment import CHUNK_SAMPLES, RING_SAMPLES, UNJUDGED, VERDICTS, Fence, Segment, Slot
from sipserver.speech.vendors.silero import (
    BACKLOG_CHUNKS,
    GATHER_S,
    HUSH_AFTER_CHUNKS,
    HUSH_PEAK,
    HUSH_PROBABILITY,
    LEAD_SAMPLES,
    MODEL_RATE_HZ,
    STATE,
    WINDOW_SAMPLES,
    halve_rate,
)

SLOTS = 1_024
VOICE = 0.5
STOPPED_CHUNKS = 3
"""Silent chunks after which a voice has stopped."""

OnVoice = Callable[[bool, int], None]
"""(started or stopped, milliseconds since the stream began). Called on the loop."""

_WINDOW = np.arange(WINDOW_SAMPLES)


class Judge:
    """Loop thread, but for what says otherwise. session: Silero's, as onnxruntime makes it.

    judged: chunks the model was shown. hushed: those it was not. late: those left out because the judge fell behind.
    failed: batches that the model refused.
    """

    def __init__(self, session: Any, slots: int = SLOTS) -> None:
        self.judged = self.hushed = self.late = self.failed = 0
        self.segment = Segment(slots)
        self._session = session
        self._loop = asyncio.get_running_loop()
        self._log = log.logger("speech", engine="silero")
        self._free = deque(range(slots))
        self._leaving: deque[int] = deque()
        self._listeners: dict[int, OnVoice] = {}
        self._active: NDArray[np.int64] = np.zeros(0, np.int64)
        self._state = np.zeros((2, slots, STATE), np.float32)
        self._silent = np.zeros(slots, np.int64)
        self._speaking = np.zeros(slots, np.bool_)
        self._fence = Fence()
        self._awake = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="judge", daemon=True)
        self._thread.start()

    @property
    def streams(self) -> int:
        return len(self._listeners)

    def open(self, on_voice: OnVoice) -> int:
        """Begin a stream; returns its slot. Raises ProviderBusy when all slots are taken."""
        if self._closed or not self._free:
            raise ProviderBusy("silero", f"{self.streams} streams are open")
        slot = self._free.popleft()
        self.segment.wipe(slot)
        self._state[:, slot] = 0
        self._silent[slot] = 0
        self._speaking[slot] = False
        self._listeners[slot] = on_voice
        self._active = np.array(sorted(self._listeners), np.int64)
        self._awake.set()
        return slot

    def writer(self, slot: int) -> Slot:
        """For a stream whose sound arrives by messages."""
        return self.segment.slot(slot)

    def release(self, slot: int) -> None:
        """The stream is over: its client is gone or has said so. The slot is free when no batch holds it any more."""
        del self._listeners[slot]
        self._active = np.array(sorted(self._listeners), np.int64)
        self._leaving.append(slot)
        self._awake.set()

    async def close(self) -> None:
        """Ends the thread. Clients find their streams unjudged from now on."""
        if not self._closed:
            self._closed = True
            self._awake.set()
            await asyncio.to_thread(self._thread.join)
            self.segment.close()

    # --- the judge's thread -------------------------------------------------------------------------------------------

    def _work(self) -> None:
        due = time.monotonic()
        while not self._closed:
            self._awake.wait()
            while self._leaving:
                self._free.append(self._leaving.popleft())
            while len(ready := self._ready()):
                self._tick(ready)
            self._rest()
            now = time.monotonic()
            due = max(due + GATHER_S, now)
            time.sleep(due - now)

    def _rest(self) -> None:
        """Sleep until somebody comes, if nobody is there; looked at once more, as they may come just now."""
        if not len(self._active):
            self._awake.clear()
            if len(self._active) or self._leaving or self._closed:
                self._awake.set()

    def _ready(self) -> NDArray[np.int64]:
        """Slots that hold a chunk which was not judged. Those too far behind lose their oldest chunks."""
        segment, active = self.segment, self._active
        complete = segment.written[active] // CHUNK_SAMPLES
        self._fence()
        waiting = complete - segment.judged[active]
        for place in np.flatnonzero(waiting > BACKLOG_CHUNKS):
            self._leave_out(int(active[place]), int(complete[place]) - BACKLOG_CHUNKS)
        ready: NDArray[np.int64] = active[waiting > 0]
        return ready

    def _leave_out(self, slot: int, until: int) -> None:
        judged = int(self.segment.judged[slot])
        self.late += until - judged
        left_out = np.arange(max(judged, until - VERDICTS), until) % VERDICTS
        self.segment.verdicts[slot, left_out] = UNJUDGED
        self._fence()
        self.segment.judged[slot] = until

    def _tick(self, ready: NDArray[np.int64]) -> None:
        """Judge one chunk of each ready slot."""
        segment = self.segment
        chunks = segment.judged[ready]
        first = chunks * CHUNK_SAMPLES - LEAD_SAMPLES
        windows = segment.sound[ready[:, None], (first[:, None] + _WINDOW) & (RING_SAMPLES - 1)]
        new = windows[:, -CHUNK_SAMPLES:]
        hush = (self._silent[ready] >= HUSH_AFTER_CHUNKS) & (new.max(axis=1) < HUSH_PEAK)
        hush &= new.min(axis=1) > -HUSH_PEAK
        probabilities = np.zeros(len(ready), np.float32)
        if not hush.all():
            shown = np.flatnonzero(~hush)
            probabilities[shown] = self._model(windows[shown], ready[shown])
        self.hushed += int(hush.sum())
        self.judged += len(ready) - int(hush.sum())
        segment.verdicts[ready, chunks % VERDICTS] = probabilities
        self._fence()
        segment.judged[ready] = chunks + 1
        self._silent[ready] = np.where(probabilities < HUSH_PROBABILITY, self._silent[ready] + 1, 0)
        self._voices(ready, chunks, probabilities)

    def _model(self, windows: NDArray[np.int16], slots: NDArray[np.int64]) -> NDArray[np.float32]:
        try:
            sound = {"input": halve_rate(windows), "state": self._state[:, slots], "sr": MODEL_RATE_HZ}
            output, self._state[:, slots] = self._session.run(None, sound)
        except Exception as problem:  # one bad batch must not end the voice activity of every call
            self.failed += 1
            self._log.error("speech.vad_failed", error=str(problem))
            return np.full(len(slots), UNJUDGED, np.float32)
        told: NDArray[np.float32] = output[:, 0]
        return told

    def _voices(self, ready: NDArray[np.int64], chunks: NDArray[np.int64], told: NDArray[np.float32]) -> None:
        speaking = self._speaking[ready]
        started = ~speaking & (told >= VOICE)
        stopped = speaking & (self._silent[ready] >= STOPPED_CHUNKS)
        changed = np.flatnonzero(started | stopped)
        self._speaking[ready[changed]] = started[changed]
        for place in changed:
            begins_early = int(chunks[place]) + (0 if started[place] else 1 - STOPPED_CHUNKS)
            at_ms = begins_early * CHUNK_SAMPLES // 16
            self._post(int(ready[place]), bool(started[place]), at_ms)

    def _post(self, slot: int, started: bool, at_ms: int) -> None:
        listener = self._listeners.get(slot)
        if listener is not None:
            try:
                self._loop.call_soon_threadsafe(listener, started, at_ms)
            except RuntimeError:  # the loop is closed
                self._closed = True
