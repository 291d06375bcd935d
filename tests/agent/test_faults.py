"""Engines that fail in the middle of a conversation: who takes over, what the caller hears meanwhile, how it ends."""

from __future__ import annotations

from itertools import pairwise

import pytest

from sipserver import events
from sipserver.agent.voice import AudioCache
from sipserver.errors import ProviderBusy, ProviderRejected, ProviderTimeout
from sipserver.events import Event
from tests.fakes.engines import FakeLlm, FakeStt, FakeTts, call
from tests.fakes.stage import Stage
from tests.fakes.virtual_time import virtual

NEVER_S = 10_000.0


def longest_silence_ms(stage: Stage, after: Event) -> int:
    """The longest time without sound from an event until the last sound."""
    first = stage.at_ms(after) // 20
    loud = [first, *(index for index, sound in enumerate(stage.phone.sounds) if sound and index >= first)]
    return max(20 * (right - left) for left, right in pairwise(loud))


@virtual
async def test_stt_times_out_and_the_next_one_hears() -> None:
    slow = FakeStt(name="slow", delay_s=NEVER_S)
    async with Stage(stt=[slow, FakeStt("hello", name="quick")], provider_timeout_s=1) as stage:
        await stage.phone.speak(800)
        await stage.next(events.TurnLatency)
        failed = stage.all(events.ProviderFailed)[0]
        assert (failed.part, failed.engine, failed.next) == ("stt", "slow", "quick")
        await stage.next(events.Spoken)
        asked = len(slow.asked)
        await stage.phone.speak(800)
        await stage.next(events.TurnLatency)
    assert len(slow.asked) == asked, "an engine that has just failed is not waited for again"


@virtual
async def test_no_stt_at_all_ends_in_failed_with_an_apology_within_three_seconds() -> None:
    async with Stage(stt=[FakeStt(delay_s=NEVER_S)]) as stage:
        await stage.phone.speak(800)
        ended = await stage.next(events.TurnEnded)
        outcome = await stage.outcome()
        assert outcome.kind == "failed"
        assert [spoken.heard for spoken in stage.all(events.Spoken)] == [
            "One moment please.",
            "Sorry, I have a technical problem.",
        ]
        assert longest_silence_ms(stage, ended) <= 3000


@virtual
async def test_a_busy_stt_loses_the_speculation_and_not_the_turn() -> None:
    stt = FakeStt(ProviderBusy("stt", "queue full"), "hello")
    async with Stage(stt=[stt]) as stage:
        await stage.phone.speak(800)
        latency = await stage.next(events.TurnLatency)
    assert not latency.speculative
    assert [event.state for event in stage.all(events.Speculation)] == ["started", "discarded"]


@virtual
async def test_the_model_says_nothing_and_the_next_one_answers() -> None:
    llms = [FakeLlm([NEVER_S], name="hangs"), FakeLlm(["Here I am."], name="answers")]
    async with Stage(llm=llms, provider_timeout_s=1) as stage:
        await stage.phone.speak(800)
        await stage.next(events.Spoken, lambda spoken: spoken.text == "Here I am.")
    assert [span.outcome for span in stage.all(events.ModelSpan)] == ["failed", "complete"]


@virtual
async def test_the_model_dies_in_the_middle_and_the_next_one_goes_on() -> None:
    dying = FakeLlm(["We are open, from nine", ProviderRejected("dying", "connection lost")], name="dying")
    other = FakeLlm(["to five every day."], name="other")
    async with Stage(llm=[dying, other]) as stage:
        await stage.phone.speak(800)
        await stage.next(events.Spoken, lambda spoken: spoken.text.endswith("every day."))
        texts = " ".join(spoken.text for spoken in stage.all(events.Spoken))
    assert texts == "We are open, from nine to five every day."
    assert [message.role for message in other.asked[0][0]] == ["system", "user", "assistant", "user"]


@virtual
async def test_the_model_dies_in_the_middle_and_nobody_is_left() -> None:
    async with Stage(llm=[FakeLlm(["One thing, and another", ProviderTimeout("llm", "gone")])]) as stage:
        await stage.phone.speak(800)
        outcome = await stage.outcome()
        texts = [spoken.heard for spoken in stage.all(events.Spoken)]
    assert outcome.kind == "failed"
    assert texts == ["One thing,", "Sorry, I have a technical problem."]


@virtual
async def test_no_model_answers_in_time() -> None:
    async with Stage(llm=[FakeLlm([NEVER_S])]) as stage:
        await stage.phone.speak(800)
        ended = await stage.next(events.TurnEnded)
        outcome = await stage.outcome()
        assert outcome.kind == "failed"
        assert longest_silence_ms(stage, ended) <= 3000


@pytest.mark.parametrize("dies_after", [0, 1])
def test_the_voice_dies_and_the_next_one_says_the_clause(dies_after: int) -> None:
    @virtual
    async def scene() -> None:
        dead = FakeTts(name="dead", error=ProviderRejected("dead", "crashed"), dies_after=dies_after)
        async with Stage(tts=[dead, FakeTts(name="alive")], llm=[FakeLlm(["Good morning to you."])]) as stage:
            await stage.phone.speak(800)
            spoken = await stage.next(events.Spoken)
        assert spoken.complete
        failed = next(event for event in stage.all(events.ProviderFailed) if event.part == "tts")
        assert (failed.engine, failed.next) == ("dead", "alive")

    scene()


@virtual
async def test_a_voice_that_synthesises_silence_has_failed() -> None:
    async with Stage(tts=[FakeTts(name="mute", silent=True), FakeTts(name="alive")], greeting="Good morning.") as stage:
        await stage.next(events.Spoken)
        assert any(stage.phone.sounds)
    fired = stage.all(events.WatchdogFired)[0]
    assert (fired.watchdog, fired.action) == ("agent_silent", "fallback")


@virtual
async def test_without_any_voice_it_fails_at_once() -> None:
    async with Stage(tts=[FakeTts(error=ProviderRejected("tts", "no device"))], greeting="Hello.") as stage:
        outcome = await stage.outcome()
    assert outcome.kind == "failed"


@virtual
async def test_the_apology_is_heard_although_the_voice_died_meanwhile() -> None:
    tts = FakeTts()
    async with Stage(tts=[tts], llm=[FakeLlm(["Hello, caller."])], cache=AudioCache()) as stage:
        await stage.sleep(1000)
        tts.error = ProviderRejected("tts", "crashed")
        await stage.phone.speak(500)
        outcome = await stage.outcome()
        heard = [spoken.heard for spoken in stage.all(events.Spoken)]
    assert outcome.kind == "failed"
    assert heard == ["Sorry, I have a technical problem."]


@virtual
async def test_a_slow_model_is_covered_by_the_filler() -> None:
    async with Stage(llm=[FakeLlm([2.5, "Here you are."])], filler_ms=800) as stage:
        await stage.phone.speak(800)
        ended = await stage.next(events.TurnEnded)
        await stage.next(events.Spoken, lambda spoken: spoken.text == "Here you are.")
        texts = [spoken.text for spoken in stage.all(events.Spoken)]
        assert texts == ["One moment please.", "Here you are."]
        assert longest_silence_ms(stage, ended) <= 1000


@virtual
async def test_the_agent_is_stuck_and_tries_once_more_before_it_gives_up() -> None:
    async with Stage(provider_timeout_s=1, greeting="Hello.", max_duration_s=60) as stage:
        stage.phone.stuck = True
        outcome = await stage.outcome()
    assert outcome.kind == "failed"
    fired = [(event.watchdog, event.action) for event in stage.all(events.WatchdogFired)]
    assert fired == [("agent_silent", "retry"), ("agent_silent", "failed")]


@virtual
async def test_a_media_clock_that_recovers_saves_the_answer() -> None:
    llm = FakeLlm(["Here I am."])
    async with Stage(llm=[llm], provider_timeout_s=1) as stage:
        stage.phone.stuck = True
        await stage.phone.speak(500)
        await stage.next(events.WatchdogFired)
        stage.phone.stuck = False
        spoken = await stage.next(events.Spoken, lambda spoken: spoken.complete)
    assert spoken.text == "Here I am."
    assert [message.content for message in llm.asked[-1][0]] == ["You answer the phone.", "hello"]


@virtual
async def test_a_voice_without_words_is_asked_again_and_at_last_given_up() -> None:
    async with Stage(stt=[FakeStt("")]) as stage:
        for _ in range(2):
            await stage.phone.speak(600)
            await stage.next(events.TurnEnded)
        await stage.next(events.Spoken, lambda spoken: spoken.text == "Sorry, I did not understand you.")
        for _ in range(2):
            await stage.phone.speak(600)
            await stage.next(events.TurnEnded)
        outcome = await stage.outcome()
    assert outcome.kind == "failed"
    fired = [(event.watchdog, event.action) for event in stage.all(events.WatchdogFired)]
    assert fired == [("caller_unheard", "retry"), ("caller_unheard", "failed")]


@virtual
async def test_an_unknown_engine_fails_with_its_name() -> None:
    async with Stage(llm=[FakeLlm(name="there")]) as stage:
        stage.conversation._kit.mind._engines = {}
        await stage.phone.speak(500)
        outcome = await stage.outcome()
    assert (outcome.kind, outcome.detail) == ("failed", "there: no such engine")


@virtual
async def test_a_greeting_whose_voice_hangs_is_heard_within_three_seconds() -> None:
    async with Stage(tts=[FakeTts(name="hangs", delay_s=NEVER_S), FakeTts(name="quick")], greeting="Hello.") as stage:
        spoken = await stage.next(events.Spoken)
        assert stage.at_ms(spoken) <= 3000


@virtual
async def test_a_filler_that_cannot_be_spoken_does_not_end_the_turn() -> None:
    tts = FakeTts()
    async with Stage(tts=[tts], llm=[FakeLlm([2.0, "Here."])], filler_ms=800, filler="{missing}") as stage:
        tts.error = ProviderRejected("tts", "crashed")
        await stage.phone.speak(800)
        await stage.next(events.ProviderFailed)
        tts.error = None
        spoken = await stage.next(events.Spoken)
    assert spoken.text == "Here."


@virtual
async def test_a_tool_that_is_called_again_and_again_is_stopped() -> None:
    llm = FakeLlm([call("collect_digits", count=1)])
    async with Stage(llm=[llm], tools=("collect_digits",)) as stage:
        await stage.phone.speak(800)
        spoken = await stage.next(events.Spoken)
    assert spoken.text == "Sorry, I did not understand you."
    assert [tools for _, tools in llm.asked] == [("collect_digits",)] * 3 + [()]
