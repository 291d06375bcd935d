"""Processes that are watched, ended and found again by their pid."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from sipserver.edge.survivor import Survivor

OBEDIENT = "print('here', flush=True); import time; time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {OBEDIENT}"


async def launched(survivor: Survivor, folder: Path, program: str) -> int:
    log = folder / "log"
    began = survivor.launch([sys.executable, "-c", program], log, folder)
    async with asyncio.timeout(10):
        while b"here" not in log.read_bytes()[began:]:  # noqa: ASYNC110  files tell nobody
            await asyncio.sleep(0.01)
    assert survivor.pid is not None
    return survivor.pid


async def test_one_that_obeys_ends_and_another_follows(tmp_path: Path) -> None:
    ended: list[int | None] = []
    survivor = Survivor(on_end=lambda: ended.append(survivor.pid))
    await survivor.exited()  # nothing is watched
    first = await launched(survivor, tmp_path, OBEDIENT)
    assert survivor.lives
    await survivor.end(10)
    assert not survivor.lives
    second = await launched(survivor, tmp_path, OBEDIENT)
    await survivor.kill()
    await survivor.exited()
    assert ended == [first, second]
    assert (tmp_path / "log").read_text() == "here\nhere\n"
    survivor.leave()


async def test_one_that_does_not_obey_is_killed_at_the_deadline(tmp_path: Path) -> None:
    survivor = Survivor()
    await launched(survivor, tmp_path, STUBBORN)
    await survivor.end(0.05)
    assert not survivor.lives
    survivor.leave()
    assert survivor.pid is None


async def test_one_that_somebody_else_started_is_watched_and_left(tmp_path: Path) -> None:
    survivor = Survivor()
    with subprocess.Popen([sys.executable, "-c", OBEDIENT], stdout=subprocess.PIPE) as other:  # noqa: ASYNC220
        survivor.watch(other.pid)
        survivor.leave()
        assert other.poll() is None
        survivor.watch(other.pid)
        other.kill()
        async with asyncio.timeout(10):
            await survivor.exited()
    survivor.leave()
    with pytest.raises(ProcessLookupError):
        survivor.watch(other.pid)
