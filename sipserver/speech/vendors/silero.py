"""Silero voice activity detection: all streams of a process as one batch, in one thread.

Owns the cutting of 20 ms frames into 32 ms chunks, their way through the model and back onto the loop. Refuses to
decide what speech is: callers put thresholds on the probability (usual: speech from 0.5, silence below 0.35).

The model runs at 8 kHz: that halves its cost, and on telephone sound, which holds nothing above 4 kHz, it breaks
speech up less often than at 16 kHz. Streams fed in one turn of the loop share a batch; streams on other clocks are
gathered for up to `GATHER_S`, so a process runs the model at most 62 times a second, whatever the number of calls.
A stream that has been silent for a while and stays below -54 dBFS is not shown to the model: waking the thread and its
cold caches costs five times what the model itself does, and a caller who listens to the agent is mostly that quiet.
"""

from __future__ import annotations

import asyncio
import importlib
import queue
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sipserver import log
from sipserver.audio.frame import RATE_HZ, Frame
from sipserver.speech import models
from sipserver.speech.contract import OnProbability

CHUNK_SAMPLES = 512
GATHER_S = 0.016
BACKLOG_CHUNKS = 10
HUSH_PEAK = 64
HUSH_AFTER_CHUNKS = 10
HUSH_PROBABILITY = 0.35

STATE = 128
MODEL_RATE_HZ = np.array(8_000, np.int64)
_MODEL_CONTEXT = 32
_TAPS = 31
_MIDDLE = _TAPS // 2
LEAD_SAMPLES = 2 * _MODEL_CONTEXT + _TAPS - 1
"""Sound before a chunk that has to be shown with it."""
WINDOW_SAMPLES = LEAD_SAMPLES + CHUNK_SAMPLES

Floats = NDArray[np.float32]


def _half_band() -> Floats:
    """Linear-phase low-pass at 4 kHz. Every second tap is 0 but the middle one: half the work is never done."""
    offset = np.arange(_TAPS) - _MIDDLE
    taps = np.sinc(offset / 2) * np.kaiser(_TAPS, 5)
    scaled: Floats = (taps / taps.sum()).astype(np.float32)
    return scaled


_HALF_BAND = _half_band()


def halve_rate(windows: NDArray[np.int16]) -> Floats:
    """(streams, 606) at 16 kHz to (streams, 288) at 8 kHz in [-1, 1): 32 samples of context and 256 new ones."""
    scaled = windows.astype(np.float32) / np.float32(32768)
    even, odd = np.ascontiguousarray(scaled[:, ::2]), scaled[:, 1::2]
    # One convolution over all rows end to end; what it makes of the seams between rows is not kept.
    convolved = np.convolve(even.reshape(-1), _HALF_BAND[::2], "valid")
    rows, width = even.shape
    strides = (width * convolved.itemsize, convolved.itemsize)
    filtered = np.lib.stride_tricks.as_strided(convolved, (rows, width - _MIDDLE), strides, writeable=False)
    halved: Floats = filtered + _HALF_BAND[_MIDDLE] * odd[:, _MIDDLE // 2 : _MIDDLE // 2 + width - _MIDDLE]
    return halved


class SileroStream:
    """The voice activity of one call. Loop thread. dropped: chunks lost because the engine fell behind."""

    def __init__(self, vad: SileroVad, on_probability: OnProbability) -> None:
        self.dropped = 0
        self.closed = False
        self._vad, self._on_probability = vad, on_probability
        self._heard = np.zeros(WINDOW_SAMPLES + CHUNK_SAMPLES, np.int16)
        self._filled = WINDOW_SAMPLES - CHUNK_SAMPLES
        self._backlog: deque[tuple[NDArray[np.int16], int]] = deque()
        self._in_flight = False
        self._silent_chunks = 0
        self.state: Floats = np.zeros((2, STATE), np.float32)

    def hear(self, frame: Frame) -> None:
        if self.closed:
            return
        samples = frame.samples
        self._heard[self._filled : self._filled + len(samples)] = samples
        self._filled += len(samples)
        if self._filled < WINDOW_SAMPLES:
            return
        beyond = self._filled - WINDOW_SAMPLES
        self._cut(frame.at_ns - beyond * 1_000_000_000 // RATE_HZ)
        kept = self._filled - CHUNK_SAMPLES
        self._heard[:kept] = self._heard[CHUNK_SAMPLES : self._filled].copy()
        self._filled = kept

    def _cut(self, at_ns: int) -> None:
        """A chunk is complete: to the model with it, or straight back if it is hush after silence."""
        idle = not self._backlog and not self._in_flight
        new = self._heard[WINDOW_SAMPLES - CHUNK_SAMPLES : WINDOW_SAMPLES]
        if idle and self._silent_chunks >= HUSH_AFTER_CHUNKS and new.max() < HUSH_PEAK and new.min() > -HUSH_PEAK:
            self._vad.hush(self, at_ns)
            return
        if len(self._backlog) == BACKLOG_CHUNKS:
            self._backlog.popleft()
            self.dropped += 1
            self._vad.dropped += 1
        self._backlog.append((self._heard[:WINDOW_SAMPLES].copy(), at_ns))
        self._vad.wake(self)

    def close(self) -> None:
        self.closed = True
        self._backlog.clear()

    @property
    def waiting(self) -> bool:
        return bool(self._backlog)

    def take(self) -> tuple[NDArray[np.int16], int] | None:
        """The oldest chunk with what came before it, and the time of its end. `landed` must follow."""
        if not self._backlog:
            return None
        self._in_flight = True
        return self._backlog.popleft()

    def tell(self, probability: float, at_ns: int) -> None:
        self._silent_chunks = self._silent_chunks + 1 if probability < HUSH_PROBABILITY else 0
        if not self.closed:
            self._on_probability(probability, at_ns)

    def landed(self) -> None:
        """The chunk that was taken is back, judged or not."""
        self._in_flight = False


_Batch = list[tuple[SileroStream, NDArray[np.int16], int]]


class SileroVad:
    """Satisfies `contract.Vad`. Counts chunks that were dropped or hushed, batches, and batches that failed."""

    name = "silero"

    def __init__(self, session: Any) -> None:
        self.dropped = self.failed = self.batches = self.hushed = 0
        self._session = session
        self._loop = asyncio.get_running_loop()
        self._log = log.logger("speech", engine=self.name)
        self._ready: dict[SileroStream, None] = {}
        self._busy = self._planned = self._closed = False
        self._began_at = 0.0
        self._inbox: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._work, name="silero", daemon=True)
        self._thread.start()

    @property
    def depth(self) -> int:
        """Streams with sound that waits to be judged."""
        return len(self._ready)

    def stream(self, on_probability: OnProbability) -> SileroStream:
        return SileroStream(self, on_probability)

    async def close(self) -> None:
        """Ends the thread. Streams that are still open hear nothing any more."""
        if not self._closed:
            self._closed = True
            self._inbox.put(None)
        await asyncio.shield(self._ended)
        self._thread.join()

    def wake(self, stream: SileroStream) -> None:
        """A stream has a chunk. The batch leaves at the end of this turn of the loop, or when the gathering is over."""
        self._ready[stream] = None
        self._plan()

    def hush(self, stream: SileroStream, at_ns: int) -> None:
        """A chunk without anything to judge: told like any other, after this turn of the loop."""
        if not self._closed:
            self.hushed += 1
            self._loop.call_soon(stream.tell, 0.0, at_ns)

    def _plan(self) -> None:
        if self._busy or self._planned or self._closed or not self._ready:
            return
        self._planned = True
        early = self._began_at + GATHER_S - time.monotonic()
        if early > 0:
            self._loop.call_later(early, self._dispatch)
        else:
            self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._planned = False
        batch: _Batch = []
        ready, self._ready = self._ready, {}
        for stream in ready:
            if taken := stream.take():
                batch.append((stream, *taken))
        if batch and not self._closed:
            self._busy = True
            self._began_at = time.monotonic()
            self._inbox.put(batch)

    def _work(self) -> None:
        """Worker thread. Nobody else touches a stream's state while the stream is in a batch."""
        while (batch := self._inbox.get()) is not None:
            probabilities: list[float] | None = None
            try:
                sound = halve_rate(np.stack([window for _, window, _ in batch]))
                state = np.stack([stream.state for stream, _, _ in batch], axis=1)
                output, state = self._session.run(None, {"input": sound, "state": state, "sr": MODEL_RATE_HZ})
                for number, (stream, _, _) in enumerate(batch):
                    stream.state = state[:, number].copy()
                probabilities = output[:, 0].tolist()
            except Exception as problem:  # one bad batch must not end the voice activity of every call
                self._log.error("speech.vad_failed", error=str(problem))
            if not self._post(self._finish, batch, probabilities):
                return
        self._post(self._end)

    def _post(self, callback: Any, *arguments: Any) -> bool:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:  # the loop is closed
            return False
        return True

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def _finish(self, batch: _Batch, probabilities: list[float] | None) -> None:
        self._busy = False
        self.batches += 1
        for stream, _, _ in batch:
            stream.landed()
            if stream.waiting:
                self._ready[stream] = None
        self._plan()
        if probabilities is None:
            self.failed += 1
            return
        for (stream, _, at_ns), probability in zip(batch, probabilities, strict=True):
            stream.tell(probability, at_ns)


async def load(folder: Path) -> SileroVad:
    """Start the detector. Raises ModelMissing."""
    return SileroVad(await session(folder))


async def session(folder: Path) -> Any:
    """The model alone, for those who gather batches themselves; `run` blocks. Raises ModelMissing."""
    path = models.find("silero", folder)
    return await asyncio.to_thread(_session, path)


def _session(path: Path) -> Any:
    onnxruntime: Any = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
