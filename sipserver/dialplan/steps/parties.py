"""bridge, transfer, amd: steps that bring somebody else into the call. Whom they may reach is `targets`' business."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sipserver.dialplan.agents import Template, Text
from sipserver.dialplan.steps.base import Speaking, Step

HeaderName = Annotated[Text, Field(pattern=r"^[A-Za-z0-9!%*_+`'~.-]+$")]
OneLine = Annotated[Template, Field(pattern=r"^[^\r\n]*$")]
Key = Annotated[Text, Field(pattern=r"^[0-9A-D*#]$")]
"""One key of a telephone."""


class Placing(Step):
    """What steps that call somebody have in common.

    to: a number, a user or a SIP URI; it must be allowed by `targets` when the call comes to the step. trunk: by name;
    empty: the first one that carries the number. from, display: who the far end shall see; empty: what the trunk says,
    which also replaces what it does not allow. headers: sent where the trunk lets them out. ring_s: how long it may
    ring, over all trunks together. music: a sound file for whoever must wait; empty: silence, or ringing.
    """

    callee = "to"
    sounds = ("music",)

    to: OneLine = Field(min_length=1)
    trunk: OneLine = ""
    from_: OneLine = Field(default="", alias="from")
    display: OneLine = ""
    headers: dict[HeaderName, OneLine] = Field(default_factory=dict)
    ring_s: float = Field(default=30, gt=0, le=600)
    music: Text = ""

    def templates(self) -> tuple[str, ...]:
        texts = (self.to, self.trunk, self.from_, self.display, *self.headers.values(), *self.spoken())
        return tuple(text for text in texts if text)


class Bridge(Placing):
    """Call somebody and connect the caller with them until one of the two hangs up.

    The call is not answered before the other side answers. progress: with `pass` the caller hears what the far network
    sends (ringing, announcements in early media); with `local` they hear our ringing, or `music` on a call that has
    sound already. music is also what either side hears while the other one holds the call. A side from which no RTP
    comes for rtp_timeout_s, unless it is on hold, ends the connection; max_s ends it in any case. With `record` the
    connection is recorded, the caller left, the other side right, unless a recording runs already.
    Outcomes: answered (they were connected, and the connection is over), busy, no_answer (it rang for ring_s, or nobody
    was there), declined, failed (no trunk carried it, it is not allowed, or this process has no place for a second
    leg). When the caller hangs up the call ends.
    """

    word = "bridge"
    short = "to"
    outcomes = ("answered", "busy", "no_answer", "declined", "failed")
    required = frozenset({"failed"})
    ends = frozenset({"answered"})
    answered_after = frozenset({"answered"})
    waits = True

    progress: Literal["pass", "local"] = "pass"
    record: bool = False
    rtp_timeout_s: float = Field(default=30, gt=0, le=3600)
    max_s: float = Field(default=14_400, gt=0, le=86_400)


class Transfer(Placing, Speaking):
    """Hand the caller over to somebody, and go on with the caller if that does not succeed.

    The call is answered first. mode: `attended` calls the target while the caller hears `music`, and connects them when
    it answers: by REFER with Replaces where the caller's side can do that, else by a bridge. `warm` does the same, but
    first says `announce` to the target, which accepts within accept_s: by the key `accept` (accept_by `digit`), by what
    it says (`voice`), which a speech-to-text engine writes down, or by either. `blind` asks the caller's side to call
    the target itself (REFER) and follows its NOTIFYs to the final one, for ring_s.
    Outcomes, each verified by what the far end said: answered, busy, no_answer, declined (also: not accepted), failed.
    A caller that hangs up meanwhile ends the call; the record then says caller_gone.
    """

    word = "transfer"
    short = "to"
    outcomes = ("answered", "busy", "no_answer", "declined", "failed")
    required = frozenset({"failed"})
    ends = frozenset({"answered"})
    waits = True
    answers = True

    mode: Literal["blind", "attended", "warm"] = "attended"
    announce: Template = ""
    accept_by: Literal["digit", "voice", "either"] = "digit"
    accept: Key = "1"
    accept_s: float = Field(default=15, gt=0, le=120)

    @model_validator(mode="after")
    def _announced(self) -> Transfer:
        if self.mode == "warm" and not self.announce:
            raise ValueError("`mode: warm` needs `announce`: what the target hears before it accepts")
        for option in ("announce", "accept_by", "accept", "accept_s"):
            if self.mode != "warm" and option in self.model_fields_set:
                raise ValueError(f"`{option}` needs `mode: warm`; with `mode: {self.mode}` nobody is asked")
        if self.accept_by == "voice" and "accept" in self.model_fields_set:
            raise ValueError("`accept` is a key, and with `accept_by: voice` none counts; both count with `either`")
        return self

    def transcribes(self) -> str:
        return "accept_by" if self.accept_by != "digit" else ""

    def spoken(self) -> tuple[str, ...]:
        return (self.announce,) if self.announce else ()


class Handover(Transfer):
    """A transfer as an option of `agent`, whose own branches say where to go on.

    keep: who keeps the caller while the target is called: `music` (or ringing), the agent's conversation being over, or
    the `agent`, which goes on with the conversation until the target answers, and whenever it does not.
    """

    required = frozenset()

    keep: Literal["music", "agent"] = "music"

    @model_validator(mode="after")
    def _without_branches(self) -> Handover:
        if self.on:
            raise ValueError("it has no branches of its own: those of `agent` say where to go on")
        if self.keep == "agent" and self.mode == "blind":
            raise ValueError("`keep: agent` needs `mode: attended` or `mode: warm`; with `mode: blind` we call nobody")
        return self


class Amd(Step):
    """Find out who answered a call that we placed, from energy and timing of what they say (answering machine
    detection).

    It decides as soon as it can, after wait_s at the latest. beep_s: after a machine's greeting wait so long for its
    beep; 0: do not wait. transcript: let the engines of the tenant's agents write down what was said, in `language`,
    and let words that give a machine or a person away decide against energy and timing. Outcomes: human, machine
    (beep_s was 0, or no beep came), beep (the machine records now), silence (nobody said anything), fax, unknown.
    """

    word = "amd"
    short = "wait_s"
    outcomes = ("human", "machine", "beep", "silence", "fax", "unknown")
    waits = True
    needs_media = True
    hears = True

    wait_s: float = Field(default=5, gt=0, le=30)
    beep_s: float = Field(default=0, ge=0, le=120)
    transcript: bool = False
    language: Text = "auto"

    @model_validator(mode="after")
    def _written_down(self) -> Amd:
        if not self.transcript and "language" in self.model_fields_set:
            raise ValueError("`language` needs `transcript: true`: without it nothing is written down")
        return self

    def transcribes(self) -> str:
        return "transcript" if self.transcript else ""
