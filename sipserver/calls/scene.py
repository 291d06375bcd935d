"""What a step may see and do while it runs, and what it answers when it is done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sipserver.agent.voice import Voice
from sipserver.calls.call import Call
from sipserver.calls.states import EndReason
from sipserver.dialplan import template
from sipserver.dialplan.plan import Plan
from sipserver.dialplan.steps import Step
from sipserver.events import Fault, VariableSet
from sipserver.yaml_file import KeyPath


@dataclass(frozen=True, slots=True)
class Left:
    """How a step was left. outcome: as the record shows it. target: where to go on, if the step itself decided that.

    code, reason: if the call ends here, the final answer to a caller that was not answered, and the name of the ending;
    0 and None: what belongs to the outcome.
    """

    outcome: str = "done"
    target: str = ""
    code: int = 0
    reason: EndReason | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """One call's dialplan at work. Loop thread. take: runs, as any other, a step that is part of the running one;
    with the place where it stands in it.
    """

    call: Call
    plan: Plan
    voice: Voice
    variables: dict[str, str]
    take: Callable[[Step, KeyPath], Awaitable[Left]]

    def set(self, name: str, value: str) -> None:
        self.variables[name] = value
        self.call.emit(VariableSet(name=name, value=value))

    def text(self, source: str) -> str:
        """Fill in the variables. One without a value becomes nothing, and the record says so."""
        rendered = template.render(source, self.variables)
        self.report(rendered.unknown)
        return rendered.text

    def failed(self, where: str, problem: Exception) -> Left:
        """Note what went wrong, and leave by the branch for it."""
        self.call.emit(Fault(where=where, error=str(problem)))
        return Left("failed")

    def report(self, unknown: tuple[str, ...]) -> None:
        if unknown:
            self.call.emit(Fault(where="dialplan", error=f"no value for {', '.join(unknown)}"))
