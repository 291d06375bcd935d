"""An agent keeps the caller while the person whom they want is called: `keep: agent`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sipserver import events
from sipserver.agent import phrases
from sipserver.agent.conversation import Conversation
from sipserver.agent.options import Engines
from sipserver.agent.options import Outcome as AgentOutcome
from sipserver.calls.services import Converse
from sipserver.errors import CallerError, CapacityError
from sipserver.events import Bridged, Fault, PartyEnded, Spoken, TransferEnded, TransferStarted, VariableSet
from tests.calls.conftest import SPOKEN
from tests.calls.parties import ThreeParties, apart, hear_each_other, three_parties
from tests.fakes import engines
from tests.fakes.leg import breathe
from tests.fakes.outbound import PlacedLeg
from tests.fakes.talk import FakeTalk
from tests.fakes.virtual_time import now_ns, virtual

FLOW = """
  main: [{agent: {use: desk, transfer: {to: '200', keep: agent, %s}, on: {failed: still, transfer: still}}}, hangup]
  still: [{say: Sorry.}, {wait: 60}]"""
WARM = "mode: warm, announce: 'A call about {transfer_reason}.'"
CALLING = "I am calling them."


# --- with a conversation that the test leads --------------------------------------------------------------------------


async def talking(three: ThreeParties, options: str = "mode: attended") -> FakeTalk:
    three.leg.can_replace = False
    three.begin(FLOW % options)
    await three.happens(lambda: three.converse.talks)
    talk: FakeTalk = three.converse.talks[0]
    return talk


def fetching(talk: FakeTalk, reason: str = "the invoice") -> asyncio.Task[str]:
    return asyncio.create_task(talk.given["fetch"](reason), name="fetch a person")


@virtual
async def test_the_caller_stays_with_the_agent_until_the_target_answers(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        talk = await talking(three)
        fetch = fetching(talk)
        party = await three.party()
        party.progress(183, media=True)
        heard = len(talk.heard)
        await three.tick(50)
        assert len(talk.heard) == heard + 50, "the agent goes on hearing the caller"
        assert not any(samples.any() for samples in three.leg.played), "neither music nor ringing"
        assert apart(three.leg, party)
        party.picks_up()
        assert await fetch == "answered"
        talk.outcome.set_result(AgentOutcome("transfer", "the invoice"))
        await breathe(20)
        assert hear_each_other(three.leg, party)
        assert three.transfers() == [("attended", "answered", "bridge", 200)]
        assert [(each.name, each.value) for each in three.records.of(VariableSet)] == [
            ("transfer_reason", "the invoice")
        ]
        party.peer_leaves()
        assert await three.over() == "callee_hangup"
        assert three.left() == [("agent", "answered")]


@virtual
async def test_a_warm_target_has_to_accept(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        talk = await talking(three, WARM)
        fetch = fetching(talk)
        party = await three.party()
        party.picks_up()
        await three.tick(100)
        assert three.tts.texts == ["A call about the invoice."]
        assert any(bool((samples == SPOKEN).all()) for samples in party.played)
        assert not fetch.done()
        assert apart(three.leg, party)
        party.press("1")
        assert await fetch == "answered"
        talk.outcome.set_result(AgentOutcome("transfer", ""))
        await three.happens(lambda: hear_each_other(three.leg, party))
        assert three.transfers() == [("warm", "answered", "bridge", 200)]
        three.leg.peer_leaves()
        assert await three.over() == "caller_hangup"


@pytest.mark.parametrize(
    ("status", "outcome"), [(486, "busy"), (480, "no_answer"), (603, "declined"), (404, "failed"), (0, "failed")]
)
@virtual
async def test_a_target_that_refuses_leaves_the_agent_with_the_caller(
    tmp_path: Path, status: int, outcome: str
) -> None:
    async with three_parties(tmp_path) as three:
        talk = await talking(three)
        for number in (1, 2):
            fetch = fetching(talk)
            (await three.party(number)).refuses(status)
            assert await fetch == outcome
        assert three.transfers() == [("attended", outcome, "", status)] * 2
        assert [(end.party, end.outcome) for end in three.records.of(PartyEnded)] == [
            ("party-1", outcome),
            ("party-2", outcome),
        ]
        assert len(three.records.of(TransferStarted)) == 2
        assert three.left() == []
        talk.outcome.set_result(AgentOutcome("done"))
        assert await three.over() == "dialplan_hangup"
        assert three.left()[0] == ("agent", "done")


@virtual
async def test_a_target_that_never_answers(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        talk = await talking(three, "ring_s: 20")
        assert await fetching(talk) == "no_answer"
        (ended,) = three.records.of(TransferEnded)
        assert (ended.outcome, ended.took_ms // 1000) == ("no_answer", 20)


@pytest.mark.parametrize("how", ["another key", "nothing", "hangs up"])
@virtual
async def test_a_warm_target_that_does_not_accept(tmp_path: Path, how: str) -> None:
    async with three_parties(tmp_path) as three:
        talk = await talking(three, WARM)
        fetch = fetching(talk)
        party = await three.party()
        party.picks_up()
        await three.tick(100)
        if how == "another key":
            party.press("2")
        elif how == "hangs up":
            party.peer_leaves()
        assert await fetch == "declined"
        assert three.transfers() == [("warm", "declined", "", 0)]
        assert party.gone
        assert three.records.of(Bridged) == []


def _not_allowed(three: ThreeParties) -> None:
    three.head = "targets: ['3*']"


def _no_place(three: ThreeParties) -> None:
    three.placed.fails = [CapacityError("4 of 4 calls")]


def _no_trunk(three: ThreeParties) -> None:
    three.placed.refuses = CallerError("no trunk carries it")


@pytest.mark.parametrize(("how", "transfers"), [(_not_allowed, []), (_no_place, [503]), (_no_trunk, [400])])
@virtual
async def test_a_target_that_cannot_be_called(
    tmp_path: Path, how: Callable[[ThreeParties], None], transfers: list[int]
) -> None:
    async with three_parties(tmp_path) as three:
        how(three)
        to = "'{header.x-to}'" if how is _not_allowed else "'200'"
        three.leg.can_replace = False
        three.begin((FLOW % "mode: attended").replace("'200'", to))
        await three.happens(lambda: three.converse.talks)
        talk = three.converse.talks[0]
        assert await fetching(talk) == "failed"
        assert three.transfers() == [("attended", "failed", "", code) for code in transfers]
        talk.outcome.set_result(AgentOutcome("done"))
        await three.over()


@pytest.mark.parametrize("kind", ["done", "failed", "silence"])
@virtual
async def test_a_target_that_answers_as_the_conversation_ends_still_gets_the_caller(tmp_path: Path, kind: Any) -> None:
    async with three_parties(tmp_path) as three:
        talk = await talking(three)
        fetch = fetching(talk)
        party = await three.party()
        party.picks_up()
        assert await fetch == "answered"
        talk.outcome.set_result(AgentOutcome(kind))
        await three.happens(lambda: hear_each_other(three.leg, party))
        party.peer_leaves()
        assert await three.over() == "callee_hangup"
        assert three.left() == [("agent", "answered")]


@virtual
async def test_a_caller_who_leaves_as_the_target_answers(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        talk = await talking(three)
        fetch = fetching(talk)
        party = await three.party()
        party.picks_up()
        assert await fetch == "answered"
        three.leg.peer_leaves()
        assert await three.over() == "caller_hangup"
        assert three.transfers() == [("attended", "caller_gone", "", 0)]
        assert party.gone


@virtual
async def test_a_target_that_leaves_before_it_has_the_caller(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        talk = await talking(three)
        fetch = fetching(talk)
        party = await three.party()
        party.picks_up()
        assert await fetch == "answered"
        party.peer_leaves()
        talk.outcome.set_result(AgentOutcome("transfer"))
        assert await three.over() == "callee_hangup"
        assert three.left() == [("agent", "answered")]


@virtual
async def test_a_call_in_early_media_is_answered_first(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        three.leg.can_replace = False
        call = three.begin((FLOW % "ring_s: 5").replace("[{agent", "[early, {agent"))
        await three.happens(lambda: three.converse.talks)
        assert not call.answered
        assert await fetching(three.converse.talks[0]) == "no_answer"
        assert three.leg.actions == ["early", "answer"]


@virtual
async def test_replaces_takes_us_out_as_ever(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        talk = await talking(three)
        three.leg.can_replace = True
        fetch = fetching(talk)
        (await three.party()).picks_up()
        assert await fetch == "answered"
        talk.outcome.set_result(AgentOutcome("transfer"))
        assert await three.over() == "transferred"
        assert three.transfers() == [("attended", "answered", "replaces", 200)]


# --- with the agent's own conversation --------------------------------------------------------------------------------


def with_agent(three: ThreeParties, *answers: list[Any], said: tuple[str, ...]) -> engines.FakeLlm:
    """The model first has the person called, then says these."""
    llm = engines.FakeLlm([engines.call("transfer", reason="the invoice")], [CALLING], *answers)
    three.engines = Engines(
        vad=engines.FakeVad(),
        stt={"whisper": engines.FakeStt(*said)},
        tts={"fake": three.tts, "piper": engines.FakeTts()},
        llm={"local": llm},
    )
    converse: Converse = partial(Conversation, clock=now_ns)
    three.converse = converse
    three.desk = "{prompt: Be nice., tools: [transfer, end_call]}"
    three.leg.can_replace = False
    return llm


async def speaks(three: ThreeParties, seconds: float = 0.8) -> None:
    await three.tick(round(seconds * 50), caller=engines.loud(20))


async def says(three: ThreeParties, text: str) -> None:
    await three.happens(lambda: any(spoken.text == text for spoken in three.records.of(Spoken)))


async def asks_for_a_person(three: ThreeParties, options: str = "mode: attended") -> PlacedLeg:
    three.begin(FLOW % options)
    await three.tick(10)
    await speaks(three)
    await says(three, CALLING)
    return await three.party()


@virtual
async def test_a_whole_conversation_first_nobody_then_somebody(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        again = [engines.call("transfer", reason="again")]
        llm = with_agent(three, ["They are busy."], again, ["Once more."], said=("a person", "try again"))
        party = await asks_for_a_person(three)
        party.refuses(486)
        await says(three, "They are busy.")
        assert llm.asked[2][0][-1].content == phrases.nobody_comes("busy")
        await speaks(three)
        await says(three, "Once more.")
        second = await three.party(2)
        second.picks_up()
        await breathe(50)
        assert hear_each_other(three.leg, second)
        await three.tick(5)
        assert not any(samples.any() for samples in three.leg.played[-4:]), "the agent is silent"
        second.peer_leaves()
        assert await three.over() == "callee_hangup"
        assert three.transfers() == [("attended", "busy", "", 486), ("attended", "answered", "bridge", 200)]
        assert three.left() == [("agent", "answered")]


@virtual
async def test_the_agent_speaks_on_while_it_rings_and_is_cut_by_the_answer(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        with_agent(three, ["This takes me quite a while to say."], said=("a person", "tell me more"))
        party = await asks_for_a_person(three, WARM)
        party.picks_up()
        await three.tick(10)
        await speaks(three)
        await three.tick(70)
        assert three.leg.played[-1].any(), "the caller hears the agent while the target decides"
        party.press("1")
        await breathe(50)
        assert hear_each_other(three.leg, party)
        assert not three.leg.playout.pending_ms
        party.peer_leaves()
        assert await three.over() == "callee_hangup"


@virtual
async def test_the_agent_ends_the_conversation_while_it_rings(tmp_path: Path) -> None:
    async with three_parties(tmp_path) as three:
        with_agent(three, [engines.call("end_call")], said=("a person", "never mind"))
        party = await asks_for_a_person(three)
        await speaks(three)
        assert await three.over() == "dialplan_hangup"
        assert party.actions[-1] == "hangup"
        assert three.transfers() == [("attended", "caller_gone", "", 0)]
        assert three.left() == [("agent", "done"), ("hangup", "done")]


@pytest.mark.parametrize("state", ["rings", "is asked", "is connected"])
@virtual
async def test_the_caller_hangs_up(tmp_path: Path, state: str) -> None:
    async with three_parties(tmp_path) as three:
        with_agent(three, said=("a person",))
        party = await asks_for_a_person(three, WARM)
        if state != "rings":
            party.picks_up()
            await three.tick(10)
        if state == "is connected":
            party.press("1")
            await three.happens(lambda: three.records.of(Bridged))
        three.leg.peer_leaves()
        assert await three.over() == "caller_hangup"
        assert three.transfers() == [
            ("warm", "answered", "bridge", 200) if state == "is connected" else ("warm", "caller_gone", "", 0)
        ]
        assert party.actions[-1] == "hangup"
        assert not three.records.of(Fault)


def _takes_it(leg: PlacedLeg) -> None:
    leg.progress(180)
    leg.picks_up()
    leg.press("1")


@pytest.mark.parametrize("turns", range(0, 60, 2))
@pytest.mark.parametrize("who", ["caller", "target", "drain"])
@virtual
async def test_the_call_may_end_at_any_await(tmp_path: Path, who: str, turns: int) -> None:
    """`three_parties` checks that no leg and no sound stays, `virtual` that no task does."""
    async with three_parties(tmp_path) as three:
        with_agent(three, said=("a person",))
        three.placed.script = _takes_it
        three.begin(FLOW % WARM)
        await three.tick(10)
        await speaks(three)
        await three.happens(lambda: three.records.of(TransferStarted))
        await breathe(turns)
        if who == "caller":
            three.leg.peer_leaves()
        elif who == "target" and three.placed.legs and not three.placed.legs[0].gone:
            three.placed.legs[0].peer_leaves()
        else:
            await three.registries[0].drain(0)
        if who == "target":
            await three.tick(100)
            await three.registries[0].drain(0)
        await three.over()
        assert len(three.transfers()) == len(three.records.of(TransferStarted))
        assert len(three.parted()) == len(three.placed.legs)
        assert not [fault for fault in three.records.of(events.Fault) if fault.where not in ("party-1", "transfer")]


@pytest.mark.parametrize("end", ["caller hangs up", "server stops"])
@virtual
async def test_a_target_that_is_slow_to_go_is_seen_out_whatever_comes_meanwhile(
    tmp_path: Path, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent has ended the conversation, and the CANCEL has no answer yet."""
    async with three_parties(tmp_path) as three:
        with_agent(three, [engines.call("end_call")], said=("a person", "never mind"))
        party = await asks_for_a_person(three)
        hanging_up = asyncio.Event()

        async def slowly(leg: PlacedLeg, code: int = 0) -> None:
            hanging_up.set()
            await asyncio.sleep(1)
            leg.peer_leaves()

        monkeypatch.setattr(PlacedLeg, "hangup", slowly)
        await speaks(three)
        await three.happens(hanging_up.is_set)
        assert not party.gone
        if end == "caller hangs up":
            three.leg.peer_leaves()
        else:
            await three.registries[0].drain(0)
        assert await three.over() == ("caller_hangup" if end == "caller hangs up" else "drain")
        assert party.gone
        assert three.transfers() == [("attended", "caller_gone", "", 0)]
        assert len(three.parted()) == 1
