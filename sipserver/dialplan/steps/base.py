"""What every step has: its word, its outcomes and where each leads. The steps themselves are in the modules beside.

A branch target is the name of a flow, `next` (go on with the following step) or `end` (end the call normally).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field, model_validator

from sipserver.dialplan.agents import Strict, Text

Target = Text
NEXT = "next"
END = "end"


@dataclass(frozen=True, slots=True)
class Branch:
    """One way out of a step. outcome: as `explain` prints it. key: where the target stands below the step's word."""

    outcome: str
    target: Target
    key: tuple[str, ...] = ()


class Step(Strict):
    """word: the YAML key. short: the field that a bare scalar fills (`say: Hello.` is `say: {text: Hello.}`).

    outcomes: every outcome the step can have. required: those that `on` must name; the others default to `next`.
    waits: the step takes real time, so that a loop through it does not spin.
    needs_media: if the call is neither answered nor in early media, the step answers it first.
    hears: it listens to the caller, which most networks carry only after the answer.
    """

    word: ClassVar[str]
    short: ClassVar[str] = ""
    outcomes: ClassVar[tuple[str, ...]] = ("done",)
    required: ClassVar[frozenset[str]] = frozenset()
    waits: ClassVar[bool] = False
    needs_media: ClassVar[bool] = False
    hears: ClassVar[bool] = False

    on: dict[Text, Target] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _expand_short_form(cls, value: Any) -> Any:
        if value is None or value == "":
            return {}
        if not isinstance(value, dict):
            if not cls.short:
                raise ValueError(f"`{cls.word}` takes options as `key: value`, not a single value")
            return {cls.short: value}
        return value

    @model_validator(mode="after")
    def _known_outcomes(self) -> Step:
        for outcome in self.on:
            if outcome not in self.outcomes and not self.accepts(outcome):
                has = f"the outcomes {', '.join(self.outcomes)}" if self.outcomes else "no outcomes"
                raise ValueError(f"unknown outcome `{outcome}`; `{self.word}` has {has}{self.more_outcomes()}")
        missing = [outcome for outcome in self.outcomes if outcome in self.required and outcome not in self.on]
        if missing:
            raise ValueError(
                f"`{self.word}` must say where to go on for {' and '.join(f'`{name}`' for name in missing)}:"
                f" on: {{{', '.join(f'{name}: ...' for name in missing)}}}"
            )
        return self

    @classmethod
    def accepts(cls, outcome: str) -> bool:
        """Whether `on` may name an outcome that is not in `outcomes`."""
        return False

    @classmethod
    def more_outcomes(cls) -> str:
        return ""

    def target(self, outcome: str) -> Target:
        """Where the call goes on: a flow's name, `next` or `end`."""
        return self.on.get(outcome, NEXT)

    def branches(self) -> tuple[Branch, ...]:
        """Every way out, those that `on` names in its order first."""
        named = [Branch(outcome, target, ("on", outcome)) for outcome, target in self.on.items()]
        return (*named, *(Branch(outcome, NEXT) for outcome in self.outcomes if outcome not in self.on))

    def templates(self) -> tuple[str, ...]:
        """The texts of this step in which variables are replaced."""
        return ()
