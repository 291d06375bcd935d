"""A limit of spend against one long call with a dear model, on a real server: its tokens are counted while it runs, so
the next call is refused, and it ends itself with its next minute.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.fakes.openai_audio import OpenAiAudioServer
from tests.fakes.openai_chat import OpenAiChat, text
from tests.fakes.until import eventually, until
from tests.harness.phone import Phone
from tests.harness.records import Record, records
from tests.harness.server import ServerProcess

PLAN = """
tenant: acme
agents:
  helper: {prompt: You help., stt: [double], llm: {use: double}, tts: {use: double, voice: alloy}}
flows:
  main: [answer, {agent: {use: helper, on: {failed: end}}}, {echo: {max_s: 600}}]
  probe: [{hangup: 486}]
routes:
  - {match: {to: helper}, flow: main}
  - {match: {to: probe}, flow: probe}
"""
MINUTE_S = 60.0


async def test_tokens_of_a_call_that_runs_use_up_what_its_tenant_may_spend(tmp_path: Path) -> None:
    async with OpenAiChat(text("Hello.")) as model, OpenAiAudioServer() as speech:
        double = {"vendor": "openai", "base_url": speech.url}
        overrides = {
            "speech": {"stt": {"double": double}, "tts": {"double": double}},
            "llm": {"double": {"vendor": "openai", "base_url": model.base_url, "model": "dear"}},
            "tenants": {"acme": {"spend_a_day": 5, "on_exceeded": "hangup"}},
            "prices": {"list": [{"part": "llm.*", "model": "dear", "price": 1, "per": "token"}]},
        }
        server = ServerProcess(tmp_path, {"acme.yaml": PLAN}, overrides)
        await asyncio.to_thread(server.start)
        try:
            with Phone(server.sip_port) as phone:
                await talk(server, phone)
        finally:
            await asyncio.to_thread(server.stop)


async def talk(server: ServerProcess, phone: Phone) -> None:
    def call() -> Record:
        return records(server.database, phone.call_id)[0]

    assert await probed(server) == 486
    assert (await asyncio.to_thread(phone.invite, "helper")).code == 200
    phone.start_media()
    await until(lambda: bool(phone.received), "sound")
    assert await probed(server) == 486, "nothing is used yet"
    relay = "Content-Type: application/dtmf\r\n"
    assert (await asyncio.to_thread(phone.transact, "INFO", "1", relay)).code == 200
    await eventually(lambda: probed(server), lambda code: code == 403, "the limit is reached")
    assert not call().reason, "it is another one that is refused"
    async with asyncio.timeout(2 * MINUTE_S):
        while not call().reason:  # noqa: ASYNC110  a database does not tell
            await asyncio.sleep(0.2)
    assert call().reason == "limit"
    (ended,) = call().of("call.ended")
    assert "the limit spend_a_day is reached: " in ended["detail"]


async def probed(server: ServerProcess) -> int:
    """What a call gets that costs nothing."""
    with Phone(server.sip_port) as phone:
        return (await asyncio.to_thread(phone.invite, "probe")).code
