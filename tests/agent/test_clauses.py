"""Clauses out of tokens, however the tokens fall."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.agent.clauses import LONG_CHARACTERS, ClauseSplitter, sentences, speakable, split


def by_character(text: str) -> list[str]:
    return split(list(text))


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("Yes, of course. We are open.", ["Yes,", "of course.", "We are open."]),
        ("Hello! How are you?", ["Hello!", "How are you?"]),
        ("It costs 3.50 euros. Fine?", ["It costs 3.50 euros.", "Fine?"]),
        ("It costs 1,000 euros, all in all.", ["It costs 1,000 euros,", "all in all."]),
        ("Dr. Miller is here. He waits.", ["Dr. Miller is here.", "He waits."]),
        ("Fruit, e.g. apples. Also z.B. pears.", ["Fruit,", "e.g. apples.", "Also z.B. pears."]),
        ("Am 3. Mai um neun. Gut?", ["Am 3. Mai um neun.", "Gut?"]),
        ("John F. Kennedy was here. Yes.", ["John F. Kennedy was here.", "Yes."]),
        ("Really?! Yes.", ["Really?!", "Yes."]),
        ('He said "no." Then he left.', ['He said "no."', "Then he left."]),
        ("Wait... then go on. Bye.", ["Wait...", "then go on.", "Bye."]),
        ("See example.com for more. Bye.", ["See example.com for more.", "Bye."]),
        ("No. 5 is free. No. Not that one.", ["No. 5 is free.", "No.", "Not that one."]),
        ("One\nTwo\n", ["One", "Two"]),
        ("I am glad that you have called us today about it", ["I am glad that you have", "called us today about it"]),
        ("Later, at ten, it opens, and so on.", ["Later,", "at ten, it opens, and so on."]),
        ("", []),
        ("   ", []),
        ("...", []),
    ],
)
def test_clauses(text: str, clauses: list[str]) -> None:
    assert by_character(text) == clauses


def test_the_whole_text_at_once_gives_the_same() -> None:
    text = "Yes, of course. It costs 3.50 euros, Mr. Miller. Anything else?"
    assert split([text]) == by_character(text)


def test_a_clause_is_there_as_soon_as_the_next_character_is_known() -> None:
    splitter = ClauseSplitter()
    assert splitter.push("Yes") == []
    assert splitter.push(",") == []
    assert splitter.push(" we") == ["Yes,"]


def test_a_long_sentence_is_cut_at_a_pause() -> None:
    long = "Well, " + "this goes on and on, " * 30
    clauses = split([long])
    assert all(len(clause) <= LONG_CHARACTERS for clause in clauses)
    assert all(clause.endswith(",") for clause in clauses)


def test_a_word_without_end_is_cut_somewhere() -> None:
    assert all(len(clause) <= LONG_CHARACTERS for clause in split(["Well, " + "a" * 1000]))


def test_marks_are_not_spoken() -> None:
    assert speakable("**Bold** and `code`\n- one") == "Bold and code one"
    assert speakable("***") == ""


def test_fixed_texts_are_cut_at_sentences_only() -> None:
    assert sentences("Hello, this is Acme. How can I help?") == ["Hello, this is Acme.", "How can I help?"]


@given(st.lists(st.text(alphabet="ab .,!?\n3é", max_size=12), max_size=20))
def test_nothing_that_can_be_spoken_is_lost(tokens: list[str]) -> None:
    def letters(text: str) -> str:
        return "".join(character for character in text if character.isalnum())

    assert letters("".join(split(tokens))) == letters("".join(tokens))
