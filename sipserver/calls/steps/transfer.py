"""transfer: the caller is handed over to somebody, and it is known what came of it.

Blind: the caller's side calls the target itself (REFER). Attended and warm: we call it, and connect the two at once by
a bridge, which then gives way to REFER with Replaces where both sides can do that: whatever fails, nobody is lost.
"""

from __future__ import annotations

import asyncio

from sipserver.audio.frame import Samples
from sipserver.calls import music, waiting
from sipserver.calls.call import Call
from sipserver.calls.dialled import underlying
from sipserver.calls.join import Join, joined
from sipserver.calls.outbound import Order, Outcome, outcome_of
from sipserver.calls.party import Party
from sipserver.calls.scene import Left, Scene
from sipserver.calls.states import EndReason, State
from sipserver.calls.steps import placing
from sipserver.calls.steps.bridge import ENDINGS
from sipserver.calls.steps.introduction import introduced
from sipserver.dialplan import steps
from sipserver.dialplan.facts import split_uri
from sipserver.errors import CallerError, CapacityError, CarrierError, NotAllowed
from sipserver.events import TransferEnded, TransferStarted

NO_REFER = 405
NOTIFY_S = 5.0
"""The target's old leg is gone, as it is after a Replaces: so long we wait for the word that the transfer succeeded."""


async def transfer(step: steps.Transfer, scene: Scene) -> Left:
    """Each outcome is what a far end said. On anything but `answered` the flow goes on with the caller."""
    try:
        order = placing.order(step, scene)
    except NotAllowed as problem:
        return placing.refused(step, scene, problem)
    account = Account(scene.call, step.mode, order.to)
    way = _blind if step.mode == "blind" else _called
    try:
        return await way(step, scene, order, account)
    finally:
        account.close()


class Account:
    """What the record says about one transfer: that it began, and exactly once how it ended."""

    def __init__(self, call: Call, mode: str, to: str) -> None:
        self._call, self._mode = call, mode
        self._began_ms = call.at_ms
        self._took_ms: int | None = None
        self._closed = False
        call.emit(TransferStarted(mode=mode, to=to))

    def connected(self) -> None:
        """Caller and target hear each other: from here on it has succeeded, whoever goes next."""
        self._took_ms = self._call.at_ms - self._began_ms

    def ended(self, outcome: Outcome, how: str = "", code: int = 0) -> None:
        took_ms = self._call.at_ms - self._began_ms if self._took_ms is None else self._took_ms
        if not self._closed:
            self._closed = True
            self._call.emit(TransferEnded(self._mode, outcome.value, how, code, took_ms))

    def close(self) -> None:
        """The step is left, maybe because the call is over."""
        if self._took_ms is None:
            self.ended(Outcome.CALLER_GONE)
        else:
            self.ended(Outcome.ANSWERED, "bridge", 200)


# --- blind ------------------------------------------------------------------------------------------------------------


async def _blind(step: steps.Transfer, scene: Scene, order: Order, account: Account) -> Left:
    call = scene.call
    if not call.leg.can_refer:
        return _failed(scene, account, CarrierError("the caller's side cannot be transferred (REFER)", NO_REFER))
    try:
        async with asyncio.timeout(step.ring_s):
            status = await call.leg.refer(_uri(order.to, call))
    except TimeoutError:
        account.ended(Outcome.NO_ANSWER, "refer", 408)
        return placing.left(Outcome.NO_ANSWER, 408)
    except (CarrierError, CallerError) as refusal:
        if call.state is State.ENDING:
            raise
        return _failed(scene, account, refusal)
    outcome = outcome_of(status) if status >= 200 else Outcome.FAILED
    account.ended(outcome, "refer", status)
    if outcome is Outcome.ANSWERED:
        call.end(EndReason.TRANSFERRED, "by REFER")
    return placing.left(outcome, status)


def _failed(scene: Scene, account: Account, problem: CarrierError | CallerError) -> Left:
    status = problem.status if isinstance(problem, CarrierError) else problem.sip_code
    scene.failed("transfer", problem)
    account.ended(Outcome.FAILED, "refer", status)
    return placing.left(Outcome.FAILED, status)


def _uri(to: str, call: Call) -> str:
    """Whom the call's far end is asked to call: a number or user is one of its own side."""
    if to.lower().startswith(("sip:", "sips:")):
        return to
    offer = call.leg.offer
    _, host = split_uri(offer.to_uri if call.outbound else offer.from_uri)
    return f"sip:{to}@{host or offer.source}"


# --- attended and warm ------------------------------------------------------------------------------------------------


async def _called(step: steps.Transfer, scene: Scene, order: Order, account: Account) -> Left:
    call = scene.call
    try:
        party = Party(call, order)
    except (CallerError, CapacityError) as problem:
        account.ended(Outcome.FAILED, code=problem.sip_code)
        return placing.refused(step, scene, problem)
    samples = await placing.sound(step, scene)
    async with party:
        async with waiting.local(call, music.ringing() if samples is None else samples):
            outcome, code = await reached(step, scene, party)
        if outcome is not Outcome.ANSWERED:
            account.ended(outcome, code=code)
            return placing.left(outcome, code)
        return await connected(scene, party, account, samples)


async def reached(step: steps.Transfer, scene: Scene, party: Party) -> tuple[Outcome, int]:
    """Call the target; a warm one has to accept. What came of it, and the target's final answer if it decided."""
    outcome = await party.answer()
    if outcome is Outcome.ANSWERED and step.mode == "warm":
        return await introduced(step, scene, party), 0
    return outcome, party.status


async def connected(scene: Scene, party: Party, account: Account, samples: Samples | None) -> Left:
    """The two have each other until one of them is gone. samples: what one hears while the other one holds."""
    call = scene.call
    async with joined(call, party, music=samples, rtp_timeout_s=call.services.settings.media_timeout_s) as join:
        account.connected()
        if await _replaced(call, party, join):
            account.ended(Outcome.ANSWERED, "replaces", 200)
            call.end(EndReason.TRANSFERRED, "by REFER with Replaces")
        account.ended(Outcome.ANSWERED, "bridge", 200)
        reason = await join.over()
    return placing.left(Outcome.ANSWERED, reason=ENDINGS.get(reason))


async def _replaced(call: Call, party: Party, join: Join) -> bool:
    """Have the caller's side call the target in our place, the two hearing each other by the bridge meanwhile.

    Only within a trunk: somewhere else the target's dialog is not known, and the caller's side, which mostly puts us on
    hold while it tries, would interrupt the two for half a minute. Not while a recording runs: it would end with our
    part in the call.
    """
    can = call.leg.can_refer and call.leg.can_replace and party.leg.can_replace
    within = call.leg.offer.trunk == party.leg.offer.trunk
    if not (can and within) or call.tape.running or party.gone is not None:
        return False
    join.hand_over(True)
    referring = asyncio.create_task(
        call.leg.refer(party.leg.offer.to_uri, replaces=underlying(party.leg)), name="replace"
    )
    leaving = asyncio.create_task(party.left(), name=f"end of {party.name}")
    try:
        await asyncio.wait({referring, leaving}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({referring}, timeout=NOTIFY_S)
        replaced = _succeeded(referring)
        if replaced:
            join.end("transferred")
        return replaced
    finally:
        leaving.cancel()
        referring.cancel()
        await asyncio.wait({referring, leaving})
        join.hand_over(False)


def _succeeded(referring: asyncio.Task[int]) -> bool:
    if not referring.done():
        return False
    problem = referring.exception()
    if problem is not None and not isinstance(problem, CarrierError | CallerError):
        raise problem
    return problem is None and 200 <= referring.result() < 300
