"""Where a call can go inside a plan's flows: endless loops, steps never reached, the state of the call at a step.

Pure. A node is (flow, index of the step); `None` is the end of the call, which is also what follows a flow's last step.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping

from sipserver.dialplan.plan import Flow
from sipserver.dialplan.steps import END, NEXT, Bridge, Early, Step

Node = tuple[str, int]
Flows = Mapping[str, Flow]


class Media(enum.IntEnum):
    """How far the call is when a step begins."""

    RINGING = 0
    EARLY = 1
    ANSWERED = 2


def after(flows: Flows, node: Node, target: str) -> Node | None:
    """The node that a target means at a step. A flow that does not exist counts as the end."""
    name, index = node
    if target == NEXT:
        return (name, index + 1) if index + 1 < len(flows[name].steps) else None
    if target == END or target not in flows or not flows[target].steps:
        return None
    return target, 0


def ways(flows: Flows, node: Node) -> list[Node | None]:
    """Every node that may follow, each once."""
    step = flows[node[0]].steps[node[1]]
    return list(dict.fromkeys(after(flows, node, branch.target) for branch in step.branches()))


def nodes(flows: Flows) -> Iterator[tuple[Node, Step]]:
    for flow in flows.values():
        for index, step in enumerate(flow.steps):
            yield (flow.name, index), step


def reached(flows: Flows, starts: Iterable[Node | None]) -> dict[Node, None]:
    """All nodes that can be reached from the given ones, these included, in order of discovery."""
    seen: dict[Node, None] = {}
    waiting = [start for start in starts if start is not None]
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen[node] = None
            waiting.extend(way for way in ways(flows, node) if way is not None)
    return seen


def spins(flows: Flows) -> list[list[Node]]:
    """Circles without any step that takes time, each once, as the nodes along it."""
    quick = {node: [way for way in ways(flows, node) if way] for node, step in nodes(flows) if not step.waits}
    found: list[list[Node]] = []
    done: set[Node] = set()
    for start in quick:
        trail: dict[Node, Iterator[Node]] = {}
        waiting = [start] if start not in done else []
        while waiting:
            node = waiting[-1]
            if node not in trail:
                trail[node] = iter(quick[node])
            following = next((way for way in trail[node] if way in quick and way not in done), None)
            if following is None:
                waiting.pop()
                done.add(node)
                del trail[node]
            elif following in trail:
                path = list(trail)
                found.append(path[path.index(following) :])
            else:
                waiting.append(following)
    return found


def traps(flows: Flows) -> list[list[Node]]:
    """Parts that a call enters and that hold no way to its end, each once: the nodes, the way in first."""
    back: dict[Node | None, list[Node]] = {}
    for node, _step in nodes(flows):
        for way in ways(flows, node):
            back.setdefault(way, []).append(node)
    free = _upstream(back, [None])
    found: list[list[Node]] = []
    blamed: set[Node | None] = set()
    for node, _step in nodes(flows):
        if node in free or node in blamed:
            continue
        part = list(reached(flows, [node]))
        found.append(part)
        blamed |= _upstream(back, part)
    return found


def _upstream(back: Mapping[Node | None, list[Node]], starts: Iterable[Node | None]) -> set[Node | None]:
    seen: set[Node | None] = set()
    waiting = list(starts)
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting.extend(back.get(node, ()))
    return seen


def dead_steps(flows: Flows, name: str) -> list[int]:
    """Indices of steps that no way from the flow's first step leads to; of a row of them only the first."""
    count = len(flows[name].steps)
    live = {0}
    for index in range(count):
        if index in live:
            live |= {way[1] for way in ways(flows, (name, index)) if way == (name, index + 1)}
    return [index for index in range(1, count) if index not in live and index - 1 in live]


def media_before(flows: Flows, entries: Iterable[str]) -> dict[Node, set[Media]]:
    """How far the call may be when each reachable step begins, for calls that enter at the given flows."""
    states: dict[Node, set[Media]] = {}
    waiting: list[tuple[Node, Media]] = [((name, 0), Media.RINGING) for name in entries if name in flows]
    while waiting:
        node, media = waiting.pop()
        if media in states.setdefault(node, set()):
            continue
        states[node].add(media)
        step = flows[node[0]].steps[node[1]]
        for branch in step.branches():
            way = after(flows, node, branch.target)
            if way is not None:
                waiting.extend((way, later) for later in media_after(step, branch.outcome, media))
    return states


def media_after(step: Step, outcome: str, media: Media) -> set[Media]:
    """What the call may be after a step: steps that need media answer a call that is still ringing."""
    if step.answers or outcome in step.answered_after or (step.needs_media and media is Media.RINGING):
        return {Media.ANSWERED}
    if isinstance(step, Early):
        return {max(media, Media.EARLY)}
    if isinstance(step, Bridge) and step.progress == "pass":
        return {media, max(media, Media.EARLY)}
    return {media}
