"""Who picked up, decided from signals made of numbers; `test_answerer_corpus` has real voices."""

from __future__ import annotations

import time
from statistics import median

import numpy as np
import pytest

from sipserver.audio import tones
from sipserver.audio.answerer import Answerer, Decision, Parameters, Who
from sipserver.audio.frame import FRAME_SAMPLES, Frame, Samples
from sipserver.audio.tones import silence, tone
from tests.fakes.answerers import Line, judged, music, over
from tests.fakes.voice import voice

LINES = (
    Line("clean", lead_ms=0),
    Line("noisy", lead_ms=0, noise_dbfs=-46),
    Line("lossy", lead_ms=0, noise_dbfs=-60, loss=0.04),
)
on_every_line = pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
WAIT = Parameters(beep_ms=15_000)
JUDGED_EVERY = 30
"""Frames over which cost is summed: the greeting is judged at some of them."""


def noise(duration_s: float, dbfs: float) -> Samples:
    wave = np.random.default_rng(7).normal(size=round(duration_s * 16_000)) * 32768 * 10 ** (dbfs / 20)
    return wave.astype(np.int16)


def joined(*parts: Samples) -> Samples:
    return np.concatenate(parts)


def talk(duration_s: float, seed: int = 3) -> Samples:
    """A voice that begins and ends with a sound."""
    sound = voice(4 * duration_s, seed=seed)
    loud = np.flatnonzero(np.abs(sound.astype(int)) > 3000)
    count = round(duration_s * 16_000)
    first = next(int(at) for at in loud if abs(int(sound[at + count - 400 : at + count].max())) > 3000)
    return sound[first : first + count]


WORD, GREETING = talk(0.7), talk(6)


def who(line: Line, *parts: Samples, parameters: Parameters | None = None) -> Decision:
    return judged(over(line, joined(*parts), tail_ms=4000), parameters)


# --- people and machines ----------------------------------------------------------------------------------------------


@on_every_line
def test_a_word_and_silence_is_a_person(line: Line) -> None:
    decision = who(line, silence(400), WORD)
    assert decision.who is Who.HUMAN
    assert decision.at_ms == pytest.approx(400 + 700 + 800, abs=350)
    assert decision.greeting.duration_ms == pytest.approx(700, abs=350)
    assert "ms of silence" in decision.why


@on_every_line
def test_a_long_greeting_is_a_machine(line: Line) -> None:
    decision = who(line, silence(400), GREETING)
    assert decision.who is Who.MACHINE
    assert decision.at_ms <= 400 + 3500
    assert "greeting of" in decision.why


def test_longer_greetings_must_be_followed_by_more_silence() -> None:
    rule = Parameters(long_greeting_ms=500, after_long_silence_ms=2000)
    assert who(LINES[0], WORD, parameters=rule).at_ms == pytest.approx(2700, abs=250)


def test_many_short_words_are_a_machine() -> None:
    words = joined(*(joined(talk(0.2), silence(100)) for _ in range(8)))
    assert who(LINES[0], words, parameters=Parameters(maximum_words=5)).who is Who.MACHINE
    assert who(LINES[0], words, parameters=Parameters(maximum_words=50, greeting_ms=4000)).who is Who.HUMAN


@pytest.mark.parametrize(
    "sound",
    [
        silence(100),
        noise(5, -60),
        noise(5, -36),
        joined(silence(900), noise(5, -42)),
        tone((50,), 6000, (-15,)),
        tones.digits("123456", 80, 80),
        joined(silence(500), np.full(160, 20_000, np.int16)),
    ],
    ids=["silence", "comfort noise", "loud noise", "noise after nothing", "hum", "digits", "click"],
)
@on_every_line
def test_what_is_no_speech_is_silence(line: Line, sound: Samples) -> None:
    decision = who(line, sound)
    assert decision.who is Who.SILENCE
    assert 3500 <= decision.at_ms <= 3600


def test_what_goes_on_without_end_or_contrast_is_never_a_person() -> None:
    assert who(LINES[0], music(12, -22)).who is not Who.HUMAN
    drone = (noise(8, -30) * (1 + 0.5 * np.sin(np.arange(8 * 16_000) / 1500))).astype(np.int16)
    assert who(LINES[0], drone).who is not Who.HUMAN


def test_a_silence_that_has_begun_when_time_is_over_is_awaited() -> None:
    decision = who(LINES[0], silence(3000), WORD, silence(300), WORD)
    assert decision.who is Who.HUMAN
    assert 5000 < decision.at_ms <= 6100


def test_no_decision_in_time_is_unknown() -> None:
    words = joined(*(joined(talk(0.25), silence(700)) for _ in range(12)))
    decision = who(LINES[0], words, parameters=Parameters(greeting_ms=20_000, maximum_words=99))
    assert decision.who is Who.UNKNOWN
    assert 5000 <= decision.at_ms <= 6200


def test_the_decision_stays() -> None:
    answerer = Answerer()
    heard = over(LINES[0], joined(WORD, silence(2000), GREETING))
    decisions = {answerer.hear(Frame(samples, 0)) for samples in heard} - {None}
    assert len(decisions) == 1
    assert answerer.decision in decisions


# --- fax and the network ----------------------------------------------------------------------------------------------


def modem_answer() -> Samples:
    """ANSam (V.8): 2100 Hz with phase reversals and a sway of 15 Hz."""
    at_s = np.arange(3 * 16_000) / 16_000
    turned = np.sin(2 * np.pi * 2100 * at_s + np.pi * (at_s // 0.45 % 2))
    return np.round(4000 * turned * (1 + 0.2 * np.sin(2 * np.pi * 15 * at_s))).astype(np.int16)


@on_every_line
@pytest.mark.parametrize(
    "sound",
    [tones.beep(2900, frequency_hz=2100), modem_answer(), joined(tones.beep(500, frequency_hz=1100), silence(3000))],
    ids=["CED", "ANSam", "CNG"],
)
def test_a_fax(line: Line, sound: Samples) -> None:
    decision = who(line, silence(500), sound, parameters=WAIT)
    assert decision.who is Who.FAX
    assert decision.at_ms <= 1300


def test_a_machine_that_also_takes_faxes() -> None:
    calling = joined(tones.beep(500, frequency_hz=1100), silence(3000))
    assert who(LINES[0], GREETING, silence(300), calling, parameters=WAIT).who is Who.BEEP


RINGING = {
    "DE": tones.ringback(2),
    "FR": tones.ringback(2, frequency_hz=440, on_ms=1500, off_ms=3500),
    "US": joined(*[tone((440, 480), 2000, (-19, -19)), silence(4000)] * 2),
    "GB": joined(
        *[tone((400, 450), 400, (-19, -19)), silence(200), tone((400, 450), 400, (-19, -19)), silence(2000)] * 2
    ),
}


@on_every_line
@pytest.mark.parametrize("country", RINGING)
def test_a_system_that_answers_early_and_rings(line: Line, country: str) -> None:
    rung = RINGING[country]
    assert who(line, rung, WORD, parameters=WAIT).who is Who.HUMAN
    assert who(line, rung, GREETING).who is Who.MACHINE
    nobody = who(line, rung)
    assert (nobody.who, nobody.why.startswith("ringing until")) == (Who.UNKNOWN, True)
    assert nobody.at_ms > len(rung) / 16


def test_ringing_does_not_go_on_for_ever() -> None:
    decision = who(LINES[0], tones.ringback(20), parameters=Parameters(longest_ringing_ms=20_000))
    assert decision.who is Who.UNKNOWN
    assert 20_000 <= decision.at_ms <= 25_000


@on_every_line
def test_busy_and_endless_tones_are_unknown(line: Line) -> None:
    for sound in (tones.busy(6), tones.busy(8, on_ms=240, off_ms=240)):
        decision = who(line, sound)
        assert (decision.who, "busy" in decision.why) == (Who.UNKNOWN, True)
    assert "does not end" in who(line, tone((425,), 8000, (-15,))).why


def test_information_tones_are_a_machine() -> None:
    three = joined(*(tone((hz,), 330, (-15,)) for hz in (950, 1400, 1800)))
    decision = who(LINES[0], silence(300), three, silence(300), GREETING)
    assert (decision.who, decision.at_ms < 1600) == (Who.MACHINE, True)


# --- the beep ---------------------------------------------------------------------------------------------------------


@on_every_line
@pytest.mark.parametrize(
    ("frequency_hz", "duration_ms"), [(350, 300), (440, 500), (850, 120), (1000, 1000), (2000, 250)]
)
def test_the_beep_after_a_greeting(line: Line, frequency_hz: float, duration_ms: int) -> None:
    beep = tones.beep(duration_ms, frequency_hz=frequency_hz)
    decision = who(line, GREETING, silence(300), beep, parameters=WAIT)
    assert decision.who is Who.BEEP
    over_ms = decision.at_ms - (6300 + duration_ms)
    assert 60 <= over_ms <= (800 if frequency_hz < 500 else 260)


def test_a_beep_right_after_a_short_greeting_is_no_person() -> None:
    assert who(LINES[0], WORD, silence(300), tones.beep(400)).who is Who.BEEP
    assert who(LINES[0], WORD, silence(600), tones.beep(400)).who is Who.BEEP


def test_a_beep_alone() -> None:
    decision = who(LINES[0], silence(600), tones.beep(400))
    assert (decision.who, decision.why.endswith("without a greeting")) == (Who.BEEP, True)


@pytest.mark.parametrize(
    "sound",
    [
        tones.busy(5),
        tones.ringback(2),
        tones.digits("1*"),
        tones.beep(60),
        tones.beep(1600),
        joined(tones.beep(300), talk(2)),
        noise(0.4, -20),
        music(4, -22),
    ],
    ids=["busy", "ringing", "digits", "too short", "too long", "speech goes on", "noise", "music"],
)
def test_what_is_no_beep(sound: Samples) -> None:
    decision = who(LINES[0], GREETING, silence(400), sound, parameters=WAIT)
    assert decision.who is Who.MACHINE
    assert decision.why.startswith("a greeting of")


def test_a_machine_that_is_quiet_records_already() -> None:
    decision = who(LINES[0], GREETING, parameters=WAIT)
    assert decision.who is Who.MACHINE
    assert decision.at_ms - decision.greeting.end_ms == pytest.approx(3000, abs=60)
    patient = Parameters(beep_ms=8000, beep_silence_ms=0)
    assert "no beep within 8000 ms" in who(LINES[0], GREETING, parameters=patient).why


def test_the_work_of_a_call_grows_slowly_while_it_goes_on() -> None:
    """Two minutes of greeting: what is kept grows, and the judgement reads it all: four times the work at its
    end. Far more would be a judgement that looks at everything several times."""
    frames = over(LINES[1], joined(*[GREETING] * 20), tail_ms=0)
    answerer, costs_ns = Answerer(Parameters(beep_ms=600_000)), []
    for at in range(0, len(frames), JUDGED_EVERY):
        began_ns = time.thread_time_ns()
        for samples in frames[at : at + JUDGED_EVERY]:
            answerer.hear(Frame(samples, 0))
        costs_ns.append(time.thread_time_ns() - began_ns)
    assert answerer.decision is None
    tenth = len(costs_ns) // 10
    assert median(costs_ns[-tenth:]) < 12 * median(costs_ns[:tenth])


def test_frames_of_zeros_cost_nothing_and_are_silence() -> None:
    assert judged([np.zeros(FRAME_SAMPLES, np.int16)] * 300).who is Who.SILENCE
