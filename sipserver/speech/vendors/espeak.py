"""espeak-ng: speech in about a hundred languages from a small program, without a model.

Owns the processes, one a clause, and their number. The text goes in through a pipe and no shell sees it. Sound is
passed on while the program still speaks.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import struct
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator, Awaitable

import numpy as np

from sipserver.audio.frame import Samples
from sipserver.audio.resample import Resampler
from sipserver.errors import ModelMissing, ProviderError, ProviderRejected, ProviderTimeout
from sipserver.speech import languages
from sipserver.speech.contract import TtsCapabilities
from sipserver.speech.gate import Gate
from sipserver.speech.settings import EspeakSettings

PROGRAM = "espeak-ng"

_WAV_HEADER_BYTES = 44
_READ_BYTES = 16_384
_LINGER_S = 1.0
_VOICE = re.compile(r"[A-Za-z][\w-]*(\+[\w-]+)?")
_OWN_NAMES = {"en": "en-us", "zh": "cmn", "no": "nb", "nn": "nb"}


class Espeak:
    """Satisfies `contract.Tts`. voice: an espeak-ng voice with an optional variant, such as `de` or `en-gb+f3`."""

    def __init__(self, name: str, settings: EspeakSettings, program: str, known: frozenset[str]) -> None:
        self.name = name
        self.capabilities = TtsCapabilities(known | _OWN_NAMES.keys(), None, streaming=True, local=True)
        self._program, self._settings = program, settings
        self.gate = Gate(name, at_once=settings.processes, bound=settings.queue, timeout_s=settings.timeout_s)
        self._processes: set[Process] = set()

    @property
    def depth(self) -> int:
        return self.gate.depth

    async def synthesise(self, text: str, *, voice: str = "", language: str = "en") -> AsyncGenerator[Samples, None]:
        chosen = self._choose(voice, language)
        if not text.strip():
            return
        async with self.gate.passage():
            process = await self._start(chosen)
            try:
                async for samples in self._spoken(process, text):
                    yield samples
            finally:
                await self._reap(process)

    async def close(self) -> None:
        """Ends the processes that still speak."""
        for process in list(self._processes):
            await self._reap(process)

    def _choose(self, voice: str, language: str) -> str:
        if voice and not _VOICE.fullmatch(voice):
            raise ProviderRejected(self.name, f"{voice!r} is no espeak-ng voice")
        tag = languages.primary(language)
        if not voice and self.capabilities.languages is not None and tag not in self.capabilities.languages:
            raise ProviderRejected(self.name, f"no voice speaks {language}")
        return voice or _OWN_NAMES.get(tag, tag)

    async def _start(self, voice: str) -> Process:
        try:
            process = await asyncio.create_subprocess_exec(
                self._program, "--stdin", "--stdout", "-b", "1", "-z", "-v", voice,
                "-s", str(self._settings.words_per_minute),
                stdin=PIPE, stdout=PIPE, stderr=DEVNULL,
            )  # fmt: skip
        except OSError as problem:
            raise ProviderError(self.name, f"{self._program} did not start: {problem}") from problem
        self._processes.add(process)
        return process

    async def _spoken(self, process: Process, text: str) -> AsyncGenerator[Samples, None]:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(text.encode())
            process.stdin.write_eof()
        header = await self._read(process.stdout.readexactly(_WAV_HEADER_BYTES))
        if len(header) < _WAV_HEADER_BYTES:
            await self._reap(process)
            raise ProviderRejected(self.name, f"{self._program} said nothing (exit status {process.returncode})")
        resampler = Resampler(struct.unpack_from("<I", header, 24)[0])
        odd = b""
        while payload := await self._read(process.stdout.read(_READ_BYTES)):
            payload = odd + payload
            whole = len(payload) & ~1
            odd = payload[whole:]
            samples = resampler.convert(np.frombuffer(payload[:whole], np.int16))
            if len(samples):
                yield samples
        if len(rest := resampler.flush()):
            yield rest

    async def _read(self, reading: Awaitable[bytes]) -> bytes:
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                return await reading
        except asyncio.IncompleteReadError as problem:
            return problem.partial
        except TimeoutError as problem:
            raise ProviderTimeout(self.name, f"no sound within {self._settings.timeout_s:g} s") from problem

    async def _reap(self, process: Process) -> None:
        """Wait for a process that has closed its output; end one that speaks on or lingers."""
        assert process.stdout is not None
        if process.stdout.at_eof():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _LINGER_S)
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.wait()
        self._processes.discard(process)


async def load(name: str, settings: EspeakSettings) -> Espeak:
    """Find the program and ask it for its voices. Raises ModelMissing, which says how to install it."""
    program = shutil.which(PROGRAM)
    if program is None:
        raise ModelMissing(PROGRAM, f"apt-get install {PROGRAM}")
    process = await asyncio.create_subprocess_exec(program, "--voices", stdout=PIPE, stderr=DEVNULL)
    listing, _ = await process.communicate()
    rows = [line.split() for line in listing.decode(errors="replace").splitlines()[1:]]
    return Espeak(name, settings, program, frozenset(languages.primary(row[1]) for row in rows if len(row) > 1))
