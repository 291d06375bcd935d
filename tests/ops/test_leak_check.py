"""The leak rule itself: a test that leaks fails, one that cleans up passes. Each case is a pytest run of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"

LEAKS = {
    "leaked tasks": "async def test_it():\n    global task\n    task = asyncio.create_task(asyncio.sleep(60))\n",
    "leaked thread forgotten": (
        "def test_it():\n    threading.Thread(target=threading.Event().wait, name='forgotten', daemon=True).start()\n"
    ),
    "leaked process": (
        "def test_it():\n    global child\n"
        "    child = subprocess.Popen(['cat'], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)\n"
    ),
    "leaked port tcp": "def test_it():\n    global held\n    held = socket.create_server(('127.0.0.1', 0))\n",
    "leaked port udp": (
        "def test_it():\n    global held\n    held = socket.socket(type=socket.SOCK_DGRAM)\n"
        "    held.bind(('127.0.0.1', 0))\n"
    ),
}
CLEAN = """
@pytest.fixture(scope="module")
def server():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener

async def test_tasks_threads_and_children_that_end(server):
    async with asyncio.timeout(5):
        await asyncio.to_thread(time.sleep, 0.01)
        process = await asyncio.create_subprocess_exec("true")
        await process.wait()
        listener = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        listener.close()
        await listener.wait_closed()

def test_free_ports(free_port, free_udp_port, free_sip_port):
    assert len({free_sip_port(), free_sip_port()}) == 2
    assert free_port and free_udp_port
"""
OPTIONS = ("-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function")
HEADER = "import asyncio, socket, subprocess, threading, time\nimport pytest\n"


def outcome(folder: Path, body: str, grace_s: float) -> tuple[int, str]:
    """Run one test file beside a copy of our conftest.py, with this grace."""
    text = CONFTEST.read_text().replace("GRACE_S = 3.0", f"GRACE_S = {grace_s}")
    (folder / "conftest.py").write_text(text)
    (folder / "test_case.py").write_text(HEADER + body)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *OPTIONS, "-c", "/dev/null"]
    result = subprocess.run(
        [*command, f"--rootdir={folder}", str(folder)], capture_output=True, text=True, check=False, timeout=60
    )
    return result.returncode, result.stdout


@pytest.mark.parametrize("leak", LEAKS)
def test_leak_fails(tmp_path: Path, leak: str) -> None:
    code, printed = outcome(tmp_path, LEAKS[leak], 0.2)
    assert code == 1
    assert leak in printed


def test_clean_tests_pass(tmp_path: Path) -> None:
    code, printed = outcome(tmp_path, CLEAN, 3.0)
    assert code == 0, printed
