"""What the start of a server imports, what it does not, and what else it leaves alone meanwhile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.server import ServerProcess

UNUSED = ("redis", "aiortc", "av", "vonage_voice", "requests", "sipserver.doors")
"""What only settings with a bus, or with calls by HTTP, have a use for."""

START = """
import gc, sys, uvloop
from pathlib import Path
from sipserver import app

def look(phase, info):
    single = sys.modules.get("sipserver.single")
    if single is not None and not hasattr(single, "run"):
        print("collected while it is imported")

gc.callbacks.append(look)
uvloop.run = lambda serving: serving.close()
print(app.run(Path(sys.argv[1])), gc.isenabled(), "sipserver.fleet.supervisor" in sys.modules)
"""


def said_by(program: str, *arguments: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


@pytest.mark.parametrize("module", ["sipserver.single", "sipserver.fleet.gateway", "sipserver.fleet.cell"])
def test_what_the_settings_may_leave_out_is_not_imported(module: str) -> None:
    assert said_by(f"import sys, {module}; print(*(name for name in {UNUSED!r} if name in sys.modules))") == ""


def test_nothing_is_collected_while_the_server_is_imported(tmp_path: Path) -> None:
    assert said_by(START, str(ServerProcess(tmp_path, {}).settings_file)) == "0 True False"
