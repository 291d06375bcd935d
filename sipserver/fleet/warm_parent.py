"""The supervisor's handle on its warm parent (`zygote.py`): start it, ask it for children, notice its death.

Owns the process and the socket to it. Refuses to know which children are wanted and what becomes of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from sipserver.errors import ConfigError, InternalError, SettingsError, SipServerError
from sipserver.fleet import zygote
from sipserver.fleet.process import ChildSpec
from sipserver.log import logger

FORK_S = 5.0
"""A fork takes milliseconds; a warm parent that has not answered for so long is of no use."""


class WarmParent:
    """`start`, `spawn`, `close`. Loop thread.

    kinds: `module:name` of the table of kinds.
    """

    def __init__(self, settings_file: Path, kinds: str) -> None:
        self._settings_file, self._kinds = settings_file, kinds
        self._process: asyncio.subprocess.Process | None = None
        self._channel: socket.socket | None = None
        self._watch: asyncio.Task[None] | None = None
        self._warm: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked: dict[str, asyncio.Future[int]] = {}
        self._log = logger("fleet")
        self.warmed_ms = 0
        self.gone = asyncio.Event()

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    async def start(self, *, strict: bool = True) -> None:
        """Returns when it is warm; strict as in `process.Preload`. Raises what its settings, its dialplans and its
        imports are refused for."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._channel = ours
        with theirs:
            # OpenBLAS would start threads when numpy is imported; nobody here multiplies matrices with it.
            environment = {"OPENBLAS_NUM_THREADS": "1", **os.environ}
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "sipserver.fleet.zygote"),
                *(str(theirs.fileno()), str(self._settings_file), self._kinds),
                "strict" if strict else "lenient",
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C in a terminal reaches the supervisor alone
                env=environment,
            )
        asyncio.get_running_loop().add_reader(ours, self._on_readable)
        self._watch = asyncio.create_task(self._wait(self._process), name="warm-parent")
        try:
            await asyncio.shield(self._warm)
        except BaseException:
            self._warm.cancel()
            await self.close()
            raise

    async def spawn(self, spec: ChildSpec, control_socket: socket.socket) -> int:
        """The child's pid. Its end of the control line is passed on and closed here. Raises InternalError when nothing
        was forked. Cancelled, it ends what was forked all the same."""
        with control_socket:
            if self._channel is None or self.gone.is_set():
                raise InternalError("the warm parent is gone")
            forked = self._asked[spec.run] = asyncio.get_running_loop().create_future()
            try:
                socket.send_fds(self._channel, [zygote.encode(spec)], [control_socket.fileno()])
            except OSError as problem:
                del self._asked[spec.run]
                raise InternalError(f"the warm parent takes no request: {problem}") from None
        try:
            return await asyncio.wait_for(asyncio.shield(forked), FORK_S)
        except asyncio.CancelledError:
            await _undo(forked)
            raise
        except TimeoutError:
            self._log.error("the warm parent does not answer; it is killed", child=self.pid)
            self.kill()
            raise InternalError("the warm parent does not answer") from None
        finally:
            self._asked.pop(spec.run, None)

    def kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def close(self) -> None:
        """It ends by itself when the socket closes. Its children live on. Idempotent."""
        if self._channel is not None:
            asyncio.get_running_loop().remove_reader(self._channel)
            self._channel.close()
            self._channel = None
        if self._watch is not None:
            done, _ = await asyncio.wait({self._watch}, timeout=FORK_S)
            if not done:
                self.kill()
                await self._watch

    async def _wait(self, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        self.gone.set()
        lost = InternalError(f"the warm parent ended with {code}")
        if not self._warm.done():
            self._on_readable()  # it may have said why
        if not self._warm.done():
            self._warm.set_exception(lost)
        for forked in self._asked.values():
            if not forked.done():
                forked.set_exception(lost)

    def _on_readable(self) -> None:
        if self._channel is None:
            return
        try:
            message = self._channel.recv(zygote.MOST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            asyncio.get_running_loop().remove_reader(self._channel)
            return
        self._on_message(json.loads(message))

    def _on_message(self, answer: dict[str, Any]) -> None:
        if "warm" in answer:
            self.warmed_ms = answer["warm"]
            if not self._warm.done():
                self._warm.set_result(None)
            return
        if "refused" in answer:
            if not self._warm.done():
                self._warm.set_exception(_refusal(answer))
            return
        forked = self._asked.get(answer["run"])
        if forked is None or forked.done():
            self._log.warning(
                "a child came too late; its line is closed, so it ends by itself", child=answer.get("pid")
            )
        elif "pid" in answer:
            forked.set_result(answer["pid"])
        else:
            forked.set_exception(InternalError(f"no fork: {answer['error']}"))


async def _undo(forked: asyncio.Future[int]) -> None:
    await asyncio.wait({forked}, timeout=FORK_S)
    if forked.done() and forked.exception() is None:
        pid = forked.result()
        os.kill(pid, signal.SIGKILL)  # ours, and nobody has waited for it: the id is still its own
        await asyncio.to_thread(os.waitpid, pid, 0)


def _refusal(answer: dict[str, Any]) -> SipServerError:
    kind: type[SipServerError] = SettingsError if answer["config"] else InternalError
    problem = kind(str(answer["refused"]))
    assert isinstance(problem, ConfigError | InternalError)
    return problem
