"""A supervisor with real processes of test kinds, and the rule that none of them outlives its test."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from sipserver import settings
from sipserver.bus.memory import Hub, MemoryBus
from sipserver.fleet import process
from sipserver.fleet.ledger import started
from sipserver.fleet.slots import port_is_free
from sipserver.fleet.supervisor import Supervisor
from sipserver.settings import Settings
from tests.fakes.dialplans import written
from tests.fleet.fakes import KINDS, FakeEdge

WAIT_S = 20.0


async def until(true: Callable[[], bool | Awaitable[bool]], what: str = "") -> None:
    """Ask again and again; for facts of other processes, which nobody tells us."""
    deadline_s = time.monotonic() + WAIT_S
    while True:
        answer = true()
        if answer is True or (not isinstance(answer, bool) and await answer):
            return
        assert time.monotonic() < deadline_s, what or "it never came true"
        await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def _subreaper() -> Iterator[None]:
    """Whatever loses its parent in a test becomes a child of ours, where the check for leaks sees it."""
    process.become_subreaper()
    yield
    ctypes.CDLL(None).prctl(process.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    for child in _our_children():
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, os.WNOHANG)


def _our_children() -> list[int]:
    return [int(child) for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def free_range(count: int) -> tuple[int, int]:
    """First and last of so many ports in a row that nobody has now."""
    while True:
        first = random.randrange(20_000, 30_000)
        if all(port_is_free("127.0.0.1", port) for port in range(first, first + count)):
            return first, first + count - 1


@pytest.fixture
def settings_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes settings for a fleet of two cells (three calls each) that reacts quickly."""

    def write(calls: int = 6, ports: int = 12, folder: Path = tmp_path, **fleet: Any) -> Path:
        plans = folder / "dialplans"
        plans.mkdir(exist_ok=True)
        (plans / "acme.yaml").write_text(written("main:\n- answer\n- hangup"))
        first, last = free_range(ports)
        lines = {
            "calls": calls,
            "sip_ports": [first, last],
            "heartbeat_s": 0.1,
            "hang_s": 1,
            "ready_s": 10,
            "backoff_s": [0.05, 0.2],
            "gateways": 1,
            **fleet,
        }
        text = "mode: fleet\nbus: {url: 'redis://unused'}\ncalls: {drain_s: 20}\n"
        text += "sip: {rtp_ports: [10000, 10999]}\ndialplans: dialplans\nfleet:\n"
        text += "".join(f"  {key}: {value}\n" for key, value in lines.items())
        text += f"  runtime: {folder / 'run'}\n"
        file = folder / "sipserver.yaml"
        file.write_text(text)
        return file

    return write


class Rig:
    """A running supervisor and what stands around it."""

    def __init__(self, loaded: Settings, file: Path, hub: Hub, node: str, kinds: str) -> None:
        self.settings, self.hub, self.edge = loaded, hub, FakeEdge()
        self.bus = MemoryBus(node=node, run=f"supervisor of {node}", hub=hub)
        self.supervisor = Supervisor(loaded, file, self.bus, edge=self.edge, kinds=kinds, cores=1)

    @property
    def runtime(self) -> Path:
        return self.settings.fleet.runtime

    def cell(self, index: int = 0) -> Any:
        child = self.supervisor.crew.seats["cell"][index].child
        assert child is not None
        return child

    async def ready(self, but: Any = None, index: int = 0) -> Any:
        """The cell of a seat, when it is ready and another than `but`."""

        def there() -> bool:
            child = self.supervisor.crew.seats["cell"][index].child
            return child is not None and child is not but and child.ready.is_set()

        await until(there, "no cell in the seat")
        return self.cell(index)


@pytest.fixture
def start(
    settings_file: Callable[..., Path],
) -> Callable[..., AbstractAsyncContextManager[Rig]]:
    """`async with start(...) as rig`: a supervisor that serves; options are those of the settings."""

    @contextlib.asynccontextmanager
    async def begin(
        hub: Hub | None = None,
        node: str = "m1",
        kinds: str = KINDS,
        before: Callable[[Rig], Awaitable[None] | None] = lambda _rig: None,
        **options: Any,
    ) -> AsyncIterator[Rig]:
        file = settings_file(**options)
        rig = Rig(settings.load(file), file, hub or Hub(), node, kinds)
        before(rig)
        async with rig.supervisor.running():
            yield rig

    return begin


@pytest.fixture
def reap() -> Iterator[Callable[[int], None]]:
    """Give it the ids of processes that must not outlive the test; nobody else who gets such an id later is hit."""
    noted: dict[int, int] = {}

    def note(pid: int) -> None:
        if pid > 0 and (began := started(pid)):
            noted[pid] = began

    yield note
    for pid, began in noted.items():
        if started(pid) == began:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
