"""TLS for SIP: version, ciphers, certificates, and why a connection failed. Sip thread only.

PJSIP would speak TLS 1.0 and verify nobody. Here it is TLS 1.2 alone with ephemeral keys and authenticated ciphers, and
whoever we connect to must prove the host name (RFC 5922, section 7).
"""

from __future__ import annotations

from typing import Any

import pjsua2 as pj

from sipserver.errors import ConfigError
from sipserver.log import logger
from sipserver.sip.settings import SipTls

_CIPHERS = (0xC02B, 0xC02C, 0xC02F, 0xC030, 0x009E, 0x009F)
"""(EC)DHE with AES-GCM (RFC 9325, section 4.2)."""
_HANDSHAKE_MS = 10_000


def caller_config(settings: SipTls, host: str, public_address: str) -> pj.TransportConfig:
    """For connections that we open. Raises ConfigError for a file that cannot be read.

    PJSIP opens them by the TLS transport that was created first, and lets none exist that does not listen too; this
    one does so at a port that nobody is told.
    """
    for key, path in (("certificate", settings.certificate), ("key", settings.key), ("ca", settings.ca)):
        if path is not None and not path.is_file():
            raise ConfigError(f"there is no file {path}", key=f"sip.tls.{key}")
    transport = _config(settings, host, public_address)
    transport.tlsConfig.CaListFile = str(settings.ca)
    return transport


def listener_config(settings: SipTls, host: str, public_address: str) -> pj.TransportConfig:
    """For connections that peers open; they need no certificate. PJSIP sends peers the names of all authorities, and
    with those of a whole system the handshake stands still; without any it complains. So there is one: ourselves.
    """
    transport = _config(settings, host, public_address)
    transport.port, transport.tlsConfig.CaListFile = settings.port, str(settings.certificate)
    return transport


def _config(settings: SipTls, host: str, public_address: str) -> pj.TransportConfig:
    transport = pj.TransportConfig()
    transport.port, transport.boundAddress = 0, host
    if public_address:
        transport.publicAddress = public_address
    tls = transport.tlsConfig
    tls.method, tls.proto = pj.PJSIP_TLSV1_2_METHOD, pj.PJ_SSL_SOCK_PROTO_TLS1_2
    ciphers = pj.IntVector()
    for cipher in _CIPHERS:
        ciphers.append(cipher)
    tls.ciphers = ciphers
    tls.verifyServer, tls.verifyClient, tls.requireClientCert = True, False, False
    tls.msecTimeout = _HANDSHAKE_MS
    if settings.certificate is not None:
        tls.certFile, tls.privKeyFile = str(settings.certificate), str(settings.key)
    return transport


def tell_failure(prm: Any) -> None:
    """Log a TLS connection that was lost for a reason; whom we do not believe is worth a warning. prm: of the
    endpoint's `onTransportState`.
    """
    if prm.state != pj.PJSIP_TP_STATE_DISCONNECTED or not str(prm.type).upper().startswith("TLS"):
        return
    info = prm.tlsInfo
    problems = [] if info.isEmpty() else [str(message) for message in info.verifyMsgs if str(message) != "OK"]
    if problems:
        logger("sip").warning("the certificate of a peer is not believed", peer=str(info.remoteAddr), problems=problems)
    elif prm.lastError:
        logger("sip").info("a TLS connection failed", status=int(prm.lastError))
