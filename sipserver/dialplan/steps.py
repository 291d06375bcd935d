"""The steps of a dialplan, one model each. A step that can fail names its branches in `on`.

A branch target is the name of a flow, `next` (go on with the following step) or `end` (end the call normally).
In YAML a step is a mapping with one key (`say: Hello.`) or, without options, a word (`answer`).
The models are pure: they tell where a call goes on, and know no call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from sipserver.dialplan import template
from sipserver.dialplan.agents import Strict, Template, Text, Variable

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


class Answer(Step):
    """Answer the call with 200 OK. On a call that is answered already it does nothing."""

    word = "answer"


class Early(Step):
    """183 Session Progress with SDP: what follows is heard before the call is answered. Nothing on an answered call."""

    word = "early"


class Say(Step):
    """Speak a text. `{name}` is replaced by a variable. With interruptible, a digit ends it and is kept for collect.

    tts and voice: an engine of the settings and one of its voices; empty means the default. language: of the text.
    """

    word = "say"
    short = "text"
    outcomes = ("done", "failed")
    waits = True
    needs_media = True

    text: Template = Field(min_length=1)
    tts: Text = ""
    voice: Text = ""
    language: Text = "en"
    interruptible: bool = True

    def templates(self) -> tuple[str, ...]:
        return (self.text,)


class Play(Step):
    """Play a sound file (any format that FFmpeg reads), relative to the dialplan's folder.

    With interruptible, a digit ends it and is kept for collect.
    """

    word = "play"
    short = "file"
    outcomes = ("done", "failed")
    waits = True
    needs_media = True

    file: Text = Field(min_length=1)
    interruptible: bool = True


class Collect(Step):
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

    say: Template = ""
    play: Text = ""
    digits: int = Field(default=1, ge=1, le=64)
    min_digits: int = Field(default=1, ge=1, le=64)
    terminator: Text = Field(default="#", pattern=r"^[0-9A-D*#]?$")
    timeout_s: float = Field(default=5, gt=0, le=120)
    between_s: float = Field(default=3, gt=0, le=60)
    tries: int = Field(default=1, ge=1, le=10)
    into: Variable = "digits"
    tts: Text = ""
    voice: Text = ""
    language: Text = "en"

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
        return (self.say,) if self.say else ()


class Agent(Step):
    """Talk to an agent until it is done.

    Outcomes: done (the agent ended the conversation), transfer (it wants a person for the caller), silence (the caller
    said nothing more), max_duration, failed (an engine and all its fallbacks failed).
    """

    word = "agent"
    short = "use"
    outcomes = ("done", "failed", "transfer", "silence", "max_duration")
    required = frozenset({"failed"})
    waits = True
    needs_media = True
    hears = True

    use: Text


class Record(Step):
    """Start, stop, pause or resume the recording. Stereo: the caller left, the agent right; otherwise both mixed.

    If the disk is full the call goes on, and the call record says so.
    """

    word = "record"
    short = "action"
    needs_media = True
    hears = True

    action: Literal["start", "stop", "pause", "resume"] = "start"
    stereo: bool = True


class Echo(Step):
    """Send the caller's sound back until they hang up or max_s is over."""

    word = "echo"
    short = "max_s"
    waits = True
    needs_media = True
    hears = True

    max_s: float = Field(default=3600, gt=0)


class SetStep(Step):
    """Set variables: `set: {language: de, account: "{header.x-account}"}`. Values may contain `{name}`."""

    word = "set"
    outcomes = ("done",)

    values: dict[Variable, Template] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _plain_mapping(cls, value: Any) -> Any:
        return {"values": value} if isinstance(value, dict) else value

    def templates(self) -> tuple[str, ...]:
        return tuple(self.values.values())


class When(Step):
    """Branch on a variable: `when: {var: digits, is: "1", then: sales, else: next}`. Exactly one test.

    is: equal. in: one of. like: glob pattern. set: true if it has a value, false if not.
    """

    word = "when"
    outcomes = ()

    var: Annotated[Text, Field(pattern=f"^(?:{template.NAME})$")]
    is_: Text | None = Field(default=None, alias="is")
    in_: tuple[Text, ...] | None = Field(default=None, alias="in")
    like: Text | None = None
    set_: bool | None = Field(default=None, alias="set")
    then: Target
    else_: Target = Field(default=NEXT, alias="else")

    @model_validator(mode="after")
    def _one_test(self) -> When:
        if sum(test is not None for test in (self.is_, self.in_, self.like, self.set_)) != 1:
            raise ValueError("`when` needs exactly one of `is`, `in`, `like`, `set`")
        return self

    def branch(self, variables: Mapping[str, str]) -> Target:
        """Where the call goes on. A variable without a value counts as empty."""
        value = variables.get(template.canonical(self.var), "")
        if self.set_ is not None:
            holds = bool(value) == self.set_
        elif self.in_ is not None:
            holds = value in self.in_
        elif self.like is not None:
            holds = fnmatchcase(value, self.like)
        else:
            holds = value == self.is_
        return self.then if holds else self.else_

    def branches(self) -> tuple[Branch, ...]:
        return Branch(self.test(), self.then, ("then",)), Branch("else", self.else_, ("else",))

    def test(self) -> str:
        """The test in words, as `explain` prints it."""
        if self.set_ is not None:
            return f"{self.var} is set" if self.set_ else f"{self.var} is not set"
        if self.in_ is not None:
            return f"{self.var} in {', '.join(self.in_)}"
        return f"{self.var} like {self.like}" if self.like is not None else f"{self.var} is {self.is_}"


class Goto(Step):
    """Go on with another flow (`end` ends the call)."""

    word = "goto"
    short = "flow"
    outcomes = ()

    flow: Target

    @model_validator(mode="after")
    def _goes_somewhere(self) -> Goto:
        if self.flow == NEXT:
            raise ValueError("`goto` needs the name of a flow or `end`")
        return self

    def branches(self) -> tuple[Branch, ...]:
        return (Branch("", self.flow, ("flow",)),)


class Wait(Step):
    """Do nothing for a while; the caller hears silence, or ringing while the call is not answered."""

    word = "wait"
    short = "seconds"
    waits = True

    seconds: float = Field(gt=0, le=3600)


class Hangup(Step):
    """End the call. Before it was answered: refuse it with the SIP code. reason: the text beside the code."""

    word = "hangup"
    short = "code"
    outcomes = ()

    code: int = Field(default=603, ge=400, le=699)
    reason: Text = Field(default="", max_length=100, pattern=r"^[^\r\n]*$")

    def branches(self) -> tuple[Branch, ...]:
        return (Branch("", END),)


STEPS: dict[str, type[Step]] = {
    step.word: step
    for step in (Answer, Early, Say, Play, Collect, Agent, Record, Echo, SetStep, When, Goto, Wait, Hangup)
}

LATER: dict[str, str] = dict.fromkeys(
    ("transfer", "bridge"),
    "is not supported by this version yet; it comes with the B2BUA (trunks, outbound calls, bridge, transfers)",
)
"""Steps that the design names and this version refuses at load, with the reason."""
