"""Whatever happens to a call with further parties in whatever order: each party ends once, and nothing is left."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from sipserver import events
from sipserver.calls.states import EndReason
from sipserver.errors import CapacityError, CarrierError
from tests.calls.parties import ThreeParties, three_parties
from tests.fakes.leg import FakeLeg, breathe
from tests.fakes.outbound import PlacedLeg
from tests.fakes.virtual_time import virtual

FLOWS = """
  main:
    - collect: {digits: 1, timeout_s: 0.1, on: {"1": bridge, "2": blind, "3": warm, none: attended, other: local}}
  bridge:
    - bridge: {to: "200", ring_s: 3, record: true, max_s: 20, on: {answered: main, failed: main, busy: main}}
    - goto: main
  local: [record, {bridge: {to: "200", ring_s: 3, progress: local, music: moh.wav, on: {failed: main}}}, {goto: main}]
  blind: [{transfer: {to: "200", mode: blind, ring_s: 3, on: {failed: main}}}, {goto: main}]
  attended: [{transfer: {to: "200", ring_s: 3, music: moh.wav, on: {failed: main, answered: main}}}, {goto: main}]
  warm:
    - transfer: {to: "200", mode: warm, announce: One two., ring_s: 3, accept_s: 2, on: {failed: main}}
    - goto: main
"""


def happen(chance: random.Random, three: ThreeParties) -> None:
    """Something that could come at any moment, from either side."""
    legs = [leg for leg in three.placed.legs if not leg.gone]
    if legs and chance.random() < 0.6:
        party = chance.choice(legs)
        anybody(chance, party) if party.answered and chance.random() < 0.8 else far_end(chance, party)
    elif not three.leg.gone:
        anybody(chance, three.leg) if chance.random() < 0.8 else caller(chance, three)


def anybody(chance: random.Random, leg: FakeLeg) -> None:
    match chance.randrange(7):
        case 0 | 1:
            leg.press(chance.choice("123456"))
        case 2:
            leg.tell(events.LegHeld())
        case 3:
            leg.tell(events.LegResumed())
        case 4:
            leg.tell(events.MediaStalled(silent_ms=chance.choice([5, 5, 29_990])))
        case 5:
            leg.tell(events.MediaRecovered(silent_ms=10))
        case _:
            pass


def far_end(chance: random.Random, leg: PlacedLeg) -> None:
    """What only somebody does whom we have called."""
    if leg.answered:
        leg.peer_leaves()
    elif chance.random() < 0.5:
        leg.picks_up()
    elif chance.random() < 0.6:
        leg.progress(chance.choice([180, 183]), media=chance.random() < 0.5)
    else:
        leg.refuses(chance.choice([0, 302, 404, 486, 503, 603]))


def caller(chance: random.Random, three: ThreeParties) -> None:
    """What only comes from the caller's side, or from us."""
    if three.leg.refers:
        answers: list[int | Exception] = [200, 486, CarrierError("refused", 603)]
        three.leg.referred(chance.choice(answers))
    elif chance.random() < 0.5:
        three.tts.broken = chance.random() < 0.3
    elif chance.random() < 0.05:
        three.alive.end(EndReason.OPERATOR_HANGUP)
    elif chance.random() < 0.1:
        three.leg.peer_leaves()


@pytest.mark.parametrize("seed", range(60))
@virtual
async def test_each_party_ends_once_and_nothing_is_left(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    async with three_parties(tmp_path, *(("one", "two") if seed % 2 else ("one",))) as three:
        three.sound("moh.wav", 777, frames=3)
        three.leg.slow_refer = chance.random() < 0.7
        three.placed.fails = [chance.choice([None, None, CapacityError("full")]) for _ in range(6)]
        three.begin(FLOWS)
        for _ in range(400):
            happen(chance, three)
            await breathe(chance.randrange(4))
            await asyncio.sleep(chance.choice([0, 0.001, 0.05]))
            if not three.lives():
                break
        three.alive.end(EndReason.OPERATOR_HANGUP)
        await three.over()
        records = three.records
        assert records.reason != "internal_error"
        dialled = {event.party for event in records.of(events.PartyDialed)}
        ended = [event.party for event in records.of(events.PartyEnded)]
        assert len(ended) == len(set(ended))
        assert dialled <= set(ended)
        assert len(records.of(events.Bridged)) == len(records.of(events.Unbridged))
        assert len(records.of(events.TransferStarted)) == len(records.of(events.TransferEnded))
        assert len(records.of(events.StepEntered)) == len(records.of(events.StepLeft))
        assert len(records.of(events.RecordingStarted)) == len(records.of(events.RecordingStopped))
