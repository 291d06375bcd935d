"""The trunks of a cell on the sip thread: who may come in by them, their accounts, codecs and headers.

Puts together what `door.py`, `accounts.py` and the trunks room know. Sip thread only; made on the loop before it runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

import pjsua2 as pj

from sipserver.errors import SettingsError
from sipserver.sip import media_policy
from sipserver.sip.account_config import edge_headers
from sipserver.sip.accounts import AccountBook
from sipserver.sip.admission import Refusal
from sipserver.sip.door import Door
from sipserver.sip.message import SipText
from sipserver.sip.offer import SipOffer
from sipserver.sip.pjcall import PjCall
from sipserver.sip.settings import SipSettings
from sipserver.trunks import secrets
from sipserver.trunks.admittance import Gatekeeper
from sipserver.trunks.identity import let_in
from sipserver.trunks.settings import TrunkSettings

SPOKEN = ("G722", "PCMA", "PCMU")
"""Codecs that PJSIP has here."""


class SipTrunks:
    """passwords: by the name of their environment variable. Raises SettingsError for what cannot work.

    Behind an edge, which does all the rest, only the trunks' rules for calls that already run count here, and the
    credentials of those that place calls.
    """

    def __init__(
        self, settings: SipSettings, trunks: Iterable[TrunkSettings] = (), passwords: Mapping[str, str] | None = None
    ) -> None:
        passwords = passwords or {}
        self._trunks = {trunk.name: trunk for trunk in trunks}
        self._at_work = not settings.behind_edge
        self._codecs = settings.codecs
        at_work = tuple(self._trunks.values()) if self._at_work else ()
        _check(settings, at_work, passwords)
        self.door = Door(Gatekeeper(at_work, passwords, settings.allow, settings.realm) if at_work else None)
        self.accounts = AccountBook(settings, at_work if self._at_work else _of_edge(self._trunks.values()), passwords)
        self._settings = settings

    def named(self, trunk: str) -> TrunkSettings | None:
        return self._trunks.get(trunk)

    def assign(self, call: PjCall, trunk: str) -> None:
        """Have a call follow the rules of its trunk; empty: it has none."""
        found = self._trunks.get(trunk)
        call.trunk, call.codecs = trunk, self.codecs_of(trunk)
        call.redirects = found is not None and found.redirects
        call.srtp = found.srtp if found is not None and self._at_work else "off"

    @property
    def use_tls(self) -> bool:
        return self._at_work and any(trunk.transport == "tls" for trunk in self._trunks.values())

    @property
    def have_credentials(self) -> bool:
        return any(trunk.credentials is not None for trunk in self._trunks.values())

    @property
    def codecs(self) -> tuple[str, ...]:
        """All that some call may use: those of the cell first."""
        trunks = self._trunks.values() if self._at_work else ()
        more = [codec for trunk in trunks for codec in trunk.codecs if codec in SPOKEN]
        return tuple(dict.fromkeys((*self._codecs, *more)))

    def codecs_of(self, trunk: str) -> tuple[str, ...]:
        """That a call may use, in order of preference; empty where the cell's own need no filter."""
        if not self._trunks or not self._at_work:
            return ()
        found = self._trunks.get(trunk)
        return tuple(codec for codec in found.codecs if codec in SPOKEN) if found is not None else self._codecs

    def unacceptable(self, invite: SipText) -> Refusal | None:
        """488 for the INVITE that was judged last, if its trunk's rules refuse its offer."""
        if not self.door.is_kept:
            return None
        trunk = self._trunks.get(self.door.trunk)
        return media_policy.refused(invite, self.codecs_of(self.door.trunk), trunk.srtp if trunk is not None else "off")

    def shown(self, offer: SipOffer) -> SipOffer:
        """The offer of the INVITE that was judged last, with its trunk and the headers that a dialplan may see."""
        name = self.door.trunk or offer.trunk
        trunk = self._trunks.get(name)
        if trunk is None or not self._at_work:
            return offer
        return replace(offer, trunk=name, headers=MappingProxyType(let_in(offer.headers, trunk.headers_in)))

    def headers_of(self, trunk: str) -> Mapping[str, str]:
        """Beside a call's own ones, in its INVITE through this trunk."""
        return edge_headers(self._settings, trunk)

    def for_outgoing(self, trunk: str, busy: Collection[str]) -> pj.Account:
        """The account of a call that begins now. Raises CapacityError when PJSIP has none left, pj.Error."""
        return self.accounts.for_outgoing(trunk, busy)


def _of_edge(trunks: Iterable[TrunkSettings]) -> list[TrunkSettings]:
    """As a cell has them whose calls go out by the edge: encryption is the edge's."""
    return [trunk.model_copy(update={"srtp": "off"}) for trunk in trunks if trunk.places_calls]


def _check(settings: SipSettings, trunks: Collection[TrunkSettings], passwords: Mapping[str, str]) -> None:
    secrets.check(trunks, passwords)
    for trunk in trunks:
        if trunk.transport == "tcp" and not settings.tcp:
            raise SettingsError(f"{trunk.name}: transport: tcp needs sip.tcp", key="trunks")
        if not set(trunk.codecs) & set(SPOKEN):
            raise SettingsError(f"{trunk.name}: none of its codecs is one of {', '.join(SPOKEN)}", key="trunks")
