"""collect, agent: steps in which the caller answers."""

from __future__ import annotations

from pydantic import Field, model_validator

from sipserver.dialplan.agents import Template, Text, Variable
from sipserver.dialplan.steps.base import Branch, Place, Speaking, Step
from sipserver.dialplan.steps.parties import Handover


class Collect(Speaking):
    """Collect digits. Outcome: the digits themselves if `on` names them, else `other`; `none` when nothing came.

    It speaks `say` or plays `play`, which the first digit ends, then waits timeout_s for the first digit and between_s
    for each further one. It ends after `digits` digits or at the terminator, which is not kept. A try fails when
    nothing or less than min_digits came: the prompt comes again, and after the last of `tries` the outcome is `none` or
    `other`. The digits are kept in the variable `into`.
    """

    word = "collect"
    outcomes = ("none", "other")
    required = frozenset({"none", "other"})
    waits = True
    needs_media = True
    hears = True
    sounds = ("play",)

    say: Template = ""
    play: Text = ""
    digits: int = Field(default=1, ge=1, le=64)
    min_digits: int = Field(default=1, ge=1, le=64)
    terminator: Text = Field(default="#", pattern=r"^[0-9A-D*#]?$")
    timeout_s: float = Field(default=5, gt=0, le=120)
    between_s: float = Field(default=3, gt=0, le=60)
    tries: int = Field(default=1, ge=1, le=10)
    into: Variable = "digits"

    @model_validator(mode="after")
    def _possible(self) -> Collect:
        if self.say and self.play:
            raise ValueError("`collect` takes `say` or `play`, not both")
        if self.min_digits > self.digits:
            raise ValueError(f"min_digits: {self.min_digits} is more than digits: {self.digits}")
        for outcome in self.on:
            if outcome in self.outcomes:
                continue
            if len(outcome) > self.digits:
                raise ValueError(f"`{outcome}` can never be collected with digits: {self.digits}")
            if len(outcome) < self.min_digits:
                raise ValueError(f"`{outcome}` can never be collected with min_digits: {self.min_digits}")
            if self.terminator and self.terminator in outcome:
                raise ValueError(f"`{outcome}` can never be collected: `{self.terminator}` is the terminator")
        return self

    @classmethod
    def accepts(cls, outcome: str) -> bool:
        return bool(outcome) and all(digit in "0123456789ABCD*#" for digit in outcome)

    @classmethod
    def more_outcomes(cls) -> str:
        return " and digits such as `1` or `42`"

    def outcome(self, digits: str) -> str:
        """The outcome for what was collected in the last try."""
        if not digits:
            return "none"
        return digits if len(digits) >= self.min_digits and digits in self.on else "other"

    def templates(self) -> tuple[str, ...]:
        return self.spoken()

    def spoken(self) -> tuple[str, ...]:
        return (self.say,) if self.say else ()

    def sets(self) -> tuple[str, ...]:
        return (self.into,)


class Agent(Step):
    """Talk to an agent until it is done.

    When it wants a person for the caller, the variable `transfer_reason` holds why, and the step ends with the outcome
    transfer. With the option `transfer` the caller is handed over at once, as the step `transfer` does it; the outcome
    is then answered (they have talked, and that is over), and transfer only if it did not succeed. With `keep: agent`
    in it the conversation goes on while the person is called, and when they cannot be reached: it is never transfer.
    Other outcomes: done (the agent ended the conversation), silence (the caller said nothing more), max_duration,
    failed (an engine and all its fallbacks failed).
    """

    word = "agent"
    short = "use"
    outcomes = ("done", "failed", "transfer", "answered", "silence", "max_duration")
    required = frozenset({"failed"})
    ends = frozenset({"answered"})
    waits = True
    needs_media = True
    hears = True

    use: Text
    transfer: Handover | None = None

    @model_validator(mode="after")
    def _hands_over(self) -> Agent:
        if self.transfer is None and "answered" in self.on:
            raise ValueError("`answered` needs the option `transfer`: nobody else is called without it")
        return self

    def branches(self) -> tuple[Branch, ...]:
        return tuple(branch for branch in super().branches() if self.transfer or branch.outcome != "answered")

    def templates(self) -> tuple[str, ...]:
        return self.transfer.templates() if self.transfer else ()

    def spoken(self) -> tuple[str, ...]:
        return self.transfer.spoken() if self.transfer else ()

    def inner(self) -> tuple[tuple[Place, Step], ...]:
        return ((("transfer",), self.transfer),) if self.transfer else ()

    def sets(self) -> tuple[str, ...]:
        return ("transfer_reason",)
