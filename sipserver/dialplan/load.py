"""One file to one `Plan`, or everything that is wrong with it, each with file, line, key and reason.

Checks the syntax, every key, every name that is used, every sound file, and where calls can go; what is allowed and
hardly meant is `advice`'s. What the file says never makes it raise anything but `DialplanError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sipserver import yaml_file
from sipserver.dialplan import graph, targets, template
from sipserver.dialplan.advice import advise
from sipserver.dialplan.facts import BUILT_IN
from sipserver.dialplan.globs import bare
from sipserver.dialplan.plan import Flow, Plan, PlanFile, zone
from sipserver.dialplan.steps import END, NEXT, STEPS, Agent, Collect, Decide, Secure, SetStep, Step
from sipserver.errors import ConfigError, DialplanError
from sipserver.yaml_check import MOST_MEANT, check_all, meant, problem_at
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


MostAgents = Mapping[str, int]
"""How many agents a tenant may have; 0, or not named: any number."""
NO_LIMITS: MostAgents = {}


def check(file: Path, most_agents: MostAgents = NO_LIMITS) -> Report:
    """All mistakes and warnings of a file. Never raises. Blocks on the disk."""
    try:
        return check_document(yaml_file.parse(file, DialplanError), most_agents=most_agents)
    except ConfigError as problem:
        return Report(file, None, (problem,))


@dataclass(frozen=True, slots=True)
class Sounds:
    """Where the sound files of a plan may lie that does not come from the operator. folders: beside the dialplan.
    known: as they may be named as well.
    """

    folders: tuple[str, ...]
    known: frozenset[str] = frozenset()

    def allows(self, beside: Path, name: str) -> bool:
        """Whether it is certain that it lies there, links followed."""
        if name in self.known:
            return True
        try:
            file = (beside / name).resolve()
            return any(file.is_relative_to((beside / folder).resolve()) for folder in self.folders)
        except (OSError, ValueError, RuntimeError):
            return False


def check_document(document: Document, sounds: Sounds | None = None, most_agents: MostAgents = NO_LIMITS) -> Report:
    """As `check`, for a file that was parsed. sounds: None: wherever the file says."""
    if not isinstance(document.value, dict):
        problem = DialplanError("is empty; a dialplan has `tenant`, `flows` and `routes`", file=document.file, line=1)
        return Report(document.file, None, (problem,))
    return _Check(document, sounds, most_agents).report()


class _Check:
    """One pass over one document; keeps what it finds."""

    def __init__(self, document: Document, sounds: Sounds | None, most_agents: MostAgents) -> None:
        self.document, self.sounds, self.most_agents = document, sounds, most_agents
        self.errors: list[ConfigError] = []
        self.placed: list[tuple[KeyPath, Step]] = []

    def report(self) -> Report:
        head, mistakes = check_all(self.document, self.document.value, PlanFile, DialplanError)
        self.errors += mistakes
        flows = self._flows()
        self._names(flows)
        if head is not None:
            self._calendars(head)
            self._agents(head)
        if not self.errors:
            self._loops(flows)
        warnings: list[ConfigError] = []
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
                targets=head.targets,
                calendars=head.calendars,
                queues=head.queues,
            )
            self._targets(plan)
            warnings = advise(plan)
        return Report(self.document.file, None if self.errors else plan, _sorted(self.errors), _sorted(warnings))

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
        if word not in STEPS:
            self._error(at, f"unknown step `{word}`{meant(word, STEPS)}; known are {', '.join(STEPS)}")
            return None
        options, whole = self._parts(at, options) if STEPS[word] is Secure else (options, True)
        if not whole:
            return None
        step, mistakes = check_all(self.document, options, STEPS[word], DialplanError, at=at)
        self.errors += mistakes
        if step is not None:
            self.placed.append((at, step))
            if not isinstance(step, Secure):  # its parts were placed one by one
                self.placed += [((*at, *place), part) for place, part in step.inner()]
        return step

    def _parts(self, at: KeyPath, options: Any) -> tuple[Any, bool]:
        """The options of `secure` with its steps understood, and whether all of them were."""
        written = options.get("do") if isinstance(options, dict) else None
        if not isinstance(written, list):
            return options, True
        parts = [self._step((*at, "do", index), item) for index, item in enumerate(written)]
        return {**options, "do": tuple(parts)}, None not in parts

    # --- names

    def _names(self, flows: dict[str, Flow]) -> None:
        for at, step in self.placed:
            for branch in step.branches():
                if branch.key and branch.target not in (NEXT, END):
                    self._named((*at, *branch.key), "flow", branch.target, flows)
            if isinstance(step, Agent):
                self._named((*at, "use"), "agent", step.use, self._part("agents"))
            if queue := step.queue_name():
                self._named((*at, step.short), "queue", queue, self._part("queues"))
            for key in step.sounds:
                if name := getattr(step, key):
                    self._sound((*at, key), name)
            if isinstance(step, SetStep | Collect | Decide):
                self._settable(at if isinstance(step, SetStep) else (*at, "into"), step.sets())
        self._settable(("variables",), self._part("variables"))
        routes = self.document.at(("routes",))
        for index in range(len(routes) if isinstance(routes, list) else 0):
            flow = yaml_file.as_written(self.document.at(("routes", index, "flow")))
            if isinstance(flow, str):
                self._named(("routes", index, "flow"), "flow", flow, flows)

    def _calendars(self, head: PlanFile) -> None:
        for index, route in enumerate(head.routes):
            for name in map(bare, route.match.calendar or ()):
                self._named(("routes", index, "match", "calendar"), "calendar", name, head.calendars)

    def _agents(self, head: PlanFile) -> None:
        """Too many are told of once, at the first that is one too many."""
        most = self.most_agents.get(head.tenant, 0)
        if 0 < most < len(head.agents):
            first = list(head.agents)[most]
            told = f"{len(head.agents)} agents, and the tenant {head.tenant} may have {most}"
            self._error(("agents", first), f"{told} (`tenants.{head.tenant}.agents` in the settings)")

    def _part(self, key: str) -> Mapping[str, Any]:
        written = self.document.at((key,))
        return written if isinstance(written, dict) else {}

    def _named(self, at: KeyPath, what: str, name: str, known: Iterable[str]) -> None:
        if name not in known:
            near = meant(name, known) if len(self.errors) < MOST_MEANT else ""
            self._error(at, f"unknown {what} `{name}`{near}")

    def _sound(self, at: KeyPath, name: str) -> None:
        if self.sounds is not None and not self.sounds.allows(self.document.file.parent, name):
            folders = " or ".join(f"{folder}/" for folder in self.sounds.folders)
            self._error(at, f"a sound lies below {folders} beside the dialplan; the operator puts it there")
            return
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

    def _targets(self, plan: Plan) -> None:
        for at, to in plan.callees():
            if at[0] == "flows" and template.names(to):
                if not plan.targets:
                    self._error(at, f"`{to}` has variables: say under `targets` where calls may go, as in [+49*]")
            elif targets.parse(to) is None:
                self._error(at, f"`{to}` is no target: write {targets.FORMS}")
            elif not targets.allows_target(plan, to):
                self._error(at, f"`targets` does not allow `{to}`; it allows {', '.join(plan.targets)}")

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

    def _error(self, at: KeyPath, reason: str) -> None:
        self.errors.append(problem_at(self.document, at, reason, DialplanError))


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
