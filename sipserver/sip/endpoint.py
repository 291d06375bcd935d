"""PJSIP's endpoint with the settings of a cell: from `libCreate` to `libDestroy`. Sip thread only.

Owns the configuration and the transports; every PJSIP default that is unsafe for a server is changed here or in
`pjcall.py` and `methods.py`. Refuses to know calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pjsua2 as pj

from sipserver.audio.frame import FRAME_MS, RATE_HZ
from sipserver.errors import ConfigError, InternalError, SipServerError
from sipserver.log import logger
from sipserver.sip import capacity, handles, native, tls
from sipserver.sip.accounts import AccountBook, IncomingCall
from sipserver.sip.log_writer import LogWriter
from sipserver.sip.settings import SipSettings, SipTls

_CODEC_IDS = {"PCMA": "PCMA/8000/1", "PCMU": "PCMU/8000/1", "G722": "G722/16000/1"}
_TOP_PRIORITY = 200
_PORT_ATTEMPTS = 20


class _Endpoint(pj.Endpoint):  # type: ignore[misc]
    """select: names the account for an INVITE that belongs to no dialog."""

    select: Callable[[], pj.Account]

    def onSelectAccount(self, prm: Any) -> None:  # noqa: N802
        try:
            prm.accountIndex = self.select().getId()
        except Exception:
            logger("sip").exception("no account for an incoming call")

    def onTransportState(self, prm: Any) -> None:  # noqa: N802
        try:
            tls.tell_failure(prm)
        except Exception:
            logger("sip").exception("the state of a connection was lost")


class SipEndpoint:
    """Create with `open`; `poll` in between; `close` at the end. `pjsua2` allows one at a time in a process.

    accounts: opened and closed with it. capacity_hint: what `capacity.count` said in another process, used where PJSIP
    cannot be asked; 0: find out. use_tls: whether trunks need TLS although `sip.tls` names no certificate.
    """

    def __init__(
        self, settings: SipSettings, accounts: AccountBook, capacity_hint: int = 0, *, use_tls: bool = False
    ) -> None:
        self._settings = settings
        self._tls = use_tls or settings.tls is not None
        self._capacity_hint = capacity_hint
        self._opened: pj.Endpoint | None = None
        self.accounts = accounts
        self.codecs: tuple[str, ...] = settings.codecs
        """That calls may use, in the order of preference. Set it before `open`."""
        self.port = 0
        """The UDP port (and the TCP port, when TCP is on) that the endpoint is bound to."""
        self.tls_port = 0
        """Where calls are taken by TLS; 0 when they are not."""
        self.version = ""
        self.capacity = 0

    def open(
        self, incoming: IncomingCall, before_start: Callable[[], object], trunk_of_call: Callable[[], str]
    ) -> None:
        """Bring PJSIP up. before_start runs after `libInit`. trunk_of_call: by which trunk the INVITE comes that PJSIP
        is about to take; empty for none. Raises ConfigError when a port is taken, or pj.Error; then `close` it.
        """
        capacity.quieten()
        found = self._capacity_hint
        if not found and native.function("pjsua_call_get_max_count") is None:
            found = capacity.probe()
        self._opened = endpoint = _Endpoint()
        endpoint.select = lambda: self.accounts.for_incoming(trunk_of_call())
        endpoint.libCreate()
        endpoint.libInit(_endpoint_config(self._settings))
        self.capacity = capacity.read() or found or 1
        self.version = str(endpoint.libVersion().full)
        handles.enlarge(tcp=self._settings.tcp or self._tls)
        before_start()
        self._bind()
        endpoint.libStart()
        self.devices.setNoDev()  # the patch bay opens the null device when a call has media
        self._choose_codecs()
        self.accounts.open(self.port, incoming)

    def poll(self, milliseconds: int) -> int:
        """Serve packets and timers, waiting up to so long for one."""
        return int(self._endpoint.libHandleEvents(milliseconds))

    @property
    def devices(self) -> pj.AudDevManager:
        return self._endpoint.audDevManager()

    def close(self) -> None:
        """Destroy everything. The calls must be over: nothing is sent or waited for any more."""
        self.accounts.close()
        if self._opened is not None:
            endpoint, self._opened = self._opened, None
            endpoint.libDestroy(pj.PJSUA_DESTROY_NO_RX_MSG)
            pj.Endpoint.__swig_destroy__(endpoint)

    @property
    def _endpoint(self) -> pj.Endpoint:
        assert self._opened is not None
        return self._opened

    def _bind(self) -> None:
        settings = self._settings
        if self._tls:
            self._bind_tls(settings.tls or SipTls())
        attempts = 1 if settings.port else _PORT_ATTEMPTS
        for attempt in range(attempts):
            udp = self._transport(pj.PJSIP_TRANSPORT_UDP, settings.port)
            self.port = int(self._endpoint.transportGetInfo(udp).localName.rpartition(":")[2])
            if not settings.tcp:
                return
            try:
                self._transport(pj.PJSIP_TRANSPORT_TCP, self.port)
                return
            except ConfigError:
                if attempt == attempts - 1:
                    raise
                self._endpoint.transportClose(udp)

    def _bind_tls(self, settings: SipTls) -> None:
        host, public = self._settings.host, self._settings.public_address
        try:
            self._endpoint.transportCreate(pj.PJSIP_TRANSPORT_TLS, tls.caller_config(settings, host, public))
            if settings.certificate is None:
                return
            config = tls.listener_config(settings, host, public)
            number = self._endpoint.transportCreate(pj.PJSIP_TRANSPORT_TLS, config)
        except pj.Error as error:
            raise ConfigError(f"cannot start TLS on port {settings.port}: {error.reason}", key="sip.tls") from None
        self.tls_port = int(self._endpoint.transportGetInfo(number).localName.rpartition(":")[2])

    def _transport(self, kind: int, port: int) -> int:
        config = pj.TransportConfig()
        config.port, config.boundAddress = port, self._settings.host
        if self._settings.public_address:
            config.publicAddress = self._settings.public_address
        try:
            return int(self._endpoint.transportCreate(kind, config))
        except pj.Error as error:
            name = "TCP" if kind == pj.PJSIP_TRANSPORT_TCP else "UDP"
            raise ConfigError(
                f"cannot bind {name} {self._settings.host}:{port}: {error.reason}", key="sip.port"
            ) from None

    def _choose_codecs(self) -> None:
        """Only the codecs of the settings, in their order; Speex, iLBC, GSM and whatever else is linked are off."""
        for codec in self._endpoint.codecEnum2():
            self._endpoint.codecSetPriority(codec.codecId, 0)
        for place, name in enumerate(self.codecs):
            self._endpoint.codecSetPriority(_CODEC_IDS[name], _TOP_PRIORITY - place)


def _endpoint_config(settings: SipSettings) -> pj.EpConfig:
    config = pj.EpConfig()
    agent, media, log = config.uaConfig, config.medConfig, config.logConfig
    agent.maxCalls, agent.threadCnt, agent.userAgent = capacity.ASK_FOR, 0, settings.user_agent
    agent.mwiUnsolicitedEnabled = False
    media.clockRate = media.sndClockRate = RATE_HZ
    media.channelCount, media.audioFramePtime, media.ptime = 1, FRAME_MS, FRAME_MS
    media.quality, media.noVad, media.ecTailLen = 4, True, 0
    media.jbInit, media.jbMinPre, media.jbMaxPre, media.jbMax = 0, 0, 80, 200
    media.sndAutoCloseTime = -1  # the patch bay opens and closes it
    media.hasIoqueue, media.threadCnt = True, 1  # never the sip thread: packets must not wake it
    log.level = log.consoleLevel = settings.pjsip_log_level
    log.msgLogging = 1 if settings.pjsip_log_level >= 4 else 0
    log.decor = 0
    log.writer = LogWriter().given()
    return config


def translate(error: Exception) -> SipServerError:
    """What a command of the sip thread raised, as an error that may leave the thread."""
    if isinstance(error, pj.Error):
        return InternalError(f"{error.title}: {error.reason}")
    logger("sip").error("a command of the sip thread failed", exc_info=error)
    return InternalError(repr(error))
