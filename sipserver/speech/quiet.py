"""Threads that yield: engines may take their time, sound may not.

Owns the priority of engines' threads. The media clock and the judge of voices must run every few milliseconds on the
same cores; on Linux each thread has its own nice value, and threads that a library starts inherit it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

NICE = 5


def yield_to_sound() -> None:
    """Lower the priority of the calling thread, and of those that it will start."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        if os.getpriority(os.PRIO_PROCESS, thread) < NICE:
            os.setpriority(os.PRIO_PROCESS, thread, NICE)


async def load(work: Callable[[], Result]) -> Result:
    """Run `work` on a thread of its own that yields; whatever threads it starts will yield too.

    When it is cancelled, the thread goes on to its end, unheard. Raises what `work` raises.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def settle(result: Result | None, problem: BaseException | None) -> None:
        if done.done():
            return
        if problem is not None:
            done.set_exception(problem)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        yield_to_sound()
        result, problem = None, None
        try:
            result = work()
        except BaseException as error:  # it belongs to whoever awaits
            problem = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, result, problem)

    thread = threading.Thread(target=run, name="load engine", daemon=True)
    thread.start()
    try:
        return await done
    finally:
        if done.done() and not done.cancelled():
            thread.join()
