"""Language tags (BCP 47) as engines and agents pass them: only the primary subtag decides what an engine can do."""

from __future__ import annotations

AUTO = "auto"


def primary(tag: str) -> str:
    """`de-AT` and `de_AT` -> `de`; `auto` stays `auto`."""
    return tag.replace("_", "-").partition("-")[0].lower()


_NAMES = (
    "ar arabic, bg bulgarian, bs bosnian, ca catalan, cs czech, cy welsh, da danish, de german, el greek, en english, "
    "es spanish, et estonian, eu basque, fa persian, fi finnish, fr french, gl galician, he hebrew, hi hindi, "
    "hr croatian, hu hungarian, id indonesian, is icelandic, it italian, ja japanese, ko korean, lt lithuanian, "
    "lv latvian, mk macedonian, ms malay, nl dutch, no norwegian, pl polish, pt portuguese, ro romanian, ru russian, "
    "sk slovak, sl slovenian, sq albanian, sr serbian, sv swedish, th thai, tr turkish, uk ukrainian, ur urdu, "
    "vi vietnamese, zh chinese"
)
_TAG_OF_NAME = {name: tag for tag, _, name in (entry.partition(" ") for entry in _NAMES.split(", "))}


def of_name(name: str) -> str:
    """`german` -> `de`, as OpenAI's API names languages; tags stay tags, unknown names stay as they are."""
    return _TAG_OF_NAME.get(name.lower()) or primary(name)
