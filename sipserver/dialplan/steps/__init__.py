"""The steps of a dialplan, one model each. A step that can fail names its branches in `on`.

In YAML a step is a mapping with one key (`say: Hello.`) or, without options, a word (`answer`).
The models are pure: they tell where a call goes on, and know no call.
"""

from __future__ import annotations

from sipserver.dialplan.steps.base import END, NEXT, Branch, Speaking, Step, Target
from sipserver.dialplan.steps.decide import Decide
from sipserver.dialplan.steps.dialogue import Agent, Collect
from sipserver.dialplan.steps.flow import Goto, SetStep, When
from sipserver.dialplan.steps.gatherings import Conference, Queue, Serve, Voicemail
from sipserver.dialplan.steps.parties import Amd, Bridge, Handover, Placing, Transfer
from sipserver.dialplan.steps.secure import Secure
from sipserver.dialplan.steps.sound import Echo, Play, Record, Say
from sipserver.dialplan.steps.streams import Stream
from sipserver.dialplan.steps.telephony import Answer, Early, Hangup, Hold, Wait

_ALL: tuple[type[Step], ...] = (
    *(Answer, Early, Say, Play, Collect, Agent, Record, Secure, Echo, SetStep, When, Goto, Wait, Hangup),
    *(Bridge, Transfer, Decide, Amd, Conference, Queue, Serve, Voicemail, Stream),
)

STEPS: dict[str, type[Step]] = {step.word: step for step in _ALL}
"""Every step by its word."""

__all__ = [
    "END",
    "NEXT",
    "STEPS",
    "Agent",
    "Amd",
    "Answer",
    "Branch",
    "Bridge",
    "Collect",
    "Conference",
    "Decide",
    "Early",
    "Echo",
    "Goto",
    "Handover",
    "Hangup",
    "Hold",
    "Placing",
    "Play",
    "Queue",
    "Record",
    "Say",
    "Secure",
    "Serve",
    "SetStep",
    "Speaking",
    "Step",
    "Stream",
    "Target",
    "Transfer",
    "Voicemail",
    "Wait",
    "When",
]
