"""Many Twilio streams at a time, in a process of its own: `python -m tools.bench.load.twilio_streams HOST PORT PATH COUNT
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
_QUIET = b64encode(bytes([0xF0]) * 160).decode()
_LOUD = b64encode(bytes([0x80]) * 160).decode()
_LOUD_BELOW = 0x90
"""Mu-law bytes 0x80 to 0x8F are the loudest positive ones, 0x00 to 0x0F the negative ones."""

_TEXT, _CLOSE, _PING = 0x1, 0x8, 0x9


def framed(text: str, opcode: int = _TEXT) -> bytes:
    """A masked frame of a client."""
    payload = text.encode()
    size = len(payload)
    head = (
        struct.pack("!BB", 0x80 | opcode, 0x80 | size) if size < 126 else struct.pack("!BBH", 0x80 | opcode, 254, size)
    )
    return head + b"\0\0\0\0" + payload


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
                f'{{"event":"media","sequenceNumber":"{self._chunk + 1}","media":{{"track":"inbound","chunk":"{self._chunk}",'
                f'"timestamp":"{self._chunk * 20}","payload":"{_LOUD if loud else _QUIET}{self._tail}'
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
            "callSid": f"CA{self._number:032x}",
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": self._parameters,
        }
        self.transport.write(framed(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"})))
        told = {"event": "start", "sequenceNumber": "1", "start": start, "streamSid": self.sid}
        self.transport.write(framed(json.dumps(told)))
        self.running = True

    def _heard(self, opcode: int, payload: bytes) -> None:
        if opcode == _PING and self.transport is not None:
            self.transport.write(framed(payload.decode(), 0xA))
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
        """`AA..` to `CA..` and `gI..` are what loud mu-law looks like in base64: only the first two letters are read."""
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


async def generate(
    host: str, port: int, path: str, count: int, seconds: float, parameters: list[dict[str, str]]
) -> None:
    loop = asyncio.get_running_loop()
    streams: list[Stream] = []
    for number in range(count):
        _, stream = await loop.create_connection(
            lambda number=number: Stream(number + 1, path, f"{host}:{port}", parameters[number]),  # type: ignore[misc]
            host,
            port,
        )
        streams.append(stream)
        await asyncio.sleep(0.005)
    late_ms: list[float] = []
    groups = [streams[first::GROUPS] for first in range(GROUPS)]
    phase = asyncio.create_task(_wait_until(streams, count))
    began_s = loop.time()
    turn, steady_s, printed, ending = 0, 0.0, False, 0.0
    while True:
        due_s = began_s + turn * FRAME_S / GROUPS
        delay_s = due_s - loop.time()
        if delay_s > 0:
            await asyncio.sleep(delay_s)
        elif turn % GROUPS == 0:
            await asyncio.sleep(0)
        now_s = time.monotonic()
        for stream in groups[turn % GROUPS]:
            stream.say(now_s)
        if printed and not ending:
            late_ms.append(max(0.0, (loop.time() - due_s) * 1000))
        turn += 1
        if not steady_s and phase.done() and loop.time() - began_s > SETTLE_S:
            steady_s, printed = loop.time(), True
            for stream in streams:
                stream.counting = True
            print("steady", flush=True)
        elif steady_s and not ending and loop.time() - steady_s > seconds:
            ending = loop.time()
            print("over", flush=True)
            for stream in streams:
                stream.counting = False
        elif ending and loop.time() - ending > DRAIN_S:
            break
    trips = [trip for stream in streams for trip in stream.round_trips_ms]
    print(
        json.dumps(
            {
                "streams": count,
                "lost": sum(stream.lost for stream in streams),
                "sent": sum(stream.sent for stream in streams),
                "back": sum(stream.back for stream in streams),
                "loud_sent": sum(stream.loud_sent for stream in streams),
                "loud_back": len(trips),
                "clears": sum(stream.clears for stream in streams),
                "p50_ms": float(np.percentile(trips, 50)) if trips else 0.0,
                "p95_ms": float(np.percentile(trips, 95)) if trips else 0.0,
                "max_ms": float(max(trips, default=0.0)),
                "late_p99_ms": float(np.percentile(late_ms, 99)) if late_ms else 0.0,
            }
        ),
        flush=True,
    )
    for stream in streams:
        if stream.transport is not None:
            stream.transport.write(framed(json.dumps({"event": "stop", "streamSid": stream.sid})))
            stream.transport.write(framed("", _CLOSE))
    await asyncio.sleep(0.5)
    for stream in streams:
        if stream.transport is not None:
            stream.transport.abort()


async def _wait_until(streams: list[Stream], count: int) -> None:
    while sum(stream.running for stream in streams) < count:
        await asyncio.sleep(0.05)


def main() -> None:
    host, port, path, count, seconds = sys.argv[1:6]
    parameters = [json.loads(line) for line in sys.stdin]
    uvloop.run(generate(host, int(port), path, int(count), float(seconds), parameters))


if __name__ == "__main__":
    main()
