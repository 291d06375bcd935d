"""The conformance kits find what is wrong: servers that break one rule each."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import jwt
import pytest
from aiohttp import WSMsgType, web
from twilio.request_validator import RequestValidator

from tools.conformance import twilio, vonage

ACCOUNT, TOKEN = "AC" + "0123456789abcdef" * 2, "an auth token"
APPLICATION, SECRET = "an-application", "the secret of an application, long enough"
Socket = web.WebSocketResponse
Sin = Callable[[Socket, str], Awaitable[object]]
"""What a server does wrong as soon as the stream of this name runs."""


@asynccontextmanager
async def serving(*routes: web.RouteDef) -> AsyncIterator[str]:
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


# --- Twilio -----------------------------------------------------------------------------------------------------------


def media(stream_sid: str, payload: str, **more: Any) -> str:
    return json.dumps({"event": "media", "streamSid": stream_sid, "media": {"payload": payload}, **more})


TONE = base64.b64encode(bytes(range(160))).decode()


async def flood(socket: Socket, name: str) -> None:
    for _ in range(300):
        await socket.send_str(media(name, TONE))


async def nothing(socket: Socket, name: str) -> None:
    return None


TWILIO_SINS: dict[str, tuple[Sin, str, str]] = {
    "binary": (lambda socket, name: socket.send_bytes(b"\xff" * 160), "only what Twilio takes", "binary"),
    "no JSON": (lambda socket, name: socket.send_str("media"), "only what Twilio takes", "not a message"),
    "other stream": (lambda socket, name: socket.send_str(media("MZ1", TONE)), "only what Twilio takes", "streamSid"),
    "no base64": (lambda socket, name: socket.send_str(media(name, "%%")), "only what Twilio takes", "base64"),
    "shape": (lambda socket, name: socket.send_str(media(name, TONE, track="x")), "only what Twilio takes", "shape"),
    "unknown": (
        lambda socket, name: socket.send_str(json.dumps({"event": "pause", "streamSid": name})),
        "only what Twilio takes",
        "`pause`",
    ),
    "nameless mark": (
        lambda socket, name: socket.send_str(json.dumps({"event": "mark", "streamSid": name, "mark": {}})),
        "only what Twilio takes",
        "without a name",
    ),
    "clear with more": (
        lambda socket, name: socket.send_str(json.dumps({"event": "clear", "streamSid": name, "now": True})),
        "only what Twilio takes",
        "`clear`",
    ),
    "flood": (flood, "no more sound waits", "of it"),
    "silence": (nothing, "the caller hears something", "nothing"),
}


async def found_at_twilio(sin: Sin, *, says: str = "") -> dict[str, str]:
    """What the kit finds at a server that is right in all but this. It echoes unless it sins."""

    async def voice(request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        signature = request.headers.get("X-Twilio-Signature", "")
        if says != "anybody" and not RequestValidator(TOKEN).validate(str(request.url), form, signature):
            return web.Response(status=403)
        url = f"ws://{request.host}/stream{'?a=1' if says == 'query' else ''}"
        parameter = f'<Parameter name="token" value="{form["CallSid"]}"/>'
        return web.Response(
            text=f'<Response><Connect><Stream url="{url}">{parameter}</Stream></Connect></Response>',
            content_type="application/xml",
        )

    used: set[str] = set()

    async def stream(request: web.Request) -> Socket:
        socket = Socket()
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                await socket.close(code=1003)
                break
            body = json.loads(message.data)
            if body["event"] == "start":
                token = body["start"]["customParameters"]["token"]
                if token in used and says != "again":
                    await socket.close(code=4403)
                    break
                used.add(token)
                await sin(socket, body["streamSid"])
            elif body["event"] == "media" and sin is right:
                await socket.send_str(media(body["streamSid"], body["media"]["payload"]))
            elif body["event"] == "stop" and says != "open":
                await socket.close(code=1000)
        return socket

    async with serving(web.post("/voice", voice), web.get("/stream", stream)) as host:
        return dict(await twilio.check(f"http://{host}/voice", ACCOUNT, TOKEN, "+493012345", 0.2))


async def right(socket: Socket, name: str) -> None:
    return None


def faults(found: dict[str, str]) -> dict[str, str]:
    return {rule: fault for rule, fault in found.items() if fault}


async def test_nothing_is_found_at_a_twilio_server_that_is_right() -> None:
    assert not faults(await found_at_twilio(right))


@pytest.mark.parametrize("name", list(TWILIO_SINS))
async def test_what_twilio_would_not_take_is_found(name: str) -> None:
    sin, rule, why = TWILIO_SINS[name]
    found = faults(await found_at_twilio(sin))
    assert any(each.startswith(rule) and why in fault for each, fault in found.items()), found


@pytest.mark.parametrize(
    ("says", "rule"),
    [
        ("anybody", "a wrong signature is refused"),
        ("query", "the answer connects a stream"),
        ("again", "a parameter that was used is refused"),
        ("open", "the server closes with 1000 after `stop`"),
    ],
)
async def test_a_twilio_server_that_is_too_trusting_is_found(says: str, rule: str) -> None:
    assert rule in faults(await found_at_twilio(right, says=says))


# --- Vonage -----------------------------------------------------------------------------------------------------------


async def overrun(socket: Socket, name: str) -> None:
    for _ in range(300):
        await socket.send_bytes(b"\x01\x02" * 320)


VONAGE_SINS: dict[str, tuple[Sin, str, str]] = {
    "length": (lambda socket, name: socket.send_bytes(bytes(100)), "only what Vonage takes", "100 bytes"),
    "no JSON": (lambda socket, name: socket.send_str("clear"), "only what Vonage takes", "not a message"),
    "unknown": (lambda socket, name: socket.send_str('{"action": "pause"}'), "only what Vonage takes", "pause"),
    "clear with more": (
        lambda socket, name: socket.send_str('{"action": "clear", "now": 1}'),
        "only what Vonage takes",
        "clear",
    ),
    "flood": (overrun, "no more sound waits", "of it"),
    "silence": (nothing, "the caller hears something", "nothing"),
}


async def found_at_vonage(sin: Sin, *, says: str = "") -> dict[str, str]:
    async def answer(request: web.Request) -> web.Response:
        body = await request.read()
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if says != "anybody":
            try:
                claims = jwt.decode(token, SECRET, algorithms=["HS256"])
            except jwt.InvalidTokenError:
                return web.Response(status=403)
            if claims["payload_hash"] != hashlib.sha256(body).hexdigest():
                return web.Response(status=403)
        endpoint = {
            "type": "websocket",
            "uri": f"ws://{request.host}/stream",
            "content-type": "audio/l16;rate=44100" if says == "rate" else "audio/l16;rate=16000",
            "headers": {"token": json.loads(body)["uuid"]},
        }
        return web.json_response([{"action": "connect", "endpoint": [endpoint]}])

    used: set[str] = set()

    async def stream(request: web.Request) -> Socket:
        socket = Socket()
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                body = json.loads(message.data)
                if body["event"] == "websocket:connected":
                    again = body["token"] in used and says != "again"
                    if again or (body["content-type"] != "audio/l16;rate=16000" and says != "any rate"):
                        await socket.close(code=4403)
                        break
                    used.add(body["token"])
                    await sin(socket, "")
            elif message.type is WSMsgType.BINARY and sin is right:
                await socket.send_bytes(message.data)
        return socket

    async with serving(web.post("/answer", answer), web.get("/stream", stream)) as host:
        return dict(await vonage.check(f"http://{host}/answer", APPLICATION, SECRET, "493012345", 0.2))


async def test_nothing_is_found_at_a_vonage_server_that_is_right() -> None:
    assert not faults(await found_at_vonage(right))


@pytest.mark.parametrize("name", list(VONAGE_SINS))
async def test_what_vonage_would_not_take_is_found(name: str) -> None:
    sin, rule, why = VONAGE_SINS[name]
    found = faults(await found_at_vonage(sin))
    assert any(each.startswith(rule) and why in fault for each, fault in found.items()), found


@pytest.mark.parametrize(
    ("says", "rule"),
    [
        ("anybody", "a wrong signature is refused"),
        ("anybody", "a body that was not signed is refused"),
        ("rate", "the NCCO connects a WebSocket"),
        ("again", "headers that were used are refused"),
        ("any rate", "sound at another rate is refused"),
    ],
)
async def test_a_vonage_server_that_is_too_trusting_is_found(says: str, rule: str) -> None:
    assert rule in faults(await found_at_vonage(right, says=says))
