"""Which offers a trunk's rules refuse before anything is made of them: no common codec, no or unwanted keys. Pure.

SDES alone (RFC 4568). Refuses to negotiate: PJSIP does, with an account of the trunk's `srtp`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sipserver.sip import codec_filter
from sipserver.sip.admission import Refusal
from sipserver.sip.message import SipText
from sipserver.trunks.settings import Srtp

NO_CODEC = Refusal(488, "codec")
NO_KEYS = Refusal(488, "srtp")

_AUDIO = re.compile(r"(?m)^m=audio (\d+)(?:/\d+)? (\S+)")
_CRYPTO = re.compile(r"(?m)^a=crypto:\d+ \S+ inline:")


def refused(invite: SipText, codecs: Sequence[str], srtp: Srtp) -> Refusal | None:
    """488 for an offer that the trunk cannot answer; None for one without SDP (a late offer) or in several parts."""
    if invite.content_type != "application/sdp" or not invite.body.strip():
        return None
    audio = _AUDIO.search(invite.body)
    if audio is None:
        return None  # PJSIP says what is wrong with it
    encrypted_only = audio.group(2).startswith("RTP/SAVP")
    has_keys = bool(_CRYPTO.search(invite.body[audio.start() :].partition("\nm=")[0]))
    if (encrypted_only and (srtp == "off" or not has_keys)) or (srtp == "required" and not encrypted_only):
        return NO_KEYS
    return None if codec_filter.common(invite.body, codecs) else NO_CODEC
