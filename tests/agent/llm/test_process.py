"""The process around the local model: started, watched, restarted, ended with its parent."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from sipserver.agent.llm import process
from sipserver.agent.llm.process import WorkerProcess
from sipserver.errors import ProviderTimeout

ROOT = Path(__file__).parents[3]


class Watcher:
    def __init__(self) -> None:
        self.ready: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.lost: asyncio.Queue[None] = asyncio.Queue()

    async def on_ready(self, address: str, key: str) -> None:
        self.ready.put_nowait((address, key))

    async def on_lost(self) -> None:
        self.lost.put_nowait(None)


def worker(mode: str, watcher: Watcher) -> WorkerProcess:
    return WorkerProcess("local", ["-m", "tests.fakes.llm_worker", mode], watcher.on_ready, watcher.on_lost)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(process, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(process, "STOP_S", 0.2)


async def test_it_tells_where_it_listens_and_ends_when_its_input_closes() -> None:
    watcher = Watcher()
    local = worker("serve", watcher)
    await local.start()
    address, key = watcher.ready.get_nowait()
    assert address == "http://127.0.0.1:9"
    assert len(key) > 20
    pid = local.pid
    assert pid is not None
    await local.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_killed_it_is_started_again() -> None:
    watcher = Watcher()
    local = worker("serve", watcher)
    await local.start()
    first = local.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    async with asyncio.timeout(10):
        await watcher.lost.get()
        await watcher.ready.get()
        await watcher.ready.get()
    assert local.pid not in {None, first}
    assert local.restarts == 1
    await local.close()


@pytest.mark.parametrize("mode", ["dies", "hangs"])
async def test_one_that_never_listens_is_given_up_at_the_deadline(mode: str) -> None:
    local = worker(mode, Watcher())
    with pytest.raises(ProviderTimeout, match="not loaded"):
        await local.start(deadline_s=0.5)
    assert local.pid is None


async def test_it_dies_with_a_parent_that_is_killed() -> None:
    """A parent in a process of its own starts a worker, says its pid, and is killed with -9."""
    program = f"""
import asyncio, sys
sys.path.insert(0, {str(ROOT)!r})
from sipserver.agent.llm.process import WorkerProcess
async def nothing(*_): pass
async def main():
    local = WorkerProcess("local", ["-m", "tests.fakes.llm_worker", "serve"], nothing, nothing)
    await local.start()
    print(local.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    pid = 0
    async with asyncio.timeout(20):
        while not pid:
            line = (await parent.stdout.readline()).strip()
            pid = int(line) if line.isdigit() else 0
    ended = asyncio.Event()
    process_fd = os.pidfd_open(pid)
    asyncio.get_running_loop().add_reader(process_fd, ended.set)
    try:
        parent.kill()
        await parent.wait()
        async with asyncio.timeout(10):
            await ended.wait()
    finally:
        asyncio.get_running_loop().remove_reader(process_fd)
        os.close(process_fd)
