"""Loops, dead steps and the state of the call, compared with what plain search says about random flows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sipserver.dialplan import graph
from sipserver.dialplan.graph import Flows, Media, Node
from sipserver.dialplan.plan import Flow
from sipserver.dialplan.steps import (
    Answer,
    Bridge,
    Early,
    Echo,
    Goto,
    Hangup,
    Say,
    Step,
    Transfer,
    Voicemail,
    Wait,
    When,
)

NAMES = ["a", "b", "c", "d"]
_TARGET = st.sampled_from([*NAMES, "next", "end"])
_STEP: st.SearchStrategy[Step] = st.one_of(
    st.just(Answer()),
    st.just(Wait(seconds=1)),
    st.just(Hangup()),
    st.builds(lambda flow: Goto(flow=flow), st.sampled_from(NAMES)),
    st.builds(
        lambda one, two: When.model_validate({"var": "x", "is": "1", "then": one, "else": two}), _TARGET, _TARGET
    ),
    st.builds(lambda one, two: Say(text="x", on={"done": one, "failed": two}), _TARGET, _TARGET),
)
_FLOWS = st.fixed_dictionaries({name: st.lists(_STEP, min_size=1, max_size=3) for name in NAMES})


def flows(steps: dict[str, list[Step]]) -> Flows:
    return {name: Flow(name, tuple(of), tuple(range(1, len(of) + 1))) for name, of in steps.items()}


def search(given_flows: Flows, start: Node, *, quick: bool) -> set[Node | None]:
    """Everything after a node, itself only if a way leads back. quick: only through steps that take no time."""
    seen: set[Node | None] = set()
    waiting = [start]
    while waiting:
        node = waiting.pop()
        if quick and given_flows[node[0]].steps[node[1]].waits:
            continue
        for way in graph.ways(given_flows, node):
            if way not in seen:
                seen.add(way)
                if way is not None:
                    waiting.append(way)
    return seen


@given(_FLOWS)
def test_a_spin_is_found_exactly_where_there_is_one(steps: dict[str, list[Step]]) -> None:
    some = flows(steps)
    spinning = {node for node, step in graph.nodes(some) if not step.waits and node in search(some, node, quick=True)}
    found = graph.spins(some)
    assert bool(found) == bool(spinning)
    for circle in found:
        assert set(circle) <= spinning
        for node, following in zip(circle, [*circle[1:], circle[0]], strict=True):
            assert following in graph.ways(some, node)


@given(_FLOWS)
def test_a_trap_is_found_exactly_where_there_is_one(steps: dict[str, list[Step]]) -> None:
    some = flows(steps)
    trapped = {node for node, _step in graph.nodes(some) if None not in search(some, node, quick=False)}
    found = graph.traps(some)
    assert bool(found) == bool(trapped)
    assert all(set(part) <= trapped for part in found)
    blamed = {node for part in found for node in part}
    assert all(search(some, node, quick=False) & blamed for node in trapped)


@given(_FLOWS)
def test_dead_steps_are_those_that_no_call_reaches(steps: dict[str, list[Step]]) -> None:
    some = flows(steps)
    entered = graph.reached(some, [(name, 0) for name in NAMES])
    for name in NAMES:
        for index in graph.dead_steps(some, name):
            assert (name, index) not in entered
        if not graph.dead_steps(some, name):
            assert all((name, index) in entered for index in range(len(some[name].steps)))


def test_the_state_of_the_call_before_each_step() -> None:
    both = When.model_validate({"var": "x", "set": True, "then": "b"})
    some = flows({"a": [both, Early(), Say(text="x"), Goto(flow="b")], "b": [Echo(), Echo()], "c": [Echo()]})
    assert graph.media_before(some, ["a", "missing"]) == {
        ("a", 0): {Media.RINGING},
        ("a", 1): {Media.RINGING},
        ("a", 2): {Media.EARLY},
        ("a", 3): {Media.EARLY},
        ("b", 0): {Media.RINGING, Media.EARLY},
        ("b", 1): {Media.EARLY, Media.ANSWERED},
    }
    assert graph.media_after(Early(), "done", Media.ANSWERED) == {Media.ANSWERED}
    assert graph.media_after(Answer(), "done", Media.EARLY) == {Media.ANSWERED}


def test_a_bridge_answers_the_call_when_the_other_side_answers() -> None:
    there = {"answered": "b", "failed": "c", "busy": "c", "no_answer": "c", "declined": "c"}
    for progress, unreached in (("pass", {Media.RINGING, Media.EARLY}), ("local", {Media.RINGING})):
        bridge = Bridge.model_validate({"to": "1", "progress": progress, "on": there})
        before = graph.media_before(flows({"a": [bridge], "b": [Echo()], "c": [Echo()]}), ["a"])
        assert before["b", 0] == {Media.ANSWERED}
        assert before["c", 0] == unreached


def test_a_transfer_and_voicemail_answer_also_out_of_early_media() -> None:
    for step in (Transfer.model_validate({"to": "1", "on": {"failed": "end"}}), Voicemail(box="1")):
        for outcome in step.outcomes:
            assert graph.media_after(step, outcome, Media.EARLY) == {Media.ANSWERED}
