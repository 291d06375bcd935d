"""CPU that the media relay (rtpengine in user space) needs for a call: passed through, encrypted outside, transcoded.

Calls are set up over its control protocol, without SIP. One thread here is all callers and all cells: callers send
every 20 ms, cells send back what they get. What is counted is rtpengine's CPU alone, above what it uses idle.
"""

from __future__ import annotations

import asyncio
import random
import re
import select
import socket
import struct
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sipserver.codecs.opus import OpusEncoder
from sipserver.edge import media, ng
from sipserver.edge.settings import EdgeSettings
from tests.servers.rtpengine import RtpengineServer, relay_settings
from tools.bench.report import Row

CALLS = 24
SECONDS = 10
PTIME_S = 0.02
PCMA, OPUS = 8, 96

_HEAD = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
_STRICT = ["strict-source"]
_REPLACE = ["origin", "session-connection"]


def _sdp(port: int, payload_type: int) -> str:
    name = {PCMA: "PCMA/8000", OPUS: "opus/48000/2"}[payload_type]
    return f"{_HEAD}m=audio {port} RTP/AVP {payload_type}\r\na=rtpmap:{payload_type} {name}\r\n"


def _port(sdp: str) -> int:
    found = re.search(r"^m=audio (\d+)", sdp, re.M)
    assert found is not None, sdp
    return int(found[1])


@dataclass
class Talk:
    """One caller and the cell at the other end. sent, back: packets of the caller, and those that returned to it."""

    payload_type: int
    step: int
    caller: socket.socket
    cell: socket.socket
    relay: tuple[str, int] = ("", 0)
    sent: int = 0
    back: int = 0
    ssrc: int = field(default_factory=lambda: random.randrange(1 << 32))

    def speak(self, payloads: Sequence[bytes]) -> None:
        head = struct.pack("!BBHII", 0x80, self.payload_type, self.sent & 0xFFFF, self.sent * self.step, self.ssrc)
        self.caller.sendto(head + payloads[self.sent % len(payloads)], self.relay)
        self.sent += 1


@contextmanager
def _talks(payload_type: int, count: int) -> Iterator[list[Talk]]:
    with ExitStack() as stack:
        made = []
        for _ in range(count):
            caller, cell = (stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2))
            for end in (caller, cell):
                end.bind(("127.0.0.1", 0))
                end.setblocking(False)
            made.append(Talk(payload_type, 960 if payload_type == OPUS else 160, caller, cell))
        yield made


SetUp = Callable[[str, Talk], None]


def _ask(control: str, command: str, arguments: dict[str, ng.Value]) -> str:
    return str(asyncio.run(ng.ask(control, command, arguments, timeout_s=5)).get("sdp", ""))


def _offer(control: str, call: str, sdp: str, transport: str, flags: Sequence[str]) -> str:
    arguments: dict[str, ng.Value] = {"call-id": call, "from-tag": "a", "sdp": sdp, "transport-protocol": transport}
    rest: dict[str, ng.Value] = {"direction": ["outside", "inside"], "flags": [*_STRICT, *flags], "replace": _REPLACE}
    return _ask(control, "offer", {**arguments, **rest, "ICE": "remove"})


def _answer(control: str, call: str, sdp: str) -> str:
    ids: dict[str, ng.Value] = {"call-id": call, "from-tag": "a", "to-tag": "b"}
    return _ask(control, "answer", {**ids, "sdp": sdp, "flags": _STRICT, "replace": _REPLACE})


def _through(flags: Sequence[str]) -> SetUp:
    """Caller, relay, cell."""

    def set_up(control: str, talk: Talk) -> None:
        call = uuid.uuid4().hex
        caller, cell = (end.getsockname()[1] for end in (talk.caller, talk.cell))
        _offer(control, call, _sdp(caller, talk.payload_type), "RTP/AVP", flags)
        talk.relay = ("127.0.0.1", _port(_answer(control, call, _sdp(cell, PCMA))))

    return set_up


def _encrypted(control: str, talk: Talk) -> None:
    """Caller, relay, SRTP, relay again, cell: two calls, each of which has SRTP on one side."""
    first, second = uuid.uuid4().hex, uuid.uuid4().hex
    caller, cell = (end.getsockname()[1] for end in (talk.caller, talk.cell))
    between = _offer(control, first, _sdp(caller, PCMA), "RTP/SAVP", ())
    _offer(control, second, between, "RTP/AVP", ())
    back = _answer(control, second, _sdp(cell, PCMA))
    talk.relay = ("127.0.0.1", _port(_answer(control, first, back)))


def _run(talks: Sequence[Talk], payloads: Sequence[bytes], seconds: float) -> None:
    """Callers send, spread over the 20 ms; cells echo. The echo's sequence numbers are those that came."""
    poller = select.epoll()
    cells = {talk.cell.fileno(): talk for talk in talks}
    callers = {talk.caller.fileno(): talk for talk in talks}
    for descriptor in (*cells, *callers):
        poller.register(descriptor, select.EPOLLIN)
    began = time.monotonic()
    due = [began + PTIME_S * number / len(talks) for number in range(len(talks))]
    turn = 0
    while (now := time.monotonic()) < began + seconds:
        if now >= due[turn]:
            talks[turn].speak(payloads)
            due[turn] += PTIME_S
            turn = (turn + 1) % len(talks)
            continue
        for descriptor, _ in poller.poll(min(due[turn] - now, 0.01)):
            if descriptor in cells:
                packet, peer = cells[descriptor].cell.recvfrom(2048)
                cells[descriptor].cell.sendto(packet, peer)
            else:
                callers[descriptor].caller.recv(2048)
                callers[descriptor].back += 1
    poller.close()


def _sound(payload_type: int) -> list[bytes]:
    """A second of speech-like noise, packet by packet."""
    generator = np.random.default_rng(1)
    noise = np.cumsum(generator.normal(0, 400, 48_000)) * np.sin(np.arange(48_000) / 3_000)
    samples = np.clip(noise, -20_000, 20_000).astype(np.int16)
    if payload_type == PCMA:
        return [bytes(generator.integers(0, 256, 160, dtype=np.uint8)) for _ in range(50)]
    encoder = OpusEncoder(48_000, loss_percent=0)
    return [encoder.encode(samples[start : start + 960]) for start in range(0, 48_000, 960)]


def _cost(folder: Path, payload_type: int, set_up: SetUp, passes: int) -> tuple[float, float, float]:
    """passes: how often a packet goes through the relay; there are CALLS calls in the relay altogether.

    Percent of a core for one call, share of packets that came back, megabytes of the process with all calls."""
    with RtpengineServer(folder, relay_settings()) as relay, _talks(payload_type, CALLS // passes) as talks:
        began, used = time.monotonic(), relay.cpu_s()
        time.sleep(3)
        idle = (relay.cpu_s() - used) / (time.monotonic() - began)
        for talk in talks:
            set_up(relay.settings.control, talk)
        payloads = _sound(payload_type)
        _run(talks, payloads, 2)
        counted = [(talk.sent, talk.back) for talk in talks]
        began, used = time.monotonic(), relay.cpu_s()
        _run(talks, payloads, SECONDS)
        busy = (relay.cpu_s() - used) / (time.monotonic() - began)
        sent = sum(talk.sent - before for talk, (before, _) in zip(talks, counted, strict=True))
        back = sum(talk.back - before for talk, (_, before) in zip(talks, counted, strict=True))
        return (busy - idle) * 100 / CALLS, back / sent, relay.rss_mb()


def measure(folder: Path) -> Sequence[Row]:
    routes = media.media_routes(EdgeSettings(rtpengine=relay_settings()), (), ("PCMA",))
    assert routes is not None
    transcode = [flag.replace("=", "-") for flag in routes.stranger.transcode_in.split()]
    how = f"{CALLS} calls, RTP both ways, {SECONDS} s; rtpengine's CPU above idle"
    rows: list[Row] = []
    for what, payload_type, set_up, passes in (
        ("PCMA passed through", PCMA, _through(()), 1),
        ("PCMA, SRTP outside", PCMA, _encrypted, 2),
        ("Opus outside, PCMA inside", OPUS, _through(transcode), 1),
    ):
        percent, back, megabytes = _cost(folder / str(len(rows)), payload_type, set_up, passes)
        figure = f"{percent:.2f} % of a core a call; {back:.1%} of the packets came back; RSS {megabytes:.0f} MB"
        rows.append(Row(f"Media relay: {what}", figure, how=how))
    return rows
