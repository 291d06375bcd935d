"""What the words of a greeting say about who speaks: a machine gives itself away by what it asks for.

Owns the phrases. Pure. Refuses to hear: the text comes from a speech-to-text engine, whose spelling varies. It can only
find machines: what a person says first, a machine may say too. Nothing asks it by default: a transcript takes longer
than `audio.answerer` needs, and is worth that only where a machine that is short and then quiet must not be taken for a
person.
"""

from __future__ import annotations

import re
import unicodedata

from sipserver.audio.answerer import Who

_PHRASES: dict[str, tuple[str, ...]] = {
    "en": (
        r"(after|at|following) the (tone|beep|signal)",
        r"leave (me |us |your |a |an? \w+ )*(name|message|number)",
        r"(voice ?mail|answering machine|mail ?box|automat\w* voice)",
        r"(record|take) (your|a) message",
        r"(cannot|can not|can't|unable to|not able to) (take|answer|pick up|come to)( \w+){0,2} (call|phone)",
        r"(you have|you've) reached",
        r"(is|are|am) (currently |presently |momentarily )?(not available|unavailable)",
        r"(cannot|can not|can't) be reached",
        r"(number|person|subscriber|customer) you (have |are )?(dialed|dialled|called|calling|trying)",
        r"not in service|has been disconnected",
        r"(call|try)( \w+){0,2} again later",
        r"(get|call) (right )?back to you|(will|'ll) (call|get) (you )?back",
        r"press (one|two|three|[0-9])|for (sales|support|english)\b",
        r"(office|opening|business) hours",
    ),
    "de": (
        r"nach dem (signal|piep|pfeif)?-?\s?(ton|piepton|signalton|pieps|piep)",
        r"(mail ?box|sprach ?box|anruf ?beantworter|voice ?mail)",
        r"(hinterlass\w*|hinterlaß\w*)( \w+){0,4} (nachricht|namen|rufnummer|telefonnummer)",
        r"(nachricht\w*|etwas)( \w+){0,3} (hinterlassen|aufs band|auf band)",
        r"nicht (erreichbar|zu hause|zuhause|vergeben|am platz|im buero)|nicht persoenlich",
        r"kein anschluss unter dieser nummer",
        r"ausserhalb (unserer|der) (geschaefts|oeffnungs|buero|sprech)\w*",
        r"(rufen|versuchen) sie( \w+){0,4} (spaeter|wieder|noch einmal|nochmal)",
        r"gewaehlte (ruf)?nummer",
        r"(alle|saemtliche) (leitungen|mitarbeiter\w*|plaetze) (sind |im )?( ?\w+){0,2}(belegt|gespraech|besetzt)",
        r"(rufe|rufen|melde|melden)( \w+){0,3} zurueck",
        r"druecken sie (bitte )?(die )?(eins|zwei|drei|[0-9])",
    ),
    "fr": (
        r"apres le (bip|signal sonore|signal)",
        r"(boite vocale|messagerie|repondeur)",
        r"laisse(r|z)( \w+){0,3} (message|coordonnees|nom)",
        r"n'?est pas (joignable|disponible|attribue)",
    ),
    "it": (
        r"dopo il (segnale|bip)",
        r"segreteria telefonica|casella vocale",
        r"lascia(re|te)?( \w+){0,3} messaggio",
        r"non (e )?(raggiungibile|disponibile)",
    ),
    "es": (
        r"despues (de la senal|del tono|de oir la senal)",
        r"buzon (de voz)?|contestador",
        r"deje( \w+){0,3} mensaje",
        r"no esta disponible",
    ),
}
_SPELLED = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "’": "'", "-": " "})
_ANY = re.compile("|".join(f"(?:{phrase})" for phrases in _PHRASES.values() for phrase in phrases))


def of_transcript(text: str) -> Who | None:
    """MACHINE when the words are those of a recording (English, German, French, Italian, Spanish); None: they say
    nothing about it. Case, accents and punctuation do not matter.
    """
    return Who.MACHINE if _ANY.search(_plain(text)) else None


def _plain(text: str) -> str:
    lower = text.lower().translate(_SPELLED)
    bare = "".join(each for each in unicodedata.normalize("NFD", lower) if not unicodedata.combining(each))
    return " ".join(re.findall(r"[\w']+", bare))
