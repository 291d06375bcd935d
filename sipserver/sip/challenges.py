"""Ends a challenge loop after the second challenge: PJSIP would answer a fourth one.

A request with our credentials that is challenged again was rejected; what has been sent once more is only another hash
for whoever collects them. PJSIP goes on as long as the nonce changes, and pjsua2 has no word in it. So one module
stands before the transactions, and makes the realm of a second challenge in a row for the same call and realm one that
we have no credentials for: then the 401 or 407 is final. Where PJSIP's memory is not as expected, PJSIP's own limit
remains. Sip thread only.
"""

from __future__ import annotations

import ctypes
import re
from collections import OrderedDict
from typing import Any

from sipserver.log import logger
from sipserver.sip import native
from sipserver.sip.message import SipText
from sipserver.sip.pj_module import Hook

_PRIORITY = 12  # behind the transport layer (8), before the transactions (16)
_MOST_CALLS = 1000
_PACKET_WITHIN = 1024
"""The packet begins so far into a `pjsip_rx_data` at most; its size is 4000 bytes and more."""
_CHALLENGED = re.compile(r"^Response msg (401|407)/")
_FINAL = re.compile(r"^Response msg [2-6]\d\d/")
_REALM = re.compile(rb'(?im)^(?:www|proxy)-authenticate[ \t]*:[^\r\n]*?\brealm[ \t]*=[ \t]*"([^"\r\n]+)"')


class ChallengeCount:
    """How often calls were challenged in a row. Pure."""

    def __init__(self) -> None:
        self._last: OrderedDict[tuple[str, str, str], tuple[str, int]] = OrderedDict()

    def challenged(self, call_id: str, method: str, realm: str, cseq: str) -> int:
        """The number of this challenge. A response that comes twice counts once."""
        key = (call_id, method, realm)
        before, count = self._last.pop(key, ("", 0))
        count += before != cseq
        self._last[key] = (cseq, count)
        if len(self._last) > _MOST_CALLS:
            self._last.popitem(last=False)
        return count

    def answered(self, call_id: str, method: str) -> None:
        """Something else than a challenge came: the next challenge is a first one."""
        for key in [key for key in self._last if key[:2] == (call_id, method)]:
            del self._last[key]


class ChallengeLimit:
    """Sip thread; keep the object until `remove`."""

    def __init__(self) -> None:
        self._count = ChallengeCount()
        self._hook = Hook("mod-sipserver-challenges", _PRIORITY, on_rx_response=self._on_response)
        self._describe: Any = None

    def install(self) -> bool:
        """After `libInit`. True when the module is in place."""
        self._describe = native.function("pjsip_rx_data_get_info")
        if self._describe is None or not self._hook.install():
            logger("sip").warning("this PJSIP takes no module of ours: it ends challenge loops itself, later")
            return False
        return True

    def remove(self) -> None:
        """Before `libDestroy`."""
        self._hook.remove()

    def _on_response(self, rdata: int) -> int:
        """0: the next module's turn. Must not raise into C."""
        try:
            described = (self._describe(rdata) or b"").decode("ascii", "replace")
            if _FINAL.match(described):
                self._look(rdata, challenged=bool(_CHALLENGED.match(described)))
        except Exception:
            logger("sip").exception("a challenge could not be counted")
        return 0

    def _look(self, rdata: int, *, challenged: bool) -> None:
        read = native.read_message(rdata)
        if read is None:
            return
        text = read[0]
        message = SipText.parse(text)
        call_id, (cseq, _, method) = message.header("call-id"), message.header("cseq").partition(" ")
        if not challenged:
            self._count.answered(call_id, method)
            return
        found = _REALM.search(text.encode("utf-8", "surrogateescape"))
        if found is None:
            return
        if self._count.challenged(call_id, method, found.group(1).decode("utf-8", "replace"), cseq) > 1:
            logger("sip").warning("credentials were rejected", method=method)
            _spoil(rdata, text.encode("utf-8", "surrogateescape"))


def _spoil(rdata: int, packet: bytes) -> None:
    """Change every realm of a received message where it lies; PJSIP's parser points into the packet."""
    place = ctypes.string_at(rdata, _PACKET_WITHIN + len(packet[:64])).find(packet[:64])
    if not 0 <= place < _PACKET_WITHIN or ctypes.string_at(rdata + place, len(packet)) != packet:
        return
    for realm in _REALM.finditer(packet):
        ctypes.memset(rdata + place + realm.start(1), 0x01, 1)
