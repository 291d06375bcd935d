"""The files around the code: the systemd unit, the rooms' rules, the package list, the scripts, the pins."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sipserver.settings import Settings
from sipserver.speech.catalogue import CATALOGUE

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "systemd/sipserver.service"
MAPPED = {"codecs", "tenants", "webhooks"}


def directives() -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser(interpolation=None, strict=True, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(UNIT.read_text())
    return {section: dict(parser[section]) for section in parser.sections()}


def rooms() -> set[str]:
    """Folders that have borders; everyone may import `events`."""
    folders = {folder.parent.name for folder in (ROOT / "sipserver").glob("*/__init__.py")}
    return folders - {"cli", "events", "fleet"} | MAPPED


# --- the systemd unit -------------------------------------------------------------------------------------------------


def test_unit_notifies_is_watched_drains_and_reloads() -> None:
    service = directives()["Service"]
    assert (service["Type"], service["NotifyAccess"]) == ("notify", "main")
    assert int(service["WatchdogSec"]) > 0
    assert service["KillSignal"] == "SIGTERM"
    assert service["ExecReload"].startswith("/bin/kill -HUP")
    assert float(service["TimeoutStopSec"]) > Settings().calls.drain_s


@pytest.mark.parametrize(
    ("directive", "value"),
    [
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("PrivateTmp", "yes"),
        ("CapabilityBoundingSet", ""),
        ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX AF_NETLINK"),
        ("StateDirectory", "sipserver"),
        ("DynamicUser", "yes"),
    ],
)
def test_unit_is_hardened(directive: str, value: str) -> None:
    assert directives()["Service"][directive] == value


def test_unit_leaves_engines_what_they_need() -> None:
    assert not {"MemoryDenyWriteExecute", "ProcSubset"} & directives()["Service"].keys()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    """The program that the unit starts is replaced by one that exists here; everything else is systemd's to judge."""
    unit = tmp_path / "sipserver.service"
    unit.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", UNIT.read_text(), flags=re.MULTILINE))
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")


# --- rooms and packages -----------------------------------------------------------------------------------------------


def test_every_room_has_its_rule() -> None:
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter")
    for room in rooms():
        contract = contracts[f"importlinter:contract:{room}"]
        assert contract["source_modules"].split() == [f"sipserver.{room}"]
        others = {name.removeprefix("sipserver.") for name in contract["forbidden_modules"].split()}
        allowed = contract["name"].removeprefix(f"{room} may import ").replace("no other room", "")
        assert "fleet" in others, "the fleet is built of rooms"
        assert others - {"fleet"} | set(allowed.split(", ")) - {""} | {room} == rooms(), (
            f"{room}: every other room is one or the other"
        )


def test_libraries_are_kept_to_their_rooms() -> None:
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter")
    for contract, owners in (
        ("pjsua2", {"sip"}),
        ("sqlalchemy", {"store"}),
        ("redis", {"bus"}),
        ("engines", {"speech", "agent"}),
    ):
        sources = contracts[f"importlinter:contract:{contract}"]["source_modules"].split()
        assert {f"sipserver.{room}" for room in rooms() - owners} <= set(sources)


def test_setup_cfg_names_every_package() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    named = set(setup["options"]["packages"].split())
    there = {".".join(init.parent.relative_to(ROOT).parts) for init in (ROOT / "sipserver").rglob("__init__.py")} | {
        f"sipserver.{name}" for name in (*MAPPED, "edge.templates")
    }
    assert named == there


def test_every_requirement_is_pinned() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    wanted = f"{setup['options']['install_requires']}\n{setup['options.extras_require']['dev']}"
    pins = (ROOT / "requirements/constraints.txt").read_text()
    pinned = {normal(line.partition("==")[0]) for line in pins.splitlines() if "==" in line}
    names = {normal(re.split(r"[\[><=!~;]", line)[0]) for line in wanted.split("\n") if line.strip()}
    assert names - pinned == set()
    assert "file:" not in pins
    assert "://" not in pins


def test_models_are_pinned_with_hashes_and_nothing_else_pins_them() -> None:
    lines = [line for line in (ROOT / "requirements/models.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+ --hash=sha256:[0-9a-f]{64}", line) for line in lines)
    packages = {package.requirement for model in CATALOGUE.values() for package in model.packages}
    assert packages == set(lines)
    constraints = (ROOT / "requirements/constraints.txt").read_text()
    assert not [line for line in lines if f"\n{line.partition('==')[0]}==" in constraints]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


# --- scripts and workflow ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script", ["tools/setup", "tools/typed_tree", "tools/demo", "tools/pins", "tools/test", ".ci/run"]
)
def test_script_is_executable_and_parses(script: str) -> None:
    file = ROOT / script
    assert file.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(file)], check=True, timeout=10)


def test_setup_refuses_an_unknown_profile() -> None:
    result = subprocess.run(
        [str(ROOT / "tools/setup"), "bogus"], capture_output=True, text=True, check=False, timeout=10
    )
    assert (result.returncode, result.stderr) == (2, "usage: tools/setup runtime|fleet|test\n")


@pytest.mark.parametrize("target", ["setup", "demo", "call", "test", "check", "bench", "models", "clean", "help"])
def test_make_knows_the_target(target: str) -> None:
    result = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", target],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert result.returncode == 0, result.stderr


def test_workflow_runs_what_a_laptop_runs() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    for job in workflow["jobs"].values():
        assert job["steps"][-1] == {"run": ".ci/run"}
    assert "make test" in (ROOT / ".ci/run").read_text()
