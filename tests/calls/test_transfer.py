"""The step `transfer`: what comes of it is what a far end said, and the caller is never lost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sipserver import events
from sipserver.agent.options import Outcome as AgentOutcome
from sipserver.calls.call import Call
from sipserver.calls.outbound import Order
from sipserver.calls.states import EndReason
from sipserver.calls.steps import transfer as transfer_module
from sipserver.errors import CallerError, CapacityError, CarrierError, ProviderRejected
from sipserver.events import Bridged, DigitReceived, Fault, TransferEnded, TransferStarted, Unbridged
from tests.calls.conftest import SPOKEN
from tests.calls.parties import ThreeParties, apart, hear_each_other, three_parties
from tests.fakes import engines
from tests.fakes.leg import FakeOffer, breathe
from tests.fakes.outbound import PlacedLeg
from tests.fakes.virtual_time import virtual

STILL = "{busy: still, no_answer: still, declined: still, failed: still}"
BRANCHES = f"on: {STILL}}}}}, hangup]\n  still: [{{say: Sorry.}}, {{wait: 60}}]"


def flow(mode: str, options: str = "", to: str = "'sip:200@pbx'") -> str:
    warm = "announce: 'A call from {from}.'," if mode == "warm" else ""
    return f"  main: [{{transfer: {{to: {to}, mode: {mode}, {warm} {options} {BRANCHES}"


async def goes_on(three: ThreeParties, outcome: str) -> None:
    """The flow goes on with the caller, by the branch of the outcome."""
    await three.happens(lambda: ("say", "done") in three.left())
    assert three.left()[0] == ("transfer", outcome)
    assert three.flows() == ["main", "still"]
    assert not three.leg.gone
    assert sum(bool((samples == SPOKEN).all()) for samples in three.leg.played) == 1
    await three.tick(3)
    assert not three.leg.playout.pending_ms
    assert not any(samples.any() for samples in three.leg.played[-2:])


# --- blind ------------------------------------------------------------------------------------------------------------


@virtual
async def test_blind_the_callers_side_calls_and_the_last_word_counts(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.leg.slow_refer = True
        call = three.begin(flow("blind"))
        await three.happens(lambda: three.leg.refers)
        assert three.leg.actions == ["answer", "refer sip:200@pbx"]
        three.leg.tell(events.ReferProgress(code=180))
        await three.tick(50)
        assert call.state == "answered"
        three.leg.referred(200)
        assert await three.over() == "transferred"
        assert three.leg.actions[-1] == "hangup"
        assert three.transfers() == [("blind", "answered", "refer", 200)]
        (ended,) = three.records.of(TransferEnded)
        assert 1_000 <= ended.took_ms <= 1_100
        assert [(started.mode, started.to) for started in three.records.of(TransferStarted)] == [
            ("blind", "sip:200@pbx")
        ]
        assert three.placed.orders == []


@pytest.mark.parametrize(
    ("to", "uri"),
    [("'200'", "sip:200@example.org"), ("'+493012345'", "sip:+493012345@example.org"), ("sips:a@b", "sips:a@b")],
)
@virtual
async def test_blind_a_number_is_one_of_the_callers_side(tmp_path: Path, to: str, uri: str) -> None:
    async with three_parties(tmp_path) as three:
        three.begin(flow("blind", to=to))
        await three.over()
        assert three.leg.actions[1] == f"refer {uri}"


@virtual
async def test_blind_somebody_whom_we_called_is_sent_to_one_of_their_side(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.head = "targets: ['200', '+4930']"
        three.plan(flow("blind", to="'200'"))
        three.leg.gone = True  # nobody calls
        originating = asyncio.create_task(three.registry().originate(Order("+4930"), tenant="acme"))
        first = await three.party()
        await originating
        first.picks_up()
        assert await three.over() == "transferred"
        assert first.actions == ["refer sip:200@carrier.example", "hangup"]


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(486, "busy"), (480, "no_answer"), (408, "no_answer"), (603, "declined"), (404, "failed"), (100, "failed")],
)
@virtual
async def test_blind_a_target_that_does_not_answer_leaves_the_caller_here(
    tmp_path: Path, status: int, outcome: str
) -> None:
    async with three_parties(tmp_path) as three:
        three.leg.refer_answer = status
        three.begin(flow("blind"))
        await goes_on(three, outcome)
        assert three.transfers() == [("blind", outcome, "refer", status)]


@pytest.mark.parametrize("status", [405, 501, 603, 403, 481, 408])
@virtual
async def test_blind_a_refused_refer_has_failed(tmp_path: Path, status: int) -> None:
    async with three_parties(tmp_path) as three:
        three.leg.refer_answer = CarrierError("the peer does not take the transfer", status)
        three.begin(flow("blind"))
        await goes_on(three, "failed")
        assert three.transfers() == [("blind", "failed", "refer", status)]
        assert [fault.where for fault in three.records.of(Fault)] == ["transfer"]


@virtual
async def test_blind_a_side_that_cannot_refer_is_not_asked(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.leg.can_refer = False
        three.begin(flow("blind"))
        await goes_on(three, "failed")
        assert three.transfers() == [("blind", "failed", "refer", 405)]
        assert three.leg.actions == ["answer"]


@virtual
async def test_blind_a_refer_that_cannot_be_sent_has_failed(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.leg.slow_refer = True
        three.begin(flow("blind"))
        await three.happens(lambda: three.leg.refers)
        three.leg.referred(CallerError("a transfer of this leg is under way"))
        await goes_on(three, "failed")
        assert three.transfers() == [("blind", "failed", "refer", 400)]


@virtual
async def test_blind_without_a_last_word_it_is_no_answer_after_ring_s(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.leg.slow_refer = True
        three.begin(flow("blind", "ring_s: 20,"))
        await goes_on(three, "no_answer")
        (ended,) = three.records.of(TransferEnded)
        assert (ended.outcome, ended.code, ended.took_ms // 1000) == ("no_answer", 408, 20)


@virtual
async def test_blind_the_caller_hangs_up(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.leg.slow_refer = True
        three.begin(flow("blind"))
        await three.happens(lambda: three.leg.refers)
        three.leg.peer_leaves()
        assert await three.over() == "caller_hangup"
        assert three.transfers() == [("blind", "caller_gone", "", 0)]


@virtual
async def test_blind_the_callers_leg_tells_its_end_before_the_call_knows(tmp_path: Path) -> None:
    """CarrierError comes out of `refer` in the same turn as the end of the leg."""
    async with three_parties(tmp_path) as three:
        three.leg.slow_refer = True
        three.begin(flow("blind"))
        await three.happens(lambda: three.leg.refers)
        three.leg.tell(events.LegDisconnected(code=408, cause="gone", by_peer=False))
        three.leg.gone = True
        three.leg.referred(CarrierError("the leg is gone", 408))
        assert await three.over() == "leg_lost"
        assert three.transfers() == [("blind", "caller_gone", "", 0)]


# --- attended ---------------------------------------------------------------------------------------------------------


def no_replaces(three: ThreeParties) -> None:
    three.leg.can_replace = False


@virtual
async def test_attended_the_caller_hears_music_until_the_target_answers(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        no_replaces(three)
        three.sound("moh.wav", 777, frames=7)
        three.begin(flow("attended", "music: moh.wav,"))
        party = await three.party()
        party.progress(183, media=True)
        await three.tick(20)
        assert apart(three.leg, party)
        assert sum(bool((samples == 777).all()) for samples in three.leg.played[-10:]) >= 9
        party.picks_up()
        await three.happens(lambda: three.records.of(Bridged))
        assert hear_each_other(three.leg, party)
        assert three.transfers() == [("attended", "answered", "bridge", 200)]
        await three.tick(3)
        assert not any(samples.any() for samples in three.leg.played[-2:])
        party.peer_leaves()
        assert await three.over() == "callee_hangup"
        assert [end.reason for end in three.records.of(Unbridged)] == ["party_hangup"]


@virtual
async def test_attended_both_hear_each_other_in_the_same_moment_as_the_targets_200(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        no_replaces(three)
        call = three.begin(flow("attended"))
        party = await three.party()
        before_ms = call.at_ms
        party.picks_up()
        await breathe(50)
        assert hear_each_other(three.leg, party)
        assert call.at_ms == before_ms, "only turns of the loop may pass, and no time"


@virtual
async def test_attended_without_music_the_caller_hears_ringing(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.begin(flow("attended"))
        await three.party()
        await three.tick(20)
        assert all(samples.any() for samples in three.leg.played[-10:])


@pytest.mark.parametrize(
    ("status", "outcome"), [(486, "busy"), (480, "no_answer"), (603, "declined"), (404, "failed"), (0, "failed")]
)
@pytest.mark.parametrize("mode", ["attended", "warm"])
@virtual
async def test_a_target_that_refuses_leaves_the_caller_here(
    tmp_path: Path, mode: str, status: int, outcome: str
) -> None:
    async with three_parties(tmp_path) as three:
        three.begin(flow(mode))
        (await three.party()).refuses(status)
        await goes_on(three, outcome)
        assert three.transfers() == [(mode, outcome, "", status)]
        assert three.parted() == [("party-1", outcome, status, "party")]


@pytest.mark.parametrize("mode", ["attended", "warm"])
@virtual
async def test_a_target_that_never_answers(tmp_path: Path, mode: str) -> None:
    async with three_parties(tmp_path) as three:
        three.begin(flow(mode, "ring_s: 20,"))
        (await three.party()).progress(183, media=True)
        await goes_on(three, "no_answer")
        assert three.transfers() == [(mode, "no_answer", "", 408)]


@pytest.mark.parametrize("mode", ["attended", "warm"])
@virtual
async def test_a_target_that_answers_and_dies_at_once_has_failed(tmp_path: Path, mode: str) -> None:
    async with three_parties(tmp_path) as three:
        three.begin(flow(mode))
        party = await three.party()
        party.picks_up()
        party.peer_leaves()
        await goes_on(three, "failed")
        assert three.transfers() == [(mode, "failed", "", 200)]


@pytest.mark.parametrize("mode", ["attended", "warm"])
@virtual
async def test_a_process_without_a_free_leg_keeps_the_caller(tmp_path: Path, mode: str) -> None:
    async with three_parties(tmp_path) as three:
        three.placed.fails = [CapacityError("4 of 4 calls")]
        three.begin(flow(mode))
        await goes_on(three, "failed")
        assert three.transfers() == [(mode, "failed", "", 503)]


@virtual
async def test_a_target_that_no_trunk_carries(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.placed.refuses = CallerError("no trunk carries it")
        three.begin(flow("attended"))
        await goes_on(three, "failed")
        assert three.transfers() == [("attended", "failed", "", 400)]


@pytest.mark.parametrize("mode", ["blind", "attended", "warm"])
@virtual
async def test_a_target_that_is_not_allowed_is_never_called(tmp_path: Path, mode: str) -> None:
    async with three_parties(tmp_path) as three:
        three.head = "targets: ['2*@pbx']"
        three.leg.offer = FakeOffer(headers={"x-to": "0900123"})
        three.begin(flow(mode, to="'sip:{header.x-to}@pbx'"))
        await goes_on(three, "failed")
        assert three.transfers() == []
        assert three.placed.orders == []
        assert [fault.error for fault in three.records.of(Fault)][-1] == "the target is not allowed by `targets`"
        assert not [action for action in three.leg.actions if action.startswith("refer")]


@virtual
async def test_replaces_takes_us_out_of_the_call(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.leg.slow_refer = True
        three.begin(flow("attended"))
        party = await three.party()
        party.picks_up()
        await three.happens(lambda: three.leg.refers)
        assert three.leg.actions[-1] == "refer sip:200@pbx replaces"
        assert hear_each_other(three.leg, party), "nobody waits for the REFER in silence"
        assert three.transfers() == []
        party.peer_leaves()  # as a leg that was replaced
        await three.tick(20)
        three.leg.referred(200)
        assert await three.over() == "transferred"
        assert three.transfers() == [("attended", "answered", "replaces", 200)]
        assert [end.reason for end in three.records.of(Unbridged)] == ["transferred"]
        assert three.parted() == [("party-1", "answered", 200, "party")]


@virtual
async def test_replaces_the_word_of_success_may_come_before_the_targets_bye(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.begin(flow("attended"))
        (await three.party()).picks_up()
        assert await three.over() == "transferred"
        assert three.transfers() == [("attended", "answered", "replaces", 200)]
        assert three.parted() == [("party-1", "answered", 200, "us")]


@virtual
async def test_replaces_a_hold_while_it_is_under_way_brings_no_music(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.leg.slow_refer = True
        three.begin(flow("attended"))
        party = await three.party()
        party.picks_up()
        await three.happens(lambda: three.leg.refers)
        three.leg.tell(events.LegHeld())
        await three.tick(20)
        assert not any(samples.any() for samples in party.played)
        three.leg.referred(CarrierError("refused", 603))
        await three.tick(5)
        assert any(samples.any() for samples in party.played), "the caller still holds, and the bridge stays"


@pytest.mark.parametrize("answer", [486, 503, 100, CarrierError("refused", 603), CallerError("under way")])
@virtual
async def test_replaces_that_fails_leaves_the_bridge(tmp_path: Path, answer: int | Exception) -> None:
    async with three_parties(tmp_path) as three:
        three.leg.slow_refer = True
        three.begin(flow("attended"))
        party = await three.party()
        party.picks_up()
        await three.happens(lambda: three.leg.refers)
        await three.tick(100)
        three.leg.referred(answer)
        await three.happens(three.transfers)
        assert three.transfers() == [("attended", "answered", "bridge", 200)]
        (ended,) = three.records.of(TransferEnded)
        assert ended.took_ms < 100, "they heard each other long before the REFER failed"
        assert hear_each_other(three.leg, party)
        party.peer_leaves()
        assert await three.over() == "callee_hangup"


@virtual
async def test_replaces_a_target_that_hangs_up_meanwhile_is_not_waited_for_long(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.leg.slow_refer = True
        call = three.begin(flow("attended"))
        party = await three.party()
        party.picks_up()
        await three.happens(lambda: three.leg.refers)
        began_ms = call.at_ms
        party.peer_leaves()
        assert await three.over() == "callee_hangup"
        assert call.at_ms - began_ms <= 1000 * transfer_module.NOTIFY_S + 100
        assert three.transfers() == [("attended", "answered", "bridge", 200)]


@virtual
async def test_replaces_the_callers_side_may_leave_before_its_last_word(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.leg.slow_refer = True
        three.begin(flow("attended"))
        party = await three.party()
        party.picks_up()
        await three.happens(lambda: three.leg.refers)
        party.peer_leaves()
        three.leg.peer_leaves()
        assert await three.over() == "caller_hangup"
        assert three.transfers() == [("attended", "answered", "bridge", 200)]


WHY_NOT = ["caller cannot refer", "caller cannot replace", "target cannot replace", "another trunk", "recording"]


@pytest.mark.parametrize("who", WHY_NOT)
@virtual
async def test_replaces_is_only_asked_for_where_it_can_work(tmp_path: Path, who: str) -> None:
    async with three_parties(tmp_path) as three:
        three.leg.can_refer = who != "caller cannot refer"
        three.leg.can_replace = who != "caller cannot replace"
        if who == "another trunk":
            three.leg.offer = FakeOffer(trunk="pbx")
        record = "record, " if who == "recording" else ""
        three.begin(flow("attended").replace("[{transfer", f"[{record}{{transfer"))
        party = await three.party()
        party.can_replace = who != "target cannot replace"
        party.picks_up()
        await three.happens(three.transfers)
        assert three.transfers() == [("attended", "answered", "bridge", 200)]
        assert not [action for action in three.leg.actions if action.startswith("refer")]
        party.peer_leaves()
        await three.over()


# --- warm -------------------------------------------------------------------------------------------------------------


async def asked(three: ThreeParties) -> PlacedLeg:
    """The target has answered and hears the announcement."""
    party = await three.party()
    party.picks_up()
    await three.happens(lambda: any(bool((samples == SPOKEN).all()) for samples in party.played))
    return party


@virtual
async def test_warm_the_target_hears_who_comes_and_accepts(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        no_replaces(three)
        three.sound("moh.wav", 777, frames=7)
        call = three.begin(flow("warm", "music: moh.wav,"))
        party = await asked(three)
        assert three.tts.texts == ["A call from alice."]
        await three.tick(100)
        assert apart(three.leg, party)
        assert sum(bool((samples == 777).all()) for samples in three.leg.played[-50:]) >= 45
        assert not any(bool((samples == SPOKEN).all()) for samples in three.leg.played)
        party.press("1")
        await three.happens(lambda: hear_each_other(three.leg, party))
        assert three.transfers() == [("warm", "answered", "bridge", 200)]
        assert not len(call.digits)
        party.peer_leaves()
        assert await three.over() == "callee_hangup"


@virtual
async def test_warm_the_key_may_come_while_we_speak(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        no_replaces(three)
        three.begin(flow("warm").replace("A call", "word " * 200))
        party = await asked(three)
        party.press("1")
        await three.happens(lambda: hear_each_other(three.leg, party))
        assert sum(bool((samples == SPOKEN).all()) for samples in party.played) < 20
        assert not party.playout.pending_ms


@virtual
async def test_warm_the_key_may_be_a_tone_in_band(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        no_replaces(three)
        three.begin(flow("warm"))
        party = await three.party()
        party.wants_inband_digits = True
        party.picks_up()
        await three.tick(20)
        assert party.heard
        party.tell(DigitReceived(digit="1", method="inband"))
        await three.happens(lambda: hear_each_other(three.leg, party))
        assert not party.heard


@virtual
async def test_warm_a_target_that_sent_nothing_while_it_listened_is_left(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        no_replaces(three)
        call = three.begin(flow("warm"), media_timeout_s=20)
        party = await asked(three)
        party.tell(events.MediaStalled(silent_ms=2_000))
        party.press("1")
        await three.happens(lambda: hear_each_other(three.leg, party))
        began_ms = call.at_ms
        assert await three.over() == "media_timeout"
        assert 20_000 <= call.at_ms - began_ms <= 20_500


@virtual
async def test_warm_another_key_can_be_the_one(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.begin(flow("warm", "accept: '#',"))
        party = await asked(three)
        party.press("#")
        assert await three.over() == "transferred"


@pytest.mark.parametrize("how", ["another key", "no key", "hangs up", "hangs up later"])
@virtual
async def test_warm_anything_else_declines(tmp_path: Path, how: str) -> None:
    async with three_parties(tmp_path) as three:
        three.begin(flow("warm", "accept_s: 10,"))
        party = await asked(three)
        if how == "another key":
            party.press("2")
        elif how == "hangs up":
            party.peer_leaves()
        elif how == "hangs up later":
            await three.tick(100)
            party.peer_leaves()
        await goes_on(three, "declined")
        assert three.transfers() == [("warm", "declined", "", 0)]
        assert three.parted() == [("party-1", "declined", 200, "party" if "hangs up" in how else "us")]
        assert three.records.of(Bridged) == []
        if how == "no key":
            (ended,) = three.records.of(TransferEnded)
            assert 10_000 <= ended.took_ms <= 11_000


@virtual
async def test_warm_without_a_voice_it_has_failed(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.tts.broken = True
        three.begin(flow("warm").replace("{say: Sorry.}, ", ""))
        (await three.party()).picks_up()
        await three.happens(three.left)
        assert three.left() == [("transfer", "failed")]
        assert three.transfers() == [("warm", "failed", "", 0)]
        assert three.parted() == [("party-1", "failed", 200, "us")]


# --- warm, by voice ---------------------------------------------------------------------------------------------------


async def told(three: ThreeParties, accept_by: str, *said: str | Exception, options: str = "") -> PlacedLeg:
    """The target has heard the whole announcement. said: what an engine writes down of its sentences."""
    no_replaces(three)
    three.stt["whisper"] = engines.FakeStt(*said)
    three.begin(flow("warm", f"accept_by: {accept_by}, {options}"))
    party = await asked(three)
    await three.happens(lambda: not party.playout.pending_ms)
    await three.tick(15)
    return party


async def speaks(three: ThreeParties, seconds: float = 0.5) -> None:
    """The target says something, and is quiet for long enough."""
    await three.tick(round(seconds * 50), party=engines.loud(20))
    await three.tick(60)


def transcribed(three: ThreeParties) -> int:
    """Sentences that an engine was asked to write down."""
    stt = three.stt["whisper"]
    assert isinstance(stt, engines.FakeStt)
    return len(stt.asked)


@pytest.mark.parametrize("accept_by", ["voice", "either"])
@virtual
async def test_voice_the_target_says_yes(tmp_path: Path, accept_by: str) -> None:
    async with three_parties(tmp_path) as three:
        party = await told(three, accept_by, "Yes, put them through.")
        assert apart(three.leg, party)
        await speaks(three)
        assert hear_each_other(three.leg, party)
        assert transcribed(three) == 1
        assert not party.heard, "nobody listens any more"
        assert three.transfers() == [("warm", "answered", "bridge", 200)]
        party.peer_leaves()
        assert await three.over() == "callee_hangup"


@pytest.mark.parametrize("accept_by", ["voice", "either"])
@virtual
async def test_voice_the_target_says_no(tmp_path: Path, accept_by: str) -> None:
    async with three_parties(tmp_path) as three:
        await told(three, accept_by, "Not now, sorry.")
        await speaks(three)
        await goes_on(three, "declined")
        assert three.transfers() == [("warm", "declined", "", 0)]


@pytest.mark.parametrize(("again", "outcome"), [("Yes.", "answered"), ("No.", "declined"), ("Who?", "declined")])
@virtual
async def test_voice_what_is_unclear_is_asked_once_more(tmp_path: Path, again: str, outcome: str) -> None:
    async with three_parties(tmp_path) as three:
        party = await told(three, "voice", "Who is it?", again)
        await speaks(three)
        assert len(three.tts.texts) == 4, "three sentences more"
        assert three.tts.texts[-1] == "Please say yes or no."
        await three.happens(lambda: not party.playout.pending_ms)
        await three.tick(15)
        await speaks(three)
        if outcome == "answered":
            assert hear_each_other(three.leg, party)
        else:
            await goes_on(three, "declined")
        assert transcribed(three) == 2


@virtual
async def test_voice_it_is_asked_in_the_language_of_the_announcement(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        await told(three, "voice", "Wer ist dran?", options="language: de,")
        await speaks(three)
        assert three.tts.texts[-1] == "Bitte sagen Sie ja oder nein."
        stt = three.stt["whisper"]
        assert isinstance(stt, engines.FakeStt)
        assert [language for _, language, _ in stt.asked] == ["de"]


@pytest.mark.parametrize("accept_by", ["voice", "either"])
@virtual
async def test_voice_who_says_nothing_declines(tmp_path: Path, accept_by: str) -> None:
    async with three_parties(tmp_path) as three:
        await told(three, accept_by, "Yes.", options="accept_s: 10,")
        await goes_on(three, "declined")
        (ended,) = three.records.of(TransferEnded)
        assert 10_000 <= ended.took_ms <= 11_000
        assert transcribed(three) == 0


@virtual
async def test_voice_a_noise_is_no_answer(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        party = await told(three, "voice", "[BLANK_AUDIO]", "(coughing)", "Yes.")
        for _ in range(3):
            assert apart(three.leg, party)
            await speaks(three)
        assert hear_each_other(three.leg, party)


@virtual
async def test_voice_our_own_words_are_no_answer(tmp_path: Path) -> None:
    """A loudspeaker's echo of the announcement, which may well say yes."""
    async with three_parties(tmp_path) as three:
        no_replaces(three)
        three.stt["whisper"] = engines.FakeStt("Yes.")
        three.begin(flow("warm", "accept_by: voice,").replace("A call", "word " * 50))
        party = await asked(three)
        while party.playout.pending_ms:
            await three.tick(1, party=engines.loud(20))
        await three.tick(5, party=engines.loud(20))
        await three.tick(100)
        assert transcribed(three) == 0
        assert apart(three.leg, party)


@virtual
async def test_voice_a_key_does_not_count(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        party = await told(three, "voice", "Yes.")
        party.press("1")
        await three.tick(50)
        assert apart(three.leg, party)
        party.press("2")
        await speaks(three)
        assert hear_each_other(three.leg, party)


@pytest.mark.parametrize(("key", "outcome"), [("1", "answered"), ("2", "declined")])
@pytest.mark.parametrize("when", ["while we speak", "afterwards", "in a sentence"])
@virtual
async def test_either_a_key_counts_as_well(tmp_path: Path, when: str, key: str, outcome: str) -> None:
    async with three_parties(tmp_path) as three:
        if when == "while we speak":
            no_replaces(three)
            three.begin(flow("warm", "accept_by: either,").replace("A call", "word " * 200))
            party = await asked(three)
        else:
            party = await told(three, "either", "Yes." if key == "2" else "No.")
        if when == "in a sentence":
            await three.tick(10, party=engines.loud(20))
        party.press(key)
        await three.tick(2)
        if outcome == "answered":
            assert hear_each_other(three.leg, party)
        else:
            await goes_on(three, "declined")


@virtual
async def test_voice_that_no_engine_writes_down_has_failed(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        await told(three, "voice", ProviderRejected("whisper", "broken on purpose"))
        await speaks(three)
        await goes_on(three, "failed")
        assert three.transfers() == [("warm", "failed", "", 0)]
        assert [fault.where for fault in three.records.of(Fault)] == ["transfer"]


@virtual
async def test_either_without_an_engine_a_key_still_does(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        party = await told(three, "either", ProviderRejected("whisper", "broken on purpose"))
        await speaks(three)
        assert apart(three.leg, party)
        party.press("1")
        await three.tick(2)
        assert hear_each_other(three.leg, party)


@pytest.mark.parametrize("who", ["caller", "party"])
@pytest.mark.parametrize("when", ["listening", "in a sentence", "writing down", "asked again"])
@virtual
async def test_voice_somebody_hangs_up(tmp_path: Path, when: str, who: str) -> None:
    async with three_parties(tmp_path) as three:
        party = await told(three, "either", "Who is it?")
        if when != "listening":
            await three.tick(10, party=engines.loud(20))
        if when == "writing down":
            await three.happens(lambda: transcribed(three))
        elif when == "asked again":
            await three.tick(45)
            assert party.playout.pending_ms
        (three.leg if who == "caller" else party).peer_leaves()
        if who == "caller":
            assert await three.over() == "caller_hangup"
            assert three.transfers() == [("warm", "caller_gone", "", 0)]
        else:
            await goes_on(three, "declined")


# --- asked for by an agent --------------------------------------------------------------------------------------------

AGENT = """
  main: [{agent: {use: desk, transfer: {to: '200', %s}, on: {failed: end, transfer: still}}}, hangup]
  still: [{say: Sorry.}, {wait: 60}]"""


async def wants_a_person(three: ThreeParties, options: str) -> Call:
    call = three.begin(AGENT % options)
    await three.happens(lambda: three.converse.talks)
    three.converse.talks[0].outcome.set_result(AgentOutcome("transfer", "the invoice"))
    return call


@virtual
async def test_an_agent_hands_the_caller_over(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        no_replaces(three)
        await wants_a_person(three, "mode: warm, announce: 'A call about {transfer_reason}.'")
        party = await asked(three)
        assert three.tts.texts == ["A call about the invoice."]
        party.press("1")
        await three.happens(lambda: hear_each_other(three.leg, party))
        party.peer_leaves()
        assert await three.over() == "callee_hangup"
        assert three.left() == [("agent", "answered")]
        assert three.transfers() == [("warm", "answered", "bridge", 200)]


@virtual
async def test_an_agents_transfer_that_fails_leaves_the_caller_here(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        await wants_a_person(three, "ring_s: 20")
        (await three.party()).refuses(486)
        await three.happens(lambda: ("say", "done") in three.left())
        assert three.left() == [("agent", "transfer"), ("say", "done")]
        assert three.transfers() == [("attended", "busy", "", 486)]


@virtual
async def test_an_agent_in_early_media_answers_before_it_hands_over(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        call = three.begin((AGENT % "mode: blind").replace("[{agent", "[early, {agent"))
        await three.happens(lambda: three.converse.talks)
        assert not call.answered
        three.converse.talks[0].outcome.set_result(AgentOutcome("transfer"))
        assert await three.over() == "transferred"
        assert three.leg.actions == ["early", "answer", "refer sip:200@example.org", "hangup"]


@virtual
async def test_the_reason_is_told_to_the_flow_too(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.begin("""
  main: [{agent: {use: desk, on: {failed: end, transfer: human}}}]
  human: [{say: 'You asked about {transfer_reason}.'}]""")
        await three.happens(lambda: three.converse.talks)
        three.converse.talks[0].outcome.set_result(AgentOutcome("transfer", "the invoice"))
        await three.over()
        assert three.tts.texts == ["You asked about the invoice."]


# --- who leaves when --------------------------------------------------------------------------------------------------


async def _dialling(_three: ThreeParties, _party: PlacedLeg) -> None: ...


async def _ringing(three: ThreeParties, party: PlacedLeg) -> None:
    party.progress(180)
    await three.tick(2)


async def _early(three: ThreeParties, party: PlacedLeg) -> None:
    party.progress(183, media=True)
    await three.tick(2)


async def _announced(three: ThreeParties, _party: PlacedLeg) -> None:
    await asked(three)


async def _deciding(three: ThreeParties, _party: PlacedLeg) -> None:
    await asked(three)
    await three.tick(50)


async def _replacing(three: ThreeParties, party: PlacedLeg) -> None:
    party.picks_up()
    party.press("1")
    await three.happens(lambda: three.leg.refers)


async def _bridged(three: ThreeParties, party: PlacedLeg) -> None:
    party.can_replace = False
    party.picks_up()
    party.press("1")
    await three.happens(lambda: three.records.of(Bridged))


async def _held(three: ThreeParties, party: PlacedLeg) -> None:
    await _bridged(three, party)
    party.tell(events.LegHeld())
    three.leg.tell(events.LegHeld())
    await three.tick(5)


UNANSWERED = [_dialling, _ringing, _early]
STATES = [
    *(("attended", state) for state in (*UNANSWERED, _replacing, _bridged, _held)),
    *(("warm", state) for state in (*UNANSWERED, _announced, _deciding, _replacing, _bridged, _held)),
]
CONNECTED = {_replacing, _bridged, _held}


@pytest.mark.parametrize(("mode", "state"), STATES)
@virtual
async def test_the_caller_hangs_up(tmp_path: Path, mode: str, state: Any) -> None:
    async with three_parties(tmp_path) as three:
        three.leg.slow_refer = True
        three.begin(flow(mode))
        party = await three.party()
        await state(three, party)
        three.leg.peer_leaves()
        assert await three.over() == "caller_hangup"
        outcome = ("answered", "bridge", 200) if state in CONNECTED else ("caller_gone", "", 0)
        assert three.transfers() == [(mode, *outcome)]
        ((name, what, _, by),) = three.parted()
        assert (name, what, by) == ("party-1", "answered" if party.answered else "caller_gone", "us")
        assert party.actions[-1] == "hangup"


@pytest.mark.parametrize(("mode", "state"), STATES)
@virtual
async def test_the_party_hangs_up(tmp_path: Path, mode: str, state: Any) -> None:
    async with three_parties(tmp_path) as three:
        three.leg.slow_refer = True
        three.begin(flow(mode))
        party = await three.party()
        await state(three, party)
        party.peer_leaves() if party.answered else party.refuses(486)
        if state in CONNECTED:
            assert await three.over() == "callee_hangup"
            assert three.transfers() == [(mode, "answered", "bridge", 200)]
        else:
            await goes_on(three, "declined" if party.answered else "busy")
        assert len(three.parted()) == 1


@pytest.mark.parametrize("first", ["caller", "party"])
@pytest.mark.parametrize(("mode", "state"), STATES)
@virtual
async def test_both_hang_up_at_once(tmp_path: Path, mode: str, state: Any, first: str) -> None:
    async with three_parties(tmp_path) as three:
        three.leg.slow_refer = True
        three.begin(flow(mode))
        party = await three.party()
        await state(three, party)
        for who in (three.leg, party) if first == "caller" else (party, three.leg):
            who.peer_leaves() if who is three.leg or party.answered else party.refuses(486)
        assert await three.over() == "caller_hangup"
        assert len(three.parted()) == len(three.transfers()) == 1


def _takes_it(leg: PlacedLeg) -> None:
    leg.progress(183, media=True)
    leg.picks_up()
    leg.press("1")


@pytest.mark.parametrize("turns", range(80))
@pytest.mark.parametrize("mode", ["blind", "attended", "warm"])
@virtual
async def test_the_call_ends_at_any_await(tmp_path: Path, mode: str, turns: int) -> None:
    async with three_parties(tmp_path) as three:
        three.leg.slow_refer = bool(turns % 2)
        three.placed.script = _takes_it
        call = three.begin(flow(mode))
        for _ in range(turns):
            await breathe(1)
        call.end(EndReason.OPERATOR_HANGUP)
        reason = await three.over()
        assert reason in {"operator_hangup", "transferred"}
        assert len(three.records.of(TransferStarted)) == len(three.transfers()) <= 1
        assert len(three.records.of(Bridged)) == len(three.records.of(Unbridged))
