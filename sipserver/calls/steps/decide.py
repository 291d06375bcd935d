"""decide: the tenant's own server says where the call goes on."""

from __future__ import annotations

from sipserver.calls.deciding import Question
from sipserver.calls.scene import Left, Scene
from sipserver.dialplan import steps
from sipserver.errors import ProviderError
from sipserver.events import Decided, Fault

LONGEST_VALUE = 1000
"""Characters of a variable; more is cut off."""


async def decide(step: steps.Decide, scene: Scene) -> Left:
    call, decides = scene.call, scene.call.services.decides
    if decides is None:
        return scene.failed("decide", ProviderError("decide", "nobody asks other servers here"))
    began_ms = call.at_ms
    try:
        answer = await decides.ask(_question(step, scene))
    except ProviderError as problem:
        call.emit(Decided(outcome="failed", took_ms=call.at_ms - began_ms))
        return scene.failed("decide", problem)
    call.emit(Decided(outcome=answer.outcome, took_ms=call.at_ms - began_ms))
    if answer.outcome not in step.on or answer.outcome == "failed":
        return scene.failed("decide", ProviderError("decide", f"`on` does not name the outcome {answer.outcome!r}"))
    for name, value in answer.variables.items():
        if name in step.into:
            scene.set(name, value[:LONGEST_VALUE])
        else:
            call.emit(Fault(where="decide", error=f"`into` does not name the variable {name!r}; it was not set"))
    return Left(answer.outcome)


def _question(step: steps.Decide, scene: Scene) -> Question:
    call, offer = scene.call, scene.call.leg.offer
    data = {
        "call_id": call.id,
        "tenant": call.tenant,
        "direction": offer.direction,
        "from": offer.from_user,
        "to": offer.to_user,
        "trunk": offer.trunk,
        "answered": call.answered,
        "variables": {name: scene.text(source) for name, source in step.send.items()},
    }
    return Question(step.url, data, step.timeout_ms / 1000, step.secret_env)
