"""What the phone page shows of a call while it lasts, and what it does when its line breaks: a real Chromium, a real
server, doubles of the services that hear, think and speak.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.async_api import expect

from tests.fakes.clips import espeak
from tests.fakes.openai_audio import OpenAiAudioServer
from tests.fakes.openai_chat import OpenAiChat, text
from tests.harness.page import PATHS, PATIENCE_MS, browsing, call, in_call, loud, problems, silent
from tests.harness.page_lines import TcpLine, UdpLine, Wire
from tests.harness.records import ended
from tests.harness.server import ServerProcess
from tests.servers.browser import sound_file, tone_file

pytestmark = pytest.mark.peers

RATE_HZ = 16_000
WELCOME, QUESTION, ANSWER = "Welcome to the shop.", "What are your opening hours?", "We open at nine."
COUNT = "One two three four five six seven eight nine ten eleven {from}."
"""A text with a variable is spoken anew for every call."""
FOLLOW_YOU = """() => {
    window.levels = []
    const you = document.getElementById("you")
    new MutationObserver(() => levels.push(you.getAttribute("aria-valuenow"))).observe(you, { attributes: true })
}"""
PLAN = f"""
tenant: acme
agents:
  helper:
    prompt: You answer the phone for the shop.
    silence_s: 60
    stt: [double]
    tts: {{use: double}}
    llm: {{use: double}}
flows:
  echo: [answer, echo]
  shop: [answer, {{say: {WELCOME}}}, {{agent: {{use: helper, on: {{failed: end}}}}}}]
  count: [answer, {{say: "{COUNT}"}}, echo]
routes:
  - {{match: {{to: echo}}, flow: echo}}
  - {{match: {{to: shop}}, flow: shop}}
  - {{match: {{to: count}}, flow: count}}
"""


@asynccontextmanager
async def serving(folder: Path, settings: Mapping[str, Any] | None = None) -> AsyncIterator[ServerProcess]:
    server = ServerProcess(folder / "server", {"acme.yaml": PLAN}, {"http": {"phone": True}, **(settings or {})})
    await asyncio.to_thread(server.start)
    try:
        yield server
    finally:
        await asyncio.to_thread(server.stop)


@pytest.fixture
async def services() -> AsyncIterator[OpenAiAudioServer]:
    """What hears and speaks: a second of a tone for every text."""
    async with OpenAiAudioServer(text=QUESTION, seconds=1) as double:
        yield double


@pytest.fixture
async def server(tmp_path: Path, services: OpenAiAudioServer) -> AsyncIterator[ServerProcess]:
    double = {"vendor": "openai", "base_url": services.url}
    async with OpenAiChat(text(*(f"{word} " for word in ANSWER.split()))) as model:
        settings = {
            "speech": {"stt": {"double": double}, "tts": {"double": double}},
            "llm": {"double": {"vendor": "openai", "base_url": model.base_url, "model": "double"}},
            "streams": {"voice": {"resume_s": 15}},
        }
        async with serving(tmp_path, settings) as process:
            yield process


def microphone(path: Path, *, before_s: float, speech: np.ndarray[Any, np.dtype[np.int16]], after_s: float) -> Path:
    """One that hears something and is silent before and after it, again and again."""
    silence = [np.zeros(int(seconds * RATE_HZ), np.int16) for seconds in (before_s, after_s)]
    return sound_file(path, np.concatenate((silence[0], speech, silence[1])), RATE_HZ)


def tone(seconds: float) -> np.ndarray[Any, np.dtype[np.int16]]:
    return (9000 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * RATE_HZ)) / RATE_HZ)).astype(np.int16)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return tone_file(tmp_path / "microphone.wav", 440)


@pytest.fixture
def quiet(tmp_path: Path) -> Path:
    return sound_file(tmp_path / "quiet.wav", np.zeros(RATE_HZ, np.int16), RATE_HZ)


@PATHS
async def test_the_page_shows_what_is_said_and_how_long_the_answer_took(
    server: ServerProcess, tmp_path: Path, path: str
) -> None:
    asks = microphone(tmp_path / "asks.wav", before_s=4, speech=espeak(QUESTION), after_s=20)
    async with browsing(asks) as page:
        told = problems(page)
        await call(page, server.http_port, "shop", path)
        await in_call(page, path)
        said = [f"Server{WELCOME}", f"You{QUESTION}", f"Server{ANSWER}"]
        await expect(page.locator("#talk li")).to_have_text(said, timeout=2 * PATIENCE_MS)
        assert await page.locator("#talk li").evaluate_all("all => all.map(one => one.className)") == [
            "server",
            "caller",
            "server",
        ]
        await expect(page.locator("#latency")).to_have_text(re.compile(r"^[1-9]\d* ms$"))
        shown = await page.locator("#latency").text_content()
        log = page.locator("#log")
        await expect(log).to_contain_text("call: answered")
        await expect(log).to_contain_text("flow: shop")
        await expect(log).to_contain_text(
            re.compile(rf"answer after {shown}: endpoint \d+, text \d+, model \d+, voice")
        )
        await page.click("#hangup")
        await expect(page.locator("#state")).to_have_text("Ended: you hung up")
        assert told == []
    latencies = ended(server.database)[0].of("turn.latency")
    assert [f"{each['total_ms']} ms" for each in latencies] == [shown]


@PATHS
async def test_of_words_that_a_digit_cuts_the_page_shows_what_was_heard(
    server: ServerProcess, services: OpenAiAudioServer, quiet: Path, path: str
) -> None:
    services.seconds = 40
    async with browsing(quiet) as page:
        await call(page, server.http_port, "count", path)
        await in_call(page, path)
        await loud(page, "#they")
        await expect(page.locator("#duration")).to_have_text(re.compile(r"^0:(0[7-9]|[1-5]\d)$"), timeout=PATIENCE_MS)
        await page.keyboard.press("1")
        await expect(page.locator("#talk li")).to_have_text(re.compile(r"^ServerOne\b.* …$"), timeout=PATIENCE_MS)
        await expect(page.locator("#talk")).not_to_contain_text("browser")


@PATHS
async def test_a_meter_moves_with_its_own_sound_alone(
    server: ServerProcess, services: OpenAiAudioServer, quiet: Path, path: str
) -> None:
    services.seconds = 4
    async with browsing(quiet) as page:
        await call(page, server.http_port, "count", path)
        await in_call(page, path)
        await page.evaluate(FOLLOW_YOU)
        await loud(page, "#they")
        await silent(page, "#they")
        assert await page.locator("#they i").evaluate("bar => bar.style.transform") == "scaleX(0)"
        assert set(await page.evaluate("levels")) == {"0"}


@PATHS
async def test_both_meters_follow_a_caller_who_pauses(server: ServerProcess, tmp_path: Path, path: str) -> None:
    pauses = microphone(tmp_path / "pauses.wav", before_s=0, speech=tone(3), after_s=3)
    async with browsing(pauses) as page:
        await call(page, server.http_port, "echo", path)
        await in_call(page, path)
        for meter in ("#you", "#they"):
            await loud(page, meter)
            await silent(page, meter)
            await loud(page, meter)


async def test_a_websocket_that_breaks_comes_back_to_the_same_call(server: ServerProcess, sound: Path) -> None:
    async with TcpLine(server.http_port) as line, browsing(sound) as page:
        wire = Wire(page)
        await call(page, line.port, "echo", "WebSocket")
        await in_call(page, "WebSocket")
        await loud(page, "#they")
        line.cut()
        await expect(page.locator("#state")).to_have_text("Coming back")
        await expect(page.locator("#path")).to_have_text("WebSocket, coming back")
        await silent(page, "#they")
        await asyncio.wait_for(line.tried.wait(), 15)
        line.mend()
        await in_call(page, "WebSocket")
        await loud(page, "#they")
        await page.click("#hangup")
        await expect(page.locator("#state")).to_have_text("Ended: you hung up")
    (record,) = ended(server.database)
    assert len(record.of("stream.resumed")) == 1
    assert record.reason == "caller_hangup"
    sound_sent = wire.sound()
    assert sound_sent[0][0] <= wire.resumed_at()  # what was said while the line was down is not lost
    assert all(before[1] == after[0] for before, after in itertools.pairwise(sound_sent))


async def test_who_hangs_up_while_the_websocket_comes_back_has_hung_up(server: ServerProcess, sound: Path) -> None:
    async with TcpLine(server.http_port) as line, browsing(sound) as page:
        told = problems(page)
        await call(page, line.port, "echo", "WebSocket")
        await in_call(page, "WebSocket")
        line.cut(hold=True)
        await asyncio.wait_for(line.tried.wait(), 15)
        await page.click("#hangup")
        await expect(page.locator("#state")).to_have_text("Ended: you hung up")
        line.mend()
        (record,) = await asyncio.to_thread(ended, server.database)
        assert record.reason == "caller_hangup"
        await expect(page.locator("#state")).to_have_text("Ended: you hung up")
        assert told == []


async def test_a_path_of_webrtc_that_is_lost_comes_back_to_the_same_call(server: ServerProcess, sound: Path) -> None:
    async with UdpLine() as line, browsing(sound) as page:
        await page.route("**/webrtc/**", line.carry)
        await call(page, server.http_port, "echo")
        await in_call(page, "WebRTC")
        await loud(page, "#they")
        line.is_cut = True
        await expect(page.locator("#state")).to_have_text("Coming back", timeout=PATIENCE_MS)
        await expect(page.locator("#path")).to_have_text("WebRTC, coming back")
        await silent(page, "#they")
        async with asyncio.timeout(15):
            await line.tries(3)  # the page does not give up after one
        line.is_cut = False
        await in_call(page, "WebRTC")
        await loud(page, "#they")
        await page.click("#hangup")
        await expect(page.locator("#state")).to_have_text("Ended: you hung up")
    (record,) = ended(server.database)
    assert [path["state"] for path in record.of("webrtc.ice")].count("connected") == 2
    assert record.reason == "caller_hangup"


async def test_a_path_of_webrtc_that_comes_back_by_itself_is_taken(server: ServerProcess, sound: Path) -> None:
    async with UdpLine() as line, browsing(sound) as page:
        await page.route("**/webrtc/**", line.carry)
        await call(page, server.http_port, "echo")
        await in_call(page, "WebRTC")
        line.is_cut = line.refuses = True
        async with asyncio.timeout(15):
            await line.tries(2)
        await expect(page.locator("#path")).to_have_text("WebRTC, coming back")
        line.is_cut = False
        await in_call(page, "WebRTC")
        await loud(page, "#they")
        await page.click("#hangup")
        await expect(page.locator("#state")).to_have_text("Ended: you hung up")
    (record,) = ended(server.database)
    assert [path["state"] for path in record.of("webrtc.ice")].count("connected") == 1


async def test_who_hangs_up_while_webrtc_comes_back_has_hung_up(server: ServerProcess, sound: Path) -> None:
    async with UdpLine() as line, browsing(sound) as page:
        told = problems(page)
        await page.route("**/webrtc/**", line.carry)
        await call(page, server.http_port, "echo")
        await in_call(page, "WebRTC")
        line.is_cut = True
        line.answers.clear()
        async with asyncio.timeout(15):
            await line.tries(2)
        await page.click("#hangup")
        await expect(page.locator("#state")).to_have_text("Ended: you hung up")
        (record,) = await asyncio.to_thread(ended, server.database)
        assert record.reason == "caller_hangup"
        line.is_cut = False
        line.answers.set()  # too late: the call is over
        await page.click("#call")
        await in_call(page, "WebRTC")
        assert told == []


@PATHS
async def test_the_page_says_so_when_the_server_is_gone_for_good(server: ServerProcess, sound: Path, path: str) -> None:
    async with browsing(sound) as page:
        await call(page, server.http_port, "echo", path)
        await in_call(page, path)
        await asyncio.to_thread(server.kill)
        await expect(page.locator("#path")).to_have_text(f"{path}, coming back", timeout=PATIENCE_MS)
        await expect(page.locator("#state")).to_have_text("Ended: the connection was lost", timeout=2 * PATIENCE_MS)
        await expect(page.locator("#call")).to_be_visible()
        await silent(page, "#you")
