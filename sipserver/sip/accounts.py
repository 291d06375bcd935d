"""PJSIP's accounts: which call uses which, and REGISTER and OPTIONS of trunks. Sip thread only.

Owns the account objects from their creation to their destruction, and the knowledge that PJSIP holds few of them and
aborts the process when asked for one more. Calls that come in use an account without credentials, one for each SRTP
policy. A trunk gets one of its own when something is first sent through it, if it needs one at all; the least recently
used one without calls and registration goes when there is no room. Refuses to know when to register and what follows
from an answer: `trunk_desk.py` does.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Protocol

import pjsua2 as pj

from sipserver.errors import CapacityError, SettingsError
from sipserver.log import logger
from sipserver.sip.account_config import (
    edge_headers,
    header_vector,
    needs_account,
    own_config,
    referred_config,
    trunk_config,
    uri_of_host,
)
from sipserver.sip.message import SipText
from sipserver.sip.settings import SipSettings
from sipserver.trunks.settings import Srtp, TrunkSettings

MOST_ACCOUNTS = 8
"""PJSUA_MAX_ACC as PJSIP is compiled by default (and in the wheels); nothing tells it at run time."""

OnRegistration = Callable[[str, int, str, int, int], None]
"""(trunk, SIP status, its text, seconds until it expires, Retry-After of the answer). Expires 0: not registered; status
0: nothing could be sent.
"""
OnProbe = Callable[[str, int, str], None]
"""(trunk, SIP status of its answer to OPTIONS, its text). 0: none came."""


class IncomingCall(Protocol):
    """An account's callback: sip thread, must not raise."""

    def __call__(self, account: pj.Account, call_id: int, text: str, source: str) -> None: ...


class Account(pj.Account):  # type: ignore[misc]
    """Takes INVITEs that belong to no dialog; tells what became of its REGISTER and OPTIONS. It keeps no presence."""

    def __init__(self, book: AccountBook, trunk: str = "") -> None:
        super().__init__()
        self._book = book
        self.trunk = trunk
        self.used_s = 0.0

    def onIncomingCall(self, prm: Any) -> None:  # noqa: N802
        try:
            rdata = prm.rdata
            self._book.incoming(self, prm.callId, rdata.wholeMsg, rdata.srcAddress)
        except Exception:
            logger("sip").exception("an incoming call could not be taken")

    def onIncomingSubscribe(self, prm: Any) -> None:  # noqa: N802
        prm.code = 405

    def onRegState(self, prm: Any) -> None:  # noqa: N802
        try:
            status, rdata = int(prm.code), prm.rdata
            retry_s = _retry_after(rdata.wholeMsg) if status >= 300 else 0
            self._book.registration_changed(self.trunk, status, str(prm.reason), int(prm.expiration), retry_s)
        except Exception:
            logger("sip").exception("a change of a registration was lost", trunk=self.trunk)

    def onSendRequest(self, prm: Any) -> None:  # noqa: N802
        try:
            self._book.request_ended(prm.e)
        except Exception:
            logger("sip").exception("the answer to a request was lost")


class AccountBook:
    """passwords: by the name of their environment variable. `open` and `close` with the endpoint."""

    def __init__(self, settings: SipSettings, trunks: Iterable[TrunkSettings], passwords: Mapping[str, str]) -> None:
        self._settings = settings
        self._trunks = {trunk.name: trunk for trunk in trunks}
        self._passwords = passwords
        self._own: dict[Srtp, Account] = {}
        self._of_trunk: dict[str, Account] = {}
        self._lent: tuple[pj.Account, pj.AccountConfig] | None = None
        self._probed: dict[str, set[str]] = {}  # request URI -> trunks that wait for its answer
        self.incoming: IncomingCall
        self.on_registration: OnRegistration = lambda *_: None
        self.on_probe: OnProbe = lambda *_: None
        check_number(self._trunks.values())

    def open(self, port: int, incoming: IncomingCall) -> None:
        """Create the accounts that take calls. Raises pj.Error."""
        self.incoming = incoming
        for srtp in _policies(self._trunks.values()):
            account = Account(self)
            account.create(own_config(self._settings, port, srtp), srtp == "off")
            self._own[srtp] = account
        self._port = port

    def close(self) -> None:
        """Destroy all. The calls must be over."""
        for account in (*self._of_trunk.values(), *self._own.values()):
            _destroy(account)
        self._of_trunk.clear()
        self._own.clear()

    # --- which account ------------------------------------------------------------------------------------------------

    def for_incoming(self, trunk: str) -> pj.Account:
        """For a call that came by this trunk; empty: by none."""
        found = self._trunks.get(trunk)
        return self._own[found.srtp if found is not None else "off"]

    def for_outgoing(self, trunk: str, busy: Collection[str] = ()) -> pj.Account:
        """For a call through this trunk; empty: through none. busy: trunks that calls use now. Raises CapacityError
        when PJSIP has no account left, pj.Error.
        """
        found = self._trunks.get(trunk)
        if found is None or not needs_account(found):
            return self.for_incoming(trunk)
        account = self._of_trunk.get(trunk) or self._create(found, busy)
        account.used_s = time.monotonic()
        return account

    def lend(self, account: pj.Account, trunk: str) -> None:
        """PJSIP is about to place a call on this account, since a peer of the trunk asks for it (REFER): let it go out
        as the trunk's. Until `take_back`, which must come before PJSIP sees another INVITE: a dialog keeps a copy of
        what its account had when it began, and one that a peer begins must have no credentials.
        """
        found = self._trunks.get(trunk)
        if found is None or not found.places_calls:
            return
        self.take_back()
        mine = next((srtp for srtp, own in self._own.items() if own.getId() == account.getId()), None)
        before = own_config(self._settings, self._port, mine) if mine is not None else self._trunk_config(found)
        config = referred_config(self._settings, found, self._password(found))
        if mine is not None:
            config.regConfig.registrarUri = ""  # an account of our own registers nowhere
        account.modify(config)
        self._lent = account, before

    def take_back(self) -> None:
        """What `lend` did has served, or there was nothing."""
        lent, self._lent = self._lent, None
        if lent is not None:
            account, before = lent
            account.modify(before)

    # --- what trunks need besides calls -------------------------------------------------------------------------------

    def register(self, trunk: str, busy: Collection[str] = ()) -> None:
        """Send REGISTER. Its end, and that of each later refresh by PJSIP, is told to `on_registration`."""
        try:
            self.for_outgoing(trunk, busy).setRegistration(True)
        except pj.Error as error:
            self.on_registration(trunk, 0, str(error.reason), 0, 0)

    def unregister(self, trunk: str) -> bool:
        """Send REGISTER that ends the registration. False when there is none to end."""
        account = self._of_trunk.get(trunk)
        if account is None or not account.getInfo().regIsActive:
            return False
        try:
            account.setRegistration(False)
        except pj.Error as error:
            logger("sip").warning("a trunk could not be unregistered", trunk=trunk, reason=error.reason)
            return False
        return True

    def probe(self, trunk: str) -> None:
        """Send OPTIONS to the trunk's first hop. Its end is told to `on_probe`."""
        settings = self._trunks[trunk]
        uri = uri_of_host(settings, settings.outbound_proxy or settings.target)
        self._probed.setdefault(uri, set()).add(trunk)
        request = pj.SendRequestParam()
        request.method, request.txOption.targetUri = "OPTIONS", uri
        request.txOption.headers = header_vector(edge_headers(self._settings, trunk))
        try:
            self._own["off"].sendRequest(request)
        except pj.Error as error:
            self._probe_ended(uri, 0, str(error.reason))

    # --- fed by the accounts ------------------------------------------------------------------------------------------

    def registration_changed(self, trunk: str, status: int, text: str, expires_s: int, retry_s: int) -> None:
        """From an account's callback. What follows must not happen inside it, so it is only told."""
        self.on_registration(trunk, status, text, expires_s if status // 100 == 2 else 0, retry_s)

    def request_ended(self, event: Any) -> None:
        """From an account's callback: an OPTIONS of ours was answered, or nothing came."""
        if event.type != pj.PJSIP_EVENT_TSX_STATE:
            return
        body = event.body
        state = body.tsxState
        transaction = state.tsx
        request = transaction.lastTx.wholeMsg
        uri = request.split(" ", 2)[1] if request.startswith("OPTIONS ") else ""
        answered = state.type == pj.PJSIP_EVENT_RX_MSG
        self._probe_ended(uri, int(transaction.statusCode) if answered else 0, str(transaction.statusText))

    # --- inside -------------------------------------------------------------------------------------------------------

    def _probe_ended(self, uri: str, status: int, text: str) -> None:
        for trunk in self._probed.pop(uri, ()):
            self.on_probe(trunk, status, text)

    def _create(self, trunk: TrunkSettings, busy: Collection[str]) -> Account:
        if len(self._own) + len(self._of_trunk) >= MOST_ACCOUNTS:
            self._make_room(busy)
        account = Account(self, trunk.name)
        account.create(self._trunk_config(trunk), False)
        self._of_trunk[trunk.name] = account
        return account

    def _trunk_config(self, trunk: TrunkSettings) -> pj.AccountConfig:
        return trunk_config(self._settings, trunk, self._password(trunk))

    def _password(self, trunk: TrunkSettings) -> str:
        return self._passwords.get(trunk.credentials.password_env, "") if trunk.credentials is not None else ""

    def _make_room(self, busy: Collection[str]) -> None:
        idle = [
            account
            for name, account in self._of_trunk.items()
            if name not in busy and self._trunks[name].register_ is None
        ]
        if not idle:
            raise CapacityError(f"PJSIP holds {MOST_ACCOUNTS} accounts, and calls or registrations use all of them")
        oldest = min(idle, key=lambda account: account.used_s)
        del self._of_trunk[oldest.trunk]
        _destroy(oldest)


def check_number(trunks: Iterable[TrunkSettings]) -> None:
    """Raise SettingsError when there are more registrations than PJSIP has accounts for; one is left for the trunks
    that do not register.
    """
    trunks = tuple(trunks)
    registered = [trunk for trunk in trunks if trunk.register_ is not None]
    others = any(needs_account(trunk) for trunk in trunks if trunk.register_ is None)
    room = MOST_ACCOUNTS - len(_policies(trunks)) - others
    if len(registered) > room:
        raise SettingsError(
            f"{len(registered)} trunks register, and a server has room for {room}: PJSIP holds {MOST_ACCOUNTS} "
            "accounts, one for each registration, one for each srtp policy in use and one for trunks with credentials "
            "that do not register; let another server register the rest",
            key="trunks",
        )


def _retry_after(answer: str) -> int:
    """Seconds (RFC 3261, section 20.33); 0 without one."""
    value = re.match(r"\s*(\d{1,9})", SipText.parse(answer).header("retry-after"))
    return int(value.group(1)) if value else 0


def _policies(trunks: Iterable[TrunkSettings]) -> tuple[Srtp, ...]:
    return tuple(dict.fromkeys(("off", *(trunk.srtp for trunk in trunks))))


def _destroy(account: Account) -> None:
    account.shutdown()
    pj.Account.__swig_destroy__(account)
