"""Words of recordings are known; those of people are not taken for them."""

from __future__ import annotations

import re

import pytest

from sipserver.audio.answerer import Who
from sipserver.calls.greeting_words import of_transcript
from tests.fakes.answerers import HUMANS, MACHINES, OTHER_HUMANS, OTHER_MACHINES


def words(text: str) -> str:
    return re.sub(r"\[\d+\] ?", "", text)


@pytest.mark.parametrize(
    "text",
    [
        "Please leave a message after the tone.",
        "please leave your name and number",
        "You’ve reached the VOICE MAIL of Bob",
        "The subscriber cannot be reached.",
        "We can't come to the phone right now",
        "Bitte sprechen Sie nach dem Signalton!",
        "bitte sprechen sie nach dem Piepton",
        "Hier ist die Mail-Box von Peter.",
        "Sie können mir eine Nachricht hinterlassen",
        "Kein Anschluß unter dieser Nummer",
        "Wir sind ausserhalb unserer Öffnungszeiten",
        "Veuillez laisser un message après le bip sonore.",
        "Lasciate un messaggio dopo il segnale acustico",
        "Deje su mensaje después de la señal.",
    ],
)
def test_recordings(text: str) -> None:
    assert of_transcript(text) is Who.MACHINE


@pytest.mark.parametrize(
    "text",
    ["", "Hello?", "...", "I have a message for you", "Ja, bitte?", "Was ist das für ein Ton?", "Who's calling?"],
)
def test_what_says_nothing_about_it(text: str) -> None:
    assert of_transcript(text) is None


def test_greetings_of_people_and_machines() -> None:
    people = [greeting.text for greeting in HUMANS + OTHER_HUMANS if of_transcript(words(greeting.text))]
    assert people == []
    machines = [of_transcript(words(greeting.text)) for greeting in MACHINES + OTHER_MACHINES]
    assert machines.count(Who.MACHINE) >= 0.75 * len(machines)
