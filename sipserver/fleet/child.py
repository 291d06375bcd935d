"""One child as the supervisor sees it: its line, its death, its state. Loop thread.

Owns the process id (as a pidfd, so that no signal ever reaches a stranger) and the supervisor's end of the line.
Refuses to decide anything: `crew.py` does.
"""

from __future__ import annotations

import asyncio
import enum
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sipserver.fleet.control import Beat, Facts, Leash
from sipserver.fleet.plan import Slot
from sipserver.fleet.process import ChildSpec

Spawn = Callable[[ChildSpec, socket.socket], Awaitable[int]]


class State(enum.StrEnum):
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended. code: -1 when a signal ended it, or when only its own parent could know."""

    code: int = -1
    signal_name: str = ""

    @property
    def clean(self) -> bool:
        return self.code == 0

    def __str__(self) -> str:
        return self.signal_name or (f"code {self.code}" if self.code >= 0 else "unknown")


class Child:
    """`launch`, then orders. on_ready, on_leave and on_end are called on the loop and must not block. on_leave: it
    drains though we did not tell it to (SIGTERM from somebody else)."""

    def __init__(
        self,
        spec: ChildSpec,
        slot: Slot | None,
        *,
        on_ready: Callable[[Child], None],
        on_leave: Callable[[Child], None],
        on_end: Callable[[Child], None],
    ) -> None:
        self.spec, self.slot = spec, slot
        self._on_ready, self._on_leave, self._on_end = on_ready, on_leave, on_end
        self._leash: Leash | None = None
        self._pidfd = -1
        self.pid = 0
        self.state = State.STARTING
        self.asked_to_end = False
        self.killed_for = ""
        """Why we killed it."""
        self.exit = Exit()
        self.facts: Facts = {}
        """What it said with `ready`."""
        now_s = asyncio.get_running_loop().time()
        self.started_s, self.ready_s, self.end_by_s = now_s, 0.0, 0.0
        self.ready = asyncio.Event()
        self.ended = asyncio.Event()

    async def launch(self, spawn: Spawn) -> None:
        """Fork it and hold its line. Raises InternalError when nothing was forked; on_end is not called then."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.started_s = asyncio.get_running_loop().time()
        try:
            self.pid = await spawn(self.spec, theirs)
            self._pidfd = os.pidfd_open(self.pid)
        except BaseException:
            ours.close()
            raise
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_exit)
        self._leash = Leash(ours, on_ready=self._on_ready_facts, on_draining=self._on_draining)
        await self._leash.open()
        if self.asked_to_end:  # before it could be told
            self._leash.stop()

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def beat(self) -> Beat:
        return self._leash.beat if self._leash is not None else Beat()

    @property
    def heard_at_s(self) -> float:
        return self._leash.heard_at if self._leash is not None else self.started_s

    @property
    def calls(self) -> int:
        return self.beat.calls if self.state is not State.ENDED else 0

    @property
    def crashed(self) -> bool:
        """It ended, and not as a process of ours should."""
        return self.state is State.ENDED and (bool(self.killed_for) or not self.exit.clean)

    @property
    def fork_to_ready_ms(self) -> float:
        return round((self.ready_s - self.started_s) * 1000, 1) if self.ready_s else 0.0

    def will_drain(self, within_s: float) -> None:
        """It counts as draining, and is told a moment later, when nobody sends it new calls any more."""
        self._ending(within_s)

    def drain(self, within_s: float) -> None:
        """Take nothing new; end when all is done, or after so many seconds."""
        self._ending(within_s)
        if self._leash is not None:
            self._leash.drain(within_s)

    def stop(self) -> None:
        """End now, in order. A drain that goes on is hurried."""
        self._ending(0)
        if self._leash is not None:
            self._leash.stop()

    def reload(self) -> None:
        if self._leash is not None and self.state is State.READY:
            self._leash.reload()

    def kill(self, number: signal.Signals, reason: str) -> None:
        self.killed_for = self.killed_for or reason
        if self._pidfd >= 0:
            signal.pidfd_send_signal(self._pidfd, number)

    def abandon(self) -> None:
        """It was never forked."""
        self.state = State.ENDED
        self.ended.set()
        self._on_end(self)

    def _ending(self, within_s: float) -> None:
        self.asked_to_end = True
        if self.state is not State.ENDED:
            self.state = State.DRAINING
            self.end_by_s = asyncio.get_running_loop().time() + within_s

    def _on_ready_facts(self, facts: Facts) -> None:
        if self.ready.is_set() or self.state is State.ENDED:
            return
        self.facts = facts
        self.ready_s = asyncio.get_running_loop().time()
        if self.state is State.STARTING:
            self.state = State.READY
        self.ready.set()
        self._on_ready(self)

    def _on_draining(self, within_s: float) -> None:
        if not self.asked_to_end:
            self._ending(within_s)
            self._on_leave(self)

    def _on_exit(self) -> None:
        try:
            ended = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            ended = None  # a process of ours that is not our child: its parent has the status
        else:
            if ended is None:
                return
        if ended is not None:
            by_signal = ended.si_code in (os.CLD_KILLED, os.CLD_DUMPED)
            self.exit = Exit(-1, _signal_name(ended.si_status)) if by_signal else Exit(ended.si_status)
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        if self._leash is not None:
            self._leash.close()
        self.state = State.ENDED
        self.ended.set()
        self._on_end(self)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
