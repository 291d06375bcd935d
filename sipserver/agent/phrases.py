"""Small, documented phrase rules: what must work without a model that can call tools, and what is no turn at all.

Two rules and one list, per language; matching is on whole words of the lower-cased transcript without punctuation.
- `farewell`: the utterance ends with a farewell and has at most six more words ("no thanks, good bye").
- `human`: the utterance asks for a person ("can I talk to a human please"), unless a negation stands before it.
- `backchannel`: the utterance consists of nothing but listener's noises ("mhm", "yeah okay"): no wish to speak.
Languages without a list of their own use the English one.
"""

from __future__ import annotations

import re
from typing import Literal

_FAREWELLS: dict[str, tuple[str, ...]] = {
    "en": ("good bye", "goodbye", "bye", "bye bye", "see you", "have a nice day", "that is all", "that's all"),
    "de": ("auf wiedersehen", "auf wiederhören", "tschüss", "tschüs", "tschau", "ciao", "servus", "das war alles"),
    "fr": ("au revoir", "bonne journée", "à bientôt", "c'est tout"),
    "es": ("adiós", "adios", "hasta luego", "eso es todo"),
    "it": ("arrivederci", "ciao", "buona giornata", "è tutto"),
}
_ASKING = {
    "en": r"(?:talk|speak|speaking|talking|connect me|put me through|transfer me|give me|get me|want|need|like)",
    "de": r"(?:sprechen|reden|verbinden|verbinde|durchstellen|möchte|will|brauche|geben)",
    "fr": r"(?:parler|passez|passer|transférez|veux|voudrais)",
    "es": r"(?:hablar|páseme|paseme|comuníqueme|quiero|quisiera|necesito)",
    "it": r"(?:parlare|passi|passami|voglio|vorrei)",
}
_PERSON = {
    "en": r"(?:human|person|real person|somebody|someone|operator|representative|agent|employee|staff|colleague)",
    "de": r"(?:mensch|menschen|mitarbeiter|mitarbeiterin|kollegen|kollegin|jemand|jemandem|person|zentrale|berater)",
    "fr": r"(?:humain|personne|conseiller|conseillère|opérateur|quelqu'un)",
    "es": r"(?:humano|persona|agente|operador|operadora|alguien)",
    "it": r"(?:umano|persona|operatore|operatrice|qualcuno)",
}
_NOT = {
    "en": r"(?:not|don't|dont|never)",
    "de": r"(?:nicht|kein|keinen|nie)",
    "fr": r"(?:pas|jamais)",
    "es": r"(?:no)",
    "it": r"(?:non)",
}
_NOISES = {
    "en": "mhm mm mmm mmhm hm hmm uh huh uhhuh ah oh yeah yes yep yup okay ok right sure i see aha",
    "de": "mhm mm mmm hm hmm ah oh aha ach so ja jaja genau okay ok gut klar stimmt richtig verstehe",
    "fr": "mhm mm hm hmm ah oh oui ouais d'accord ok okay bien voilà",
    "es": "mhm mm hm hmm ah oh sí si claro vale ok okay ya bueno",
    "it": "mhm mm hm hmm ah oh sì si certo ok okay va bene esatto",
}
_BACKCHANNELS = {language: frozenset(noises.split()) for language, noises in _NOISES.items()}
_REPROMPTS = {
    "en": "Sorry, I did not understand you.",
    "de": "Entschuldigung, das habe ich nicht verstanden.",
    "fr": "Pardon, je n'ai pas compris.",
    "es": "Perdone, no le he entendido.",
    "it": "Mi scusi, non ho capito.",
}
_CALLING = {
    "en": "One moment please, I am calling somebody for you.",
    "de": "Einen Moment bitte, ich rufe jemanden für Sie an.",
    "fr": "Un instant, j'appelle quelqu'un pour vous.",
    "es": "Un momento, estoy llamando a alguien para usted.",
    "it": "Un momento, sto chiamando qualcuno per lei.",
}
_NOBODY_COMES = {
    "busy": "is on another call",
    "no_answer": "does not answer",
    "declined": "cannot take the call now",
}
_MOST_WORDS_BEFORE_FAREWELL = 6
_MOST_BACKCHANNEL_WORDS = 4


def words(text: str) -> str:
    """Lower case, one space between words, no punctuation but apostrophes and hyphens within words."""
    return " ".join(re.findall(r"\w+(?:['’-]\w+)*", text.lower())).replace("’", "'")


def is_backchannel(text: str, language: str) -> bool:
    """True when the text is nothing but listener's noises; an empty text is not one."""
    spoken = words(text).replace("-", " ").split()
    known = _BACKCHANNELS.get(language, _BACKCHANNELS["en"]) | _BACKCHANNELS["en"]
    return 0 < len(spoken) <= _MOST_BACKCHANNEL_WORDS and all(word in known for word in spoken)


def reprompt(language: str) -> str:
    """What the agent says when it heard a voice and no words."""
    return _REPROMPTS.get(language, _REPROMPTS["en"])


def calling(language: str) -> str:
    """What the agent says while a person is called and nobody speaks."""
    return _CALLING.get(language, _CALLING["en"])


def nobody_comes(why: str) -> str:
    """What the model is told, as a turn of the caller's, when the person who was called is not there: busy | no_answer
    | declined | failed. In no language's rules it is a wish.
    """
    reason = _NOBODY_COMES.get(why, "cannot be reached")
    return (
        f"(The telephone reports: the person who was called {reason}, and you are still on the line with me. "
        "Tell me that in the language we use, and offer other help.)"
    )


def wish(text: str, language: str) -> Literal["end_call", "transfer"] | None:
    """What the caller asks for, by the rules above."""
    spoken = words(text)
    language = language if language in _ASKING else "en"
    asking, person, negation = _ASKING[language], _PERSON[language], _NOT[language]
    for order in (rf"\b{asking}\b.*\b{person}\b", rf"\b{person}\b.*\b{asking}\b"):
        found = re.search(order, spoken)
        if found and not re.search(rf"\b{negation}\b", spoken[: found.end()]):
            return "transfer"
    for farewell in _FAREWELLS.get(language, _FAREWELLS["en"]):
        before = spoken.removesuffix(farewell)
        if (
            before != spoken
            and (not before or before.endswith(" "))
            and len(before.split()) <= _MOST_WORDS_BEFORE_FAREWELL
        ):
            return "end_call"
    return None
