from __future__ import annotations

from typing import Any

import pytest

from sipserver.sip.codec_filter import common, limited, names_of
from sipserver.sip.media_policy import NO_CODEC, NO_KEYS, refused
from sipserver.sip.message import SipText
from tests.fakes.sip_peer import sdp

CODECS = ("G722", "PCMA")
KEY = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz\r\n"
PLAIN, WITH_KEYS = sdp(9, "8 101"), sdp(9, "8 101", extra=KEY)
ENCRYPTED = WITH_KEYS.replace("RTP/AVP", "RTP/SAVP")
WITHOUT_KEYS = PLAIN.replace("RTP/AVP", "RTP/SAVP")


def invite(body: str, kind: str = "application/sdp") -> SipText:
    return SipText.parse(f"INVITE sip:a@b SIP/2.0\r\nContent-Type: {kind}\r\n\r\n{body}")


@pytest.mark.parametrize(
    ("srtp", "accepted"),
    [
        ("off", {"plain", "with keys"}),
        ("offered", {"plain", "with keys", "encrypted"}),
        ("required", {"encrypted"}),
    ],
)
def test_keys(srtp: Any, accepted: set[str]) -> None:
    offers = {"plain": PLAIN, "with keys": WITH_KEYS, "encrypted": ENCRYPTED, "without keys": WITHOUT_KEYS}
    found = {name for name, body in offers.items() if refused(invite(body), CODECS, srtp) is None}
    assert found == accepted
    assert {refused(invite(body), CODECS, srtp) for body in offers.values()} == {None, NO_KEYS}


def test_keys_of_another_stream_do_not_count() -> None:
    body = WITHOUT_KEYS + "m=video 9 RTP/SAVP 96\r\n" + KEY
    assert refused(invite(body), CODECS, "offered") is NO_KEYS


def test_codecs() -> None:
    assert refused(invite(sdp(9, "0 101")), CODECS, "off") is NO_CODEC
    assert refused(invite(sdp(9, "18 101")), CODECS, "off") is NO_CODEC
    assert refused(invite(sdp(9, "0 8 101")), CODECS, "off") is None
    assert refused(invite(sdp(9, "8")), CODECS, "off") is None


def test_what_is_no_single_offer_is_left_to_pjsip() -> None:
    assert refused(invite(""), CODECS, "required") is None
    assert refused(invite("v=0\r\n"), CODECS, "required") is None
    assert refused(invite("--x", "multipart/mixed"), CODECS, "required") is None


def test_an_offer_is_cut_down_and_ordered() -> None:
    ours = limited(sdp(9, "0 8 9 101"), CODECS)
    assert "m=audio 9 RTP/AVP 9 8 101\r\n" in ours
    assert list(names_of(ours).values()) == ["G722", "PCMA", "TELEPHONE-EVENT"]
    assert "PCMU" not in ours
    assert "a=ptime:20\r\n" in ours


def test_an_answer_has_the_first_that_both_have() -> None:
    assert "m=audio 9 RTP/AVP 8 101\r\n" in limited(sdp(9, "0 8 9 101"), CODECS, sdp(9, "0 8 101"))
    assert "m=audio 9 RTP/AVP 9 101\r\n" in limited(sdp(9, "0 8 9 101"), CODECS, sdp(9, "8 9 101"))
    dynamic = sdp(9, "96").replace("a=ptime", "a=rtpmap:96 pcma/8000\r\na=ptime")
    assert "m=audio 9 RTP/AVP 8 101\r\n" in limited(sdp(9, "0 8 9 101"), CODECS, dynamic)
    assert common(dynamic, CODECS)


def test_other_streams_are_not_touched() -> None:
    video = "m=video 0 RTP/AVP 0\r\na=rtpmap:0 H264/90000\r\n"
    assert limited(sdp(9, "0 8 101") + video, CODECS).endswith(video)
    assert limited(video, CODECS) == video
