"""A dry run: which route would take a call and why each earlier one would not, and what the call would then go through.

Pure: the facts and the time are given, the answer is lines of text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sipserver.dialplan import graph
from sipserver.dialplan.book import Book, Routed
from sipserver.dialplan.facts import CallFacts
from sipserver.dialplan.hours import DAYS
from sipserver.dialplan.plan import Plan
from sipserver.dialplan.steps import END, NEXT, Goto, Secure, Speaking, Step

MAX_DEPTH = 6
_INDENT = "  "
_OF_THE_MOMENT = ("hours", "calendar", "percent", "load")
_TARGETS = {NEXT: "go on with the next step", END: "end the call"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one route says to a call. miss: why it does not take it; empty if it does. held: what else of the moment
    spoke for it, which one cannot see in the call.
    """

    plan: Plan
    route: int
    line: int
    miss: str
    held: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """verdicts: every route that was asked, in order; the last one took the call unless `routed` is None."""

    facts: CallFacts
    now: datetime
    verdicts: tuple[Verdict, ...]
    routed: Routed | None

    def lines(self) -> Iterator[str]:
        """The answer as `sipserver dialplan explain` prints it."""
        facts = self.facts
        day = DAYS[self.now.weekday()]
        yield (
            f"call to {facts.to_user or 'nobody'} from {facts.from_user or 'anonymous'}"
            f" ({', '.join(_way(facts))}) at {day} {self.now:%Y-%m-%d %H:%M %Z}"
        )
        plan = None
        for verdict in self.verdicts:
            if verdict.plan is not plan:
                plan = verdict.plan
                yield f"tenant {plan.tenant} ({plan.file})"
            route = plan.routes[verdict.route]
            yield f"{_INDENT}route {verdict.route}, line {verdict.line}: {route.match.why()} -> {route.flow}"
            yield f"{_INDENT * 2}{'no: ' + verdict.miss if verdict.miss else 'takes the call'}"
            yield from (f"{_INDENT * 2}{held}" for held in verdict.held)
        if self.routed is None:
            yield "no route takes this call: 404 Not Found"
        else:
            yield ""
            yield from flow_lines(self.routed.plan, self.routed.flow.name)


def _way(facts: CallFacts) -> Iterator[str]:
    yield facts.transport
    yield facts.source or "unknown source"
    if facts.trunk:
        yield f"trunk {facts.trunk}"
    if facts.direction != "inbound":
        yield facts.direction
    if facts.load:
        yield f"load {facts.load:g} %"


def explain(book: Book, facts: CallFacts, now: datetime) -> Explanation:
    """Ask every route as a call would. now: with a time zone."""
    verdicts: list[Verdict] = []
    for plan in book.plans:
        for index in range(len(plan.routes)):
            tests = plan.tests(index, facts, now)
            miss = next((str(test) for test in tests if not test.holds), "")
            held = () if miss else tuple(str(test) for test in tests if test.key in _OF_THE_MOMENT)
            verdicts.append(Verdict(plan, index, plan.document.line(("routes", index)), miss, held))
            if not miss:
                return Explanation(facts, now.astimezone(plan.zone), tuple(verdicts), book.route(facts, now))
    return Explanation(facts, now, tuple(verdicts), None)


def flow_lines(plan: Plan, name: str) -> Iterator[str]:
    """A flow as a tree: steps one below the other, branches indented, every flow told once."""
    tree = _Tree(plan, name)
    yield from tree.flow(name, 0)
    while tree.later:
        yield from tree.flow(tree.later.pop(0), 0)


def summary(step: Step) -> str:
    """A step in one line, with the options that the file gives: `collect: say: Press one., digits: 1`."""
    options = step.model_dump(by_alias=True, exclude_unset=True, exclude={"on", "then", "else_", "flow", "do"})
    options = dict(sorted(options.items(), key=lambda option: option[0] in Speaking.__annotations__))
    if step.word == "set":
        options = options.get("values", {})
    shown = ", ".join(_option(key, value, step.short) for key, value in options.items())
    return f"{step.word}: {shown}" if shown else step.word


def _option(key: str, value: Any, short: str) -> str:
    if isinstance(value, bool):
        value = "true" if value else "false"
    elif isinstance(value, dict):
        value = f"{{{', '.join(f'{name}: {text}' for name, text in value.items())}}}"
    elif isinstance(value, tuple | list):
        value = f"[{', '.join(map(str, value))}]"
    elif isinstance(value, float):
        value = f"{value:g}"
    text = " ".join(str(value).split())
    text = text if len(text) <= 70 else f"{text[:67]}..."
    return text if key == short else f"{key}: {text}"


def _answers(step: Step, before: set[graph.Media]) -> bool:
    """Whether the step may answer a call that the dialplan did not answer by a step of that name."""
    if step.answers:
        return step.word != "answer" and bool(before - {graph.Media.ANSWERED})
    return step.needs_media and graph.Media.RINGING in before


class _Tree:
    """Remembers which flows were told. later: flows that are nested too deeply to be told in place."""

    def __init__(self, plan: Plan, entry: str) -> None:
        self._plan = plan
        self._media = graph.media_before(plan.flows, [entry])
        self._told: set[str] = set()
        self.later: list[str] = []

    def flow(self, name: str, depth: int) -> Iterator[str]:
        flow = self._plan.flows[name]
        self._told.add(name)
        yield f"{_INDENT * depth}flow {name}"
        for index, step in enumerate(flow.steps):
            if isinstance(step, Goto):
                yield from self._branch("goto", step.flow, depth + 1)
                continue
            note = ""
            if _answers(step, self._media.get((name, index), set())):
                note = "   (answers the call)"
            yield f"{_INDENT * (depth + 1)}{summary(step)}{note}"
            if queue := self._plan.queues.get(step.queue_name()):
                yield f"{_INDENT * (depth + 2)}{queue.about()}"
            for part in step.do if isinstance(step, Secure) else ():
                yield f"{_INDENT * (depth + 2)}{summary(part)}"
            for branch in step.branches():
                if branch.key or (branch.outcome and branch.target != NEXT):
                    yield from self._branch(branch.outcome, branch.target, depth + 2)
        if any(branch.target == NEXT for branch in flow.steps[-1].branches()):
            yield f"{_INDENT * (depth + 1)}end of the flow: the call ends"

    def _branch(self, outcome: str, target: str, depth: int) -> Iterator[str]:
        lead = f"{_INDENT * depth}{outcome} -> "
        if target in _TARGETS:
            yield lead + _TARGETS[target]
        elif target in self._told:
            yield f"{lead}flow {target} (see above)"
        elif depth >= MAX_DEPTH * 2:
            self._told.add(target)
            self.later.append(target)
            yield f"{lead}flow {target} (see below)"
        else:
            first, *rest = self.flow(target, depth)
            yield lead + first.strip()
            yield from rest
