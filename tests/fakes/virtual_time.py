"""Time that passes only when every task waits: tests of seconds run in milliseconds and always alike."""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec

Given = ParamSpec("Given")


class _Selector(selectors.DefaultSelector):
    """Never sleeps: what it was asked to wait is added to the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise RuntimeError("every task waits for something that never comes")
        self.now_s += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)
        self._threads = ThreadPoolExecutor(1)
        self.set_default_executor(self._threads)

    async def shutdown_default_executor(self) -> None:
        """Waits in real time: threads know no other."""
        self._threads.shutdown()

    def time(self) -> float:
        return self._virtual.now_s


def now_ns() -> int:
    """The clock to give to what is tested."""
    return round(asyncio.get_running_loop().time() * 1e9)


def virtual(test: Callable[Given, Coroutine[Any, Any, None]]) -> Callable[Given, None]:
    """Run an async test in virtual time. A task that it leaves behind fails it."""

    @functools.wraps(test)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> None:
        async def checked() -> None:
            await test(*args, **kwargs)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, f"tasks left behind: {sorted(task.get_name() for task in left)}"

        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(checked())

    return run
