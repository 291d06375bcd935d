from __future__ import annotations

import asyncio
import gc
import socket
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from sipserver.errors import CapacityError, CarrierError, InternalError, SipServerError
from sipserver.sip.thread import SipThread


class Poll:
    """Waits for a datagram as PJSIP would."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.address: tuple[str, int] = self.socket.getsockname()
        self.received: list[bytes] = []

    def __call__(self, milliseconds: int) -> None:
        self.socket.settimeout(max(0.001, milliseconds / 1000))
        with suppress(TimeoutError):
            self.received.append(self.socket.recv(100))


def translate(error: Exception) -> SipServerError:
    return InternalError(f"translated {error}")


@asynccontextmanager
async def running(bound: int = 100) -> AsyncIterator[tuple[SipThread, Poll]]:
    poll = Poll()
    thread = SipThread(poll, translate, bound=bound)
    await thread.start(lambda: None)
    thread.wake_by(poll.address)
    try:
        yield thread, poll
    finally:
        await thread.stop(lambda: None)
        poll.socket.close()


async def test_commands_run_on_the_thread_in_order_and_wake_it() -> None:
    async with running() as (thread, poll):
        names: list[str] = []
        first = thread.submit(lambda: names.append(threading.current_thread().name))
        assert await thread.submit(lambda: 42) == 42
        await first
        assert names == ["sip"]
        await thread.submit(lambda: None)
        assert b"\r\n\r\n" in poll.received
        assert thread.ticks > 0
        assert thread.last_tick_s is not None


async def test_errors_leave_the_thread_without_their_frames() -> None:
    async with running() as (thread, _):
        held: list[weakref.ref[object]] = []

        class Precious:
            pass

        def command(error: Exception) -> Callable[[], None]:
            def fail() -> None:
                precious = Precious()
                held.append(weakref.ref(precious))
                raise error

            return fail

        with pytest.raises(InternalError, match="translated boom"):
            await thread.submit(command(ValueError("boom")))
        gone = thread.submit(command(CarrierError("gone", 404)))
        with pytest.raises(CarrierError, match="gone") as raised:
            await gone
        assert raised.value.status == 404
        gc.collect()
        assert [reference() for reference in held] == [None, None]


async def test_too_many_commands_are_refused() -> None:
    async with running(bound=2) as (thread, _):
        release = threading.Event()
        busy = thread.submit(release.wait)
        await asyncio.sleep(0.15)
        waiting = [thread.submit(lambda: None) for _ in range(2)]
        with pytest.raises(CapacityError, match="overloaded"):
            await thread.submit(lambda: None)
        release.set()
        await asyncio.gather(busy, *waiting)


async def test_a_failed_setup_leaves_no_thread() -> None:
    def setup() -> None:
        raise CarrierError("no")

    poll = Poll()
    thread = SipThread(poll, translate)
    with pytest.raises(CarrierError, match="no"):
        await thread.start(setup)
    poll.socket.close()
    assert "sip" not in [one.name for one in threading.enumerate()]


async def test_posted_commands_and_periodic_ones_survive_their_errors() -> None:
    async with running() as (thread, _):
        again = asyncio.Event()

        def periodic() -> None:
            thread.to_loop(again.set)
            raise ValueError("periodic")

        def failing() -> None:
            raise ValueError("posted")

        await thread.submit(lambda: thread.every(0.01, periodic))
        thread.post(failing)
        async with asyncio.timeout(5):
            await again.wait()
            again.clear()
            await again.wait()
        assert await thread.submit(lambda: "alive") == "alive"


async def test_after_the_stop_nothing_is_taken() -> None:
    async with running() as (thread, _):
        done: list[str] = []
        await thread.stop(lambda: done.append("teardown"))
        assert done == ["teardown"]
        with pytest.raises(CapacityError, match="stopping"):
            await thread.submit(lambda: None)


def test_a_closed_loop_is_no_error() -> None:
    async def make() -> SipThread:
        return SipThread(lambda _: None, translate)

    thread = asyncio.run(make())
    thread.to_loop(print)
    thread._waker.close()
