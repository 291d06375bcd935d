"""A whole server: telephones meet in a room, one serves another from a queue, one leaves a message."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sipserver.codecs.g711 import G711Encoder
from tests.fakes.voice import voice
from tests.harness.phone import Phone, tone
from tests.harness.server import ServerProcess

PLAN = """
tenant: acme
queues:
  sales: {wrapup_s: 0.1}
flows:
  room: [{conference: {room: team, on: {failed: end, kicked: end}}}]
  line: [{queue: {name: sales, position_say_every_s: 0, on: {failed: end}}}]
  desk: [{serve: {queue: sales}}]
  box: [{voicemail: {box: sales, silence_s: 1, transcript: false}}, hangup]
routes:
""" + "".join(f"  - match: {{to: {name}}}\n    flow: {name}\n" for name in ("room", "line", "desk", "box"))

LOUD = 2000.0


def until(happens: Callable[[], bool], what: str, within_s: float = 15) -> None:
    deadline = time.monotonic() + within_s
    while not happens():
        assert time.monotonic() < deadline, f"{what} does not happen"
        time.sleep(0.05)


def hears(phone: Phone) -> bool:
    """Whether the last tenth of a second was loud."""
    last = phone.received[-5:]
    return len(last) == 5 and min(packet.level for packet in last) > LOUD


def command(settings: Path, *words: str, code: int = 0) -> str:
    """`sipserver conference ...` as an operator types it; what it prints."""
    full = [sys.executable, "-m", "sipserver", "conference", *words, "--config", str(settings)]
    done = subprocess.run(full, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_an_operator_mutes_and_removes_a_member(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="room-") as runtime:  # a socket's path holds 107 bytes (unix(7))
        server = ServerProcess(tmp_path / "server", {"acme.yaml": PLAN}, {"fleet": {"runtime": runtime}})
        assert "no server answers at" in command(server.settings_file, "list", code=1)
        with server, Phone(server.sip_port, "ann") as ann, Phone(server.sip_port, "ben") as ben:
            assert command(server.settings_file, "list") == "nobody is in a room\n"
            assert ann.invite("room").code == 200
            assert ben.invite("room").code == 200
            ann.say(tone(60_000))
            until(lambda: hears(ben), "ben hears ann")
            (room,) = json.loads(command(server.settings_file, "list", "--json"))
            talker = room["members"][0]["call"]
            assert command(server.settings_file, "mute", talker[-12:]) == f"muted {talker}\n"
            until(lambda: not hears(ben), "silence")
            assert "muted" in command(server.settings_file, "list")
            command(server.settings_file, "unmute", talker)
            until(lambda: hears(ben), "ben hears ann again")
            assert command(server.settings_file, "kick", talker) == f"removed {talker}\n"
            assert ann.ended.wait(10)
            assert "is in no room" in command(server.settings_file, "mute", talker, code=1)


def test_a_room_a_queue_and_a_message(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "server", {"acme.yaml": PLAN})
    with server:
        for one, other in (("room", "room"), ("desk", "line")):
            with Phone(server.sip_port, "ann") as ann, Phone(server.sip_port, "ben") as ben:
                assert ann.invite(one).code == 200
                assert ben.invite(other).code == 200
                ann.say(tone(5000))
                until(lambda: hears(ben), f"{other} hears {one}")
                assert not hears(ann)
                if other == "line":
                    assert 'sipserver_queue_callers_total{reason="answered"}' not in server.get("/metrics")
                ben.bye()
                ann.bye()
        until(lambda: 'sipserver_queue_callers_total{reason="answered"} 1.0' in server.get("/metrics"), "the count")
        with Phone(server.sip_port, "cy") as cy:
            assert cy.invite("box").code == 200
            cy.say(G711Encoder.mu_law().encode(voice(2.5, seed=2, rate_hz=8000)))
            assert cy.ended.wait(20), "the message ends with silence"
        (path,) = (tmp_path / "server" / "recordings" / "voicemail" / "acme" / "sales").glob("*.wav")
        assert path.stat().st_size > 50_000
    assert "Traceback" not in server.log()
