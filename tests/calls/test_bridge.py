"""The step `bridge`: who hears whom, what the caller is told, and how it ends."""

from __future__ import annotations

import asyncio
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sipserver import events
from sipserver.audio.frame import FRAME_SAMPLES, Samples
from sipserver.audio.hold_music import gentle
from sipserver.calls import join as join_module
from sipserver.calls import party as party_module
from sipserver.calls.call import Call
from sipserver.calls.outbound import Order
from sipserver.calls.states import EndReason
from sipserver.errors import CallerError, CapacityError, CarrierError
from sipserver.events import Bridged, DigitReceived, Fault, PartyDialed, Unbridged
from tests.calls.parties import ThreeParties, apart, hear_each_other, three_parties
from tests.fakes.leg import FakeLeg, FakeOffer, breathe, level
from tests.fakes.outbound import PlacedLeg
from tests.fakes.virtual_time import virtual

ON = "on: {answered: end, busy: busy, no_answer: no_answer, declined: declined, failed: failed}"
BRANCHES = """
  busy: [{hangup: 486}]
  no_answer: [{hangup: 480}]
  declined: [{hangup: 603}]
  failed: [{hangup: 503}]"""


def flow(options: str = "", before: str = "", on: str = ON, after: str = BRANCHES) -> str:
    return f"  main: [{before} {{bridge: {{to: 'sip:200@pbx', {options} {on}}}}}]{after}"


TO_THE_END = flow(on="on: {answered: end, busy: end, no_answer: end, declined: end, failed: end}", after="")


async def joined(three: ThreeParties, flows: str = "", **settings: Any) -> tuple[Call, PlacedLeg]:
    """A call whose two sides hear each other."""
    call = three.begin(flows or flow(), **settings)
    party = await three.party()
    party.picks_up()
    await three.happens(lambda: three.records.of(Bridged))
    assert hear_each_other(three.leg, party)
    return call, party


def heard_tone(leg: FakeLeg, last: int) -> bool:
    """Did anything but silence leave in the last so many frames?"""
    return any(samples.any() for samples in leg.played[-last:])


# --- until the answer -------------------------------------------------------------------------------------------------


@virtual
async def test_the_callers_200_follows_the_partys(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        call = three.begin(flow())
        party = await three.party()
        assert three.leg.actions == []
        party.progress(180)
        await three.happens(lambda: three.leg.actions == ["ring"])
        assert apart(three.leg, party)
        party.picks_up()
        await three.happens(lambda: hear_each_other(three.leg, party))
        assert call.answered
        assert three.leg.actions == ["ring", "answer"]
        party.peer_leaves()
        assert await three.over() == "callee_hangup"
        assert three.left() == [("bridge", "answered")]
        assert three.parted() == [("party-1", "answered", 200, "party")]
        (bridged,), (unbridged,) = three.records.of(Bridged), three.records.of(Unbridged)
        assert (bridged.party, unbridged.party, unbridged.reason) == ("party-1", "party-1", "party_hangup")
        assert apart(three.leg, party)


@virtual
async def test_the_partys_early_media_reaches_a_caller_who_is_not_answered(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        call = three.begin(flow())
        party = await three.party()
        party.progress(183, media=True)
        await three.happens(lambda: three.leg in party.feeds)
        assert three.leg.actions == ["early"]
        assert party not in three.leg.feeds
        party.progress(180)
        party.progress(183, media=True)
        await three.tick(5)
        assert three.leg.actions == ["early"]
        assert not heard_tone(three.leg, 5)
        party.picks_up()
        await three.happens(lambda: hear_each_other(three.leg, party))
        assert call.answered


@virtual
async def test_a_caller_with_sound_hears_ringing_until_early_media_comes(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.begin(flow(before="answer,"))
        party = await three.party()
        await three.tick(5)
        assert not heard_tone(three.leg, 5)
        party.progress(180)
        await three.tick(5)
        assert heard_tone(three.leg, 3)
        party.progress(183, media=True)
        await three.tick(5)
        assert not heard_tone(three.leg, 3)
        assert three.leg in party.feeds
        assert three.leg.actions == ["answer"]


@pytest.mark.parametrize("refused", [False, True])
@virtual
async def test_our_ringing_ends_with_the_answer(tmp_path: Path, refused: bool) -> None:
    async with three_parties(tmp_path) as three:
        three.begin(flow(before="answer,", after=BRANCHES.replace("{hangup: 486}", "{wait: 60}")))
        party = await three.party()
        party.progress(180)
        await three.tick(5)
        assert heard_tone(three.leg, 3)
        party.refuses(486) if refused else party.picks_up()
        await three.tick(10)
        assert not heard_tone(three.leg, 5)


@virtual
async def test_media_that_begins_with_the_answer_is_no_early_media(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.begin(flow())
        party = await three.party()
        party.tell(events.MediaStarted(codec="PCMA", payload_type=8, clock_hz=8000, remote="127.0.0.1:4000"))
        await breathe()
        party.picks_up()
        await three.happens(lambda: three.records.of(Bridged))
        assert three.leg.actions == ["answer"]


@virtual
async def test_early_media_of_a_party_that_then_refuses_is_heard_no_longer(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.begin(flow(after=BRANCHES.replace("{hangup: 486}", "answer, {wait: 60}")))
        party = await three.party()
        party.progress(183, media=True)
        await three.happens(lambda: three.leg in party.feeds)
        party.refuses(486)
        await three.happens(lambda: three.left()[-1:] == [("answer", "done")])
        assert apart(three.leg, party)


@virtual
async def test_local_progress_is_our_ringing_whatever_the_party_says(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.begin(flow("progress: local,"))
        party = await three.party()
        await three.tick(10)
        assert three.leg.actions == ["early"]
        assert heard_tone(three.leg, 5)
        party.progress(183, media=True)
        await three.tick(5)
        assert apart(three.leg, party)
        party.picks_up()
        await three.happens(lambda: hear_each_other(three.leg, party))
        await three.tick(5)
        assert not heard_tone(three.leg, 3)


@pytest.mark.parametrize(("before", "music"), [("answer,", True), ("early,", True), ("", False)])
@virtual
async def test_local_progress_is_music_on_a_call_that_has_sound(tmp_path: Path, before: str, music: bool) -> None:
    async with three_parties(tmp_path) as three:
        three.sound("moh.wav", 777, frames=7)
        three.begin(flow("progress: local, music: moh.wav,", before))
        await three.party()
        await three.happens(lambda: heard_tone(three.leg, 1))
        await three.tick(20)
        assert all(bool((samples == 777).all()) for samples in three.leg.played[-4:]) is music or not music
        assert any(bool((samples == 777).all()) for samples in three.leg.played) is music


REFUSALS = [
    (486, "busy", 486, "busy"),
    (600, "busy", 600, "busy"),
    (480, "no_answer", 480, "no_answer"),
    (487, "no_answer", 480, "no_answer"),
    (603, "declined", 603, "declined"),
    (403, "declined", 403, "declined"),
    (407, "declined", 603, "declined"),
    (404, "failed", 404, "carrier_failed"),
    (484, "failed", 484, "carrier_failed"),
    (488, "failed", 488, "carrier_failed"),
    (481, "failed", 500, "carrier_failed"),
    (302, "failed", 500, "carrier_failed"),
    (500, "failed", 500, "carrier_failed"),
    (0, "failed", 503, "carrier_failed"),
]


@pytest.mark.parametrize(("status", "outcome", "code", "reason"), REFUSALS)
@virtual
async def test_a_refusal_is_the_steps_outcome_and_the_callers_answer(
    tmp_path: Path, status: int, outcome: str, code: int, reason: str
) -> None:
    async with three_parties(tmp_path) as three:
        three.begin(TO_THE_END)
        (await three.party()).refuses(status)
        assert await three.over() == reason
        assert three.left() == [("bridge", outcome)]
        assert three.leg.actions == [f"reject {code}"]
        assert three.parted() == [("party-1", outcome, status, "party")]


@pytest.mark.parametrize(("status", "branch"), [(486, "busy"), (480, "no_answer"), (603, "declined"), (500, "failed")])
@virtual
async def test_a_refusal_takes_its_branch_with_the_caller(tmp_path: Path, status: int, branch: str) -> None:
    async with three_parties(tmp_path) as three:
        three.begin(flow(after=BRANCHES.replace("{hangup", "{say: Sorry.}, {hangup")))
        (await three.party()).refuses(status)
        assert await three.over() == "dialplan_hangup"
        assert three.left() == [("bridge", branch), ("say", "done"), ("hangup", "done")]
        assert three.flows() == ["main", branch]


@pytest.mark.parametrize("media", [None, False, True])
@virtual
async def test_a_party_that_never_answers_is_given_up_after_ring_s(tmp_path: Path, media: bool | None) -> None:
    """Also one that sends 183 for ever."""
    async with three_parties(tmp_path) as three:
        call = three.begin(flow("ring_s: 20,", on="on: {failed: end, no_answer: end}", after=""))
        party = await three.party()
        if media is not None:
            for _ in range(19):
                party.progress(183, media=media)
                await three.tick(50)
        assert await three.over() == "no_answer"
        assert 20_000 <= call.at_ms <= 21_000
        assert three.parted() == [("party-1", "no_answer", 408, "us")]
        assert three.leg.actions[-1] == "reject 480"


@virtual
async def test_whoever_places_calls_does_not_keep_the_time(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.placed.keeps_time = False
        call = three.begin(flow("ring_s: 20,"))
        party = await three.party()
        await three.over()
        assert 20_000 <= call.at_ms <= 20_000 + 1000 * party_module.LATE_S + 1000
        assert three.parted() == [("party-1", "no_answer", 408, "us")]
        assert party.actions == ["hangup"]


@virtual
async def test_the_next_trunk_is_tried(tmp_path: Path) -> None:
    async with three_parties(tmp_path, "one", "two") as three:
        three.begin(flow())
        (await three.party(1)).refuses(503)
        second = await three.party(2)
        second.progress(183, media=True)
        await three.happens(lambda: three.leg in second.feeds)
        second.picks_up()
        await three.happens(lambda: hear_each_other(three.leg, second))
        assert [(dialed.party, dialed.trunk, dialed.attempt) for dialed in three.records.of(PartyDialed)] == [
            ("party-1", "one", 1),
            ("party-1", "two", 2),
        ]
        second.peer_leaves()
        assert await three.over() == "callee_hangup"


@virtual
async def test_a_process_without_a_free_leg_keeps_the_caller(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.placed.fails = [CapacityError("4 of 4 calls")]
        three.begin(flow(after=BRANCHES.replace("{hangup: 503}", "{say: Sorry.}")))
        await three.over()
        assert three.left() == [("bridge", "failed"), ("say", "done")]
        assert three.parted() == [("party-1", "failed", 503, "us")]


@virtual
async def test_a_process_that_places_no_calls_keeps_the_caller(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.outbound = None
        three.begin(flow(after=BRANCHES.replace("{hangup: 503}", "{say: Sorry.}")))
        await three.over()
        assert three.left() == [("bridge", "failed"), ("say", "done")]
        assert [fault.where for fault in three.records.of(Fault)] == ["bridge"]


@virtual
async def test_a_number_that_no_trunk_carries(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.placed.refuses = CallerError("no trunk carries it")
        three.placed.refuses.sip_code = 403
        three.begin(TO_THE_END)
        assert await three.over() == "carrier_failed"
        assert three.leg.actions == ["reject 403"]
        assert three.placed.dialled == []


@virtual
async def test_what_the_party_is_told_is_filled_in_and_stays_one_line(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.leg.offer = FakeOffer(headers={"x-name": "Eve\r\nX-Evil: yes"})
        three.begin(
            flow(
                "from: '{from}', display: '{header.x-name}', trunk: carrier, ring_s: 7,"
                " headers: {X-Who: '{header.x-name}'},"
            )
        )
        await three.party()
        ((order, tenant),) = three.placed.orders
        assert (order.to, order.from_user, order.trunk, order.ring_s) == ("sip:200@pbx", "alice", "carrier", 7)
        assert (order.from_display, dict(order.headers)) == ("Eve X-Evil: yes", {"X-Who": "Eve X-Evil: yes"})
        assert tenant == "acme"


# --- who leaves when --------------------------------------------------------------------------------------------------


async def _dialling(_three: ThreeParties, _party: PlacedLeg) -> None: ...


async def _ringing(three: ThreeParties, party: PlacedLeg) -> None:
    party.progress(180)
    await three.tick(2)


async def _early(three: ThreeParties, party: PlacedLeg) -> None:
    party.progress(183, media=True)
    await three.tick(2)


async def _answering(three: ThreeParties, party: PlacedLeg) -> None:
    """Our 200 to the caller waits for its ACK."""
    three.leg.slow_answer = True
    party.picks_up()
    await three.happens(lambda: "answer" in three.leg.actions)


async def _bridged(three: ThreeParties, party: PlacedLeg) -> None:
    party.picks_up()
    await three.happens(lambda: three.records.of(Bridged))


async def _caller_holds(three: ThreeParties, party: PlacedLeg) -> None:
    await _bridged(three, party)
    three.leg.tell(events.LegHeld())
    await three.tick(3)


async def _party_holds(three: ThreeParties, party: PlacedLeg) -> None:
    await _bridged(three, party)
    party.tell(events.LegHeld())
    await three.tick(3)


async def _both_hold(three: ThreeParties, party: PlacedLeg) -> None:
    await _caller_holds(three, party)
    party.tell(events.LegHeld())
    await three.tick(3)


async def _digits(three: ThreeParties, party: PlacedLeg) -> None:
    await _bridged(three, party)
    three.leg.press("123")
    party.press("456")


STATES = [_dialling, _ringing, _early, _answering, _bridged, _caller_holds, _party_holds, _both_hold, _digits]


@pytest.mark.parametrize("progress", ["pass", "local"])
@pytest.mark.parametrize("before", ["", "answer,"])
@pytest.mark.parametrize("state", STATES)
@virtual
async def test_the_caller_hangs_up(tmp_path: Path, state: Any, before: str, progress: str) -> None:
    if before and state is _answering:
        return
    async with three_parties(tmp_path) as three:
        three.begin(flow(f"progress: {progress},", before))
        party = await three.party()
        await state(three, party)
        three.leg.peer_leaves()
        three.leg.go_on.set()
        answered = bool(before) or party.answered
        assert await three.over() == ("caller_hangup" if answered else "cancelled")
        outcome = "answered" if party.answered else "caller_gone"
        assert [(who, what, by) for who, what, _, by in three.parted()] == [("party-1", outcome, "us")]
        assert party.actions[-1] == "hangup"
        assert [end.reason for end in three.records.of(Unbridged)] == ["caller_hangup"] * len(three.records.of(Bridged))


@pytest.mark.parametrize("progress", ["pass", "local"])
@pytest.mark.parametrize("state", STATES)
@virtual
async def test_the_party_hangs_up(tmp_path: Path, state: Any, progress: str) -> None:
    async with three_parties(tmp_path) as three:
        three.begin(flow(f"progress: {progress},"))
        party = await three.party()
        await state(three, party)
        party.peer_leaves() if party.answered else party.refuses(486)
        await breathe()
        three.leg.go_on.set()
        answered = party.answered
        assert await three.over() == ("callee_hangup" if answered else "busy")
        assert three.parted() == [("party-1", *(("answered", 200) if answered else ("busy", 486)), "party")]
        assert three.leg.actions[-1] == ("hangup" if answered else "reject 486")


@pytest.mark.parametrize("first", ["caller", "party"])
@pytest.mark.parametrize("state", STATES)
@virtual
async def test_both_hang_up_at_once(tmp_path: Path, state: Any, first: str) -> None:
    async with three_parties(tmp_path) as three:
        three.begin(flow())
        party = await three.party()
        await state(three, party)
        for who in (three.leg, party) if first == "caller" else (party, three.leg):
            who.peer_leaves() if who is three.leg or party.answered else party.refuses(486)
        three.leg.go_on.set()
        assert await three.over() in {"caller_hangup", "cancelled", "callee_hangup"}
        assert len(three.parted()) == 1


@virtual
async def test_a_party_that_answers_and_dies_at_once_has_failed(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.begin(TO_THE_END)
        party = await three.party()
        party.picks_up()
        party.peer_leaves()
        assert await three.over() == "carrier_failed"
        assert three.leg.actions == ["reject 480"]
        assert three.left() == [("bridge", "failed")]
        assert three.parted() == [("party-1", "failed", 200, "party")]


@virtual
async def test_after_the_party_a_branch_goes_on_with_the_caller(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        after = "\n  survey: [{collect: {on: {'1': good, none: end, other: end}}}]\n  good: [hangup]"
        _, party = await joined(three, flow(on="on: {answered: survey, failed: end}", after=after))
        three.leg.press("9")  # for the party, and none for the survey
        await three.tick(20)
        party.peer_leaves()
        await three.happens(three.left)
        three.leg.press("1")
        await three.over()
        assert three.flows() == ["main", "survey", "good"]


@virtual
async def test_max_s_ends_the_connection(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        call, party = await joined(three, flow("max_s: 60,"))
        began_ms = call.at_ms
        assert await three.over() == "max_duration"
        assert 60_000 <= call.at_ms - began_ms <= 61_000
        assert [end.reason for end in three.records.of(Unbridged)] == ["max_duration"]
        assert three.parted() == [("party-1", "answered", 200, "us")]
        assert party.actions[-1] == "hangup"


@virtual
async def test_a_leg_that_does_not_say_that_it_is_gone_holds_nobody_up(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        call, party = await joined(three)
        party.silent_hangup = True
        began_ms = call.at_ms
        three.leg.peer_leaves()
        assert await three.over() == "caller_hangup"
        assert call.at_ms - began_ms <= 1000 * party_module.LEAVE_S + 100
        assert [fault.where for fault in three.records.of(Fault)] == ["party-1"]


def _answers(leg: PlacedLeg) -> None:
    leg.progress(180)
    leg.progress(183, media=True)
    leg.picks_up()


@virtual
async def test_a_caller_who_leaves_while_the_party_is_hung_up_does_not_cut_that_short(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        _, party = await joined(three, flow("max_s: 1,"))
        party.silent_hangup = True
        await three.happens(lambda: party.gone)
        three.leg.peer_leaves()
        await three.tick(20)
        party.tell(events.LegDisconnected(code=200, cause="Normal", by_peer=False))
        assert await three.over() == "caller_hangup"
        kinds = three.records.kinds()
        assert kinds.index("party.ended") == len(kinds) - 1 - kinds[::-1].index("leg.disconnected") + 1
        assert three.records.of(Fault) == []


@pytest.mark.parametrize("turns", range(60))
@virtual
async def test_the_call_ends_at_any_await(tmp_path: Path, turns: int) -> None:
    """Nothing is left behind, wherever the step was: the stage looks for legs, sounds and tasks."""
    async with three_parties(tmp_path) as three:
        three.sound("moh.wav", 777, frames=7)
        three.placed.script = _answers
        call = three.begin(flow("music: moh.wav,", "answer," if turns % 2 else ""))
        await three.happens(lambda: three.placed.orders)
        for _ in range(turns):
            await breathe(1)
        call.end(EndReason.OPERATOR_HANGUP)
        assert await three.over() == "operator_hangup"
        assert len(three.parted()) <= 1
        assert len(three.records.of(Bridged)) == len(three.records.of(Unbridged))


# --- hold -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("holder", ["caller", "party"])
@virtual
async def test_the_other_one_hears_music_while_one_holds(tmp_path: Path, holder: str) -> None:
    async with three_parties(tmp_path) as three:
        three.sound("moh.wav", 777, frames=7)
        _, party = await joined(three, flow("music: moh.wav,"))
        holding, waiting = (three.leg, party) if holder == "caller" else (party, three.leg)
        holding.tell(events.LegHeld())
        await three.tick(40)
        assert sum(bool((samples == 777).all()) for samples in waiting.played[-30:]) > 20
        assert not heard_tone(holding, 30)
        assert hear_each_other(three.leg, party), "the leg keeps the holder's sound back"
        holding.tell(events.LegResumed())
        await three.tick(2)
        assert hear_each_other(three.leg, party)
        assert not heard_tone(waiting, 1)
        assert not waiting.playout.pending_ms


@virtual
async def test_without_music_the_servers_own_is_heard(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        _, party = await joined(three)
        party.tell(events.LegHeld())
        await three.tick(500)
        assert hear_each_other(three.leg, party)
        heard = np.concatenate(three.leg.played[-500:])
        start = np.flatnonzero(heard)[0]
        assert start < 10 * FRAME_SAMPLES
        ours = gentle()[np.flatnonzero(gentle())[0] :]
        assert (heard[start:] == ours[: len(heard) - start]).all()


@virtual
async def test_both_hold_and_resume_in_any_order(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.sound("moh.wav", 777, frames=7)
        _, party = await joined(three, flow("music: moh.wav,"))
        three.leg.tell(events.LegHeld())
        party.tell(events.LegHeld())
        await three.tick(10)
        assert heard_tone(three.leg, 5)
        assert heard_tone(party, 5)
        three.leg.tell(events.LegResumed())
        await three.tick(10)
        assert heard_tone(three.leg, 5), "the party still holds"
        assert not heard_tone(party, 5)
        party.tell(events.LegResumed())
        await three.tick(10)
        assert not heard_tone(three.leg, 5)
        assert hear_each_other(three.leg, party)


@virtual
async def test_a_party_that_holds_when_it_is_joined(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.sound("moh.wav", 777, frames=7)
        three.leg.slow_answer = True
        three.begin(flow("music: moh.wav,"))
        party = await three.party()
        party.picks_up()
        party.tell(events.LegHeld())
        await three.tick(3)
        three.leg.go_on.set()
        await three.tick(10)
        assert heard_tone(three.leg, 5)


@virtual
async def test_music_that_cannot_be_read_is_a_soft_tone(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.sound("moh.wav", 777, frames=7)
        three.plan(flow("music: moh.wav,"))
        (tmp_path / "moh.wav").unlink()
        three.live = three.registry().begin(three.leg)
        party = await three.party()
        party.picks_up()
        await three.happens(lambda: three.records.of(Bridged))
        party.tell(events.LegHeld())
        await three.tick(5)
        assert heard_tone(three.leg, 3)
        assert [fault.where for fault in three.records.of(Fault)] == ["bridge"]


# --- digits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["rfc4733", "info"])
@virtual
async def test_digits_pass_both_ways_and_in_order(tmp_path: Path, method: str) -> None:
    async with three_parties(tmp_path) as three:
        call, party = await joined(three)
        for digit in "12#":
            three.leg.tell(DigitReceived(digit=digit, method=method))
        party.tell(DigitReceived(digit="9", method=method))
        await three.tick(2)
        assert party.actions == ["digits 1", "digits 2", "digits #"]
        assert three.leg.actions[-1] == "digits 9"
        assert [event.leg for event in three.records.of(DigitReceived)] == ["", "", "", "party-1"]
        assert not len(call.digits)


@virtual
async def test_tones_in_band_pass_in_the_sound_and_are_not_doubled(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.leg.wants_inband_digits = True
        _, party = await joined(three)
        assert not three.leg.heard, "nobody listens for tones that are sound for the other one"
        three.leg.tell(DigitReceived(digit="1", method="inband"))
        await three.tick(2)
        assert party.actions == []
        party.peer_leaves()
        await three.over()


@virtual
async def test_digits_that_cannot_be_passed_on_are_in_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(join_module, "DIGITS_WAITING", 3)
    async with three_parties(tmp_path) as three:
        _, party = await joined(three)

        async def broken(_digits: str, _duration_ms: int = 160) -> None:
            raise CarrierError("digits need media")

        monkeypatch.setattr(party, "send_digits", broken)
        three.leg.press("12345")
        await three.tick(2)
        errors = [fault.error for fault in three.records.of(Fault)]
        assert sum("dropped" in error for error in errors) == 2
        assert sum("digits need media" in error for error in errors) == 3
        assert hear_each_other(three.leg, party)


# --- silence ----------------------------------------------------------------------------------------------------------


@virtual
async def test_a_party_that_falls_silent_is_left(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        call, party = await joined(three, flow("rtp_timeout_s: 10,"))
        began_ms = call.at_ms
        party.tell(events.MediaStalled(silent_ms=2_000))
        assert await three.over() == "media_timeout"
        assert 8_000 <= call.at_ms - began_ms <= 8_500
        assert [end.reason for end in three.records.of(Unbridged)] == ["media_timeout"]
        assert three.parted() == [("party-1", "answered", 200, "us")]


@virtual
async def test_a_caller_who_falls_silent_ends_the_call(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        call, _party = await joined(three, flow("rtp_timeout_s: 10,"))
        began_ms = call.at_ms
        three.leg.tell(events.MediaStalled(silent_ms=2_000))
        assert await three.over() == "media_timeout"
        assert 8_000 <= call.at_ms - began_ms <= 8_500


@pytest.mark.parametrize("who", ["caller", "party"])
@virtual
async def test_one_who_comes_back_or_holds_is_not_silent(tmp_path: Path, who: str) -> None:
    async with three_parties(tmp_path) as three:
        _, party = await joined(three, flow("rtp_timeout_s: 10,"))
        leg = three.leg if who == "caller" else party
        leg.tell(events.MediaStalled(silent_ms=2_000))
        await three.tick(350)
        leg.tell(events.MediaRecovered(silent_ms=9_000))
        await three.tick(1_000)
        leg.tell(events.MediaStalled(silent_ms=2_000))
        leg.tell(events.LegHeld())
        await three.tick(3_000)
        assert hear_each_other(three.leg, party)
        leg.tell(events.LegResumed())
        await three.tick(450)
        assert hear_each_other(three.leg, party), "it has the whole time again"
        assert await three.over() == "media_timeout"


# --- recording --------------------------------------------------------------------------------------------------------


def recorded(three: ThreeParties) -> tuple[Samples, Samples]:
    """(left, right), one value a frame, of the only file."""
    (path,) = three.recorder.folder.rglob("*.wav")
    with wave.open(str(path)) as file:
        assert file.getnchannels() == 2
        both = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, FRAME_SAMPLES, 2)
    assert (both == both[:, :1]).all(), "a frame of the file is no frame of a leg"
    return both[:, 0, 0], both[:, 0, 1]


@virtual
async def test_without_a_recording_no_sound_comes_here(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        _, party = await joined(three)
        assert not three.leg.heard
        assert not party.heard


@virtual
async def test_a_recording_has_the_caller_left_and_the_party_right(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        _, party = await joined(three, flow(before="answer, record,"))
        assert three.leg.heard
        assert party.heard
        await three.tick(10, level(11), level(22))
        party.peer_leaves()
        await three.over()
        left, right = recorded(three)
        together = (left == 11) & (right == 22)
        assert together.sum() == 10
        assert np.flatnonzero(together)[-1] - np.flatnonzero(together)[0] == 9


@virtual
async def test_ticks_that_one_side_lost_are_silence_and_shift_nothing(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        _, party = await joined(three, flow(before="answer, record,"))
        for number in range(1, 41):
            lost = {three.leg: (5, 6), party: (6, 20)}
            three.lost = {leg for leg, numbers in lost.items() if number in numbers}
            await three.tick(1, level(number), level(100 + number))
        party.peer_leaves()
        await three.over()
        left, right = recorded(three)
        first = int(np.flatnonzero(right == 101)[0])
        expected = [number for number in range(1, 41) if number != 6]
        assert [int(value) for value in left[first : first + 39]] == [0 if n == 5 else n for n in expected]
        assert [int(value) for value in right[first : first + 39]] == [0 if n == 20 else 100 + n for n in expected]


@virtual
async def test_a_recording_may_begin_and_end_while_they_talk(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        call, party = await joined(three)
        await call.tape.start()
        assert three.leg.heard
        assert party.heard
        await three.tick(5, level(11), level(22))
        await call.tape.stop()
        assert not three.leg.heard
        assert not party.heard
        await three.tick(5, level(33), level(44))
        left, right = recorded(three)
        assert [int(value) for value in left] == [11] * 5
        assert [int(value) for value in right] == [22] * 5


@virtual
async def test_a_recording_goes_on_with_the_caller_alone(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        on = "on: {answered: next, failed: end}"
        _, party = await joined(three, f"  main: [answer, record, {{bridge: {{to: '1', {on}}}}}, {{wait: 1}}]")
        await three.tick(5, level(11), level(22))
        party.peer_leaves()
        await three.happens(lambda: three.left()[-1] == ("bridge", "answered"))
        await three.tick(5, level(33), level(44))
        await three.over()
        left, right = recorded(three)
        assert (left == 33).sum() == 5
        assert (right == 44).sum() == 0


@virtual
async def test_what_one_of_them_said_last_is_recorded_too(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        _, party = await joined(three, flow(before="answer, record,"))
        await three.tick(5, level(11), level(22))
        three.lost = {party}
        await three.tick(3, level(33))
        party.peer_leaves()
        await three.over()
        left, right = recorded(three)
        assert [int(value) for value in left[left == 33]] == [33] * 3
        assert not right[left == 33].any()


@virtual
async def test_a_recording_that_closes_late_delays_no_bye(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        call, _ = await joined(three, flow("record: true,"))
        call.end(EndReason.OPERATOR_HANGUP)
        await three.over()
        kinds = three.records.kinds()
        assert kinds.index("party.ended") < kinds.index("recording.stopped")


@pytest.mark.parametrize("running", [False, True])
@virtual
async def test_the_step_may_record_the_connection(tmp_path: Path, running: bool) -> None:
    """An unanswered caller need not be answered for it; a recording that runs goes on afterwards."""
    async with three_parties(tmp_path) as three:
        before, on = "answer, record," if running else "", "on: {answered: next, failed: end}"
        flows = f"  main: [{before} {{bridge: {{to: '1', record: true, {on}}}}}, {{wait: 1}}]"
        call, party = await joined(three, flows)
        assert call.tape.running
        await three.tick(5, level(11), level(22))
        party.peer_leaves()
        await three.happens(lambda: ("bridge", "answered") in three.left())
        assert call.tape.running is running
        await three.over()
        left, right = recorded(three)
        assert int(((left == 11) & (right == 22)).sum()) == 5
        assert len(three.records.of(events.RecordingStarted)) == 1


# --- calls that we placed -------------------------------------------------------------------------------------------


@virtual
async def test_somebody_whom_we_called_is_bridged_like_a_caller(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.head = "targets: ['*', '*@*']"
        three.plan(flow())
        three.leg.gone = True  # nobody calls
        originating = asyncio.create_task(three.registry().originate(Order("+4930"), tenant="acme"))
        first = await three.party(1)
        call = await originating
        first.picks_up()
        second = await three.party(2)
        assert apart(first, second)
        second.progress(183, media=True)
        await three.happens(lambda: first in second.feeds)
        second.picks_up()
        await three.happens(lambda: hear_each_other(first, second))
        first.press("1")
        await three.tick(2)
        assert second.actions == ["digits 1"]
        assert call.answered
        second.peer_leaves()
        assert await three.over() == "callee_hangup"
        assert first.actions == ["hangup"]
        assert [event.leg for event in three.records.of(events.LegDisconnected)] == ["party-1", ""]


# --- mistakes of ours -------------------------------------------------------------------------------------------------


@virtual
async def test_a_mistake_of_ours_ends_this_call_and_leaves_no_leg(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with three_parties(tmp_path) as three:
        _, party = await joined(three)

        def broken(*_: object) -> None:
            raise RuntimeError("broken on purpose")

        monkeypatch.setattr(join_module.Join, "_from_party", broken)
        monkeypatch.setattr(join_module._Side, "on_event", broken)
        party.tell(events.LegHeld())
        assert await three.over() == "internal_error"
        assert party.gone


@virtual
async def test_a_step_that_breaks_leaves_no_leg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("broken on purpose")

    async with three_parties(tmp_path) as three:
        monkeypatch.setattr(join_module.Join, "__init__", broken)
        three.begin(flow())
        party = await three.party()
        party.picks_up()
        assert await three.over() == "internal_error"
        assert party.actions == ["hangup"]
        assert three.parted() == [("party-1", "answered", 200, "us")]
