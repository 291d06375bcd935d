"""A log file of another program as it grows: its lines become lines of ours.

Owns reading and cutting the file, and leaving out what is too much. A file and no pipe, since a pipe would end with the
supervisor and take the program along.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

FOLLOW_S = 0.25
PIECE_BYTES = 65_536
BEHIND_BYTES = 1_000_000
"""More than this at once is left out of our log (it stays in the file)."""


class Follower:
    """`start`, `await stop`. Loop thread; reads small pieces of a local file. tell: called with each whole line. skip:
    with the number of bytes that are left out.

    most_bytes: a file that has grown beyond it is emptied once all of it was read; its writer must append (O_APPEND).
    """

    def __init__(self, file: Path, tell: Callable[[str], None], skip: Callable[[int], None], most_bytes: int) -> None:
        self._file, self._tell, self._skip, self._most_bytes = file, tell, skip, most_bytes
        self._task: asyncio.Task[None] | None = None

    def start(self, at: int | None = None) -> None:
        """From byte `at`, or from the end."""
        if at is None:
            at = self._file.stat().st_size if self._file.exists() else 0
        if self._task is not None:
            self._task.cancel()
        self._task = asyncio.create_task(self._run(at), name=f"follow {self._file.name}")

    async def stop(self) -> None:
        """What was written meanwhile is left unread. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
            self._task = None

    async def _run(self, at: int) -> None:
        rest = b""
        while True:
            with contextlib.suppress(OSError), self._file.open("rb") as log:
                size = os.fstat(log.fileno()).st_size
                if size < at:
                    at, rest = 0, b""
                if size - at > BEHIND_BYTES:
                    self._skip(size - at)
                    at, rest = size, b""
                log.seek(at)
                while piece := log.read(PIECE_BYTES):
                    at += len(piece)
                    *lines, rest = (rest + piece).split(b"\n")
                    for line in lines:
                        self._tell(line.decode(errors="replace"))
                    await asyncio.sleep(0)
                if at > self._most_bytes and at == os.fstat(log.fileno()).st_size:
                    os.truncate(self._file, 0)
                    at = 0
            await asyncio.sleep(FOLLOW_S)
