"""A cell reduced to what the media relay sees of one: answers INVITEs with SDP, sends every RTP packet back.

It keeps the offers, and the packets with their sources, so that a test can say what reached the inside. One thread for
SIP, one for RTP.
"""

from __future__ import annotations

import re
import socket
import threading
import uuid

from tests.harness.phone import header

STATIC = {"PCMU": 0, "PCMA": 8, "G722": 9}


class EchoCell:
    """codecs: what it speaks; it takes the first of its own that was offered. refusal: a code instead of the 200.

    early: sends its SDP in a 183 before the final answer. Use as a context manager.
    """

    def __init__(
        self, codecs: tuple[str, ...] = ("G722", "PCMA", "PCMU"), refusal: int = 0, early: bool = False
    ) -> None:
        self.codecs, self.refusal, self.early = codecs, refusal, early
        self.offers: list[str] = []
        self.acks: list[str] = []
        self.packets: list[bytes] = []
        self.sources: set[tuple[str, int]] = set()
        self.codec = ""
        self._tag = uuid.uuid4().hex[:8]
        self._closed = threading.Event()
        self._sip, self._rtp = self._bound(), self._bound()
        self.port = int(self._sip.getsockname()[1])
        self.rtp_port = int(self._rtp.getsockname()[1])
        self._threads = [threading.Thread(target=self._read_sip), threading.Thread(target=self._read_rtp)]
        self.bye = threading.Event()
        self._last: tuple[str, tuple[str, int]] | None = None

    @staticmethod
    def _bound() -> socket.socket:
        endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        endpoint.bind(("127.0.0.1", 0))
        endpoint.settimeout(0.1)
        return endpoint

    def __enter__(self) -> EchoCell:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        for thread in self._threads:
            thread.join()
        self._sip.close()
        self._rtp.close()

    def sdp(self, offer: str = "") -> str:
        """An answer, or an offer with everything it speaks."""
        event = re.search(r"^a=rtpmap:(\d+) telephone-event/8000", offer, re.M)
        formats = [STATIC[codec] for codec in self.codecs]
        if offer:
            offered = {int(number) for number in re.search(r"^m=audio \d+ \S+ (.*)$", offer, re.M)[1].split()}  # type: ignore[index]
            formats = [number for number in formats if number in offered][:1]
            self.codec = next((name for name, number in STATIC.items() if number in formats), "")
        direction = "recvonly" if "a=sendonly" in offer else "sendrecv"
        numbers = " ".join(str(number) for number in formats) + (f" {event[1]}" if event else "")
        return (
            "v=0\r\no=- 7 7 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
            f"m=audio {self.rtp_port} RTP/AVP {numbers}\r\n"
            + (f"a=rtpmap:{event[1]} telephone-event/8000\r\n" if event else "")
            + f"a={direction}\r\n"
        )

    def _read_sip(self) -> None:
        while not self._closed.is_set():
            try:
                raw, peer = self._sip.recvfrom(65_535)
            except TimeoutError:
                continue
            self._take(raw.decode(errors="replace"), peer)

    def _take(self, text: str, peer: tuple[str, int]) -> None:
        method = text.split(" ", 1)[0]
        body = text.partition("\r\n\r\n")[2]
        if method == "INVITE":
            self.offers.append(body)
            self._last = (text, peer)
            if self.early:
                self._reply(text, peer, "183 Session Progress", self.sdp(body))
            if self.refusal:
                self._reply(text, peer, f"{self.refusal} No")
            else:
                self._reply(text, peer, "200 OK", self.sdp(body))
        elif method == "ACK":
            self.acks.append(body)
        elif method in ("BYE", "CANCEL"):
            self.bye.set()
            self._reply(text, peer, "200 OK")
        elif not method.startswith("SIP/2.0"):
            self._reply(text, peer, "200 OK")

    def reinvite(self) -> None:
        """Offer again within the dialog, as a session timer does; the answer is acknowledged by nobody."""
        assert self._last is not None
        text, peer = self._last
        routes = "".join(f"Route: {line.partition(':')[2].strip()}\r\n" for line in self._lines(text, "Record-Route"))
        contact = re.search(r"<([^>]+)>", header(text, "Contact"))
        assert contact is not None
        body = self.sdp()
        self._sip.sendto(
            (
                f"INVITE {contact[1]} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{self.port};rport;"
                f"branch=z9hG4bK{uuid.uuid4().hex}\r\nMax-Forwards: 70\r\n{routes}"
                f"From: {header(text, 'To')};tag={self._tag}\r\nTo: {header(text, 'From')}\r\n"
                f"Call-ID: {header(text, 'Call-ID')}\r\nCSeq: 1 INVITE\r\n"
                f"Contact: <sip:cell@127.0.0.1:{self.port}>\r\nContent-Type: application/sdp\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}"
            ).encode(),
            peer,
        )

    @staticmethod
    def _lines(text: str, name: str) -> list[str]:
        head = text.partition("\r\n\r\n")[0]
        return [line for line in head.split("\r\n") if line.lower().startswith(name.lower() + ":")]

    def _reply(self, request: str, peer: tuple[str, int], status: str, body: str = "") -> None:
        copied = "".join(f"{line}\r\n" for name in ("Via", "Record-Route") for line in self._lines(request, name))
        to = header(request, "To")
        tag = "" if "tag=" in to else f";tag={self._tag}"
        kind = "Content-Type: application/sdp\r\n" if body else ""
        self._sip.sendto(
            (
                f"SIP/2.0 {status}\r\n{copied}From: {header(request, 'From')}\r\nTo: {to}{tag}\r\n"
                f"Call-ID: {header(request, 'Call-ID')}\r\nCSeq: {header(request, 'CSeq')}\r\n"
                f"Contact: <sip:cell@127.0.0.1:{self.port}>\r\n{kind}Content-Length: {len(body)}\r\n\r\n{body}"
            ).encode(),
            peer,
        )

    def _read_rtp(self) -> None:
        while not self._closed.is_set():
            try:
                packet, peer = self._rtp.recvfrom(2048)
            except TimeoutError:
                continue
            self.packets.append(packet)
            self.sources.add(peer)
            if not self.refusal:
                self.echo(self._rtp, packet, peer)

    def echo(self, endpoint: socket.socket, packet: bytes, peer: tuple[str, int]) -> None:
        """RTP thread."""
        endpoint.sendto(packet, peer)
