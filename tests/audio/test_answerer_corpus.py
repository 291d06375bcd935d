"""People and machines with real voices, over good and bad lines: how often the decision is right.

The bench `amd` says the same with all lines, and with greetings by which no parameter was chosen.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable

import pytest

from sipserver.audio.answerer import Parameters, Who
from sipserver.audio.frame import Samples
from tests.fakes.answerers import HUMANS, LINES, MACHINES, Greeting, judged, over, spoken

pytestmark = [
    pytest.mark.models,
    pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed"),
]

CHOSEN = [
    line for line in LINES if line.name in {"clean", "late", "quiet", "noise 20 dB below", "8 % lost", "music behind"}
]

Sounds = dict[Greeting, Samples]


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Sounds:
    greetings = (*HUMANS, *MACHINES)
    return dict(zip(greetings, spoken(greetings, tmp_path_factory.mktemp("voices")), strict=True))


def answers(sounds: Sounds, greetings: Iterable[Greeting], parameters: Parameters) -> Counter[Who]:
    return Counter(
        judged(over(line, sounds[greeting], seed=seed), parameters).who
        for seed, greeting in enumerate(greetings)
        for line in CHOSEN
    )


def test_people_are_told_from_machines(sounds: Sounds) -> None:
    found = answers(sounds, HUMANS, Parameters())
    assert found.total() == len(HUMANS) * len(CHOSEN) >= 120
    assert found[Who.HUMAN] >= 0.95 * found.total(), found


def test_machines_are_told_from_people_and_their_beep_is_heard(sounds: Sounds) -> None:
    with_beep = [greeting for greeting in MACHINES if greeting.beep_ms]
    without = [greeting for greeting in MACHINES if not greeting.beep_ms]
    beeped = answers(sounds, with_beep, Parameters(beep_ms=15_000))
    silent = answers(sounds, without, Parameters(beep_ms=15_000))
    total = beeped.total() + silent.total()
    assert total == len(MACHINES) * len(CHOSEN) >= 120
    assert beeped[Who.HUMAN] + silent[Who.HUMAN] <= 0.06 * total, (beeped, silent)
    assert beeped[Who.BEEP] >= 0.9 * beeped.total(), beeped
    assert silent[Who.MACHINE] >= 0.93 * silent.total(), silent
    assert silent[Who.BEEP] == 0, silent
