"""When trunks register and are looked after, in virtual time, with a sender that answers as it is told."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from typing import Any

from sipserver.errors import CapacityError
from sipserver.sip import trunk_desk
from sipserver.sip.trunk_desk import TrunkDesk
from sipserver.trunks.settings import TrunkSettings
from sipserver.trunks.state import Registered, TrunkState
from tests.fakes.virtual_time import virtual
from tests.trunks.make import trunk

OK = (200, "OK", 60)
FORBIDDEN = (403, "Forbidden", 0)
REGISTER = {"user": "alice", "retry_s": 4, "retry_most_s": 20}


class Sender:
    """answers: to the next requests, in order; None for silence. at: the loop's time of each request."""

    def __init__(self, *answers: Any) -> None:
        self.answers = deque(answers)
        self.desk: TrunkDesk
        self.at: list[tuple[str, float]] = []
        self.unregistered = True

    def _sent(self, what: str) -> Any:
        self.at.append((what, asyncio.get_running_loop().time()))
        return self.answers.popleft() if self.answers else None

    async def register(self, name: str) -> None:
        answer = self._sent("register")
        if isinstance(answer, Exception):
            raise answer
        if answer is not None:
            self.desk.registration(name, *answer)

    async def unregister(self, name: str) -> bool:
        self._sent("unregister")
        if self.unregistered:
            self.desk.registration(name, 200, "OK", 0)
        return True

    async def probe(self, name: str) -> None:
        answer = self._sent("probe")
        if answer is not None:
            self.desk.probe_ended(name, *answer)


def desk_of(sender: Sender, *trunks: TrunkSettings) -> tuple[TrunkDesk, list[TrunkState]]:
    told: list[TrunkState] = []
    sender.desk = TrunkDesk(trunks, sender, told.append)
    return sender.desk, told


def registering(**facts: Any) -> TrunkSettings:
    return trunk("carrier", registrar="r.example", register=REGISTER, **facts)


@virtual
async def test_pauses_grow_up_to_the_longest_and_begin_anew_after_a_success() -> None:
    sender = Sender(*[FORBIDDEN] * 5, OK)
    desk, told = desk_of(sender, registering())
    desk.start()
    await asyncio.sleep(200)
    times = [at for _, at in sender.at]
    pauses = [round(later - earlier, 3) for earlier, later in itertools.pairwise(times)]
    for pause, longest in zip(pauses, (4, 8, 16, 20, 20), strict=True):
        assert 0.75 * longest <= pause <= longest
    assert len(set(pauses)) == 5  # in step with nobody
    assert told[-1].registration is Registered.REGISTERED
    desk.registration("carrier", *FORBIDDEN)  # a refresh
    await asyncio.sleep(4.1)
    assert len(sender.at) == 7
    await desk.stop()


@virtual
async def test_each_state_says_why_and_calls_avoid_the_trunk_meanwhile() -> None:
    sender = Sender(FORBIDDEN, OK)
    desk, told = desk_of(sender, registering(), trunk("other"))
    assert desk.down == frozenset()  # nothing is known yet
    desk.start()
    assert desk.down == {"carrier"}
    await asyncio.sleep(2.9)
    assert (desk.states["carrier"].word, desk.states["carrier"].reason) == ("failed", "REGISTER: 403 Forbidden")
    assert desk.down == {"carrier"}
    await asyncio.sleep(3)
    assert (desk.states["carrier"].word, desk.states["carrier"].reason) == ("registered", "")
    assert desk.down == frozenset()
    await desk.stop()
    words = [state.word for state in told]
    assert words == ["registering", "failed", "registering", "registered", "unregistered"]
    assert desk.states["other"].word == "up"


@virtual
async def test_a_registrar_that_does_not_answer_is_told_soon_and_a_late_answer_counts() -> None:
    sender = Sender()
    desk, _ = desk_of(sender, registering())
    desk.start()
    await asyncio.sleep(trunk_desk.ANSWER_S + 0.1)
    assert desk.states["carrier"].reason == "REGISTER: no answer within 5 s"
    desk.registration("carrier", *OK)
    await asyncio.sleep(0.1)
    assert desk.states["carrier"].up
    await desk.stop()


@virtual
async def test_what_the_sip_thread_never_tells_is_tried_again() -> None:
    sender = Sender(None, CapacityError("no account"), OK)
    desk, _ = desk_of(sender, registering())
    desk.start()
    await asyncio.sleep(trunk_desk.REGISTER_S + 4.1)
    assert desk.states["carrier"].reason == "REGISTER: no account"
    await asyncio.sleep(8)
    assert desk.states["carrier"].up
    await desk.stop()


@virtual
async def test_an_end_that_nobody_confirms_does_not_last() -> None:
    sender = Sender(OK)
    sender.unregistered = False
    desk, _ = desk_of(sender, registering())
    desk.start()
    await asyncio.sleep(1)
    before = asyncio.get_running_loop().time()
    await desk.stop()
    assert asyncio.get_running_loop().time() - before == trunk_desk.UNREGISTER_S
    assert desk.states["carrier"].registration is Registered.UNREGISTERED


@virtual
async def test_keep_alive_finds_a_peer_gone_and_back() -> None:
    answers: tuple[Any, ...] = (
        (200, "OK"),
        None,
        (0, "Request Timeout"),
        (503, "Service Unavailable"),
        (404, "Not Found"),
    )
    sender = Sender(*answers)
    desk, told = desk_of(sender, trunk("pbx", keepalive_s=10))
    desk.start()
    await asyncio.sleep(70)
    await desk.stop()
    assert [(state.reachable, state.reason) for state in told[:5]] == [
        (True, ""),
        (False, "OPTIONS: no answer within 5 s"),
        (False, "OPTIONS: no answer Request Timeout"),
        (False, "OPTIONS: 503 Service Unavailable"),
        (True, ""),
    ]
    assert [state.word for state in told[:2]] == ["up", "unreachable"]


@virtual
async def test_both_reasons_are_told() -> None:
    sender = Sender(FORBIDDEN, (408, "Request Timeout"))
    desk, _ = desk_of(sender, registering(keepalive_s=100))
    desk.start()
    await asyncio.sleep(1)
    assert desk.states["carrier"].reason == "REGISTER: 403 Forbidden; OPTIONS: 408 Request Timeout"
    await desk.stop()


@virtual
async def test_retry_after_is_waited_for_unless_it_is_absurd() -> None:
    sender = Sender((503, "Service Unavailable", 0, 30), (503, "Service Unavailable", 0, 100_000), OK)
    desk, _ = desk_of(sender, registering())
    desk.start()
    await asyncio.sleep(29.9)
    assert len(sender.at) == 1
    await asyncio.sleep(0.2)
    assert len(sender.at) == 2
    await asyncio.sleep(8)
    assert desk.states["carrier"].up
    await desk.stop()


@virtual
async def test_it_stops_in_the_moment_in_which_an_answer_comes() -> None:
    desk, _ = desk_of(Sender(), trunk("pbx", keepalive_s=10))
    desk.start()
    await asyncio.sleep(1)
    desk.probe_ended("pbx", 200, "OK")
    await asyncio.sleep(0)  # the answer has woken who waits for it, and nobody has looked yet
    async with asyncio.timeout(100):
        await desk.stop()


@virtual
async def test_a_registrar_that_was_away_is_told_again_at_once() -> None:
    """It may have forgotten everybody, and the next refresh is minutes away."""
    sender = Sender(OK, (200, "OK"), (408, "Request Timeout"), (408, "Request Timeout"), (200, "OK"), OK, (200, "OK"))
    desk, _ = desk_of(sender, registering(keepalive_s=10))
    desk.start()
    await asyncio.sleep(60)
    assert [what for what, _ in sender.at[:7]] == ["register", *["probe"] * 4, "register", "probe"]
    assert [what for what, _ in sender.at].count("register") == 2
    assert desk.states["carrier"].registration is Registered.REGISTERED
    await desk.stop()
