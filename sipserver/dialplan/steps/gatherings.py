"""conference, queue, serve, voicemail: steps in which callers meet, wait for somebody, or leave a message."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from sipserver.dialplan import template
from sipserver.dialplan.agents import Template, Text
from sipserver.dialplan.steps.base import Speaking, Step

POSITION = "position"
"""The variable that a queue sets before it says the caller's position."""

_PLAIN = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_.+-]{0,63}")


def is_name(text: str) -> bool:
    """Whether a room or box may be called so; such a name is also a safe name of a folder."""
    return _PLAIN.fullmatch(text) is not None


def _named(text: str) -> str:
    if not template.names(text) and not is_name(text):
        raise ValueError(f"`{text}` is no name: letters, digits and `_`, `-`, `+`, `.`, at most 64, no `.` in front")
    return text


Label = Annotated[Template, AfterValidator(_named)]
"""A name that variables may be part of; what they make of it is checked when the call comes to the step."""

ExitKey = Annotated[Text, Field(pattern=r"^[0-9A-D*#]?$")]


class Conference(Speaking):
    """Talk with all others who are in the same room of this tenant.

    The call is answered first. pin: digits that the caller must type; empty: none. max: most parties in the room; who
    comes later leaves by `full`. record: record this call as long as it is in the room, left what the caller says,
    right what they hear. announce: said to the room when this caller comes in. moderator: this caller is one. A room
    that some step of the plan lets moderators into ends with the last one, and the others hear `music` until one comes.
    music: a sound file for who is alone or waits. The key sequence `*6` mutes and unmutes the caller. A room lives in
    one process: `failed` says that this call is in another one, or that its sound cannot be mixed.
    Outcomes: left (the room is over), kicked (an operator removed the caller), full, wrong_pin (three times), failed.
    """

    word = "conference"
    short = "room"
    outcomes = ("left", "kicked", "full", "wrong_pin", "failed")
    required = frozenset({"failed"})
    waits = True
    answers = True
    hears = True
    sounds = ("music",)

    room: Label
    pin: Annotated[Template, Field(pattern=r"^[0-9]{0,16}$|\{")] = ""
    max: int = Field(default=8, ge=2, le=32)
    record: bool = False
    announce: Template = ""
    moderator: bool = False
    music: Text = ""

    def templates(self) -> tuple[str, ...]:
        return tuple(text for text in (self.room, self.pin, self.announce) if text)

    def spoken(self) -> tuple[str, ...]:
        return (self.announce,) if self.announce else ()


class Queue(Speaking):
    """Wait until an agent of the queue is free, and talk with them. The queue stands under `queues` of the file.

    The call is answered first, unless it has early media: `early` in front lets it wait without charge, and it is
    answered when an agent answers. music: a sound file that is played over and over; empty: silence. position_say: said
    every position_say_every_s, with the variable `position` (1 is the next to be served); 0: never. exit: a key that
    takes the caller out of the queue; empty: none. A queue lives in one process: in a fleet each cell has its own
    order, and agents who have dialled in serve the callers of their cell only.
    Outcomes: answered (the caller talked to an agent, and that is over), timeout (max_wait_s), full (`max` of the queue
    wait already), empty (nobody serves it and it can call nobody), abandoned (by the key `exit`), failed (its
    sound cannot be connected with the agent's).
    """

    word = "queue"
    short = "name"
    outcomes = ("answered", "timeout", "full", "empty", "abandoned", "failed")
    required = frozenset({"failed"})
    ends = frozenset({"answered"})
    answered_after = frozenset({"answered"})
    waits = True
    needs_media = True
    sounds = ("music",)

    name: Text
    music: Text = ""
    position_say: Template = "You are number {position} in the queue."
    position_say_every_s: float = Field(default=30, ge=0, le=3600)
    max_wait_s: float = Field(default=300, gt=0, le=86_400)
    exit: ExitKey = ""

    @model_validator(mode="after")
    def _can_leave(self) -> Queue:
        if "abandoned" in self.on and not self.exit:
            raise ValueError("`abandoned` needs `exit`, the key with which a caller leaves the queue")
        if 0 < self.position_say_every_s < 5:
            raise ValueError("position_say_every_s should be 0 (never) or at least 5")
        return self

    def templates(self) -> tuple[str, ...]:
        return self.spoken()

    def spoken(self) -> tuple[str, ...]:
        return (self.position_say,) if self.position_say and self.position_say_every_s else ()

    def sets(self) -> tuple[str, ...]:
        return (POSITION,)

    def queue_name(self) -> str:
        return self.name


class Serve(Step):
    """Be an agent of a queue: this caller waits, hears `music`, and gets the queue's callers one after the other: those
    of the same process, which in a fleet is one cell.

    The call is answered first. exit: a key that ends it between two callers; empty: only hanging up does.
    Outcomes: done (by the key `exit`), failed.
    """

    word = "serve"
    short = "queue"
    outcomes = ("done", "failed")
    waits = True
    answers = True
    hears = True
    sounds = ("music",)

    queue: Text
    music: Text = ""
    exit: ExitKey = ""

    def queue_name(self) -> str:
        return self.queue


class Voicemail(Speaking):
    """Say the greeting, beep, and record a message into a box of this tenant.

    The call is answered first. greeting: said before the beep, any key skips it. The message ends with a key, when the
    caller hangs up (or the network sends busy, congestion or dial tone), after silence_s of silence or after max_s.
    transcript: have it written down afterwards by the engines of the tenant's agents; an event of the call's record
    carries the text.
    Outcomes: recorded, empty (nothing was said), failed (it could not be kept). When the caller hangs up after having
    said something, the message is kept.
    """

    word = "voicemail"
    short = "box"
    outcomes = ("recorded", "empty", "failed")
    waits = True
    answers = True
    hears = True

    box: Label
    greeting: Template = ""
    max_s: float = Field(default=120, gt=0, le=3600)
    silence_s: float = Field(default=5, gt=0, le=60)
    transcript: bool = True

    def templates(self) -> tuple[str, ...]:
        return tuple(text for text in (self.box, self.greeting) if text)

    def transcribes(self) -> str:
        return "transcript" if self.transcript else ""

    def spoken(self) -> tuple[str, ...]:
        return (self.greeting,) if self.greeting else ()
