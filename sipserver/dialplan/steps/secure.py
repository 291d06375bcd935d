"""secure: steps while which nothing is kept of what is said and typed."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, InstanceOf, WithJsonSchema, field_validator

from sipserver.dialplan.agents import Variable
from sipserver.dialplan.steps.base import NEXT, Branch, Place, Step

REFUSED = {
    "agent": "the model would be told what nobody may keep; let an agent before or after it talk",
    "conference": "others in the room have records of their own",
    "queue": "the agent's call has a record of its own",
    "serve": "the callers' calls have records of their own",
    "voicemail": "a message is a recording",
    "record": "nothing is recorded meanwhile; put it before or behind",
    "secure": "one is enough",
}
"""Steps that keep what they are there for, and why they cannot stand in a `secure`."""


class Secure(Step):
    """Run steps while which nothing is kept: the recording has silence, and no digit and no word reaches events, logs,
    records and webhooks, bridges and transfers included.

    It ends with its last step, with a branch out of it, when the caller hangs up, and when something fails. Variables
    that were set within are then as before; those that `keep` names stay, and their values are hidden in events until
    the call ends. What was typed and not collected is forgotten.
    """

    word = "secure"
    waits = True
    answers = True
    needs_media = True
    hears = True

    do: Annotated[tuple[InstanceOf[Step], ...], WithJsonSchema({"type": "array", "minItems": 1})] = Field(min_length=1)
    keep: tuple[Variable, ...] = ()

    @field_validator("do")
    @classmethod
    def _keeps_nothing(cls, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        for step in steps:
            if step.word in REFUSED:
                raise ValueError(f"`{step.word}` cannot stand in `secure`: {REFUSED[step.word]}")
        return steps

    def branches(self) -> tuple[Branch, ...]:
        """Its own, and every way out of the steps within, which were checked where they stand."""
        out = [
            Branch(f"{step.word} {branch.outcome}".strip(), branch.target)
            for step in self.do
            for branch in step.branches()
            if branch.target != NEXT
        ]
        return (*super().branches(), *out)

    def templates(self) -> tuple[str, ...]:
        return tuple(text for step in self.do for text in step.templates())

    def spoken(self) -> tuple[str, ...]:
        return tuple(text for step in self.do for text in step.spoken())

    def inner(self) -> tuple[tuple[Place, Step], ...]:
        found: list[tuple[Place, Step]] = []
        for index, step in enumerate(self.do):
            at: Place = ("do", index, step.word)
            found += [(at, step), *(((*at, *place), part) for place, part in step.inner())]
        return tuple(found)

    def sets(self) -> tuple[str, ...]:
        return tuple(name for step in self.do for name in step.sets())
