"""Keeps the worker process alive: starts it, waits until it listens, restarts it with back-off when it dies.

Owns the process and its pipes. Refuses to know what is asked of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Sequence

from sipserver.agent.llm.worker import KEY_VARIABLE
from sipserver.errors import ProviderTimeout
from sipserver.log import logger

START_S = 60.0
STOP_S = 3.0
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
SETTLED_S = 60.0
"""A process that lived this long was healthy: the next pause is short again."""
MODULE = "sipserver.agent.llm.worker"

OnReady = Callable[[str, str], Awaitable[None]]
"""Called with (address, key) whenever a new process listens."""


class WorkerProcess:
    """Loop thread. arguments: the command behind `python`. on_ready is awaited before `start` returns."""

    def __init__(
        self, name: str, arguments: Sequence[str], on_ready: OnReady, on_lost: Callable[[], Awaitable[None]]
    ) -> None:
        self._name, self._arguments = name, list(arguments)
        self._on_ready, self._on_lost = on_ready, on_lost
        self._key = secrets.token_urlsafe(24)
        self._ready = asyncio.Event()
        self._process: Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._log = logger("agent", engine=name)
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def start(self, deadline_s: float = START_S) -> None:
        """Start and wait until it listens. Raises ProviderTimeout at the deadline; then nothing is left running."""
        self._task = asyncio.create_task(self._keep(), name=f"worker {self._name}")
        try:
            async with asyncio.timeout(deadline_s):
                await self._ready.wait()
        except TimeoutError as error:
            await self.close()
            raise ProviderTimeout(self._name, f"the model was not loaded within {deadline_s:g} s") from error

    async def close(self) -> None:
        """End the process: its input is closed, and it is killed if that does not help."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
            self._task = None

    async def _keep(self) -> None:
        pause_s = FIRST_PAUSE_S
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            await self._live()
            self.restarts += 1
            pause_s = FIRST_PAUSE_S if loop.time() - started >= SETTLED_S else min(2 * pause_s, LONGEST_PAUSE_S)
            await asyncio.sleep(pause_s)

    async def _live(self) -> None:
        """One life of the process."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._arguments,
            stdin=PIPE,
            stdout=PIPE,
            env={**os.environ, KEY_VARIABLE: self._key},
        )
        self._process = process
        try:
            assert process.stdout is not None
            line = await process.stdout.readline()
            if line:
                await self._on_ready(str(json.loads(line)["url"]), self._key)
                self._ready.set()
                self._log.info("language model serves", pid=process.pid)
            code = await process.wait()
            self._log.error("language model process ended", code=code, restarts=self.restarts)
        finally:
            await self._on_lost()
            await _stop(process)
            self._process = None


async def _stop(process: Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
