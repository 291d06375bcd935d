"""The one thread that touches pjsua2 objects, from their creation to their destruction.

Owns the polling loop, a bounded queue of commands and the futures that answer them. PJSIP's callbacks happen here,
inside `poll`. A command that comes from the asyncio loop ends the poll at once: CRLF, a keep-alive that PJSIP
ignores, is sent to the cell's own UDP port. Refuses to know what the commands do.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from sipserver.errors import CapacityError, SipServerError
from sipserver.log import logger

T = TypeVar("T")
Command = Callable[[], Any]

POLL_MS = 1000
"""Longest stay in PJSIP: its packets, its timers and our commands end it at once."""
_KEEP_ALIVE = b"\r\n\r\n"


class SipThread:
    """`start` and `submit` belong to the loop, `post` to any thread; commands, `poll` and `every` run on the thread
    itself.

    poll: waits up to so many milliseconds for packets and timers, the GIL released. translate: turns what a command
    raised into an error that may leave the thread; an exception's frames are never handed over, they could hold
    pjsua2 objects. Overflow: `submit` answers CapacityError when `bound` commands wait.
    """

    def __init__(
        self, poll: Callable[[int], Any], translate: Callable[[Exception], SipServerError], *, bound: int = 1024
    ) -> None:
        self._poll = poll
        self._translate = translate
        self._bound = bound
        self._commands: deque[tuple[Command, asyncio.Future[Any] | None]] = deque()
        self._told: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self._loop_woken = False
        self._loop = asyncio.get_running_loop()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._waker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._waker.setblocking(False)
        self._wake_address: tuple[str, int] | None = None
        self._every: Command = lambda: None
        self._every_s = 1.0
        self.ticks = 0
        self.last_tick_s: float | None = None
        """`time.monotonic()` of the last turn of the loop; at most a little over POLL_MS ago while the thread lives."""

    async def start(self, setup: Callable[[], T]) -> T:
        """Start the thread and run `setup` on it before the first poll. Raises what `setup` raised, thread gone."""
        self._thread = threading.Thread(target=self._run, name="sip", daemon=True)
        future = self.submit(setup)
        self._thread.start()
        try:
            return await asyncio.shield(future)
        except BaseException:
            await self.stop(lambda: None)
            raise

    def wake_by(self, address: tuple[str, int]) -> None:
        """From now on wake the poll by a datagram to this address."""
        self._wake_address = address

    def every(self, seconds: float, command: Command) -> None:
        """Run a command on the thread about every so many seconds. Set it before `start` or from the thread."""
        self._every_s, self._every = seconds, command

    def submit(self, command: Callable[[], T]) -> asyncio.Future[T]:
        """Queue a command. Loop thread; never blocks. Cancelling the future does not undo the command."""
        future: asyncio.Future[T] = self._loop.create_future()
        if self._stopping or len(self._commands) >= self._bound:
            future.set_exception(
                CapacityError("the sip thread is stopping" if self._stopping else "the sip thread is overloaded")
            )
            return future
        self._commands.append((command, future))
        self._wake()
        return future

    def post(self, command: Command) -> None:
        """Queue a command whose end nobody waits for. Any thread; errors are logged."""
        self._commands.append((command, None))
        self._wake()

    def to_loop(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function on the loop soon. Any thread; in order; silently nothing once the loop is closed. What comes
        before the loop has woken up wakes it once.
        """
        self._told.append((function, arguments))
        if not self._loop_woken:
            self._loop_woken = True
            with suppress(RuntimeError):  # the loop is closed: nobody is left to tell
                self._loop.call_soon_threadsafe(self._on_told)

    async def stop(self, teardown: Command) -> None:
        """Run `teardown` as the last command and wait until the thread is gone."""
        if self._thread is None or not self._thread.is_alive():
            self._waker.close()
            return
        future = self.submit(teardown)
        self._stopping = True
        self._wake()
        try:
            await asyncio.shield(future)
        finally:
            await self._loop.run_in_executor(None, self._thread.join)
            self._waker.close()

    @property
    def is_current(self) -> bool:
        return threading.current_thread() is self._thread

    def _on_told(self) -> None:
        """Loop thread."""
        self._loop_woken = False
        while self._told:
            function, arguments = self._told.popleft()
            self._guarded(partial(function, *arguments))

    def _wake(self) -> None:
        if self._wake_address is None or self.is_current:
            return
        with suppress(OSError):  # full socket buffer or closed: the poll ends by itself within POLL_MS
            self._waker.sendto(_KEEP_ALIVE, self._wake_address)

    def _run(self) -> None:
        due_s = time.monotonic() + self._every_s
        while not (self._stopping and not self._commands):
            self._work()
            if self._stopping:
                continue
            self._guarded(partial(self._wait, due_s))
            now_s = time.monotonic()
            self.ticks += 1
            self.last_tick_s = now_s
            if now_s >= due_s:
                due_s = now_s + self._every_s
                self._guarded(self._every)

    def _wait(self, until_s: float) -> None:
        """Poll until something happens, `until_s` at the latest, and not at all while commands wait."""
        rest_ms = round((until_s - time.monotonic()) * 1000)
        self._poll(0 if self._commands else min(POLL_MS, max(0, rest_ms)))

    def _work(self) -> None:
        for _ in range(len(self._commands)):
            command, future = self._commands.popleft()
            if future is None:
                self._guarded(command)
                continue
            try:
                result = command()
            except Exception as error:
                self.to_loop(_fail, future, self._safe(error))
            else:
                self.to_loop(_resolve, future, result)

    def _safe(self, error: Exception) -> SipServerError:
        if not isinstance(error, SipServerError):
            error = self._translate(error)
        error.__traceback__ = error.__context__ = error.__cause__ = None
        return error

    @staticmethod
    def _guarded(command: Command) -> None:
        try:
            command()
        except Exception:
            logger("sip").exception("a command of the sip thread or its answer failed")


def _resolve(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
