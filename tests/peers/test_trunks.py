"""Trunks of a running server: a real registrar, a softphone that encrypts, scanners that find nothing."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.harness.records import Record, ended
from tests.harness.server import ROOT, ServerProcess
from tests.peers import rtp
from tests.peers.baresip import Baresip
from tests.peers.plan import PLAN, write_prompt, write_wav
from tests.servers import registrar
from tests.servers.registrar import REALM

pytestmark = pytest.mark.peers

SAID_HZ = 1000.0


def server_with(folder: Path, *trunks: dict[str, Any], **sip: Any) -> ServerProcess:
    process = ServerProcess(folder, {"peers.yaml": PLAN}, {"trunks": list(trunks), "sip": sip})
    write_prompt(process.dialplans)
    return process


def here(**facts: Any) -> dict[str, Any]:
    return {"name": "here", "sources": ["127.0.0.1/32"], **facts}


# --- encryption -------------------------------------------------------------------------------------------------------


def echoed(folder: Path, server: ServerProcess, *, account: str = "") -> tuple[float, Record]:
    """What tone the phone hears when it speaks to the echo, and the record of its call."""
    phone_folder = folder / "phone"
    write_wav(phone_folder / "said.wav", rtp.tone((SAID_HZ,), 20_000, 8000), 8000)
    with Baresip(phone_folder, "PCMA", ("srtp",), account) as phone:
        assert phone.command("dial", f"sip:echo@127.0.0.1:{server.sip_port}")["ok"]
        phone.wait_for("CALL_ESTABLISHED")
        time.sleep(1.5)
        phone.command("hangup")
        phone.wait_for("CALL_CLOSED")
        with wave.open(str(phone.heard)) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    return rtp.strongest_hz(samples[-8000:], 8000), ended(server.database)[-1]


@pytest.mark.parametrize(
    ("policy", "account"),
    [("offered", "mediaenc=srtp"), ("offered", "mediaenc=srtp-mand"), ("required", "mediaenc=srtp-mand")],
)
def test_sound_is_encrypted_and_heard(tmp_path: Path, policy: str, account: str) -> None:
    with server_with(tmp_path, here(srtp=policy)) as server:
        heard_hz, record = echoed(tmp_path, server, account=account)
    assert heard_hz == pytest.approx(SAID_HZ, abs=5)
    assert [event["encrypted"] for event in record.of("media.started")] == [True]
    assert not record.of("fault.other")


def test_the_record_says_that_a_peer_took_no_keys(tmp_path: Path) -> None:
    with server_with(tmp_path, here(srtp="offered")) as server:
        heard_hz, record = echoed(tmp_path, server)
    assert heard_hz == pytest.approx(SAID_HZ, abs=5)
    assert [event["encrypted"] for event in record.of("media.started")] == [False]
    (fault,) = record.of("fault.other")
    assert fault["where"] == "srtp"
    assert "here" in fault["error"]


def test_a_peer_without_keys_is_refused_where_they_are_required(tmp_path: Path) -> None:
    phone_folder = tmp_path / "phone"
    write_wav(phone_folder / "said.wav", rtp.tone((SAID_HZ,), 1000, 8000), 8000)
    with server_with(tmp_path, here(srtp="required")) as server, Baresip(phone_folder, "PCMA") as phone:
        assert phone.command("dial", f"sip:echo@127.0.0.1:{server.sip_port}")["ok"]
        assert "488" in phone.wait_for("CALL_CLOSED")["param"]
        assert 'sipserver_calls_refused_total{reason="srtp"} 1.0' in server.get("/metrics")


# --- scanners ---------------------------------------------------------------------------------------------------------


def scan(tool: str, *arguments: str) -> str:
    """What a scanner of sipvicious prints about the server."""
    done = subprocess.run(
        [sys.executable, "-m", f"sipvicious.{tool}", *arguments],
        capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    elsewhere = {"name": "carrier", "sources": ["192.0.2.0/24"]}
    with server_with(tmp_path_factory.mktemp("guarded"), elsewhere) as server:
        yield server


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """What the scanners do find: otherwise their silence would say nothing."""
    with server_with(tmp_path_factory.mktemp("open")) as server:
        yield server


@pytest.mark.parametrize("method", ["OPTIONS", "REGISTER", "INVITE"])
def test_svmap_finds_no_server(guarded: ServerProcess, open_server: ServerProcess, method: str) -> None:
    found = scan("svmap", "-p", str(guarded.sip_port), "-m", method, "127.0.0.1")
    assert ("found nothing" in found) == (method != "INVITE"), found
    assert "sipserver" not in found
    assert f"127.0.0.1:{open_server.sip_port}" in scan(
        "svmap", "-p", str(open_server.sip_port), "-m", method, "127.0.0.1"
    )


@pytest.mark.parametrize("method", ["REGISTER", "OPTIONS", "INVITE"])
def test_svwar_finds_no_extension(guarded: ServerProcess, method: str) -> None:
    found = scan("svwar", "-p", str(guarded.sip_port), "-m", method, "-e", "100-120", "--force", "127.0.0.1")
    assert "found nothing" in found, found


# --- registration and `sipserver trunks` ------------------------------------------------------------------------------


def trunks_of(server: ServerProcess, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sipserver", "trunks", "--config", str(server.settings_file), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


async def test_the_command_shows_each_trunk_and_says_when_one_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALICE_PASSWORD", "secret of alice")
    (tmp_path / "kamailio").mkdir()
    async with registrar.running(tmp_path / "kamailio", {"alice": "secret of alice"}) as kamailio:
        register = {"expires_s": 60, "retry_s": 0.2, "retry_most_s": 1}
        carrier = {
            "name": "carrier", "registrar": kamailio.address, "domain": REALM, "transport": "tcp", "register": register,
            "credentials": {"user": "alice", "password_env": "ALICE_PASSWORD"}, "keepalive_s": 1,
        }  # fmt: skip
        server = server_with(tmp_path, carrier, here())
        await asyncio.to_thread(server.start)
        try:
            await _shown(server, {"carrier": "registered", "here": "up"}, exit_code=0)
            assert 'sipserver_trunk_up{trunk="carrier"} 1.0' in server.get("/metrics")
            assert 'sipserver_trunk_registered{trunk="carrier"} 1.0' in server.get("/metrics")
            assert 'sipserver_trunk_registered{trunk="here"}' not in server.get("/metrics")
            await kamailio.stop()
            await _shown(server, {"carrier": "unreachable", "here": "up"}, exit_code=1)
            assert 'sipserver_trunk_up{trunk="carrier"} 0.0' in server.get("/metrics")
            table = await asyncio.to_thread(trunks_of, server)
            assert table.returncode == 1
            assert "OPTIONS: " in table.stdout
            await kamailio.start()
            await _shown(server, {"carrier": "registered", "here": "up"}, exit_code=0)
            assert "secret of alice" not in server.log() + server.settings_file.read_text()
        finally:
            await asyncio.to_thread(server.stop)
    gone = await asyncio.to_thread(trunks_of, server)
    assert gone.returncode == 1
    assert "no server answers" in gone.stderr


async def _shown(server: ServerProcess, wanted: dict[str, str], exit_code: int) -> None:
    async with asyncio.timeout(30):
        while True:
            answer = await asyncio.to_thread(trunks_of, server, "--json")
            shown = {trunk["name"]: trunk["state"] for trunk in json.loads(answer.stdout)}
            if shown == wanted:
                assert answer.returncode == exit_code
                return


def test_a_server_does_not_start_without_a_trunks_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CARRIER_PASSWORD", raising=False)
    carrier = {"name": "carrier", "host": "192.0.2.1", "credentials": {"user": "x", "password_env": "CARRIER_PASSWORD"}}
    with pytest.raises(AssertionError, match="carrier: the environment variable CARRIER_PASSWORD"):
        server_with(tmp_path, carrier).start()
