"""Answering machine detection: how often it is right, and when it decides, over greetings by real voices and bad lines.

Each greeting goes over each line of `tests.fakes.answerers`: mu-law, noise, loss, music behind. Times count from the
answer, beside the end of what was said: nobody can know that a person is a person before they are quiet. `others` are
greetings by which no parameter was chosen.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from sipserver.audio import tones
from sipserver.audio.answerer import Answerer, Decision, Parameters, Who
from sipserver.audio.frame import FRAME_MS, Frame, Samples
from tests.fakes.answerers import (
    HUMANS,
    LINES,
    MACHINES,
    OTHER_HUMANS,
    OTHER_MACHINES,
    Greeting,
    judged,
    music,
    over,
    spoken,
)
from tools.bench.report import Row, spread

WAIT = Parameters(beep_ms=20_000)

Spoken = Sequence[tuple[Greeting, Samples]]


def measure(folder: Path) -> Sequence[Row]:
    rows: list[Row] = []
    for title, people, machines in (
        ("", HUMANS, MACHINES),
        ("others: ", OTHER_HUMANS, OTHER_MACHINES),
    ):
        said = list(zip(people + machines, spoken(people + machines, folder), strict=True))
        rows += _people(title, said[: len(people)])
        rows += _machines(title, said[len(people) :])
    return [*rows, *_others(), _cost()]


def _answers(said: Spoken, rule: Parameters) -> list[tuple[Greeting, Decision]]:
    return [
        (greeting, judged(over(line, samples, seed=seed), rule))
        for seed, (greeting, samples) in enumerate(said)
        for line in LINES
    ]


def _people(title: str, said: Spoken) -> Iterable[Row]:
    found = [decision for _, decision in _answers(said, Parameters())]
    what = f"{title}{len(said)} people"
    yield Row(what, _told(found, {Who.HUMAN}), ">= 90 % right" if not title else "", f"{len(LINES)} lines each")
    right = [decision for decision in found if decision.who is Who.HUMAN]
    yield Row(f"... {title}decided after", spread([decision.at_ms for decision in right]))
    late = [decision.at_ms - decision.greeting.end_ms for decision in right]
    yield Row(f"... {title}after their last word", spread(late))


def _machines(title: str, said: Spoken) -> Iterable[Row]:
    found = [decision for _, decision in _answers(said, Parameters())]
    right = {Who.MACHINE, Who.BEEP}
    goal = ">= 90 % right, <= 5 % called human" if not title else ""
    yield Row(f"{title}{len(said)} machines", _told(found, right), goal, f"{len(LINES)} lines each")
    times = [decision.at_ms for decision in found if decision.who in right]
    yield Row(f"... {title}decided after", spread(times))
    beeping = [each for each in said if each[0].beep_ms]
    waited = _answers(beeping, WAIT)
    what = f"... {title}the beep of {len(beeping)} of them awaited"
    goal = ">= 90 % right" if not title else ""
    yield Row(what, _told([decision for _, decision in waited], {Who.BEEP}), goal, "350-2000 Hz, 150-1000 ms")
    silent = [each for each in said if not each[0].beep_ms]
    told = _told([decision for _, decision in _answers(silent, WAIT)], {Who.MACHINE})
    yield Row(f"... {title}a beep awaited of {len(silent)} that have none", told)


def _others() -> Iterable[Row]:
    ringing = tones.ringback(3)
    sounds: dict[str, tuple[Samples, set[Who]]] = {
        "nothing": (tones.silence(6000), {Who.SILENCE}),
        "ringing of a system that answers early": (ringing, {Who.UNKNOWN}),
        "busy": (tones.busy(6), {Who.UNKNOWN}),
        "digits": (tones.digits("123456"), {Who.SILENCE}),
        "fax, CED": (tones.beep(2600, frequency_hz=2100), {Who.FAX}),
        "fax, CNG": (tones.beep(500, frequency_hz=1100), {Who.FAX}),
        "music": (music(12, -22), {Who.MACHINE, Who.UNKNOWN}),
    }
    for name, (sound, right) in sounds.items():
        found = [judged(over(line, sound, seed=seed), Parameters()) for seed, line in enumerate(LINES)]
        yield Row(name, _told(found, right), "", f"{', '.join(sorted(right))} is right")


def _told(found: Sequence[Decision], right: set[Who]) -> str:
    counts = Counter(decision.who for decision in found)
    share = 100 * sum(counts[who] for who in right) / len(found)
    return f"{share:.1f} % right: " + ", ".join(f"{who} {counts[who]}" for who in Who if counts[who])


def _cost() -> Row:
    frames = over(LINES[6], music(60, -24), tail_ms=0)
    answerer = Answerer(Parameters(greeting_ms=10**9, maximum_words=10**9, total_analysis_ms=10**9))
    began = time.process_time()
    for samples in frames[: 5000 // FRAME_MS]:
        answerer.hear(Frame(samples, 0))
    return Row("CPU of listening", f"{(time.process_time() - began) / 5 * 1000:.1f} ms a second of sound", "", "5 s")
