"""An encrypted recording while it is written, and the repair of one whose writer died.

Owns the open file and its lock. Only ever appends, so that what reached the disk survives a kill -9 up to the last
whole chunk (`sealing.CHUNK_MS`). Blocking; belongs to a worker thread. Refuses to know calls.

The lock (flock(2), of this open file) says that somebody writes: a file is not repaired, nor its key wrapped anew, in
the middle of that. It goes with the process.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from sipserver.calls import sealing
from sipserver.calls.keyring import KEY_BYTES, TAG_BYTES, Keyring
from sipserver.calls.sealing import BODY_AT, ID_BYTES, SAMPLE_BYTES, Body, End, Identity
from sipserver.errors import Damaged


class SealedWriter:
    """One open file, as `wav.WavWriter`. All methods raise OSError."""

    def __init__(self, path: Path, channels: int, tenant: str, ring: Keyring) -> None:
        """Create the file, mode 0600, in a folder that is made if need be, mode 0700. An existing file is an error.
        Raises KeyMissing for a ring without keys, ValueError for names that are too long.
        """
        identity = Identity(os.urandom(ID_BYTES), channels, sealing.chunk_bytes(channels), tenant, path.name)
        file_key = os.urandom(KEY_BYTES)
        header = sealing.close_header(identity, file_key, ring, generation=1).encode()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self._body = Body(identity, file_key)
        self._sample_bytes = channels * SAMPLE_BYTES
        self._pending = bytearray()
        self._chunks = 0
        self._torn = False
        self._over = False
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.pwrite(self._file, header, 0)
            os.ftruncate(self._file, BODY_AT)
        except OSError:
            os.close(self._file)
            raise

    def write(self, payload: bytes) -> None:
        """Not after `truncate`, nor after a write that failed: a nonce would come twice."""
        if self._over or self._torn:
            raise OSError(errno.EBADF, "this recording is over")
        self._pending += payload
        size = self._body.chunk_bytes
        while len(self._pending) >= size:
            self._append(self._body.seal(self._chunks, End.MORE, bytes(self._pending[:size])))
            del self._pending[:size]
            self._chunks += 1

    def update_header(self) -> None:
        """Nothing: how much there is follows from the file's size."""

    def truncate(self, samples: int) -> None:
        """Keep so many (per channel) of what was written. Only `close` may follow. Raises Damaged, too."""
        self._over = True
        keep, size = samples * self._sample_bytes, self._body.chunk_bytes
        if keep >= self._chunks * size:
            del self._pending[keep - self._chunks * size :]
            return
        number = keep // size
        sealed = os.pread(self._file, size + TAG_BYTES, self._body.at(number))
        payload = self._body.open(number, End.MORE, sealed)
        os.ftruncate(self._file, self._body.at(number))
        self._chunks, self._pending = number, bytearray(payload[: keep - number * size])

    def close(self) -> None:
        """Write the end. Where the disk refuses, what is whole of the file gets an early end, if that fits."""
        try:
            if self._torn:
                self._end_early()
            else:
                try:
                    self._append(self._body.seal(self._chunks, End.LAST, bytes(self._pending)))
                except OSError:
                    self._end_early()
                    raise
        finally:
            os.close(self._file)

    def _end_early(self) -> None:
        os.ftruncate(self._file, self._body.at(self._chunks))
        self._append(self._body.seal(self._chunks, End.EARLY, b""))

    def _append(self, sealed: bytes) -> None:
        self._torn = True
        at, view = self._body.at(self._chunks), memoryview(sealed)
        while view:
            count = os.pwrite(self._file, view, at)
            at, view = at + count, view[count:]
        self._torn = False


def repair(path: Path, ring: Keyring) -> int:
    """Give a recording whose writer died its end, behind the last whole chunk. Returns samples per channel.

    Does no harm to a good one. Blocking. Raises OSError, also while somebody writes the file; KeyMissing; Damaged for
    what is no encrypted recording.
    """
    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        opened = sealing.open_headers(file.read(BODY_AT), ring)
        body, frame_bytes = Body(opened.identity, opened.file_key), opened.identity.channels * SAMPLE_BYTES

        def read(number: int) -> bytes:
            return os.pread(file.fileno(), body.chunk_bytes + TAG_BYTES, body.at(number))

        number = body.whole(path.stat().st_size)
        if (last := ending(body, number, read(number))) is not None:
            return (number * body.chunk_bytes + len(last)) // frame_bytes
        while number and not _opens(body, number - 1, read(number - 1)):  # the machine died, not only the process
            number -= 1
        file.truncate(body.at(number))
        os.pwrite(file.fileno(), body.seal(number, End.EARLY, b""), body.at(number))
        return number * body.chunk_bytes // frame_bytes


def ending(body: Body, number: int, sealed: bytes) -> bytes | None:
    """The PCM of the chunk that ends a file; None: this one does not."""
    for end in (End.LAST, End.EARLY):
        try:
            return body.open(number, end, sealed)
        except Damaged:
            continue
    return None


def _opens(body: Body, number: int, sealed: bytes) -> bool:
    try:
        body.open(number, End.MORE, sealed)
    except Damaged:
        return False
    return True
