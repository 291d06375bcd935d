"""The units of a fleet: what they promise an operator, and how well they are shut in."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from sipserver.edge.adopted import Adopted
from sipserver.edge.edge import Edge
from sipserver.edge.rtpengine import Rtpengine
from sipserver.settings import Settings, load
from tests.harness.server import free_port, free_range

FOLDER = Path(__file__).parents[2] / "systemd"
FLEET = ("sipserver-edge", "sipserver-rtpengine", "sipserver-fleet")
MOST_EXPOSED = 2.0

Directives = dict[str, dict[str, list[str]]]


def directives(name: str) -> Directives:
    """Section -> directive -> values in order."""
    found: Directives = {}
    section = ""
    for line in (FOLDER / name).read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line.strip() and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(section, {}).setdefault(key, []).append(value)
    return found


def service(name: str) -> dict[str, list[str]]:
    return directives(f"{name}.service")["Service"]


# --- shut in ----------------------------------------------------------------------------------------------------------

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


@needs_systemd
@pytest.mark.parametrize("name", [*FLEET, "sipserver"])
def test_systemd_finds_little_exposed(name: str) -> None:
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(FOLDER / f"{name}.service")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", result.stdout)
    assert found is not None, result.stderr
    assert float(found[1]) <= MOST_EXPOSED, "\n".join(line for line in result.stdout.splitlines() if "✗" in line)


@needs_systemd
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    """Programs that are not installed here are replaced by one that is; everything else is systemd's to judge."""
    for name in FLEET:
        text = (FOLDER / f"{name}.service").read_text()
        (tmp_path / f"{name}.service").write_text(
            re.sub(
                r"^(Exec\w+=)(/opt/\S+|/usr/sbin/kamailio|/usr/bin/rtpengine)", rf"\1{sys.executable}", text, flags=re.M
            )
        )
    shutil.copy(FOLDER / "sipserver.target", tmp_path)
    command = ["systemd-analyze", "verify", "--man=no", *(str(file) for file in sorted(tmp_path.iterdir()))]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("name", FLEET)
@pytest.mark.parametrize(
    ("directive", "value"),
    [
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("PrivateTmp", "yes"),
        ("PrivateDevices", "yes"),
        ("ProtectKernelTunables", "yes"),
        ("ProtectKernelModules", "yes"),
        ("ProtectKernelLogs", "yes"),
        ("ProtectControlGroups", "yes"),
        ("RestrictNamespaces", "yes"),
        ("RestrictSUIDSGID", "yes"),
        ("LockPersonality", "yes"),
        ("UMask", "0077"),
        ("User", "sipserver"),
        ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX AF_NETLINK"),
        ("SystemCallArchitectures", "native"),
    ],
)
def test_every_unit_is_shut_in(name: str, directive: str, value: str) -> None:
    assert service(name)[directive] == [value]


@pytest.mark.parametrize("name", ["sipserver-edge", "sipserver-rtpengine"])
def test_what_faces_the_internet_sees_no_records_and_writes_no_code(name: str) -> None:
    of = service(name)
    assert of["InaccessiblePaths"] == ["-/var/lib/sipserver"]
    assert of["MemoryDenyWriteExecute"] == ["yes"]
    assert of["SystemCallFilter"] == ["@system-service", "~@privileged"]


def test_only_the_edge_may_bind_low_ports_and_nobody_may_more() -> None:
    assert [service(name)["CapabilityBoundingSet"] for name in FLEET] == [["CAP_NET_BIND_SERVICE"], [""], [""]]
    assert [service(name)["AmbientCapabilities"] for name in FLEET] == [["CAP_NET_BIND_SERVICE"], [""], [""]]


def test_engines_have_what_they_need() -> None:
    assert not {"MemoryDenyWriteExecute", "ProcSubset"} & service("sipserver-fleet").keys()


# --- lives ------------------------------------------------------------------------------------------------------------


def test_the_fleet_drains_when_stopped_and_its_cells_outlive_a_dead_supervisor() -> None:
    of = service("sipserver-fleet")
    assert (of["Type"], of["NotifyAccess"]) == (["notify"], ["main"])
    assert of["KillSignal"] == ["SIGTERM"]
    assert of["KillMode"] == ["process"]
    assert float(of["TimeoutStopSec"][0]) > Settings().calls.drain_s
    assert of["Restart"] == ["always"]
    assert of["RuntimeDirectoryPreserve"] == ["yes"]
    assert of["RemoveIPC"] == ["no"]
    assert "DynamicUser" not in of
    assert of["OOMPolicy"] == ["continue"]
    assert int(of["WatchdogSec"][0]) > 0
    assert of["ExecReload"] == ["/bin/kill -HUP $MAINPID"]


def test_a_reload_of_the_edge_checks_before_it_restarts() -> None:
    of = service("sipserver-edge")
    check, restart = of["ExecReload"]
    assert " edge check " in check
    assert restart == "/bin/kill -TERM $MAINPID"
    assert of["Restart"] == ["always"]
    assert [line.split()[1:3] for line in of["ExecStartPre"][:2]] == [["edge", "check"], ["edge", "render"]]


def test_edge_and_supervisor_share_the_folder_in_which_they_talk() -> None:
    edge, relay, fleet = (service(name) for name in FLEET)
    assert edge["RuntimeDirectory"] == relay["RuntimeDirectory"] == ["sipserver-edge"]
    assert "sipserver-edge" in fleet["RuntimeDirectory"][0].split()
    assert "Environment" not in fleet
    assert "-f /run/sipserver-edge/kamailio.cfg" in edge["ExecStart"][0]
    assert "--config-file=/run/sipserver-edge/rtpengine.conf" in relay["ExecStart"][0]


def test_the_target_holds_them_and_their_order_is_that_of_a_start() -> None:
    assert directives("sipserver.target")["Install"] == {"WantedBy": ["multi-user.target"]}
    for name in FLEET:
        unit = directives(f"{name}.service")
        assert unit["Unit"]["PartOf"] == ["sipserver.target"]
        assert unit["Install"] == {"WantedBy": ["sipserver.target"]}
    assert "sipserver-rtpengine.service" in directives("sipserver-edge.service")["Unit"]["After"][0]
    assert "sipserver-edge.service" in directives("sipserver-fleet.service")["Unit"]["After"][0]


def test_the_user_is_one_that_stays() -> None:
    assert re.search(r"^u sipserver - ", (FOLDER / "sipserver.sysusers").read_text(), re.M)


# --- their commands ---------------------------------------------------------------------------------------------------


def command(line: str, folder: Path, pid: int = 0) -> list[str]:
    """A command of a unit with its variables, with the places of this test for those of an installed server."""
    text = line.replace("/opt/sipserver/.venv/bin/sipserver", f"{sys.executable} -m sipserver")
    text = text.replace("/run/sipserver-edge", str(folder)).replace("/etc/sipserver", str(folder))
    return shlex.split(text.replace("${MEMORY_MB}", "64").replace("$MAINPID", str(pid)))


async def test_units_start_what_the_supervisor_adopts(tmp_path: Path, free_sip_port: Callable[[], int]) -> None:
    edge = {
        "run_by": "systemd",
        "folder": str(tmp_path),
        "listen": [{"transport": "udp", "host": "127.0.0.1", "port": free_sip_port()}],
        "inside_port": free_sip_port(),
        "open": True,
        "rtpengine": {"control": f"127.0.0.1:{free_port()}", "ports": list(free_range(40))},
    }
    file = tmp_path / "sipserver.yaml"
    file.write_text(yaml.safe_dump({"mode": "fleet", "bus": {"url": "redis://127.0.0.1:1/0"}, "edge": edge}))
    loaded = load(file)
    assert loaded.edge.rtpengine is not None
    servers = {
        "sipserver-rtpengine": Adopted(Rtpengine(loaded.edge.rtpengine, tmp_path), "sipserver-rtpengine.service"),
        "sipserver-edge": Adopted(Edge(loaded.edge, (), loaded.sip.codecs), "sipserver-edge.service"),
    }
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        with (tmp_path / "units.log").open("wb") as log:
            for name, server in servers.items():
                for before in service(name)["ExecStartPre"]:
                    run(command(before, tmp_path))
                running[name] = subprocess.Popen(  # noqa: ASYNC220  it is waited for below
                    command(service(name)["ExecStart"][0], tmp_path), stdout=log, stderr=log
                )
                await server.start()
        for reload in service("sipserver-edge")["ExecReload"]:
            run(command(reload, tmp_path, running["sipserver-edge"].pid))
        assert running["sipserver-edge"].wait(10) == 0
        assert running["sipserver-rtpengine"].poll() is None
    finally:
        for server in servers.values():
            await server.stop()
        for process in running.values():
            process.terminate()
            process.wait(10)


def run(words: list[str]) -> None:
    result = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, env={**os.environ})
    assert result.returncode == 0, f"{words}: {result.stdout}{result.stderr}"
