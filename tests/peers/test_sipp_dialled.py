"""SIPp is called: `sipserver dial` and a running server against the scenarios `uas-*`, by trunks and without."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sipserver.cli.main import build
from sipserver.errors import SipServerError
from tests.harness.fleet import FleetProcess
from tests.harness.records import Record, records
from tests.harness.server import ROOT, ServerProcess, free_range
from tests.peers.sipp import SCENARIOS, Sipp
from tests.peers.test_sipp_called import NAMES as CALLED

pytestmark = pytest.mark.peers

PLAN = """
tenant: peers
targets: ["*", "*@127.0.0.1:*"]
flows:
  short: [{wait: 0.2}, hangup]
  long: [{wait: 30}]
routes:
  - flow: short
"""
NUMBER = "+493012345678"

NAMES = (
    "uas-180-cancelled",
    "uas-183-for-ever-cancelled",
    "uas-200-after-cancel-bye",
    "uas-200-dies",
    "uas-200-prack",
    "uas-200-server-bye",
    "uas-302-moved",
    "uas-401-wrong-credentials",
    "uas-404-not-found",
    "uas-407-no-credentials",
    "uas-408-timeout",
    "uas-422-retried",
    "uas-480-unavailable",
    "uas-486-busy",
    "uas-503-unavailable",
    "uas-603-declined",
)


@dataclass(frozen=True)
class Rig:
    """one, two: ports of trunks of that name; `one` fails over to `two`."""

    server: ServerProcess
    one: int
    two: int

    def dial(self, to: str, *options: str) -> tuple[int, str]:
        """Exit code and output of the command."""
        return dial(self.server.settings_file, to, *options)

    def record(self, output: str) -> Record:
        found = re.search(r"call ([0-9a-f-]{36})", output)
        assert found, output
        (record,) = [each for each in records(self.server.database) if each.call_id == found[1]]
        return record


def dial(settings: Path, to: str, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(build("dial"), ["dial", to, *options, "--config", str(settings)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    one, two = free_range(8)[0], free_range(8)[0]
    with (
        pytest.MonkeyPatch.context() as environment,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf,
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as closed,
        tempfile.TemporaryDirectory(prefix="dial-") as runtime,
    ):
        environment.setenv("SIPSERVER_TEST_DIGEST", "not what it should be")
        deaf.bind(("127.0.0.1", 0))
        closed.bind(("127.0.0.1", 0))  # and does not listen
        trunks: list[dict[str, Any]] = [
            {"name": "one", "host": f"127.0.0.1:{one}", "failover": ["two"]},
            {"name": "two", "host": f"127.0.0.1:{two}"},
            {
                "name": "digest",
                "host": f"127.0.0.1:{one}",
                "credentials": {"user": "acme", "password_env": "SIPSERVER_TEST_DIGEST", "realm": "example.org"},
            },
            {"name": "moving", "host": f"127.0.0.1:{one}", "redirects": True},
            {"name": "deaf", "host": f"127.0.0.1:{deaf.getsockname()[1]}", "failover": ["two"]},
            {
                "name": "closed",
                "host": f"127.0.0.1:{closed.getsockname()[1]}",
                "transport": "tcp",
                "failover": ["two"],
            },
        ]
        trunks = [{**each, "srtp": "off"} for each in trunks]  # SIPp has none, and the terminal tells of every fault
        overrides = {"trunks": trunks, "fleet": {"runtime": runtime}}
        with ServerProcess(tmp_path_factory.mktemp("dial"), {"peers.yaml": PLAN}, overrides) as server:
            yield Rig(server, one, two)


@contextlib.contextmanager
def called(name: str, folder: Path, port: int, **facts: object) -> Iterator[Sipp]:
    """A scenario that is called; it must have gone as it is written."""
    with Sipp(name, folder, port=port, options=("-rtp_echo",), keys=facts) as sipp:  # type: ignore[arg-type]
        yield sipp
        assert sipp.wait() == 0, sipp.trace


def test_every_scenario_is_run() -> None:
    assert {file.stem for file in SCENARIOS.glob("uas-*.xml")} == {*NAMES, *CALLED}


def test_an_answered_call_is_followed_to_its_end(rig: Rig, tmp_path: Path) -> None:
    with called("uas-200-server-bye", tmp_path, rig.one):
        code, output = rig.dial(NUMBER, "--trunk", "one")
    assert code == 0
    lines = [re.sub(r"[0-9.]+ s|[0-9a-f-]{36}", "-", line) for line in output.splitlines()]
    assert lines == [
        f"calling {NUMBER}, call -",
        "ringing (180) after -",
        "answered after -",
        "ended: dialplan_hangup (200), - after the answer",
    ]


@pytest.mark.parametrize(
    ("name", "reason", "status"),
    [
        ("uas-404-not-found", "carrier_failed", 404),
        ("uas-407-no-credentials", "declined", 407),
        ("uas-480-unavailable", "no_answer", 480),
        ("uas-486-busy", "busy", 486),
        ("uas-603-declined", "declined", 603),
    ],
)
def test_a_refusal_is_the_last_word(rig: Rig, tmp_path: Path, name: str, reason: str, status: int) -> None:
    with called(name, tmp_path, rig.one):
        code, output = rig.dial(NUMBER, "--trunk", "one")
    assert code == 1
    assert f"ended: {reason} ({status})" in output
    assert "next" not in output


@pytest.mark.parametrize("name", ["uas-180-cancelled", "uas-183-for-ever-cancelled", "uas-200-after-cancel-bye"])
def test_nobody_answers_in_time(rig: Rig, tmp_path: Path, name: str) -> None:
    with called(name, tmp_path, rig.one):
        code, output = rig.dial(NUMBER, "--trunk", "one", "--ring-s", "1")
    assert code == 1
    assert "ended: no_answer (408)" in output
    assert "next" not in output


@pytest.mark.parametrize("name", ["uas-503-unavailable", "uas-408-timeout"])
def test_the_next_trunk_carries_what_the_first_cannot(rig: Rig, tmp_path: Path, name: str) -> None:
    with called(name, tmp_path, rig.one), called("uas-200-server-bye", tmp_path, rig.two):
        code, output = rig.dial(NUMBER)
    assert code == 0
    assert re.search(rf"fault: trunk one: {name[4:7]} .*; the next one is tried", output)
    record = rig.record(output)
    assert (record.reason, record.answered) == ("dialplan_hangup", True)
    assert record.sip_call_id != ""


@pytest.mark.parametrize(("trunk", "says"), [("closed", "fault: trunk closed: "), ("deaf", "fault: trunk deaf: 408 ")])
def test_a_trunk_that_is_not_there_is_passed_over(rig: Rig, tmp_path: Path, trunk: str, says: str) -> None:
    with called("uas-200-server-bye", tmp_path, rig.two):
        code, output = rig.dial(NUMBER, "--trunk", trunk)
    assert code == 0
    assert says in output


def test_the_last_trunk_fails_too(rig: Rig, tmp_path: Path) -> None:
    with called("uas-503-unavailable", tmp_path, rig.one), called("uas-486-busy", tmp_path, rig.two):
        code, output = rig.dial(NUMBER)
    assert code == 1
    assert "ended: busy (486)" in output


def test_a_reliable_provisional_answer_is_acknowledged(rig: Rig, tmp_path: Path) -> None:
    with called("uas-200-prack", tmp_path, rig.one):
        code, output = rig.dial(NUMBER, "--trunk", "one")
    assert code == 0
    assert "ringing (180)" in output


def test_a_session_interval_that_is_too_small_is_asked_for_again(rig: Rig, tmp_path: Path) -> None:
    with called("uas-422-retried", tmp_path, rig.one):
        code, _ = rig.dial(NUMBER, "--trunk", "one")
    assert code == 0


def test_credentials_that_are_not_liked_are_sent_once(rig: Rig, tmp_path: Path) -> None:
    with called("uas-401-wrong-credentials", tmp_path, rig.one) as sipp:
        code, output = rig.dial(NUMBER, "--trunk", "digest")
    assert code == 1
    assert "ended: declined (401)" in output
    assert len(re.findall(r"^INVITE ", sipp.trace, re.M)) == 2


def test_it_answers_and_dies(rig: Rig, tmp_path: Path) -> None:
    with called("uas-200-dies", tmp_path, rig.one):
        code, output = rig.dial(NUMBER, "--trunk", "one", "--flow", "long")
    assert code == 0
    assert "ended: callee_hangup (200)" in output


def test_a_redirect_is_the_last_word(rig: Rig, tmp_path: Path) -> None:
    with called("uas-302-moved", tmp_path, rig.one, moved_to=rig.two):
        code, output = rig.dial(NUMBER, "--trunk", "one")
    assert code == 1
    assert "ended: carrier_failed (302)" in output


def test_a_redirect_is_followed_where_the_trunk_says_so(rig: Rig, tmp_path: Path) -> None:
    with (
        called("uas-302-moved", tmp_path, rig.one, moved_to=rig.two),
        called("uas-200-server-bye", tmp_path, rig.two),
    ):
        code, output = rig.dial(NUMBER, "--trunk", "moving")
    assert code == 0
    assert "ended: dialplan_hangup (200)" in output


# --- the command ------------------------------------------------------------------------------------------------------


def test_an_address_is_called_without_a_trunk(rig: Rig, tmp_path: Path) -> None:
    with called("uas-200-server-bye", tmp_path, rig.one) as sipp:
        options = ("--from", "4711", "--display", "Acme", "--header", "X-Case=7=8", "--header", "Subject=no")
        code, output = rig.dial(f"sip:200@127.0.0.1:{rig.one}", *options)
    assert code == 0
    assert re.search(r'^From: "Acme" <sip:4711@127.0.0.1', sipp.trace, re.M)
    assert re.search(r"^X-Case: 7=8\r?$", sipp.trace, re.M)
    assert "Subject" not in sipp.trace
    assert rig.record(output).answered


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("+999",), "number"),
        ((NUMBER, "--trunk", "three"), "no trunk is called three"),
        ((NUMBER, "--tenant", "zeta"), "no dialplan is for the tenant 'zeta'"),
        ((NUMBER, "--flow", "zeta"), "has no flow 'zeta'; there are long, short"),
        (("sip:x@127.0.0.1:5060?Subject=y",), "not allowed by `targets`"),
        (("sip:x@192.0.2.1", "--flow", "long"), "not allowed by `targets`"),
        ((NUMBER, "--ring-s", "0"), "ring_s"),
        ((NUMBER, "--from", "1\n2"), "from_user"),
    ],
)
def test_what_cannot_begin_is_said_at_once(rig: Rig, words: tuple[str, ...], says: str) -> None:
    before = len(records(rig.server.database))
    with pytest.raises(SipServerError, match=says):
        rig.dial(*words)
    assert len(records(rig.server.database)) == before


def test_a_header_that_is_none(rig: Rig) -> None:
    code, output = rig.dial(NUMBER, "--header", "X-Case")
    assert code == 2
    assert "NAME=VALUE" in output


def test_without_a_server_it_says_how_to_start_one(tmp_path: Path) -> None:
    file = tmp_path / "sipserver.yaml"
    file.write_text("{}")
    command = [sys.executable, "-m", "sipserver", "dial", NUMBER, "--config", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert re.fullmatch(
        r"error: no server answers at .*; does `sipserver run` run with these settings\?\n", done.stderr
    )


def test_ctrl_c_hangs_up(rig: Rig, tmp_path: Path) -> None:
    with called("uas-200-server-bye", tmp_path, rig.one):
        words = ["dial", NUMBER, "--trunk", "one", "--flow", "long", "--config", str(rig.server.settings_file)]
        with subprocess.Popen(
            [sys.executable, "-m", "sipserver", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as command:
            assert command.stdout is not None
            output = ""
            while "answered" not in output:
                line = command.stdout.readline()
                assert line, output
                output += line
            command.send_signal(signal.SIGINT)
            output += command.stdout.read()
            assert command.wait(30) == 0  # it was answered
    assert "ended: operator_hangup (200): sipserver dial" in output


# --- a fleet ----------------------------------------------------------------------------------------------------------


def test_a_cell_of_a_fleet_places_the_call(tmp_path: Path) -> None:
    port = free_range(8)[0]
    trunks = {"trunks": [{"name": "one", "host": f"127.0.0.1:{port}"}]}
    with FleetProcess(tmp_path / "fleet", {"peers.yaml": PLAN}, trunks, calls=4) as fleet:
        with called("uas-200-server-bye", tmp_path, port):
            code, output = dial(fleet.settings_file, NUMBER)
        assert code == 0
        assert "ended: dialplan_hangup (200)" in output
        with called("uas-486-busy", tmp_path, port):
            code, output = dial(fleet.settings_file, NUMBER)
        assert code == 1
        assert "ended: busy (486)" in output
        with pytest.raises(SipServerError, match="there are peers"):
            dial(fleet.settings_file, NUMBER, "--tenant", "zeta")
