"""A Vonage to call a server with: the answer webhook, signed; then the WebSocket, as published.

    python -m tools.conformance.vonage --url http://127.0.0.1:8080/webhooks/vonage/vonage/answer \
        --application-id ... --signature-secret ... --to 4930123456 --seconds 5

Owns Vonage's side of one WebSocket: its pace (20 ms of 16 bit samples a message), its buffer, which holds 3072 messages
and plays them in real time, its answers to `notify` and `clear`. What breaks a rule stands in `faults`. Sources:
developer.vonage.com, "WebSockets in the Vonage Voice API", "NCCO reference", "Signed webhooks".
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import re
import secrets
import sys
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import jwt

from tools.conformance.kit import FRAME_S, MOST_AHEAD_S, CarriersStream, code_after, report

MOST_BUFFERED = 3072
MOST_HEADER_BYTES = 512


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What an NCCO connects a call to: a WebSocket."""

    uri: str
    rate_hz: int
    headers: Mapping[str, Any]

    @classmethod
    def parse(cls, ncco: Any) -> Endpoint:
        """Raises ValueError when the first action connects no WebSocket, or not as published."""
        if not isinstance(ncco, list) or not ncco or not isinstance(ncco[0], dict):
            raise ValueError(f"no NCCO, which is a list of actions: {ncco!r}")
        endpoints = ncco[0].get("endpoint")
        if ncco[0].get("action") != "connect" or not isinstance(endpoints, list) or len(endpoints) != 1:
            raise ValueError("the first action is no `connect` with one endpoint")
        (endpoint,) = endpoints
        found = re.fullmatch(r"audio/l16;rate=(8000|16000|24000)", str(endpoint.get("content-type")))
        headers = endpoint.get("headers") or {}
        if endpoint.get("type") != "websocket" or found is None:
            raise ValueError(f"no WebSocket with a content-type that is known: {endpoint!r}")
        if not re.match(r"wss?://", str(endpoint.get("uri"))):
            raise ValueError("the uri is not one of a WebSocket")
        if len(json.dumps(headers)) > MOST_HEADER_BYTES:
            raise ValueError(f"headers of more than {MOST_HEADER_BYTES} bytes")
        return cls(str(endpoint["uri"]), int(found[1]), headers)


def signed(secret: str, application_id: str, body: bytes, *, at_s: float | None = None, **claims: Any) -> str:
    """The token that Vonage sends with a webhook. claims: what is to be other than usual."""
    said = {
        "iat": int(time.time() if at_s is None else at_s),
        "jti": str(uuid.uuid4()),
        "iss": "Vonage",
        "api_key": "abcd1234",
        "application_id": application_id,
        **({"payload_hash": hashlib.sha256(body).hexdigest()} if body else {}),
        **claims,
    }
    return jwt.encode(said, secret, algorithm="HS256")


async def ask(
    client: aiohttp.ClientSession,
    url: str,
    application_id: str,
    secret: str,
    fields: Mapping[str, str],
    *,
    method: str = "POST",
) -> tuple[int, str]:
    """Call a webhook as Vonage would; status and text."""
    body = json.dumps(dict(fields)).encode() if method == "POST" else b""
    headers = {"Authorization": f"Bearer {signed(secret, application_id, body)}"}
    if body:
        headers["Content-Type"] = "application/json"
    params = None if method == "POST" else dict(fields)
    async with client.request(method, url, data=body or None, params=params, headers=headers) as answer:
        return answer.status, await answer.text()


@dataclass(kw_only=True)
class VonageStream(CarriersStream):
    """See `CarriersStream`; `connected` makes one. told: (name of a notify, whether its sound was played)."""

    rate_hz: int
    told: list[tuple[str, bool]] = field(default_factory=list)
    _buffer: deque[bytes | Mapping[str, Any]] = field(default_factory=deque)
    _frames: int = 0

    @property
    def frame(self) -> int:
        """Bytes of 20 ms."""
        return self.rate_hz // 50 * 2

    # --- what Vonage says ---------------------------------------------------------------------------------------------

    async def start(self, headers: Mapping[str, Any]) -> None:
        await self.say("websocket:connected", **{"content-type": f"audio/l16;rate={self.rate_hz}"}, **headers)

    async def say(self, event: str, **parts: Any) -> None:
        with contextlib.suppress(ConnectionError):
            await self.socket.send_str(json.dumps({"event": event, **parts}))

    async def talk(self, sound: bytes, *, speed: float = 1.0, frame: int = 0) -> None:
        """Say 16 bit samples in real time, 20 ms a message; speed: of Vonage's clock. frame: bytes, if not 20 ms."""
        size, begun_s = frame or self.frame, time.monotonic()
        for start in range(0, len(sound), size):
            wait_s = begun_s + start / self.frame * FRAME_S / speed - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)  # the pace is what is played here
            if self.socket.closed:
                return
            with contextlib.suppress(ConnectionError):
                await self.socket.send_bytes(sound[start : start + size])

    async def digit(self, digit: str) -> None:
        await self.say("websocket:dtmf", digit=digit, duration=260)

    async def stop(self) -> None:
        """The caller hangs up: Vonage closes."""
        await self.socket.close()

    # --- what Vonage hears --------------------------------------------------------------------------------------------

    def _seen(self) -> str:
        return f"{super()._seen()}, told {self.told}"

    async def listen(self) -> None:
        """Until the end: take what comes, and check it."""
        try:
            async for message in self.socket:
                if message.type is aiohttp.WSMsgType.BINARY:
                    self._sound(message.data)
                elif message.type is aiohttp.WSMsgType.TEXT:
                    await self._asked(message.data)
                self._news.set()
        finally:
            self._over()

    async def play(self) -> None:
        """The caller's ear: one message of what is buffered every 20 ms."""
        due_s = time.monotonic()
        while True:
            due_s += FRAME_S
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            await self._answer_due()
            if self._buffer:
                self._heard(bytes(self._buffer.popleft()))  # type: ignore[arg-type]
                self._frames -= 1

    def _sound(self, payload: bytes) -> None:
        self.events.append("sound")
        if len(payload) != self.frame:
            self.faults.append(f"a message of {len(payload)} bytes; 20 ms have {self.frame}")
        if self._frames >= MOST_BUFFERED:
            self.faults.append(f"more than {MOST_BUFFERED} messages are waiting")
            return
        self._buffer.append(payload)
        self._frames += 1
        self.most_ahead_s = max(self.most_ahead_s, self._frames * FRAME_S)

    async def _asked(self, text: str) -> None:
        try:
            body = json.loads(text)
            action = body["action"]
        except (ValueError, KeyError, TypeError):
            self.faults.append(f"not a message: {text[:80]!r}")
            return
        self.events.append(action)
        match action:
            case "clear" if set(body) == {"action"}:
                self.cleared += 1
                self.told += [(_name(each), False) for each in self._buffer if not isinstance(each, bytes)]
                self._buffer.clear()
                self._frames = 0
                await self.say("websocket:cleared")
            case "notify" if isinstance(body.get("payload"), dict):
                self._buffer.append(body["payload"])
                if not self._frames:
                    await self._answer_due()
            case _:
                self.faults.append(f"`{text[:80]}` is no message to Vonage")

    async def _answer_due(self) -> None:
        while self._buffer and not isinstance(self._buffer[0], bytes):
            payload = self._buffer.popleft()
            self.told.append((_name(payload), True))
            await self.say("websocket:notify", payload=payload)
            self._news.set()


def _name(payload: Any) -> str:
    return str(payload.get("name", ""))


@contextlib.asynccontextmanager
async def connected(
    client: aiohttp.ClientSession, endpoint: Endpoint, *, begins: bool = True
) -> AsyncIterator[VonageStream]:
    """A WebSocket as Vonage opens it, for the length of an `async with` block. begins: say `websocket:connected`."""
    async with client.ws_connect(endpoint.uri, compress=0) as socket:
        stream = VonageStream(socket=socket, rate_hz=endpoint.rate_hz)
        tasks = [asyncio.create_task(work, name="vonage") for work in (stream.listen(), stream.play())]
        try:
            if begins:
                await stream.start(endpoint.headers)
            yield stream
        finally:
            await socket.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def check(url: str, application_id: str, secret: str, to: str, seconds: float) -> Mapping[str, str]:
    """Rule -> what is wrong with it; empty: nothing."""
    found: dict[str, str] = {}
    async with aiohttp.ClientSession() as client:
        fields = {
            "to": to,
            "from": "493012345678",
            "uuid": str(uuid.uuid4()),
            "conversation_uuid": f"CON-{uuid.uuid4()}",
            "endpoint_type": "phone",
        }
        status, _ = await ask(client, url, application_id, secret + "x" * 32, fields)
        found["a wrong signature is refused"] = "" if status in (401, 403) else f"it was answered {status}"
        body = json.dumps(fields).encode()
        other = {"Authorization": f"Bearer {signed(secret, application_id, body)}", "Content-Type": "application/json"}
        async with client.post(url, data=body.replace(b"4930", b"4940"), headers=other) as answer:
            changed = answer.status
        found["a body that was not signed is refused"] = "" if changed in (401, 403) else f"it was answered {changed}"
        status, text = await ask(client, url, application_id, secret, fields)
        found["a signed webhook is answered 200"] = "" if status == 200 else f"it was answered {status}: {text[:200]}"
        if status != 200:
            return found
        try:
            endpoint = Endpoint.parse(json.loads(text))
        except ValueError as problem:
            return {**found, "the NCCO connects a WebSocket": str(problem)}
        found["the NCCO connects a WebSocket"] = ""
        async with connected(client, endpoint) as stream:
            await stream.talk(secrets.token_bytes(stream.frame) * int(seconds * 50))
            await stream.stop()
        found["only what Vonage takes is sent"] = "; ".join(sorted(set(stream.faults)))
        ahead_s = stream.most_ahead_s
        found["no more sound waits than is heard soon"] = "" if ahead_s < MOST_AHEAD_S else f"{ahead_s:.1f} s of it"
        found["the caller hears something"] = "" if stream.played else "nothing was played"
        async with connected(client, endpoint) as again:
            code = await code_after(again)
        found["headers that were used are refused"] = "" if code else "the same WebSocket could begin twice"
        status, text = await ask(client, url, application_id, secret, {**fields, "uuid": str(uuid.uuid4())})
        endpoint = Endpoint.parse(json.loads(text))
        rate_hz = next(rate for rate in (8000, 16_000) if rate != endpoint.rate_hz)
        async with connected(client, Endpoint(endpoint.uri, rate_hz, endpoint.headers)) as wrong:
            code = await code_after(wrong)
        found["sound at another rate is refused"] = "" if code else f"{rate_hz} Hz could begin"
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Call a server as Vonage does, and check what it answers.")
    parser.add_argument("--url", required=True, help="of the answer webhook")
    parser.add_argument("--application-id", required=True)
    parser.add_argument("--signature-secret", required=True)
    parser.add_argument("--to", default="4930123456", help="the number that is called")
    return report(
        parser, lambda asked: check(asked.url, asked.application_id, asked.signature_secret, asked.to, asked.seconds)
    )


if __name__ == "__main__":
    sys.exit(main())
