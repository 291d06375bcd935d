"""Sound files: whatever FFmpeg reads becomes 16 kHz mono samples; samples become a WAV file.

Owns whole files only, for prompts and tests. Recording a call in progress is the call's own work.
FFmpeg gets a list of plain audio containers and no protocol but files: a playlist that a tenant put in the place of a
sound must not make the server read other files or addresses.
"""

from __future__ import annotations

import itertools
import wave
from pathlib import Path

import numpy as np

from sipserver.audio.frame import RATE_HZ, Samples
from sipserver.audio.resample import HIGHEST_HZ, LOWEST_HZ, resample
from sipserver.errors import ConfigError

CONTAINERS = "aac,ac3,aiff,amr,au,caf,flac,flv,gsm,matroska,webm,mov,mp4,m4a,mp3,ogg,opus,voc,w64,wav"
"""What may be read, by FFmpeg's names."""


def read(path: Path, *, longest_s: float = 600) -> Samples:
    """The whole file as 16 kHz mono int16, channels averaged.

    Blocks for a few ms per second of sound: call it in a thread. Raises ConfigError, which names the file, when it is
    missing, unreadable, no sound, broken or longer than longest_s.
    """
    try:
        with path.open("rb"):
            pass
        return _decoded(path, longest_s)
    except OSError as problem:
        raise ConfigError(problem.strerror or str(problem), file=path) from problem


def _decoded(path: Path, longest_s: float) -> Samples:
    import av

    parts: list[Samples] = []
    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
    try:
        with av.open(f"file:{path}", "r", options=options, metadata_errors="replace") as container:
            if not container.streams.audio:
                raise ConfigError("there is no sound in this file", file=path)
            stream = container.streams.audio[0]
            if stream.codec_context is None:
                raise ConfigError("not a sound file that can be read (no decoder)", file=path)
            rate_hz = stream.codec_context.sample_rate or 0
            if not LOWEST_HZ <= rate_hz <= HIGHEST_HZ:
                raise ConfigError(f"a sample rate of {rate_hz} Hz cannot be played", file=path)
            mono = av.AudioResampler(format="s16", layout="mono", rate=rate_hz)
            left = int(longest_s * rate_hz)
            for frame in itertools.chain(container.decode(stream), (None,)):
                for each in mono.resample(frame):
                    parts.append(each.to_ndarray()[0])
                    left -= each.samples
                if left < 0:
                    raise ConfigError(f"longer than {longest_s:g} s", file=path)
    except (av.FFmpegError, ValueError) as problem:  # ValueError: the rate or the channels change on the way
        reason = getattr(problem, "strerror", None) or problem
        raise ConfigError(f"not a sound file that can be read ({reason})", file=path) from problem
    if not parts:
        raise ConfigError("there is no sound in this file", file=path)
    return resample(np.concatenate(parts), rate_hz, RATE_HZ)


def write_wav(path: Path, *channels: Samples, rate_hz: int = RATE_HZ) -> None:
    """Write one mono or several interleaved channels (left first) as 16 bit WAV; shorter ones end in silence.

    Blocks. Replaces the file only when all of it was written. Raises OSError.
    """
    if not channels:
        raise ValueError("a WAV file needs a channel")
    length = max(len(channel) for channel in channels)
    interleaved = np.zeros((length, len(channels)), "<i2")
    for column, channel in enumerate(channels):
        interleaved[: len(channel), column] = channel
    beside = path.with_name(path.name + ".part")
    try:
        with wave.open(str(beside), "wb") as file:
            file.setnchannels(len(channels))
            file.setsampwidth(2)
            file.setframerate(rate_hz)
            file.writeframes(interleaved.tobytes())
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
