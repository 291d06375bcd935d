"""Whole conversations in virtual time: every outcome, the order of things, what the caller hears and when."""

from __future__ import annotations

from sipserver import events
from tests.fakes.engines import FakeLlm, FakeStt, FakeTts, call
from tests.fakes.stage import FakeDigits, Stage
from tests.fakes.virtual_time import virtual


@virtual
async def test_a_greeting_a_question_and_an_answer() -> None:
    llm = FakeLlm(["We are open, from nine to five. Anything else?"])
    async with Stage(stt=[FakeStt("when are you open")], llm=[llm], greeting="Hello. How can I help?") as stage:
        await stage.next(events.Spoken, lambda spoken: spoken.text == "How can I help?")
        await stage.phone.speak(1000)
        await stage.next(events.Spoken, lambda spoken: spoken.text == "Anything else?")
        latency = stage.all(events.TurnLatency)
    assert [spoken.text for spoken in stage.all(events.Spoken)] == [
        "Hello.",
        "How can I help?",
        "We are open,",
        "from nine to five.",
        "Anything else?",
    ]
    assert all(spoken.complete for spoken in stage.all(events.Spoken))
    roles = [(message.role, message.content) for message in llm.asked[0][0]]
    assert roles == [
        ("system", "You answer the phone."),
        ("assistant", "Hello. How can I help?"),
        ("user", "when are you open"),
    ]
    assert len(latency) == 1
    assert latency[0].speculative
    assert latency[0].playout_ms <= 40
    assert latency[0].total_ms <= latency[0].endpoint_ms + 40
    finals = [(transcript.text, transcript.final) for transcript in stage.all(events.Transcript)]
    assert finals == [("when are you open", False), ("when are you open", True)]


@virtual
async def test_silence_is_nudged_and_then_ends_it() -> None:
    async with Stage(silence_s=5, max_nudges=2) as stage:
        outcome = await stage.outcome()
    assert outcome.kind == "silence"
    assert [spoken.text for spoken in stage.all(events.Spoken)] == ["Are you still there?"] * 2


@virtual
async def test_an_answer_of_the_caller_resets_the_nudges() -> None:
    async with Stage(silence_s=5, max_nudges=1) as stage:
        await stage.next(events.Spoken)
        await stage.phone.speak(500)
        await stage.next(events.TurnLatency)
        await stage.next(events.Spoken, lambda spoken: spoken.text == "Are you still there?")
        outcome = await stage.outcome()
    assert outcome.kind == "silence"


@virtual
async def test_it_ends_at_its_maximum_duration() -> None:
    async with Stage(max_duration_s=7, greeting="Hello.") as stage:
        outcome = await stage.outcome()
    assert outcome.kind == "max_duration"
    assert stage.all(events.WatchdogFired)[0].watchdog == "max_duration"


@virtual
async def test_the_model_ends_the_call_after_its_words_were_heard() -> None:
    llm = FakeLlm(["Thank you for calling.", call("end_call")])
    async with Stage(llm=[llm]) as stage:
        await stage.phone.speak(500)
        outcome = await stage.outcome()
        heard = stage.all(events.Spoken)
    assert outcome.kind == "done"
    assert [spoken.heard for spoken in heard] == ["Thank you for calling."]
    assert stage.all(events.ToolSpan)[0].name == "end_call"


@virtual
async def test_a_farewell_given_to_the_tool_is_spoken() -> None:
    async with Stage(llm=[FakeLlm([call("end_call", farewell="Have a nice day!")])]) as stage:
        await stage.phone.speak(500)
        outcome = await stage.outcome()
    assert outcome.kind == "done"
    assert [spoken.heard for spoken in stage.all(events.Spoken)] == ["Have a nice day!"]


@virtual
async def test_the_model_hands_the_caller_over() -> None:
    llm = FakeLlm(["I will connect you.", call("transfer", reason="wants a refund")])
    async with Stage(llm=[llm], tools=("transfer",)) as stage:
        await stage.phone.speak(500)
        outcome = await stage.outcome()
    assert (outcome.kind, outcome.detail) == ("transfer", "wants a refund")


@virtual
async def test_a_model_without_tools_still_lets_the_caller_leave() -> None:
    llm = FakeLlm(tools=False)
    async with Stage(stt=[FakeStt("No thanks, good bye.")], llm=[llm]) as stage:
        await stage.phone.speak(500)
        outcome = await stage.outcome()
    assert outcome.kind == "done"
    assert llm.asked == []


@virtual
async def test_a_model_without_tools_still_lets_the_caller_ask_for_a_person() -> None:
    async with Stage(
        stt=[FakeStt("Can I talk to a human please?")], llm=[FakeLlm(tools=False)], tools=("end_call", "transfer")
    ) as stage:
        await stage.phone.speak(500)
        outcome = await stage.outcome()
    assert outcome.kind == "transfer"


@virtual
async def test_digits_are_collected_for_the_model() -> None:
    llm = FakeLlm(
        ["Please type your number.", call("collect_digits", count=4)],
        lambda messages: [f"Thank you, I got {messages[-1].content}."],
    )
    digits = FakeDigits("1234", after_s=3)
    async with Stage(llm=[llm], digits=digits, tools=("collect_digits",)) as stage:
        await stage.phone.speak(500)
        await stage.next(events.Spoken, lambda spoken: "1234" in spoken.text)
        texts = [spoken.text for spoken in stage.all(events.Spoken)]
    count, timeout_s = digits.asked[0]
    assert count == 4
    assert 11 <= timeout_s <= 12, "ten seconds and the time that the request takes to be heard"
    assert "One moment please." not in texts
    assert [message.role for message in llm.asked[1][0]] == ["system", "user", "assistant", "tool"]


@virtual
async def test_typed_digits_are_a_turn() -> None:
    llm = FakeLlm(["You typed them."])
    async with Stage(llm=[llm], greeting="Welcome to a greeting that takes quite a while to be spoken.") as stage:
        await stage.sleep(500)
        stage.conversation.digit("4")
        await stage.sleep(300)
        stage.conversation.digit("2")
        await stage.next(events.Spoken)
    assert llm.asked[0][0][-1].content == "I typed 4 2 on the telephone."
    assert stage.all(events.TurnEnded)[0].reason == "digits"
    assert not stage.all(events.Spoken)[0].complete


@virtual
async def test_without_a_voice_nothing_is_asked_of_anybody() -> None:
    async with Stage() as stage:
        await stage.sleep(8000)
    assert stage.stt[0].asked == []
    assert stage.llm[0].asked == []


@virtual
async def test_cancelled_in_the_middle_of_a_word_it_leaves_nothing() -> None:
    async with Stage(greeting="Hello, this greeting takes a while.") as stage:
        await stage.sleep(500)
        stage.task.cancel()
        await stage.sleep(40)
        assert stage.phone.silent_since_ms() >= 20
    spoken = stage.all(events.Spoken)[0]
    assert not spoken.complete
    assert spoken.text.startswith(spoken.heard)


@virtual
async def test_the_answer_is_in_the_callers_language_when_a_voice_speaks_it() -> None:
    stt = FakeStt("Wann haben Sie geöffnet?", detected="de")
    espeak = FakeTts(name="espeak", languages=None)
    llm = FakeLlm(["Von neun bis fünf."])
    async with Stage(stt=[stt], tts=[FakeTts(name="piper"), espeak], llm=[llm], language="auto") as stage:
        await stage.phone.speak(800)
        await stage.next(events.Spoken)
    assert stt.asked[0][1] == "auto"
    assert ("Von neun bis fünf.", "", "de") in espeak.spoken
    assert llm.asked[0][0][0].content.endswith("Answer in German.")


@virtual
async def test_two_turns_that_the_agent_had_no_chance_to_answer_are_one() -> None:
    llm = FakeLlm([1.2, "Fine."])
    async with Stage(stt=[FakeStt("I would like", "a table for two")], llm=[llm]) as stage:
        await stage.phone.speak(500)
        await stage.next(events.TurnEnded)
        await stage.sleep(300)
        await stage.phone.speak(700)
        await stage.next(events.Spoken)
    assert llm.asked[-1][0][-1].content == "I would like a table for two"


@virtual
async def test_an_empty_answer_of_the_model_is_answered_with_a_question() -> None:
    async with Stage(llm=[FakeLlm([])]) as stage:
        await stage.phone.speak(500)
        spoken = await stage.next(events.Spoken)
    assert spoken.text == "Sorry, I did not understand you."


@virtual
async def test_a_bug_is_a_fault_in_the_record_and_ends_it() -> None:
    async with Stage(stt=[FakeStt(KeyError("oops"))]) as stage:
        await stage.phone.speak(500)
        outcome = await stage.outcome()
    assert outcome.kind == "failed"
    assert "KeyError" in stage.all(events.Fault)[0].error
