"""A server that outlives whoever started it: a session and a log file of its own, found again by its pid.

Owns the process as seen from outside: start, watch, end. Refuses to know which server it is and whether it answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path


class Survivor:
    """One process at a time. Loop thread; safe to cancel. on_end: called when the one that is watched has ended."""

    def __init__(self, on_end: Callable[[], None] = lambda: None) -> None:
        self._on_end = on_end
        self._watched: int | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._gone = asyncio.Event()
        self.pid: int | None = None

    @property
    def lives(self) -> bool:
        """One is watched and has not ended."""
        return self.pid is not None and not self._gone.is_set()

    def launch(self, command: Sequence[str], log_file: Path, folder: Path) -> int:
        """Start and watch it; it appends what it says to the log file. Returns the file's length before. Raises
        OSError."""
        with log_file.open("ab") as out:
            began = out.tell()
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=folder,
                start_new_session=True,
            )
        self.watch(self._child.pid)
        return began

    def watch(self, pid: int) -> None:
        """A pid file descriptor becomes readable when the process ends, whoever its parent is (pidfd_open(2)). Raises
        OSError when there is none."""
        self.leave()
        self._watched, self.pid = os.pidfd_open(pid), pid
        self._gone.clear()
        asyncio.get_running_loop().add_reader(self._watched, self._ended)

    async def exited(self) -> None:
        """Returns when it is gone (at once when none is watched)."""
        if self._watched is not None:
            await self._gone.wait()

    async def end(self, timeout_s: float) -> None:
        """SIGTERM, at the deadline SIGKILL. Returns when it is gone."""
        if self.lives:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._gone.wait()
        await self.kill()

    async def kill(self) -> None:
        """SIGKILL, for one that hangs. Returns when it is gone."""
        if self.lives:
            self._signal(signal.SIGKILL)
            await self._gone.wait()

    def leave(self) -> None:
        """Stop looking at it; it runs on."""
        if self._watched is not None:
            asyncio.get_running_loop().remove_reader(self._watched)
            os.close(self._watched)
        self._watched = self.pid = None

    def _signal(self, number: signal.Signals) -> None:
        assert self._watched is not None
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._watched, number)

    def _ended(self) -> None:
        assert self._watched is not None
        assert self.pid is not None
        asyncio.get_running_loop().remove_reader(self._watched)
        if self._child is not None and self._child.pid == self.pid:
            self._child.wait()  # it has ended: this only takes its status
        else:
            with contextlib.suppress(ChildProcessError):  # an orphan may have become a child of this process
                os.waitpid(self.pid, os.WNOHANG)
        self._on_end()
        self._gone.set()
