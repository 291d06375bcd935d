"""Mute, hold and announcements from outside: who hears whom in a bridge, in a room, and alone with the dialplan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sipserver.audio.frame import FRAME_SAMPLES, Samples
from sipserver.calls.commands import CallCommands, Json
from sipserver.calls.runner import Busy
from sipserver.errors import CallerError
from sipserver.events import (
    Bridged,
    CallMuted,
    CallOnHold,
    DigitReceived,
    Fault,
    RecordingStopped,
    Spoken,
    StepEntered,
    StepLeft,
)
from tests.calls.conftest import SPOKEN, Stage
from tests.calls.gathering import gathering
from tests.calls.parties import ThreeParties, apart, hear_each_other, three_parties
from tests.calls.test_conference import TEAM, joined, meet
from tests.fakes.leg import FakeLeg, breathe
from tests.fakes.virtual_time import virtual

BRIDGE = "  main: [{bridge: {to: 'sip:200@pbx', on: {answered: next, failed: end}}}, {wait: 60}]"
VOICE = np.full(FRAME_SAMPLES, 3000, np.int16)


async def ask(stage: Stage, verb: str, **arguments: object) -> Json:
    (registry,) = stage.registries
    (call_id, *_) = registry.calls
    return await CallCommands(registry).handle(verb, {"call": call_id, **arguments})


def plays_music(leg: FakeLeg) -> bool:
    """Whether the last frames that left were all sound."""
    return len(leg.played) > 5 and all(samples.any() for samples in leg.played[-5:])


async def bridged(three: ThreeParties) -> FakeLeg:
    three.begin(BRIDGE)
    party = await three.party()
    party.picks_up()
    await three.happens(lambda: three.records.of(Bridged))
    assert hear_each_other(three.leg, party)
    return party


def left_of(path: str) -> Samples:
    """What the caller said, by the recording."""
    return np.frombuffer(Path(path).read_bytes()[44:], np.int16).reshape(-1, 2)[:, 0]


@virtual
async def test_a_muted_caller_is_not_heard_and_hears(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        party = await bridged(three)
        await ask(three, "mute", on=True)
        assert party not in three.leg.feeds
        assert three.leg in party.feeds
        await ask(three, "mute", on=True)
        await ask(three, "mute", on=False)
        assert hear_each_other(three.leg, party)
        assert [event.muted for event in three.records.of(CallMuted)] == [True, False]


@virtual
async def test_a_call_on_hold_stays_joined(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        party = await bridged(three)
        await ask(three, "hold", on=True)
        assert apart(three.leg, party)
        await three.tick(10)
        assert plays_music(three.leg)
        assert not party.played[-1].any(), "the other one hears nothing"
        await ask(three, "hold", on=False)
        await three.tick(3)
        assert hear_each_other(three.leg, party)
        assert not three.leg.played[-1].any()
        assert [step.step for step in three.records.of(StepEntered)] == ["bridge"]
        assert [event.on for event in three.records.of(CallOnHold)] == [True, False]


@virtual
async def test_who_is_on_hold_when_the_other_one_goes_waits_on(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        party = await bridged(three)
        await ask(three, "hold", on=True)
        party.peer_leaves()
        await three.happens(lambda: three.records.of(StepEntered)[-1].step == "hold")
        await three.tick(10)
        assert plays_music(three.leg)
        await ask(three, "hold", on=False)
        await three.happens(lambda: three.records.of(StepEntered)[-1].step == "wait")


@virtual
async def test_alone_the_step_is_interrupted_and_begins_again(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.begin("  main: [answer, {wait: 60}, {wait: 1}]")
        await three.happens(lambda: [step.step for step in three.records.of(StepEntered)] == ["answer", "wait"])
        await ask(three, "hold", on=True)
        await three.tick(20)
        assert plays_music(three.leg)
        assert (await ask(three, "status"))["on_hold"]
        await ask(three, "hold", on=True)
        await ask(three, "hold", on=False)
        await three.tick(5)
        assert not three.leg.played[-1].any()
        assert [step.step for step in three.records.of(StepEntered)] == ["answer", "wait", "hold", "wait"]
        assert three.left() == [("answer", "done"), ("wait", "cancelled"), ("hold", "done")]


@virtual
async def test_a_caller_who_hangs_up_on_hold_ends_the_call(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.begin("  main: [answer, {wait: 60}]")
        await three.happens(lambda: len(three.records.of(StepEntered)) == 2)
        await ask(three, "hold", on=True)
        await three.tick(3)
        three.leg.peer_leaves()
        assert await three.over() == "caller_hangup"
        assert three.left()[-1] == ("hold", "cancelled")


@virtual
async def test_in_the_recording_a_muted_caller_is_silent_and_their_digits_count(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        call = three.begin("  main: [answer, record, {wait: 60}]")
        await three.happens(lambda: call.tape.running)
        await three.tick(50, caller=VOICE)
        await ask(three, "mute", on=True)
        await three.tick(50, caller=VOICE)
        three.leg.tell(DigitReceived(digit="5", method="rfc4733", duration_ms=100))
        assert len(call.digits) == 1
        await ask(three, "record", action="stop")
        sound = left_of(three.records.of(RecordingStopped)[0].path)
        assert np.count_nonzero(sound == VOICE[0]) >= 40 * FRAME_SAMPLES
        assert not sound[-40 * FRAME_SAMPLES :].any()


LONG = " ".join(["word"] * 25)
"""Half a second in the fake's voice."""


@virtual
async def test_what_is_said_to_a_joined_caller_parts_nobody(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        party = await bridged(three)
        await ask(three, "say", text=LONG)
        await three.tick(10)
        assert three.leg not in party.feeds, "the caller hears the announcement alone"
        assert party in three.leg.feeds, "the other one goes on hearing the caller"
        assert (three.leg.played[-1] == SPOKEN).all()
        assert not party.played[-1].any()
        with pytest.raises(Busy, match="already"):
            await ask(three, "play", file="acme/x.wav")
        await three.happens(lambda: three.left() == [("say", "done")])
        assert hear_each_other(three.leg, party)
        assert not party.gone
        assert [step.step for step in three.records.of(StepEntered)] == ["bridge", "say"]
        await ask(three, "say", text="Once more.")
        await three.happens(lambda: three.left() == [("say", "done")] * 2)
        party.peer_leaves()
        await three.happens(lambda: three.records.of(StepEntered)[-1].step == "wait")


@virtual
async def test_what_is_said_from_outside_is_not_kept_for_other_calls(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.begin("  main: [answer, {say: Welcome.}, {say: Welcome.}, {wait: 60}]")
        for count in (1, 2):
            await three.happens(lambda: [each.step for each in three.records.of(StepEntered)][-1:] == ["wait"])
            await ask(three, "say", text="Your balance is ten euro.")
            await three.happens(lambda: three.left().count(("say", "done")) == 2 + count)  # noqa: B023
        assert three.tts.texts == ["Welcome.", *["Your balance is ten euro."] * 2]


@virtual
async def test_an_announcement_takes_the_place_of_music_on_hold(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        party = await bridged(three)
        await ask(three, "hold", on=True)
        await three.tick(10)
        await ask(three, "say", text=LONG)
        await three.tick(10)
        assert all((samples == SPOKEN).all() for samples in three.leg.played[-5:])
        await three.happens(lambda: three.left() == [("say", "done")])
        await three.tick(10)
        assert plays_music(three.leg)
        assert not (three.leg.played[-1] == SPOKEN).all()
        assert apart(three.leg, party)
        await ask(three, "hold", on=False)
        assert hear_each_other(three.leg, party)


@virtual
async def test_an_announcement_that_fails_is_told_and_parts_nobody(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        (three.folder / "acme").mkdir()
        party = await bridged(three)
        await ask(three, "play", file="acme/is-not-there.wav")
        await three.happens(lambda: three.left() == [("play", "failed")])
        assert any("is-not-there" in fault.error for fault in three.records.of(Fault))
        assert hear_each_other(three.leg, party)


@virtual
async def test_a_caller_who_goes_in_an_announcement_ends_the_call(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        await bridged(three)
        await ask(three, "say", text=LONG)
        await three.tick(3)
        three.leg.peer_leaves()
        assert await three.over() == "caller_hangup"
        assert [(said.heard_ms, said.complete) for said in three.records.of(Spoken)] == [(60, False)]


@virtual
async def test_a_bridge_that_ends_in_an_announcement_lets_it_be_heard(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        party = await bridged(three)
        await ask(three, "say", text=LONG)
        await three.tick(3)
        party.peer_leaves()
        await three.happens(lambda: three.left() == [("bridge", "answered"), ("say", "done")])
        heard = sum(1 for samples in three.leg.played if (samples == SPOKEN).all())
        assert heard == len(LONG.split())
        await three.happens(lambda: three.records.of(StepEntered)[-1].step == "wait")
        told = [each.event for each in three.records.stamped if isinstance(each.event, StepEntered | StepLeft)]
        assert [event.step for event in told] == ["bridge", "say", "bridge", "say", "wait"], (
            "the flow waits for its end"
        )


@virtual
async def test_who_is_spoken_to_in_a_room_hears_nobody_else_and_is_heard(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        stage.plans(TEAM)
        ann, ben, cy = await meet(stage, "ann", "ben", "cy")
        await CallCommands(stage.all).handle("say", {"call": ben.call.id, "text": LONG})
        await stage.happens(lambda: not ben.hears)
        assert (ann.hears, cy.hears) == ({"ben", "cy"}, {"ann", "ben"})
        await stage.happens(lambda: ("say", "done") in ben.left)
        assert joined(ann, ben, cy)


@virtual
async def test_members_of_rooms(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        stage.plans(TEAM)
        ann, ben, cy = await meet(stage, "ann", "ben", "cy")
        assert joined(ann, ben, cy)
        commands = CallCommands(stage.all)
        await commands.handle("hold", {"call": ben.call.id, "on": True})
        assert (ann.hears, ben.hears, cy.hears) == ({"cy"}, set(), {"ann"})
        await commands.handle("hold", {"call": ben.call.id, "on": False})
        await commands.handle("mute", {"call": ben.call.id, "on": True})
        assert (ann.hears, ben.hears, cy.hears) == ({"cy"}, {"ann", "cy"}, {"ann", "cy"} - {"cy"})


async def test_digits_are_sent_and_told(stage: Stage) -> None:
    leg, call = stage.call("  main: [answer, {wait: 60}]")
    await stage.until(lambda: len(stage.records.of(StepEntered)) == 2, leg)
    await ask(stage, "digits", digits="12#", duration_ms=100)
    await breathe()
    assert [action for action in leg.actions if "digits" in action] == ["digits 12#"]
    for wrong in ("", "12x", "1" * 65):
        with pytest.raises(CallerError, match="digits"):
            await ask(stage, "digits", digits=wrong)
    assert call.answered


async def test_nothing_of_it_before_the_answer(stage: Stage) -> None:
    leg, _ = stage.call("  main: [{wait: 60}]")
    await stage.until(lambda: bool(stage.records.of(StepEntered)), leg)
    for verb, options in (("hold", {}), ("mute", {}), ("record", {}), ("digits", {"digits": "1"})):
        with pytest.raises(Busy):
            await ask(stage, verb, **options)


async def test_only_sounds_that_the_dialplan_offers_are_played(stage: Stage) -> None:
    (stage.folder / "acme").mkdir()
    leg, _ = stage.call("  main: [answer, {wait: 60}]")
    await stage.until(lambda: len(stage.records.of(StepEntered)) == 2, leg)
    for wrong in ("/etc/passwd", "acme/../secret.wav", "../acme/x.wav", "other/x.wav"):
        with pytest.raises(CallerError, match="offers no sound"):
            await ask(stage, "play", file=wrong)
    await ask(stage, "play", file="acme/is-not-there.wav")
    await stage.until(lambda: len(stage.records.of(StepEntered)) == 4, leg)
    assert any("is-not-there" in str(stamped.event) for stamped in stage.records.stamped)
