"""Encrypted recordings: what comes out is what went in, of any length; whatever else is done to a file is noticed."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import stat
import subprocess
import sys
import tempfile
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sipserver.calls import sealed_writer, sealing, sound_files, wav
from sipserver.calls.keyring import TAG_BYTES, Keyring
from sipserver.calls.sealed_file import SealedFile
from sipserver.calls.sealed_writer import SealedWriter
from sipserver.calls.sealing import BODY_AT, HEADER_BYTES
from sipserver.errors import Damaged, KeyMissing
from tests.fakes.until import wait_until

RING = Keyring({"a": bytes(range(32))})
MONO = sealing.chunk_bytes(1)
"""PCM in a chunk of one channel."""
ON_DISK = MONO + TAG_BYTES


def noise(size: int) -> bytes:
    return np.random.default_rng(size).bytes(size)


def write(path: Path, payload: bytes, channels: int = 1, *, part: int = 6400, tenant: str = "acme") -> Path:
    writer = SealedWriter(path, channels, tenant, RING)
    for begin in range(0, len(payload), part):
        writer.write(payload[begin : begin + part])
    writer.close()
    return path


def read(path: Path, *, tenant: str = "acme", unfinished: bool = False) -> bytes:
    with sound_files.open_sound(path, RING, tenant=tenant, unfinished=unfinished) as sound:
        return sound.read()


def wav_of(payload: bytes, channels: int = 1) -> bytes:
    return wav.header(channels, len(payload)) + payload


around = st.integers(0, 3).flatmap(
    lambda chunks: st.integers(-3, 3).map(lambda by: max(0, 2 * (chunks * MONO // 2 + by)))
)


@given(size=around, part=st.integers(1, 40_000).map(lambda half: 2 * half), channels=st.sampled_from([1, 2]))
@example(size=0, part=2, channels=1)
@example(size=MONO, part=MONO, channels=1)
@example(size=2 * MONO, part=3 * MONO, channels=2)
def test_what_was_written_is_read_whatever_its_length(size: int, part: int, channels: int) -> None:
    payload = noise(size * channels)
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "a.wav.enc", payload, channels, part=part)
        assert read(path) == wav_of(payload, channels)
        chunks = len(payload) // sealing.chunk_bytes(channels)
        assert path.stat().st_size == BODY_AT + len(payload) + (chunks + 1) * TAG_BYTES


@given(begin=st.integers(0, 3 * MONO), count=st.integers(0, 2 * MONO))
@example(begin=43, count=2)
@example(begin=44 + MONO - 1, count=2)
@example(begin=44 + 2 * MONO, count=MONO)
def test_any_part_is_that_part_of_the_whole(begin: int, count: int) -> None:
    payload = noise(2 * MONO + 500)
    whole = wav_of(payload)
    with tempfile.TemporaryDirectory() as folder, SealedFile(write(Path(folder) / "a.wav.enc", payload), RING) as raw:
        sound = io.BufferedReader(raw)
        assert raw.size == len(whole)
        sound.seek(begin)
        assert sound.read(count) == whole[begin : begin + count]
        sound.seek(-1, os.SEEK_END)
        assert sound.read() == whole[-1:]


def test_a_program_for_wav_files_reads_it(tmp_path: Path) -> None:
    payload = noise(3 * MONO)
    with sound_files.open_sound(write(tmp_path / "a.wav.enc", payload, 2), RING) as sound, wave.open(sound) as file:
        assert file.getparams()[:4] == (2, 2, 16_000, len(payload) // 4)
        file.setpos(100)
        assert file.readframes(50) == payload[400:600]


def test_the_file_is_for_its_owner_and_nothing_of_it_stands_in_the_clear(tmp_path: Path) -> None:
    payload = np.full(MONO, 1234, "<i2").tobytes()
    path = write(tmp_path / "sub" / "a.wav.enc", payload)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    content = path.read_bytes()
    assert payload[:8] not in content
    assert b"RIFF" not in content
    again = write(tmp_path / "b.wav.enc", payload).read_bytes()
    assert content[BODY_AT:] != again[BODY_AT:], "each file has a key of its own"


PAYLOAD = noise(3 * MONO + 1000)


def test_a_changed_bit_anywhere_in_the_header_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav.enc", PAYLOAD)
    used = len(path.read_bytes()[:HEADER_BYTES].rstrip(b"\0"))
    assert used > 100
    for at in range(used):
        flip(path, at)
        with pytest.raises((Damaged, KeyMissing), match=r"^a\.wav\.enc: "):
            read(path)
        flip(path, at)
    assert read(path) == wav_of(PAYLOAD)


@pytest.mark.parametrize("at", [0, MONO - 1, MONO, ON_DISK - 1, 2 * ON_DISK + 5, 3 * ON_DISK, 3 * ON_DISK + 1000, -1])
def test_a_changed_bit_of_the_sound_is_noticed(tmp_path: Path, at: int) -> None:
    path = write(tmp_path / "a.wav.enc", PAYLOAD)
    flip(path, at if at < 0 else BODY_AT + at)
    with pytest.raises(Damaged, match=r"^a\.wav\.enc: "):
        read(path)


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


def chunks_of(content: bytes) -> list[bytes]:
    return [content[at : at + ON_DISK] for at in range(BODY_AT, len(content), ON_DISK)]


@pytest.mark.parametrize(
    ("what", "order"),
    [
        ("swapped", [1, 0, 2, 3]),
        ("left out", [0, 2, 3]),
        ("repeated", [0, 1, 1, 2, 3]),
        ("cut off", [0, 1, 2]),
        ("all cut off", []),
        ("another end", [0, 3]),
        ("more behind the end", [0, 1, 2, 3, 0]),
    ],
)
def test_chunks_are_neither_moved_nor_left_out(tmp_path: Path, what: str, order: list[int]) -> None:
    path = write(tmp_path / "a.wav.enc", PAYLOAD)
    content = path.read_bytes()
    path.write_bytes(content[:BODY_AT] + b"".join(chunks_of(content)[each] for each in order))
    with pytest.raises(Damaged):
        read(path)


def test_the_end_of_another_file_does_not_fit(tmp_path: Path) -> None:
    one, other = write(tmp_path / "a.wav.enc", PAYLOAD), write(tmp_path / "b.wav.enc", PAYLOAD)
    content, foreign = one.read_bytes(), other.read_bytes()
    one.write_bytes(content[:BODY_AT] + b"".join([*chunks_of(content)[:3], chunks_of(foreign)[3]]))
    with pytest.raises(Damaged):
        read(one)
    one.write_bytes(foreign[:HEADER_BYTES] + content[HEADER_BYTES:])
    with pytest.raises(Damaged):
        read(one)


def test_another_tenant_another_key_and_another_file_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav.enc", PAYLOAD)
    with pytest.raises(Damaged, match=r"^a\.wav\.enc: it is a recording of another tenant$"):
        read(path, tenant="globex")
    with pytest.raises(KeyMissing, match=r"^a\.wav\.enc: it needs the key a, which is not there$") as missing:
        SealedFile(path, Keyring({"b": bytes(range(32))}))
    assert missing.value.key_ids == ("a",)
    (tmp_path / "b.wav.enc").write_bytes(wav_of(PAYLOAD))
    with pytest.raises(Damaged, match="no encrypted recording"):
        read(tmp_path / "b.wav.enc")


def test_a_recording_does_not_pass_for_that_of_another_call(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav.enc", PAYLOAD)
    other = path.rename(tmp_path / "b.wav.enc")
    with pytest.raises(Damaged, match=r"^b\.wav\.enc: it is another recording, a\.wav\.enc$"):
        read(other)
    with SealedFile(other, RING) as sound:
        assert (sound.tenant, sound.name) == ("acme", "a.wav.enc"), "an operator may look at it"


def test_a_plain_file_of_before_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav_of(PAYLOAD))
    assert read(tmp_path / "a.wav") == wav_of(PAYLOAD)


@pytest.mark.parametrize("keep", [0, 1, MONO // 2 - 1, MONO // 2, MONO, 3 * MONO // 2 + 100, 10 * MONO])
def test_the_end_can_be_taken_back_and_nothing_follows(tmp_path: Path, keep: int) -> None:
    writer = SealedWriter(tmp_path / "a.wav.enc", 1, "acme", RING)
    writer.write(PAYLOAD)
    writer.truncate(keep)
    with pytest.raises(OSError, match="is over"):
        writer.write(PAYLOAD)
    writer.close()
    assert read(tmp_path / "a.wav.enc") == wav_of(PAYLOAD[: 2 * keep])


@pytest.mark.parametrize("torn", [0, 1, 15, 16, 17, 4096, ON_DISK - 1])
def test_what_was_whole_when_the_writer_died_is_repaired_once(tmp_path: Path, torn: int) -> None:
    path = write(tmp_path / "a.wav.enc", PAYLOAD)
    path.write_bytes(path.read_bytes()[: BODY_AT + 2 * ON_DISK + torn])
    with pytest.raises(Damaged, match="its end is missing"):
        read(path)
    assert read(path, unfinished=True) == wav_of(PAYLOAD[: 2 * MONO])
    assert sealed_writer.repair(path, RING) == MONO
    assert read(path) == wav_of(PAYLOAD[: 2 * MONO])
    repaired = path.read_bytes()
    assert sealed_writer.repair(path, RING) == MONO
    assert path.read_bytes() == repaired


def test_repair_leaves_a_good_file_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav.enc", PAYLOAD)
    before = path.read_bytes()
    assert sound_files.repair(path, RING) == len(PAYLOAD) // 2
    assert path.read_bytes() == before


def test_chunks_that_a_dead_machine_left_unwritten_go(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav.enc", PAYLOAD)
    path.write_bytes(path.read_bytes()[: BODY_AT + ON_DISK] + bytes(2 * ON_DISK))
    assert sealed_writer.repair(path, RING) == MONO // 2
    assert read(path) == wav_of(PAYLOAD[:MONO])


def test_an_end_of_repair_is_the_same_again(tmp_path: Path) -> None:
    """A repair that dies in the middle of it uses no nonce for anything else."""
    path = write(tmp_path / "a.wav.enc", PAYLOAD)
    path.write_bytes(path.read_bytes()[: BODY_AT + 2 * ON_DISK])
    sealed_writer.repair(path, RING)
    ended = path.read_bytes()
    path.write_bytes(ended[:-3])
    sealed_writer.repair(path, RING)
    assert path.read_bytes() == ended


@pytest.mark.parametrize("content", [b"", wav_of(b"1234"), bytes(BODY_AT), b"SIPSREC1" * 1500])
def test_what_is_no_encrypted_recording_is_not_repaired(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.wav.enc"
    path.write_bytes(content)
    with pytest.raises(Damaged):
        sound_files.repair(path, RING)
    assert path.read_bytes() == content


def test_nobody_repairs_what_is_being_written(tmp_path: Path) -> None:
    writer = SealedWriter(tmp_path / "a.wav.enc", 1, "acme", RING)
    writer.write(PAYLOAD)
    with pytest.raises(BlockingIOError):
        sound_files.repair(tmp_path / "a.wav.enc", RING)
    writer.close()
    assert sound_files.repair(tmp_path / "a.wav.enc", RING) == len(PAYLOAD) // 2


def test_without_the_key_a_repair_changes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav.enc", PAYLOAD)
    path.write_bytes(before := path.read_bytes()[:-5])
    with pytest.raises(KeyMissing):
        sound_files.repair(path, Keyring())
    assert path.read_bytes() == before


class FullDisk:
    """os.pwrite, until so many bytes are written; then half a write, and no more than `left` bytes."""

    def __init__(self, room: int, left: int) -> None:
        self.room, self.left, self._pwrite = room, left, os.pwrite

    def __call__(self, file: int, payload: bytes, at: int) -> int:
        if self.room > 0:
            count = self._pwrite(file, payload[: self.room], at)
            self.room -= count
            return count
        if len(payload) > self.left:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._pwrite(file, payload, at)


@pytest.mark.parametrize(("left", "ended"), [(TAG_BYTES, True), (0, False)])
def test_a_full_disk_leaves_what_was_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int, ended: bool
) -> None:
    writer = SealedWriter(tmp_path / "a.wav.enc", 1, "acme", RING)
    monkeypatch.setattr(os, "pwrite", FullDisk(2 * ON_DISK + 1000, left))
    with pytest.raises(OSError, match="No space"):
        writer.write(PAYLOAD)
    with pytest.raises(OSError, match="is over"):
        writer.write(PAYLOAD)
    close_refused: Callable[[], None] = writer.close
    if ended:
        close_refused()
    else:
        with pytest.raises(OSError, match="No space"):
            close_refused()
    monkeypatch.undo()
    assert read(tmp_path / "a.wav.enc", unfinished=not ended) == wav_of(PAYLOAD[: 2 * MONO])


def test_a_full_disk_at_the_end_leaves_what_was_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = SealedWriter(tmp_path / "a.wav.enc", 1, "acme", RING)
    writer.write(PAYLOAD)
    monkeypatch.setattr(os, "pwrite", FullDisk(100, TAG_BYTES))
    with pytest.raises(OSError, match="No space"):
        writer.close()
    monkeypatch.undo()
    assert read(tmp_path / "a.wav.enc") == wav_of(PAYLOAD[: 3 * MONO])


@given(
    size=st.integers(0, 2 * MONO).map(lambda half: 2 * half),
    room=st.none() | st.integers(0, 3 * ON_DISK),
    left=st.sampled_from([0, TAG_BYTES, 10 * ON_DISK]),
    keep=st.none() | st.integers(0, MONO),
    cuts=st.lists(st.integers(1, 2 * ON_DISK), max_size=3),
)
@example(size=4 * MONO, room=2 * ON_DISK + 5, left=TAG_BYTES, keep=MONO // 2 + 7, cuts=[3, 3])
@example(size=3 * MONO, room=None, left=0, keep=MONO // 2 + 7, cuts=[TAG_BYTES + 14, ON_DISK])
def test_no_nonce_seals_two_things_whatever_the_disk_and_the_machine_do(
    size: int, room: int | None, left: int, keep: int | None, cuts: list[int]
) -> None:
    """A disk that is full after `room` bytes, a message whose end is taken back, deaths at any byte with repairs."""
    payload = noise(size)
    sealed: dict[tuple[int, sealing.End], set[bytes]] = {}
    seal = sealing.Body.seal

    def noting(body: sealing.Body, number: int, end: sealing.End, part: bytes) -> bytes:
        sealed.setdefault((number, end), set()).add(part)
        return seal(body, number, end, part)

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "a.wav.enc"
        patch.setattr(sealing.Body, "seal", noting)
        writer = SealedWriter(path, 1, "acme", RING)
        if room is not None:
            patch.setattr(os, "pwrite", FullDisk(room, left))
        with contextlib.suppress(OSError):
            for begin in range(0, size, 6400):
                writer.write(payload[begin : begin + 6400])
        if keep is not None:
            writer.truncate(keep)
        with contextlib.suppress(OSError):
            writer.close()
        patch.undo()
        patch.setattr(sealing.Body, "seal", noting)
        for cut in cuts:
            os.truncate(path, max(BODY_AT, path.stat().st_size - cut))
            sealed_writer.repair(path, RING)
        found = read(path, unfinished=not cuts)[44:]
    assert payload.startswith(found)
    assert sealed
    assert all(len(parts) == 1 for parts in sealed.values())


DYING = """
import sys, time
from pathlib import Path
from sipserver.calls.keyring import Keyring
from sipserver.calls.sealed_writer import SealedWriter
writer = SealedWriter(Path(sys.argv[1]), 1, "acme", Keyring({"a": bytes(range(32))}))
while True:
    writer.write(b"ab" * 1600)
    time.sleep(0.001)
"""


def test_a_killed_process_loses_less_than_a_chunk(tmp_path: Path) -> None:
    path = tmp_path / "a.wav.enc"
    process = subprocess.Popen([sys.executable, "-c", DYING, str(path)])
    try:
        wait_until(lambda: path.exists() and path.stat().st_size > BODY_AT + 2 * ON_DISK, "sound")
        with pytest.raises(BlockingIOError):
            sound_files.repair(path, RING)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    chunks = (path.stat().st_size - BODY_AT) // ON_DISK
    assert sound_files.repair(path, RING) == chunks * MONO // 2
    assert read(path) == wav_of(b"ab" * (chunks * MONO // 2))
