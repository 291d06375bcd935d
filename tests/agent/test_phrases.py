"""The phrase rules, with what they must and must not match."""

from __future__ import annotations

import pytest

from sipserver.agent import phrases


@pytest.mark.parametrize(
    ("text", "language", "wish"),
    [
        ("Good bye.", "en", "end_call"),
        ("No thanks, that's all. Bye!", "en", "end_call"),
        ("OK, auf Wiederhören!", "de", "end_call"),
        ("Tschüss", "de", "end_call"),
        ("Merci, au revoir.", "fr", "end_call"),
        ("Adiós", "es", "end_call"),
        ("Grazie, arrivederci.", "it", "end_call"),
        ("I want to buy something nearby", "en", None),
        ("When I said good bye to my old provider in March I was told to call", "en", None),
        ("I had one more question before I say to all of you good bye", "en", None),
        ("Can I talk to a human please?", "en", "transfer"),
        ("I want to speak with a real person", "en", "transfer"),
        ("Get me an operator!", "en", "transfer"),
        ("I do not want to talk to a human", "en", None),
        ("Is a person allowed in?", "en", None),
        ("Ich möchte mit einem Mitarbeiter sprechen.", "de", "transfer"),
        ("Verbinden Sie mich bitte mit jemandem", "de", "transfer"),
        ("Ich will nicht mit einem Menschen sprechen", "de", None),
        ("Quiero hablar con una persona", "es", "transfer"),
        ("Vorrei parlare con un operatore", "it", "transfer"),
        ("Je voudrais parler à un conseiller", "fr", "transfer"),
        ("Good bye.", "fi", "end_call"),
        ("What are your opening hours?", "en", None),
        ("", "en", None),
    ],
)
def test_wishes(text: str, language: str, wish: str | None) -> None:
    assert phrases.wish(text, language) == wish


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Mhm.", "en", True),
        ("Yeah, okay.", "en", True),
        ("Uh-huh", "en", True),
        ("Mm-hmm.", "en", True),
        ("Ja genau.", "de", True),
        ("Ach so", "de", True),
        ("okay", "de", True),
        ("D'accord", "fr", True),
        ("Okay stop", "en", False),
        ("No", "en", False),
        ("Nein", "de", False),
        ("yeah yeah yeah yeah yeah", "en", False),
        ("", "en", False),
    ],
)
def test_backchannels(text: str, language: str, expected: bool) -> None:
    assert phrases.is_backchannel(text, language) is expected


def test_the_reprompt_speaks_the_language() -> None:
    assert phrases.reprompt("de") == "Entschuldigung, das habe ich nicht verstanden."
    assert phrases.reprompt("fi") == phrases.reprompt("en")
