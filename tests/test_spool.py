"""Nothing that was appended is lost, and the order stays, whatever happens in between."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sipserver import spool
from sipserver.spool import Spool

OWNER = "run-1"


def drain(kept: Spool, most: int = 500) -> list[bytes]:
    lines: list[bytes] = []
    while (batch := kept.read(most)).lines:
        lines += batch.lines
        kept.done(batch)
    return lines


def test_nothing_is_made_before_the_first_line_and_nothing_stays_after_the_last(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    kept = Spool(folder, OWNER)
    assert kept.depth == 0
    assert kept.read().lines == ()
    assert not folder.exists()
    kept.append([b"one", b"", b"three"])
    assert spool.owners(folder) == (OWNER,)
    assert kept.depth == 3
    assert drain(kept) == [b"one", b"", b"three"]
    assert kept.depth == 0
    assert spool.owners(folder) == ()
    kept.append([b"four"])
    assert drain(kept) == [b"four"]
    kept.close()


def test_what_is_not_done_comes_again(tmp_path: Path) -> None:
    kept = Spool(tmp_path, OWNER)
    kept.append([b"one", b"two"])
    assert kept.read(1).lines == kept.read(1).lines == (b"one",)
    batch = kept.read(1)
    kept.done(batch)
    kept.done(batch)
    assert kept.depth == 1
    assert kept.read().lines == (b"two",)
    kept.close()


def test_segments_are_deleted_when_they_are_read(tmp_path: Path) -> None:
    kept = Spool(tmp_path, OWNER, segment_bytes=10)
    lines = [b"%09d" % number for number in range(5)]
    for line in lines:
        kept.append([line])
    assert len(list(kept.folder.glob("*.jsonl"))) == 5
    for _ in range(3):
        kept.done(kept.read(1))
    assert len(list(kept.folder.glob("*.jsonl"))) == 3
    again = Spool(tmp_path, OWNER)
    assert again.depth == 2
    assert drain(again) == lines[3:]
    kept.close()


def test_a_line_feed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="line feed"):
        Spool(tmp_path, OWNER).append([b"a\nb"])


def test_a_torn_line_is_left_out(tmp_path: Path) -> None:
    kept = Spool(tmp_path, OWNER)
    kept.append([b"whole"])
    (segment,) = kept.folder.glob("*.jsonl")
    with segment.open("ab") as file:
        file.write(b"to")
    kept.close()
    adopted = Spool(tmp_path, OWNER)
    adopted.append([b"next"])
    assert adopted.depth == 2
    assert drain(adopted) == [b"whole", b"next"]
    adopted.close()


def test_a_lost_position_only_repeats(tmp_path: Path) -> None:
    kept = Spool(tmp_path, OWNER)
    kept.append([b"one", b"two"])
    kept.done(kept.read(1))
    (kept.folder / "position").write_bytes(b"")
    kept.close()
    assert drain(Spool(tmp_path, OWNER)) == [b"one", b"two"]


@contextmanager
def small_disk() -> Iterator[None]:
    """No file of this process grows beyond 4 KiB: writes fail half way, as on a full disk. Not around a whole test: its
    runner may write its report to a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_told_and_leaves_nothing_half(tmp_path: Path) -> None:
    kept = Spool(tmp_path, OWNER)
    with small_disk():
        kept.append([b"small"])
        with pytest.raises(OSError, match="too large"):
            kept.append([b"x" * 3000, b"y" * 3000])
        for _ in range(3):
            with pytest.raises(OSError, match="too large"):
                kept.append([b"z" * 5000])
    assert kept.depth == 1
    assert len(list(kept.folder.glob("*.jsonl"))) == 1
    kept.append([b"after"])
    assert kept.read().lines == (b"small", b"after")
    kept.close()
    assert drain(Spool(tmp_path, OWNER)) == [b"small", b"after"]


def test_what_a_killed_process_appended_is_adopted(tmp_path: Path) -> None:
    source = (
        "import sys, pathlib; from sipserver.spool import Spool\n"
        "kept = Spool(pathlib.Path(sys.argv[1]), 'run-1', segment_bytes=2000)\n"
        "for number in range(10_000_000):\n"
        "    kept.append([b'%d' % number]); print(number, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", source, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(300):
            last = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        for line in process.stdout:
            last = int(line)
    adopted = drain(Spool(tmp_path, OWNER))
    assert adopted == [b"%d" % number for number in range(len(adopted))]
    assert len(adopted) in (last + 1, last + 2)  # killed between the append and the word about it


class AnyCourse(RuleBasedStateMachine):
    """Appends, reads, acknowledgements, crashes in any order. A crash leaves a torn line and may lose the position."""

    @initialize()
    def begin(self) -> None:
        self.home = tempfile.TemporaryDirectory()
        self.kept = self.open()
        self.appended: list[bytes] = []
        self.done = 0

    def open(self) -> Spool:
        return Spool(Path(self.home.name), OWNER, segment_bytes=40)

    @rule(count=st.integers(1, 8))
    def append(self, count: int) -> None:
        lines = [b"line %d" % (len(self.appended) + number) for number in range(count)]
        self.kept.append(lines)
        self.appended += lines

    @rule(most=st.integers(1, 12), acknowledge=st.booleans())
    def read(self, most: int, acknowledge: bool) -> None:
        batch = self.kept.read(most)
        assert list(batch.lines) == self.appended[self.done : self.done + most]
        if acknowledge:
            self.kept.done(batch)
            self.done += len(batch.lines)

    @rule(torn=st.binary(max_size=9).filter(lambda torn: b"\n" not in torn), forgets=st.booleans())
    def crash(self, torn: bytes, forgets: bool) -> None:
        self.kept.close()
        segments = sorted(self.kept.folder.glob("*.jsonl"))
        if segments:
            with segments[-1].open("ab") as file:
                file.write(torn)
        if forgets and (position := self.kept.folder / "position").exists():
            position.unlink()
        self.kept = self.open()
        again = self.kept.read(10_000).lines
        begins = len(self.appended) - len(again)
        assert begins <= self.done
        assert list(again) == self.appended[begins:]
        self.done = begins

    @invariant()
    def depth_is_true(self) -> None:
        assert self.kept.depth == len(self.appended) - self.done

    def teardown(self) -> None:
        if hasattr(self, "kept"):
            assert drain(self.kept, 3) == self.appended[self.done :]
            assert spool.owners(Path(self.home.name)) == ()
            self.kept.close()
            self.home.cleanup()


TestAnyCourse = AnyCourse.TestCase
TestAnyCourse.settings = settings(max_examples=60, stateful_step_count=25)
