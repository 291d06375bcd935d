"""Pipecat's own parts as a caller of a whole server, in the place of Twilio and of Vonage."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from tests.harness.records import ended
from tests.harness.server import ROOT, ServerProcess
from tests.peers.test_pipecat import pitch_hz
from tests.servers.pipecat import PYTHON
from tests.servers.vonage import APPLICATION, SECRET, SECRET_ENV, answer_url, started
from tools.conformance import twilio, vonage

pytestmark = pytest.mark.peers

ACCOUNT, TOKEN = "AC" + "0123456789abcdef" * 2, "the auth token of this test"
PLAN = """
tenant: acme
flows:
  main: [answer, {echo: {max_s: 60}}]
routes:
  - {match: {to: "+4930123456"}, flow: main}
"""


async def opening_of_twilio(server: ServerProcess) -> tuple[str, Sequence[Mapping[str, Any]]]:
    """Where the webhook sends the call, and what a carrier says there first."""
    stream_sid, call_sid = twilio.sid("MZ"), twilio.sid("CA")
    url = f"http://127.0.0.1:{server.http_port}/webhooks/twilio/ours/voice"
    fields = {"CallSid": call_sid, "From": "+4930999", "To": "+4930123456"}
    async with aiohttp.ClientSession() as client:
        _, text = await twilio.ask_webhook(client, url, ACCOUNT, TOKEN, fields)
    twiml = twilio.TwiML.parse(text)
    start = {"accountSid": ACCOUNT, "streamSid": stream_sid, "callSid": call_sid, "customParameters": twiml.parameters}
    return twiml.url, [{"event": "connected"}, {"event": "start", "streamSid": stream_sid, "start": start}]


async def opening_of_vonage(server: ServerProcess) -> tuple[str, Sequence[Mapping[str, Any]]]:
    fields = {"from": "4930999", "to": "4930123456", "uuid": "the-uuid-of-the-call"}
    async with aiohttp.ClientSession() as client:
        _, text = await vonage.ask(client, answer_url(server), APPLICATION, SECRET, fields)
    endpoint = vonage.Endpoint.parse(json.loads(text))
    connected = {"event": "websocket:connected", "content-type": f"audio/l16;rate={endpoint.rate_hz}"}
    return endpoint.uri, [{**connected, **endpoint.headers}]


@pytest.mark.parametrize(("protocol", "opening"), [("twilio", opening_of_twilio), ("vonage", opening_of_vonage)])
async def test_pipecat_hears_itself_through_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str, opening: Any
) -> None:
    monkeypatch.setenv("TEST_TWILIO_TOKEN", TOKEN)
    of_twilio = {"name": "ours", "account_sid": ACCOUNT, "auth_token_env": "TEST_TWILIO_TOKEN"}
    of_vonage = {"name": "main", "application_id": APPLICATION, "signature_secret_env": SECRET_ENV}
    with started(tmp_path, PLAN, {}, {"streams": {"twilio": [of_twilio], "vonage": [of_vonage]}}) as server:
        url, messages = await opening(server)
        heard = tmp_path / "heard"
        process = await asyncio.create_subprocess_exec(
            str(PYTHON),
            str(ROOT / "tools/peers/pipecat_caller.py"),
            *("--url", url, "--protocol", protocol, "--heard", str(heard)),
            stdin=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        lines = "".join(json.dumps(message) + "\n" for message in messages)
        _, complaints = await asyncio.wait_for(process.communicate(lines.encode()), 60)
        assert process.returncode == 0, complaints.decode()[-2000:]
        (record,) = await asyncio.to_thread(ended, server.database)
    samples = np.frombuffer(heard.read_bytes(), np.int16)[:: 2 if protocol == "vonage" else 1]
    assert pitch_hz(samples) == pytest.approx(440, abs=5)
    loud = np.abs(samples[: len(samples) // 160 * 160].reshape(-1, 160).astype(int)).max(axis=1) > 4000
    assert loud.sum() * 0.02 > 2.0, "most of three seconds"
    assert record.reason == "caller_hangup"
    (stats,) = record.of("stream.stats")
    assert stats["unknown"] == stats["discarded"] == 0
    assert stats["bad"] <= (protocol == "vonage"), "Pipecat's first or last message may not last 20 ms"
