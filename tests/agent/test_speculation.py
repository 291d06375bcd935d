"""What is prepared in a short silence: kept when the turn ends, thrown away when the caller goes on."""

from __future__ import annotations

from sipserver import events
from tests.fakes.engines import FakeLlm, FakeStt, FakeTts, call
from tests.fakes.stage import Stage
from tests.fakes.virtual_time import virtual


def states(stage: Stage) -> list[tuple[str, str]]:
    return [(event.state, event.reason) for event in stage.all(events.Speculation)]


@virtual
async def test_nothing_is_heard_and_only_the_first_clause_is_spoken_before_the_turn_ends() -> None:
    tts = FakeTts()
    llm = FakeLlm(["Yes, we are open until five. Come in."])
    async with Stage(tts=[tts], llm=[llm], turn={"end_silence_ms": 1500}, filler="", apology="", nudge="") as stage:
        await stage.sleep(500)
        spoken_before = len(tts.spoken)
        await stage.phone.speak(500)
        await stage.sleep(1300)
        assert not any(stage.phone.sounds)
        assert [text for text, _, _ in tts.spoken[spoken_before:]] == ["Yes,"]
        ended = await stage.next(events.TurnEnded)
        latency = await stage.next(events.TurnLatency)
        assert stage.at_ms(latency) - stage.at_ms(ended) <= 20
    assert states(stage) == [("started", ""), ("kept", "")]


@virtual
async def test_the_caller_goes_on_and_model_and_voice_are_cancelled() -> None:
    llm = FakeLlm([0.2, "First,", 5.0], ["Second."])
    async with Stage(stt=[FakeStt("I want", "I want a table")], llm=[llm]) as stage:
        await stage.phone.speak(500)
        await stage.sleep(330)
        await stage.phone.speak(500)
        spoken = await stage.next(events.Spoken)
        assert llm.cancelled == 1
    assert spoken.text == "Second."
    assert states(stage)[:2] == [("started", ""), ("discarded", "caller_went_on")]
    assert [message.content for message in llm.asked[1][0][1:]] == ["I want a table"]
    assert [transcript.text for transcript in stage.all(events.Transcript) if transcript.final] == ["I want a table"]


@virtual
async def test_a_tool_is_not_run_on_speculation() -> None:
    llm = FakeLlm([call("transfer")])
    async with Stage(llm=[llm], tools=("transfer",), turn={"end_silence_ms": 1500}) as stage:
        await stage.phone.speak(500)
        await stage.sleep(1300)
        assert not stage.all(events.ToolSpan)
        outcome = await stage.outcome()
    assert outcome.kind == "transfer"


@virtual
async def test_speculation_that_is_not_ready_goes_on_and_sounds_as_soon_as_it_can() -> None:
    async with Stage(stt=[FakeStt("hello", delay_s=0.6)]) as stage:
        await stage.phone.speak(500)
        latency = await stage.next(events.TurnLatency)
    assert latency.speculative
    assert len(stage.stt[0].asked) == 1
    assert latency.playout_ms <= 40
    assert [transcript.final for transcript in stage.all(events.Transcript)] == [True]


@virtual
async def test_no_words_in_it_is_no_turn() -> None:
    async with Stage(stt=[FakeStt("")], silence_s=3, nudge="") as stage:
        await stage.phone.speak(200)
        outcome = await stage.outcome()
    assert outcome.kind == "silence"
    assert stage.llm[0].asked == []


@virtual
async def test_without_room_for_it_there_is_none() -> None:
    async with Stage(turn={"end_silence_ms": 200, "speculate_after_ms": 900}) as stage:
        await stage.phone.speak(500)
        latency = await stage.next(events.TurnLatency)
    assert not latency.speculative
    assert states(stage) == []
    overhead = latency.total_ms - latency.endpoint_ms - latency.stt_ms - latency.llm_ms - latency.tts_ms
    assert overhead <= 40


@virtual
async def test_digits_discard_it() -> None:
    async with Stage(turn={"end_silence_ms": 1500}) as stage:
        await stage.phone.speak(500)
        await stage.next(events.Speculation)
        stage.conversation.digit("1")
        await stage.next(events.TurnLatency)
    assert states(stage)[1] == ("discarded", "digits")
