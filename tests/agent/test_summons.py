"""A person is called while the agent goes on talking: what the model is told, and when the conversation ends."""

from __future__ import annotations

import asyncio

import pytest

from sipserver import events
from sipserver.agent import phrases
from sipserver.agent.llm.contract import Message
from tests.fakes.engines import FakeLlm, FakeStt, call
from tests.fakes.stage import Stage
from tests.fakes.virtual_time import virtual

TOOLS = ["transfer", "end_call"]
CALLING = "I am calling them."
LONG = "This takes me quite a while."


class FakeFetch:
    """Somebody is called until the test says what comes of it."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.cancelled = 0
        self._outcome: asyncio.Future[str] | None = None

    async def __call__(self, reason: str) -> str:
        self.reasons.append(reason)
        self._outcome = asyncio.get_running_loop().create_future()
        try:
            return await self._outcome
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    def comes(self, outcome: str | Exception) -> None:
        assert self._outcome is not None
        if isinstance(outcome, Exception):
            self._outcome.set_exception(outcome)
        else:
            self._outcome.set_result(outcome)


def thinking(*answers: list[object]) -> FakeLlm:
    """A model that first has somebody called, and then says these."""
    return FakeLlm([call("transfer", reason="the invoice")], [CALLING], *answers)  # type: ignore[arg-type]


def told(llm: FakeLlm, request: int = -1) -> Message:
    return llm.asked[request][0][-1]


async def calling(stage: Stage) -> None:
    """The caller has asked for a person, who is called, and the agent has said so."""
    await stage.sleep(100)
    await stage.phone.speak(800)
    await stage.next(events.Spoken, lambda spoken: spoken.text == CALLING)
    await stage.sleep(100)


@virtual
async def test_the_model_is_told_that_the_person_is_called_and_the_conversation_goes_on() -> None:
    fetch, llm = FakeFetch(), thinking(["It is noon."])
    async with Stage(stt=[FakeStt("a person please", "what time is it")], llm=[llm], fetch=fetch, tools=TOOLS) as stage:
        await calling(stage)
        assert fetch.reasons == ["the invoice"]
        assert told(llm).role == "tool"
        assert '"status": "calling"' in told(llm).content
        await stage.phone.speak(800)
        await stage.next(events.Spoken, lambda spoken: spoken.text == "It is noon.")
        assert not stage.task.done()
        fetch.comes("answered")
        outcome = await stage.outcome()
    assert (outcome.kind, outcome.detail) == ("transfer", "the invoice")
    assert [span.ok for span in stage.all(events.ToolSpan)] == [True]


@virtual
async def test_the_agent_falls_silent_in_the_moment_in_which_the_person_is_there() -> None:
    fetch, llm = FakeFetch(), thinking([LONG])
    async with Stage(stt=[FakeStt("a person please", "tell me more")], llm=[llm], fetch=fetch, tools=TOOLS) as stage:
        await calling(stage)
        await stage.phone.speak(800)
        await stage.sleep(1_000)
        assert stage.playout.pending_ms
        fetch.comes("answered")
        for _ in range(20):
            await asyncio.sleep(0)
        assert stage.task.done(), "only turns of the loop may pass, and no time"
        assert not stage.playout.pending_ms
        (spoken,) = [spoken for spoken in stage.all(events.Spoken) if spoken.text == LONG]
        assert 0 < spoken.heard_ms < spoken.audio_ms


@pytest.mark.parametrize("why", ["busy", "no_answer", "declined", "failed"])
@virtual
async def test_who_does_not_come_is_told_by_the_agent_itself(why: str) -> None:
    fetch, llm = FakeFetch(), thinking(["They are not there. Anything else?"], [call("transfer")], ["Once more."])
    async with Stage(stt=[FakeStt("a person please", "try again")], llm=[llm], fetch=fetch, tools=TOOLS) as stage:
        await calling(stage)
        fetch.comes(why)
        await stage.next(events.Spoken, lambda spoken: spoken.text == "Anything else?")
        assert told(llm) == Message("user", phrases.nobody_comes(why))
        assert not [text for text in stage.all(events.Transcript) if "telephone" in text.text], "nobody said that"
        await stage.phone.speak(800)
        await stage.next(events.Spoken, lambda spoken: spoken.text == "Once more.")
        assert fetch.reasons == ["the invoice", ""], "whoever did not come may be called again"
        fetch.comes("answered")
        assert (await stage.outcome()).kind == "transfer"


@virtual
async def test_the_agent_finishes_what_it_says_before_it_tells_that_nobody_comes() -> None:
    fetch, llm = FakeFetch(), thinking([LONG], ["Nobody is there."])
    async with Stage(stt=[FakeStt("a person please", "tell me more")], llm=[llm], fetch=fetch, tools=TOOLS) as stage:
        await calling(stage)
        await stage.phone.speak(800)
        await stage.sleep(1_000)
        fetch.comes("busy")
        await stage.next(events.Spoken, lambda spoken: spoken.text == "Nobody is there.")
    (spoken,) = [spoken for spoken in stage.all(events.Spoken) if spoken.text == LONG]
    assert spoken.complete
    assert [message.role for message in llm.asked[-1][0]][-2:] == ["assistant", "user"]


@virtual
async def test_a_caller_who_speaks_meanwhile_is_not_interrupted_and_hears_it_in_the_answer() -> None:
    fetch, llm = FakeFetch(), thinking(["They are busy. It is noon."])
    async with Stage(stt=[FakeStt("a person please", "what time is it")], llm=[llm], fetch=fetch, tools=TOOLS) as stage:
        await calling(stage)
        asked = len(llm.asked)
        speaking = asyncio.create_task(stage.phone.speak(2_000))
        await stage.sleep(1_000)
        fetch.comes("busy")
        await speaking
        assert len(llm.asked) == asked
        await stage.next(events.Spoken, lambda spoken: spoken.text == "It is noon.")
        assert told(llm).content == f"{phrases.nobody_comes('busy')} what time is it"
        await stage.sleep(3_000)
        assert len(llm.asked) == asked + 1, "it is told once"


@virtual
async def test_one_person_is_called_at_a_time() -> None:
    fetch, llm = FakeFetch(), thinking([call("transfer", reason="again")], ["They are being called."])
    async with Stage(stt=[FakeStt("a person please", "hurry up")], llm=[llm], fetch=fetch, tools=TOOLS) as stage:
        await calling(stage)
        await stage.phone.speak(800)
        await stage.next(events.Spoken, lambda spoken: spoken.text == "They are being called.")
        assert "error" in told(llm).content
        assert fetch.reasons == ["the invoice"]
    assert [span.ok for span in stage.all(events.ToolSpan)] == [True, False]
    assert fetch.cancelled == 1


@virtual
async def test_silence_ends_nothing_while_somebody_is_called() -> None:
    fetch, llm = FakeFetch(), thinking()
    async with Stage(
        stt=[FakeStt("a person please")], llm=[llm], fetch=fetch, tools=TOOLS, silence_s=5, max_nudges=0
    ) as stage:
        await calling(stage)
        for _ in range(4):
            await stage.next(events.Spoken, lambda spoken: spoken.text == phrases.calling("en"))
        fetch.comes("no_answer")
        assert (await stage.outcome()).kind == "silence", "afterwards it does, as ever"
    assert told(llm) == Message("user", phrases.nobody_comes("no_answer"))


@pytest.mark.parametrize("how", ["done", "max_duration", "cancelled"])
@virtual
async def test_a_conversation_that_ends_calls_nobody_any_more(how: str) -> None:
    fetch, llm = FakeFetch(), thinking([call("end_call")])
    async with Stage(
        stt=[FakeStt("a person please", "never mind")], llm=[llm], fetch=fetch, tools=TOOLS, max_duration_s=60
    ) as stage:
        await calling(stage)
        if how == "done":
            await stage.phone.speak(800)
        elif how == "cancelled":
            stage.task.cancel()
            await asyncio.wait({stage.task})
        if how != "cancelled":
            assert (await stage.outcome()).kind == how
        assert fetch.cancelled == 1


@virtual
async def test_a_call_that_breaks_ends_the_conversation_with_an_apology() -> None:
    fetch, llm = FakeFetch(), thinking()
    async with Stage(stt=[FakeStt("a person please")], llm=[llm], fetch=fetch, tools=TOOLS) as stage:
        await calling(stage)
        fetch.comes(RuntimeError("broken"))
        assert (await stage.outcome()).kind == "failed"
    assert [fault.where for fault in stage.all(events.Fault)] == ["fetch"]


@virtual
async def test_a_person_who_comes_during_the_apology_still_gets_the_caller() -> None:
    fetch, llm = FakeFetch(), thinking([RuntimeError("the model broke")])
    async with Stage(stt=[FakeStt("a person please", "and now")], llm=[llm], fetch=fetch, tools=TOOLS) as stage:
        await calling(stage)
        await stage.phone.speak(800)
        await stage.next(events.Fault)
        await stage.sleep(300)
        assert not stage.task.done()
        fetch.comes("answered")
        assert (await stage.outcome()).kind == "transfer"


@virtual
async def test_a_model_without_tools_has_somebody_called_by_what_the_caller_says() -> None:
    fetch, llm = FakeFetch(), FakeLlm(["Nobody is there. Anything else?"], tools=False)
    async with Stage(stt=[FakeStt("I want to talk to a human")], llm=[llm], fetch=fetch, tools=TOOLS) as stage:
        await stage.sleep(100)
        await stage.phone.speak(800)
        await stage.next(events.Spoken, lambda spoken: "calling somebody for you" in spoken.text)
        assert len(fetch.reasons) == 1
        await stage.phone.speak(800)
        await stage.next(events.Spoken, lambda spoken: "calling somebody for you" in spoken.text)
        assert len(fetch.reasons) == 1
        assert not llm.asked
        await stage.sleep(500)
        fetch.comes("declined")
        await stage.next(events.Spoken, lambda spoken: spoken.text == "Anything else?")
        assert told(llm) == Message("user", phrases.nobody_comes("declined"))
        assert len(fetch.reasons) == 1


@pytest.mark.parametrize("language", ["en", "de", "fr", "es", "it"])
@pytest.mark.parametrize("why", ["busy", "no_answer", "declined", "failed"])
def test_the_news_is_no_wish_in_any_language(why: str, language: str) -> None:
    assert phrases.wish(phrases.nobody_comes(why), language) is None
