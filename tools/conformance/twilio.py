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
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from twilio.request_validator import RequestValidator

from tools.conformance.kit import FRAME_S, MOST_AHEAD_S, CarriersStream, code_after, report

FRAME_BYTES = 160
SILENCE = b"\xff" * FRAME_BYTES


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


@dataclass(kw_only=True)
class TwilioCall(CarriersStream):
    """See `CarriersStream`; `connected` makes one. played: mu-law. marks: (name, whether its sound was played)."""

    account_sid: str
    call_sid: str
    stream_sid: str = field(default_factory=lambda: sid("MZ"))
    marks: list[tuple[str, bool]] = field(default_factory=list)
    _sequence: int = 0
    _chunk: int = 0
    _began_s: float = field(default_factory=time.monotonic)
    _buffer: deque[bytes | str] = field(default_factory=deque)

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

    async def says_stop(self) -> None:
        """The call is over; the WebSocket is still open."""
        await self.say("stop", stop={"accountSid": self.account_sid, "callSid": self.call_sid})

    async def stop(self) -> None:
        await self.says_stop()
        await self.socket.close()

    # --- what Twilio hears --------------------------------------------------------------------------------------------

    def _seen(self) -> str:
        return f"{super()._seen()}, marks {self.marks}"

    async def listen(self) -> None:
        """Until the end: take what comes, and check it."""
        async for message in self.socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                await self._told(message.data)
            elif message.type is aiohttp.WSMsgType.BINARY:
                self.faults.append("a binary frame: Twilio takes text alone (error 31951)")
            self._news.set()
        self._over()

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
                self._heard(rest[:FRAME_BYTES])
                rest = rest[FRAME_BYTES:]

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
                if set(body) != {"event", "streamSid"}:
                    self.faults.append(f"a `clear` of another shape: {sorted(body)}")
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
        waiting = sum(len(each) for each in self._buffer if isinstance(each, bytes))
        self.most_ahead_s = max(self.most_ahead_s, waiting / FRAME_BYTES * FRAME_S)

    async def _marked(self, body: Mapping[str, Any]) -> None:
        name = (body.get("mark") or {}).get("name")
        if set(body) != {"event", "streamSid", "mark"}:
            self.faults.append(f"a `mark` of another shape: {sorted(body)}")
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
        call = TwilioCall(socket=socket, account_sid=account_sid, call_sid=call_sid or twiml.call_sid or sid("CA"))
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
            await call.says_stop()
            code = await code_after(call)
        found["the server closes with 1000 after `stop`"] = "" if code == 1000 else f"its code is {code}"
        found["only what Twilio takes is sent"] = "; ".join(sorted(set(call.faults)))
        ahead_s = call.most_ahead_s
        found["no more sound waits than is heard soon"] = "" if ahead_s < MOST_AHEAD_S else f"{ahead_s:.1f} s of it"
        found["the caller hears something"] = "" if call.played else "nothing was played"
        async with connected(client, twiml, account_sid) as again:
            code = await code_after(again)
        found["a parameter that was used is refused"] = "" if code else "the same stream could begin twice"
        other = sid("CA")
        status, text = await ask_webhook(client, url, account_sid, auth_token, {**fields, "CallSid": other})
        async with connected(client, TwiML.parse(text, other), account_sid) as call:
            await call.socket.send_bytes(SILENCE)
            code = await code_after(call)
        found["binary frames end the stream with 1003"] = "" if code == 1003 else f"its code is {code}"
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Call a server as Twilio does, and check what it answers.")
    parser.add_argument("--url", required=True, help="of the voice webhook")
    parser.add_argument("--account-sid", required=True)
    parser.add_argument("--auth-token", required=True)
    parser.add_argument("--to", default="+4930123456", help="the number that is called")
    return report(parser, lambda asked: check(asked.url, asked.account_sid, asked.auth_token, asked.to, asked.seconds))


if __name__ == "__main__":
    sys.exit(main())
