"""Both ends of the line between supervisor and child, in one loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sipserver.errors import InternalError
from sipserver.fleet.control import Beat, Control, Leash
from tests.fleet.conftest import until


class Pair:
    """control: the child's end. leash: the supervisor's."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.beats: asyncio.Queue[Beat] = asyncio.Queue(100)
        self.ended, self.given_up = asyncio.Event(), asyncio.Event()
        self.leash = Leash(ours, on_ready=self.ready.set_result, on_beat=self.beats.put_nowait, on_end=self.ended.set)
        self.control = Control(theirs, heartbeat_s=0.01, drain_s=7, orphan_s=0.05, give_up=self.given_up.set)
        self.drained: list[float] = []
        self.finish, self.hurried, self.reloaded = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def drain(self, within_s: float) -> None:
        self.drained.append(within_s)
        waits = [asyncio.ensure_future(event.wait()) for event in (self.finish, self.hurried)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    def obey(self) -> asyncio.Task[None]:
        return asyncio.create_task(
            self.control.obey(drain=self.drain, hurry=self.hurried.set, reload=self.reloaded.set)
        )


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    pair = Pair()
    await pair.leash.open()
    await pair.control.open()
    async with asyncio.timeout(10):
        yield pair
    await pair.control.close()
    pair.leash.close()


async def test_ready_and_beats_carry_facts(pair: Pair) -> None:
    await pair.control.ready(sip_port=5100)
    assert await pair.ready == {"sip_port": 5100}
    pair.control.beat_with(lambda: {"calls": 2, "sip_age_ms": 5, "journal": 3})
    while (beat := await pair.beats.get()).calls == 0:
        pass
    assert (beat.calls, beat.sip_age_ms, beat.media_age_ms, beat.more) == (2, 5, None, {"journal": 3})
    assert pair.leash.beat == beat or not pair.beats.empty()


async def test_a_beat_goes_out_even_if_nobody_knows_the_facts(pair: Pair) -> None:
    def broken() -> dict[str, Any]:
        raise InternalError("no facts")

    pair.control.beat_with(broken)
    for _ in range(3):
        await pair.beats.get()


async def test_a_drain_ends_obedience_and_is_asked_for_once(pair: Pair) -> None:
    obeying = pair.obey()
    pair.leash.reload()
    await pair.reloaded.wait()
    pair.leash.drain(3)
    pair.leash.drain(2)
    pair.finish.set()
    await obeying
    assert pair.drained in ([3], [2])


async def test_stop_hurries_a_drain(pair: Pair) -> None:
    obeying = pair.obey()
    pair.leash.drain(3)
    await until(lambda: pair.drained != [])
    pair.leash.stop()
    await obeying
    assert pair.drained == [3]


async def test_stop_without_a_drain_is_a_drain_that_takes_no_time(pair: Pair) -> None:
    pair.finish.set()
    obeying = pair.obey()
    pair.leash.stop()
    await obeying
    assert pair.drained == [0]


async def test_orders_before_obedience_wait(pair: Pair) -> None:
    pair.leash.drain(4)
    await pair.beats.get()
    pair.finish.set()
    await pair.obey()
    assert pair.drained == [4]


async def test_a_child_that_lost_its_supervisor_drains_after_a_while(pair: Pair) -> None:
    await pair.control.ready()
    await pair.ready
    pair.finish.set()
    obeying = pair.obey()
    pair.leash.close()
    await pair.control.orphaned.wait()
    assert pair.drained == []
    await obeying
    assert pair.drained == [7]


async def test_a_child_that_was_not_ready_gives_up(pair: Pair) -> None:
    pair.leash.close()
    await pair.given_up.wait()


async def test_the_supervisor_hears_the_end(pair: Pair) -> None:
    await pair.control.close()
    await pair.ended.wait()


async def test_words_that_nobody_knows_are_skipped(pair: Pair) -> None:
    pair.control._line.say("sing", 1)
    pair.leash._line.say("dance", 1)
    await pair.control.ready(good=True)
    assert await pair.ready == {"good": True}
