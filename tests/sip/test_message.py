from __future__ import annotations

import pytest

from sipserver.sip.message import SipText, redact, uri_of, user_of
from sipserver.sip.offer import SipOffer

INVITE = (
    "INVITE sip:+49%33@pbx;user=phone SIP/2.0\r\nv: SIP/2.0/TLS 10.0.0.1;branch=z9hG4bKx\r\n"
    'f: "A, <b>" <sip:anna@example.org>;tag=1\r\nTo: <tel:+4930;phone-context=x>\r\ni: abc\r\nCSeq: 1 INVITE\r\n'
    "X-Long: one\r\n two\r\nbroken line\r\nc: application/sdp;charset=utf-8\r\n\r\n"
    "v=0\r\na=crypto:1 X inline:key\r\nk=clear:k\r\n"
)


def test_reads_compact_and_folded_headers() -> None:
    message = SipText.parse(INVITE)
    assert (message.header("call-id"), message.header("x-long"), message.header("nothing")) == ("abc", "one two", "")
    assert (message.method, message.transport, message.summary, message.has_sdp) == ("INVITE", "tls", "INVITE", True)
    assert not message.is_response


def test_reads_responses() -> None:
    message = SipText.parse("SIP/2.0 180 Ringing\r\nCSeq: 7 INVITE\r\n\r\n")
    assert (message.summary, message.method, message.request_uri) == ("180 Ringing (INVITE)", "INVITE", "")


@pytest.mark.parametrize("text", ["", "\r\n\r\n", "x", "INVITE\r\n:\r\n", "\n\n", "\x00"])
def test_what_cannot_be_read_is_empty(text: str) -> None:
    message = SipText.parse(text)
    assert (message.header("from"), message.request_uri, message.has_sdp, message.transport) == ("", "", False, "")


@pytest.mark.parametrize(
    ("uri", "user"),
    [
        ("sip:anna@example.org", "anna"),
        ("sips:anna:secret@example.org;transport=tls", "anna"),
        ("sip:%2B49@pbx", "+49"),
        ("sip:+49;npdi@pbx", "+49"),
        ("tel:+4930;phone-context=x", "+4930"),
        ("sip:pbx.example.org", ""),
        ("mailto:x@y", ""),
        ("", ""),
    ],
)
def test_user_of_a_uri(uri: str, user: str) -> None:
    assert user_of(uri) == user


def test_uri_of_an_address() -> None:
    assert uri_of('"x" <sip:a@b;lr>;tag=1') == "sip:a@b;lr"
    assert uri_of("sip:a@b;tag=1") == "sip:a@b"
    assert uri_of("Anna B. <sip:a@b>") == "sip:a@b"


@pytest.mark.parametrize(
    ("address", "uri"),
    [
        ('"Bank <sip:1@bank>" <sip:2@carrier>;tag=1', "sip:2@carrier"),
        ('"Bank \\" <sip:1@bank>" <sip:2@carrier>', "sip:2@carrier"),
        ('"Bank\\\\" <sip:2@carrier>;x="<sip:1@bank>"', "sip:2@carrier"),
        ('"Bank <sip:1@bank>', ""),
        ('sip:2@carrier;x="<sip:1@bank>"', "sip:2@carrier"),
        ('"Bank" sip:2@carrier', ""),
    ],
)
def test_what_a_display_name_quotes_is_no_address(address: str, uri: str) -> None:
    assert uri_of(address) == uri
    assert SipOffer.of_invite(SipText.parse(f"INVITE sip:1@x SIP/2.0\r\nFrom: {address}\r\n\r\n"), "").from_uri == uri


@pytest.mark.parametrize("end", ["\r", "\v", "\f", "\x1c", "\x85", "\u2028"])
def test_what_is_no_end_of_a_line_begins_no_header(end: str) -> None:
    message = SipText.parse(f"INVITE sip:1@x SIP/2.0\r\nSubject: x{end}X-Sipserver-Trunk: carrier\r\nX-A: b\r\n\r\n")
    assert [name for name, _ in message.headers] == ["subject", "x-a"]


@pytest.mark.parametrize("end", ["\n\n", "\r\n\n", "\n\r\n"])
def test_no_header_comes_after_the_first_empty_line(end: str) -> None:
    message = SipText.parse(f"INVITE sip:1@x SIP/2.0\r\nX-A: b{end}X-Sipserver-Trunk: carrier\r\n\r\n")
    assert message.headers == (("x-a", "b"),)
    assert message.body == "X-Sipserver-Trunk: carrier\r\n\r\n"


@pytest.mark.parametrize(
    "line",
    ["Authorization: Digest response=sesame", "proxy-authorization : Digest a=1,\r\n sesame", "Authorization: sesame"],
)
def test_credentials_are_redacted(line: str) -> None:
    text = redact(f"BYE sip:a SIP/2.0\r\n{line}\r\nX-Kept: yes\r\n\r\n")
    assert "sesame" not in text
    assert "[redacted]\r\nX-Kept: yes" in text


def test_media_keys_are_redacted() -> None:
    text = redact(INVITE)
    assert "inline" not in text
    assert "k=[redacted]" in text
    assert text.startswith("INVITE sip:+49%33@pbx")


def test_an_offer_takes_the_facts_of_the_invite() -> None:
    offer = SipOffer.of_invite(SipText.parse(INVITE), "192.0.2.1:5060")
    assert (offer.direction, offer.transport, offer.source) == ("inbound", "tls", "192.0.2.1:5060")
    assert (offer.to_uri, offer.to_user) == ("sip:+49%33@pbx;user=phone", "+493")
    assert dict(offer.headers) == {"x-long": "one two"}
    with pytest.raises(TypeError):
        offer.headers["x"] = "y"  # type: ignore[index]


def test_an_offer_for_a_call_that_we_place() -> None:
    offer = SipOffer.of_dial("<sip:200@pbx:5070;transport=tcp>", '"Us" <sip:me@here>', "id", {"X-A": "1"})
    assert (offer.direction, offer.to_user, offer.from_user, offer.source) == ("outbound", "200", "me", "pbx:5070")
    assert (offer.transport, offer.headers["x-a"], offer.sip_call_id) == ("tcp", "1", "id")
    shown = SipOffer.of_dial("sip:200@pbx", '"<sip:evil@x>" <sip:me@here>', "id", {})
    assert (shown.from_uri, shown.from_user) == ("sip:me@here", "me")
