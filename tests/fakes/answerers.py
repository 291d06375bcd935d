"""People and machines that pick up a telephone, spoken by the voices that are installed, and the lines they come over.

In a text, `[400]` is a pause of 400 ms. `voice`: `piper`, or a voice of espeak-ng. Everything here is repeatable: Piper
speaks without its usual chance, and the same seed gives the same line.
"""

from __future__ import annotations

import itertools
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import piper

from sipserver.audio import tones
from sipserver.audio.answerer import Answerer, Decision, Parameters
from sipserver.audio.frame import FRAME_SAMPLES, RATE_HZ, Frame, Samples
from sipserver.audio.levels import rms_dbfs
from sipserver.audio.resample import resample
from sipserver.codecs.g711 import G711Decoder, G711Encoder
from sipserver.speech import models
from sipserver.speech.settings import EspeakSettings, PiperSettings

PIPER = "piper"
SPOKEN_DBFS = -24.0
"""Level of speech on the line before a `Line` makes it quieter: RMS over the whole text."""


@dataclass(frozen=True)
class Greeting:
    """beep_hz, beep_ms: the tone after gap_ms of quiet; 0: there is none."""

    text: str
    voice: str = PIPER
    beep_hz: float = 0
    beep_ms: int = 0
    gap_ms: int = 400


HUMANS = (
    Greeting("Hello?"),
    Greeting("Yes?"),
    Greeting("Hi."),
    Greeting("Yes, this is Bob."),
    Greeting("Hello, Bob speaking."),
    Greeting("Acme, how can I help?"),
    Greeting("Good morning, Acme, how can I help?"),
    Greeting("Smith residence."),
    Greeting("Hello? [300] Hello?"),
    Greeting("Front desk, this is Anna."),
    Greeting("Reception."),
    Greeting("Hi, who is this?"),
    Greeting("Speaking."),
    Greeting("Hello?", "en-us+f3"),
    Greeting("Yes, hello?", "en-gb+f2"),
    Greeting("Doctor Miller's office.", "en-us+m3"),
    Greeting("This is Jane.", "en-us+f4"),
    Greeting("Sales, how may I help you?", "en-gb+m1"),
    Greeting("Hallo?", "de+f2"),
    Greeting("Ja, bitte?", "de+m2"),
    Greeting("Müller.", "de"),
    Greeting("Schmidt, guten Tag.", "de+m4"),
    Greeting("Firma Bauer, Schneider am Apparat.", "de+f4"),
    Greeting("Grüezi, Meier.", "de+m1"),
    Greeting("Servus, hier ist der Franz.", "de+m7"),
    Greeting("Guten Morgen, Praxis Doktor Weber.", "de+f1"),
)

MACHINES = (
    Greeting(
        "Hi, you've reached Bob. [350] I can't come to the phone right now. Please leave a message.", PIPER, 1000, 400
    ),
    Greeting("Please leave a message after the tone.", PIPER, 1400, 300),
    Greeting(
        "The person you are calling is not available. [500] Please record your message after the tone.", PIPER, 850, 500
    ),
    Greeting("Hello, this is Anna. [400] I'm on vacation until Monday, please call my mobile.", PIPER),
    Greeting("Your call has been forwarded to an automatic voice message system.", PIPER, 440, 800),
    Greeting("Thank you for calling Acme. [300] Our office hours are nine to five. Please call again.", PIPER),
    Greeting(
        "You have reached five five five, one two three four. [450] Leave your name and number.", PIPER, 1100, 250
    ),
    Greeting("Hey, it's Mike, you know what to do when you hear the beep.", PIPER, 620, 180),
    Greeting("The number you have dialed is not in service. [500] Please check the number and dial again.", PIPER),
    Greeting("Welcome to Acme. [300] For sales, press one. [300] For support, press two.", PIPER),
    Greeting(
        "We are not at home at the moment. [300] Please leave us a message and we will call you back.",
        PIPER,
        1000,
        1000,
    ),
    Greeting("The mailbox is full and cannot accept any messages at this time. Goodbye.", PIPER),
    Greeting(
        "Hi, this is Jane, I'm away from my desk. [400] Leave a message and I'll get back to you.", "en-us+f3", 950, 350
    ),
    Greeting("You've reached the voicemail of John Smith. [300] Please leave a message.", "en-gb+m3", 1330, 500),
    Greeting("Sorry, nobody is here to take your call right now, please try again later.", "en-us+m2"),
    Greeting(
        "Guten Tag, Sie sind mit der Mailbox von Peter Müller verbunden. [300] Bitte sprechen Sie nach dem Signalton.",
        "de",
        1000,
        250,
    ),
    Greeting("Der Teilnehmer ist zur Zeit nicht erreichbar. [400] Bitte versuchen Sie es später noch einmal.", "de+f2"),
    Greeting(
        "Hallo, hier ist der Anrufbeantworter von Familie Huber. [300] Wir sind gerade nicht zu Hause.",
        "de+m3",
        800,
        600,
    ),
    Greeting(
        "Sie rufen außerhalb unserer Geschäftszeiten an. Diese sind montags bis freitags von acht bis siebzehn Uhr.",
        "de+f4",
    ),
    Greeting("Bitte hinterlassen Sie eine Nachricht nach dem Piepton.", "de+m1", 1200, 450),
    Greeting("Dies ist die Sprachbox von Frau Weber. [250] Nachrichten bitte nach dem Ton.", "de+f1", 500, 200),
    Greeting("Kein Anschluss unter dieser Nummer. Kein Anschluss unter dieser Nummer.", "de+m2"),
    Greeting("Sie sind verbunden mit dem automatischen Anrufbeantworter der Firma Bauer.", "de+m4", 1477, 300),
    Greeting("Willkommen bei der Hotline. [400] Der nächste freie Mitarbeiter ist gleich für Sie da.", "de+f2"),
)

OTHER_HUMANS = (
    Greeting("Hello, who's speaking please?"),
    Greeting("Yeah?"),
    Greeting("Good afternoon, Parker and Sons, Linda speaking."),
    Greeting("Hello? [500] Who is it?"),
    Greeting("Pizza Roma, good evening."),
    Greeting("Oh hi, I was waiting for your call."),
    Greeting("Robinson."),
    Greeting("Emergency room, please hold on a second.", "en-us+f2"),
    Greeting("Mm, hello?", "en-gb+m5"),
    Greeting("Support desk.", "en-gb-scotland+f1"),
    Greeting("Ja?", "de+f3"),
    Greeting("Hallo, wer ist da?", "de+m5"),
    Greeting("Gasthof Krone, grüß Gott.", "de+f5"),
    Greeting("Huber, ja bitte?", "de+m6"),
    Greeting("Einen Moment bitte.", "de+m3"),
    Greeting("Autohaus Lang, mein Name ist Petra Klein.", "de+f2"),
)
"""No parameter was chosen by these, nor by `OTHER_MACHINES`; they are harder on purpose."""

OTHER_MACHINES = (
    Greeting("Hi! [600] You've reached the Johnsons. We're out. Leave a message.", PIPER, 1050, 600),
    Greeting("This is Linda's voicemail. [500] You know what to do.", PIPER, 900, 220),
    Greeting("The subscriber you have called cannot be reached at this time. Please try again later.", PIPER),
    Greeting("All of our agents are busy. [400] Please stay on the line and your call will be answered.", PIPER),
    Greeting(
        "You have reached the voice mailbox of. [700] Robert Parker. [300] At the tone, please record your message.",
        PIPER,
        440,
        500,
    ),
    Greeting("Calls may be recorded for training purposes.", PIPER),
    Greeting("Good evening. The clinic is closed. [300] In an emergency, hang up and dial nine one one.", PIPER),
    Greeting("Leave your message after the beep.", "en-us+f2", 1600, 350),
    Greeting("I am driving and cannot pick up, so please send me a text.", "en-gb+m5", 700, 280),
    Greeting(
        "Sorry we missed you. [350] Tell us your name, number and the reason for your call.",
        "en-gb-scotland+f1",
        2000,
        400,
    ),
    Greeting("Hier ist die Mailbox der Rufnummer null eins sieben eins, fünf fünf fünf.", "de+f3", 1000, 150),
    Greeting("Ihr Gesprächspartner ist momentan nicht erreichbar. [300] Wir informieren ihn per SMS.", "de+m5"),
    Greeting("Grüß Gott, leider sind im Moment alle Leitungen belegt. [300] Bitte warten Sie.", "de+f5"),
    Greeting("Die gewählte Rufnummer ist nicht vergeben.", "de+m6"),
    Greeting(
        "Wir haben Betriebsferien bis zum ersten September. [400] Nachrichten bitte nach dem Ton.", "de+m3", 1250, 700
    ),
    Greeting("Hallo, ich bin gerade nicht da, sprecht mir einfach etwas aufs Band.", "de+f2", 880, 320),
)


@dataclass(frozen=True)
class Line:
    """What lies between. lead_ms: quiet before the first word. gain_db: how much quieter than SPOKEN_DBFS. noise_dbfs,
    music_dbfs: of what is heard behind, all the time. loss: part of the packets that do not arrive.
    """

    name: str
    lead_ms: int = 300
    gain_db: float = 0
    noise_dbfs: float | None = None
    music_dbfs: float | None = None
    loss: float = 0


LINES = (
    Line("clean"),
    Line("at once", lead_ms=0, noise_dbfs=-62),
    Line("late", lead_ms=1700, noise_dbfs=-58),
    Line("quiet", lead_ms=600, gain_db=-14, noise_dbfs=-66),
    Line("loud", gain_db=8),
    Line("noise 27 dB below", noise_dbfs=-51),
    Line("noise 20 dB below", noise_dbfs=-44, lead_ms=800),
    Line("noise 14 dB below", noise_dbfs=-38),
    Line("3 % lost", loss=0.03, noise_dbfs=-60),
    Line("8 % lost", loss=0.08, noise_dbfs=-55, lead_ms=500),
    Line("music behind", music_dbfs=-46),
)


def spoken(greetings: Sequence[Greeting], folder: Path) -> list[Samples]:
    """What each says, beep included, at SPOKEN_DBFS, 16 kHz. folder: as in `SpeechSettings.models`.

    Blocks. Raises ModelMissing when Piper's voice is not installed.
    """
    found = models.find(PiperSettings().voices[0], folder)
    voice = piper.PiperVoice.load(found if found.is_file() else next(found.rglob("*.onnx")))
    return [_said(voice, greeting) for greeting in greetings]


def _said(voice: Any, greeting: Greeting) -> Samples:
    parts: list[Samples] = []
    for piece in re.split(r"(\[\d+\])", greeting.text):
        if piece.startswith("["):
            parts.append(tones.silence(int(piece[1:-1])))
        elif piece.strip():
            parts.append(_trimmed(_piper(voice, piece) if greeting.voice == PIPER else _espeak(greeting.voice, piece)))
    speech = np.concatenate(parts)
    scaled = _at(speech, SPOKEN_DBFS)
    if greeting.beep_ms:
        beep = tones.beep(greeting.beep_ms, frequency_hz=greeting.beep_hz)
        return np.concatenate((scaled, tones.silence(greeting.gap_ms), beep))
    return scaled


def _piper(voice: Any, text: str) -> Samples:
    """Without chance it would speak a seventh faster than it usually does."""
    usual = piper.SynthesisConfig(noise_scale=0.0, noise_w_scale=0.0, length_scale=1.15)
    chunks = voice.synthesize(text.strip(), usual)
    return np.concatenate([resample(chunk.audio_int16_array, chunk.sample_rate) for chunk in chunks])


def _espeak(voice: str, text: str) -> Samples:
    pace = str(EspeakSettings().words_per_minute)
    command = ["espeak-ng", "--stdin", "--stdout", "-b", "1", "-z", "-v", voice, "-s", pace]
    payload = subprocess.run(command, input=text.strip().encode(), capture_output=True, check=True).stdout
    return resample(np.frombuffer(payload[44 : len(payload) // 2 * 2], np.int16), 22_050)


def _trimmed(samples: Samples) -> Samples:
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > 150)
    return samples[int(loud[0]) : int(loud[-1]) + 1] if len(loud) else samples[:0]


def _at(samples: Samples, level_dbfs: float) -> Samples:
    gain = 10 ** ((level_dbfs - rms_dbfs(samples)) / 20)
    scaled: Samples = np.clip(samples * gain, -32768, 32767).astype(np.int16)
    return scaled


def music(duration_s: float, level_dbfs: float, seed: int = 1) -> Samples:
    """A simple tune with bass and drum, as a radio in the background."""
    random = np.random.default_rng(seed)
    count = round(duration_s * RATE_HZ)
    wave = np.zeros(count)
    beat = RATE_HZ // 4
    for start in range(0, count, beat):
        length = min(beat, count - start)
        at_s = np.arange(length) / RATE_HZ
        decay = np.exp(-at_s * 6)
        for hz in (220 * 2 ** (random.integers(12) / 12), 440 * 2 ** (random.integers(12) / 12)):
            wave[start : start + length] += decay * sum(np.sin(2 * np.pi * hz * n * at_s) / n**1.2 for n in range(1, 6))
        if (start // beat) % 2:
            wave[start : start + length] += random.normal(size=length) * np.exp(-at_s * 40)
    return _at((wave * 4000).astype(np.int16), level_dbfs)


def over(line: Line, said: Samples, *, tail_ms: int = 3000, seed: int = 0) -> list[Samples]:
    """What arrives at our side, in frames of 20 ms: through 8 kHz mu-law, noise, music and loss included."""
    random = np.random.default_rng(seed)
    wave = np.concatenate((tones.silence(line.lead_ms), said, tones.silence(tail_ms))).astype(np.float64)
    wave *= 10 ** (line.gain_db / 20)
    wave = wave[: len(wave) // FRAME_SAMPLES * FRAME_SAMPLES]
    if line.noise_dbfs is not None:
        wave += random.normal(size=len(wave)) * 32768 * 10 ** (line.noise_dbfs / 20)
    if line.music_dbfs is not None:
        wave += music(len(wave) / RATE_HZ + 1, line.music_dbfs, seed)[: len(wave)]
    narrow = resample(np.clip(wave, -32768, 32767).astype(np.int16), RATE_HZ, 8_000)
    encoder, decoder = G711Encoder.mu_law(), G711Decoder.mu_law()
    heard = [
        decoder.conceal()
        if random.random() < line.loss
        else decoder.decode(encoder.encode(narrow[start : start + 160]))
        for start in range(0, len(narrow) - 159, 160)
    ]
    whole = resample(np.concatenate(heard), 8_000)
    return [whole[start : start + FRAME_SAMPLES] for start in range(0, len(whole) - FRAME_SAMPLES + 1, FRAME_SAMPLES)]


def judged(frames: Sequence[Samples], parameters: Parameters | None = None) -> Decision:
    """The decision about a line; when its sound ends before, silence goes on."""
    answerer = Answerer(parameters)
    silence = np.zeros(FRAME_SAMPLES, np.int16)
    for samples in itertools.chain(frames, itertools.repeat(silence, 4_000)):
        decision = answerer.hear(Frame(samples, 0))
        if decision is not None:
            return decision
    raise AssertionError("no decision within 80 s")
