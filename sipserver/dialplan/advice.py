"""What a plan may say and hardly means: the warnings of `check`. They never stop a file. Pure."""

from __future__ import annotations

from sipserver.dialplan import graph, template
from sipserver.dialplan.facts import BUILT_IN
from sipserver.dialplan.globs import bare
from sipserver.dialplan.plan import Plan
from sipserver.dialplan.steps import Agent, Hangup, Queue, Serve, When
from sipserver.errors import ConfigError, DialplanError
from sipserver.yaml_check import MOST_MEANT, meant, problem_at
from sipserver.yaml_file import KeyPath


def advise(plan: Plan) -> list[ConfigError]:
    """All warnings about a plan, in no order."""
    found = _Advice(plan)
    found.reached()
    found.unused()
    found.media()
    found.variables()
    found.routes()
    return found.warnings


class _Advice:
    """One look at one plan; keeps what it finds."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._entries = [route.flow for route in plan.routes]
        self.warnings: list[ConfigError] = []

    def reached(self) -> None:
        flows = self._plan.flows
        used = {name for name, _index in graph.reached(flows, [(name, 0) for name in self._entries])}
        for name in flows:
            if name not in used:
                self._warn(("flows", name), "no route and no step leads to this flow")
            for index in graph.dead_steps(flows, name):
                self._warn(("flows", name, index), "this step is never reached")

    def unused(self) -> None:
        plan, steps = self._plan, [step for _flow, _index, step in self._plan.steps()]
        spoken_to = {step.use for step in steps if isinstance(step, Agent)}
        for name in plan.agents:
            if name not in spoken_to:
                self._warn(("agents", name), "no step uses this agent")
        waited_in = {step.name for step in steps if isinstance(step, Queue)}
        served = {step.queue for step in steps if isinstance(step, Serve)}
        for name, queue in plan.queues.items():
            if name not in waited_in:
                self._warn(("queues", name), "no step `queue` leads callers here")
            if not queue.agents and name not in served:
                self._warn(
                    ("queues", name), "nobody serves this queue: it has no `agents`, and no step `serve` names it"
                )
        asked = {bare(name) for route in plan.routes for name in route.match.calendar or ()}
        for name in plan.calendars:
            if name not in asked:
                self._warn(("calendars", name), "no route asks for this calendar")

    def media(self) -> None:
        for (name, index), states in graph.media_before(self._plan.flows, self._entries).items():
            step = self._plan.flows[name].steps[index]
            if step.hears and not step.answers and graph.Media.EARLY in states:
                self._warn(
                    ("flows", name, index),
                    f"`{step.word}` before `answer`: most networks do not carry the caller's sound and digits yet",
                )
            if isinstance(step, Hangup) and "code" in step.model_fields_set and states == {graph.Media.ANSWERED}:
                self._warn(("flows", name, index), "the code has no effect: the call is answered here")

    def variables(self) -> None:
        plan = self._plan
        known = set(BUILT_IN) | set(plan.variables)
        for _flow, _index, step in plan.steps():
            known.update(step.sets())
        uses: list[tuple[KeyPath, tuple[str, ...]]] = []
        for flow, index, step in plan.steps():
            names = [name for text in step.templates() for name in template.names(text)]
            uses.append((("flows", flow.name, index), (*names, *((step.var,) if isinstance(step, When) else ()))))
        for agent, spec in plan.agents.items():
            uses.append((("agents", agent, "prompt"), template.names(spec.prompt)))
            uses.append((("agents", agent, "greeting"), template.names(spec.greeting)))
        for at, used in uses:
            for name in dict.fromkeys(used):
                if name not in known and not name.lower().startswith("header."):
                    near = meant(name, known) if len(self.warnings) < MOST_MEANT else ""
                    self._warn(at, f"nothing sets the variable `{name}`{near}")

    def routes(self) -> None:
        routes = self._plan.routes
        for index, route in enumerate(routes):
            for earlier, before in enumerate(routes[:index]):
                same_callers = route.match.percent is None or (before.name or before.flow) == (route.name or route.flow)
                if before.match.why() == "always" or (before.match.why() == route.match.why() and same_callers):
                    self._warn(("routes", index), f"route {earlier} takes all calls that this one matches")
                    break
        if self._plan.document.at(("timezone",)) is None:
            keys = {key for route in routes for key in ("hours", "calendar") if getattr(route.match, key)}
            if keys:
                names = " and ".join(f"`{key}`" for key in sorted(keys, reverse=True))
                verb = "is" if keys == {"calendar"} else "are"
                self._warn(("routes",), f"{names} {verb} in UTC because the file names no `timezone`")

    def _warn(self, at: KeyPath, reason: str) -> None:
        self.warnings.append(problem_at(self._plan.document, at, reason, DialplanError))
