"""A Twilio to call a server with: the voice webhook, signed; then Media Streams, as published.

    python -m tools.conformance.twilio --url http://127.0.0.1:8080/webhooks/twilio/twilio/voice --account-sid AC... \
        --auth-token ... --to +4930123456 --seconds 5

Owns Twilio's side of one call: its requests, its pace (20 ms of mu-law a message), its buffer, which plays what comes
in real time, its marks. Checks what a server may say: text frames only; `media`, `mark` and `clear` only; the right
streamSid; base64 of mu-law. What breaks a rule stands in `faults`. Sources: twilio.com/docs/voice/media-streams,
twilio.com/docs/usage/security.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import binascii
import contextlib
import json
import secrets
import sys
import time
import xml.etree.ElementTree as ET
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from twilio.request_validator import RequestValidator

FRAME_S = 0.02
FRAME_BYTES = 160
SILENCE = b"\xff" * FRAME_BYTES
PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True)
class TwiML:
    """What the webhook answered: where the stream goes, and with which parameters. call_sid: of the call that it was
    asked about.
    """

    url: str
    parameters: Mapping[str, str]
    call_sid: str = ""

    @classmethod
    def parse(cls, text: str, call_sid: str = "") -> TwiML:
        """Raises ValueError when there is no <Connect><Stream>."""
        root = ET.fromstring(text)
        stream = root.find("./Connect/Stream")
        if root.tag != "Response" or stream is None or not stream.get("url"):
            raise ValueError(f"no <Connect><Stream url> in {text}")
        if "?" in stream.get("url", ""):
            raise ValueError("the URL of a stream takes no query")
        found = {each.get("name", ""): each.get("value", "") for each in stream.findall("Parameter")}
        return cls(stream.get("url", ""), found, call_sid)


def sid(prefix: str) -> str:
    """A new name as Twilio makes them: two letters and 32 hex digits."""
    return prefix + secrets.token_hex(16)


async def ask_webhook(
    client: aiohttp.ClientSession,
    url: str,
    account_sid: str,
    auth_token: str,
    fields: Mapping[str, str],
    signed: str = "",
) -> tuple[int, str]:
    """POST the fields as Twilio would; status and text. signed: the URL that the signature is for, if it is another."""
    form = {"AccountSid": account_sid, "ApiVersion": "2010-04-01", "Direction": "inbound", **fields}
    signature = RequestValidator(auth_token).compute_signature(signed or url, form)
    async with client.post(url, data=form, headers={"X-Twilio-Signature": signature}) as answer:
        return answer.status, await answer.text()


@dataclass
class TwilioCall:
    """One stream, from Twilio's side. Loop thread; `connected` makes one. played: what the caller heard, mu-law,
    silence left out. events: names of what came, in order. marks: (name, whether its sound was played).
    """

    socket: aiohttp.ClientWebSocketResponse
    account_sid: str
    call_sid: str
    stream_sid: str = field(default_factory=lambda: sid("MZ"))
    faults: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    marks: list[tuple[str, bool]] = field(default_factory=list)
    played: bytearray = field(default_factory=bytearray)
    played_at_s: list[float] = field(default_factory=list)
    cleared: int = 0
    _sequence: int = 0
    _chunk: int = 0
    _began_s: float = field(default_factory=time.monotonic)
    _buffer: deque[bytes | str] = field(default_factory=deque)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    # --- what Twilio says ---------------------------------------------------------------------------------------------

    async def say(self, event: str, **parts: Any) -> None:
        self._sequence += 1
        body = {"event": event, "sequenceNumber": str(self._sequence), "streamSid": self.stream_sid, **parts}
        await self.socket.send_str(json.dumps(body))

    async def start(self, parameters: Mapping[str, str]) -> None:
        await self.socket.send_str(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
        await self.say(
            "start",
            start={
                "accountSid": self.account_sid,
                "streamSid": self.stream_sid,
                "callSid": self.call_sid,
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": dict(parameters),
            },
        )

    async def media(self, payload: bytes) -> None:
        self._chunk += 1
        media = {
            "track": "inbound",
            "chunk": str(self._chunk),
            "timestamp": str(round((time.monotonic() - self._began_s) * 1000)),
            "payload": base64.b64encode(payload).decode(),
        }
        await self.say("media", media=media)

    async def talk(self, sound: bytes, *, speed: float = 1.0) -> None:
        """Say mu-law in real time, 20 ms a message; speed: of Twilio's clock."""
        begun_s = time.monotonic()
        for number, start in enumerate(range(0, len(sound), FRAME_BYTES)):
            wait_s = begun_s + number * FRAME_S / speed - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)  # the pace is what is played here
            if self.socket.closed:
                return
            await self.media(sound[start : start + FRAME_BYTES])

    async def digit(self, digit: str) -> None:
        await self.say("dtmf", dtmf={"track": "inbound_track", "digit": digit})

    async def stop(self) -> None:
        await self.say("stop", stop={"accountSid": self.account_sid, "callSid": self.call_sid})
        await self.socket.close()

    # --- what Twilio hears --------------------------------------------------------------------------------------------

    async def until(self, true: Callable[[], bool], what: str, timeout_s: float = PATIENCE_S) -> None:
        """Wait until it is so; raises AssertionError with what was seen."""
        try:
            async with asyncio.timeout(timeout_s):
                while not true():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            seen = f"events {self.events[-20:]}, marks {self.marks}, {len(self.played)} bytes played"
            raise AssertionError(f"{what} did not come: {seen}; faults {self.faults}") from None

    async def ended(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait until the server closes; its close code."""
        async with asyncio.timeout(timeout_s):
            await self._ended.wait()
        return self.socket.close_code or 0

    async def listen(self) -> None:
        """Until the end: take what comes, and check it."""
        async for message in self.socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                await self._told(message.data)
            elif message.type is aiohttp.WSMsgType.BINARY:
                self.faults.append("a binary frame: Twilio takes text alone (error 31951)")
            self._news.set()
        self._ended.set()
        self._news.set()

    async def play(self) -> None:
        """The caller's ear: 20 ms of what is buffered every 20 ms."""
        due_s = time.monotonic()
        rest = b""
        while True:
            due_s += FRAME_S
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            while self._buffer and isinstance(self._buffer[0], str):
                await self._return(str(self._buffer.popleft()), played=True)
            while self._buffer and len(rest) < FRAME_BYTES and isinstance(self._buffer[0], bytes):
                rest += bytes(self._buffer.popleft())  # type: ignore[arg-type]
            if rest:
                self.played += rest[:FRAME_BYTES]
                self.played_at_s.append(time.monotonic())
                rest = rest[FRAME_BYTES:]
                self._news.set()

    async def _told(self, text: str) -> None:
        try:
            body = json.loads(text)
            event = body["event"]
        except (ValueError, KeyError, TypeError):
            self.faults.append(f"not a message: {text[:80]!r} (error 31951)")
            return
        self.events.append(event)
        if body.get("streamSid") != self.stream_sid:
            self.faults.append(f"`{event}` with a streamSid that is not the stream's (error 31951)")
            return
        match event:
            case "media":
                self._buffered(body)
            case "mark":
                await self._marked(body)
            case "clear":
                self.cleared += 1
                waiting, self._buffer = self._buffer, deque()
                for each in waiting:
                    if isinstance(each, str):
                        await self._return(each, played=False)
            case _:
                self.faults.append(f"`{event}` is no message to Twilio")

    def _buffered(self, body: Mapping[str, Any]) -> None:
        payload = (body.get("media") or {}).get("payload")
        if set(body) != {"event", "streamSid", "media"} or not isinstance(payload, str):
            self.faults.append(f"a `media` of another shape: {sorted(body)}")
            return
        try:
            sound = base64.b64decode(payload, validate=True)
        except binascii.Error:
            self.faults.append("a payload that is not base64")
            return
        if not sound:
            self.faults.append("an empty payload")
        self._buffer.append(sound)

    async def _marked(self, body: Mapping[str, Any]) -> None:
        name = (body.get("mark") or {}).get("name")
        if not isinstance(name, str) or not name:
            self.faults.append("a `mark` without a name")
        elif self._buffer:
            self._buffer.append(name)
        else:
            await self._return(name, played=True)

    async def _return(self, name: str, *, played: bool) -> None:
        self.marks.append((name, played))
        with contextlib.suppress(ConnectionError):
            await self.say("mark", mark={"name": name})
        self._news.set()


@contextlib.asynccontextmanager
async def connected(
    client: aiohttp.ClientSession,
    twiml: TwiML,
    account_sid: str,
    *,
    call_sid: str = "",
    begins: bool = True,
) -> AsyncIterator[TwilioCall]:
    """A stream as Twilio opens it, for the length of an `async with` block. begins: say `connected` and `start`.
    call_sid: if it is to be another one than that of the webhook.
    """
    async with client.ws_connect(twiml.url, compress=0) as socket:
        call = TwilioCall(socket, account_sid, call_sid or twiml.call_sid or sid("CA"))
        tasks = [asyncio.create_task(work, name="twilio") for work in (call.listen(), call.play())]
        try:
            if begins:
                await call.start(twiml.parameters)
            yield call
        finally:
            await socket.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def check(url: str, account_sid: str, auth_token: str, to: str, seconds: float) -> Mapping[str, str]:
    """Rule -> what is wrong with it; empty: nothing."""
    found: dict[str, str] = {}
    async with aiohttp.ClientSession() as client:
        fields = {"CallSid": sid("CA"), "From": "+493012345678", "To": to}
        status, _ = await ask_webhook(client, url, account_sid, auth_token + "x", fields)
        found["a wrong signature is refused"] = "" if status in (401, 403) else f"it was answered {status}"
        status, text = await ask_webhook(client, url, account_sid, auth_token, fields)
        found["a signed webhook is answered 200"] = "" if status == 200 else f"it was answered {status}: {text[:200]}"
        if status != 200:
            return found
        try:
            twiml = TwiML.parse(text, fields["CallSid"])
        except (ValueError, ET.ParseError) as problem:
            return {**found, "the answer connects a stream": str(problem)}
        found["the answer connects a stream"] = ""
        async with connected(client, twiml, account_sid) as call:
            await call.talk((SILENCE * 50)[: int(seconds * 8000)])
            await call.talk(bytes(range(256)) * int(seconds * 8000 / 256))
            await call.stop()
        found["only what Twilio takes is sent"] = "; ".join(sorted(set(call.faults)))
        found["the caller hears something"] = "" if call.played else "nothing was played"
        async with connected(client, twiml, account_sid) as again:
            with contextlib.suppress(TimeoutError):
                await again.ended(5)
            closed = again.socket.closed
        found["a parameter that was used is refused"] = "" if closed else "the same stream could begin twice"
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Call a server as Twilio does, and check what it answers.")
    parser.add_argument("--url", required=True, help="of the voice webhook")
    parser.add_argument("--account-sid", required=True)
    parser.add_argument("--auth-token", required=True)
    parser.add_argument("--to", default="+4930123456", help="the number that is called")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long the caller talks")
    asked = parser.parse_args()
    found = asyncio.run(check(asked.url, asked.account_sid, asked.auth_token, asked.to, asked.seconds))
    for rule, fault in found.items():
        print(f"{'FAIL' if fault else 'ok':4}  {rule}{f': {fault}' if fault else ''}")
    return 1 if any(found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
