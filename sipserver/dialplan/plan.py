"""One tenant's dialplan: the models of the file and the immutable `Plan` that calls run. Loading is in `load`."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field

from sipserver import tenant_name
from sipserver.dialplan import template
from sipserver.dialplan.agents import DEFAULT_STT, AgentSpec, Strict, Text, Variable
from sipserver.dialplan.calendars import Calendar
from sipserver.dialplan.facts import CallFacts
from sipserver.dialplan.globs import NOT, Globs
from sipserver.dialplan.match import Match, Setting, Test
from sipserver.dialplan.queues import QueueSpec
from sipserver.dialplan.steps import Speaking, Step
from sipserver.yaml_file import Document, KeyPath


def zone(name: str) -> ZoneInfo:
    """Raises ValueError for a name that the time zone database does not know."""
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):  # what zoneinfo raises for odd names differs by system
        raise ValueError(f"`{name}` is no time zone; write a name such as Europe/Berlin") from None


def _zone_name(name: str) -> str:
    zone(name)
    return name


def _says_who(patterns: tuple[str, ...]) -> tuple[str, ...]:
    if all(pattern.startswith(NOT) for pattern in patterns):
        raise ValueError("says only where calls may not go; add where they may, such as `+49*`")
    return patterns


Name = Annotated[Text, Field(pattern=r"^\w[\w.-]*$")]


class Route(Strict):
    """The flow of the calls that match. The first route that matches wins.

    name: by which `percent` draws the callers; empty: the flow's. Routes of one name draw the same callers.
    """

    match: Match = Match()
    flow: Text
    name: Text = ""


class PlanFile(Strict):
    """A tenant's file. timezone: the zone of `hours` and `calendar`. variables: values that every call starts with.

    targets: globs of the numbers, users and `user@host` that calls may be sent to by bridge, transfer and queues, and
    that whoever has this server place a call may name.

    Each item of a flow is a step; `load` checks them one by one, so that a mistake names the step.
    """

    tenant: Annotated[Text, Field(pattern=tenant_name.PATTERN)]
    timezone: Annotated[Text, AfterValidator(_zone_name)] = "UTC"
    variables: dict[Variable, Text] = Field(default_factory=dict)
    targets: Annotated[Globs, AfterValidator(_says_who)] = ()
    calendars: dict[Name, Calendar] = Field(default_factory=dict)
    agents: dict[Name, AgentSpec] = Field(default_factory=dict)
    queues: dict[Name, QueueSpec] = Field(default_factory=dict)
    flows: dict[Name, Annotated[list[Any], Field(min_length=1)]] = Field(min_length=1)
    routes: tuple[Route, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Flow:
    """lines: where each step stands in the file, 1-based; same length as steps."""

    name: str
    steps: tuple[Step, ...]
    lines: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FixedText:
    """A text that is spoken the same in every call. tts and voice as in the dialplan; empty means the default."""

    text: str
    tts: str
    voice: str
    language: str


@dataclass(frozen=True)
class Plan:
    """A checked dialplan: every flow, agent and file that it names exists. Nothing in it changes."""

    tenant: str
    file: Path
    zone: ZoneInfo
    variables: Mapping[str, str]
    agents: Mapping[str, AgentSpec]
    flows: Mapping[str, Flow]
    routes: tuple[Route, ...]
    document: Document = field(repr=False, compare=False)
    targets: tuple[str, ...] = ()
    calendars: Mapping[str, Calendar] = field(default_factory=dict)
    queues: Mapping[str, QueueSpec] = field(default_factory=dict)

    def route(self, facts: CallFacts, now: datetime) -> int | None:
        """Index of the first route that matches; now: with a time zone."""
        same = self.same(now)
        return next((index for index in range(len(self.routes)) if self.takes(index, facts, now, same)), None)

    def same(self, now: datetime) -> Setting:
        """What all matches but those with `percent` look at beside the call."""
        return Setting(now.astimezone(self.zone), self.calendars)

    def takes(self, route: int, facts: CallFacts, now: datetime, same: Setting) -> bool:
        """Whether a route matches. same: of this plan and this moment."""
        match = self.routes[route].match
        return match.holds(facts, same if match.percent is None else self.setting(route, now))

    def setting(self, route: int, now: datetime) -> Setting:
        """What a route's match looks at beside the call."""
        chosen = self.routes[route]
        return Setting(now.astimezone(self.zone), self.calendars, f"{self.tenant}/{chosen.name or chosen.flow}")

    def tests(self, route: int, facts: CallFacts, now: datetime) -> tuple[Test, ...]:
        """Every key of a route's match, compared with a call."""
        return tuple(self.routes[route].match.tests(facts, self.setting(route, now)))

    def start_variables(self, facts: CallFacts, call_id: str = "") -> dict[str, str]:
        """A new dict with what a call's variables are before its first step."""
        return {**self.variables, **facts.variables(), "tenant": self.tenant, "call_id": call_id}

    def sound(self, name: str) -> Path:
        """The file that `play` names; relative names belong to the dialplan's folder."""
        return (self.file.parent / name).resolve()

    def offers(self, name: str) -> bool:
        """Whether programs may have this sound played: one that the plan plays itself, or of the tenant's folder."""
        path = self.sound(name)
        own = {self.sound(found) for _, step in self.parts() for key in step.sounds if (found := getattr(step, key))}
        return path in own or path.is_relative_to((self.file.parent / self.tenant).resolve())

    def steps(self) -> Iterator[tuple[Flow, int, Step]]:
        for flow in self.flows.values():
            for index, step in enumerate(flow.steps):
                yield flow, index, step

    def parts(self) -> Iterator[tuple[KeyPath, Step]]:
        """Every step and the steps that are options of one, with the place where its options stand."""
        for flow, index, step in self.steps():
            at: KeyPath = ("flows", flow.name, index, step.word)
            yield at, step
            for place, part in step.inner():
                yield (*at, *place), part

    @functools.cached_property
    def fixed(self) -> frozenset[str]:
        """What steps say that is the same in every call, as it stands in the file."""
        said = (text for _at, step in self.parts() for text in step.spoken())
        return frozenset(text for text in said if not template.names(text))

    def line(self, flow: str, index: int, place: KeyPath) -> int:
        """Where a part of a step stands in the file; 1-based."""
        return self.document.line(("flows", flow, index, *place))

    def callees(self) -> Iterator[tuple[KeyPath, str]]:
        """Whom steps and queues call, as it stands in the file, with the place where it does."""
        for at, step in self.parts():
            if step.callee:
                yield (*at, step.callee), getattr(step, step.callee)
        for name, queue in self.queues.items():
            for index, agent in enumerate(queue.agents):
                yield ("queues", name, "agents", index), agent

    def transcribers(self) -> tuple[str, ...]:
        """The speech-to-text engines that write down messages, greetings and what targets answer, in the order in which
        they are asked. None when no step needs any.
        """
        return self.chain() if any(step.transcribes() for _at, step in self.parts()) else ()

    def chain(self) -> tuple[str, ...]:
        """The speech-to-text engines of the tenant's agents, else an agent's default. Never empty; not loaded for a
        plan that needs none.
        """
        chains = [agent.stt for agent in self.agents.values()] or [DEFAULT_STT]
        return tuple(dict.fromkeys(name for chain in chains for name in chain))

    def texts(self) -> Iterator[FixedText]:
        """Texts without variables, each once, in the order in which callers are likely to hear them."""
        found: dict[FixedText, None] = {}
        for agent in self.agents.values():
            for text in (agent.greeting, agent.filler, agent.nudge, agent.apology):
                _add(found, text, agent.tts.use, agent.tts.voice, agent.language)
        for _at, step in self.parts():
            if isinstance(step, Speaking):
                for text in step.spoken():
                    _add(found, text, step.tts, step.voice, step.language)
        yield from found


def _add(found: dict[FixedText, None], text: str, tts: str, voice: str, language: str) -> None:
    if text.strip() and not template.names(text):
        found[FixedText(template.render(text, {}).text, tts, voice, language)] = None
