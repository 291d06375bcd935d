"""What a line says about where it comes from, and that nobody waits for a log that cannot be written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sipserver.log import Output


def run(code: str, stderr: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=stderr)


def test_every_line_of_a_fleet_says_which_process_spoke() -> None:
    code = "from sipserver import log\nlog.setup(process='cell-03', node='m1')\nlog.logger('sip').info('hello')"
    process = run(code, subprocess.PIPE)
    _, lines = process.communicate(timeout=30)
    line = json.loads(lines)
    assert (line["process"], line["node"], line["pid"]) == ("cell-03", "m1", process.pid)
    assert (line["room"], line["event"], line["level"]) == ("sip", "hello", "info")


def test_a_single_server_has_no_such_fields() -> None:
    process = run("from sipserver import log\nlog.setup()\nlog.logger('sip').info('hello')", subprocess.PIPE)
    _, lines = process.communicate(timeout=30)
    assert not json.loads(lines).keys() & {"process", "node", "pid"}


_EARLY = """
import logging
from sipserver import log
early = log.logger('api')
log.setup('info')
def fail(text):
    try:
        raise RuntimeError('broken')
    except RuntimeError:
        early.exception('failed', token=text)
        logging.getLogger('a.library').exception('failed')
early.debug('not told')
fail('a whole key')
log.setup(process='cell-03', node='m1')
early.info('after a fork', heard='what was said')
logging.getLogger('a.library').warning('after a fork')
"""


def test_a_logger_made_before_the_setup_obeys_it_and_so_do_libraries() -> None:
    process = run(_EARLY, subprocess.PIPE)
    _, lines = process.communicate(timeout=30)
    ours, of_a_library, forked, forked_library = [json.loads(line) for line in lines.splitlines()]
    assert b"a whole key" not in lines
    for line in (ours, of_a_library):
        assert (line["level"], line["event"]) == ("error", "failed")
        assert line["exception"].endswith("RuntimeError: broken")
        assert "timestamp" in line
    assert (ours["room"], ours["token"], of_a_library["logger"]) == ("api", "[secret]", "a.library")
    assert (forked["process"], forked["heard"]) == ("cell-03", "[13 characters]")
    assert (forked_library["process"], forked_library["level"]) == ("cell-03", "warning")


def test_lines_of_the_background_are_written_in_order_before_it_ends(capfd: pytest.CaptureFixture[str]) -> None:
    output = Output()
    output.start()
    for number in range(1000):
        output.write(f"line {number}\n")
    output.stop()
    assert capfd.readouterr().err.splitlines() == [f"line {number}" for number in range(1000)]


def test_lines_after_the_background_go_straight_out(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    output.start()
    output.stop()
    output.write("late\n")
    assert capsys.readouterr().err == "late\n"


_FLOOD = """
from sipserver import log
log.setup()
with log.background():
    for number in range(12_000):
        log.logger('test').info('x' * 100, number=number)
    print('not blocked', flush=True)
    input()
"""


def test_a_pipe_that_nobody_reads_blocks_nobody_and_the_loss_is_counted(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", _FLOOD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=writer, text=True
    )
    os.close(writer)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "not blocked\n"  # while the pipe (64 KiB) is full
    with open(reader) as pipe:
        process.stdin.write("\n")
        process.stdin.flush()
        lines = [json.loads(line) for line in pipe]
    process.communicate(timeout=30)
    assert process.returncode == 0
    told = [line["lines"] for line in lines if line["event"].startswith("lines dropped")]
    numbers = [line["number"] for line in lines if "number" in line]
    assert numbers == sorted(numbers)
    assert sum(told) == 12_000 - len(numbers) > 0


def test_a_process_ends_although_its_log_is_stuck() -> None:
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", _FLOOD.replace("input()", "")], stdout=subprocess.PIPE, stderr=writer
    )
    os.close(writer)
    try:
        process.communicate(timeout=30)
        assert process.returncode == 0
    finally:
        os.close(reader)
