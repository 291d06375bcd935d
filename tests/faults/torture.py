"""Torture messages in the spirit of RFC 4475, written for this server: odd but valid, and broken.

Every valid INVITE calls the user `refuse`, whose dialplan answers 603: an exact answer shows that the message was
understood, and no call stays behind. Pure: `{port}` and `{unique}` are filled in by who sends them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SDP = (
    "v=0\r\no=t 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=audio 40000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
)

START = "INVITE sip:refuse@127.0.0.1 SIP/2.0"
HEADERS = {
    "Via": "SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bK{unique};rport",
    "Max-Forwards": "70",
    "From": "<sip:torture@127.0.0.1:{port}>;tag={unique}",
    "To": "<sip:refuse@127.0.0.1>",
    "Call-ID": "{unique}@127.0.0.1",
    "CSeq": "1 INVITE",
    "Contact": "<sip:torture@127.0.0.1:{port}>",
    "Content-Type": "application/sdp",
}

SILENCE = 0


@dataclass(frozen=True, slots=True)
class Torture:
    """answers: the final codes that are right; SILENCE among them if saying nothing is."""

    name: str
    message: bytes
    answers: frozenset[int]

    def filled(self, port: int, unique: str) -> bytes:
        return self.message.replace(b"{port}", str(port).encode()).replace(b"{unique}", unique.encode())


def message(
    start: str = START,
    changes: Mapping[str, str] | None = None,
    *,
    body: str = SDP,
    length: str | None = None,
    drop: str = "",
    extra: str = "",
) -> bytes:
    """An INVITE with some headers changed, one dropped, or more before the blank line. length: "" for no header."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in {**HEADERS, **(changes or {})}.items() if name != drop)
    counted = str(len(body.encode())) if length is None else length
    return f"{start}\r\n{lines}{extra}{f'Content-Length: {counted}' if counted else ''}\r\n\r\n{body}".encode().replace(
        b"\r\n\r\n\r\n", b"\r\n\r\n"
    )


def _valid(name: str, text: bytes) -> Torture:
    return Torture(name, text, frozenset({603}))


def _broken(name: str, text: bytes, *answers: int) -> Torture:
    """To be refused with 400 or one of the answers, or ignored: what cannot be parsed cannot always be answered.

    603 among them: PJSIP's parser lets it pass, and the dialplan refused it.
    """
    return Torture(name, text, frozenset({SILENCE, 400, *answers}))


_COMPACT = (
    "INVITE sip:refuse@127.0.0.1 SIP/2.0\r\n"
    "v : SIP / 2.0 / UDP\r\n  127.0.0.1:{port} ; branch = z9hG4bK{unique}\t;rport\r\n"
    "MAX-FORWARDS :\r\n\t 0070\r\n"
    'f: "J Rosenberg \\\\\\"" <sip:torture@127.0.0.1:{port}>\r\n ; tag = {unique}\r\n'
    "TO :\r\n sip:refuse@127.0.0.1\r\n"
    "i: {unique}@127.0.0.1\r\n"
    "cseq: 0009\r\n  INVITE\r\n"
    'm: "Quoted string \\"\\"" <sip:torture@127.0.0.1:{port};newparam=newvalue>\r\n ;hidden=1\r\n'
    "NewFangledHeader:   newfangled value\r\n continued newfangled value\r\n"
    "UnknownHeaderWithUnusualValue: ;;,,;;,;\r\n"
    "c: application/sdp\r\n"
    f"l: {len(SDP)}\r\n\r\n{SDP}"
).encode()

_MIXED_CASE = message().replace(b"Call-ID", b"cALL-iD").replace(b"CSeq", b"csEQ").replace(b"Via", b"vIA")

ODD_BUT_VALID = (
    _valid("compact forms, folding and odd spaces", _COMPACT),
    _valid("header names in mixed case", _MIXED_CASE),
    _valid("no Max-Forwards", message(drop="Max-Forwards")),
    _valid("escaped user in the request URI", message("INVITE sip:%72efus%65@127.0.0.1 SIP/2.0")),
    _valid("unknown URI parameters", message("INVITE sip:refuse@127.0.0.1;unknown=%41;x;y=1 SIP/2.0")),
    _valid("a header of 1,800 bytes", message(extra=f"X-Long: {'a' * 1800}\r\n")),
    _valid("sixty unknown headers", message(extra="".join(f"X-{n}: {n}\r\n" for n in range(60)))),
    _valid("twenty more Vias", message(extra="Via: SIP/2.0/UDP 127.0.0.2:5071;branch=z9hG4bKaa\r\n" * 20)),
    _valid("an unknown header that is not UTF-8", message(extra="X-Name: NAME\r\n").replace(b"NAME", b"\xc3\x28\xff")),
    _valid("a session name that is not UTF-8", message().replace(b"s=-", b"s=\xff")),
    _valid("an escaped null in the From user", message(changes={"From": "<sip:null-%00-null@127.0.0.1>;tag={unique}"})),
    _valid("an empty display name", message(changes={"From": '"" <sip:torture@127.0.0.1>;tag={unique}'})),
    _valid("a tel URI in From", message(changes={"From": "<tel:+493012345>;tag={unique}"})),
    _valid("the largest sequence number", message(changes={"CSeq": "2147483647 INVITE"})),
)

BROKEN = (
    _broken("bytes after the body", message() + b"trailing bytes that do not belong to it", 488, 603),
    _broken("an empty datagram", b""),
    _broken("one byte", b"\x00"),
    _broken("random bytes", bytes((n * 73 + 41) % 256 for n in range(700))),
    _broken("a STUN binding request", bytes.fromhex("000100002112a442") + b"sipserver-tx"),
    _broken("an RTP packet", b"\x80\x00\x00\x01" + bytes(168)),
    _broken("the start line alone", f"{START}\r\n\r\n".encode()),
    _broken("no blank line", message(body="", length="0").rstrip(b"\r\n"), 603),
    _broken("a method in lower case", message("invite sip:refuse@127.0.0.1 SIP/2.0"), 405, 501, 603),
    _broken("an unknown method", message("NONSENSE sip:refuse@127.0.0.1 SIP/2.0", {"CSeq": "1 NONSENSE"}), 405, 501),
    _broken("a later version", message("INVITE sip:refuse@127.0.0.1 SIP/7.0"), 505),
    _broken("an unknown scheme", message("INVITE nobodyKnowsThisScheme:totallyopaque SIP/2.0"), 416),
    _broken("a web address", message("INVITE http://127.0.0.1/ SIP/2.0"), 416),
    _broken("no request URI", message("INVITE SIP/2.0")),
    _broken("spaces in the request URI", message("INVITE sip:refuse@127.0.0.1; lr SIP/2.0")),
    _broken("angle brackets around the request URI", message("INVITE <sip:refuse@127.0.0.1> SIP/2.0")),
    _broken("a request URI of 4,000 bytes", message(f"INVITE sip:{'u' * 4000}@127.0.0.1 SIP/2.0"), 404, 414),
    *(_broken(f"no {name}", message(drop=name)) for name in ("Via", "From", "To", "Call-ID", "CSeq")),
    _broken("no Contact", message(drop="Contact"), 603),
    _broken("no tag in From", message(changes={"From": "<sip:torture@127.0.0.1>"}), 603),
    _broken("a negative length", message(length="-999")),
    _broken("a length that is no number", message(length="many")),
    _broken("a length beyond the datagram", message(length="9999"), 603),
    _broken("a length that overflows", message(length="99999999999999999999"), 603),
    _broken("a length that cuts the body", message(length="40"), 488, 603),
    _broken("a method in CSeq that is another", message(changes={"CSeq": "1 OPTIONS"}), 500),
    _broken("a sequence number that overflows", message(changes={"CSeq": "36893488147419103232 INVITE"}), 603),
    _broken("a sequence number that is no number", message(changes={"CSeq": "one INVITE"}), 603),
    _broken("Max-Forwards 0", message(changes={"Max-Forwards": "0"}), 483, 603),
    _broken("Max-Forwards that overflows", message(changes={"Max-Forwards": "99999999999"}), 483, 603),
    _broken("an unclosed quote", message(changes={"To": '"Mr. Nobody <sip:refuse@127.0.0.1>'}), 603),
    _broken("an unclosed bracket", message(changes={"To": "<sip:refuse@127.0.0.1"}), 603),
    _broken(
        "two of what there may be one of", message(extra="CSeq: 5 BYE\r\nCall-ID: other\r\nTo: <sip:a@b>\r\n"), 500, 603
    ),
    _broken("two lengths", message(extra="Content-Length: 3\r\n"), 488, 603),
    _broken("null bytes in a header", message(extra="X-Null: a\0b\r\n").replace(b"\\0", b"\0"), 603),
    _broken("null bytes in the URI", message("INVITE sip:re\0fuse@127.0.0.1 SIP/2.0"), 404, 416, 603),
    _broken("a header of 50,000 bytes", message(extra=f"X-Huge: {'h' * 50_000}\r\n"), 413, 513, 603),
    _broken("five hundred Vias", message(extra="Via: SIP/2.0/UDP 127.0.0.2;branch=z9hG4bKaa\r\n" * 500), 513, 603),
    _broken("five thousand headers", message(extra="A: b\r\n" * 5000), 513, 603),
    _broken("a port that cannot be", message("INVITE sip:refuse@127.0.0.1:99999999 SIP/2.0"), 404, 416, 603),
    _broken("a host that cannot be", message("INVITE sip:refuse@[::::::1::2 SIP/2.0"), 404, 416, 603),
    _broken("a Via to nowhere", message(changes={"Via": "SIP/2.0/UDP 0.0.0.0:0;branch=z9hG4bK{unique}"}), 603),
    _broken(
        "a Via with an unknown transport",
        message(changes={"Via": "SIP/2.0/XYZ 127.0.0.1:{port};branch=z9hG4bK{unique}"}),
        603,
    ),
    _broken("a Contact that is a star", message(changes={"Contact": "*"}), 603),
    _broken("a Content-Type that is none", message(changes={"Content-Type": "/"}), 415, 488, 603),
    _broken(
        "a body that is called multipart and is not",
        message(changes={"Content-Type": "multipart/mixed;boundary=x"}),
        415,
        488,
        603,
    ),
    _broken("a Require of ten thousand bytes", message(extra=f"Require: {','.join(['no'] * 3000)}\r\n"), 420, 513, 603),
    _broken("a negative session interval", message(extra="Supported: timer\r\nSession-Expires: -1\r\n"), 422, 603),
    _broken(
        "a session interval that overflows",
        message(extra="Supported: timer\r\nSession-Expires: 99999999999999\r\n"),
        422,
        603,
    ),
    _broken("an answer that nobody asked for", message("SIP/2.0 200 OK")),
    _broken("an answer with a code that cannot be", message("SIP/2.0 4294967301 better not")),
    _broken("a BYE out of nowhere", message("BYE sip:refuse@127.0.0.1 SIP/2.0", {"CSeq": "1 BYE"}), 481),
    _broken("an ACK out of nowhere", message("ACK sip:refuse@127.0.0.1 SIP/2.0", {"CSeq": "1 ACK"})),
    _broken("a CANCEL out of nowhere", message("CANCEL sip:refuse@127.0.0.1 SIP/2.0", {"CSeq": "1 CANCEL"}), 481),
)

_AUDIO = "m=audio 40000 RTP/AVP 0"

BAD_SDP = (
    *(
        _broken(f"SDP cut after line {n}", message(body="\r\n".join(SDP.split("\r\n")[:n]) + "\r\n"), 488, 603)
        for n in range(1, 7)
    ),
    _broken("SDP cut within a line", message(body=SDP[: SDP.index("RTP/AVP") + 4]), 488, 603),
    _broken("SDP that is not SDP", message(body="hello, this is no session description\r\n"), 488),
    _broken("SDP without an address", message(body=SDP.replace("c=IN IP4 127.0.0.1\r\n", "")), 488),
    _broken("an address that is none", message(body=SDP.replace("IP4 127.0.0.1\r\nt", "IP4 999.1.1.1\r\nt")), 488, 603),
    _broken("an address of IPv6", message(body=SDP.replace("IN IP4 127.0.0.1\r\nt", "IN IP6 ::1\r\nt")), 488, 603),
    _broken(
        "a host name for an address",
        message(body=SDP.replace("IP4 127.0.0.1\r\nt", "IP4 nowhere.invalid\r\nt")),
        488,
        603,
    ),
    _broken("a port that is none", message(body=SDP.replace("40000", "999999")), 488, 603),
    _broken("a negative port", message(body=SDP.replace("40000", "-1")), 488, 603),
    _broken("port 0 for all media", message(body=SDP.replace("40000", "0")), 488, 603),
    _broken("a payload type that overflows", message(body=SDP.replace("AVP 0", "AVP 0 300 70000")), 488, 603),
    _broken("a clock rate of 0", message(body=SDP.replace("PCMU/8000", "PCMU/0")), 488, 603),
    _broken(
        "two thousand payload types", message(body=SDP.replace("AVP 0", "AVP " + " ".join(["0"] * 2000))), 488, 603
    ),
    _broken("a hundred m-lines", message(body=SDP + "m=audio 40002 RTP/AVP 0\r\n" * 100), 488, 603),
    _broken("m-lines without audio", message(body=SDP.replace(_AUDIO, "m=image 40000 udptl t38")), 488, 603),
    _broken("only SRTP", message(body=SDP.replace("RTP/AVP", "RTP/SAVP")), 488, 603),
    _broken("ptime 0", message(body=SDP + "a=ptime:0\r\n"), 488, 603),
    _broken("ptime that overflows", message(body=SDP + "a=ptime:99999999999\r\n"), 488, 603),
    _broken(
        "telephone-event of nonsense",
        message(body=SDP.replace("AVP 0", "AVP 0 101") + "a=rtpmap:101 telephone-event\r\na=fmtp:101 99-1,x\r\n"),
        488,
        603,
    ),
    _broken("null bytes in SDP", message(body=SDP.replace("s=-", "s=\0")), 488, 603),
)
