"""A yes, a no, or neither, as engines write them."""

from __future__ import annotations

import pytest

from sipserver.calls.consent import consents

YES = [
    "Yes.", "yes please", "Yeah, sure!", "Yep", "Okay.", "OK, go ahead.", "Sure, put them through.", "Put him through",
    "Please put the caller through.", "I'll take it.", "Of course", "Alright, connect me.",
    "No problem, put her through", "Why not?", "I don't mind.", "Fine.", "Yes, I can take the call.", "Absolutely",
    "By all means.",
    "Ja.", "Ja, gerne!", "Ja bitte", "Gerne", "Durchstellen bitte.", "Stellen Sie ihn durch.", "Stell sie mal durch",
    "Klar, ich übernehme.", "In Ordnung", "Kein Problem.", "Ja, warum nicht", "Natürlich.", "Bitte verbinden", "Jawohl",
    "Selbstverständlich, verbinden Sie mich.", "Okay, das passt.", "Guten Morgen, ja", "Ich habe nichts dagegen",
]  # fmt: skip
NO = [
    "No.", "No, thanks.", "Nope", "Not now.", "I'm busy.", "Yes, but not now", "Sorry, I can't take it right now.",
    "Call back later please", "Tell them I'll call them back.", "I am in a meeting", "Don't put them through.",
    "Please do not connect me", "That's not okay", "I cannot.", "Okay, but later", "Maybe tomorrow", "In five minutes",
    "Never.", "I'm not available",
    "Nein.", "Nein danke", "Jetzt nicht.", "Nicht jetzt!", "Ja, aber später.", "Ich kann gerade nicht", "Geht nicht",
    "Keine Zeit", "Ich rufe nachher zurück", "Stellen Sie ihn nicht durch.", "Bitte nicht durchstellen",
    "Das passt gerade nicht.", "Bin in einer Besprechung", "Auf keinen Fall", "Ich will nicht", "Ne",
    "Verbinden Sie mich nicht", "Ein andermal, gerne",
]  # fmt: skip
UNCLEAR = [
    "", "...", "Hello?", "Who is it?", "What?", "I don't know.", "I'm not sure.", "One moment.", "Pardon?",
    "No one told me.", "No, yes.", "Can you repeat that", "This is Bob speaking", "No idea",
    "Hallo?", "Wer ist denn dran?", "Wie bitte?", "Moment mal.", "Ich weiß nicht.", "Keine Ahnung", "Nein, doch, ja.",
    "Ich bin nicht sicher", "Das war gestern",
]  # fmt: skip


ALL = [(text, answer) for texts, answer in ((YES, True), (NO, False), (UNCLEAR, None)) for text in texts]


@pytest.mark.parametrize(("text", "answer"), ALL)
def test_what_is_said(text: str, answer: bool | None) -> None:
    assert consents(text) is answer


@pytest.mark.parametrize("text", [*YES, *NO])
def test_case_and_punctuation_do_not_matter(text: str) -> None:
    assert consents(text.upper()) is consents(text)
    assert consents(f"  ... {text.rstrip('.!?')} ?!") is consents(text)
