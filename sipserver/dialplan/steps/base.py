"""What every step has: its word, its outcomes and where each leads. The steps themselves are in the modules beside.

A branch target is the name of a flow, `next` (go on with the following step) or `end` (end the call normally).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field, model_validator

from sipserver.dialplan.agents import Strict, Text

Target = Text
Place = tuple[str | int, ...]
"""Where a part of a step stands below the step's word."""
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

    outcomes: every outcome the step can have. required: those that `on` must name; of the others those in `ends`
    default to `end` and the rest to `next`.
    waits: the step takes real time, so that a loop through it does not spin.
    needs_media: if the call is neither answered nor in early media, the step answers it first.
    answers: it answers a call that is not answered, also one in early media. answered_after: outcomes after which the
    call is answered although the step itself does not begin with that.
    hears: it listens to the caller, which most networks carry only after the answer.
    sounds: options that name sound files. callee: the option that says whom the step calls.
    """

    word: ClassVar[str]
    short: ClassVar[str] = ""
    outcomes: ClassVar[tuple[str, ...]] = ("done",)
    required: ClassVar[frozenset[str]] = frozenset()
    ends: ClassVar[frozenset[str]] = frozenset()
    waits: ClassVar[bool] = False
    needs_media: ClassVar[bool] = False
    answers: ClassVar[bool] = False
    answered_after: ClassVar[frozenset[str]] = frozenset()
    hears: ClassVar[bool] = False
    sounds: ClassVar[tuple[str, ...]] = ()
    callee: ClassVar[str] = ""

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
        return self.on.get(outcome, END if outcome in self.ends else NEXT)

    def branches(self) -> tuple[Branch, ...]:
        """Every way out, those that `on` names in its order first."""
        named = [Branch(outcome, target, ("on", outcome)) for outcome, target in self.on.items()]
        rest = (outcome for outcome in self.outcomes if outcome not in self.on)
        return (*named, *(Branch(outcome, self.target(outcome)) for outcome in rest))

    def templates(self) -> tuple[str, ...]:
        """The texts of this step in which variables are replaced."""
        return ()

    def spoken(self) -> tuple[str, ...]:
        """The texts of this step that are said to somebody, none of them empty, as they stand in the file."""
        return ()

    def transcribes(self) -> str:
        """The option because of which somebody's words are written down, other than an agent does; empty: none are."""
        return ""

    def queue_name(self) -> str:
        """The queue that this step is about; empty if it is about none."""
        return ""

    def inner(self) -> tuple[tuple[Place, Step], ...]:
        """Steps that are options of this one: where each stands, and what stands there."""
        return ()

    def sets(self) -> tuple[str, ...]:
        """The variables that this step gives a value."""
        return ()


class Speaking(Step):
    """A step that says texts. tts and voice: an engine of the settings and one of its voices; empty means the default.
    language: of the texts.
    """

    tts: Text = ""
    voice: Text = ""
    language: Text = "en"
