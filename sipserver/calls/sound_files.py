"""Recordings and messages on the disk, plain and encrypted: whoever reads, writes or repairs one asks here.

Owns which is which: an encrypted one has `.enc` behind its name, and nothing else is believed under that name; all
others are plain WAV files, as they were before there was a key. Blocking. Refuses to know where files lie.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol

from sipserver.calls import sealed_writer, wav
from sipserver.calls.keyring import Keyring
from sipserver.calls.sealed_file import SealedFile
from sipserver.calls.sealed_writer import SealedWriter
from sipserver.calls.wav import WavWriter

SUFFIX = ".enc"


class SoundWriter(Protocol):
    """As `wav.WavWriter` and `sealed_writer.SealedWriter` are."""

    def write(self, payload: bytes) -> None: ...

    def update_header(self) -> None: ...

    def truncate(self, samples: int) -> None: ...

    def close(self) -> None: ...


def is_sealed(path: Path) -> bool:
    return path.suffix == SUFFIX


def sealed(path: Path) -> Path:
    """The name of a WAV file that is to be encrypted."""
    return path.with_name(path.name + SUFFIX)


def writer(path: Path, channels: int, tenant: str, ring: Keyring) -> SoundWriter:
    """A new file. Raises OSError, and for an encrypted one KeyMissing, ValueError."""
    return SealedWriter(path, channels, tenant, ring) if is_sealed(path) else WavWriter(path, channels)


def open_sound(path: Path, ring: Keyring, *, tenant: str = "", unfinished: bool = False) -> io.BufferedReader:
    """The WAV file, to be read and sought in. tenant, unfinished: see `SealedFile`; of a plain file nobody knows.
    Raises OSError, KeyMissing, Damaged; reading does, too.
    """
    if is_sealed(path):
        return io.BufferedReader(SealedFile(path, ring, tenant=tenant, unfinished=unfinished))
    return path.open("rb")


def whatever_is_there(ring: Keyring) -> Callable[[Path, str], BinaryIO]:
    """(path, tenant): as `open_sound`, also what has no end. For giving a person all that there is."""
    return lambda path, tenant: open_sound(path, ring, tenant=tenant, unfinished=True)


def repair(path: Path, ring: Keyring) -> int:
    """Make the recording of a writer that died readable. Returns samples per channel. Does no harm to a good one.
    Raises OSError, KeyMissing, Damaged.
    """
    return sealed_writer.repair(path, ring) if is_sealed(path) else wav.repair(path)
