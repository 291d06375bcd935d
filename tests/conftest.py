"""What every test gets: free ports, and the rule that a leaked task, thread, process or port fails the test.

Tasks are compared on the test's own loop just before it closes. Threads, child processes and bound sockets are compared
when all of the test's fixtures are torn down, its loop included, with what was there before its first function-scoped
fixture; so what a module- or session-scoped fixture holds is nobody's leak. Something that is on its way out gets
`GRACE_S` to go; a test that leaks nothing never waits.

Allowed to stay (`_allowed_thread`, `_allowed_child`): multiprocessing's one resource tracker a process,
the one monitor thread of tqdm (model downloads), the session's PostgreSQL, which a test may restart, and entries of
`threading` for foreign threads that have ended.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest
import structlog

pytest_plugins = ["tests.servers.postgres"]

GRACE_S = 3.0
PROC = Path("/proc/self")

REAL_TIME = frozenset({
    "agent", "api", "bus", "calls", "cli", "e2e", "edge", "faults", "fleet", "gate", "peers", "sip", "speech", "store",
    "ops", "streams", "tenants", "webhooks", "webrtc",
})  # fmt: skip
"""Folders whose tests have processes, sockets and clocks of a machine that others share: one that fails is tried up
to twice more, and the summary names it (RERUN). docs/decisions/0019 says why."""

hypothesis.settings.register_profile(
    "shared machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("shared machine")
"""How long one example takes says nothing on a machine that others use."""

_BEFORE: pytest.StashKey[Holdings] = pytest.StashKey()


@dataclass(frozen=True)
class Holdings:
    """What the process holds: live threads, child process ids, inodes of its sockets."""

    threads: frozenset[threading.Thread]
    children: frozenset[int]
    sockets: frozenset[str]

    @classmethod
    def now(cls) -> Holdings:
        return cls(frozenset(threading.enumerate()), frozenset(_children()), frozenset(_sockets()))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if REAL_TIME.intersection(item.path.parts):
            item.add_marker(pytest.mark.flaky(reruns=2))


@pytest.fixture(autouse=True)
def _leak_check(request: pytest.FixtureRequest) -> None:
    """Takes stock; `pytest_runtest_teardown` compares. Async tests also get their tasks checked."""
    request.node.stash[_BEFORE] = Holdings.now()
    if asyncio.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("_task_leak_check")


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """A test that sets the log up does so for itself alone."""
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
async def _task_leak_check() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    deadline = time.monotonic() + GRACE_S
    while left := asyncio.all_tasks() - before - {asyncio.current_task()}:
        if time.monotonic() > deadline:
            pytest.fail("leaked tasks: " + ", ".join(sorted(str(task) for task in left)))
        await asyncio.sleep(0 if time.monotonic() < deadline - GRACE_S + 0.01 else 0.02)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    yield
    before = item.stash.get(_BEFORE, None)
    if before is None:
        return
    deadline = time.monotonic() + GRACE_S
    while leaks := _leaks(before):
        if time.monotonic() > deadline:
            pytest.fail("leaked " + "; ".join(leaks))
        time.sleep(0.01)


def _leaks(before: Holdings) -> list[str]:
    now = Holdings.now()
    threads = [thread for thread in now.threads - before.threads if not _allowed_thread(thread)]
    children = [child for child in now.children - before.children if not _allowed_child(child)]
    new_sockets = now.sockets - before.sockets
    return [
        *(f"thread {thread.name}" for thread in threads),
        *(f"process {child} ({_command(child)})" for child in children),
        *(f"port {port}" for port in (_bound(new_sockets) if new_sockets else [])),
    ]


def _allowed_thread(thread: threading.Thread) -> bool:
    gone = thread.native_id is not None and not (PROC / "task" / str(thread.native_id)).exists()
    return gone or type(thread).__name__ == "TMonitor"


def _allowed_child(child: int) -> bool:
    command = _command(child)
    return "multiprocessing.resource_tracker" in command or "/bin/postgres -D" in command


def _command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "ended, nobody waited for it"


def _children() -> Iterator[int]:
    for task in (PROC / "task").iterdir():
        try:
            yield from (int(child) for child in (task / "children").read_text().split())
        except OSError:  # the thread ended while we looked
            continue


def _sockets() -> Iterator[str]:
    for descriptor in os.listdir(PROC / "fd"):
        try:
            target = os.readlink(PROC / "fd" / descriptor)
        except OSError:  # the descriptor of the listing itself
            continue
        if target.startswith("socket:["):
            yield target[8:-1]


def _bound(inodes: frozenset[str]) -> list[str]:
    """Listening TCP sockets and bound UDP sockets among the inodes, as `tcp 127.0.0.1:port` (proc(5), net/tcp)."""
    found = []
    for table, listening in (("tcp", "0A"), ("tcp6", "0A"), ("udp", ""), ("udp6", "")):
        for row in (PROC / "net" / table).read_text().splitlines()[1:]:
            fields = row.split()
            if fields[9] in inodes and fields[3].startswith(listening):
                found.append(f"{table} {int(fields[1].rpartition(':')[2], 16)}")
    return found


def _free(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses now."""
    return _free(socket.SOCK_STREAM)


@pytest.fixture
def free_udp_port() -> int:
    """A UDP port of 127.0.0.1 that nobody uses now."""
    return _free(socket.SOCK_DGRAM)


@pytest.fixture
def free_sip_port() -> Callable[[], int]:
    """Gives ports of 127.0.0.1 that are free for UDP and TCP alike, a different one at each call of the same test."""
    given: set[int] = set()

    def choose() -> int:
        while True:
            with ExitStack() as sockets:
                tcp = sockets.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
                tcp.bind(("127.0.0.1", 0))
                port = int(tcp.getsockname()[1])
                udp = sockets.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                try:
                    udp.bind(("127.0.0.1", port))
                except OSError:
                    continue
                if port not in given:
                    given.add(port)
                    return port

    return choose
