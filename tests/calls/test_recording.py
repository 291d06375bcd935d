"""Recordings: sample for sample, through pauses, drops, full disks and sudden death."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import stat
import subprocess
import sys
import threading
import wave
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest

from sipserver.audio.frame import FRAME_SAMPLES, Frame, Samples
from sipserver.calls import recording, wav
from sipserver.calls.keyring import Keyring
from sipserver.calls.recording import Recorder, Recording
from tests.fakes.leg import level


def read(path: Path) -> np.ndarray:
    """Shape (samples, channels)."""
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getsampwidth()) == (16_000, 2)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return samples.reshape(-1, file.getnchannels())


def frame(samples: Samples) -> Frame:
    return Frame(samples, 0)


def hear(tape: Recording, count: int, left: int, right: int) -> None:
    for _ in range(count):
        tape.hear(frame(level(left)), frame(level(right)))


def frames(file: np.ndarray) -> list[tuple[int, ...]]:
    """(left, right) of each 20 ms; fails if a frame is not of one level."""
    parts = file.reshape(-1, FRAME_SAMPLES, file.shape[1])
    assert (parts == parts[:, :1]).all()
    return [tuple(int(value) for value in part[0]) for part in parts]


@pytest.fixture
async def recorder(tmp_path: Path) -> AsyncIterator[Recorder]:
    recorder = Recorder(tmp_path, queue_batches=4)
    recorder.open()
    yield recorder
    await recorder.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for the worker thread, which tells nobody what it does."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Failures(list[str]):
    """What `on_failure` was told."""


async def test_caller_left_agent_right_sample_for_sample(recorder: Recorder, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    left, right = (random.integers(-32768, 32768, (23, FRAME_SAMPLES), np.int16) for _ in range(2))
    tape = recorder.start(tmp_path / "a" / "b.wav", tenant="acme", on_failure=Failures().append)
    for one, other in zip(left, right, strict=True):
        tape.hear(frame(one), frame(other))
    finished = await tape.stop()
    assert finished == recording.Finished(23 * FRAME_SAMPLES, 0)
    file = read(tape.path)
    assert (file[:, 0] == left.ravel()).all()
    assert (file[:, 1] == right.ravel()).all()
    assert stat.S_IMODE(tape.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(tape.path.parent.stat().st_mode) == 0o700


async def test_mono_mixes_and_does_not_wrap(recorder: Recorder, tmp_path: Path) -> None:
    tape = recorder.start(tmp_path / "mono.wav", stereo=False, tenant="acme", on_failure=Failures().append)
    hear(tape, 2, 100, 50)
    hear(tape, 1, 30_000, 30_000)
    hear(tape, 1, -30_000, -30_000)
    await tape.stop()
    assert frames(read(tape.path)) == [(150,), (150,), (32767,), (-32768,)]


async def test_a_pause_is_silence_of_the_same_length(recorder: Recorder, tmp_path: Path) -> None:
    tape = recorder.start(tmp_path / "pause.wav", tenant="acme", on_failure=Failures().append)
    hear(tape, 3, 1, 2)
    assert tape.pause() == 3 * FRAME_SAMPLES
    hear(tape, 12, 7, 7)
    assert tape.resume() == 15 * FRAME_SAMPLES
    hear(tape, 2, 3, 4)
    await tape.stop()
    assert frames(read(tape.path)) == [(1, 2)] * 3 + [(0, 0)] * 12 + [(3, 4)] * 2


async def test_a_slow_disk_drops_frames_but_not_time(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = threading.Event()
    began = threading.Event()
    write = wav.WavWriter.write

    def slow(self: wav.WavWriter, payload: bytes) -> None:
        began.set()
        disk.wait()
        write(self, payload)

    monkeypatch.setattr(wav.WavWriter, "write", slow)
    tape = recorder.start(tmp_path / "slow.wav", tenant="acme", on_failure=Failures().append)
    hear(tape, 10, 1, 1)
    await asyncio.to_thread(began.wait)
    hear(tape, 40, 2, 2)  # four batches: the queue is full
    assert recorder.depth == 4
    hear(tape, 30, 3, 3)
    assert tape.dropped_frames == 30
    disk.set()
    await until(lambda: recorder.depth == 0)
    hear(tape, 13, 4, 4)
    finished = await tape.stop()
    assert finished == recording.Finished(93 * FRAME_SAMPLES, 30)
    assert frames(read(tape.path)) == [(1, 1)] * 10 + [(2, 2)] * 40 + [(0, 0)] * 30 + [(4, 4)] * 13


async def test_dropped_frames_at_the_very_end_are_silence_too(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tape = recorder.start(tmp_path / "end.wav", tenant="acme", on_failure=Failures().append)
    monkeypatch.setattr(Recorder, "full", True)
    hear(tape, 70, 1, 1)
    await tape.stop()
    assert frames(read(tape.path)) == [(0, 0)] * 70


async def test_a_full_disk_is_told_once_and_leaves_a_readable_file(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0
    os_write = os.write

    def write(file: int, payload: bytes) -> int:
        nonlocal written
        if len(payload) > wav.HEADER_BYTES or written:
            if written + len(payload) > 20_000:
                if written < 20_000:
                    payload = payload[: 20_000 - written]
                else:
                    raise OSError(errno.ENOSPC, "No space left on device")
            written += len(payload)
        return os_write(file, payload)

    monkeypatch.setattr(os, "write", write)
    failures = Failures()
    tape = recorder.start(tmp_path / "full.wav", tenant="acme", on_failure=failures.append)
    hear(tape, 100, 5, 6)
    finished = await tape.stop()
    assert failures == ["No space left on device"]
    assert finished.failure == "No space left on device"
    monkeypatch.undo()
    file = read(tape.path)
    assert len(file) == 5_000
    assert (file == (5, 6)).all()


async def test_a_file_that_cannot_be_made_is_told(recorder: Recorder, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    failures = Failures()
    tape = recorder.start(tmp_path / "taken" / "a.wav", tenant="acme", on_failure=failures.append)
    hear(tape, 20, 1, 1)
    finished = await tape.stop()
    assert len(failures) == 1
    assert finished.failure == failures[0]


async def test_an_existing_file_is_never_overwritten(recorder: Recorder, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"somebody's recording")
    failures = Failures()
    tape = recorder.start(tmp_path / "a.wav", tenant="acme", on_failure=failures.append)
    await tape.stop()
    assert failures == ["File exists"]
    assert (tmp_path / "a.wav").read_bytes() == b"somebody's recording"


async def test_stop_is_idempotent_and_ends_hearing(recorder: Recorder, tmp_path: Path) -> None:
    tape = recorder.start(tmp_path / "a.wav", tenant="acme", on_failure=Failures().append)
    hear(tape, 1, 1, 1)
    first = await tape.stop()
    hear(tape, 50, 1, 1)
    assert await tape.stop() == first
    assert len(read(tape.path)) == FRAME_SAMPLES


async def test_a_hanging_disk_does_not_hold_up_the_stop(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = threading.Event()
    monkeypatch.setattr(recording, "CLOSE_S", 0.02)
    monkeypatch.setattr(wav.WavWriter, "write", lambda _self, _payload: disk.wait() and None)
    tape = recorder.start(tmp_path / "a.wav", tenant="acme", on_failure=Failures().append)
    hear(tape, 10, 1, 1)
    finished = await tape.stop()
    monkeypatch.setattr(recording, "CLOSE_S", 5)
    disk.set()
    assert "in time" in finished.failure


async def test_the_header_is_right_while_the_file_grows(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "HEADER_EVERY_S", 0)
    tape = recorder.start(tmp_path / "a.wav", tenant="acme", on_failure=Failures().append)
    hear(tape, 20, 1, 2)
    await until(
        lambda: tape.path.exists() and tape.path.stat().st_size > 44 and len(read(tape.path)) == 20 * FRAME_SAMPLES
    )
    assert frames(read(tape.path)) == [(1, 2)] * 20
    await tape.stop()


_DIES = """
import asyncio, sys
import numpy as np
from pathlib import Path
from sipserver.audio.frame import Frame
from sipserver.calls.recording import Recorder

async def main():
    recorder = Recorder(Path(sys.argv[1]))
    recorder.open()
    tape = recorder.start(Path(sys.argv[1]) / "dead.wav", tenant="acme", on_failure=print)
    left, right = np.full(320, 11, np.int16), np.full(320, 22, np.int16)
    for _ in range(100):
        tape.hear(Frame(left, 0), Frame(right, 0))
    while recorder.depth or (Path(sys.argv[1]) / "dead.wav").stat().st_size < 44 + 100 * 1280:
        await asyncio.sleep(0.01)
    print("recorded", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def test_killed_with_9_the_recording_is_readable(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _DIES, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "recorded\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    path = tmp_path / "dead.wav"
    assert set(frames(read(path))) == {(11, 22)}  # as the crash left it: a second may be missing in the header
    assert wav.repair(path) == 100 * FRAME_SAMPLES
    assert frames(read(path)) == [(11, 22)] * 100


async def test_a_recorder_that_seals_writes_the_same_sound(tmp_path: Path) -> None:
    ring = Keyring({"a": bytes(range(32))})
    recorder = Recorder(tmp_path, ring=ring, seal=True)
    recorder.open()
    tape = recorder.start(recorder.place(Path("acme") / "a.wav"), tenant="acme", on_failure=Failures().append)
    assert tape.path == tmp_path / "acme" / "a.wav.enc"
    hear(tape, 60, 1, 2)
    tape.pause()
    hear(tape, 10, 1, 2)
    assert await tape.stop(keep=65 * FRAME_SAMPLES) == recording.Finished(65 * FRAME_SAMPLES, 0)
    with recorder.read(tape.path, "acme") as sound, wave.open(sound) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    assert frames(samples) == [(1, 2)] * 60 + [(0, 0)] * 5
    await recorder.close()


@pytest.mark.parametrize(
    ("ring", "tenant", "why"),
    [
        (Keyring(), "acme", "there is no key to encrypt with"),
        (Keyring({"a": bytes(range(32))}), "x" * 2000, "a tenant's name of 2000 bytes"),
    ],
)
async def test_what_cannot_be_sealed_is_not_recorded_and_the_next_one_is(
    tmp_path: Path, ring: Keyring, tenant: str, why: str
) -> None:
    recorder = Recorder(tmp_path, ring=ring, seal=True)
    recorder.open()
    failures = Failures()
    tape = recorder.start(recorder.place(Path("a.wav")), tenant=tenant, on_failure=failures.append)
    hear(tape, 20, 1, 2)
    assert (await tape.stop()).failure == why
    assert failures == [why]
    plain = recorder.start(tmp_path / "b.wav", tenant=tenant, on_failure=failures.append)
    hear(plain, 20, 1, 2)
    assert not (await plain.stop()).failure
    assert names(tmp_path) == ["b.wav"]
    await recorder.close()
