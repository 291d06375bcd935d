"""A small blocking SIP phone over UDP with G.711 mu-law, whose RTP timing is exact and whose every packet is kept.

For what SIPp and baresip cannot do: sample-exact markers, packets lost, reordered or re-numbered by script, silence on
the wire measured to the packet. One thread receives SIP, one receives RTP, one sends RTP every 20 ms on a fixed grid.
"""

from __future__ import annotations

import audioop
import queue
import random
import re
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PACKET_SAMPLES = 160
PACKET_NS = 20_000_000
ULAW_SILENCE = b"\xff" * PACKET_SAMPLES


@dataclass(frozen=True, slots=True)
class Packet:
    """One RTP packet received. at_ns: perf_counter_ns of its arrival. samples: 8 kHz int16."""

    at_ns: int
    sequence: int
    timestamp: int
    payload_type: int
    ssrc: int
    payload: bytes

    @property
    def samples(self) -> NDArray[np.int16]:
        return np.frombuffer(audioop.ulaw2lin(self.payload, 2), np.int16)

    @property
    def level(self) -> float:
        """RMS in int16 units."""
        return float(audioop.rms(audioop.ulaw2lin(self.payload, 2), 2))


@dataclass(frozen=True, slots=True)
class Response:
    code: int
    reason: str
    text: str
    at_ns: int

    def header(self, name: str) -> str:
        return header(self.text, name)


def header(text: str, name: str) -> str:
    found = re.search(rf"^{re.escape(name)}\s*:\s*(.*?)\s*$", text, re.I | re.M)
    return found.group(1) if found else ""


def tone(milliseconds: int, hz: float = 440, amplitude: int = 12_000) -> bytes:
    """A mu-law tone at 8 kHz, cut to whole packets."""
    count = milliseconds * 8 // PACKET_SAMPLES * PACKET_SAMPLES
    samples = (amplitude * np.sin(2 * np.pi * hz * np.arange(count) / 8000)).astype(np.int16)
    return audioop.lin2ulaw(samples.tobytes(), 2)


class Phone:
    """A phone for one call at a time. Use as a context manager: leaving it hangs up and closes everything."""

    def __init__(self, server_port: int, user: str = "phone") -> None:
        self.server = ("127.0.0.1", server_port)
        self.user = user
        self.sip = self._bound()
        self.rtp = self._bound()
        self.sip_port = self.sip.getsockname()[1]
        self.rtp_port = self.rtp.getsockname()[1]
        self.received: list[Packet] = []
        self.sent_ns: list[int] = []
        self.requests: queue.Queue[str] = queue.Queue()
        self._responses: queue.Queue[Response] = queue.Queue()
        self._outgoing: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._closed = threading.Event()
        self.ended = threading.Event()
        self._media: tuple[str, int] | None = None
        self._transmitting = threading.Event()
        self.mangle: Callable[[bytes], Iterator[bytes]] | None = None
        self._threads = [
            threading.Thread(target=self._read_sip, daemon=True),
            threading.Thread(target=self._read_rtp, daemon=True),
        ]
        self._sender = threading.Thread(target=self._send_rtp, daemon=True)
        self.call_id, self.tag, self.sequence = "", "", 1
        self.to = self.target = ""
        self._invite_branch = ""
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _bound() -> socket.socket:
        endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        endpoint.bind(("127.0.0.1", 0))
        endpoint.settimeout(0.2)
        return endpoint

    # --- SIP ---

    def sdp(self, direction: str = "sendrecv", formats: str = "0 101", ptime: int = 20) -> str:
        return (
            f"v=0\r\no=- 1 {self.sequence} IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
            f"m=audio {self.rtp_port} RTP/AVP {formats}\r\n"
            f"a=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n"
            f"a=fmtp:101 0-16\r\na=ptime:{ptime}\r\na={direction}\r\n"
        )

    def request(
        self, method: str, body: str = "", headers: str = "", *, branch: str = "", sequence: int | None = None
    ) -> str:
        kind = "Content-Type: application/sdp\r\n" if body.startswith("v=0") else ""
        return (
            f"{method} {self.target} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP 127.0.0.1:{self.sip_port};branch={branch or 'z9hG4bK' + uuid.uuid4().hex};rport\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:{self.user}@127.0.0.1:{self.sip_port}>;tag={self.tag}\r\n"
            f"To: {self.to}\r\n"
            f"Call-ID: {self.call_id}\r\nCSeq: {self.sequence if sequence is None else sequence} {method}\r\n"
            f"Contact: <sip:{self.user}@127.0.0.1:{self.sip_port}>\r\n"
            f"{headers}{kind}Content-Length: {len(body)}\r\n\r\n{body}"
        )

    def send(self, text: str) -> int:
        at_ns = time.perf_counter_ns()
        self.sip.sendto(text.encode(), self.server)
        return at_ns

    def invite(self, user: str, headers: str = "", timeout_s: float = 10, body: str | None = None) -> Response:
        """Place the call. Returns the final response; a 2xx was acknowledged and media flows."""
        self.call_id, self.tag, self.sequence = uuid.uuid4().hex, uuid.uuid4().hex[:8], 1
        self.target = f"sip:{user}@127.0.0.1:{self.server[1]}"
        self.to = f"<{self.target}>"
        self.ended.clear()
        self._invite_branch = "z9hG4bK" + uuid.uuid4().hex
        self.invited_ns = self.send(
            self.request("INVITE", self.sdp() if body is None else body, headers, branch=self._invite_branch)
        )
        final = self.final("INVITE", timeout_s)
        self.to = final.header("To")
        if final.code < 300:
            self._follow(final)
            self.send(self.request("ACK"))
            self.start_media()
        else:
            self.send(self.request("ACK", branch=self._invite_branch))
        return final

    def _follow(self, answer: Response) -> None:
        contact = re.search(r"<([^>]+)>", answer.header("Contact"))
        if contact:
            self.target = contact.group(1)
        port = re.search(r"^m=audio (\d+)", answer.text, re.M)
        if port:
            self._media = ("127.0.0.1", int(port.group(1)))

    def final(self, method: str, timeout_s: float = 10) -> Response:
        """The final response to the last request, which had this method. Provisional ones are skipped, and what is sent
        again for an earlier request because our ACK was late (RFC 3261 section 13.3.1.4)."""
        deadline = time.monotonic() + timeout_s
        asked = (self.call_id, f"{self.sequence} {method}")
        while True:
            response = self._responses.get(timeout=max(0.001, deadline - time.monotonic()))
            if response.code >= 200 and (response.header("Call-ID"), response.header("CSeq")) == asked:
                return response

    def transact(self, method: str, body: str = "", headers: str = "", timeout_s: float = 5) -> Response:
        """Send an in-dialog request and wait for its final response (ACKs a re-INVITE)."""
        self.sequence += 1
        self.send(self.request(method, body, headers))
        final = self.final(method, timeout_s)
        if method == "INVITE":
            if final.code < 300:
                self._follow(final)
            self.send(self.request("ACK"))
        return final

    def bye(self) -> Response:
        final = self.transact("BYE")
        self.ended.set()
        return final

    def _read_sip(self) -> None:
        while not self._closed.is_set():
            try:
                raw, peer = self.sip.recvfrom(65_535)
            except TimeoutError:
                continue
            except OSError:
                return
            text = raw.decode(errors="replace")
            if text.startswith("SIP/2.0"):
                _, code, reason = text.split("\r\n", 1)[0].split(" ", 2)
                self._responses.put(Response(int(code), reason, text, time.perf_counter_ns()))
            elif text.strip():
                self._answer(text, peer)

    def _answer(self, text: str, peer: tuple[str, int]) -> None:
        method = text.split(" ", 1)[0]
        self.requests.put(text)
        if method == "ACK":
            return
        vias = "".join(f"{line}\r\n" for line in text.split("\r\n") if line.lower().startswith("via:"))
        body = self.sdp() if method in ("INVITE", "UPDATE") and "m=audio" in text else ""
        kind = "Content-Type: application/sdp\r\n" if body else ""
        self.sip.sendto(
            (
                f"SIP/2.0 200 OK\r\n{vias}From: {header(text, 'From')}\r\nTo: {header(text, 'To')}\r\n"
                f"Call-ID: {header(text, 'Call-ID')}\r\nCSeq: {header(text, 'CSeq')}\r\n"
                f"Contact: <sip:{self.user}@127.0.0.1:{self.sip_port}>\r\n"
                f"{kind}Content-Length: {len(body)}\r\n\r\n{body}"
            ).encode(),
            peer,
        )
        if method == "BYE":
            self.ended.set()

    # --- RTP ---

    @property
    def media(self) -> tuple[str, int] | None:
        """Where the far end listens for RTP, once it answered."""
        return self._media

    def start_media(self) -> None:
        if not self._sender.is_alive():
            self._sender.start()
        self._transmitting.set()

    def say(self, ulaw: bytes) -> None:
        """Queue mu-law sound (a multiple of 160 bytes); silence is sent when nothing is queued."""
        for start in range(0, len(ulaw), PACKET_SAMPLES):
            self._outgoing.put(ulaw[start : start + PACKET_SAMPLES].ljust(PACKET_SAMPLES, b"\xff"))

    def stop_media(self) -> None:
        self._transmitting.clear()

    def _send_rtp(self) -> None:
        sequence, timestamp, ssrc = random.randrange(1 << 15), random.randrange(1 << 30), random.randrange(1 << 32)
        due = time.perf_counter_ns()
        while not self._closed.is_set():
            due += PACKET_NS
            wait = due - time.perf_counter_ns()
            if wait > 0:
                time.sleep(wait / 1e9)
            sequence, timestamp = (sequence + 1) & 0xFFFF, (timestamp + PACKET_SAMPLES) & 0xFFFFFFFF
            if not self._transmitting.is_set() or self._media is None:
                continue
            try:
                payload = self._outgoing.get_nowait()
            except queue.Empty:
                payload = ULAW_SILENCE
            packet = struct.pack("!BBHII", 0x80, 0, sequence, timestamp, ssrc) + payload
            self.sent_ns.append(time.perf_counter_ns())
            for piece in self.mangle(packet) if self.mangle else (packet,):
                self.rtp.sendto(piece, self._media)

    def _read_rtp(self) -> None:
        while not self._closed.is_set():
            try:
                raw = self.rtp.recv(2048)
            except TimeoutError:
                continue
            except OSError:
                return
            at_ns = time.perf_counter_ns()
            if len(raw) < 12 or raw[0] >> 6 != 2:
                continue
            _, kind, sequence, timestamp, ssrc = struct.unpack("!BBHII", raw[:12])
            self.received.append(Packet(at_ns, sequence, timestamp, kind & 0x7F, ssrc, raw[12:]))

    def heard(self) -> NDArray[np.int16]:
        """Everything received so far as one 8 kHz signal, in order of arrival."""
        packets = [packet.samples for packet in self.received if packet.payload_type == 0]
        return np.concatenate(packets) if packets else np.zeros(0, np.int16)

    def close(self) -> None:
        if self.to and self._media and not self.ended.is_set():
            with suppress(queue.Empty):
                self.bye()
        self._closed.set()
        for thread in (*self._threads, self._sender):
            if thread.is_alive():
                thread.join(2)
        self.sip.close()
        self.rtp.close()

    def __enter__(self) -> Phone:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
