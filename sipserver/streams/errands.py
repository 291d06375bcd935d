"""Requests by packages that block: a few threads of our own, and a bound on what waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sipserver.errors import CarrierError

THREADS = 4
MOST_WAITING = 100
"""Requests that may run or wait; further ones fail at once."""

Answer = TypeVar("Answer")


class Errands:
    """Loop thread; `close` at the end. Cancelling `run` does not stop the request."""

    def __init__(self, whose: str) -> None:
        self._whose = whose
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix=whose)
        self._waiting = 0

    async def run(self, request: Callable[[], Answer]) -> Answer:
        """Raises what the request raises; CarrierError (503) when too many wait, or after `close`."""
        if self._waiting >= MOST_WAITING:
            raise CarrierError(f"too many requests to {self._whose} wait already", 503)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, request)
        except RuntimeError as problem:  # the threads have been shut down
            raise CarrierError("the server is shutting down", 503) from problem
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """Returns when the requests that run are over. Those that wait are not sent."""
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)
