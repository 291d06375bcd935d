"""Caller audio in shared memory: one segment a speech worker, one slot a stream.

Owns the layout, the ring of a stream, and how a segment is made and found. Refuses to judge sound and to know sockets.

A slot holds a ring of 16 kHz PCM with the number of samples written, and a ring of probabilities with the number of
chunks judged. The client writes sound, then `written`; the worker reads them, writes probabilities, then `judged`. Each
number has one writer and stands on a cache line of its own, eight bytes and aligned, so it is never seen half written.
Nobody waits for anybody: a worker that lags finds old sound overwritten and says so (`UNJUDGED`), a client that
lags loses nothing for two seconds. Counts start at 0 with every stream.

The segment is a memfd of the worker, sealed so that nobody can shrink it under the feet of the others, and is opened
through /proc/PID/fd: it needs no name in a file system, and the kernel removes it with its last user, however that one
ends. Only processes of the same user can open it (proc(5), ptrace access mode).
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
import threading

import numpy as np
from numpy.typing import NDArray

from sipserver.audio.frame import Samples

CHUNK_SAMPLES = 512
RING_SAMPLES = 16_384
VERDICTS = 64
UNJUDGED = float("nan")
"""Stands in the ring of probabilities for a chunk that the worker was too late for."""

_WRITTEN, _JUDGED, _VERDICTS, _SOUND = 0, 64, 128, 512
SLOT_BYTES = _SOUND + RING_SAMPLES * 2
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_RING_MASK = RING_SAMPLES - 1


class Fence:
    """A full memory barrier: nothing written before it is seen after what is written behind it.

    Releasing and taking a lock that nobody else uses orders all accesses on ARM (release, then acquire: Arm
    Architecture Reference Manual, B2.3) and costs 0.1 us. x86 keeps the order of stores by itself.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def __call__(self) -> None:
        self._lock.release()
        self._lock.acquire()


class Slot:
    """A stream's ring, seen by its client. One thread at a time.

    memory: of a segment, from offset on; without one a private ring, for sound that no worker hears yet.
    """

    def __init__(self, memory: memoryview | None = None, offset: int = 0) -> None:
        block = memoryview(bytearray(SLOT_BYTES)) if memory is None else memory[offset : offset + SLOT_BYTES]
        self._written = block[_WRITTEN : _WRITTEN + 8].cast("q")
        self._judged = block[_JUDGED : _JUDGED + 8].cast("q")
        self._verdicts = block[_VERDICTS : _VERDICTS + 4 * VERDICTS].cast("f")
        self._sound: Samples = np.frombuffer(block, np.int16, RING_SAMPLES, _SOUND)
        self._fence = Fence()
        self.written = 0

    def write(self, samples: Samples) -> None:
        """Append, at most RING_SAMPLES at a time; the oldest sound is overwritten."""
        start = self.written & _RING_MASK
        end = start + len(samples)
        if end <= RING_SAMPLES:
            self._sound[start:end] = samples
        else:
            head = RING_SAMPLES - start
            self._sound[start:] = samples[:head]
            self._sound[: end - RING_SAMPLES] = samples[head:]
        self.written += len(samples)
        self._fence()
        self._written[0] = self.written

    @property
    def judged(self) -> int:
        """Chunks whose probability can be read."""
        return self._judged[0]

    def probability(self, chunk: int) -> float:
        """Of a judged chunk, at most VERDICTS behind `judged`. NaN if the worker left it out."""
        return self._verdicts[chunk % VERDICTS]

    def fence(self) -> None:
        """Between `judged` and `probability`."""
        self._fence()

    def read(self, start: int, end: int) -> Samples:
        """Samples start to end of the stream, a copy; they must be the newest RING_SAMPLES."""
        places = np.arange(start, end) & _RING_MASK
        copied: Samples = self._sound[places]
        return copied


class Segment:
    """The worker's side: all slots as arrays, so that all streams are judged by a few operations. Any one thread.

    name: of no other segment, although a path may come again. written, judged: shape (slots,) int64. verdicts: (slots,
    VERDICTS) float32. sound: (slots, RING_SAMPLES) int16.
    """

    def __init__(self, slots: int) -> None:
        size = slots * SLOT_BYTES
        self.slots = slots
        self.name = secrets.token_hex(8)
        self.descriptor = os.memfd_create("sipserver-speech", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.descriptor, size)
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, _SEALS)
        self._memory = mmap.mmap(self.descriptor, size)
        self.written: NDArray[np.int64] = self._column(_WRITTEN)
        self.judged: NDArray[np.int64] = self._column(_JUDGED)
        strides = (SLOT_BYTES, np.dtype(np.float32).itemsize)
        self.verdicts: NDArray[np.float32] = np.ndarray((slots, VERDICTS), np.float32, self._memory, _VERDICTS, strides)
        strides = (SLOT_BYTES, np.dtype(np.int16).itemsize)
        self.sound: NDArray[np.int16] = np.ndarray((slots, RING_SAMPLES), np.int16, self._memory, _SOUND, strides)

    @property
    def path(self) -> str:
        """Where another process of this user finds the segment."""
        return f"/proc/{os.getpid()}/fd/{self.descriptor}"

    def wipe(self, slot: int) -> None:
        """Begin a stream: counts at 0, silence before its first sample."""
        self.written[slot] = self.judged[slot] = 0
        self.sound[slot] = 0

    def slot(self, number: int) -> Slot:
        """A stream whose sound arrives by messages is written by the worker itself."""
        return Slot(memoryview(self._memory), number * SLOT_BYTES)

    def close(self) -> None:
        """Other processes keep what they have mapped. The arrays live on until nobody uses them."""
        os.close(self.descriptor)

    def _column(self, offset: int) -> NDArray[np.int64]:
        return np.ndarray((self.slots,), np.int64, self._memory, offset, (SLOT_BYTES,))


def open_segment(path: str, slots: int) -> memoryview:
    """Map another process's segment. Raises OSError; ValueError if it is not what it should be.

    The memory is unmapped when the last view of it is gone.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        size = slots * SLOT_BYTES
        if os.fstat(descriptor).st_size != size:
            raise ValueError(f"{path} does not hold {slots} slots")
        if fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
            raise ValueError(f"{path} may shrink while it is used")
        return memoryview(mmap.mmap(descriptor, size))
    finally:
        os.close(descriptor)
