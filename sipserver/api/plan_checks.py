"""What is said to a dialplan that comes by REST: whether it is one, whose it is, and whether it may have what it has.

Owns how much of the machine checks may take: one at a time, and few that wait. Refuses to know versions and files.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sipserver import yaml_file
from sipserver.dialplan import bounds, load
from sipserver.dialplan.book import Book
from sipserver.dialplan.bounds import Allowed
from sipserver.dialplan.load import NO_LIMITS, MostAgents, Sounds
from sipserver.dialplan.plan import Plan
from sipserver.errors import ConfigError, DialplanError, TooMany

MOST_BYTES = 128 * 1024
MOST_ROUTES, MOST_FLOWS, MOST_STEPS = 300, 500, 2000
"""Checks compare every route with every other one: with thousands of them that would take minutes."""
MOST_WAITING = 8
"""Checks that wait for their turn: one runs at a time, as it costs up to seconds of a core."""
SHARED_SOUNDS = "sounds"


@dataclass(frozen=True, slots=True)
class Engines:
    """The names of the engines in the settings."""

    stt: Collection[str] = ()
    tts: Collection[str] = ()
    llm: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Checked:
    """plan: None exactly when there are errors."""

    plan: Plan | None
    errors: Sequence[ConfigError]
    warnings: Sequence[ConfigError] = ()


class PlanChecks:
    """Loop thread; the work is done in a thread. Raises TooMany when too many wait already."""

    def __init__(
        self,
        folder: Path,
        allowed: Mapping[str, Allowed],
        engines: Engines,
        most_agents: MostAgents = NO_LIMITS,
    ) -> None:
        self._folder, self._allowed, self._engines, self._most_agents = folder, allowed, engines, most_agents
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def judge(self, tenant: str, text: str, operators: str | None) -> Checked:
        """operators: the last dialplan of this tenant that the operator wrote; None: there is none."""
        async with self._free():
            return await asyncio.to_thread(self._judged, tenant, text, operators)

    async def read(self, text: str) -> Plan | None:
        """What stands in a dialplan that is there already; None: it is wrong."""
        async with self._free():
            return (await asyncio.to_thread(checked, text, self._file)).plan

    def by_hand(self, text: str, file: Path) -> Plan | None:
        """What the server reads in a file that the operator changed; None: it is wrong. Blocks on the disk."""
        return checked(text, file, most_agents=self._most_agents).plan

    @contextlib.asynccontextmanager
    async def _free(self) -> AsyncIterator[None]:
        if self._waiting >= MOST_WAITING:
            raise TooMany("too many dialplans are being checked: try again in a moment")
        self._waiting += 1
        try:
            async with self._turn:
                yield
        finally:
            self._waiting -= 1

    @property
    def _file(self) -> Path:
        """Sounds lie beside it; its own name is never told."""
        return self._folder / "dialplan.yaml"

    def _judged(self, tenant: str, text: str, operators: str | None) -> Checked:
        before = None if operators is None else checked(operators, self._file).plan
        if too_many := _too_many(text, self._file):
            return Checked(None, too_many)
        found = checked(text, self._file, Sounds((SHARED_SOUNDS, tenant), bounds.sounds_of(before)), self._most_agents)
        plan = found.plan
        if plan is None:
            return found
        if plan.tenant != tenant:
            reason = "the dialplan names another tenant than the one that the API key belongs to"
            return Checked(None, [DialplanError(reason, line=plan.document.line(("tenant",)), key="tenant")])
        known = self._engines
        errors: list[ConfigError] = [*Book((plan,)).unknown_engines(known.stt, known.tts, known.llm)]
        errors += bounds.beyond(plan, self._allowed.get(tenant, Allowed()), before)
        return Checked(None if errors else plan, errors, found.warnings)


def _too_many(text: str, file: Path) -> list[ConfigError]:
    """Parts of which there are more than a check can bear. What is wrong otherwise is for the check to say."""
    try:
        document = yaml_file.parse_text(text, file, DialplanError)
    except ConfigError:
        return []
    routes, flows = document.at(("routes",)), document.at(("flows",))
    steps = [each for each in flows.values() if isinstance(each, list)] if isinstance(flows, dict) else []
    counts = {
        "routes": (len(routes) if isinstance(routes, list) else 0, MOST_ROUTES),
        "flows": (len(flows) if isinstance(flows, dict) else 0, MOST_FLOWS),
        "steps": (sum(map(len, steps)), MOST_STEPS),
    }
    return [
        DialplanError(f"{count} {what}; there may be {most}", line=document.line((what,)), key=what)
        for what, (count, most) in counts.items()
        if count > most
    ]


def checked(text: str, file: Path, sounds: Sounds | None = None, most_agents: MostAgents = NO_LIMITS) -> Checked:
    """As the server reads it, and no more. Blocks on the disk, where its sounds are."""
    try:
        report = load.check_document(yaml_file.parse_text(text, file, DialplanError), sounds, most_agents)
    except ConfigError as problem:
        return Checked(None, (problem,))
    return Checked(report.plan, report.errors, report.warnings)
