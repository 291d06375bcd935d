"""Engines' threads yield to those that sound depends on."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence

import pytest

from sipserver.speech import quiet
from sipserver.speech.quiet import NICE
from sipserver.speech.work import WorkQueue


def niceness(_jobs: Sequence[int] = ()) -> list[int]:
    return [os.getpriority(os.PRIO_PROCESS, threading.get_native_id())]


async def test_what_is_loaded_yields_with_all_the_threads_it_starts() -> None:
    inherited: list[int] = []

    def loading() -> list[int]:
        thread = threading.Thread(target=lambda: inherited.extend(niceness()))
        thread.start()
        thread.join()
        return niceness()

    before = niceness()[0]
    assert await quiet.load(loading) == inherited == [max(NICE, before)]
    assert niceness() == [before]


async def test_work_yields() -> None:
    queue = WorkQueue("engine", niceness, threads=1, bound=1, timeout_s=10)
    assert (await queue.submit(1)).value == max(NICE, niceness()[0])
    await queue.close()


async def test_what_goes_wrong_is_raised_where_it_is_awaited() -> None:
    def loading() -> None:
        raise ValueError("no model")

    with pytest.raises(ValueError, match="no model"):
        await quiet.load(loading)


async def test_who_gives_up_waits_no_longer() -> None:
    go_on = threading.Event()
    loading = asyncio.create_task(quiet.load(lambda: go_on.wait(10)))
    await asyncio.sleep(0)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    go_on.set()
