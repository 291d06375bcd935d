"""Rooms: who hears whom, who gets in, who has to leave, and what the record and the recording say."""

from __future__ import annotations

import asyncio
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sipserver.calls.commands import CallCommands
from sipserver.calls.conference import NoMember, Rooms, sound
from sipserver.events import ConferenceJoined, ConferenceLeft, ConferenceMuted, Fault, LegHeld, LegResumed
from tests.calls.gathering import Caller, Gathering, gathering
from tests.calls.test_steps import write_sound
from tests.fakes.leg import FakeLeg, breathe, level
from tests.fakes.virtual_time import virtual

TEAM = "  team: [{conference: {room: team, on: {failed: sorry, full: sorry}}}]\n  sorry: [{hangup: 500}]"


def joined(*callers: Caller) -> bool:
    return all(caller.of(ConferenceJoined) for caller in callers)


async def meet(stage: Gathering, *users: str, to: str = "team") -> list[Caller]:
    """They come one after the other."""
    came = []
    for user in users:
        came.append(stage.calls(to, user))
        await stage.happens(lambda: joined(came[-1]))
    return came


def plays(caller: Caller, name: str) -> bool:
    """Whether a sound of the room was played to the caller, sample for sample."""
    return caller.heard_sound().tobytes().find(sound(name).tobytes()) >= 0


@virtual
async def test_everybody_hears_everybody_else_and_nobody_themselves(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        stage.plans(TEAM)
        ann, ben, cy = await meet(stage, "ann", "ben", "cy")
        assert (ann.hears, ben.hears, cy.hears) == ({"ben", "cy"}, {"ann", "cy"}, {"ann", "ben"})
        assert not any(caller.leg.heard for caller in (ann, ben, cy)), "no Python in the path"
        assert [event.members for caller in (ann, ben, cy) for event in caller.of(ConferenceJoined)] == [1, 2, 3]
        ben.hangs_up()
        await stage.happens(lambda: len(stage.all.calls) == 2)
        assert (ann.hears, ben.hears, cy.hears) == ({"cy"}, set(), {"ann"})
        assert [(left.reason, left.members) for left in ben.of(ConferenceLeft)] == [("hangup", 2)]
        assert ben.left == [("conference", "cancelled")]


@virtual
async def test_rooms_and_tenants_are_apart(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        stage.plans(
            "  one: [{conference: {room: '{to}', on: {failed: end}}}]\n"
            "  two: [{conference: {room: '{to}', on: {failed: end}}}]"
        )
        ann, ben = await meet(stage, "ann", "ben", to="one")
        (cy,) = await meet(stage, "cy", to="two")
        assert (ann.hears, ben.hears, cy.hears) == ({"ben"}, {"ann"}, set())
        assert sorted(room.name for room in stage.all.services.rooms) == ["one", "two"]


@virtual
async def test_who_comes_and_goes_is_told_by_tones(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        stage.plans(TEAM)
        ann, ben = await meet(stage, "ann", "ben")
        await asyncio.sleep(0.5)
        assert plays(ann, "joined")
        assert plays(ben, "joined")
        ben.hangs_up()
        await asyncio.sleep(0.5)
        assert plays(ann, "left")
        assert not plays(ben, "left")


@virtual
async def test_an_announcement_is_said_to_the_others(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        stage.plans("  team: [{conference: {room: team, announce: '{from} is here.', on: {failed: end}}}]")
        ann, ben = await meet(stage, "ann", "ben")
        await asyncio.sleep(0.5)
        assert stage.tts.texts == ["ann is here.", "ben is here."]
        assert sum(bool((samples == 5000).all()) for samples in ann.leg.played) == 3
        assert not any((samples == 5000).all() for samples in ben.leg.played)


@virtual
async def test_an_announcement_that_cannot_be_said_is_a_tone(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        stage.tts.broken = True
        stage.plans("  team: [{conference: {room: team, announce: Somebody came., on: {failed: end}}}]")
        ann, ben = await meet(stage, "ann", "ben")
        await asyncio.sleep(0.5)
        assert plays(ann, "joined")
        assert [fault.where for fault in ben.of(Fault)] == ["conference"]
        assert ann.hears == {"ben"}


# --- who gets in ------------------------------------------------------------------------------------------------------

SECRET = """
  team: [{conference: {room: team, pin: '4711', on: {wrong_pin: wrong, failed: end}}}]
  wrong: [{hangup: 403}]"""


@virtual
async def test_the_pin_lets_in(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        stage.plans(SECRET)
        ann = stage.calls("team")
        await asyncio.sleep(1)
        assert not joined(ann)
        ann.leg.press("4712")
        await asyncio.sleep(1)
        assert plays(ann, "left")
        ann.leg.press("47#")
        await asyncio.sleep(1)
        assert not joined(ann)
        ann.leg.press("4711#")
        await stage.happens(lambda: joined(ann))
        assert not any("4711" in str(stamped.event.fields()) for stamped in stage.records.stamped)


@virtual
async def test_three_wrong_pins_leave_by_their_branch(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        stage.plans(SECRET)
        ann = stage.calls("team")
        for _ in range(3):
            await asyncio.sleep(1)
            ann.leg.press("0000")
        await stage.over()
        assert ann.left[0] == ("conference", "wrong_pin")
        assert not joined(ann)


@virtual
async def test_nobody_who_types_nothing_gets_in(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        stage.plans(SECRET)
        ann = stage.calls("team")
        await stage.over()
        assert ann.left[0] == ("conference", "wrong_pin")


@virtual
async def test_a_caller_may_go_while_they_are_asked(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        stage.plans(SECRET)
        ann = stage.calls("team")
        await asyncio.sleep(1)
        ann.leg.press("47")
        ann.hangs_up()
        await stage.over()
        assert ann.left == [("conference", "cancelled")]


@pytest.mark.parametrize(
    ("options", "why"),
    [("room: 'a{header.x-room}/..'", "no name of a room"), ("room: team, pin: '{header.x-pin}'", "no PIN")],
)
def test_what_variables_make_of_an_option_is_checked(tmp_path: Path, options: str, why: str) -> None:
    @virtual
    async def test() -> None:
        async with gathering(tmp_path) as stage:
            stage.plans(f"  team: [{{conference: {{{options}, on: {{failed: sorry}}}}}}]\n  sorry: [hangup]")
            ann = stage.calls("team")
            await stage.over()
            assert ann.left[0] == ("conference", "failed")
            assert why in ann.of(Fault)[-1].error

    test()


@virtual
async def test_a_full_room_says_so(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        stage.plans(TEAM.replace("room: team,", "room: team, max: 2,"))
        ann, ben = await meet(stage, "ann", "ben")
        cy = stage.calls("team", "cy")
        await stage.happens(lambda: cy.left)
        assert cy.left[0] == ("conference", "full")
        assert ann.hears == {"ben"}
        ben.hangs_up()
        await stage.happens(lambda: not ann.hears)
        await meet(stage, "dee")
        assert ann.hears == {"dee"}


class OtherLeg(FakeLeg):
    """A leg of another kind, whose sound passes elsewhere."""


@virtual
async def test_legs_of_two_kinds_meet(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        stage.plans(TEAM)
        (ann,) = await meet(stage, "ann")
        ben = stage.calls("team", "ben", OtherLeg())
        await stage.happens(lambda: ann.hears == {"ben"})
        assert ben.hears == {"ann"}


class FakeClaims:
    """held: the keys that this process has. elsewhere: those that another one has."""

    def __init__(self) -> None:
        self.held: list[str] = []
        self.elsewhere: set[str] = set()

    async def contend(self, key: str, value: Mapping[str, Any]) -> FakeClaim | None:
        await asyncio.sleep(0.01)
        if key in self.elsewhere:
            return None
        self.held.append(key)
        return FakeClaim(self, key)


class FakeClaim:
    def __init__(self, claims: FakeClaims, key: str) -> None:
        self._claims, self._key = claims, key

    async def close(self) -> None:
        await asyncio.sleep(0.01)
        self._claims.held.remove(self._key)


@virtual
async def test_a_room_is_one_process_alone(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        claims = FakeClaims()
        stage.rooms = Rooms(claims)
        stage.plans(TEAM)
        ann, ben = stage.calls("team", "ann"), stage.calls("team", "ben")
        await stage.happens(lambda: joined(ann, ben))
        assert claims.held == ["room/acme/team"]
        assert ann.hears == {"ben"}
        for caller in (ann, ben):
            caller.hangs_up()
        await stage.over()
        assert claims.held == []
        claims.elsewhere.add("room/acme/team")
        cy = stage.calls("team", "cy")
        await stage.over()
        assert cy.left[0] == ("conference", "failed")
        assert "another process" in cy.of(Fault)[0].error


# --- the moderator ----------------------------------------------------------------------------------------------------

LED = """
  team: [{conference: {room: team, music: music.wav, on: {left: bye, failed: end}}}]
  lead: [{conference: {room: team, moderator: true, music: music.wav, on: {failed: end}}}]
  bye: [{hangup: {reason: The meeting is over}}]"""


def music(caller: Caller) -> int:
    return sum(bool((samples == 777).all()) for samples in caller.leg.played)


@virtual
async def test_the_room_opens_with_the_moderator_and_is_over_without_one(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        write_sound(tmp_path / "music.wav", 50)
        stage.plans(LED)
        ann, ben = await meet(stage, "ann", "ben")
        await asyncio.sleep(3)
        assert (ann.hears, ben.hears) == (set(), set())
        assert music(ann) > 140
        assert music(ben) > 140
        (lea,) = await meet(stage, "lea", to="lead")
        await breathe()
        assert (ann.hears, ben.hears, lea.hears) == ({"ben", "lea"}, {"ann", "lea"}, {"ann", "ben"})
        played = music(ann)
        await asyncio.sleep(1)
        assert music(ann) <= played + 1
        (mo,) = await meet(stage, "mo", to="lead")
        lea.hangs_up()
        await asyncio.sleep(1)
        assert ann.hears == {"ben", "mo"}
        mo.hangs_up()
        await stage.over()
        assert [caller.left[0] for caller in (ann, ben)] == [("conference", "left")] * 2
        assert [left.reason for caller in (ann, ben) for left in caller.of(ConferenceLeft)] == ["moderator_left"] * 2


@virtual
async def test_who_is_alone_hears_music_until_somebody_comes(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        write_sound(tmp_path / "music.wav", 50)
        stage.plans("  team: [{conference: {room: team, music: music.wav, on: {failed: end}}}]")
        (ann,) = await meet(stage, "ann")
        await asyncio.sleep(3)
        assert music(ann) > 140
        (ben,) = await meet(stage, "ben")
        played = music(ann)
        await asyncio.sleep(3)
        assert music(ann) <= played + 1
        assert plays(ann, "joined")
        ben.hangs_up()
        await asyncio.sleep(3)
        assert music(ann) > played + 100


# --- mute, hold, kick -------------------------------------------------------------------------------------------------


@virtual
async def test_a_member_mutes_themselves_by_key(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        stage.plans(TEAM)
        ann, ben, cy = await meet(stage, "ann", "ben", "cy")
        ann.leg.press("1*6")
        await asyncio.sleep(1)
        assert (ann.hears, ben.hears, cy.hears) == ({"ben", "cy"}, {"cy"}, {"ben"})
        assert plays(ann, "muted")
        assert not plays(ben, "muted")
        ann.leg.press("6*66")
        await asyncio.sleep(1)
        assert ben.hears == {"ann", "cy"}
        assert plays(ann, "unmuted")
        assert [(event.muted, event.by) for event in ann.of(ConferenceMuted)] == [(True, "key"), (False, "key")]


@virtual
async def test_a_member_on_hold_sends_the_room_no_music(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        stage.plans(TEAM)
        ann, ben = await meet(stage, "ann", "ben")
        ann.leg.tell(LegHeld())
        assert (ann.hears, ben.hears) == ({"ben"}, set())
        ann.leg.tell(LegResumed())
        assert ben.hears == {"ann"}


@virtual
async def test_operators_list_mute_and_kick(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        stage.plans(TEAM)
        commands = CallCommands(stage.all)
        ann, ben = await meet(stage, "ann", "ben")
        (room,) = (await commands.handle("conference.list", {"tenant": "acme"}))["rooms"]
        assert (room["tenant"], room["room"], room["open"]) == ("acme", "team", True)
        assert [member["call"] for member in room["members"]] == [ann.call.id, ben.call.id]
        assert (await commands.handle("conference.list", {"tenant": "other"}))["rooms"] == []
        assert (await commands.handle("conference.mute", {"call": ann.call.id}))["muted"]
        assert ben.hears == set()
        assert not (await commands.handle("conference.unmute", {"call": ann.call.id}))["muted"]
        assert ben.hears == {"ann"}
        assert await commands.handle("conference.kick", {"call": ann.call.id}) == {"kicked": ann.call.id}
        await stage.happens(lambda: ann.left)
        assert ann.left[0] == ("conference", "kicked")
        assert [left.reason for left in ann.of(ConferenceLeft)] == ["kicked"]
        await stage.happens(lambda: ben.hears == set())
        outside = stage.calls("sorry")
        for verb in ("conference.mute", "conference.unmute", "conference.kick"):
            with pytest.raises(NoMember):
                await commands.handle(verb, {"call": outside.call.id})


# --- the recording ----------------------------------------------------------------------------------------------------


def channels(path: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    with wave.open(str(path)) as file:
        both = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    return both[:, 0], both[:, 1]


@virtual
async def test_a_recording_holds_what_a_member_said_and_what_they_heard(tmp_path: Path) -> None:
    async with gathering(tmp_path) as stage:
        stage.plans(
            "  team: [{conference: {room: team, on: {failed: end}}}]\n"
            "  taped: [{conference: {room: team, record: true, on: {failed: end}}}]"
        )
        (ann,) = await meet(stage, "ann", to="taped")
        ben, cy = await meet(stage, "ben", "cy")
        await asyncio.sleep(1)
        assert all(caller.leg.heard for caller in (ann, ben, cy))
        ann.said, ben.said, cy.said = level(1), level(20), level(300)
        await asyncio.sleep(1)
        cy.leg.press("*6")
        await asyncio.sleep(1)
        ann.leg.press("*6")
        await asyncio.sleep(1)
        ann.hangs_up()
        await stage.happens(lambda: len(stage.all.calls) == 2)
        assert not any(caller.leg.heard for caller in (ben, cy))
        (path,) = stage.recorder.folder.rglob("*.wav")
        said, heard = channels(path)
        both = int(np.flatnonzero(heard == 320)[0])
        assert (said[both : both + 8000] == 1).all()
        assert (heard[both : both + 8000] == 320).all()
        assert (heard == 320).sum() >= 15_000
        assert not said[-8000:].any(), "what somebody says while muted is not kept"
        assert (heard[-8000:] == 20).all()
