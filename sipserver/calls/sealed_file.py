"""An encrypted recording, read as the WAV file that it is: every reader of the program, whatever part it wants.

Owns the header that is made for the sound that is there, and that nothing is given which is not what was written.
Blocking. Refuses to write.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

from sipserver.calls import sealing, wav
from sipserver.calls.keyring import TAG_BYTES, Keyring
from sipserver.calls.sealed_writer import ending
from sipserver.calls.sealing import BODY_AT, Body, End
from sipserver.errors import Damaged, KeyMissing


class SealedFile(io.RawIOBase):
    """A WAV file of `size` bytes, for `open_sound` to be buffered. One thread at a time.

    id: of the content, for ever. Reading raises Damaged when a chunk is not what was written, OSError.
    """

    def __init__(self, path: Path, ring: Keyring, *, tenant: str = "", unfinished: bool = False) -> None:
        """tenant: whose it must be, and then it must have the name that it was written under; empty: it may be any
        file. unfinished: also a file that has no end, as the whole chunks
        that it has. Raises KeyMissing; Damaged for what is cut off, changed, another tenant's or no encrypted
        recording; OSError. Each names the file.
        """
        super().__init__()
        self._file = path.open("rb", buffering=0)
        try:
            opened = sealing.open_headers(os.pread(self._file.fileno(), BODY_AT, 0), ring)
            identity = opened.identity
            if tenant and identity.tenant != tenant:
                raise Damaged("it is a recording of another tenant")
            if tenant and identity.name != path.name:
                raise Damaged(f"it is another recording, {identity.name}")
            self.tenant, self.name, self.id = identity.tenant, identity.name, identity.id.hex()
            self.key_id = opened.key_id
            self._body = Body(identity, opened.file_key)
            self._chunks = self._body.whole(os.fstat(self._file.fileno()).st_size)
            last = ending(self._body, self._chunks, self._sealed(self._chunks))
            if last is None and not unfinished:
                raise Damaged("its end is missing: it was cut off, or whoever wrote it died and it was not repaired")
        except (Damaged, KeyMissing) as problem:
            self._file.close()
            raise _naming(path, problem) from None
        except BaseException:
            self._file.close()
            raise
        self._last = last or b""
        self._held: tuple[int, bytes] = (self._chunks, self._last)
        payload_bytes = self._chunks * self._body.chunk_bytes + len(self._last)
        self._head = wav.header(identity.channels, payload_bytes)
        self.size = len(self._head) + payload_bytes
        self._at = 0
        self._path = path

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise ValueError("a place before the beginning")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # io says Buffer: 3.12
        """To the end of a chunk at most."""
        part = self._part()[: len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)

    def close(self) -> None:
        self._file.close()
        super().close()

    def _part(self) -> bytes:
        """What is there from this place on, to the end of the header or of a chunk."""
        if self._at < len(self._head):
            return self._head[self._at :]
        if self._at >= self.size:
            return b""
        number, begin = divmod(self._at - len(self._head), self._body.chunk_bytes)
        return self._chunk(number)[begin:]

    def _chunk(self, number: int) -> bytes:
        if number == self._chunks:
            return self._last
        if self._held[0] != number:
            try:
                self._held = number, self._body.open(number, End.MORE, self._sealed(number))
            except Damaged as problem:
                raise _naming(self._path, problem) from None
        return self._held[1]

    def _sealed(self, number: int) -> bytes:
        return os.pread(self._file.fileno(), self._body.chunk_bytes + TAG_BYTES, self._body.at(number))


def _naming(path: Path, problem: Damaged | KeyMissing) -> Damaged | KeyMissing:
    text = f"{path.name}: {problem}"
    return Damaged(text) if isinstance(problem, Damaged) else KeyMissing(text, problem.key_ids)
