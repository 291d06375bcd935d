"""SDP cut down to the codecs that a trunk may use. Pure; RFC 4566, RFC 3264.

Owns what stands in our own offers and answers. telephone-event always stays. Refuses to negotiate: PJSIP does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_STATIC = {"0": "PCMU", "8": "PCMA", "9": "G722"}
_AUDIO = re.compile(r"(?m)^m=audio (\d+)((?:/\d+)?) (\S+) ([^\r\n]*)")
_MAP = re.compile(r"(?m)^a=rtpmap:(\d+) ([^/\s]+)")
_OF_FORMAT = re.compile(r"(?m)^a=(?:rtpmap|fmtp|rtcp-fb):(\d+) [^\r\n]*(?:\r?\n|\Z)")
_EVENT = "TELEPHONE-EVENT"


def limited(sdp: str, codecs: Sequence[str], offered: str = "") -> str:
    """Our SDP with these codecs alone, in this order. offered: the far end's, when ours is the answer: then only the
    first one that both have stays, so that ours is the choice and nothing is sent in a second codec. Where none is left
    the SDP comes back with all that are allowed, and the negotiation fails.
    """
    audio = _AUDIO.search(sdp)
    if audio is None:
        return sdp
    names = names_of(sdp)
    by_name = {name: number for number, name in names.items() if name != _EVENT}
    allowed = [codec.upper() for codec in codecs if codec.upper() in by_name]
    if offered:
        theirs = set(names_of(offered).values())
        allowed = [codec for codec in allowed if codec in theirs][:1] or allowed
    kept = [by_name[codec] for codec in allowed] + [number for number, name in names.items() if name == _EVENT]
    if not allowed:
        return sdp
    line = f"m=audio {audio.group(1)}{audio.group(2)} {audio.group(3)} {' '.join(kept)}"
    rest, following, others = sdp[audio.end() :].partition("\nm=")
    rest = _OF_FORMAT.sub(lambda found: found.group(0) if found.group(1) in kept else "", rest)
    return sdp[: audio.start()] + line + rest + following + others


def common(offered: str, codecs: Sequence[str]) -> bool:
    """Whether an offer has one of the codecs; an INVITE without SDP (a late offer) has all."""
    return not offered or bool({codec.upper() for codec in codecs} & set(names_of(offered).values()))


def names_of(sdp: str) -> dict[str, str]:
    """Upper-case codec names of the first audio stream by payload type, in the stream's order."""
    audio = _AUDIO.search(sdp)
    if audio is None:
        return {}
    maps = {number: name.upper() for number, name in _MAP.findall(sdp[audio.start() :].partition("\nm=")[0])}
    found = {number: maps.get(number) or _STATIC.get(number, "") for number in audio.group(4).split()}
    return {number: name for number, name in found.items() if name}
