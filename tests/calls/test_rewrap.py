"""Keys changed under files: nothing of the sound moves, and whenever it is broken off the file stays readable."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sipserver.calls import rewrap, sealing, sound_files
from sipserver.calls.keyring import Keyring
from sipserver.calls.sealed_file import SealedFile
from sipserver.calls.sealed_writer import SealedWriter
from sipserver.calls.sealing import BODY_AT, HEADER_BYTES
from sipserver.errors import Damaged, KeyMissing
from tests.calls.test_sealed_file import noise, wav_of
from tests.fakes.until import wait_until

OLD, NEW = bytes(range(32)), bytes(range(1, 33))
BEFORE, BOTH, AFTER = Keyring({"old": OLD}), Keyring({"new": NEW, "old": OLD}), Keyring({"new": NEW})
PAYLOAD = noise(50_000)


def write(path: Path, ring: Keyring = BEFORE) -> Path:
    writer = SealedWriter(path, 1, "acme", ring)
    writer.write(PAYLOAD)
    writer.close()
    return path


def read(path: Path, ring: Keyring) -> bytes:
    with sound_files.open_sound(path, ring, tenant="acme") as sound:
        return sound.read()


def test_the_new_key_opens_and_the_old_one_no_longer(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav.enc")
    before = path.read_bytes()
    with SealedFile(path, BEFORE) as sound:
        content_id = sound.id
    assert not rewrap.look(path, BOTH).current
    assert rewrap.rewrap(path, BOTH)
    assert rewrap.look(path, BOTH).current
    assert read(path, AFTER) == wav_of(PAYLOAD)
    with pytest.raises(KeyMissing):
        read(path, BEFORE)
    assert path.read_bytes()[BODY_AT:] == before[BODY_AT:]
    assert not any(path.read_bytes()[:HEADER_BYTES])
    with SealedFile(path, AFTER) as sound:
        assert (sound.id, sound.key_id) == (content_id, "new")


def test_again_it_does_nothing_and_back_it_goes_the_same_way(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav.enc")
    assert rewrap.rewrap(path, BOTH)
    changed = path.read_bytes()
    assert not rewrap.rewrap(path, BOTH)
    assert path.read_bytes() == changed
    assert rewrap.rewrap(path, Keyring({"old": OLD, "new": NEW}))
    assert read(path, BEFORE) == wav_of(PAYLOAD)


def test_without_its_key_a_file_stays_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav.enc")
    before = path.read_bytes()
    for tried in (rewrap.rewrap, rewrap.look):
        with pytest.raises(KeyMissing, match="needs the key old"):
            tried(path, AFTER)
    (tmp_path / "b.wav.enc").write_bytes(b"other")
    with pytest.raises(Damaged):
        rewrap.rewrap(tmp_path / "b.wav.enc", BOTH)
    assert path.read_bytes() == before


def test_a_file_that_is_recorded_waits(tmp_path: Path) -> None:
    writer = SealedWriter(tmp_path / "a.wav.enc", 1, "acme", BEFORE)
    writer.write(PAYLOAD)
    with pytest.raises(BlockingIOError):
        rewrap.rewrap(tmp_path / "a.wav.enc", BOTH)
    writer.close()
    assert rewrap.rewrap(tmp_path / "a.wav.enc", BOTH)


def states(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Of the file after each of the writes of a rewrap, and in the middle of each."""
    seen: list[bytes] = []
    pwrite = os.pwrite

    def watched(file: int, block: bytes, at: int) -> int:
        for part in (1, 60, 120, 512, len(block)):
            pwrite(file, block[:part], at)
            seen.append(path.read_bytes())
        return len(block)

    monkeypatch.setattr(os, "pwrite", watched)
    assert rewrap.rewrap(path, BOTH)
    monkeypatch.undo()
    return seen


def test_whenever_it_is_broken_off_the_file_is_readable_and_it_can_be_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.wav.enc")
    seen = states(path, monkeypatch)
    assert len(seen) == 10
    for state in seen:
        path.write_bytes(state)
        assert read(path, BOTH) == wav_of(PAYLOAD)
        rewrap.rewrap(path, BOTH)
        assert read(path, AFTER) == wav_of(PAYLOAD)
        assert len(sealing.headers(path.read_bytes()[:BODY_AT])) == 1, "the old wrapping is gone"


KILLED = """
import sys
from pathlib import Path
from sipserver.calls import rewrap
from sipserver.calls.keyring import Keyring
keys = {"old": bytes(range(32)), "new": bytes(range(1, 33))}
rings = [Keyring({name: keys[name] for name in order}) for order in (("new", "old"), ("old", "new"))]
print("begun", flush=True)
while True:
    for ring in rings:
        for path in rewrap.files(Path(sys.argv[1])):
            rewrap.rewrap(path, ring)
"""


def test_killed_with_9_in_the_middle_of_it_every_file_is_readable(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{number}.wav.enc") for number in range(10)]
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
            before = paths[-1].stat().st_mtime_ns
            wait_until(lambda before=before: paths[-1].stat().st_mtime_ns != before, "work")  # type: ignore[misc]
            process.send_signal(signal.SIGKILL)
        assert [read(path, BOTH) for path in paths] == [wav_of(PAYLOAD)] * len(paths)
    for path in paths:
        rewrap.rewrap(path, BOTH)
    assert [read(path, AFTER) for path in paths] == [wav_of(PAYLOAD)] * len(paths)


def test_files_are_those_with_the_name_and_no_links(tmp_path: Path) -> None:
    path = write(tmp_path / "acme" / "2026-11-28" / "a.wav.enc")
    (tmp_path / "acme" / "b.wav").write_bytes(wav_of(b""))
    (tmp_path / "c.wav.enc").symlink_to(path)
    assert list(rewrap.files(tmp_path)) == [path]
