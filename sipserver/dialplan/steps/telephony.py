"""answer, early, wait, hold, hangup: what the signalling of the call does."""

from __future__ import annotations

from pydantic import Field

from sipserver.dialplan.agents import Text
from sipserver.dialplan.steps.base import END, Branch, Step


class Answer(Step):
    """Answer the call with 200 OK. On a call that is answered already it does nothing."""

    word = "answer"
    answers = True


class Early(Step):
    """183 Session Progress with SDP: what follows is heard before the call is answered. Nothing on an answered call."""

    word = "early"


class Wait(Step):
    """Do nothing for a while; the caller hears silence, or ringing while the call is not answered."""

    word = "wait"
    short = "seconds"
    waits = True

    seconds: float = Field(gt=0, le=3600)


class Hold(Step):
    """Wait in music until somebody outside says otherwise. Stands in no dialplan."""

    word = "hold"
    waits = True
    needs_media = True


class Hangup(Step):
    """End the call. Before it was answered: refuse it with the SIP code. reason: the text beside the code."""

    word = "hangup"
    short = "code"
    outcomes = ()

    code: int = Field(default=603, ge=400, le=699)
    reason: Text = Field(default="", max_length=100, pattern=r"^[^\r\n]*$")

    def branches(self) -> tuple[Branch, ...]:
        return (Branch("", END),)
