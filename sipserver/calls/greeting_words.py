"""What the words of a greeting say about who speaks: a machine by what it asks for, a person by what they ask us.

Owns the phrases. Pure. Refuses to hear: the text comes from a speech-to-text engine, whose spelling varies. Most of
what people say first, a machine may say too: then the words say nothing. `amd` asks with `transcript: true` only: a
transcript takes longer than `audio.answerer` needs.
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
        r"calls? (may|might|will|can) be (recorded|monitored)",
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
_QUESTIONS: dict[str, tuple[str, ...]] = {
    "en": (
        r"who('s| is) (this|it|there|that|calling|speaking)\b|who am i (speaking|talking) (to|with)",
        r"how (can|may) i (help|assist)|what can i do for you",
        r"can you hear me|is (anybody|anyone|somebody) there",
    ),
    "de": (
        r"wer ist (denn )?(da|dran|dort|am apparat)\b|wer spricht|mit wem (spreche|rede) ich",
        r"(was|wie|womit) (kann|darf) ich( \w+){0,2} (helfen|tun|dienen|behilflich)",
        r"hoeren sie mich|ist (da )?(jemand|wer) (da|dran)",
    ),
    "fr": (r"qui est (a l'appareil|la)\b|c'est qui|que puis je faire|je vous ecoute|vous m'entendez",),
    "it": (r"chi parla|chi e al telefono|mi sente\b",),
    "es": (r"quien (es|habla|llama)\b|en que (le |te )?puedo (ayudar|servir)|me (oye|escucha)\b",),
}
_SPELLED = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "’": "'", "-": " "})


def _any(phrases: dict[str, tuple[str, ...]]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{phrase})" for those in phrases.values() for phrase in those))


_RECORDED, _ASKED = _any(_PHRASES), _any(_QUESTIONS)


def of_transcript(text: str) -> Who | None:
    """MACHINE when the words are those of a recording (English, German, French, Italian, Spanish), else HUMAN when they
    are a question that only people ask; None: they say nothing about it. Case, accents and punctuation do not matter.
    """
    plain = _plain(text)
    if _RECORDED.search(plain):
        return Who.MACHINE
    return Who.HUMAN if _ASKED.search(plain) else None


def _plain(text: str) -> str:
    lower = text.lower().translate(_SPELLED)
    bare = "".join(each for each in unicodedata.normalize("NFD", lower) if not unicodedata.combining(each))
    return " ".join(re.findall(r"[\w']+", bare))
