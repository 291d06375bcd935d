"""The caller makes a sound while the agent speaks: paused at once, judged in time, resumed or cut."""

from __future__ import annotations

from sipserver import events
from tests.fakes.engines import FakeLlm, FakeStt, call
from tests.fakes.stage import Stage
from tests.fakes.virtual_time import virtual

GREETING = "Hello and welcome to the longest greeting that anybody has ever heard on a telephone line."


async def into_the_greeting(stage: Stage, milliseconds: int = 1000) -> None:
    await stage.sleep(milliseconds)


def decisions(stage: Stage) -> list[str]:
    return [event.decision for event in stage.all(events.BargeIn)]


@virtual
async def test_the_agent_is_silent_soon_after_the_first_loud_frame() -> None:
    async with Stage(greeting=GREETING) as stage:
        await into_the_greeting(stage)
        await stage.phone.speak(140)
        assert stage.phone.silent_since_ms() >= 40


@virtual
async def test_a_click_only_makes_it_hesitate() -> None:
    async with Stage(greeting=GREETING) as stage:
        await into_the_greeting(stage)
        await stage.phone.speak(40)
        spoken = await stage.next(events.Spoken)
        assert stage.stt[0].asked == []
    assert decisions(stage) == ["paused", "noise"]
    assert spoken.complete
    paused, resumed = stage.all(events.BargeIn)
    assert stage.at_ms(resumed) - stage.at_ms(paused) <= 100
    assert not stage.all(events.VoiceStarted)


@virtual
async def test_a_listeners_noise_lets_it_go_on_where_it_stopped() -> None:
    async with Stage(stt=[FakeStt("Mhm, yeah.")], greeting=GREETING) as stage:
        await into_the_greeting(stage)
        await stage.phone.speak(200)
        spoken = await stage.next(events.Spoken)
    assert decisions(stage) == ["paused", "backchannel"]
    assert spoken.complete
    assert not stage.all(events.TurnEnded)


@virtual
async def test_a_cough_without_words_is_a_noise() -> None:
    async with Stage(stt=[FakeStt("")], greeting=GREETING) as stage:
        await into_the_greeting(stage)
        await stage.phone.speak(200)
        await stage.next(events.Spoken)
    assert decisions(stage) == ["paused", "noise"]


@virtual
async def test_a_word_is_a_turn_and_the_model_knows_what_was_heard() -> None:
    llm = FakeLlm(["Of course."])
    async with Stage(stt=[FakeStt("stop please")], llm=[llm], greeting=GREETING) as stage:
        await into_the_greeting(stage, 2000)
        await stage.phone.speak(200)
        cut = await stage.next(events.Spoken)
        await stage.next(events.Spoken, lambda spoken: spoken.text == "Of course.")
    assert decisions(stage) == ["paused", "speech"]
    assert not cut.complete
    assert GREETING.startswith(cut.heard)
    assert 1600 <= cut.heard_ms <= 2100
    assistant, user = llm.asked[0][0][1:]
    assert (assistant.role, assistant.content) == ("assistant", cut.heard)
    assert user.content == "stop please"
    assert len(stage.stt[0].asked) == 1, "what was transcribed for the judgement is not transcribed again"


@virtual
async def test_whoever_keeps_speaking_gets_the_floor_when_the_time_is_over() -> None:
    async with Stage(greeting=GREETING, turn={"decide_ms": 400}) as stage:
        await into_the_greeting(stage)
        await stage.phone.speak(1500)
        await stage.next(events.TurnLatency)
    paused, speech = stage.all(events.BargeIn)
    assert speech.decision == "speech"
    assert stage.at_ms(speech) - stage.at_ms(paused) == 400
    assert stage.stt[0].asked[0][0] >= 1700, "the turn contains the sound from before the judgement"


@virtual
async def test_a_short_sound_whose_transcript_is_late_is_judged_by_its_length() -> None:
    async with Stage(stt=[FakeStt("mhm", delay_s=1)], greeting=GREETING) as stage:
        await into_the_greeting(stage)
        await stage.phone.speak(160)
        await stage.next(events.Spoken)
    assert decisions(stage) == ["paused", "noise"]


@virtual
async def test_a_late_transcript_with_words_stops_the_agent_after_all() -> None:
    async with Stage(stt=[FakeStt("stop", delay_s=0.7)], greeting=GREETING) as stage:
        await into_the_greeting(stage)
        await stage.phone.speak(160)
        await stage.next(events.Spoken, lambda spoken: not spoken.complete)
        await stage.next(events.Spoken)
    assert decisions(stage) == ["paused", "noise", "speech"]


@virtual
async def test_a_longer_sound_whose_transcript_is_late_is_speech() -> None:
    async with Stage(stt=[FakeStt("stop it", delay_s=1)], greeting=GREETING) as stage:
        await into_the_greeting(stage)
        await stage.phone.speak(300)
        await stage.next(events.TurnLatency)
    assert decisions(stage) == ["paused", "speech"]


@virtual
async def test_a_turn_that_ends_before_the_judgement_waits_for_it() -> None:
    turn = {"end_silence_ms": 100, "decide_ms": 1500}
    async with Stage(stt=[FakeStt("stop it", delay_s=0.5)], greeting=GREETING, turn=turn) as stage:
        await into_the_greeting(stage)
        await stage.phone.speak(300)
        await stage.next(events.TurnLatency)
    assert decisions(stage) == ["paused", "speech"]
    assert len(stage.all(events.TurnEnded)) == 1


@virtual
async def test_going_on_after_a_breath_drops_the_first_transcript() -> None:
    stt = FakeStt("never", delay_s=0.3)
    async with Stage(stt=[stt], greeting=GREETING, turn={"decide_ms": 900}) as stage:
        await into_the_greeting(stage)
        await stage.phone.speak(200)
        await stage.sleep(200)
        await stage.phone.speak(1000)
        assert decisions(stage) == ["paused", "speech"]
        assert stt.cancelled == 1


@virtual
async def test_with_barge_in_off_the_agent_speaks_on() -> None:
    async with Stage(greeting=GREETING, turn={"barge_in": "off"}) as stage:
        await into_the_greeting(stage)
        await stage.phone.speak(1000)
        spoken = await stage.next(events.Spoken)
        assert spoken.complete
        await stage.phone.speak(500)
        await stage.next(events.TurnLatency)
    assert decisions(stage) == []
    assert len(stage.all(events.VoiceStarted)) == 1


@virtual
async def test_an_interrupted_farewell_does_not_end_the_call() -> None:
    llm = FakeLlm(["Good bye and thank you very much for calling us today.", call("end_call")], ["Yes?"])
    async with Stage(stt=[FakeStt("that is it", "wait one more thing")], llm=[llm]) as stage:
        await stage.phone.speak(500)
        await stage.next(events.TurnLatency)
        await stage.sleep(600)
        await stage.phone.speak(900)
        await stage.next(events.Spoken, lambda spoken: spoken.text == "Yes?")
        assert not stage.task.done()
    messages = llm.asked[1][0]
    assert messages[-1].content == "wait one more thing"
    assert messages[-2].content != "Good bye and thank you very much for calling us today."


@virtual
async def test_a_cough_while_the_agent_thinks_does_not_lose_the_question() -> None:
    llm = FakeLlm([1.3, "It is noon."])
    async with Stage(stt=[FakeStt("what time is it", "")], llm=[llm], filler="") as stage:
        await stage.phone.speak(500)
        await stage.next(events.TurnEnded)
        await stage.sleep(100)
        await stage.phone.speak(700)
        spoken = await stage.next(events.Spoken)
    assert spoken.text == "It is noon."
    assert llm.asked[-1][0][-1].content == "what time is it"


@virtual
async def test_a_voice_that_began_before_the_agent_took_the_floor_is_judged_like_any_other() -> None:
    async with Stage(stt=[FakeStt("wait a moment")]) as stage:
        stage.conversation.digit("1")
        await stage.sleep(1300)
        await stage.phone.speak(900)
        await stage.next(events.TurnEnded, lambda ended: ended.reason == "silence")
        await stage.next(events.TurnLatency)
    assert decisions(stage) == ["paused", "speech"]
    assert "wait a moment" in stage.llm[0].asked[-1][0][-1].content


@virtual
async def test_a_late_transcript_does_not_answer_for_a_caller_who_speaks_again() -> None:
    llm = FakeLlm(["Yes?"])
    async with Stage(stt=[FakeStt("stop", "stop it now", delay_s=0.6)], llm=[llm], greeting=GREETING) as stage:
        await into_the_greeting(stage)
        await stage.phone.speak(160)
        await stage.sleep(480)
        await stage.phone.speak(900)
        await stage.next(events.Spoken, lambda spoken: spoken.text == "Yes?")
    assert decisions(stage) == ["paused", "noise", "paused", "speech"]
    assert llm.asked[-1][0][-1].content == "stop it now"


@virtual
async def test_a_sound_over_the_last_word_does_not_keep_the_playout_paused() -> None:
    async with Stage(stt=[FakeStt("")], greeting="Hello there.", silence_s=5) as stage:
        await stage.sleep(550)
        await stage.phone.speak(200)
        await stage.next(events.BargeIn, lambda event: event.decision == "noise")
        assert not stage.playout.paused
        await stage.next(events.Spoken, lambda spoken: spoken.text == "Are you still there?")
