"""One tenant's dialplan: the models of the file and the immutable `Plan` that calls run. Loading is in `load`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field

from sipserver.dialplan import template
from sipserver.dialplan.agents import AgentSpec, Strict, Text, Variable
from sipserver.dialplan.facts import CallFacts
from sipserver.dialplan.match import Match
from sipserver.dialplan.steps import Speaking, Step
from sipserver.yaml_file import Document


def zone(name: str) -> ZoneInfo:
    """Raises ValueError for a name that the time zone database does not know."""
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):  # what zoneinfo raises for odd names differs by system
        raise ValueError(f"`{name}` is no time zone; write a name such as Europe/Berlin") from None


def _zone_name(name: str) -> str:
    zone(name)
    return name


Name = Annotated[Text, Field(pattern=r"^\w[\w.-]*$")]


class Route(Strict):
    """The flow of the calls that match. The first route that matches wins."""

    match: Match = Match()
    flow: Text


class PlanFile(Strict):
    """A tenant's file. timezone: the zone of `hours`. variables: values that every call starts with.

    Each item of a flow is a step; `load` checks them one by one, so that a mistake names the step.
    """

    tenant: Annotated[Text, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    timezone: Annotated[Text, AfterValidator(_zone_name)] = "UTC"
    variables: dict[Variable, Text] = Field(default_factory=dict)
    agents: dict[Name, AgentSpec] = Field(default_factory=dict)
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

    def route(self, facts: CallFacts, now: datetime) -> int | None:
        """Index of the first route that matches; now: with a time zone."""
        local = now.astimezone(self.zone)
        for index, route in enumerate(self.routes):
            if not route.match.miss(facts, local):
                return index
        return None

    def start_variables(self, facts: CallFacts, call_id: str = "") -> dict[str, str]:
        """A new dict with what a call's variables are before its first step."""
        return {**self.variables, **facts.variables(), "tenant": self.tenant, "call_id": call_id}

    def sound(self, name: str) -> Path:
        """The file that `play` names; relative names belong to the dialplan's folder."""
        return (self.file.parent / name).resolve()

    def steps(self) -> Iterator[tuple[Flow, int, Step]]:
        for flow in self.flows.values():
            for index, step in enumerate(flow.steps):
                yield flow, index, step

    def texts(self) -> Iterator[FixedText]:
        """Texts without variables, each once, in the order in which callers are likely to hear them."""
        found: dict[FixedText, None] = {}
        for agent in self.agents.values():
            for text in (agent.greeting, agent.filler, agent.nudge, agent.apology):
                _add(found, text, agent.tts.use, agent.tts.voice, agent.language)
        for _flow, _index, step in self.steps():
            if isinstance(step, Speaking):
                for text in step.spoken():
                    _add(found, text, step.tts, step.voice, step.language)
        yield from found


def _add(found: dict[FixedText, None], text: str, tts: str, voice: str, language: str) -> None:
    if text.strip() and not template.names(text):
        found[FixedText(template.render(text, {}).text, tts, voice, language)] = None
