"""A WAV file that is readable at every moment of its making, and the repair of one whose writer died.

Owns the 44 bytes of header (RIFF, `fmt ` of PCM, `data`; Microsoft/IBM Multimedia Programming Interface 1.0). Blocking;
belongs to a worker thread. Refuses to know calls.
"""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

from sipserver.audio.frame import RATE_HZ
from sipserver.open_files import lifted_file

HEADER_BYTES = 44
_SAMPLE_BYTES = 2
_LARGEST = 0xFFFF_FFFF - HEADER_BYTES


def header(channels: int, payload_bytes: int) -> bytes:
    """The header of 16 kHz int16 PCM. Beyond 4 GiB the size stays at its largest."""
    size = min(payload_bytes, _LARGEST)
    block = channels * _SAMPLE_BYTES
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, RATE_HZ, RATE_HZ * block, block, _SAMPLE_BYTES * 8)
    return struct.pack("<4sI4s", b"RIFF", size + 36, b"WAVE") + form + struct.pack("<4sI", b"data", size)


class WavWriter:
    """One open file. Unbuffered: what `write` accepted survives a kill -9 of the process. All methods raise OSError."""

    def __init__(self, path: Path, channels: int) -> None:
        """Create the file, mode 0600, in a folder that is made if need be, mode 0700. An existing file is an error."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = lifted_file(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        self._channels = channels
        self._written = 0
        try:
            os.write(self._file, header(channels, 0))
        except OSError:
            os.close(self._file)
            raise

    def write(self, payload: bytes) -> None:
        view = memoryview(payload)
        while view:
            count = os.write(self._file, view)
            self._written += count
            view = view[count:]

    def update_header(self) -> None:
        """Tell readers how much there is. Called about once a second."""
        whole = self._written - self._written % (self._channels * _SAMPLE_BYTES)
        os.pwrite(self._file, header(self._channels, whole), 0)

    def truncate(self, samples: int) -> None:
        """Keep so many (per channel) of what was written."""
        keep = samples * self._channels * _SAMPLE_BYTES
        if keep < self._written:
            os.ftruncate(self._file, HEADER_BYTES + keep)
            os.lseek(self._file, 0, os.SEEK_END)
            self._written = keep

    def close(self) -> None:
        try:
            self.update_header()
        finally:
            os.close(self._file)


def repair(path: Path) -> int:
    """Make the header of a recording fit what is in the file. Returns samples per channel.

    For files whose writer died; does no harm to a good one. Blocking. Raises OSError, also for what is no recording.
    """
    with path.open("r+b") as file:
        head = file.read(HEADER_BYTES)
        if len(head) < HEADER_BYTES or head[:4] != b"RIFF" or head[8:16] != b"WAVEfmt ":
            raise OSError(errno.EINVAL, "not a recording", str(path))
        channels = int(struct.unpack_from("<H", head, 22)[0])
        if channels not in (1, 2):
            raise OSError(errno.EINVAL, f"a recording with {channels} channels", str(path))
        samples = (path.stat().st_size - HEADER_BYTES) // (channels * _SAMPLE_BYTES)
        payload_bytes = samples * channels * _SAMPLE_BYTES
        file.truncate(HEADER_BYTES + payload_bytes)
        file.seek(0)
        file.write(header(channels, payload_bytes))
    return samples
