"""The RTP side of a SIPp call: a socket beside SIPp that sends where packets come from and keeps what it hears.

SIPp writes the port of this socket into its SDP. Symmetric RTP (RFC 4961) tells us where the server listens, so that
nobody has to read the answer. Owns encoding, packet sizes, telephone-events and the measurement of what came back;
refuses to know what the call is about: a `Script` says what to send.
"""

from __future__ import annotations

import audioop
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from G722 import G722
from numpy.typing import NDArray

Signal = NDArray[np.int16]

TELEPHONE_EVENT = 101
DIGIT_EVENTS = {digit: code for code, digit in enumerate("0123456789*#ABCD")}
TONE_PAIRS = {
    digit: (low, high)
    for low, row in zip((697, 770, 852, 941), ("123A", "456B", "789C", "*0#D"), strict=True)
    for high, digit in zip((1209, 1336, 1477, 1633), row, strict=True)
}


@dataclass(frozen=True, slots=True)
class Codec:
    """name, static payload type, sampling rate of the PCM (the RTP clock of all three is 8000)."""

    name: str
    payload_type: int
    rate_hz: int

    def encoder(self) -> Callable[[Signal], bytes]:
        if self.name == "G722":
            g722 = G722(16_000, 64_000)
            return lambda samples: bytes(g722.encode(samples))
        law = audioop.lin2ulaw if self.name == "PCMU" else audioop.lin2alaw
        return lambda samples: law(samples.tobytes(), 2)

    def decode(self, payload: bytes) -> Signal:
        """Everything that came, in one piece (G.722 carries its state from packet to packet)."""
        if self.name == "G722":
            return np.asarray(G722(16_000, 64_000).decode(payload), np.int16)
        law = audioop.ulaw2lin if self.name == "PCMU" else audioop.alaw2lin
        return np.frombuffer(law(payload, 2), np.int16)


PCMU, PCMA, G722_CODEC = Codec("PCMU", 0, 8000), Codec("PCMA", 8, 8000), Codec("G722", 9, 16_000)
BY_TYPE = {codec.payload_type: codec for codec in (PCMU, PCMA, G722_CODEC)}


@dataclass(frozen=True, slots=True)
class Script:
    """What to send once media runs, every ptime_ms until the end: a tone, or silence and then digits.

    method: `rfc4733`, `rfc4733-no-marker` or `inband`.
    """

    codec: Codec = PCMA
    ptime_ms: int = 20
    tone_hz: float = 0
    digits: str = ""
    method: str = "rfc4733"
    lead_ms: int = 300
    digit_ms: int = 120
    gap_ms: int = 100


@dataclass
class Heard:
    """payloads: all payloads in order of arrival, with their payload type. timestamps: theirs."""

    payloads: list[tuple[int, bytes]] = field(default_factory=list)
    timestamps: list[int] = field(default_factory=list)

    def signal(self, codec: Codec) -> Signal:
        return codec.decode(b"".join(payload for kind, payload in self.payloads if kind == codec.payload_type))

    def digits(self) -> str:
        """Keys by RFC 4733, one for each timestamp: packets of one key share theirs (section 2.5.1.2)."""
        pressed = {
            at: payload[0]
            for at, (kind, payload) in zip(self.timestamps, list(self.payloads), strict=False)
            if kind == TELEPHONE_EVENT
        }
        return "".join("0123456789*#ABCD"[code] for code in pressed.values())


def strongest_hz(samples: Signal, rate_hz: int) -> float:
    """Frequency of the strongest component, 0 for silence."""
    if len(samples) < rate_hz // 10 or not samples.any():
        return 0.0
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * rate_hz / len(samples))


def level(samples: Signal) -> float:
    """RMS in int16 units."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0


def tone(frequencies: tuple[float, ...], milliseconds: int, rate_hz: int, start: int = 0) -> Signal:
    """A sum of sines of equal level; start: samples since the beginning, so that pieces join without a click."""
    clock = np.arange(start, start + milliseconds * rate_hz // 1000) / rate_hz
    waves = [10_000 / len(frequencies) * np.sin(2 * np.pi * hz * clock) for hz in frequencies]
    return np.asarray(np.sum(waves, axis=0), np.int16) if waves else np.zeros(len(clock), np.int16)


class RtpPeer:
    """One socket, one thread. It sends nothing before the first packet came. Use as a context manager."""

    def __init__(self, script: Script, host: str = "127.0.0.1") -> None:
        self._script = script
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, 0))
        self._socket.settimeout(0.1)
        self.port = int(self._socket.getsockname()[1])
        self.heard = Heard()
        self.sent = 0
        self._peer: tuple[str, int] | None = None
        self._closed = threading.Event()
        self._quiet = threading.Event()
        self._keys: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._receive), threading.Thread(target=self._send)]

    @property
    def media(self) -> tuple[str, int]:
        """Where the far end sends from, and listens. Raises AssertionError before it has sent anything."""
        assert self._peer is not None, "nothing was heard yet"
        return self._peer

    def press(self, digits: str) -> None:
        """Keys in the middle of the call, after those of the script."""
        for digit in digits:
            self._keys.put(digit)

    def fall_silent(self) -> None:
        """Send nothing any more."""
        self._quiet.set()

    def _receive(self) -> None:
        while not self._closed.is_set():
            try:
                packet, peer = self._socket.recvfrom(2048)
            except TimeoutError:
                continue
            if len(packet) > 12 and packet[0] >> 6 == 2:
                self._peer = peer
                self.heard.timestamps.append(int.from_bytes(packet[4:8], "big"))
                self.heard.payloads.append((packet[1] & 0x7F, packet[12:]))

    def _send(self) -> None:
        while self._peer is None:
            if self._closed.wait(0.005):
                return
        due, sequence = time.monotonic(), 1000
        for marker, payload_type, timestamp, payload in self._packets():
            if self._closed.is_set():
                return
            head = struct.pack("!BBHII", 0x80, payload_type | marker << 7, sequence & 0xFFFF, timestamp, 0x51EE7)
            if not self._quiet.is_set():
                self._socket.sendto(head + payload, self._peer)
                sequence, self.sent = sequence + 1, self.sent + 1
            due += self._script.ptime_ms / 1000
            self._closed.wait(max(0.0, due - time.monotonic()))

    def _packets(self) -> Iterator[tuple[int, int, int, bytes]]:
        """(marker, payload type, timestamp, payload), one for every ptime."""
        script = self._script
        codec, encode = script.codec, script.codec.encoder()
        step, clock = script.ptime_ms * 8, 0
        pcm = script.ptime_ms * codec.rate_hz // 1000

        def audio(frequencies: tuple[float, ...]) -> tuple[int, int, int, bytes]:
            return (
                0,
                codec.payload_type,
                clock,
                encode(tone(frequencies, script.ptime_ms, codec.rate_hz, clock // step * pcm)),
            )

        def stretch(milliseconds: int, frequencies: tuple[float, ...] = ()) -> Iterator[tuple[int, int, int, bytes]]:
            nonlocal clock
            for _ in range(milliseconds // script.ptime_ms):
                yield audio(frequencies)
                clock += step

        def press(digit: str) -> Iterator[tuple[int, int, int, bytes]]:
            nonlocal clock
            if script.method == "inband":
                yield from stretch(script.digit_ms, TONE_PAIRS[digit])
            else:
                began = clock
                for marker, payload in telephone_event(digit, script.digit_ms, script.ptime_ms):
                    yield marker and script.method == "rfc4733", TELEPHONE_EVENT, began, payload
                    clock += step
            yield from stretch(script.gap_ms)

        if script.digits:
            yield from stretch(script.lead_ms)
        for digit in script.digits:
            yield from press(digit)
        while True:
            while not self._keys.empty():
                yield from press(self._keys.get())
            yield from stretch(100 // script.ptime_ms * script.ptime_ms, (script.tone_hz,) if script.tone_hz else ())

    def __enter__(self) -> RtpPeer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        for thread in self._threads:
            thread.join()
        self._socket.close()


def telephone_event(digit: str, duration_ms: int, ptime_ms: int) -> Iterator[tuple[bool, bytes]]:
    """(marker, payload) of the packets of one digit (RFC 4733, section 2.5): updates, then the end three times."""
    code, step = DIGIT_EVENTS[digit], ptime_ms * 8
    updates = max(1, duration_ms // ptime_ms)
    for count in range(1, updates + 1):
        yield count == 1, struct.pack("!BBH", code, 10, count * step)
    for _ in range(3):
        yield False, struct.pack("!BBH", code, 0x80 | 10, updates * step)
