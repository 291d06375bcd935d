"""A connection to a bot over real sockets: what travels, how it ends, and whom TLS believes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sipserver.audio.frame import FRAME_SAMPLES, SILENCE_PAYLOAD, Frame
from sipserver.audio.playout import Playout
from sipserver.calls.bots import BotOrder
from sipserver.errors import ProviderError, ProviderTimeout
from sipserver.events import Event
from sipserver.events.streams import BotConnected, BotDisconnected, BotMark
from sipserver.streams.bots.client import BotClient, BotLink
from tests.fakes.bot import FakeBot, running
from tests.fakes.until import until
from tests.servers.authority import Authority, serving

LOUD = 5_000


def order(bot: FakeBot, protocol: str, **options: Any) -> BotOrder:
    facts = {"call_id": "call-1", "tenant": "acme", "from_user": "alice", "to_user": "demo", "both": True}
    return BotOrder(url=bot.url, protocol=protocol, **{**facts, **options})


class Caller:
    """Hears and speaks at the pace of the test."""

    def __init__(self, link: BotLink, playout: Playout, events: list[Event]) -> None:
        self.link, self.playout, self.events = link, playout, events
        self.heard: list[int] = []

    def turn(self, value: int = 0) -> None:
        payload = self.playout.pull() or SILENCE_PAYLOAD
        self.heard.append(int(np.frombuffer(payload, np.int16)[160]))
        self.playout.tick()
        self.link.hear(Frame(np.full(FRAME_SAMPLES, value, np.int16), 0))

    async def until(self, happens: Any, value: int = 0) -> None:
        def turned() -> bool:
            self.turn(value)
            return bool(happens())

        await until(turned)

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@asynccontextmanager
async def caller(bot: FakeBot, protocol: str, client: BotClient | None = None, **options: Any) -> AsyncIterator[Caller]:
    events: list[Event] = []
    playout = Playout()
    link = await (client or BotClient()).open(order(bot, protocol, **options), playout, events.append)
    async with link:
        yield Caller(link, playout, events)
    assert len([event for event in events if isinstance(event, BotDisconnected)]) == 1
    assert not playout.pending_ms


@pytest.fixture
async def bot() -> AsyncIterator[FakeBot]:
    async with running(FakeBot()) as bot:
        yield bot


@pytest.mark.parametrize(
    ("protocol", "rate_hz", "frame_bytes"),
    [
        ("vonage", 8000, 320),
        ("vonage", None, 640),
        ("vonage", 24_000, 960),
        ("pcm", None, 640),
        ("asterisk", 16_000, 640),
    ],
)
async def test_sound_travels_in_frames_of_20_ms_both_ways(
    bot: FakeBot, protocol: str, rate_hz: int | None, frame_bytes: int
) -> None:
    async with caller(bot, protocol, rate_hz=rate_hz) as there:
        await bot.connected()
        await there.until(lambda: bot.sound.count(LOUD.to_bytes(2, "little")) > frame_bytes, LOUD)
        assert {len(message) for message in bot.got if isinstance(message, bytes)} == {frame_bytes}
        await bot.say(*[np.full(frame_bytes // 2, LOUD, "<i2").tobytes()] * 10)
        await there.until(lambda: sum(abs(value - LOUD) < 50 for value in there.heard) >= 9)


async def test_a_bot_of_vonages(bot: FakeBot) -> None:
    async with caller(bot, "vonage") as there:
        await bot.connected()
        there.link.digit("7")
        await there.until(lambda: bot.of("websocket:dtmf"))
        await bot.say(np.full(320 * 100, LOUD, "<i2").tobytes(), {"action": "notify", "payload": {"part": 1}})
        await there.until(lambda: there.heard.count(LOUD) >= 10)
        await bot.say({"action": "clear"})
        await there.until(lambda: bot.of("websocket:cleared"))
        assert not bot.of("websocket:notify")
        await bot.say({"action": "notify", "payload": {"part": 2}})
        await there.until(lambda: bot.of("websocket:notify"))
        assert bot.of("websocket:notify")[0]["payload"] == {"part": 2}
        assert there.heard.count(LOUD) < 100


async def test_a_bot_of_asterisks_that_sends_a_whole_answer_at_once(bot: FakeBot) -> None:
    async with caller(bot, "asterisk", rate_hz=16_000) as there:
        await bot.connected()
        assert bot.headers["sec-websocket-protocol"] == "media"
        payload = np.full(320 * 1000, LOUD, "<i2").tobytes()
        await bot.say("START_MEDIA_BUFFERING")
        for start in range(0, len(payload), 65_000):
            await bot.say(payload[start : start + 65_000])
        await bot.say("STOP_MEDIA_BUFFERING all", "REPORT_QUEUE_DRAINED", "GET_STATUS")
        await there.until(lambda: "MEDIA_XOFF" in bot.got)
        await there.until(lambda: "QUEUE_DRAINED" in bot.got)
        assert there.heard.count(LOUD) == 1000
        texts = [message for message in bot.got if isinstance(message, str)]
        assert texts.index("MEDIA_XOFF") < texts.index("MEDIA_XON")
        assert "MEDIA_BUFFERING_COMPLETED all" in texts
        await bot.say("HANGUP")
        over = await there.link.run()
        assert (over.outcome, over.by) == ("done", "bot")
    await until(lambda: bot.close_code == 1000)


async def test_a_bot_of_asterisks_pauses_and_wants_no_sound(bot: FakeBot) -> None:
    async with caller(bot, "asterisk-json", rate_hz=16_000) as there:
        await bot.connected()
        await bot.say({"command": "PAUSE_MEDIA"}, np.full(320 * 10, LOUD, "<i2").tobytes(), {"command": "GET_STATUS"})
        await there.until(lambda: bot.of("STATUS"))
        status = bot.of("STATUS")[0]
        assert (status["queue_length"], status["media_paused"]) == (10, True)
        assert LOUD not in there.heard
        await bot.say({"command": "CONTINUE_MEDIA"})
        await there.until(lambda: there.heard.count(LOUD) == 10)
        await bot.say({"command": "SET_MEDIA_DIRECTION", "direction": "out"}, {"command": "GET_STATUS"})
        await there.until(lambda: len(bot.of("STATUS")) == 2)
        before = len(bot.sound)
        for _ in range(10):
            there.turn(LOUD)
        await bot.say({"command": "GET_STATUS"})
        await there.until(lambda: len(bot.of("STATUS")) == 3)
        assert len(bot.sound) == before


async def test_a_plain_bot(bot: FakeBot) -> None:
    async with caller(bot, "pcm", parameters={"a": "b"}) as there:
        await bot.connected()
        assert bot.of("start")[0]["parameters"] == {"a": "b"}
        await bot.say(np.full(320 * 5, LOUD, "<i2").tobytes(), {"event": "mark", "name": "m"})
        await there.until(lambda: bot.of("mark"))
        assert bot.of("mark")[0] == {"event": "mark", "name": "m", "played": True}
        assert there.of(BotMark) == [BotMark("m", True)]
    await until(lambda: bool(bot.of("stop")))


# --- how it ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "outcome"), [(1000, "done"), (1001, "done"), (1011, "failed"), (4000, "failed")])
async def test_the_close_code_tells_whether_it_was_in_order(bot: FakeBot, code: int, outcome: str) -> None:
    async with caller(bot, "pcm") as there:
        await bot.connected()
        assert bot.socket is not None
        await bot.socket.close(code=code)
        await there.until(there.link._over.done)
        assert (await there.link.run()).outcome == outcome
    (gone,) = there.of(BotDisconnected)
    assert gone.code == code


async def test_a_bot_that_does_not_take_what_we_send(bot: FakeBot) -> None:
    """The sound of some seconds waits; then it is over."""
    async with caller(bot, "pcm") as there:
        await bot.connected()
        for _ in range(300):  # the loop does not run between them: nothing is written
            there.turn()
        over = await there.link.run()
        assert over.outcome == "failed"
        assert "does not read" in over.cause
    await until(lambda: bot.close_code == 1008)


async def test_a_handshake_that_takes_too_long() -> None:
    stuck = asyncio.Event()

    async def says_nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await stuck.wait()
        writer.close()

    server = await asyncio.start_server(says_nothing, "127.0.0.1", 0)
    bot = FakeBot()
    bot.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/bot"
    try:
        with pytest.raises(ProviderTimeout):
            await BotClient().open(order(bot, "pcm", connect_s=0.1), Playout(), lambda _: None)
    finally:
        stuck.set()
        server.close()
        await server.wait_closed()


async def test_cancelling_the_connecting_leaves_nothing(bot: FakeBot) -> None:
    connecting = asyncio.create_task(BotClient().open(order(bot, "pcm"), Playout(), lambda _: None))
    await asyncio.sleep(0)
    connecting.cancel()
    await asyncio.wait({connecting})
    assert connecting.cancelled()


# --- TLS --------------------------------------------------------------------------------------------------------------


async def test_whom_nobody_certifies_gets_no_call(tmp_path: Path) -> None:
    certificate = Authority(tmp_path).certify("bot", "IP:127.0.0.1")
    trusting = ssl.create_default_context(cafile=str(certificate.ca))
    async with running(FakeBot(), serving(certificate)) as bot:
        with pytest.raises(ProviderError, match="no connection"):
            await BotClient().open(order(bot, "pcm"), Playout(), lambda _: None)
        assert bot.connections == 0
        async with caller(bot, "pcm", BotClient(tls=trusting)) as there:
            await bot.connected()
        assert there.of(BotConnected)[0].url.startswith("wss://")


async def test_a_certificate_for_another_name_is_none(tmp_path: Path) -> None:
    certificate = Authority(tmp_path).certify("bot", "DNS:bot.example")
    trusting = ssl.create_default_context(cafile=str(certificate.ca))
    async with running(FakeBot(), serving(certificate)) as bot:
        with pytest.raises(ProviderError):
            await BotClient(tls=trusting).open(order(bot, "pcm"), Playout(), lambda _: None)
        assert bot.connections == 0
