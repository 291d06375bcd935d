"""The doctor on settings that work, and on each thing that would stop a call."""

from __future__ import annotations

import ctypes.util
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from sipserver import settings as settings_file
from sipserver.cli import checks, doctor, main
from sipserver.cli.checks import Finding, Verdict
from sipserver.errors import ModelMissing
from sipserver.settings import Settings
from sipserver.speech import models

PLAN = {
    "tenant": "acme",
    "flows": {"main": ["answer", {"say": "Hello."}, "hangup"]},
    "routes": [{"match": {"to": "*"}, "flow": "main"}],
}


class Site:
    """A folder with settings and dialplans of its own."""

    def __init__(self, folder: Path, sip_port: int, http_port: int) -> None:
        self.folder = folder
        self.file = folder / "etc/sipserver.yaml"
        self.values: dict[str, Any] = {
            "sip": {"port": sip_port, "rtp_ports": [40000, 40039]},
            "http": {"port": http_port},
            "calls": {"recordings": str(folder / "var/recordings")},
        }
        (folder / "etc").mkdir()
        (folder / "dialplans").mkdir()
        self.plan(PLAN)

    def plan(self, plan: object) -> None:
        (self.folder / "dialplans/acme.yaml").write_text(yaml.safe_dump(plan))

    def write(self) -> Path:
        self.file.write_text(yaml.safe_dump(self.values))
        return self.file

    def settings(self) -> Settings:
        return settings_file.load(self.write())


@pytest.fixture
def site(tmp_path: Path, free_sip_port: Callable[[], int]) -> Site:
    return Site(tmp_path, free_sip_port(), free_sip_port())


def by_subject(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.subject: finding for finding in findings}


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def few_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without models and PJSIP, which have tests of their own."""
    monkeypatch.setattr(doctor, "CHECKS", (checks.dialplans, checks.folders, checks.clock))


def exit_code(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main.main(words)
    return int(stopped.value.code or 0)


@pytest.mark.usefixtures("few_checks")
def test_all_is_well(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("doctor", "--config", str(site.write())) == 0
    printed = capsys.readouterr().out
    assert "acme: valid" in printed
    assert "problem" not in printed


@pytest.mark.usefixtures("few_checks")
def test_as_json(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.plan({**PLAN, "bogus": 1})
    assert exit_code("doctor", "--json", "--config", str(site.write())) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert [finding["subject"] for finding in report["findings"] if finding["verdict"] == "problem"] == [
        "dialplans"
    ] * 2


@pytest.mark.usefixtures("few_checks")
def test_secrets_beside_the_settings_are_for_their_owner(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THIS_TEST", "set, so that it stays")
    file = site.file.with_name("environment")
    assert "environment" not in by_subject(doctor.examine(site.write()))
    file.write_text("OF_THIS_TEST=1\n")
    file.chmod(0o644)
    found = by_subject(doctor.examine(site.write()))["environment"]
    assert (found.verdict, found.todo) == (Verdict.WARNING, f"chmod 600 {file}")
    file.chmod(0o600)
    assert by_subject(doctor.examine(site.write()))["environment"].verdict is Verdict.OK
    file.write_text("export A=1\n")
    (found,) = doctor.examine(site.write())
    assert (found.subject, found.verdict) == ("settings", Verdict.PROBLEM)
    assert f"{file}" in found.what


def test_unreadable_settings_are_the_only_finding(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.values["sip"]["prot"] = 1
    assert exit_code("doctor", "--json", "--config", str(site.write())) == 1
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert finding["subject"] == "settings"
    assert "sip.prot" in finding["what"]


# --- ports ------------------------------------------------------------------------------------------------------------


def test_free_ports(site: Site) -> None:
    found = checks.ports(site.settings())
    assert [finding.subject for finding in found] == ["SIP UDP", "SIP TCP", "HTTP", "RTP ports"]
    assert all(finding.verdict is Verdict.OK for finding in found)


def test_taken_ports_say_how_to_find_the_holder(site: Site) -> None:
    port = site.values["sip"]["port"]
    with socket.socket(type=socket.SOCK_DGRAM) as udp, socket.create_server(("127.0.0.1", port)):
        udp.bind(("127.0.0.1", port))
        found = by_subject(checks.ports(site.settings()))
    assert found["SIP UDP"].verdict is Verdict.PROBLEM
    assert f"ss -lunp 'sport = :{port}'" in found["SIP UDP"].todo
    assert f"ss -ltnp 'sport = :{port}'" in found["SIP TCP"].todo
    assert found["HTTP"].verdict is Verdict.OK


HEALTHZ = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    server_version, sys_version = "sipserver", ""
    def version_string(self): return "sipserver"
    def do_GET(self): self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print("listening", flush=True)
server.serve_forever()
"""


@pytest.fixture
def running(site: Site) -> Iterator[None]:
    """Something that answers /healthz as sipserver does, on the site's HTTP port."""
    command = [sys.executable, "-c", HEALTHZ, str(site.values["http"]["port"])]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"listening\n"
        yield
        process.terminate()


@pytest.mark.usefixtures("running")
def test_ports_of_a_running_server_are_fine(site: Site) -> None:
    with socket.create_server(("127.0.0.1", site.values["sip"]["port"])):
        found = by_subject(checks.ports(site.settings()))
    assert found["HTTP"].verdict is Verdict.OK
    assert found["SIP TCP"].what.endswith("is held by the running sipserver")


def test_address_of_another_machine(site: Site) -> None:
    site.values["sip"]["host"] = "192.0.2.1"
    found = by_subject(checks.ports(site.settings()))
    assert found["SIP UDP"].todo == "sip.host must be an address of this machine"
    site.values["sip"]["host"] = "no such host"
    assert by_subject(checks.ports(site.settings()))["SIP UDP"].verdict is Verdict.PROBLEM


def test_privileged_port(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_socket: socket.socket, _address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    finding = by_subject(checks.ports(site.settings()))["SIP UDP"]
    assert "above 1023" in finding.todo


def test_too_few_rtp_ports(site: Site, free_udp_port: int) -> None:
    site.values["sip"]["rtp_ports"] = [free_udp_port & ~1, (free_udp_port & ~1) + 3]
    finding = checks.rtp_ports(site.settings())
    assert finding.verdict is Verdict.PROBLEM
    assert "of 2 port pairs" in finding.what
    assert "at least 4" in finding.todo


# --- dialplans and models ---------------------------------------------------------------------------------------------


def test_no_dialplan_folder(site: Site) -> None:
    shutil.rmtree(site.folder / "dialplans")
    (finding,) = checks.dialplans(site.settings())
    assert finding.verdict is Verdict.PROBLEM


def test_no_dialplan_file(site: Site) -> None:
    (site.folder / "dialplans/acme.yaml").unlink()
    (finding,) = checks.dialplans(site.settings())
    assert finding.todo == "without one every call gets 404"


def test_engine_that_the_settings_do_not_have(site: Site) -> None:
    site.plan({**PLAN, "flows": {"main": ["answer", {"say": {"text": "Hello.", "tts": "elsewhere"}}, "hangup"]}})
    found = checks.dialplans(site.settings())
    assert any("elsewhere" in finding.what and finding.verdict is Verdict.PROBLEM for finding in found)


def test_missing_model_names_the_command(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str, _folder: Path) -> Path:
        if name == "tiny.en":
            raise ModelMissing(name, "sipserver models install tiny.en")
        return Path("/models") / name

    monkeypatch.setattr(models, "find", find)
    monkeypatch.setattr(models, "state", lambda _model, _folder: models.State.DAMAGED)
    found = by_subject(checks.models_used(site.settings()))
    assert found["model tiny.en"].verdict is Verdict.PROBLEM
    assert found["model tiny.en"].what == "damaged, used by speech.stt.whisper"
    assert found["model tiny.en"].todo == "sipserver models install tiny.en"
    assert found["model silero"].verdict is Verdict.OK


# --- programs, PJSIP, machine -----------------------------------------------------------------------------------------


def test_programs_and_libraries(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    monkeypatch.setattr(ctypes.util, "find_library", lambda _name: None)
    monkeypatch.setenv("SIPSERVER_TOKEN_SECRET", "s" * 32)
    found = by_subject(checks.programs(site.settings()))
    assert found["espeak-ng"].todo == "apt-get install espeak-ng"
    assert found["OpenMP"].todo.startswith("apt-get install libgomp1")
    assert found["Opus"].todo.startswith("apt-get install libopus0")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: f"lib{name}.so.1")
    assert all(finding.verdict is Verdict.OK for finding in checks.programs(site.settings()))


def test_programs_that_nothing_needs_are_not_asked_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIPSERVER_TOKEN_SECRET", raising=False)
    site.values["speech"] = {"tts": {"piper": {"vendor": "piper"}}}
    site.values["llm"] = {"local": {"vendor": "openai", "model": "some"}}
    assert checks.programs(site.settings()) == []


def test_pjsip_really_starts_and_counts(site: Site) -> None:
    (finding,) = checks.pjsip(site.settings())
    assert finding.verdict is Verdict.OK
    assert "calls at a time" in finding.what


class Done(NamedTuple):
    stdout: str


@pytest.mark.parametrize(
    ("printed", "verdict", "what"),
    [
        ("", Verdict.PROBLEM, "does not start"),
        ('{"version": "2.15.1", "calls": null}', Verdict.WARNING, "call limit unknown"),
        ('log line\n{"version": "2.15.1", "calls": 4}\nlog line\n', Verdict.WARNING, "holds 4 calls, 9 are wanted"),
        ('{"version": "2.16", "calls": 32}', Verdict.OK, "32 calls at a time, 9 of them inbound"),
    ],
)
def test_pjsip_answers(site: Site, monkeypatch: pytest.MonkeyPatch, printed: str, verdict: Verdict, what: str) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_a, **_k: Done(printed))
    site.values["sip"]["inbound_calls"] = 9
    (finding,) = checks.pjsip(site.settings())
    assert finding.verdict is verdict
    assert what in finding.what


def test_folders(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    found = by_subject(checks.folders(site.settings()))
    assert set(found) == {"recordings", "models folder", "call records"}
    assert all("GB free" in finding.what for finding in found.values())
    monkeypatch.setattr(checks, "FREE_BYTES", 1 << 62)
    assert checks.folders(site.settings())[0].verdict is Verdict.WARNING


def test_dialplans_that_rest_cannot_change(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user of the tests may be root, whom no mode stops."""
    settings = site.settings()
    monkeypatch.setattr(os, "access", lambda place, _mode: Path(place) != settings.dialplans)
    finding = by_subject(checks.folders(settings))["dialplans folder"]
    assert finding.verdict is Verdict.WARNING
    assert "REST cannot change dialplans" in finding.todo


def test_folder_that_cannot_be_written(site: Site) -> None:
    blocked = site.folder / "file"
    blocked.touch()
    site.values["calls"]["recordings"] = str(blocked / "recordings")
    finding = by_subject(checks.folders(site.settings()))["recordings"]
    assert finding.verdict is Verdict.PROBLEM


@pytest.mark.parametrize(
    ("soft", "hard", "says"),
    [
        (256, 256, (Verdict.WARNING, "limit 256")),
        (1024, 1024, (Verdict.WARNING, "limit 1024")),
        (1024, 524_288, (Verdict.OK, "limit 65536")),
        (1024, resource.RLIM_INFINITY, (Verdict.OK, "limit 65536")),
        (100_000, 100_000, (Verdict.OK, "limit 100000")),
    ],
)
def test_open_files(
    site: Site, monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, says: tuple[Verdict, str]
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (soft, hard))
    finding = checks.limits(site.settings())[0]
    assert (finding.verdict, finding.what) == says


def test_clock(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.clock(site.settings())[0].verdict is Verdict.OK
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert checks.clock(site.settings())[0].verdict is Verdict.WARNING
