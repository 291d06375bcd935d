"""The keys of recordings changed: each file's own key wrapped by the active key instead of an older one.

Owns the order of writes that harms no file whenever it is broken off, and that the old wrapping is gone afterwards:
the sound itself is neither read nor written. Blocking. Refuses to know which files there are to be audited.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sipserver.calls import sealing, sound_files
from sipserver.calls.keyring import Keyring
from sipserver.calls.sealing import BODY_AT, HEADER_BYTES


@dataclass(frozen=True, slots=True)
class Found:
    """current: it has the active key, and no other."""

    path: Path
    tenant: str
    current: bool


def files(folder: Path) -> Iterator[Path]:
    """Encrypted recordings and messages below the folder."""
    return (path for path in folder.rglob(f"*{sound_files.SUFFIX}") if path.is_file() and not path.is_symlink())


def look(path: Path, ring: Keyring) -> Found:
    """Reads the headers. Raises OSError, KeyMissing, Damaged."""
    with path.open("rb") as file:
        blocks = file.read(BODY_AT)
    opened = sealing.open_headers(blocks, ring)
    alone = not any(_block(blocks, 1 - opened.place))
    return Found(path, opened.identity.tenant, alone and opened.key_id == ring.active)


def rewrap(path: Path, ring: Keyring) -> bool:
    """Whether there was something to do. Raises KeyMissing, Damaged; BlockingIOError while the file is recorded;
    OSError.
    """
    with path.open("r+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        blocks = os.pread(file.fileno(), BODY_AT, 0)
        opened = sealing.open_headers(blocks, ring)
        other = 1 - opened.place
        if opened.key_id != ring.active:
            header = sealing.close_header(opened.identity, opened.file_key, ring, opened.generation + 1)
            _write(file.fileno(), header.encode(), other)
            _write(file.fileno(), bytes(HEADER_BYTES), opened.place)
        elif any(_block(blocks, other)):
            _write(file.fileno(), bytes(HEADER_BYTES), other)
        else:
            return False
    return True


def _block(blocks: bytes, place: int) -> bytes:
    return blocks[place * HEADER_BYTES : (place + 1) * HEADER_BYTES]


def _write(file: int, block: bytes, place: int) -> None:
    """All of it, and on the disk, before anything else is done."""
    os.pwrite(file, block, place * HEADER_BYTES)
    os.fsync(file)
