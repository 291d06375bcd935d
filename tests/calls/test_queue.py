"""Queues: who gets whom and when, and that nobody is lost, whoever goes in whatever state."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sipserver.audio import tones
from sipserver.calls.queues import RETRY_S
from sipserver.calls.states import EndReason
from sipserver.errors import CallerError
from sipserver.events import (
    Bridged,
    Fault,
    PartyEnded,
    QueueConnected,
    QueueEntered,
    QueueLeft,
    QueueOffered,
    QueueServed,
    Unbridged,
    VariableSet,
)
from tests.calls.gathering import Caller, Gathering, gathering
from tests.calls.test_conference import OtherLeg, channels, music
from tests.calls.test_steps import write_sound
from tests.fakes.leg import level
from tests.fakes.outbound import PlacedLeg
from tests.fakes.virtual_time import now_ns, virtual

FLOWS = """
  line: [{queue: {name: sales, music: music.wav, position_say_every_s: 0, max_wait_s: 100, exit: "*",
          on: {answered: bye, timeout: late, abandoned: early, full: no_room, empty: nobody, failed: sorry}}}]
  desk: [{serve: {queue: sales, music: music.wav, exit: "#", on: {done: bye}}}]
  bye: [hangup]
  late: [hangup]
  early: [hangup]
  no_room: [hangup]
  nobody: [hangup]
  sorry: [hangup]"""
AGENTS = "queues:\n  sales: {agents: ['201', '202'], strategy: in_order, ring_s: 10, wrapup_s: 5%s}"
DESKS = "queues:\n  sales: {wrapup_s: 5%s}"


def plan(stage: Gathering, head: str, more: str = "") -> None:
    write_sound(stage.folder / "music.wav", 50)
    stage.plans(FLOWS, head % more)


def talk(one: Caller, other: Caller) -> bool:
    return other.leg in one.leg.feeds and one.leg in other.leg.feeds


def talks_with(caller: Caller, agent: PlacedLeg) -> bool:
    return agent in caller.leg.feeds and caller.leg in agent.feeds


def called(stage: Gathering) -> list[str]:
    """Whom the queue called, in order."""
    return [order.to for order, _tenant in stage.placed.orders]


# --- agents who are called --------------------------------------------------------------------------------------------


@virtual
async def test_a_caller_waits_with_music_and_gets_the_agent_who_answers(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        plan(stage, AGENTS)
        ann = stage.calls("line", "ann")
        agent = await stage.placed.leg()
        assert called(stage) == ["201"]
        assert stage.placed.orders[0][0].from_user == "ann"
        agent.progress(180)
        await asyncio.sleep(5)
        assert music(ann) > 200
        agent.picks_up()
        await stage.happens(lambda: talks_with(ann, agent))
        played = music(ann)
        await asyncio.sleep(2)
        assert music(ann) == played
        assert not ann.leg.heard
        ann.hangs_up()
        await stage.over()
        assert agent.gone
        assert [(event.position, event.waiting) for event in ann.of(QueueEntered)] == [(1, 1)]
        assert [event.agent for event in ann.of(QueueOffered)] == ["201"]
        assert [event.waited_ms for event in ann.of(QueueConnected)] == [pytest.approx(5000, abs=100)]
        assert [(event.reason, event.waited_ms) for event in ann.of(QueueLeft)] == [
            ("answered", ann.of(QueueConnected)[0].waited_ms)
        ]
        assert [end.outcome for end in ann.of(PartyEnded)] == ["answered"]


@virtual
async def test_the_agent_hangs_up_and_the_caller_goes_on(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        plan(stage, AGENTS)
        ann = stage.calls("line")
        agent = await stage.placed.leg()
        agent.picks_up()
        await stage.happens(lambda: talks_with(ann, agent))
        agent.peer_leaves()
        await stage.over()
        assert ann.left == [("queue", "answered"), ("hangup", "done")]
        assert [event.reason for event in ann.of(Unbridged)] == ["party_hangup"]


@pytest.mark.parametrize("code", [486, 603, 480, 503])
def test_an_agent_who_does_not_answer_is_skipped_and_tried_later(tmp_path: Path, code: int) -> None:
    @virtual
    async def test() -> None:
        async with gathering(tmp_path) as stage:
            plan(stage, AGENTS)
            ann = stage.calls("line")
            (await stage.placed.leg(1)).refuses(code)
            second = await stage.placed.leg(2)
            assert called(stage) == ["201", "202"]
            refused_s = asyncio.get_running_loop().time()
            await asyncio.sleep(1)
            second.refuses(486)
            third = await stage.placed.leg(3)
            assert asyncio.get_running_loop().time() - refused_s == pytest.approx(RETRY_S, abs=0.5)
            assert called(stage)[2] == "201"
            third.picks_up()
            await stage.happens(lambda: talks_with(ann, third))
            assert len(ann.of(PartyEnded)) == 2

    test()


@virtual
async def test_an_agent_rings_no_longer_than_ring_s(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        plan(stage, AGENTS)
        ann = stage.calls("line")
        first = await stage.placed.leg()
        first.progress(180)
        began_s = asyncio.get_running_loop().time()
        second = await stage.placed.leg(2)
        assert asyncio.get_running_loop().time() - began_s == pytest.approx(10, abs=0.5)
        assert first.gone
        second.picks_up()
        await stage.happens(lambda: talks_with(ann, second))
        assert [end.outcome for end in ann.of(PartyEnded)] == ["no_answer"]


@virtual
async def test_callers_are_served_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        plan(stage, AGENTS)
        ann, ben, cy = (stage.calls("line", name) for name in ("ann", "ben", "cy"))
        one, two = await stage.placed.leg(1), await stage.placed.leg(2)
        assert [event.position for caller in (ann, ben, cy) for event in caller.of(QueueEntered)] == [1, 2, 3]
        assert (len(ann.of(QueueOffered)), len(ben.of(QueueOffered)), len(cy.of(QueueOffered))) == (1, 1, 0)
        one.refuses(486)  # ann's: she is still the first, and gets whoever is free first
        two.picks_up()
        await stage.happens(lambda: talks_with(ben, two))
        dee = stage.calls("line", "dee")
        three = await stage.placed.leg(3)
        assert len(ann.of(QueueOffered)) == 2
        three.picks_up()
        await stage.happens(lambda: talks_with(ann, three))
        ben.hangs_up()
        four = await stage.placed.leg(4)
        four.picks_up()
        await stage.happens(lambda: talks_with(cy, four))
        assert not dee.of(QueueOffered)


@virtual
async def test_an_agent_has_a_pause_after_each_call(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        plan(stage, AGENTS.replace("'201', '202'", "'201'"))
        ann = stage.calls("line", "ann")
        (await stage.placed.leg()).picks_up()
        await stage.happens(lambda: ann.of(QueueConnected))
        ben = stage.calls("line", "ben")
        await asyncio.sleep(20)
        assert len(stage.placed.legs) == 1
        ann.hangs_up()
        over_s = asyncio.get_running_loop().time()
        (await stage.placed.leg(2)).picks_up()
        assert asyncio.get_running_loop().time() - over_s == pytest.approx(5, abs=0.5)
        await stage.happens(lambda: ben.of(QueueConnected))


@virtual
async def test_the_longest_idle_agent_is_next(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        plan(stage, AGENTS.replace("in_order", "longest_idle"))
        for number, expected in enumerate(["201", "202", "201", "202"], 1):
            caller = stage.calls("line")
            agent = await stage.placed.leg(number)
            assert called(stage)[-1] == expected
            agent.picks_up()
            await stage.happens(lambda caller=caller: caller.of(QueueConnected))  # type: ignore[misc]
            caller.hangs_up()
            await stage.over()
            await asyncio.sleep(20)


@virtual
async def test_of_all_who_are_rung_the_first_to_answer_has_the_call(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        plan(stage, AGENTS.replace("in_order", "all"))
        ann = stage.calls("line")
        one, two = await stage.placed.leg(1), await stage.placed.leg(2)
        two.picks_up()
        await stage.happens(lambda: talks_with(ann, two))
        await stage.happens(lambda: one.gone)
        assert not talks_with(ann, one)
        ben = stage.calls("line")  # the one who was not needed is free at once
        three = await stage.placed.leg(3)
        assert called(stage) == ["201", "202", "201"]
        three.picks_up()
        await stage.happens(lambda: talks_with(ben, three))
        ann.hangs_up()
        await stage.happens(lambda: two.gone)
        assert sorted(end.outcome for end in ann.of(PartyEnded)) == ["answered", "no_answer"]


@virtual
async def test_both_answer_at_once_and_one_is_hung_up(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        plan(stage, AGENTS.replace("in_order", "all"))
        ann = stage.calls("line")
        one, two = await stage.placed.leg(1), await stage.placed.leg(2)
        one.picks_up()
        two.picks_up()
        await stage.happens(lambda: ann.of(QueueConnected))
        await stage.happens(lambda: one.gone or two.gone)
        assert [talks_with(ann, each) for each in (one, two)] in ([True, False], [False, True])
        assert len(ann.of(Bridged)) == 1


@virtual
async def test_an_agent_whom_no_trunk_carries_is_no_agent(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        plan(stage, AGENTS)
        stage.placed.refuses = CallerError("no trunk carries it")
        ann = stage.calls("line")
        await stage.over()
        assert ann.left[0] == ("queue", "timeout")
        assert {fault.where for fault in ann.of(Fault)} == {"queue"}
        assert len(ann.of(Fault)) == pytest.approx(20, abs=3)


@virtual
async def test_a_caller_in_early_media_is_answered_when_the_agent_is(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        write_sound(tmp_path / "music.wav", 50)
        stage.plans(FLOWS.replace("line: [", "line: [early, "), AGENTS % "")
        ann = stage.calls("line")
        agent = await stage.placed.leg()
        await asyncio.sleep(2)
        assert ann.leg.actions == ["early"]
        assert music(ann) > 50
        agent.picks_up()
        await stage.happens(lambda: talks_with(ann, agent))
        assert ann.leg.actions == ["early", "answer"]


# --- agents who have dialled in ---------------------------------------------------------------------------------------


async def at_desk(stage: Gathering, user: str) -> Caller:
    agent = stage.calls("desk", user)
    await stage.happens(lambda: music(agent))
    return agent


@virtual
async def test_an_agent_who_has_dialled_in_gets_one_caller_after_the_other(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        plan(stage, DESKS)
        eve = await at_desk(stage, "eve")
        ann = stage.calls("line", "ann")
        await stage.happens(lambda: talk(ann, eve))
        ben = stage.calls("line", "ben")
        await asyncio.sleep(10)
        comes = tones.tone((440,), 150, (-22.0,))[: 7 * 320]
        assert comes.tobytes() in eve.heard_sound().tobytes()
        played = music(eve)
        assert not ben.of(QueueOffered)
        ann.hangs_up()
        gone_s = asyncio.get_running_loop().time()
        await stage.happens(lambda: talk(ben, eve))
        assert asyncio.get_running_loop().time() - gone_s == pytest.approx(5, abs=0.3)
        assert music(eve) > played + 200
        assert ann.hears == set()
        assert [(event.agent, event.call) for event in ann.of(QueueConnected)] == [("eve", eve.call.id)]
        assert [(event.agent, event.call) for event in eve.of(QueueConnected)] == [
            ("ann", ann.call.id),
            ("ben", ben.call.id),
        ]
        assert [event.call for event in eve.of(QueueServed)] == [ann.call.id]
        eve.hangs_up()
        await stage.over()
        assert ben.left == [("queue", "answered"), ("hangup", "done")]
        assert [event.reason for event in ben.of(Unbridged)] == ["party_hangup"]


@virtual
async def test_who_waits_gets_the_agent_who_dials_in(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        plan(stage, AGENTS)
        ann, ben, cy = (stage.calls("line", name) for name in ("ann", "ben", "cy"))
        one = await stage.placed.leg(1)
        await stage.placed.leg(2)
        one.progress(180)
        eve = stage.calls("desk", "eve")
        await stage.happens(lambda: talk(ann, eve))
        assert one.gone, "nobody is needed for ann any more"
        assert not cy.of(QueueConnected)
        three = await stage.placed.leg(3)
        three.picks_up()
        await stage.happens(lambda: talks_with(cy, three))
        assert not ben.of(QueueConnected)
        assert [end.outcome for end in ann.of(PartyEnded)] == ["no_answer"]


@virtual
async def test_of_several_the_one_who_is_idle_longest_is_next(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        plan(stage, DESKS)
        eve, fay = await at_desk(stage, "eve"), await at_desk(stage, "fay")
        ann = stage.calls("line")
        await stage.happens(lambda: talk(ann, eve))
        ann.hangs_up()
        await asyncio.sleep(20)
        ben = stage.calls("line")
        await stage.happens(lambda: talk(ben, fay))
        assert not talk(ben, eve)


@virtual
async def test_the_key_ends_serving_between_two_callers_only(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        plan(stage, DESKS)
        eve = await at_desk(stage, "eve")
        ann = stage.calls("line")
        await stage.happens(lambda: talk(ann, eve))
        eve.leg.press("#")
        await asyncio.sleep(2)
        assert talk(ann, eve)
        assert "digits #" in ann.leg.actions
        ann.hangs_up()
        await asyncio.sleep(1)
        eve.leg.press("1#")
        await stage.over()
        assert eve.left == [("serve", "done"), ("hangup", "done")]


@virtual
async def test_an_agent_whose_call_is_ended_lets_the_caller_go_on(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        plan(stage, DESKS)
        eve = await at_desk(stage, "eve")
        ann = stage.calls("line")
        await stage.happens(lambda: talk(ann, eve))
        eve.leg.silent_hangup = True
        eve.call.end(EndReason.OPERATOR_HANGUP)
        await stage.happens(lambda: ann.left)
        assert ann.left[0] == ("queue", "answered")
        await stage.over()
        assert [event.call for event in eve.of(QueueServed)] == [ann.call.id]


@virtual
async def test_an_agent_who_goes_as_they_are_given_a_caller_costs_the_caller_nothing(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        write_sound(tmp_path / "music.wav", 50)
        stage.plans(FLOWS.replace("line: [", "line: [early, "), DESKS % "")
        eve = await at_desk(stage, "eve")
        ann = stage.calls("line", "ann")
        ann.leg.slow_answer = True
        await stage.happens(lambda: "answer" in ann.leg.actions)
        eve.hangs_up()
        await asyncio.sleep(1)
        ann.leg.go_on.set()
        await asyncio.sleep(3)
        assert ann.of(QueueConnected) == []
        assert not ann.left[1:]
        fay = stage.calls("desk", "fay")
        await stage.happens(lambda: talk(ann, fay))
        assert [event.position for event in ann.of(QueueEntered)] == [1]


@virtual
async def test_both_recordings_have_both_voices(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        write_sound(tmp_path / "music.wav", 50)
        stage.plans(FLOWS.replace("line: [", "line: [record, ").replace("desk: [", "desk: [record, "), DESKS % "")
        eve = await at_desk(stage, "eve")
        ann = stage.calls("line")
        await stage.happens(lambda: talk(ann, eve))
        ann.said, eve.said = level(11), level(22)
        await asyncio.sleep(2)
        ann.hangs_up()
        eve.hangs_up()
        await stage.over()
        for caller, said, heard in ((ann, 11, 22), (eve, 22, 11)):
            (path,) = stage.recorder.folder.rglob(f"{caller.call.id}.wav")
            left, right = channels(path)
            both = (left == said) & (right == heard)
            assert both.sum() > 30_000


# --- how callers leave ------------------------------------------------------------------------------------------------


@virtual
async def test_waiting_has_an_end(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        plan(stage, AGENTS)
        ann = stage.calls("line")
        await stage.over()
        assert ann.left[0] == ("queue", "timeout")
        (left,) = ann.of(QueueLeft)
        assert (left.reason, left.waited_ms) == ("timeout", pytest.approx(100_000, abs=500))
        assert all(leg.gone for leg in stage.placed.legs)


@virtual
async def test_a_conversation_may_last_longer_than_the_longest_wait(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        plan(stage, AGENTS)
        ann = stage.calls("line")
        agent = await stage.placed.leg()
        agent.picks_up()
        await asyncio.sleep(300)
        assert talks_with(ann, agent)


@pytest.mark.parametrize("rings", [True, False])
def test_the_key_takes_the_caller_out(tmp_path: Path, rings: bool) -> None:
    @virtual
    async def test() -> None:
        async with gathering(tmp_path) as stage:
            plan(stage, AGENTS)
            ann = stage.calls("line")
            agent = await stage.placed.leg()
            if not rings:
                agent.refuses(486)
                (await stage.placed.leg(2)).refuses(486)
            await asyncio.sleep(1)
            ann.leg.press("1*")
            await stage.over()
            assert ann.left[0] == ("queue", "abandoned")
            assert [event.reason for event in ann.of(QueueLeft)] == ["abandoned"]
            assert agent.gone

    test()


@pytest.mark.parametrize("state", ["ringing", "waiting", "talking", "answering"])
def test_a_caller_may_hang_up_in_every_state(tmp_path: Path, state: str) -> None:
    @virtual
    async def test() -> None:
        async with gathering(tmp_path) as stage:
            write_sound(tmp_path / "music.wav", 50)
            flows = FLOWS.replace("line: [", "line: [early, ") if state == "answering" else FLOWS
            stage.plans(flows, AGENTS % "")
            ann = stage.calls("line", "ann")
            agent = await stage.placed.leg()
            match state:
                case "waiting":
                    agent.refuses(486)
                    (await stage.placed.leg(2)).refuses(486)
                case "talking":
                    agent.picks_up()
                    await stage.happens(lambda: talks_with(ann, agent))
                case "answering":
                    ann.leg.slow_answer = True
                    agent.picks_up()
                    await stage.happens(lambda: "answer" in ann.leg.actions)
            await asyncio.sleep(1)
            ann.hangs_up()
            ann.leg.go_on.set()
            await stage.over()
            assert ann.left[-1] == ("queue", "cancelled")
            assert [event.reason for event in ann.of(QueueLeft)] == ["answered" if state == "talking" else "hangup"]
            assert agent.gone
            assert stage.all.services.queues.waiting() == {}
            ben = stage.calls("line", "ben")  # the agents are there for the next one
            await stage.happens(lambda: ben.of(QueueOffered))

    test()


@virtual
async def test_a_full_queue_says_so(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        plan(stage, AGENTS, ", max: 2")
        for _ in range(2):
            stage.calls("line")
        await asyncio.sleep(1)
        cy = stage.calls("line")
        await stage.happens(lambda: cy.left)
        assert cy.left[0] == ("queue", "full")


@virtual
async def test_a_queue_that_nobody_serves_is_empty(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        plan(stage, DESKS)
        ann = stage.calls("line")
        await stage.over()
        assert ann.left[0] == ("queue", "empty")


@virtual
async def test_a_process_that_drains_ends_those_who_wait(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        plan(stage, AGENTS)
        ann, eve = stage.calls("line"), stage.calls("desk")
        ben = stage.calls("line")
        await stage.happens(lambda: talk(ann, eve))
        await stage.all.drain(5)
        assert [caller.left[-1][1] for caller in (ann, ben, eve)] == ["cancelled"] * 3
        assert stage.all.services.queues.waiting() == {}


@virtual
async def test_an_agent_whose_leg_is_of_another_kind_serves(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        plan(stage, DESKS)
        eve = stage.calls("desk", "eve", OtherLeg(clock=now_ns))
        await stage.happens(lambda: music(eve))
        ann = stage.calls("line")
        await stage.happens(lambda: talk(ann, eve))


# --- what is heard and told -------------------------------------------------------------------------------------------


@virtual
async def test_the_position_is_said_again_and_again_between_music(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        write_sound(tmp_path / "music.wav", 50)
        said = "position_say: 'You are number {position}.', position_say_every_s: 10"
        stage.plans(FLOWS.replace("position_say_every_s: 0", said), AGENTS.replace("'201', '202'", "'201'") % "")
        ann, ben = stage.calls("line", "ann"), stage.calls("line", "ben")
        agent = await stage.placed.leg()
        await asyncio.sleep(9)
        agent.picks_up()
        await asyncio.sleep(26)
        texts = [each.value for each in ben.of(VariableSet) if each.name == "position"]
        assert texts == ["2", "1", "1", "1"]
        assert stage.tts.texts.count("You are number 2.") == 1
        assert music(ben) > 1000
        assert len([each for each in ann.of(VariableSet) if each.name == "position"]) == 1


@virtual
async def test_a_position_that_cannot_be_said_leaves_the_music(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        stage.tts.broken = True
        write_sound(tmp_path / "music.wav", 50)
        stage.plans(FLOWS.replace("position_say_every_s: 0", "position_say_every_s: 10"), AGENTS % "")
        ann = stage.calls("line")
        await asyncio.sleep(5)
        assert music(ann) > 200
        assert [fault.where for fault in ann.of(Fault)] == ["queue"]


@virtual
async def test_gauges_tell_who_waits_and_how_long(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        plan(stage, AGENTS)
        queues = stage.all.services.queues
        assert (queues.waiting(), queues.longest_wait_s()) == ({}, {})
        stage.calls("line")
        await asyncio.sleep(2)
        stage.calls("line")
        await asyncio.sleep(1)
        assert queues.waiting() == {"sales": 2}
        assert queues.longest_wait_s() == {"sales": pytest.approx(3, abs=0.1)}
