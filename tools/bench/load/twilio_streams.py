"""Many callers of Twilio in one process, cheaply: Media Streams as Twilio sends them, by bare sockets.

    python -m tools.bench.load.twilio_streams WEBHOOK ACCOUNT_SID AUTH_TOKEN TO STREAMS SECONDS

Each stream sends 20 ms of mu-law every 20 ms, as the wire format says, and looks for it among what comes back. Prints
a JSON object: frames sent and received, streams that were lost, round trips in milliseconds (p50, p95), CPU seconds of
its own. Frames are masked with zeros, which RFC 6455 permits a client, so that masking costs nothing. Without a webhook
(`ws://...` in its place) the stream begins at once, as for a server that knows no tokens.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import struct
import sys
import time
from collections import deque
from urllib.parse import urlsplit

import aiohttp
import uvloop

from tools.conformance.twilio import TwiML, ask_webhook, sid

_PAYLOAD = re.compile(rb'"payload":\s*"([^"]+)"')
_AT_ONCE = 10
SETTLE_S = 3.0
"""What comes in the first moments does not count: everything is new then."""


class Stream(asyncio.Protocol):
    """One caller. Times are those of the loop."""

    def __init__(self, host: str, path: str, number: int, start: str) -> None:
        self.open = asyncio.get_running_loop().create_future()
        self.lost = False
        self.sent = self.received = 0
        self.trips_ms: list[float] = []
        self._hello = (
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()
        self._number, self._start = number, start
        self._stream_sid = json.loads(start)["streamSid"]
        self._at: deque[tuple[bytes, float]] = deque(maxlen=100)
        self._rest = b""
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.transport.write(self._hello)

    def data_received(self, data: bytes) -> None:
        if not self.open.done():
            if b"\r\n\r\n" not in data:
                self._rest += data
                return
            head = self._rest + data
            self._rest = b""
            if b" 101 " not in head.partition(b"\r\n")[0]:
                self.open.set_exception(ConnectionError(head[:200].decode(errors="replace")))
                return
            self.say('{"event":"connected","protocol":"Call","version":"1.0.0"}')
            self.say(self._start)
            self.open.set_result(None)
            return
        now_s = self._loop.time()
        for found in _PAYLOAD.finditer(self._rest + data):
            self.received += 1
            payload = found[1]
            for at, (sent, then_s) in enumerate(self._at):
                if sent == payload:
                    self.trips_ms.append((now_s - then_s) * 1000)
                    for _ in range(at + 1):
                        self._at.popleft()
                    break
        joined = self._rest + data
        self._rest = joined[joined.rfind(b"}}") + 2 :][-4096:]

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if not self.open.done():
            self.open.set_exception(exc or ConnectionError("closed"))

    def say(self, text: str) -> None:
        payload = text.encode()
        head = b"\x81" + (
            struct.pack("!B", 0x80 | len(payload)) if len(payload) < 126 else struct.pack("!BH", 0xFE, len(payload))
        )
        self.transport.write(head + b"\0\0\0\0" + payload)

    def tick(self) -> None:
        """20 ms of sound that is like no other."""
        if self.lost:
            return
        self.sent += 1
        sound = base64.b64encode(struct.pack("!IQ", self._number, self.sent) + b"\x2a" * 148)
        self._at.append((sound, self._loop.time()))
        self.say(
            f'{{"event":"media","sequenceNumber":"{self.sent}","media":{{"track":"inbound","chunk":"{self.sent}",'
            f'"timestamp":"{self.sent * 20}","payload":"{sound.decode()}"}},"streamSid":"{self._stream_sid}"}}'
        )


def start_of(account_sid: str, parameters: dict[str, str]) -> str:
    stream_sid = sid("MZ")
    start = {
        "accountSid": account_sid,
        "streamSid": stream_sid,
        "callSid": sid("CA"),
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": parameters,
    }
    return json.dumps({"event": "start", "sequenceNumber": "1", "start": start, "streamSid": stream_sid})


async def connect(
    target: str, account_sid: str, auth_token: str, to: str, number: int, client: aiohttp.ClientSession
) -> Stream:
    url, parameters = target, {}
    if not target.startswith("ws"):
        fields = {"CallSid": sid("CA"), "From": f"+4930{number:06}", "To": to}
        status, text = await ask_webhook(client, target, account_sid, auth_token, fields)
        if status != 200:
            raise ConnectionError(f"the webhook answered {status}: {text[:200]}")
        twiml = TwiML.parse(text)
        url, parameters = twiml.url, dict(twiml.parameters)
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    _, stream = await loop.create_connection(
        lambda: Stream(parts.netloc, parts.path or "/", number, start_of(account_sid, parameters)),
        parts.hostname or "127.0.0.1",
        parts.port or 80,
    )
    await stream.open
    return stream


async def load(
    target: str, account_sid: str, auth_token: str, to: str, count: int, seconds: float
) -> dict[str, object]:
    streams: list[Stream] = []
    async with aiohttp.ClientSession() as client:
        for first in range(0, count, _AT_ONCE):
            numbers = range(first, min(count, first + _AT_ONCE))
            streams += await asyncio.gather(
                *(connect(target, account_sid, auth_token, to, number, client) for number in numbers)
            )
    loop = asyncio.get_running_loop()
    steps = 20  # streams are spread over the 20 ms
    began_s, step, cpu_s = loop.time() + 0.1, 0, 0.0
    settled = round(SETTLE_S * 50) * steps
    marks: list[tuple[int, int]] = []
    print(json.dumps({"connected": len(streams)}), flush=True)
    while step < (seconds + SETTLE_S) * 50 * steps:
        if step == settled:
            cpu_s = time.process_time()
            for stream in streams:
                stream.trips_ms.clear()
            marks = [(stream.sent, stream.received) for stream in streams]
            print(json.dumps({"settled": True}), flush=True)
        wait_s = began_s + step * 0.02 / steps - loop.time()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        for stream in streams[step % steps :: steps]:
            stream.tick()
        step += 1
    cpu_s = time.process_time() - cpu_s
    late_s = loop.time() - (began_s + step * 0.02 / steps)
    print(json.dumps({"done": True}), flush=True)
    await asyncio.sleep(0.5)  # what is on its way
    trips = sorted(trip for stream in streams for trip in stream.trips_ms)
    sent = sum(stream.sent - before for stream, (before, _) in zip(streams, marks, strict=True))
    received = sum(stream.received - before for stream, (_, before) in zip(streams, marks, strict=True))
    lost = sum(stream.lost for stream in streams)
    for stream in streams:
        if not stream.lost:
            stream.transport.close()
    return {
        "streams": len(streams),
        "lost": lost,
        "sent": sent,
        "received": received,
        "matched": len(trips),
        "p50_ms": round(trips[len(trips) // 2], 1) if trips else None,
        "p95_ms": round(trips[len(trips) * 95 // 100], 1) if trips else None,
        "late_s": round(late_s, 3),
        "cpu_s": round(cpu_s, 2),
    }


def main() -> None:
    target, account_sid, auth_token, to, count, seconds = sys.argv[1:7]
    print(json.dumps(uvloop.run(load(target, account_sid, auth_token, to, int(count), float(seconds)))), flush=True)


if __name__ == "__main__":
    main()
