"""Real phones at a PBX: baresip registers at Kamailio, calls the server there, is bridged, holds, transfers, dies.

The server is extension 100. Who calls it decides what it does: 201 is connected with 202 and recorded, 203 is asked to
call 202 itself (REFER). Who hears whom is told by the tones in what the phones have recorded.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
import wave
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.fakes.until import PATIENCE_S, wait_until
from tests.harness.records import Record, records
from tests.harness.server import ServerProcess
from tests.peers import rtp
from tests.peers.baresip import Baresip
from tests.peers.plan import write_wav
from tests.servers.registrar import REALM, Registrar

pytestmark = pytest.mark.peers

RECORDED_S = 3.0
"""A recording reaches the disk in pieces; so long a call has some."""

HZ = {"201": 700.0, "202": 800.0, "203": 900.0, "music": 1900.0, "sorry": 2300.0}

PLAN = """
tenant: phones
flows:
  bridge:
    - bridge:
        {to: "202", trunk: pbx, music: music.wav, record: true, rtp_timeout_s: 4, on: {answered: after, failed: end}}
  after: [{play: sorry.wav}, hangup]
  blind: [{transfer: {to: "sip:202@registrar.test", mode: blind, on: {failed: after}}}]
routes:
  - match: {from: "203"}
    flow: blind
  - flow: bridge
"""


@dataclass
class Office:
    pbx: Registrar
    server: ServerProcess
    stack: ExitStack
    folder: Path

    def phone(self, number: str, *, answers: bool = False, silent_s: int = 30) -> Baresip:
        """Once it is registered."""
        folder = self.folder / number
        write_wav(folder / "said.wav", rtp.tone((HZ[number],), 120_000, 8000), 8000)
        address = (
            f'<sip:{number}@{REALM}>;outbound="sip:{self.pbx.address}";auth_user={number};auth_pass={secret(number)}'
            f";regint=60{';answermode=auto' if answers else ''}"
        )
        phone = self.stack.enter_context(Baresip(folder, address=address, silent_s=silent_s))
        wait_until(lambda: number in asyncio.run(self.pbx.contacts()), f"{number} registers")
        return phone

    def record(self, count: int = 1) -> Record:
        """Of the latest of so many calls, once all are closed."""

        def closed() -> bool:
            found = records(self.server.database)
            return len(found) >= count and all(each.kinds[-1:] == ["call.ended"] for each in found)

        wait_until(closed, "the end of the call")
        return records(self.server.database)[-1]

    def has_no_calls(self) -> None:
        """Not even in the server's memory."""

        def none() -> bool:
            states = re.findall(r"^sipserver_calls\{.*\} (\S+)$", self.server.get("/metrics"), re.M)
            return bool(states) and {float(calls) for calls in states} == {0}

        wait_until(none, "every call ends")


def secret(number: str) -> str:
    return f"secret-of-{number}"


def hears(phone: Baresip, who: str) -> None:
    wait_until(lambda: abs(phone.hears_hz() - HZ[who]) < 20, f"{who} is heard in {phone.folder.name}")


def hear_each_other(one: Baresip, other: Baresip) -> None:
    hears(one, other.folder.name)
    hears(other, one.folder.name)


@contextmanager
def office(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    monkeypatch.setenv("PBX_PASSWORD", secret("100"))
    (folder / "kamailio").mkdir()
    pbx = Registrar(folder / "kamailio", {number: secret(number) for number in ("100", "201", "202", "203")})
    with ExitStack() as stack:
        runtime = stack.enter_context(tempfile.TemporaryDirectory(prefix="phones-"))
        asyncio.run(pbx.start())
        stack.callback(lambda: asyncio.run(pbx.stop()))
        trunk = {
            "name": "pbx", "sources": ["127.0.0.1/32"], "registrar": pbx.address, "domain": REALM, "srtp": "off",
            "keepalive_s": 1,
            "register": {"expires_s": 60, "retry_s": 0.5, "retry_most_s": 1},
            "credentials": {"user": "100", "password_env": "PBX_PASSWORD"},
            "number_format": "as_is", "refer_to": ["20?"], "replaces": True,
        }  # fmt: skip
        overrides = {"trunks": [trunk], "fleet": {"runtime": runtime}, "calls": {"media_timeout_s": 4}}
        server = ServerProcess(folder / "server", {"phones.yaml": PLAN}, overrides)
        for name in ("music", "sorry"):
            write_wav(server.dialplans / f"{name}.wav", rtp.tone((HZ[name],), 10_000, 16_000), 16_000)
        server.start()
        stack.callback(server.stop)
        wait_until(lambda: "100" in asyncio.run(pbx.contacts()), "the server registers")
        yield Office(pbx, server, stack, folder)
        assert "Traceback" not in server.log()


@pytest.fixture
def town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    with office(tmp_path, monkeypatch) as place:
        yield place


def connected(town: Office, silent_s: int = 30) -> tuple[Baresip, Baresip]:
    """201 has called the server and talks with 202."""
    bob = town.phone("202", answers=True, silent_s=silent_s)
    alice = town.phone("201", silent_s=silent_s)
    talk(alice, bob)
    return alice, bob


def talk(alice: Baresip, bob: Baresip) -> None:
    for phone in (alice, bob):
        phone.forget()
    alice.command("dial", f"sip:100@{REALM}")
    alice.wait_for("CALL_ESTABLISHED", PATIENCE_S)
    hear_each_other(alice, bob)


@pytest.mark.parametrize(("number", "leg"), [("201", ""), ("202", "party-1")])
def test_either_phone_holds_and_resumes(town: Office, number: str, leg: str) -> None:
    """A phone's own hold ends what baresip keeps of what it hears: only the other one is listened to."""
    alice, bob = connected(town)
    holder, other = (alice, bob) if number == "201" else (bob, alice)
    assert holder.command("hold")["ok"]
    hears(other, "music")
    assert holder.command("resume")["ok"]
    hears(other, number)
    alice.command("hangup")
    bob.wait_for("CALL_CLOSED", PATIENCE_S)
    record = town.record()
    assert record.reason == "caller_hangup"
    assert [event.get("leg", "") for kind in ("leg.held", "leg.resumed") for event in record.of(kind)] == [leg, leg]


def test_the_phone_that_was_called_transfers(town: Office) -> None:
    """REFER on the party's leg: a third phone takes the place of the callee, and the caller notices only the voice."""
    carol = town.phone("203", answers=True)
    alice, bob = connected(town)
    bob.command("transfer", f"sip:203@{REALM}")
    bob.wait_for("CALL_CLOSED", PATIENCE_S)
    hear_each_other(alice, carol)
    carol.command("hangup")
    hears(alice, "sorry")
    alice.wait_for("CALL_CLOSED", PATIENCE_S)
    record = town.record()
    assert [(event.get("leg", ""), event["by"]) for event in record.of("leg.replaced")] == [("party-1", "refer")]


def test_a_phone_is_asked_to_call_another_and_does(town: Office) -> None:
    """Our REFER to a real phone: it calls the target itself, says so in NOTIFY, and the server leaves."""
    bob, carol = town.phone("202", answers=True), town.phone("203")
    carol.command("dial", f"sip:100@{REALM}")
    hear_each_other(carol, bob)
    record = town.record()
    assert record.reason == "transferred"
    assert [(end["outcome"], end["how"]) for end in record.of("transfer.ended")] == [("answered", "refer")]
    town.has_no_calls()
    hear_each_other(carol, bob)


def test_a_phone_that_dies_is_left_and_the_other_one_kept(town: Office) -> None:
    alice, bob = connected(town)
    bob.kill()
    hears(alice, "sorry")
    alice.wait_for("CALL_CLOSED", PATIENCE_S)
    record = town.record()
    assert record.reason == "dialplan_hangup"
    assert [end["reason"] for end in record.of("bridge.ended")] == ["media_timeout"]


def test_the_pbx_dies_and_the_talk_goes_on(town: Office) -> None:
    """Sound goes past the PBX. A BYE does not arrive any more: silence ends both legs. Then the PBX is back."""
    alice, bob = connected(town)
    asyncio.run(town.pbx.stop())
    hear_each_other(alice, bob)
    alice.kill()
    record = town.record()
    assert record.reason == "media_timeout"
    town.has_no_calls()
    bob.kill()
    asyncio.run(town.pbx.start())
    wait_until(lambda: "100" in asyncio.run(town.pbx.contacts()), "the server registers again")
    town.folder = town.folder / "after"
    alice, bob = connected(town)
    alice.command("hangup")
    assert town.record(2).reason == "caller_hangup"


def test_the_server_is_killed_while_two_phones_talk(town: Office) -> None:
    alice, bob = connected(town, silent_s=5)
    time.sleep(RECORDED_S)
    town.server.kill()
    for phone in (alice, bob):
        phone.wait_for("CALL_CLOSED", PATIENCE_S)
    town.server.start()
    record = town.record()
    assert record.reason == "crash"
    wait_until(lambda: records(town.server.database)[-1].recording_status, "the recording is mended")
    with wave.open(records(town.server.database)[-1].recording) as file:
        both = np.frombuffer(file.readframes(file.getnframes()), np.int16).reshape(-1, 2)[-16_000:]
    assert [round(rtp.strongest_hz(both[:, side], 16_000) / 50) * 50 for side in (0, 1)] == [HZ["201"], HZ["202"]]
    wait_until(lambda: "100" in asyncio.run(town.pbx.contacts()), "the server registers again")
    talk(alice, bob)
    alice.command("hangup")
    assert town.record(2).reason == "caller_hangup"
