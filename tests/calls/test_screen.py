"""What of events is told: card numbers, digits, secrets, and what happens while nothing is kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver import events
from sipserver.calls.screen import WITHHELD, Screen
from sipserver.calls.settings import Redact
from sipserver.events import KINDS, Event
from tests.calls.conftest import Stage
from tests.fakes.leg import breathe

CARD = "4111111111111111"


def typed(screen: Screen, digits: str, gap_ms: int = 100, leg: str = "") -> str:
    """The digits as they are told."""
    told = ""
    for number, digit in enumerate(digits):
        shown = screen.shown(events.DigitReceived(digit, leg=leg), number * gap_ms)
        assert isinstance(shown, events.DigitReceived)
        told += shown.digit
    return told


def test_a_card_number_that_is_typed_is_not_told() -> None:
    screen = Screen(Redact.CARDS)
    assert typed(screen, CARD) == "411111" + "*" * 10
    shown = screen.shown(events.VariableSet("card", CARD), 0)
    assert shown == events.VariableSet("card", "[card number]")
    assert screen.shown(events.DigitsSent(CARD), 0) == events.DigitsSent("[card number]")


def test_short_numbers_are_told_as_they_are() -> None:
    assert typed(Screen(Redact.CARDS), "4711#4711#1234567") == "4711#4711#123456*"
    assert typed(Screen(Redact.CARDS), "123456789", gap_ms=61_000) == "123456789"
    assert typed(Screen(Redact.OFF), CARD) == CARD
    assert typed(Screen(Redact.DIGITS), "12#") == "***"


def test_rows_of_two_legs_do_not_count_together() -> None:
    screen = Screen(Redact.CARDS)
    assert typed(screen, "12345") + typed(screen, "12345", leg="party-1") == "1234512345"


def test_numbers_of_callers_stay_whatever_they_look_like() -> None:
    started = events.CallStarted("inbound", from_uri=f"sip:{CARD}@here", to_uri=f"sip:{CARD}@there")
    for redact in Redact:
        assert Screen(redact).shown(started, 0) is started


def test_all_digits_go_where_that_is_set() -> None:
    screen = Screen(Redact.DIGITS)
    assert screen.shown(events.Transcript("my pin is 4711"), 0) == events.Transcript("my pin is ****")
    assert screen.shown(events.Spoken("12 of 13", "12"), 0) == events.Spoken("** of **", "**")


@pytest.mark.parametrize("redact", [Redact.CARDS, Redact.DIGITS])
def test_of_what_was_heard_no_more_is_told_than_of_what_was_said(redact: Redact) -> None:
    text = "Your card is 4012 8888 8888 1881 thanks."
    for length in range(len(text) + 1):
        shown = Screen(redact).shown(events.Spoken(text, text[:length]), 0)
        assert isinstance(shown, events.Spoken)
        assert not any(character.isdecimal() for character in shown.text + shown.heard)
        assert shown.heard.startswith("Your card is "[:length])
    alone = Screen(Redact.CARDS).shown(events.Spoken("Something else", "4012 8888 8888"), 0)
    assert alone == events.Spoken("Something else", "4012 88** ****")


@pytest.mark.parametrize("cut", range(len("88 1881, thanks") + 1))
def test_of_what_was_heard_of_a_second_part_nothing_is_told_beyond_the_tenth_digit(cut: int) -> None:
    screen, text = Screen(Redact.CARDS), "88 1881, thanks"
    first = events.Spoken("It is 4012 8888 88", "It is 4012 8888 88")
    assert screen.shown(first, 0) == first
    assert screen.shown(events.Spoken(text, text[:cut]), 0) == events.Spoken("** ****, thanks", "** ****, thanks"[:cut])


@pytest.mark.parametrize(
    "kind",
    [
        events.Transcript,
        events.ClauseSynthesised,
        lambda text: events.Spoken(text, text),
        lambda text: events.ModelSpan("model", "cancelled", 1, 1, text=text),
        events.DigitsSent,
    ],
)
def test_of_a_card_number_that_is_said_in_four_parts_two_are_told(kind: Callable[[str], Event]) -> None:
    screen, told = Screen(Redact.CARDS), ""
    for text in ("5555.", "4444.", "3333.", "1111."):
        shown = screen.shown(kind(text), 0)
        assert shown is not None
        told += str([value for value in shown.fields().values() if isinstance(value, str)])
    assert "5555" in told
    assert "4444" in told
    assert "3" not in told
    assert "1" not in told


def test_voices_do_not_count_together() -> None:
    screen = Screen(Redact.CARDS)
    assert screen.shown(events.Transcript("4711"), 0) == events.Transcript("4711")
    assert screen.shown(events.Spoken("4711", "4711"), 0) == events.Spoken("4711", "4711")
    assert screen.shown(events.DigitsSent("4711"), 0) == events.DigitsSent("4711")
    assert screen.shown(events.DigitsSent("4711", leg="b"), 0) == events.DigitsSent("4711", leg="b")


def test_a_guess_and_the_words_themselves_are_told_alike() -> None:
    screen = Screen(Redact.CARDS)
    for final in (False, False, True):
        shown = screen.shown(events.Transcript("It is 4711", final=final), 0)
        assert shown == events.Transcript("It is 4711", final=final)
    for text, told in (("4711", "4711"), ("4711", "****")):
        assert screen.shown(events.Transcript(text), 0) == events.Transcript(told)


def test_a_number_to_call_back_is_told_while_it_is_said_and_after() -> None:
    screen, number, code = Screen(Redact.CARDS), "My number is 415 555 2671.", "My zip code is 94107."
    for text, final in ((number[:20], False), (number, False), (number, True), (code[:17], False), (code, True)):
        transcript = events.Transcript(text, final=final)
        assert screen.shown(transcript, 0) == transcript


def test_an_info_carries_no_digit() -> None:
    info = events.SipMessage("received", "INFO", text="INFO sip:x SIP/2.0\r\nCall-ID: 1\r\n\r\nSignal=5\r\n")
    shown = Screen(Redact.CARDS).shown(info, 0)
    assert isinstance(shown, events.SipMessage)
    assert shown.text == "INFO sip:x SIP/2.0\r\nCall-ID: 1\r\n\r\n"


def test_faults_and_tools_do_not_repeat_a_card_number() -> None:
    screen = Screen(Redact.CARDS)
    for event in (
        events.Fault("dialplan", f"no such number: {CARD}"),
        events.ToolSpan("pay", True, 1, f'{{"card": "{CARD}"}}', f"took {CARD}"),
        events.CallEnded("dialplan_hangup", 200, f"at {CARD}"),
    ):
        shown = screen.shown(event, 0)
        assert shown is not None
        assert CARD not in str(shown.fields())


def made(kind: type[Event], text: str) -> Event:
    """An event with the text in every field that is private or free."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        values[field.name] = {"str": text, "int": 1, "bool": True, "float": 1.0}.get(str(field.type))
    return kind(**values)


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: str(kind.kind))
def test_no_private_field_of_any_event_is_told_while_nothing_is_kept(kind: type[Event]) -> None:
    screen = Screen(Redact.OFF)
    screen.secured = True
    shown = screen.shown(made(kind, "marmalade"), 0)
    if shown is None:
        assert screen.hidden == 1
        return
    for field in dataclasses.fields(shown):
        if field.metadata.get("private") or field.name in ("error", "detail"):
            assert getattr(shown, field.name) == ""


@given(st.text("0123456789", min_size=4, max_size=30), st.sampled_from(sorted(KINDS)))
def test_a_secret_is_in_no_event(secret: str, kind: str) -> None:
    screen = Screen(Redact.OFF)
    screen.keep_secret((secret,))
    shown = screen.shown(made(KINDS[kind], f"it is {secret}."), 0)
    assert shown is not None
    assert secret not in "".join(value for value in shown.fields().values() if isinstance(value, str))


def test_a_short_secret_is_hidden_where_it_is_all_there_is() -> None:
    screen = Screen(Redact.OFF)
    screen.keep_secret(("12",))
    assert screen.shown(events.VariableSet("pin", "12"), 0) == events.VariableSet("pin", WITHHELD)
    assert screen.shown(events.Transcript("I am 12"), 0) == events.Transcript("I am 12")


async def test_a_call_whose_caller_hangs_up_in_the_middle_of_a_card_number_tells_no_more_of_it(stage: Stage) -> None:
    leg, _call = stage.call(
        "  main: [answer, {say: '5555. 4444. 3333. 1111.'}, {say: Your card is 5555 4444 3333 1111 thanks a lot.}]"
    )
    await stage.until(lambda: any("thanks" in text for text in stage.tts.texts), leg)
    for _ in range(10):
        await breathe()
    for _ in range(6):  # a frame a word
        leg.tick_now()
    leg.peer_leaves()
    await stage.ended(leg)
    cut = stage.records.of(events.Spoken)[-1]
    assert isinstance(cut, events.Spoken)
    assert (cut.heard, cut.complete) == ("Your card is [card number]", False)
    for stamped in (*stage.listened, *stage.records.stamped):
        assert "3333" not in str(stamped.event.fields())
        assert "1111" not in str(stamped.event.fields())
