"""Whatever callers, agents and members do at whatever moment: nobody talks with two, and nothing is left behind."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from sipserver.calls.states import EndReason
from sipserver.events import (
    ConferenceJoined,
    ConferenceLeft,
    Fault,
    QueueConnected,
    QueueEntered,
    QueueLeft,
    QueueServed,
)
from tests.calls.gathering import Caller, Gathering, gathering
from tests.calls.test_steps import write_sound
from tests.fakes.virtual_time import virtual

FLOWS = """
  line: [{queue: {name: sales, music: music.wav, position_say_every_s: 7, max_wait_s: 60, exit: "*",
          on: {failed: end}}}]
  soft: [early, {queue: {name: sales, max_wait_s: 40, on: {failed: end}}}]
  desk: [record, {serve: {queue: sales, music: music.wav, exit: "#"}}]
  team: [{conference: {room: team, max: 4, music: music.wav, announce: '{from} is here.', on: {failed: end}}}]
  taped: [{conference: {room: team, record: true, on: {failed: end}}}]
  lead: [{conference: {room: team, moderator: true, on: {failed: end}}}]"""


def alive(stage: Gathering) -> list[Caller]:
    return [caller for caller in stage.callers if not caller.leg.gone]


def act(chance: random.Random, stage: Gathering, flows: list[str]) -> None:
    """One thing that somebody does."""
    callers, legs = alive(stage), [leg for leg in stage.placed.legs if not leg.gone]
    match chance.choice(["call", "call", "go", "press", "answer", "refuse", "leave", "kill"]):
        case "call":
            if len(callers) < 9:
                caller = stage.calls(chance.choice(flows))
                caller.leg.slow_answer = chance.random() < 0.2
                if caller.leg.slow_answer:
                    asyncio.get_running_loop().call_later(chance.random() * 3, caller.leg.go_on.set)
        case "go" if callers:
            chance.choice(callers).hangs_up()
        case "press" if callers:
            chance.choice(callers).leg.press(chance.choice(["*", "#", "*6", "1"]))
        case "answer" if ringing := [leg for leg in legs if not leg.answered]:
            chance.choice(ringing).picks_up()
        case "refuse" if ringing := [leg for leg in legs if not leg.answered]:
            chance.choice(ringing).refuses(chance.choice([486, 503, 603]))
        case "leave" if talking := [leg for leg in legs if leg.answered]:
            chance.choice(talking).peer_leaves()
        case "kill" if stage.all.calls:
            chance.choice(list(stage.all.calls.values())).end(EndReason.OPERATOR_HANGUP)
        case _:
            pass


def check(stage: Gathering) -> None:
    """In a queue nobody hears two at once. Whoever hears somebody is heard by them."""
    legs = [*(caller.leg for caller in stage.callers), *stage.placed.legs]
    for caller in stage.callers:
        if caller.leg.offer.to_user in ("line", "soft", "desk"):
            fed = [leg for leg in caller.leg.feeds if not leg.gone]
            assert len(fed) <= 1
            assert all(caller.leg in leg.feeds for leg in fed)
    for room in stage.all.services.rooms:
        members = {member.call.leg for member in room.members}
        assert all(leg.feeds <= members for leg in legs if leg in members)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens(tmp_path: Path, seed: int) -> None:
    @virtual
    async def test() -> None:
        chance = random.Random(seed)
        async with gathering(tmp_path) as stage:
            write_sound(tmp_path / "music.wav", 50)
            strategy = chance.choice(["all", "in_order", "longest_idle"])
            stage.plans(
                FLOWS, f"queues:\n  sales: {{agents: ['201', '202'], strategy: {strategy}, ring_s: 8, wrapup_s: 2}}"
            )
            flows = ["line", "soft", "desk"] if seed % 2 else ["team", "taped", "lead"]
            for _ in range(100):
                act(chance, stage, flows)
                await asyncio.sleep(chance.choice([0, 0, 0.02, 0.5, 3]))
                check(stage)
            for caller in alive(stage):
                caller.hangs_up()
            await stage.happens(lambda: not stage.all.calls, within_s=60)
            await asyncio.sleep(30)
            assert stage.all.services.queues.waiting() == {}
            for to in ("201", "202"):
                agent = stage.all.services.queues.agent("acme", to)
                assert not agent.busy
                assert not agent.rests
            for caller in stage.callers:
                assert len(caller.of(QueueEntered)) == len(caller.of(QueueLeft)) <= 1
                assert len(caller.of(ConferenceJoined)) == len(caller.of(ConferenceLeft)) <= 1
                if caller.leg.offer.to_user == "desk":
                    assert len(caller.of(QueueConnected)) == len(caller.of(QueueServed))
                else:
                    assert len(caller.of(QueueConnected)) <= 1
            faults = [
                fault for fault in stage.records.of(Fault) if fault.where in ("dialplan", "event", "call", "media")
            ]
            assert faults == []

    test()
