"""Recordings: the caller left, the agent right, written by one worker thread a process.

Owns the queue between the loop and the disk, the time line of each recording, and what happens when the disk fails.
Refuses to know dialplans and events. The media tick drives both channels, so they cannot drift: one tick is 320 samples
in each of them, whether it was sound, a pause or a frame that was dropped.

Overflow: when the disk is so slow that the queue is full, a batch of frames is dropped, counted, and silence of the
same length takes its place.
"""

from __future__ import annotations

import asyncio
import io
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sipserver.audio.frame import FRAME_MS, FRAME_SAMPLES, Frame, Samples
from sipserver.calls import sound_files
from sipserver.calls.keyring import Keyring
from sipserver.calls.sound_files import SoundWriter
from sipserver.errors import SipServerError
from sipserver.log import logger

BATCH_FRAMES = 10
QUEUE_BATCHES = 2_000
HEADER_EVERY_S = 1.0
CLOSE_S = 5.0

_SILENCE: Samples = np.zeros(FRAME_SAMPLES, np.int16)
_REFUSED = (OSError, SipServerError, ValueError)
"""What a file raises that cannot be made, written or ended; the latter two where it is encrypted."""


@dataclass(frozen=True, slots=True)
class Finished:
    """samples: per channel, silence for pauses and drops included. failure: why the file is shorter, or empty."""

    samples: int
    dropped_frames: int
    failure: str = ""


@dataclass(frozen=True, slots=True)
class _Batch:
    """What the worker writes next: `skipped` frames of silence, then the frames."""

    recording: Recording
    skipped: int
    left: list[Samples]
    right: list[Samples]


@dataclass(frozen=True, slots=True)
class _Close:
    recording: Recording


class Recording:
    """One file of one call. Loop thread, but for the parts that say otherwise. Made by `Recorder.start`."""

    def __init__(
        self, recorder: Recorder, path: Path, tenant: str, stereo: bool, on_failure: Callable[[str], None]
    ) -> None:
        self.path, self._tenant = path, tenant
        self.paused = False
        self.dropped_frames = 0
        self._recorder = recorder
        self._stereo = stereo
        self._on_failure = on_failure
        self._frames = 0
        self._skipped = 0
        self._left: list[Samples] = []
        self._right: list[Samples] = []
        self._loop = asyncio.get_running_loop()
        self._closed: asyncio.Future[str] | None = None
        self._keep: int | None = None
        # Worker thread only, from here on.
        self._writer: SoundWriter | None = None
        self._failure = ""
        self._header_at = 0.0

    @property
    def samples(self) -> int:
        """Where in the file (per channel) the next frame will stand."""
        return self._frames * FRAME_SAMPLES

    def hear(self, inbound: Frame, outbound: Frame) -> None:
        """One media tick. Only queues references; the samples are copied by the worker."""
        if self._closed is not None:
            return
        self._frames += 1
        self._left.append(_SILENCE if self.paused else inbound.samples)
        self._right.append(_SILENCE if self.paused else outbound.samples)
        if len(self._left) >= BATCH_FRAMES:
            self._hand_over()

    def pause(self) -> int:
        """Write silence from the next frame on. Returns that frame's sample."""
        self.paused = True
        return self.samples

    def resume(self) -> int:
        """Write sound from the next frame on. Returns that frame's sample."""
        self.paused = False
        return self.samples

    async def stop(self, keep: int | None = None) -> Finished:
        """Write what is queued and close the file. Idempotent. Waits CLOSE_S at most, whatever the disk does.

        keep: samples per channel; what was recorded beyond is cut off again.
        """
        if self._closed is None:
            self._keep = keep
            self._hand_over(bounded=False)
            self._closed = self._loop.create_future()
            self._recorder.put(_Close(self))
        try:
            failure = await asyncio.wait_for(asyncio.shield(self._closed), CLOSE_S)
        except TimeoutError:
            failure = "the disk did not finish in time"
        samples = self.samples if self._keep is None else min(self.samples, self._keep)
        return Finished(samples, self.dropped_frames, failure)

    def _hand_over(self, *, bounded: bool = True) -> None:
        if bounded and self._recorder.full:
            self._skipped += len(self._left)
            self.dropped_frames += len(self._left)
        else:
            self._recorder.put(_Batch(self, self._skipped, self._left, self._right))
            self._skipped = 0
        self._left, self._right = [], []

    # --- worker thread ------------------------------------------------------------------------------------------------

    def open(self) -> None:
        try:
            self._writer = self._recorder.writer(self.path, 2 if self._stereo else 1, self._tenant)
        except _REFUSED as problem:
            self._fail(problem)

    def write(self, batch: _Batch) -> None:
        if self._writer is None:
            return
        try:
            self._write_silence(batch.skipped)
            if batch.left:
                self._writer.write(self._interleave(np.concatenate(batch.left), np.concatenate(batch.right)))
            now = time.monotonic()
            if now - self._header_at >= HEADER_EVERY_S:
                self._header_at = now
                self._writer.update_header()
        except OSError as problem:
            self._fail(problem)

    def close(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            try:
                try:
                    if self._keep is not None:  # set before the end was put into the queue
                        writer.truncate(self._keep)
                finally:
                    writer.close()
            except _REFUSED as problem:
                self._fail(problem)
        self._tell(self._settle)

    def _write_silence(self, frames: int) -> None:
        """In parts of a second: a long gap must not become one large buffer."""
        second = 1000 // FRAME_MS
        silence = bytes(FRAME_SAMPLES * (4 if self._stereo else 2))
        while frames and self._writer is not None:
            part = min(frames, second)
            self._writer.write(silence * part)
            frames -= part

    def _interleave(self, left: Samples, right: Samples) -> bytes:
        if self._stereo:
            payload: bytes = np.column_stack((left, right)).astype("<i2", copy=False).tobytes()
        else:
            payload = np.clip(left.astype(np.int32) + right, -32768, 32767).astype("<i2").tobytes()
        return payload

    def _fail(self, problem: Exception) -> None:
        """The disk refused, or a key. What was written stays readable; the rest of the call is not recorded."""
        self._failure = getattr(problem, "strerror", None) or str(problem)
        if self._writer is not None:
            writer, self._writer = self._writer, None
            try:
                writer.close()
            except OSError as another:
                logger("calls").warning("recording not closed", path=str(self.path), error=str(another))
        self._tell(self._report)

    def _tell(self, action: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(action)
        except RuntimeError:
            logger("calls").debug("recording outlived its loop", path=str(self.path))

    # --- loop thread again --------------------------------------------------------------------------------------------

    def _report(self) -> None:
        self._on_failure(self._failure)

    def _settle(self) -> None:
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(self._failure)


class Recorder:
    """The worker thread of the process and the folder it writes to. Loop thread.

    ring: what opens encrypted files. seal: whether new ones are encrypted, by the worker thread.
    """

    def __init__(
        self, folder: Path, queue_batches: int = QUEUE_BATCHES, *, ring: Keyring | None = None, seal: bool = False
    ) -> None:
        self.folder = folder
        self._ring, self._seal = ring or Keyring(), seal
        self._bound = queue_batches
        self._queue: queue.SimpleQueue[Recording | _Batch | _Close | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)

    def open(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def close(self) -> None:
        """Write what is queued, then end the thread. Recordings should have been stopped before."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join, CLOSE_S)

    @property
    def full(self) -> bool:
        return self._queue.qsize() >= self._bound

    @property
    def depth(self) -> int:
        """Batches of 200 ms that wait for the disk."""
        return self._queue.qsize()

    def place(self, name: Path) -> Path:
        """Where a new file lies. name: of a WAV file, below the folder."""
        path = self.folder / name
        return sound_files.sealed(path) if self._seal else path

    def start(self, path: Path, *, tenant: str, stereo: bool = True, on_failure: Callable[[str], None]) -> Recording:
        """Begin a file. Does not block: a file that cannot be made is told to `on_failure` (loop thread, once).
        path: as `place` gives it. tenant: whose key encrypts it.
        """
        recording = Recording(self, path, tenant, stereo, on_failure)
        self._queue.put(recording)
        return recording

    def writer(self, path: Path, channels: int, tenant: str) -> SoundWriter:
        """A new file. Blocks. Raises `_REFUSED`."""
        return sound_files.writer(path, channels, tenant, self._ring)

    def read(self, path: Path, tenant: str) -> io.BufferedReader:
        """A file that is finished, as WAV. Any thread; blocks. Raises OSError, KeyMissing, Damaged."""
        return sound_files.open_sound(path, self._ring, tenant=tenant)

    def put(self, work: _Batch | _Close) -> None:
        self._queue.put(work)

    def _work(self) -> None:
        while (work := self._queue.get()) is not None:
            match work:
                case Recording():
                    work.open()
                case _Batch():
                    work.recording.write(work)
                case _Close():
                    work.recording.close()
