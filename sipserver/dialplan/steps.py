"""The steps of a dialplan, one model each. A step that can fail names its branches in `on`.

A branch target is the name of a flow, `next` (go on with the following step) or `end` (hang up).
In YAML a step is a mapping with one key (`say: Hello.`) or, without options, a word (`answer`).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from sipserver.dialplan.agents import Strict

Target = str


class Step(Strict):
    """word: the YAML key. short: the field that a bare scalar fills (`say: Hello.` is `say: {text: Hello.}`).

    outcomes: every outcome the step can have. required: those that `on` must name; the others default to `next`.
    waits: the step takes real time, so that a loop through it does not spin.
    """

    word: ClassVar[str]
    short: ClassVar[str] = ""
    outcomes: ClassVar[frozenset[str]] = frozenset({"done"})
    required: ClassVar[frozenset[str]] = frozenset()
    waits: ClassVar[bool] = False
    ends: ClassVar[bool] = False

    on: dict[str, Target] = {}

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


class Answer(Step):
    """Answer the call with 200 OK."""

    word = "answer"


class Early(Step):
    """183 with SDP: what follows is heard before the call is answered."""

    word = "early"


class Say(Step):
    """Speak a text. `{name}` is replaced by a variable. With interruptible, a digit ends it and is kept for collect."""

    word = "say"
    short = "text"
    outcomes = frozenset({"done", "failed"})
    waits = True

    text: str
    tts: str = ""
    voice: str = ""
    language: str = "en"
    interruptible: bool = True


class Play(Step):
    """Play a sound file (any format that FFmpeg reads), relative to the dialplan's folder."""

    word = "play"
    short = "file"
    outcomes = frozenset({"done", "failed"})
    waits = True

    file: str
    interruptible: bool = True


class Collect(Step):
    """Collect digits. Outcome: the digits themselves if `on` names them, else `other`; `none` when nothing came.

    With `digits: N` it ends after N; `terminator` ends it early. The digits are kept in the variable `into`.
    """

    word = "collect"
    required = frozenset({"none", "other"})
    waits = True

    say: str = ""
    play: str = ""
    digits: int = Field(default=1, ge=1, le=64)
    min_digits: int = Field(default=1, ge=1, le=64)
    terminator: str = Field(default="#", max_length=1)
    timeout_s: float = Field(default=5, gt=0, le=120)
    between_s: float = Field(default=3, gt=0, le=60)
    tries: int = Field(default=1, ge=1, le=10)
    into: str = "digits"
    language: str = "en"


class Agent(Step):
    """Talk to an agent until it is done."""

    word = "agent"
    short = "use"
    outcomes = frozenset({"done", "failed", "transfer", "silence", "max_duration"})
    required = frozenset({"failed"})
    waits = True

    use: str


class Record(Step):
    """Start, stop, pause or resume the recording. Stereo: the caller left, the agent right."""

    word = "record"
    short = "action"

    action: Literal["start", "stop", "pause", "resume"] = "start"
    stereo: bool = True


class Echo(Step):
    """Send the caller's sound back until they hang up or max_s is over."""

    word = "echo"
    waits = True

    max_s: float = Field(default=3600, gt=0)


class SetStep(Step):
    """Set variables; values may contain `{name}`."""

    word = "set"

    values: dict[str, str]

    @model_validator(mode="before")
    @classmethod
    def _plain_mapping(cls, value: Any) -> Any:
        if isinstance(value, dict) and "values" not in value:
            return {"values": {str(key): str(item) for key, item in value.items()}}
        return value


class When(Step):
    """Branch on a variable: `when: {var: digits, is: "1", then: sales, else: next}`. Exactly one test.

    is: equal. in: one of. like: glob pattern. set: true if it has a value, false if not.
    """

    word = "when"

    var: str
    is_: str | None = Field(default=None, alias="is")
    in_: tuple[str, ...] | None = Field(default=None, alias="in")
    like: str | None = None
    set_: bool | None = Field(default=None, alias="set")
    then: Target
    else_: Target = Field(default="next", alias="else")

    @model_validator(mode="after")
    def _one_test(self) -> When:
        if sum(test is not None for test in (self.is_, self.in_, self.like, self.set_)) != 1:
            raise ValueError("`when` needs exactly one of `is`, `in`, `like`, `set`")
        return self


class Goto(Step):
    """Go on with another flow."""

    word = "goto"
    short = "flow"
    ends = True

    flow: Target


class Wait(Step):
    """Do nothing for a while; the caller hears silence."""

    word = "wait"
    short = "seconds"
    waits = True

    seconds: float = Field(gt=0, le=3600)


class Hangup(Step):
    """End the call. Before it was answered: refuse it with the SIP code."""

    word = "hangup"
    short = "code"
    ends = True

    code: int = Field(default=603, ge=400, le=699)
    reason: str = ""


AnyStep = Annotated[
    Answer | Early | Say | Play | Collect | Agent | Record | Echo | SetStep | When | Goto | Wait | Hangup,
    Field(union_mode="left_to_right"),
]

STEPS: dict[str, type[Step]] = {
    step.word: step
    for step in (Answer, Early, Say, Play, Collect, Agent, Record, Echo, SetStep, When, Goto, Wait, Hangup)
}

LATER: dict[str, str] = {
    word: "is not supported by this version yet; it comes with the B2BUA (trunks, outbound calls, bridge, transfers)"
    for word in ("transfer", "bridge")
}
"""Steps that the design names and this version refuses at load, with the reason."""
