"""What the dialplan does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sipserver.events.base import Event, private


@dataclass(frozen=True, slots=True)
class StepEntered(Event):
    """A step of a flow begins. line: of the dialplan's file."""

    kind: ClassVar[str] = "step.entered"
    flow: str
    index: int
    step: str
    line: int = 0


@dataclass(frozen=True, slots=True)
class StepLeft(Event):
    """A step of a flow is over."""

    kind: ClassVar[str] = "step.left"
    flow: str
    index: int
    step: str
    outcome: str
    took_ms: int


@dataclass(frozen=True, slots=True)
class Decided(Event):
    """What the tenant's own server answered to the step `decide`."""

    kind: ClassVar[str] = "decide.answered"
    outcome: str
    took_ms: int


@dataclass(frozen=True, slots=True)
class VariableSet(Event):
    """A variable of the call has a new value."""

    kind: ClassVar[str] = "variable.set"
    name: str
    value: str = private()
