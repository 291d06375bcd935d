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
        "Calls may be recorded for training purposes.",
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
    ["", "Hello?", "...", "I have a message for you", "Ja, bitte?", "Was ist das für ein Ton?", "How can we help you?"],
)
def test_what_says_nothing_about_it(text: str) -> None:
    assert of_transcript(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "Hello, who's speaking please?",
        "Good morning, Miller and Sons, Jane speaking, how can I help you?",
        "Hallo, wer ist da?",
        "Firma Bauer, guten Tag, was kann ich für Sie tun?",
        "Allô, qui est à l’appareil ?",
        "Pronto, chi parla?",
        "¿Quién es?",
    ],
)
def test_what_only_people_ask(text: str) -> None:
    assert of_transcript(text) is Who.HUMAN


def test_a_recording_that_asks_is_a_recording() -> None:
    assert of_transcript("Who's calling? Leave your name after the tone.") is Who.MACHINE


def test_greetings_of_people_and_machines() -> None:
    people = [of_transcript(words(greeting.text)) for greeting in HUMANS + OTHER_HUMANS]
    assert Who.MACHINE not in people
    machines = [of_transcript(words(greeting.text)) for greeting in MACHINES + OTHER_MACHINES]
    assert Who.HUMAN not in machines
    assert machines.count(Who.MACHINE) >= 0.75 * len(machines)
