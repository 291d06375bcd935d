"""The steps of a dialplan, one model each. A step that can fail names its branches in `on`.

In YAML a step is a mapping with one key (`say: Hello.`) or, without options, a word (`answer`).
The models are pure: they tell where a call goes on, and know no call.
"""

from __future__ import annotations

from sipserver.dialplan.steps.base import END, NEXT, Branch, Step, Target
from sipserver.dialplan.steps.dialogue import Agent, Collect
from sipserver.dialplan.steps.flow import Goto, SetStep, When
from sipserver.dialplan.steps.sound import Echo, Play, Record, Say
from sipserver.dialplan.steps.telephony import Answer, Early, Hangup, Wait

STEPS: dict[str, type[Step]] = {
    step.word: step
    for step in (Answer, Early, Say, Play, Collect, Agent, Record, Echo, SetStep, When, Goto, Wait, Hangup)
}

LATER: dict[str, str] = dict.fromkeys(
    ("transfer", "bridge"),
    "is not supported by this version yet; it comes with the B2BUA (trunks, outbound calls, bridge, transfers)",
)
"""Steps that the design names and this version refuses at load, with the reason."""

__all__ = [
    "END",
    "LATER",
    "NEXT",
    "STEPS",
    "Agent",
    "Answer",
    "Branch",
    "Collect",
    "Early",
    "Echo",
    "Goto",
    "Hangup",
    "Play",
    "Record",
    "Say",
    "SetStep",
    "Step",
    "Target",
    "Wait",
    "When",
]
