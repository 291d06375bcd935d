"""`sipserver call`: place a real call, say something, print what both sides said and how fast the answer came."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from sipserver import log
from sipserver import settings as settings_file
from sipserver.audio import sound_file
from sipserver.audio.frame import Samples
from sipserver.caller import Caller, CallResult, Heard, Line, summary
from sipserver.errors import CarrierError, ConfigError, ModelMissing, SipServerError
from sipserver.sip.cell import Cell
from sipserver.sip.leg import SipLeg
from sipserver.sip.settings import SipSettings
from sipserver.speech import service
from sipserver.speech.contract import Tts
from sipserver.speech.settings import EspeakSettings, PiperSettings, SpeechSettings, WhisperSettings

NOBODY = ("0.0.0.0/32",)
"""Source networks that may call the caller."""

RTP_PORTS = (30_000, 30_199)
"""Not those of a server on the same machine."""

_URI = re.compile(r"sip:[^@\s<>]+@([A-Za-z0-9.-]+)(?::(\d{1,5}))?(;transport=(udp|tcp))?")


@dataclass(frozen=True, slots=True)
class Script:
    """What the options of the command say."""

    uri: str
    say: tuple[str, ...]
    wav: tuple[Path, ...]
    digits: str
    record: Path | None
    transcribe: bool


def call(
    uri: Annotated[str, typer.Argument(metavar="SIP-URI", help="For example sip:demo@127.0.0.1:5060")],
    say: Annotated[list[str] | None, typer.Option(help="Say a text; may be given more than once.")] = None,
    wav: Annotated[list[Path] | None, typer.Option(help="Play a sound file instead.")] = None,
    dtmf: Annotated[str, typer.Option(help="Press digits after the greeting.")] = "",
    record: Annotated[Path | None, typer.Option(help="Save both sides: caller left, far end right.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    transcribe: Annotated[bool, typer.Option(help="Write down what the far end said (Whisper).")] = True,
    config: Annotated[Path, typer.Option(help="Settings whose models folder is used.")] = settings_file.DEFAULT_FILE,
) -> None:
    """Place a call and hold a conversation by script: hear the greeting, then take turns."""
    if not (say or wav or dtmf):
        raise typer.BadParameter("nothing to do: give --say TEXT, --wav FILE or --dtmf DIGITS")
    log.setup("warning", "console")
    script = Script(uri, tuple(say or ()), tuple(wav or ()), dtmf, record, transcribe)
    known = SpeechSettings()
    if config.exists() or config != settings_file.DEFAULT_FILE:
        known = settings_file.load(config).speech
    _reached_by(uri)
    result, texts = asyncio.run(_place(script, known))
    if record is not None:
        record.parent.mkdir(parents=True, exist_ok=True)
        sound_file.write_wav(record, result.stereo[:, 0], result.stereo[:, 1])
    if as_json:
        typer.echo(json.dumps(_with_texts(summary(result), texts), indent=2))
    else:
        _print(result, texts, record)


async def _place(script: Script, known: SpeechSettings) -> tuple[CallResult, list[str]]:
    """The call's result and what was said in each stretch of the far end's speech, greeting first."""
    speech = await service.load(
        await asyncio.to_thread(_engines, known), stt=("ear",) if script.transcribe else (), tts=("voice",)
    )
    try:
        lines = [Line(text=text, samples=await _spoken(speech.tts["voice"], text)) for text in script.say]
        lines += [Line(text=path.name, samples=await asyncio.to_thread(sound_file.read, path)) for path in script.wav]
        if script.digits:
            lines.insert(0, Line(digits=script.digits))
        host, tcp = _reached_by(script.uri)
        settings = SipSettings(host=host, port=0, tcp=tcp, allow=NOBODY, rtp_ports=RTP_PORTS)
        cell = Cell(settings, _take_no_call)
        await cell.start()
        try:
            result = await Caller(await cell.dial(script.uri)).run(lines)
        finally:
            await cell.stop()
        heard = [result.greeting, *(exchange.heard for exchange in result.exchanges)]
        texts = [await _text_of(speech, stretch) if script.transcribe else "" for stretch in heard]
        return result, texts
    finally:
        await speech.close()


def _engines(known: SpeechSettings) -> SpeechSettings:
    """Whisper to listen and the best voice there is: Piper where its model is installed, espeak-ng otherwise."""
    from sipserver.speech import models

    piper = PiperSettings()
    try:
        models.find(piper.voices[0], known.models)
        voice: PiperSettings | EspeakSettings = piper
    except ModelMissing:
        voice = EspeakSettings()
    return SpeechSettings(models=known.models, stt={"ear": WhisperSettings(workers=1)}, tts={"voice": voice})


async def _spoken(tts: Tts, text: str) -> Samples:
    import numpy as np

    return np.concatenate([chunk async for chunk in tts.synthesise(text)])


async def _text_of(speech: Any, heard: Heard | None) -> str:
    if heard is None:
        return ""
    try:
        return str((await speech.stt["ear"].transcribe(heard.samples[: 30 * 16_000], language="en")).text)
    except SipServerError as problem:
        return f"({problem})"


def _reached_by(uri: str) -> tuple[str, bool]:
    """The address to call from, loopback for a server on this machine, and whether TCP is asked for.

    Raises ConfigError for what is not a SIP URI that can be called.
    """
    found = _URI.fullmatch(uri)
    if found is None or not 0 < int(found[2] or 5060) < 65_536:
        raise ConfigError(f"{uri!r} cannot be called; write it like sip:demo@127.0.0.1:5060 or with ;transport=tcp")
    here = found[1] in ("localhost", "127.0.0.1")
    return "127.0.0.1" if here else "0.0.0.0", found[4] == "tcp"  # noqa: S104 - a phone must be reachable


def _take_no_call(_leg: SipLeg) -> None:
    raise CarrierError("a caller takes no calls")


def _with_texts(plain: dict[str, Any], texts: list[str]) -> dict[str, Any]:
    for part, text in zip([plain["greeting"], *(each["heard"] for each in plain["exchanges"])], texts, strict=True):
        if part is not None:
            part["text"] = text
    return plain


def _print(result: CallResult, texts: list[str], record: Path | None) -> None:
    console = Console(highlight=False)
    console.print(f"answered after {result.setup_ms} ms, {result.codec}")
    console.print(f"[green]agent[/]   {texts[0] or '(silence)'}")
    for exchange, text in zip(result.exchanges, texts[1:], strict=True):
        console.print(f"[cyan]caller[/]  {exchange.said or 'digits ' + exchange.digits}")
        console.print(f"[green]agent[/]   {text or '(no answer)'}")
        if exchange.response_ms is not None:
            console.print(f"        first sound {exchange.response_ms} ms after the caller's last")
    answered = sorted(each.response_ms for each in result.exchanges if each.response_ms is not None)
    if answered:
        median = answered[len(answered) // 2]
        console.print(f"latency  {median} ms from the caller's last sound to the answer's first (median)")
    if record is not None:
        console.print(f"recorded {record} (caller left, agent right)")
