"""All tenants' plans of a folder: which plan takes a call, and what its calls will need. Only `read` sees disks."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

from sipserver.dialplan import load
from sipserver.dialplan.agents import AgentSpec
from sipserver.dialplan.facts import CallFacts
from sipserver.dialplan.globs import exact
from sipserver.dialplan.match import Setting
from sipserver.dialplan.plan import FixedText, Flow, Plan
from sipserver.dialplan.steps import Speaking
from sipserver.errors import ConfigError, DialplanError
from sipserver.yaml_check import problem_at


@dataclass(frozen=True, slots=True)
class Routed:
    """The route that takes a call. route: index in the plan. why: its match, as `explain` prints it."""

    plan: Plan
    route: int
    flow: Flow
    why: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What `read` found. book: of all files without errors. errors and warnings: of all files, in file-name order."""

    book: Book
    errors: tuple[ConfigError, ...]
    warnings: tuple[ConfigError, ...]


@dataclass(frozen=True)
class Book:
    """plans: in the order in which they are asked, one a tenant. A running call keeps the plan it began with."""

    plans: tuple[Plan, ...] = ()

    def route(self, facts: CallFacts, now: datetime, tenants: Collection[str] = ()) -> Routed | None:
        """The first route of the first plan that takes the call; None means 404. now: with a time zone.

        tenants: ask these ones' routes alone; empty: everybody's.
        """
        if tenants:
            return self._of_tenants(facts, now, tenants)
        by_number, others = self._index
        settings: dict[int, Setting] = {}
        for place, index in heapq.merge(by_number.get(facts.to_user, ()), others):
            plan = self.plans[place]
            if place not in settings:
                settings[place] = plan.same(now)
            if plan.takes(index, facts, now, settings[place]):
                return _routed(plan, index)
        return None

    def _of_tenants(self, facts: CallFacts, now: datetime, tenants: Collection[str]) -> Routed | None:
        """In the order of the plans."""
        for plan in self.plans if len(tenants) > 1 else filter(None, map(self.plan, tenants)):
            if plan.tenant in tenants and (index := plan.route(facts, now)) is not None:
                return _routed(plan, index)
        return None

    def plan(self, tenant: str) -> Plan | None:
        return self._by_tenant.get(tenant)

    def agents(self) -> Iterator[tuple[Plan, str, AgentSpec]]:
        """Every agent with its plan and name: which engines to load, which prompts to warm.

        Greeting and prompt have the plan's own variables filled in; those that only a call knows are left empty.
        """
        for plan in self.plans:
            for name, spec in plan.agents.items():
                yield plan, name, spec.rendered(plan.variables)[0]

    def texts(self) -> Iterator[FixedText]:
        """Every text that is the same in all calls, each once: what the speech cache may hold ready."""
        yield from dict.fromkeys(text for plan in self.plans for text in plan.texts())

    def unknown_engines(
        self, stt: Collection[str], tts: Collection[str], llm: Collection[str]
    ) -> tuple[DialplanError, ...]:
        """Engines that plans name and the settings (the names given) do not have, each with file and line."""
        found: list[DialplanError] = []
        for plan, name, spec in self.agents():
            at = ("agents", name)
            used: list[tuple[str, Iterable[str], Collection[str], tuple[str, ...]]] = [
                ("speech.stt", spec.stt, stt, (*at, "stt")),
                ("llm", (spec.llm.use,), llm, (*at, "llm", "use")),
                ("llm", spec.llm.fallback, llm, (*at, "llm", "fallback")),
                ("speech.tts", (spec.tts.use,), tts, (*at, "tts", "use")),
            ]
            if "fallback" in spec.tts.model_fields_set:
                used.append(("speech.tts", spec.tts.fallback, tts, (*at, "tts", "fallback")))
            for part, names, known, path in used:
                found += [_unknown(plan, path, part, engine) for engine in names if engine not in known]
        for plan in self.plans:
            for step_at, step in plan.parts():
                if isinstance(step, Speaking) and step.tts and step.tts not in tts:
                    found.append(_unknown(plan, (*step_at, "tts"), "speech.tts", step.tts))
                if (option := step.transcribes()) and not plan.agents:
                    missing = [engine for engine in plan.transcribers() if engine not in stt]
                    found += [_unknown(plan, (*step_at, option), "speech.stt", engine) for engine in missing]
        return tuple(found)

    @cached_property
    def _by_tenant(self) -> dict[str, Plan]:
        found: dict[str, Plan] = {}
        for plan in self.plans:
            found.setdefault(plan.tenant, plan)
        return found

    @cached_property
    def _index(self) -> tuple[Mapping[str, Sequence[Place]], Sequence[Place]]:
        """Routes by the number that they are for, and those that may take several; each in the order of asking. With
        many tenants most routes are for one number each, and need not be asked about any other.
        """
        by_number: dict[str, list[Place]] = {}
        others: list[Place] = []
        for place, plan in enumerate(self.plans):
            for index, route in enumerate(plan.routes):
                numbers = exact(route.match.to or ())
                for number in numbers:
                    by_number.setdefault(number, []).append((place, index))
                if not numbers:
                    others.append((place, index))
        return by_number, others


Place = tuple[int, int]
"""Of a route: its plan's index, and its own within the plan."""


def _routed(plan: Plan, index: int) -> Routed:
    route = plan.routes[index]
    return Routed(plan, index, plan.flows[route.flow], route.match.why())


def _unknown(plan: Plan, path: tuple[str | int, ...], part: str, engine: str) -> DialplanError:
    return problem_at(plan.document, path, f"the settings have no engine `{engine}` under `{part}`", DialplanError)


def files(folder: Path) -> list[Path]:
    """The dialplan files of a folder by name; hidden files are left out. Raises DialplanError if it cannot be read."""
    try:
        found = [
            path for path in folder.iterdir() if path.suffix in (".yaml", ".yml") and not path.name.startswith(".")
        ]
    except OSError as problem:
        raise DialplanError(problem.strerror or str(problem), file=folder) from problem
    return sorted(path for path in found if path.is_file())


def read(folder: Path, most_agents: load.MostAgents = load.NO_LIMITS) -> Reading:
    """Read a whole folder. Raises DialplanError only if the folder cannot be read. Blocks on the disk."""
    reports = [load.check(file, most_agents) for file in files(folder)]
    plans, clashes = unique([report.plan for report in reports if report.plan is not None])
    errors = [problem for report in reports for problem in report.errors]
    warnings = [problem for report in reports for problem in report.warnings]
    return Reading(Book(tuple(plans)), (*errors, *clashes), tuple(warnings))


def unique(plans: Iterable[Plan], holders: Collection[tuple[str, Path]] = ()) -> tuple[list[Plan], list[DialplanError]]:
    """The plans without second ones for a tenant, and an error for each that was left out.

    holders: (tenant, file) pairs that come first because calls run on them; otherwise the first file has the tenant.
    """
    given = list(plans)
    owner: dict[str, Plan] = {}
    for plan in sorted(given, key=lambda plan: (plan.tenant, plan.file) not in holders):
        owner.setdefault(plan.tenant, plan)
    clashes = [
        DialplanError(
            f"the tenant `{plan.tenant}` stands in {owner[plan.tenant].file.name} already",
            file=plan.file,
            line=plan.document.line(("tenant",)),
            key="tenant",
        )
        for plan in given
        if owner[plan.tenant] is not plan
    ]
    return [plan for plan in given if owner[plan.tenant] is plan], clashes
