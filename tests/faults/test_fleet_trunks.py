"""A fleet whose trunk wants REGISTER and digest: who registers, what the carrier sees, how calls go out and come in."""

from __future__ import annotations

import asyncio
import audioop
import base64
import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.sip_peer import header, sdp
from tests.fakes.srtp import Srtp
from tests.harness.fleet import FleetProcess, Part
from tests.harness.phone import Phone, tone
from tests.servers.carrier import Behave, Carrier
from tests.servers.rtpengine import relay_settings

pytestmark = pytest.mark.peers

INSIDE = "127.0.0.9"
PASSWORD, REALM = "open sesame", "carrier.example"
TAKEN_OVER_S = 8.0
PLAN = """
tenant: acme
targets: ["+49*"]
flows:
  main: [answer, {echo: {max_s: 60}}]
routes:
  - {match: {to: "*"}, flow: main}
"""


def _proves(request: str, name: str) -> bool:
    """The digest is right (RFC 2617, 3.2.2.1)."""
    proof = header(request, name)
    fields = dict(re.findall(r'(\w+)="?([^",]+)"?', proof))
    ha1 = hashlib.md5(f"me:{REALM}:{PASSWORD}".encode(), usedforsecurity=False).hexdigest()
    asked = f"{request.partition(' ')[0]}:{fields.get('uri', '')}"
    ha2 = hashlib.md5(asked.encode(), usedforsecurity=False).hexdigest()
    wanted = f"{ha1}:{fields.get('nonce')}:{fields.get('nc')}:{fields.get('cnonce')}:auth:{ha2}"
    return fields.get("response") == hashlib.md5(wanted.encode(), usedforsecurity=False).hexdigest()


def _carrier(carrier: Carrier, request: str) -> None:
    method = request.partition(" ")[0]
    if method == "REGISTER" and not _proves(request, "Authorization"):
        more = f'WWW-Authenticate: Digest realm="{REALM}", nonce="n1", algorithm=MD5, qop="auth"\r\n'
        carrier.answer(request, "401 Unauthorized", more=more)
    elif method == "INVITE" and "tag=" not in header(request, "To") and not _proves(request, "Proxy-Authorization"):
        more = f'Proxy-Authenticate: Digest realm="{REALM}", nonce="n2", algorithm=MD5, qop="auth"\r\n'
        carrier.answer(request, "407 Proxy Authentication Required", more=more)
    else:
        more = "Expires: 60\r\n" if method == "REGISTER" else ""
        carrier.answer(request, "200 OK", more=more, body=sdp(40_000, "0 101") if method == "INVITE" else "")


@asynccontextmanager
async def fleet_at(
    folder: Path, behave: Behave | None = None, srtp: str = "off", edge: dict[str, Any] | None = None
) -> AsyncIterator[tuple[FleetProcess, Carrier]]:
    async with Carrier(behave or _carrier).running() as carrier:
        trunk = {
            "name": "carrier",
            "host": carrier.address,
            "registrar": carrier.address,
            "domain": REALM,
            "sources": ["127.0.0.1/32"],
            "credentials": {"user": "me", "password_env": "CARRIER_PASSWORD", "realm": REALM},
            "register": {"user": "me", "expires_s": 60},
            "keepalive_s": 1,
            "srtp": srtp,
        }
        overrides = {
            "trunks": [trunk],
            "fleet": {"host": INSIDE, "heartbeat_s": 0.3},
            "sip": {"host": INSIDE},
            "edge": {"inside": INSIDE, "open": False, **(edge or {})},
            "bus": {"lease_s": 2},
        }
        fleet = FleetProcess(folder, {"acme.yaml": PLAN}, overrides, calls=8)
        try:
            await asyncio.to_thread(fleet.start)
            yield fleet, carrier
        finally:
            await asyncio.to_thread(fleet.stop)


async def dialled(fleet: FleetProcess) -> asyncio.subprocess.Process:
    """`sipserver dial`, which runs until the call is over."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sipserver", "dial", "+493012345", "--trunk", "carrier"),
        *("--config", str(fleet.settings_file)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


async def registered(carrier: Carrier, after: int = 0) -> str:
    """The next REGISTER with a right proof, of those after so many messages."""
    async with asyncio.timeout(TAKEN_OVER_S):
        while True:
            for text in carrier.received[after:]:
                if text.startswith("REGISTER ") and _proves(text, "Authorization"):
                    return text
            await asyncio.sleep(0.05)


async def registering(fleet: FleetProcess) -> Part:
    """The living cell that said last that it registers, once its word is in the log: a thread of its own writes it, so
    the registrar may hear of it first."""
    async with asyncio.timeout(TAKEN_OVER_S):
        while True:
            said = [line for line in fleet.log().splitlines() if "this cell registers" in line]
            for part in fleet.of("cell"):
                if said and f'"{part.run}"' in said[-1]:
                    return part
            await asyncio.sleep(0.05)


async def test_one_cell_registers_and_calls_go_out_and_come_in_by_the_edge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARRIER_PASSWORD", PASSWORD)
    async with fleet_at(tmp_path) as (fleet, carrier):
        register = await registered(carrier)
        assert header(register, "Contact").startswith(f"<sip:me@127.0.0.1:{fleet.sip_port}>")
        assert header(register, "To") == f"<sip:me@{REALM}>"

        dial = await dialled(fleet)
        try:
            await carrier.wait_for("ACK", 2, timeout_s=30)  # of the 407 and of the 200
            invite = carrier.of("INVITE")[-1]
            assert _proves(invite, "Proxy-Authorization")
            assert f"@{REALM}" in header(invite, "From")
            carrier.send(carrier.request("BYE", invite))
            said, _ = await asyncio.wait_for(dial.communicate(), 20)
            assert dial.returncode == 0, said.decode()
        finally:
            if dial.returncode is None:
                dial.kill()
                await dial.wait()

        with Phone(fleet.sip_port) as phone:  # from the carrier's address to what was registered
            answer = await asyncio.to_thread(phone.invite, "me")
            assert answer.code == 200, answer.text
            await asyncio.to_thread(phone.bye)

        shown = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sipserver", "trunks", "--json", "--config", str(fleet.settings_file)),
            stdout=subprocess.PIPE,
        )
        said, _ = await asyncio.wait_for(shown.communicate(), 20)
        assert [(trunk["name"], trunk["state"]) for trunk in json.loads(said)] == [("carrier", "registered")]

        await carrier.wait_for("OPTIONS", 4, timeout_s=10)
        assert len({header(text, "Call-ID") for text in carrier.of("REGISTER")}) == 1, "more than one cell registers"
        for text in carrier.received:
            assert INSIDE not in text, text
            assert "X-Sipserver" not in text, text


async def test_another_cell_registers_when_the_first_dies_or_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARRIER_PASSWORD", PASSWORD)
    async with fleet_at(tmp_path) as (fleet, carrier):
        first = await registered(carrier)
        for number in (signal.SIGKILL, signal.SIGTERM):
            seen = len(carrier.received)
            os.kill((await registering(fleet)).pid, number)
            second = await registered(carrier, seen)
            if header(second, "Expires") == "0":  # the goodbye of one that goes
                assert number is signal.SIGTERM
                second = await registered(carrier, carrier.received.index(second) + 1)
            assert header(second, "Call-ID") != header(first, "Call-ID")
            assert header(second, "Contact") == header(first, "Contact")
            first = second


class KeyedSound:
    """The carrier's sound: SRTP with keys of SDP, a tone to the relay, and what comes back."""

    def __init__(self) -> None:
        self.endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.endpoint.bind(("127.0.0.1", 0))
        self.endpoint.settimeout(0.02)
        self._key = os.urandom(30)
        self._ours, self._theirs = Srtp(self._key), Srtp(bytes(30))
        self._relay = ("127.0.0.1", 9)

    def answer(self, offer: str) -> str:
        keyed = re.search(r"^a=crypto:(\d+) AES_CM_128_HMAC_SHA1_80 inline:([A-Za-z0-9+/=]+)", offer, re.M)
        place = re.search(r"^m=audio (\d+) RTP/SAVP .*\b0\b", offer, re.M)
        assert keyed is not None, offer
        assert place is not None, offer
        self._theirs, self._relay = Srtp(base64.b64decode(keyed[2] + "==")), ("127.0.0.1", int(place[1]))
        return (
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
            f"m=audio {self.endpoint.getsockname()[1]} RTP/SAVP 0\r\n"
            f"a=crypto:{keyed[1]} AES_CM_128_HMAC_SHA1_80 inline:{base64.b64encode(self._key).decode()}\r\n"
        )

    def is_echoed(self, packets: int = 400) -> bool:
        """Blocks for as many packets at most."""
        sound = tone(20)
        for number in range(packets):
            head = struct.pack("!BBHII", 0x80, 0, number, number * 160, 4711)
            self.endpoint.sendto(self._ours.protect(head + sound), self._relay)
            with contextlib.suppress(TimeoutError, ValueError):
                heard = self._theirs.unprotect(self.endpoint.recv(2048))[12:]
                if audioop.rms(audioop.ulaw2lin(heard, 2), 2) > 4000:
                    return True
        return False


async def test_a_real_cell_is_heard_by_the_carrier_encrypted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARRIER_PASSWORD", PASSWORD)
    sound = KeyedSound()

    def behave(carrier: Carrier, request: str) -> None:
        if request.startswith("INVITE ") and _proves(request, "Proxy-Authorization"):
            carrier.answer(request, "200 OK", body=sound.answer(request.partition("\r\n\r\n")[2]))
        else:
            _carrier(carrier, request)

    relay = relay_settings(interfaces=("outside/127.0.0.1", f"inside/{INSIDE}")).model_dump(mode="json")
    with contextlib.closing(sound.endpoint):
        async with fleet_at(tmp_path, behave, "required", {"rtpengine": relay}) as (fleet, carrier):
            dial = await dialled(fleet)
            try:
                await carrier.wait_for("ACK", 2, timeout_s=30)
                assert await asyncio.to_thread(sound.is_echoed)
                carrier.send(carrier.request("BYE", carrier.of("INVITE")[-1]))
                said, _ = await asyncio.wait_for(dial.communicate(), 20)
                assert dial.returncode == 0, said.decode()
            finally:
                if dial.returncode is None:
                    dial.kill()
                    await dial.wait()
            assert not any(INSIDE in text for text in carrier.received)
