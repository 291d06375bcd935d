"""The door of a server with trunks: has each request that belongs to no dialog judged before PJSIP serves it.

Owns reading the request for the gatekeeper, the words of the refusal, and by which trunk the call comes that PJSIP is
about to take: PJSIP serves one request at a time, so what was judged last is what it asks about. Refuses to judge.
Sip thread only.
"""

from __future__ import annotations

from sipserver.sip import native
from sipserver.sip.admission import SILENCE, SOURCE, TRUNK_PACE, Refusal
from sipserver.sip.message import SipText
from sipserver.trunks.admittance import Asked, Gatekeeper, Judgement, Verdict


class Door:
    """gatekeeper: None where everybody may come in who reaches the socket, or where an edge has judged before."""

    def __init__(self, gatekeeper: Gatekeeper | None) -> None:
        self._gatekeeper = gatekeeper
        self._judged = False
        self.invite: SipText | None = None
        """The INVITE that `knock` let pass; None where it could not read it."""
        self.trunk = self.source = ""
        """Of the INVITE that was judged last; source: `host:port`."""

    @property
    def is_kept(self) -> bool:
        return self._gatekeeper is not None

    def knock(self, method: str, rdata: int) -> Refusal | None:
        """Judge a request. rdata: address of its `pjsip_rx_data`. None when it may pass, or where this PJSIP hides what
        is needed to read it: then `enter` judges INVITEs, and other requests are not kept out.
        """
        self._judged, self.trunk, self.source, self.invite = False, "", "", None
        if self._gatekeeper is None:
            return None
        read = native.read_message(rdata)
        if read is None:
            return None
        text, self.source = read
        refusal = self._judge(method, self.source, text)
        self._judged = True
        if refusal is None and method == "INVITE":
            self.invite = SipText.parse(text)
        return refusal

    def is_stranger(self, rdata: int) -> bool:
        """Whether nobody knows the source of a request."""
        read = native.read_message(rdata) if self._gatekeeper is not None else None
        return read is not None and self._gatekeeper is not None and not self._gatekeeper.knows(read[1])

    @property
    def passing(self) -> str:
        """By which trunk the INVITE comes that PJSIP is about to take; empty for none, or where it cannot be read."""
        return self.trunk if self._judged else ""

    def enter(self, source: str, text: str) -> Refusal | None:
        """An INVITE that PJSIP has taken: judge it unless `knock` has. Once for each INVITE."""
        judged, self._judged = self._judged, False
        if self._gatekeeper is None or judged:
            return None
        self.trunk = ""
        return self._judge("INVITE", source, text)

    def _judge(self, method: str, source: str, text: str) -> Refusal | None:
        assert self._gatekeeper is not None
        judgement = self._gatekeeper.judge(method, source, lambda: _asked(text))
        if judgement.verdict is Verdict.ADMIT:
            self.trunk = judgement.trunk
        return refusal_of(judgement)


def refusal_of(judgement: Judgement) -> Refusal | None:
    match judgement.verdict:
        case Verdict.ADMIT:
            return None
        case Verdict.DROP:
            return SILENCE
        case Verdict.PACE:
            return TRUNK_PACE
        case Verdict.CHALLENGE:
            extra = tuple(("WWW-Authenticate", challenge) for challenge in judgement.challenges)
            return Refusal(401, "challenge", extra=extra)
        case _:
            return SOURCE


def _asked(text: str) -> Asked:
    message = SipText.parse(text)
    return Asked(message.request_uri, tuple(value for name, value in message.headers if name == "authorization"))
