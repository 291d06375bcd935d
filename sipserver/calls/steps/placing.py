"""What the steps that bring people together have in common: whom they may call, and what those hear who wait."""

from __future__ import annotations

import re

from sipserver.audio.frame import Samples
from sipserver.calls import music
from sipserver.calls.outbound import Order, Outcome, answer_for
from sipserver.calls.scene import Left, Scene
from sipserver.calls.states import EndReason
from sipserver.dialplan import steps, template
from sipserver.dialplan.targets import allows_target
from sipserver.errors import ConfigError, NotAllowed, SipServerError

_NO_HEADER_TEXT = re.compile(r"[\x00-\x1f\x7f]+")

_REASONS = {
    Outcome.ANSWERED: EndReason.CALLEE_HANGUP,
    Outcome.BUSY: EndReason.BUSY,
    Outcome.NO_ANSWER: EndReason.NO_ANSWER,
    Outcome.DECLINED: EndReason.DECLINED,
    Outcome.FAILED: EndReason.CARRIER_FAILED,
}


def order(step: steps.Placing, scene: Scene) -> Order:
    """What the step asks for, its variables filled in. Raises NotAllowed: whatever a variable holds, nobody but the
    plan's targets is called.
    """
    to = _line(scene, step.to).strip()
    _require_allowed(scene, to)
    return Order(
        to=to,
        trunk=_line(scene, step.trunk),
        from_user=_line(scene, step.from_),
        from_display=_line(scene, step.display),
        headers={name: _line(scene, value) for name, value in step.headers.items()},
        ring_s=step.ring_s,
    )


def check(step: steps.Placing, scene: Scene) -> None:
    """Raises NotAllowed as `order` would now, and notes nothing."""
    _require_allowed(scene, _one_line(template.render(step.to, scene.variables).text).strip())


def refused(step: steps.Placing, scene: Scene, problem: SipServerError) -> Left:
    """Nobody was called; the caller goes on by the branch `failed`."""
    scene.failed(step.word, problem)
    return left(Outcome.FAILED, problem.sip_code)


def left(outcome: Outcome, status: int = 0, reason: EndReason | None = None) -> Left:
    """How the step is left, and what the caller gets if the call ends with it. status: the party's final answer."""
    return Left(outcome.value, code=answer_for(outcome, status), reason=reason or _REASONS[outcome])


async def sound(step: steps.Placing | steps.Conference | steps.Queue | steps.Serve, scene: Scene) -> Samples | None:
    """The step's music; None when it has none or it cannot be read, which the record tells."""
    if not step.music:
        return None
    try:
        return await music.read(scene.plan.sound(step.music))
    except ConfigError as problem:
        scene.failed(step.word, problem)
        return None


def _line(scene: Scene, source: str) -> str:
    """A text for a SIP header: whatever a variable holds, it stays one line."""
    return _one_line(scene.text(source))


def _one_line(text: str) -> str:
    return _NO_HEADER_TEXT.sub(" ", text)


def _require_allowed(scene: Scene, to: str) -> None:
    if not allows_target(scene.plan, to):
        raise NotAllowed("the target is not allowed by `targets`")
