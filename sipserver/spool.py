"""Lines that wait on disk for a server that is away, in order, until it is back.

Owns a folder of segment files a owner: appended to, read from the oldest, deleted when read. Refuses to know what the
lines mean and where they go. After a crash (also of the machine) everything that `append` returned from is there; a
line that was torn is left out; what was read but not yet `done` comes again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

SEGMENT_BYTES = 4 << 20
_POSITION = "position"
_SUFFIX = ".jsonl"


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """The first byte that is not done: number of the segment, offset within it."""

    segment: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """The oldest lines that are not done, and where they end."""

    lines: tuple[bytes, ...]
    end: Position


class Spool:
    """One owner's lines. One writer and one reader, any threads; every method blocks for the disk.

    Nothing is made on disk before the first `append`, and nothing stays when everything is done. A spool of a dead
    process is adopted by opening it; never open that of a living one.
    """

    def __init__(self, folder: Path, owner: str, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder = folder / owner
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()
        self._file: int | None = None
        self._writing = 0
        self._length = 0
        self._position = self._stored_position()
        self._last = max((*self._segments(), self._position.segment))
        self._depth = sum(self._count(number) for number in self._segments())

    @property
    def depth(self) -> int:
        """Lines that are not done."""
        return self._depth

    def append(self, lines: Iterable[bytes]) -> None:
        """Durable (fdatasync) when it returns. Raises OSError, e.g. for a full disk: none of the lines is read then,
        unless this process dies before the space of those that were written could be given back. Raises ValueError for
        a line with a line feed in it.
        """
        batch = list(lines)
        if any(b"\n" in line for line in batch):
            raise ValueError("a line of a spool cannot hold a line feed")
        if not batch:
            return
        payload = b"\n".join(batch) + b"\n"
        with self._lock:
            if self._file is None or self._length >= self._segment_bytes:
                self._next_segment()
            try:
                self._write(payload)
            except OSError:
                self._take_back()
                raise
            self._length += len(payload)
            self._depth += len(batch)

    def read(self, most: int = 500) -> Batch:
        """The oldest lines that are not done, in order; the same again until `done`. Raises OSError."""
        with self._lock:
            return self._read(most)

    def done(self, batch: Batch) -> None:
        """Forget these lines. What cannot be deleted now is deleted with the next."""
        with self._lock:
            if batch.end <= self._position:
                return
            self._position = batch.end
            self._depth = max(0, self._depth - len(batch.lines))
            if not self._read(1).lines:
                self._clear()
                return
            # A position that could not be kept is only older: what was done comes again after a crash.
            with contextlib.suppress(OSError):
                self._keep_position()
                for number in _numbers(self.folder):
                    if number < self._position.segment:
                        self._path(number).unlink(missing_ok=True)

    def close(self) -> None:
        with self._lock:
            self._close_file()

    # --- writing ------------------------------------------------------------------------------------------------------

    def _next_segment(self) -> None:
        """A new file; a segment that an earlier process began is never appended to, for its end may be torn."""
        self._close_file()
        self.folder.mkdir(parents=True, exist_ok=True)
        number = self._last + 1
        self._file = os.open(self._path(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._last = self._writing = number
        self._length = 0
        for folder in (self.folder, self.folder.parent):
            _sync_folder(folder)

    def _write(self, payload: bytes) -> None:
        assert self._file is not None
        rest = memoryview(payload)
        while rest:
            rest = rest[os.write(self._file, rest) :]
        os.fdatasync(self._file)

    def _take_back(self) -> None:
        """What a failed append has written must not be read; the next one begins a new segment."""
        assert self._file is not None
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, self._length)
            if not self._length:
                self._path(self._writing).unlink()
        self._close_file()

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    # --- reading ------------------------------------------------------------------------------------------------------

    def _read(self, most: int) -> Batch:
        lines: list[bytes] = []
        end = self._position
        for number in self._segments():
            if len(lines) >= most:
                break
            for line in self._complete_lines(number):
                lines.append(line[:-1])
                end = Position(number, (end.offset if number == end.segment else 0) + len(line))
                if len(lines) >= most:
                    break
        return Batch(tuple(lines), end)

    def _complete_lines(self, number: int) -> Iterator[bytes]:
        """From the position on; without what is torn, and without what a running `append` has not finished."""
        offset = self._position.offset if number == self._position.segment else 0
        with self._path(number).open("rb") as file:
            file.seek(offset)
            for line in file:
                offset += len(line)
                if not line.endswith(b"\n") or (number == self._writing and offset > self._length):
                    return
                yield line

    def _segments(self) -> list[int]:
        """Those that may hold lines that are not done, the oldest first."""
        return [number for number in _numbers(self.folder) if number >= self._position.segment]

    def _count(self, number: int) -> int:
        return sum(1 for _ in self._complete_lines(number))

    # --- housekeeping -------------------------------------------------------------------------------------------------

    def _clear(self) -> None:
        """Everything is done: leave nothing behind."""
        self._close_file()
        self._position = Position(self._last + 1)
        self._depth = 0
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:012d}{_SUFFIX}"

    def _keep_position(self) -> None:
        new = self.folder / f"{_POSITION}.new"
        new.write_text(f"{self._position.segment} {self._position.offset}")
        new.replace(self.folder / _POSITION)

    def _stored_position(self) -> Position:
        try:
            segment, offset = (self.folder / _POSITION).read_text().split()
            return Position(int(segment), int(offset))
        except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: the machine died while it was written
            return Position()


def _numbers(folder: Path) -> list[int]:
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(int(name.removesuffix(_SUFFIX)) for name in names if name.endswith(_SUFFIX))


def owners(folder: Path) -> tuple[str, ...]:
    """Who has left lines in this folder."""
    try:
        return tuple(sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()))
    except FileNotFoundError:
        return ()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
