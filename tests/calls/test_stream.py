"""The step `stream`: a caller and a bot behind a real WebSocket, which speaks Twilio's protocol unless it says so."""

from __future__ import annotations

import audioop
import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from sipserver.events import Fault
from sipserver.events.streams import BotConnected, BotDisconnected, BotMark
from sipserver.streams.bots.client import BotClient
from tests.calls.conftest import SPOKEN, Stage, outcomes
from tests.fakes.bot import FakeBot, running
from tests.fakes.leg import FakeLeg, level

LOUD = 8_000


class Show:
    """A caller, a bot, and a dialplan whose branches say a word."""

    def __init__(self, stage: Stage, bot: FakeBot) -> None:
        self.stage, self.bot = stage, bot
        self.leg = FakeLeg()

    def begin(self, options: str = "") -> None:
        self.stage.call(
            f"""
  main:
    - stream: {{url: "{self.bot.url}", {options} on: {{done: bye, failed: sorry, silent: sorry, max_duration: bye}}}}
  bye: [hangup]
  sorry: [{{say: One moment please.}}, hangup]""",
            self.leg,
        )

    async def until(self, condition: Any) -> None:
        await self.stage.until(condition, self.leg)

    async def connected(self) -> None:
        await self.until(lambda: self.bot.of("start"))

    @property
    def stream_sid(self) -> str:
        return str(self.bot.of("start")[0]["streamSid"])

    def media(self, frames: int, value: int = LOUD) -> dict[str, Any]:
        return {"event": "media", "streamSid": self.stream_sid, "media": {"payload": mu_law(frames, value)}}

    def heard(self, value: int = LOUD) -> int:
        """Frames of the bot's sound that the caller got."""
        return sum(abs(int(samples[160]) - value) < value // 10 for samples in self.leg.played)

    @property
    def outcome(self) -> str:
        return dict(outcomes(self.stage))["stream"]


def mu_law(frames: int, value: int = LOUD) -> str:
    return b64encode(audioop.lin2ulaw(np.full(160 * frames, value, np.int16).tobytes(), 2)).decode()


@pytest.fixture
async def show(stage: Stage) -> AsyncIterator[Show]:
    stage.bots = BotClient()
    async with running(FakeBot()) as bot:
        yield Show(stage, bot)
        await stage.hang_up()


# --- what the bot gets ------------------------------------------------------------------------------------------------


async def test_the_bot_is_told_the_call_as_twilio_tells_it(show: Show) -> None:
    show.begin('parameters: {customer: "{from}"}, headers: {X-Key: "{to}"},')
    await show.until(lambda: len(show.bot.of("media")) >= 3)
    connected, start = show.bot.told[:2]
    assert connected == {"event": "connected", "protocol": "Call", "version": "1.0.0"}
    body = start["start"]
    assert start["sequenceNumber"] == "1"
    assert body["customParameters"] == {"customer": "alice"}
    assert body["tracks"] == ["inbound"]
    assert body["mediaFormat"] == {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
    assert body["streamSid"] == start["streamSid"]
    assert (start["streamSid"][:2], body["callSid"][:2], body["accountSid"][:2]) == ("MZ", "CA", "AC")
    assert {len(body[name]) for name in ("streamSid", "callSid", "accountSid")} == {34}
    assert show.bot.headers["x-key"] == "demo"
    media = show.bot.of("media")[:3]
    assert [each["media"]["chunk"] for each in media] == ["1", "2", "3"]
    assert [each["sequenceNumber"] for each in media] == ["2", "3", "4"]
    assert all(isinstance(each["media"]["timestamp"], str) for each in media)
    assert all(each["media"]["track"] == "inbound" for each in media)
    assert all(len(b64decode(each["media"]["payload"])) == 160 for each in media)
    assert show.stage.records.of(BotConnected)[0].protocol == "twilio"


async def test_the_bot_hears_the_caller(show: Show) -> None:
    show.begin()
    await show.connected()
    for _ in range(10):
        show.leg.tick_now(level(LOUD))
    await show.until(lambda: any(abs(value - LOUD) < 300 for value in _levels(show.bot)))


def _levels(bot: FakeBot) -> list[int]:
    """The middle sample of every frame that the bot got."""
    payloads = [b64decode(message["media"]["payload"]) for message in bot.of("media")]
    return [int(np.frombuffer(audioop.ulaw2lin(payload, 2), np.int16)[80]) for payload in payloads]


async def test_digits_are_the_bots(show: Show) -> None:
    show.begin()
    await show.connected()
    show.leg.press("5#")
    await show.until(lambda: len(show.bot.of("dtmf")) == 2)
    assert [message["dtmf"] for message in show.bot.of("dtmf")] == [
        {"track": "inbound_track", "digit": "5"},
        {"track": "inbound_track", "digit": "#"},
    ]


async def test_a_caller_who_hangs_up_stops_the_stream(show: Show) -> None:
    show.begin()
    await show.connected()
    show.leg.peer_leaves()
    assert await show.stage.ended(show.leg) == "caller_hangup"
    await show.until(lambda: show.bot.close_code is not None)
    (stop,) = show.bot.of("stop")
    assert stop["stop"] == {name: show.bot.of("start")[0]["start"][name] for name in ("accountSid", "callSid")}
    assert show.bot.told[-1] == stop
    assert show.bot.close_code == 1000
    assert show.stage.records.of(BotDisconnected)[0].by == "us"


# --- what the bot says ------------------------------------------------------------------------------------------------


async def test_the_caller_hears_the_bot_and_marks_come_back_when_it_was_heard(show: Show) -> None:
    show.begin()
    await show.connected()
    await show.bot.say(show.media(50), {"event": "mark", "streamSid": show.stream_sid, "mark": {"name": "m1"}})
    await show.until(lambda: show.heard() >= 20)
    assert not show.bot.of("mark")
    await show.until(lambda: show.bot.of("mark"))
    assert show.heard() >= 49  # the first one carries the filter's rise
    assert show.bot.of("mark")[0]["mark"] == {"name": "m1"}
    await show.bot.socket.close()  # type: ignore[union-attr]
    assert await show.stage.ended(show.leg) == "dialplan_hangup"
    assert show.outcome == "done"
    assert show.stage.records.of(BotMark) == [BotMark("m1", True)]
    gone = show.stage.records.of(BotDisconnected)[0]
    assert (gone.by, gone.heard_ms) == ("bot", 1000)


async def test_clear_throws_away_what_was_not_heard_and_tells_its_marks(show: Show) -> None:
    show.begin()
    await show.connected()
    await show.bot.say(show.media(500), {"event": "mark", "streamSid": show.stream_sid, "mark": {"name": "m1"}})
    await show.until(lambda: show.heard() >= 10)
    await show.bot.say({"event": "clear", "streamSid": show.stream_sid})
    await show.until(lambda: show.bot.of("mark"))
    heard = show.heard()
    assert heard < 500
    assert show.stage.records.of(BotMark) == [BotMark("m1", False)]
    await show.bot.say(show.media(5, 3_000))
    await show.until(lambda: show.heard(3_000) >= 4)
    assert show.heard() == heard


async def test_what_a_bot_says_beyond_two_minutes_ahead_is_dropped_and_told_once(show: Show) -> None:
    show.begin()
    await show.connected()
    for _ in range(8):
        await show.bot.say(show.media(1000))
    await show.bot.say({"event": "clear"}, {"event": "mark", "mark": {"name": "end"}})
    await show.until(lambda: show.bot.of("mark"))
    (fault,) = show.stage.records.of(Fault)
    assert "too far ahead" in fault.error


async def test_a_bot_that_hangs_up_is_heard_to_its_last_word(show: Show) -> None:
    show.begin()
    await show.connected()
    await show.bot.say(show.media(60))
    await show.bot.socket.close()  # type: ignore[union-attr]
    await show.stage.ended(show.leg)
    assert show.heard() >= 59
    assert show.outcome == "done"


# --- what goes wrong: the caller is never lost ------------------------------------------------------------------------


def said_sorry(show: Show) -> bool:
    return any(bool((samples == SPOKEN).all()) for samples in show.leg.played)


async def test_nobody_listens(show: Show) -> None:
    show.bot.url = "ws://127.0.0.1:9/bot"
    show.begin()
    assert await show.stage.ended(show.leg) == "dialplan_hangup"
    assert show.outcome == "failed"
    assert said_sorry(show)


async def test_the_handshake_is_refused(show: Show) -> None:
    show.bot.refuse = 403
    show.begin()
    await show.stage.ended(show.leg)
    assert show.outcome == "failed"
    assert "403" in show.stage.records.of(Fault)[0].error
    assert said_sorry(show)


async def test_a_bot_that_breaks_in_the_middle_of_its_speech(show: Show) -> None:
    show.begin()
    await show.connected()
    await show.bot.say(show.media(500))
    await show.until(lambda: show.heard() >= 5)
    show.bot.socket._req.transport.abort()  # type: ignore[union-attr]
    await show.stage.ended(show.leg)
    assert show.outcome == "failed"
    assert show.heard() < 500
    assert said_sorry(show)


RUBBISH: list[str | bytes] = [
    b"\x00\x01",
    "{",
    "[]",
    '"media"',
    "{}",
    '{"event": "media"}',
    '{"event": "media", "media": {"payload": "***"}}',
    '{"event": "media", "media": {"payload": ""}}',
    '{"event": "media", "streamSid": "MZother", "media": {"payload": "AAAA"}}',
    '{"event": "mark", "mark": {}}',
    "[" * 100_000,
]


async def test_a_little_rubbish_is_ignored_and_told_once(show: Show) -> None:
    show.begin()
    await show.connected()
    await show.bot.say(*RUBBISH, {"event": "weather"})
    await show.bot.say({"event": "mark", "streamSid": show.stream_sid, "mark": {"name": "after"}})
    await show.until(lambda: show.bot.of("mark"))
    assert [fault.where for fault in show.stage.records.of(Fault)] == ["bot"]


async def test_a_bot_that_sends_rubbish_takes_the_branch(show: Show) -> None:
    show.begin()
    await show.connected()
    await show.bot.say(*RUBBISH, *RUBBISH)
    await show.stage.ended(show.leg)
    assert show.outcome == "failed"
    assert said_sorry(show)
    await show.until(lambda: show.bot.close_code is not None)
    assert show.bot.close_code == 1002


async def test_a_message_that_is_too_long_takes_the_branch(show: Show) -> None:
    show.begin()
    await show.connected()
    await show.bot.say("x" * ((1 << 21) + 1))
    await show.stage.ended(show.leg)
    assert show.outcome == "failed"
    assert said_sorry(show)


async def test_a_bot_that_reads_nothing_takes_the_branch(show: Show) -> None:
    show.stage.bots = BotClient(heartbeat_s=0.4)
    show.bot.reads = False
    show.begin()
    await show.stage.ended(show.leg)
    assert show.outcome == "failed"
    assert said_sorry(show)


async def test_a_bot_that_says_nothing_takes_its_branch(show: Show) -> None:
    show.begin("silent_s: 0.3,")
    await show.stage.ended(show.leg)
    assert show.outcome == "silent"
    assert said_sorry(show)


async def test_enough_of_it(show: Show) -> None:
    show.begin("max_s: 0.3,")
    assert await show.stage.ended(show.leg) == "dialplan_hangup"
    assert show.outcome == "max_duration"


async def test_without_the_secret_nobody_is_called(show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BOT_KEY", raising=False)
    show.begin("headers_env: {Authorization: BOT_KEY},")
    await show.stage.ended(show.leg)
    assert show.outcome == "failed"
    assert show.bot.connections == 0


async def test_the_secret_is_of_the_environment_and_the_handshake_is_signed(
    show: Show, monkeypatch: pytest.MonkeyPatch
) -> None:
    from twilio.request_validator import RequestValidator

    monkeypatch.setenv("BOT_KEY", "Bearer 17")
    monkeypatch.setenv("BOT_SIGNS", "12345")
    show.begin("headers_env: {Authorization: BOT_KEY}, sign_env: BOT_SIGNS,")
    await show.connected()
    assert show.bot.headers["authorization"] == "Bearer 17"
    assert RequestValidator("12345").validate(show.bot.url, {}, show.bot.headers["x-twilio-signature"])
    assert "17" not in json.dumps([str(event.event) for event in show.stage.listened])


# --- it only listens --------------------------------------------------------------------------------------------------


async def test_a_bot_that_only_listens_hears_both_sides_while_the_flow_goes_on(stage: Stage, show: Show) -> None:
    stage.call(
        f"""
  main:
    - stream: {{url: "{show.bot.url}", both: false, tracks: both, on: {{failed: end}}}}
    - say: one two three four five six
    - wait: 60""",
        show.leg,
    )
    await show.until(lambda: dict(outcomes(stage)).get("say") == "done")
    for _ in range(5):
        show.leg.tick_now(level(LOUD))
    await show.until(lambda: len(show.bot.of("media")) >= 20)
    await show.until(lambda: any(abs(value - SPOKEN) < 300 for value in _levels_of(show.bot, "outbound")))
    await show.until(lambda: any(abs(value - LOUD) < 300 for value in _levels_of(show.bot, "inbound")))
    assert show.bot.of("start")[0]["start"]["tracks"] == ["inbound", "outbound"]
    await show.bot.say(show.media(5, 3_000))
    show.leg.peer_leaves()
    await stage.ended(show.leg)
    await show.until(lambda: show.bot.close_code is not None)
    assert show.bot.of("stop")
    assert show.heard(3_000) == 0


def _levels_of(bot: FakeBot, track: str) -> list[int]:
    payloads = [b64decode(each["media"]["payload"]) for each in bot.of("media") if each["media"]["track"] == track]
    return [int(np.frombuffer(audioop.ulaw2lin(payload, 2), np.int16)[80]) for payload in payloads]


async def test_a_listener_that_leaves_does_not_disturb_the_call(stage: Stage, show: Show) -> None:
    stage.call(
        f"""
  main:
    - stream: {{url: "{show.bot.url}", both: false, on: {{failed: end}}}}
    - collect: {{timeout_s: 60, on: {{"1": bye, none: end, other: end}}}}
  bye: [hangup]""",
        show.leg,
    )
    await show.connected()
    await show.bot.socket.close()  # type: ignore[union-attr]
    await show.until(lambda: stage.records.of(BotDisconnected))
    show.leg.press("1")
    await stage.ended(show.leg)
    assert outcomes(stage)[-2:] == [("collect", "digits"), ("hangup", "done")]
