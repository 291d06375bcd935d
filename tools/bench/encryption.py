"""What it costs to encrypt recordings: CPU of the recorder beside plain files, reading, and a change of keys.

The recorder is the real one, with its thread, its queue and its disk; sound comes as fast as it takes it. CPU is that
of the process, with the loop that hands over the sound.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sipserver.audio.frame import FRAME_MS, FRAME_SAMPLES, Frame
from sipserver.calls import rewrap, sound_files
from sipserver.calls.keyring import Keyring
from sipserver.calls.recording import Recorder, Recording
from tools.bench.report import Row

CALLS, SECONDS, RUNS = 20, 180, 9
WAITING = 500
"""Batches in the queue; beyond, the sound waits, so that none is dropped."""
FILES = 200
BEFORE = Keyring({"a": bytes(32)})
AFTER = Keyring({"b": bytes(range(32)), "a": bytes(32)})


def measure(folder: Path) -> Sequence[Row]:
    plain, sealed = [], []
    for number in range(RUNS):
        plain.append(asyncio.run(_record(folder / f"plain-{number}", seal=False)))
        sealed.append(asyncio.run(_record(folder / f"sealed-{number}", seal=True)))
    more = [one - other for one, other in zip(sealed, plain, strict=True)]
    how = f"median of {RUNS} runs of {CALLS} stereo calls of {SECONDS} s; "
    percent = statistics.median(more) / (CALLS * SECONDS) * 100
    pairs = f"median of {RUNS} pairs of runs; {_spread(more)}"
    return [
        Row("Recording an hour of a call, plain WAV", _an_hour(plain), "", how + _spread(plain)),
        Row("Recording an hour of a call, encrypted", _an_hour(sealed), "", how + _spread(sealed)),
        Row("The second of such a pair more than the first", _an_hour(more), "", pairs),
        Row("That is, of a core, for a call that is recorded", f"{percent:.4f} %", "< 0.1 %"),
        *_read(folder),
        *_rewrap(folder),
    ]


def _an_hour(runs_s: Sequence[float]) -> str:
    return f"{_hour_s(statistics.median(runs_s)):.2f} CPU s"


def _spread(runs_s: Sequence[float]) -> str:
    return f"{_hour_s(min(runs_s)):.2f} to {_hour_s(max(runs_s)):.2f}"


def _hour_s(run_s: float) -> float:
    """CPU seconds for an hour of one call, of those of a run."""
    return run_s / (CALLS * SECONDS) * 3600


async def _record(folder: Path, *, seal: bool) -> float:
    """CPU seconds for all calls; the files are gone afterwards."""
    noise = np.random.default_rng(1).integers(-8000, 8000, (50, FRAME_SAMPLES), np.int16)
    sound = [Frame(samples, 0) for samples in noise]
    recorder = Recorder(folder, ring=BEFORE, seal=seal)
    recorder.open()
    began_s = time.process_time()
    tapes = [_start(recorder, number) for number in range(CALLS)]
    for tick in range(SECONDS * 1000 // FRAME_MS):
        for tape in tapes:
            tape.hear(sound[tick % 50], sound[(tick + 7) % 50])
        while recorder.depth > WAITING:  # noqa: ASYNC110  the worker thread tells nobody
            await asyncio.sleep(0.002)
    finished = [await tape.stop() for tape in tapes]
    await recorder.close()
    took_s = time.process_time() - began_s
    assert not any(each.failure or each.dropped_frames for each in finished)
    await asyncio.to_thread(shutil.rmtree, folder)
    return took_s


def _start(recorder: Recorder, number: int) -> Recording:
    def failed(why: str) -> None:
        raise RuntimeError(why)

    return recorder.start(recorder.place(Path(f"{number}.wav")), tenant="bench", on_failure=failed)


def _read(folder: Path) -> Sequence[Row]:
    """All of an hour, as a download reads it."""
    path = sound_files.sealed(folder / "hour.wav")
    writer = sound_files.writer(path, 2, "bench", BEFORE)
    second = np.random.default_rng(2).bytes(64_000)
    for _ in range(3600):
        writer.write(second)
    writer.close()
    taken = []
    for _ in range(RUNS):
        began_s = time.process_time()
        with sound_files.open_sound(path, BEFORE) as sound:
            while sound.read(1 << 18):
                pass
        taken.append(time.process_time() - began_s)
    more = path.stat().st_size - 3600 * 64_000
    path.unlink()
    return [
        Row("Reading an hour of a call", f"{statistics.median(taken):.2f} CPU s", "", f"median of {RUNS}"),
        Row("Size of that file, more than its sound", f"{more / 1000:.0f} KB", "", "of 230 MB"),
    ]


def _rewrap(folder: Path) -> Sequence[Row]:
    paths = [sound_files.sealed(folder / f"{number}.wav") for number in range(FILES)]
    for path in paths:
        sound_files.writer(path, 2, "bench", BEFORE).close()
    os.sync()
    cpu_s, began_s = time.process_time(), time.monotonic()
    assert all(rewrap.rewrap(path, AFTER) for path in paths)
    cpu_ms = (time.process_time() - cpu_s) / FILES * 1000
    took_ms = (time.monotonic() - began_s) / FILES * 1000
    figure = f"{took_ms:.1f} ms, {cpu_ms:.2f} ms of CPU"
    how = f"mean of {FILES}, whatever their length; with fsync"
    return [Row("A change of keys, each file", figure, "", how)]
