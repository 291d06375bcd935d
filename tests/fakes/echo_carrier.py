"""A carrier reduced to what the media relay sees of one: it answers calls and sends every RTP packet back, with SRTP
(SDES, RFC 4568) or without, with any codec.
"""

from __future__ import annotations

import base64
import os
import re
import socket

from tests.fakes.echo_cell import STATIC, EchoCell
from tests.fakes.srtp import Srtp

SUITE = "AES_CM_128_HMAC_SHA1_80"
DYNAMIC = {"opus": (96, "opus/48000/2")}


class EchoCarrier(EchoCell):
    """codec: what it takes of an offer. encrypts: it answers keys with a key of its own, else it ignores them.

    profile: of its answer's media line; empty: the offer's. clear: packets as they were before encryption.
    """

    def __init__(self, codec: str = "PCMU", *, encrypts: bool = False, profile: str = "", refusal: int = 0) -> None:
        super().__init__((codec,), refusal)
        self._codec, self.encrypts, self._profile = codec, encrypts, profile
        self._key = os.urandom(30)
        self._in: Srtp | None = None
        self._out = Srtp(self._key)
        self.clear: list[bytes] = []

    def sdp(self, offer: str = "") -> str:
        self.codec = self._codec
        number, name = DYNAMIC.get(self._codec, (STATIC.get(self._codec, 0), ""))
        if name:
            found = re.search(rf"^a=rtpmap:(\d+) {name}", offer, re.M | re.I)
            number = int(found[1]) if found else number
        line = re.search(r"^m=audio \d+ (\S+)", offer, re.M)
        profile = self._profile or (line[1] if line else "RTP/AVP")
        keyed = re.search(rf"^a=crypto:(\d+) {SUITE} inline:([A-Za-z0-9+/=]+)", offer, re.M)
        crypto = ""
        if self.encrypts and keyed:
            self._in = Srtp(base64.b64decode(keyed[2] + "=="))
            crypto = f"a=crypto:{keyed[1]} {SUITE} inline:{base64.b64encode(self._key).decode()}\r\n"
        kind = f"a=rtpmap:{number} {name}\r\n" if name else ""
        return (
            f"v=0\r\no=- 7 7 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
            f"m=audio {self.rtp_port} {profile} {number}\r\n{kind}{crypto}a=sendrecv\r\n"
        )

    def echo(self, endpoint: socket.socket, packet: bytes, peer: tuple[str, int]) -> None:
        if self._in is not None:
            try:
                packet = self._in.unprotect(packet)
            except ValueError:  # of the key before a new offer
                return
            self.clear.append(packet)
            packet = self._out.protect(packet)
        endpoint.sendto(packet, peer)
