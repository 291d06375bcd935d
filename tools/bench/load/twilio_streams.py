"""Many Twilio streams at a time, in a process of its own: `python -m tools.bench.load.twilio_streams HOST PORT,... PATH
SECONDS` with one line of custom parameters (JSON) a stream on its standard input.

Every stream says a frame of mu-law each 20 ms, most of them quiet, every 25th loud: the loud ones tell when the echo is
back. Streams are spread over the 20 ms as real callers are. Prints `steady` when all streams run, `over` after SECONDS,
then a line of JSON: frames sent and come back in that time, round trips in ms, and how late its own sending was.

It eats of the cores that it measures, so it is made of little: frames are written by hand (RFC 6455, 5.2; with a
masking key of zeros, which is a valid one), and of what comes only sound is looked at.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import struct
import sys
import time
from base64 import b64encode
from collections import deque
from typing import cast

import numpy as np
import uvloop

GROUPS = 20
LOUD_EVERY = 25
FRAME_S = 0.02
SETTLE_S = 3.0
DRAIN_S = 2.0
END_S = 0.5
OPEN_S = 0.01
_QUIET = b64encode(bytes([0xF0]) * 160).decode()
_LOUD = b64encode(bytes([0x80]) * 160).decode()
_LOUD_BELOW = 0x90
"""Mu-law bytes 0x80 to 0x8F are the loudest positive ones, 0x00 to 0x0F the negative ones."""

_TEXT, _CLOSE, _PING = 0x1, 0x8, 0x9


def framed(message: str | bytes, opcode: int = _TEXT) -> bytes:
    """A masked frame of a client."""
    payload = message.encode() if isinstance(message, str) else message
    size = len(payload)
    head = (
        struct.pack("!BB", 0x80 | opcode, 0x80 | size) if size < 126 else struct.pack("!BBH", 0x80 | opcode, 254, size)
    )
    return head + b"\0\0\0\0" + payload


def call_sid(number: int) -> str:
    """Of the n-th stream; its token has to name it, too."""
    return f"CA{number:032x}"


class Stream(asyncio.Protocol):
    """One call. counting: whether this is the time that is measured."""

    def __init__(self, number: int, path: str, host: str, parameters: dict[str, str]) -> None:
        self.sid = f"MZ{number:032x}"
        self._number = number
        self._parameters = parameters
        self._request = (
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {b64encode(secrets.token_bytes(16)).decode()}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()
        self._came = bytearray()
        self._upgraded = False
        self._tail = f'"}},"streamSid":"{self.sid}"}}'
        self._sent = random.Random(number).randrange(LOUD_EVERY)
        self._chunk = 0
        self._asked_s: deque[float] = deque()
        self._was_loud = False
        self.transport: asyncio.Transport | None = None
        self.begun = asyncio.Event()
        self.running = False
        self.lost = False
        self.counting = False
        self.sent = self.back = self.loud_sent = self.clears = 0
        self.round_trips_ms: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost, self.running = True, False

    def say(self, now_s: float) -> None:
        """The next frame."""
        if not self.running or self.transport is None:
            return
        self._sent += 1
        self._chunk += 1
        loud = self._sent % LOUD_EVERY == 0
        if loud and self.counting:
            self._asked_s.append(now_s)
            self.loud_sent += 1
        self.sent += self.counting
        self.transport.write(
            framed(
                f'{{"event":"media","sequenceNumber":"{self._chunk + 1}","media":{{"track":"inbound",'
                f'"chunk":"{self._chunk}","timestamp":"{self._chunk * 20}",'
                f'"payload":"{_LOUD if loud else _QUIET}{self._tail}'
            )
        )

    def data_received(self, data: bytes) -> None:
        self._came += data
        if not self._upgraded:
            if (end := self._came.find(b"\r\n\r\n")) < 0:
                return
            if not self._came.startswith(b"HTTP/1.1 101"):
                sys.exit(f"no stream: {bytes(self._came[:200])!r}")
            del self._came[: end + 4]
            self._upgraded = True
            self._begin()
        at, came = 0, self._came
        while len(came) - at >= 2:
            size, head = came[at + 1] & 0x7F, 2
            if size == 126:
                size, head = int.from_bytes(came[at + 2 : at + 4], "big"), 4
            elif size == 127:
                size, head = int.from_bytes(came[at + 2 : at + 10], "big"), 10
            if len(came) < at + head + size:
                break
            self._heard(came[at] & 0x0F, bytes(came[at + head : at + head + size]))
            at += head + size
        del came[:at]

    def _begin(self) -> None:
        assert self.transport is not None
        start = {
            "accountSid": "AC" + "0" * 32,
            "streamSid": self.sid,
            "callSid": call_sid(self._number),
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": self._parameters,
        }
        self.transport.write(framed(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"})))
        told = {"event": "start", "sequenceNumber": "1", "start": start, "streamSid": self.sid}
        self.transport.write(framed(json.dumps(told)))
        self.running = True
        self.begun.set()

    def hang_up(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(framed(json.dumps({"event": "stop", "streamSid": self.sid})))
            self.transport.write(framed("", _CLOSE))

    def _heard(self, opcode: int, payload: bytes) -> None:
        if opcode == _PING and self.transport is not None:
            self.transport.write(framed(payload, 0xA))
        elif opcode == _CLOSE:
            self.lost, self.running = True, False
        elif opcode == _TEXT:
            if b'"media"' in payload:
                self._sounds(payload)
            elif b'"mark"' in payload and self.transport is not None:
                self.transport.write(framed(payload.decode()))
            elif b'"clear"' in payload:
                self.clears += 1

    def _sounds(self, payload: bytes) -> None:
        """Of the sound one letter of base64 from its middle is read: that tells loud from quiet."""
        began = payload.find(b"payload")
        began = payload.find(b'"', payload.find(b":", began)) + 1
        size = payload.find(b'"', began) - began
        self.back += self.counting * round(size / 216)
        middle = began + size // 2 // 4 * 4
        loud = payload[middle : middle + 1] in _LOUD_LETTERS
        if loud and not self._was_loud and self._asked_s:
            self.round_trips_ms.append((time.monotonic() - self._asked_s.popleft()) * 1000)
        self._was_loud = loud


_LOUD_LETTERS = frozenset(b64encode(bytes([value]) * 3)[:1] for value in (*range(0x80, _LOUD_BELOW), *range(0x10)))


class Generator:
    """All streams, and the clock that they share."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._streams: list[Stream] = []
        self._late_ms: list[float] = []

    async def run(self, host: str, ports: list[int], path: str, parameters: list[dict[str, str]]) -> None:
        """Blocks until all is over; prints what the module says."""
        loop = asyncio.get_running_loop()
        for number, each in enumerate(parameters):
            port = ports[number % len(ports)]

            def make(number: int = number, port: int = port, each: dict[str, str] = each) -> Stream:
                return Stream(number + 1, path, f"{host}:{port}", each)

            _, stream = await loop.create_connection(make, host, port)
            self._streams.append(stream)
            await asyncio.sleep(OPEN_S)
        talking = asyncio.create_task(self._talk(), name="talk")
        await self._all_run()
        await asyncio.sleep(SETTLE_S)
        self._count(True)
        print("steady", flush=True)
        await asyncio.sleep(self._seconds)
        print("over", flush=True)
        self._count(False)
        await asyncio.sleep(DRAIN_S)
        talking.cancel()
        print(json.dumps(self._told()), flush=True)
        await self._hang_up()

    async def _talk(self) -> None:
        """A group of streams a millisecond. What is late is said at once, as carriers do."""
        loop = asyncio.get_running_loop()
        groups = [self._streams[first::GROUPS] for first in range(GROUPS)]
        began_s, turn = loop.time(), 0
        while True:
            due_s = began_s + turn * FRAME_S / GROUPS
            delay_s = due_s - loop.time()
            if delay_s > 0 or turn % GROUPS == 0:
                await asyncio.sleep(max(0.0, delay_s))
            self._late_ms.append(max(0.0, (loop.time() - due_s) * 1000))
            now_s = time.monotonic()
            for stream in groups[turn % GROUPS]:
                stream.say(now_s)
            turn += 1

    async def _all_run(self) -> None:
        async with asyncio.timeout(60):
            for stream in self._streams:
                await stream.begun.wait()

    def _count(self, on: bool) -> None:
        if on:
            self._late_ms.clear()
        for stream in self._streams:
            stream.counting = on

    def _told(self) -> dict[str, float]:
        trips = [trip for stream in self._streams for trip in stream.round_trips_ms]
        return {
            "streams": len(self._streams),
            "lost": sum(stream.lost for stream in self._streams),
            "sent": sum(stream.sent for stream in self._streams),
            "back": sum(stream.back for stream in self._streams),
            "loud_sent": sum(stream.loud_sent for stream in self._streams),
            "loud_back": len(trips),
            "clears": sum(stream.clears for stream in self._streams),
            "p50_ms": float(np.percentile(trips, 50)) if trips else 0.0,
            "p95_ms": float(np.percentile(trips, 95)) if trips else 0.0,
            "max_ms": max(trips, default=0.0),
            "late_p99_ms": float(np.percentile(self._late_ms, 99)) if self._late_ms else 0.0,
        }

    async def _hang_up(self) -> None:
        for stream in self._streams:
            stream.hang_up()
        await asyncio.sleep(END_S)
        for stream in self._streams:
            if stream.transport is not None:
                stream.transport.abort()


def main() -> None:
    host, ports, path, seconds = sys.argv[1:5]
    parameters = [json.loads(line) for line in sys.stdin]
    uvloop.run(Generator(float(seconds)).run(host, [int(port) for port in ports.split(",")], path, parameters))


if __name__ == "__main__":
    main()
