"""Registrations and keep-alive of the trunks, as the loop sees them.

Owns when REGISTER and OPTIONS are sent, the pauses after failures, and the state of each trunk; logs each change and
tells it to whoever asked. PJSIP refreshes a registration by itself and tells how that went; every other attempt begins
here. Refuses to know PJSIP: `accounts.py` sends, on the sip thread.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from sipserver.errors import SipServerError
from sipserver.log import logger
from sipserver.trunks.settings import TrunkSettings
from sipserver.trunks.state import Registered, TrunkState, first_state, pause_s

T = TypeVar("T")
OnState = Callable[[TrunkState], None]

ANSWER_S = 5.0
"""How long a trunk may leave REGISTER or OPTIONS without an answer before it counts as down; a later one counts."""
REGISTER_S = 45.0
"""PJSIP tells of each attempt within 32 s (RFC 3261, timer F), and once more after a challenge."""
UNREGISTER_S = 1.0
_LONGEST_RETRY_S = 3600
"""A Retry-After beyond it is not believed."""
_SPREAD = 0.1
_TIMEOUT, _UNAVAILABLE = 408, 503


class Sender(Protocol):
    """What the desk needs of the sip thread. What is sent is answered by `registration` and `probe_ended`."""

    def register(self, trunk: str) -> Awaitable[None]: ...

    def unregister(self, trunk: str) -> Awaitable[bool]:
        """False when nothing is to be waited for."""
        ...

    def probe(self, trunk: str) -> Awaitable[None]: ...


@dataclass(frozen=True, slots=True)
class _Answer:
    """To a REGISTER. expires_s: 0 unless registered."""

    status: int
    text: str
    expires_s: int = 0
    retry_s: int = 0


_BACK = _Answer(0, "the peer was away")
"""In place of an answer: a registrar that was away may have forgotten us, and is told again at once."""


class TrunkDesk:
    """Loop thread. `start` after the sip thread, `stop` before it; it may be started again.

    on_state: called with each new state; must not block or raise.
    """

    def __init__(self, trunks: Iterable[TrunkSettings], sender: Sender, on_state: OnState | None = None) -> None:
        self._trunks = {trunk.name: trunk for trunk in trunks}
        self._sender = sender
        self._on_state = on_state or (lambda _state: None)
        self._states = {trunk.name: first_state(trunk, time.time()) for trunk in self._trunks.values()}
        self._reasons: dict[tuple[str, str], str] = {}  # why registration or keep-alive of a trunk is not well
        self._answers: dict[str, asyncio.Queue[_Answer]] = {name: asyncio.Queue() for name in self._trunks}
        self._probed: dict[str, asyncio.Event] = {name: asyncio.Event() for name in self._trunks}
        self._tasks: list[asyncio.Task[Any]] = []
        self._random = random.Random()  # noqa: S311  # nosec B311

    @property
    def states(self) -> Mapping[str, TrunkState]:
        """By name, in the order of the settings."""
        return dict(self._states)

    @property
    def down(self) -> frozenset[str]:
        """Trunks that calls should try last; none while nothing is known because the desk does not run."""
        if not self._tasks:
            return frozenset()
        return frozenset(name for name, state in self._states.items() if not state.up)

    def start(self) -> None:
        """Begin to register and to keep alive."""
        for trunk in self._trunks.values():
            if trunk.register_ is not None:
                self._tasks.append(asyncio.create_task(self._stay_registered(trunk), name=f"register {trunk.name}"))
            if trunk.keepalive_s:
                self._tasks.append(asyncio.create_task(self._keep_alive(trunk), name=f"keep alive {trunk.name}"))

    async def stop(self) -> None:
        """End the tasks, then the registrations; registrars that do not answer within UNREGISTER_S are given up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        held = [name for name, state in self._states.items() if state.registration is Registered.REGISTERED]
        await asyncio.gather(*map(self._unregister, held))

    # --- fed by the sip thread ----------------------------------------------------------------------------------------

    def registration(self, trunk: str, status: int, text: str, expires_s: int, retry_s: int = 0) -> None:
        """What became of a REGISTER, of ours or a refresh. retry_s: the answer's Retry-After."""
        self._answers[trunk].put_nowait(_Answer(status, text, expires_s, retry_s))

    def probe_ended(self, trunk: str, status: int, text: str) -> None:
        """What became of an OPTIONS. Any answer shows that somebody is there, but 408 and 503: they speak for another
        who is not.
        """
        self._probed[trunk].set()
        well = bool(status) and status not in (_TIMEOUT, _UNAVAILABLE)
        self._reached(trunk, well, f"OPTIONS: {status or 'no answer'} {text}".strip())

    # --- inside -------------------------------------------------------------------------------------------------------

    async def _stay_registered(self, trunk: TrunkSettings) -> None:
        register, answers = trunk.register_, self._answers[trunk.name]
        assert register is not None
        failures = 0
        while True:
            while not answers.empty():
                answers.get_nowait()
            self._registered(trunk.name, Registered.REGISTERING, self._reasons.get((trunk.name, "register"), ""))
            try:
                await self._sender.register(trunk.name)
                answer = await self._answer(trunk.name)
            except TimeoutError:
                answer = _Answer(_TIMEOUT, "no answer")
            except SipServerError as problem:
                answer = _Answer(0, str(problem))
            while answer.expires_s:  # as long as refreshes go well
                failures = 0
                self._registered(trunk.name, Registered.REGISTERED, "")
                answer = await answers.get()
                if answer is _BACK:
                    break
            else:
                failures += 1
                pause = pause_s(register, failures, self._random.random)
                if answer.retry_s <= _LONGEST_RETRY_S:
                    pause = max(pause, answer.retry_s)
                what = f"{answer.status} {answer.text}".strip() if answer.status else answer.text
                self._registered(trunk.name, Registered.FAILED, f"REGISTER: {what}")
                logger("trunks").info("registering again later", trunk=trunk.name, pause_s=round(pause, 1))
                await asyncio.sleep(pause)

    async def _answer(self, trunk: str) -> _Answer:
        """The registrar's answer, or what PJSIP says in its place; the state does not wait as long as PJSIP does."""
        answers = self._answers[trunk]
        try:
            return await _within(ANSWER_S, answers.get())
        except TimeoutError:
            self._registered(trunk, Registered.FAILED, f"REGISTER: no answer within {ANSWER_S:g} s")
        return await _within(REGISTER_S - ANSWER_S, answers.get())

    async def _unregister(self, trunk: str) -> None:
        answers = self._answers[trunk]
        try:
            async with asyncio.timeout(UNREGISTER_S):
                if await self._sender.unregister(trunk):
                    await answers.get()
        except TimeoutError:
            logger("trunks").warning("the registrar did not confirm the end of the registration", trunk=trunk)
        self._registered(trunk, Registered.UNREGISTERED, "")

    async def _keep_alive(self, trunk: TrunkSettings) -> None:
        probed = self._probed[trunk.name]
        while True:
            probed.clear()
            try:
                await self._sender.probe(trunk.name)
                await _within(min(ANSWER_S, trunk.keepalive_s), probed.wait())
            except TimeoutError:
                self._reached(trunk.name, False, f"OPTIONS: no answer within {min(ANSWER_S, trunk.keepalive_s):g} s")
            except SipServerError as problem:
                self._reached(trunk.name, False, f"OPTIONS: {problem}")
            spread = 1 + _SPREAD * (2 * self._random.random() - 1)
            await asyncio.sleep(trunk.keepalive_s * spread)

    def _registered(self, trunk: str, registration: Registered, reason: str) -> None:
        self._change(trunk, "register", reason, registration=registration)

    def _reached(self, trunk: str, reachable: bool, reason: str) -> None:
        before = self._states[trunk]
        if reachable and before.reachable is False and before.registration is Registered.REGISTERED:
            self._answers[trunk].put_nowait(_BACK)
        self._change(trunk, "keep alive", "" if reachable else reason, reachable=reachable)

    def _change(self, trunk: str, kind: str, reason: str, **changes: Any) -> None:
        self._reasons[trunk, kind] = reason
        before = self._states[trunk]
        words = [self._reasons.get((trunk, key), "") for key in ("register", "keep alive")]
        after = replace(before, reason="; ".join(filter(None, words)), **changes)
        if after == before:
            return
        state = self._states[trunk] = replace(after, since=time.time())
        if (state.word, state.reason) != (before.word, before.reason):
            lost = before.up and not state.up and state.registration is not Registered.UNREGISTERED
            tell = logger("trunks").warning if lost else logger("trunks").info
            tell("trunk changed", trunk=trunk, state=state.word, reason=state.reason)
        self._on_state(state)


async def _within(seconds: float, awaited: Coroutine[Any, Any, T]) -> T:
    """Raises TimeoutError. `asyncio.wait_for` of Python 3.11 forgets to be cancelled in the moment of success, and the
    tasks here would go on for ever.
    """
    async with asyncio.timeout(seconds):
        return await awaited
