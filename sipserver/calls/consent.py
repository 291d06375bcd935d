"""Whether somebody who was asked for a yes or a no said one of them.

Owns the phrases. Pure. Refuses to hear: the text comes from a speech-to-text engine, whose spelling varies. English and
German. What is neither, or both, is unclear, and no guess is made: a wrong yes connects somebody who does not want it.
"""

from __future__ import annotations

import re
import unicodedata

_IDIOMS = re.compile(
    r"\b(no (problem|worries|trouble)|not a problem|why not|(i )?(don't|do not) mind|by all means"
    r"|kein(e|erlei)? (problem|thema|umstaende)|warum (denn )?nicht|(hab\w*|ist|ich) nichts dagegen)\b"
)
"""A yes that looks like a no."""

_UNSURE = re.compile(r"\b(not( (so|quite|really))? sure|nicht( (so|ganz|wirklich))? sicher|no idea|keine ahnung)\b")
"""Neither, although it looks like one."""

_NOT = r"(?:not|don't|do not|never|nicht|niemals)"

_VERBS = (
    r"put (\w+ ){1,3}through|(connect|patch|transfer) (me|us|\w+ (call|over|in|through)|them|him|her)|take (it|them|him"
    r"|her|(the|this|that) (call|one))|bring (them|him|her) (on|in)|durch(zu)?stell\w*|durchgestellt"
    r"|stell\w* (\w+ ){0,4}durch|verbind\w*|nehm\w* (\w+ ){0,2}(an|ich|entgegen)|(ich|den|das) (\w+ )?nehm\w*"
    r"|uebernehm\w*|passt|gib ihn mir|geben sie (\w+ )?her"
)
_WILLING = (
    r"yes|yeah|yep|yup|yea|sure|certainly|absolutely|definitely|of course|ok|okay|all right|alright|fine|gladly"
    r"|go ahead|accept(ed)?|please do|ja|jawohl|jo|jep|jepp|klar|gerne?|natuerlich|selbstverstaendlich|sicher"
    rf"|in ordnung|einverstanden|akzeptier\w*|her damit|{_VERBS}"
)
_YES = re.compile(rf"\b({_WILLING})\b")
_NEGATED = re.compile(
    rf"\b{_NOT}( \w+){{0,2}} ({_WILLING})\b|\b({_VERBS})( \w+){{0,2}} (nicht|niemals)\b"
    r"|\bstell\w* (\w+ ){0,2}nicht (\w+ ){0,2}durch\b"
)
_EXCUSES = re.compile(
    r"\b((not|nicht) (now|right now|at the moment|today|available|interested|in|here|jetzt|heute|gerade|da|erreichbar)"
    r"|(jetzt|gerade|heute|momentan|leider|geht|kann|will|moechte|mag) (\w+ ){0,2}nicht"
    r"|(can't|cannot|can not|won't|will not|unable|couldn't)|busy|occupied|in a (meeting|call)|on another (call|line)"
    r"|later|call (\w+ ){0,2}back|another time|some other time|no time|in \w+ (minutes|hours?)|tomorrow"
    r"|spaeter|besetzt|beschaeftigt|keine zeit|ein ander(es )?mal|(rufe?|melde) (\w+ ){0,3}zurueck|zurueckrufen"
    r"|in (einer|der) besprechung|im (meeting|gespraech|termin)|in \w+ (minuten|stunden?)"
    r"|(?<!guten )morgen|unpassend)\b"
)
_NO = re.compile(
    r"\b(no(?! one)|nope|nah|never|decline\w*|reject\w*|refuse\w*|nein|nee|noe|ne|niemals|auf keinen fall)\b"
)

_SPELLED = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "’": "'", "-": " "})


def consents(text: str) -> bool | None:
    """True: yes. False: no, or an excuse ("not now", "später"), whatever else is said. None: it is unclear."""
    said = _UNSURE.sub(" ", _plain(text))
    willing = bool(_IDIOMS.search(said))
    said = _IDIOMS.sub(" ", said)
    if _EXCUSES.search(said) or _NEGATED.search(said):
        return False
    yes, no = willing or bool(_YES.search(said)), bool(_NO.search(said))
    return yes if yes is not no else None


def _plain(text: str) -> str:
    lower = text.lower().translate(_SPELLED)
    bare = "".join(each for each in unicodedata.normalize("NFD", lower) if not unicodedata.combining(each))
    return " ".join(re.findall(r"[\w']+", bare))
