"""agent: a conversation takes the caller's sound and the playout until it is done."""

from __future__ import annotations

from sipserver.calls.outbound import Outcome
from sipserver.calls.scene import Left, Scene
from sipserver.calls.steps.fetch import Fetching
from sipserver.calls.steps.transfer import transfer
from sipserver.dialplan import steps
from sipserver.errors import ProviderError


async def agent(step: steps.Agent, scene: Scene) -> Left:
    """Digits are the conversation's, whether it collects them or not: none is left to answer a later menu."""
    if step.transfer is None or step.transfer.keep != "agent":
        return await _talk(step, scene, None)
    async with Fetching(step.transfer, scene) as fetching:
        return await _talk(step, scene, fetching)


async def _talk(step: steps.Agent, scene: Scene, fetching: Fetching | None) -> Left:
    call, services = scene.call, scene.call.services
    options, unknown = scene.plan.agents[step.use].rendered(scene.variables)
    scene.report(unknown)
    talk = services.converse(
        options=options,
        engines=services.engines,
        playout=call.leg.playout,
        emit=call.emit,
        digits=call.digits,
        variables=scene.variables,
        voice=scene.voice,
        fetch=fetching,
    )
    with call.wiring.listening(talk.hear), call.digits.handed_to(talk.digit):
        try:
            outcome = await talk.run()
        except ProviderError as problem:
            return scene.failed("agent", problem)
    call.digits.clear()
    call.log.info("agent left", agent=step.use, outcome=outcome.kind, detail=outcome.detail)
    if fetching is not None and fetching.there:  # whatever else ended the conversation in the same moment
        return await fetching.connect()
    if outcome.kind == "transfer":
        scene.set("transfer_reason", outcome.detail)
        if step.transfer is not None:
            return await _handed_over(step.transfer, scene)
    return Left(outcome.kind)


async def _handed_over(step: steps.Handover, scene: Scene) -> Left:
    """The person whom the agent wants for the caller; unless they have talked, the caller goes on by `transfer`."""
    await scene.call.answer()
    left = await transfer(step, scene)
    return left if left.outcome == Outcome.ANSWERED else Left("transfer")
