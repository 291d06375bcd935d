"""One file to one `Plan`, or everything that is wrong with it, each with file, line, key and reason.

Checks the syntax, every key, every name that is used, every sound file, and where calls can go. What the file says
never makes it raise anything but `DialplanError`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sipserver import yaml_file
from sipserver.dialplan import graph, template
from sipserver.dialplan.facts import BUILT_IN
from sipserver.dialplan.plan import Flow, Plan, PlanFile, zone
from sipserver.dialplan.steps import END, LATER, NEXT, STEPS, Agent, Hangup, SetStep, Step, When, supported
from sipserver.errors import ConfigError, DialplanError
from sipserver.yaml_check import check_all, meant, shown
from sipserver.yaml_file import Document, KeyPath


@dataclass(frozen=True, slots=True)
class Report:
    """plan: None exactly when there are errors. errors and warnings: sorted by line."""

    file: Path
    plan: Plan | None
    errors: tuple[ConfigError, ...]
    warnings: tuple[ConfigError, ...] = ()


def load(file: Path) -> Plan:
    """The plan in a file. Raises DialplanError with the first mistake. Blocks on the disk."""
    report = check(file)
    if report.plan is None:
        raise report.errors[0]
    return report.plan


def check(file: Path) -> Report:
    """All mistakes and warnings of a file. Never raises. Blocks on the disk."""
    try:
        return check_document(yaml_file.parse(file, DialplanError))
    except ConfigError as problem:
        return Report(file, None, (problem,))


def check_document(document: Document) -> Report:
    """As `check`, for a file that was parsed."""
    if not isinstance(document.value, dict):
        problem = DialplanError("is empty; a dialplan has `tenant`, `flows` and `routes`", file=document.file, line=1)
        return Report(document.file, None, (problem,))
    return _Check(document).report()


class _Check:
    """One pass over one document; keeps what it finds."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.errors: list[ConfigError] = []
        self.warnings: list[ConfigError] = []
        self.placed: list[tuple[KeyPath, Step]] = []

    def report(self) -> Report:
        head, mistakes = check_all(self.document, self.document.value, PlanFile, DialplanError)
        self.errors += mistakes
        flows = self._flows()
        self._names(flows)
        if not self.errors and head is not None:
            self._loops(flows)
        plan = None
        if not self.errors and head is not None:
            plan = Plan(
                tenant=head.tenant,
                file=self.document.file,
                zone=zone(head.timezone),
                variables=head.variables,
                agents=head.agents,
                flows=flows,
                routes=head.routes,
                document=self.document,
            )
            self._advise(plan)
        return Report(self.document.file, plan, _sorted(self.errors), _sorted(self.warnings))

    # --- steps

    def _flows(self) -> dict[str, Flow]:
        """Every step that can be understood; a flow whose steps cannot all be has fewer steps."""
        found: dict[str, Flow] = {}
        written = self.document.at(("flows",))
        for name, items in written.items() if isinstance(written, dict) else ():
            if name in (NEXT, END):
                self._error(("flows", name), f"a flow cannot be called `{name}`: that is a branch target")
            steps, lines = [], []
            for index, item in enumerate(items if isinstance(items, list) else ()):
                at: KeyPath = ("flows", name, index)
                step = self._step(at, item)
                if step is not None:
                    steps.append(step)
                    lines.append(self.document.line(at))
            found[name] = Flow(name, tuple(steps), tuple(lines))
        return found

    def _step(self, at: KeyPath, item: object) -> Step | None:
        if isinstance(item, str):
            word, options = item, None
        elif isinstance(item, dict) and len(item) == 1:
            word, options = next(iter(item.items()))
            at = (*at, word)
        else:
            self._error(at, _shape(item))
            return None
        if word in LATER:
            self._error(at, f"`{word}` {LATER[word]}")
            return None
        if word not in STEPS:
            known = supported()
            self._error(at, f"unknown step `{word}`{meant(word, known)}; known are {', '.join(known)}")
            return None
        step, mistakes = check_all(self.document, options, STEPS[word], DialplanError, at=at)
        self.errors += mistakes
        if step is not None:
            self.placed.append((at, step))
        return step

    # --- names

    def _names(self, flows: dict[str, Flow]) -> None:
        agents = self.document.at(("agents",))
        for at, step in self.placed:
            for branch in step.branches():
                if branch.key and branch.target not in (NEXT, END) and branch.target not in flows:
                    self._error((*at, *branch.key), f"unknown flow `{branch.target}`{meant(branch.target, flows)}")
            if isinstance(step, Agent) and not (isinstance(agents, dict) and step.use in agents):
                self._error(
                    (*at, "use"),
                    f"unknown agent `{step.use}`{meant(step.use, agents if isinstance(agents, dict) else ())}",
                )
            for key in step.sounds:
                if name := getattr(step, key):
                    self._sound((*at, key), name)
            self._settable(at if isinstance(step, SetStep) else (*at, "into"), step.sets())
        variables = self.document.at(("variables",))
        self._settable(("variables",), variables if isinstance(variables, dict) else ())
        routes = self.document.at(("routes",))
        for index in range(len(routes) if isinstance(routes, list) else 0):
            flow = yaml_file.as_written(self.document.at(("routes", index, "flow")))
            if isinstance(flow, str) and flow not in flows:
                self._error(("routes", index, "flow"), f"unknown flow `{flow}`{meant(flow, flows)}")

    def _sound(self, at: KeyPath, name: str) -> None:
        try:
            exists = (self.document.file.parent / name).is_file()
        except (OSError, ValueError):
            exists = False
        if not exists:
            self._error(at, f"no such file: {name} (looked for beside the dialplan)")

    def _settable(self, at: KeyPath, names: Iterable[str]) -> None:
        for name in names:
            if name in BUILT_IN:
                self._error((*at, name), f"`{name}` is told by the call and cannot be set")

    # --- where calls go

    def _loops(self, flows: dict[str, Flow]) -> None:
        for circle in graph.spins(flows):
            self._error(
                _path(circle[0]),
                f"an endless loop without a step that takes time: {_round(circle)}; put a `wait` or a question into it",
            )
        for part in graph.traps(flows):
            names = ", ".join(dict.fromkeys(f"`{name}`" for name, _index in part))
            self._error(
                _path(part[0]),
                f"from here the call can never end ({names}): no `hangup`, no `end` and no end of a flow is reached",
            )

    # --- warnings

    def _advise(self, plan: Plan) -> None:
        entries = [route.flow for route in plan.routes]
        used = {name for name, _index in graph.reached(plan.flows, [(name, 0) for name in entries])}
        for name in plan.flows:
            if name not in used:
                self._warn(("flows", name), "no route and no step leads to this flow")
            for index in graph.dead_steps(plan.flows, name):
                self._warn(("flows", name, index), "this step is never reached")
        spoken_to = {step.use for _flow, _index, step in plan.steps() if isinstance(step, Agent)}
        for name in plan.agents:
            if name not in spoken_to:
                self._warn(("agents", name), "no step uses this agent")
        self._advise_media(plan, entries)
        self._advise_variables(plan)
        self._advise_routes(plan)

    def _advise_media(self, plan: Plan, entries: list[str]) -> None:
        for (name, index), states in graph.media_before(plan.flows, entries).items():
            step = plan.flows[name].steps[index]
            if step.hears and not step.answers and graph.Media.EARLY in states:
                self._warn(
                    ("flows", name, index),
                    f"`{step.word}` before `answer`: most networks do not carry the caller's sound and digits yet",
                )
            if isinstance(step, Hangup) and "code" in step.model_fields_set and states == {graph.Media.ANSWERED}:
                self._warn(("flows", name, index), "the code has no effect: the call is answered here")

    def _advise_variables(self, plan: Plan) -> None:
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
                    self._warn(at, f"nothing sets the variable `{name}`{meant(name, known)}")

    def _advise_routes(self, plan: Plan) -> None:
        for index, route in enumerate(plan.routes):
            for earlier in range(index):
                if plan.routes[earlier].match.why() in ("always", route.match.why()):
                    self._warn(("routes", index), f"route {earlier} takes all calls that this one matches")
                    break
        if self.document.at(("timezone",)) is None and any(route.match.hours for route in plan.routes):
            self._warn(("routes",), "`hours` are in UTC because the file names no `timezone`")

    def _error(self, at: KeyPath, reason: str) -> None:
        self.errors.append(self._problem(at, reason))

    def _warn(self, at: KeyPath, reason: str) -> None:
        self.warnings.append(self._problem(at, reason))

    def _problem(self, at: KeyPath, reason: str) -> DialplanError:
        stands = self.document.nearest(at)
        return DialplanError(reason, file=self.document.file, line=self.document.line(at), key=shown(stands))


def _sorted(problems: list[ConfigError]) -> tuple[ConfigError, ...]:
    return tuple(sorted(problems, key=lambda problem: problem.line or 0))


def _path(node: graph.Node) -> KeyPath:
    return ("flows", *node)


def _round(circle: list[graph.Node]) -> str:
    return " -> ".join(dict.fromkeys(name for name, _index in circle)) + f" -> {circle[0][0]}"


def _shape(item: object) -> str:
    if isinstance(item, dict) and len(item) > 1:
        first, second, *_ = item
        return (
            f"a step has one key, here are `{first}` and `{second}`: options stand one level deeper,"
            f" as in `{first}: {{{second}: ...}}`"
        )
    return "a step is a word such as `answer` or a mapping with one key such as `say: Hello.`"
