"""The configuration of PJSIP's accounts: of calls that come in, and of trunks that calls go out through.

Owns every account setting that is unsafe or unwanted by default. Credentials stand in the accounts of trunks alone,
bound to one realm: PJSIP answers a challenge inside a dialog with those of the dialog's account, so an account that
takes calls has none. Sip thread only.
"""

from __future__ import annotations

from collections.abc import Mapping

import pjsua2 as pj

from sipserver.sip.settings import SipSettings
from sipserver.trunks.settings import Srtp, TrunkSettings

_SRTP: Mapping[Srtp, int] = {
    "off": pj.PJMEDIA_SRTP_DISABLED,
    "offered": pj.PJMEDIA_SRTP_OPTIONAL,
    "required": pj.PJMEDIA_SRTP_MANDATORY,
}
_REFRESH_BEFORE_S = 5


def own_config(settings: SipSettings, port: int, srtp: Srtp = "off") -> pj.AccountConfig:
    """For calls that come in, and for those that go out by no trunk or by one that needs no account of its own."""
    config = _config(settings, srtp)
    host = settings.public_address or settings.host
    config.idUri = f"sip:{settings.user}@{host}:{port}"
    _route(config, settings.edge_route)
    return config


def trunk_config(settings: SipSettings, trunk: TrunkSettings, password: str) -> pj.AccountConfig:
    """For a trunk with credentials, a first hop or a registration. password: of its credentials, may be empty."""
    config = _config(settings, trunk.srtp)
    config.idUri = f"sip:{_user(settings, trunk)}@{trunk.from_domain}"
    proxy = f"{uri_of_host(trunk, trunk.outbound_proxy)};lr" if trunk.outbound_proxy else ""
    _route(config, settings.edge_route or proxy)
    if trunk.credentials is not None:
        known = pj.AuthCredInfoVector()
        known.append(pj.AuthCredInfo("digest", trunk.realm, trunk.credentials.user, 0, password))
        config.sipConfig.authCreds = known
    if trunk.register_ is not None:
        register = config.regConfig
        register.registrarUri = uri_of_host(trunk, trunk.registrar)
        register.timeoutSec = trunk.register_.expires_s
        register.delayBeforeRefreshSec = _REFRESH_BEFORE_S
        register.retryIntervalSec = register.firstRetryIntervalSec = register.randomRetryIntervalSec = 0  # ours
        register.dropCallsOnFail = False
        register.disableRegOnModify = True  # it is only modified for the moment of one call
        register.unregWaitMsec = 0
        register.headers = header_vector(edge_headers(settings, trunk.name))
    return config


def referred_config(settings: SipSettings, trunk: TrunkSettings, password: str) -> pj.AccountConfig:
    """For a call that PJSIP places because a peer of the trunk asks for it. The peer names the target; it is called by
    way of the trunk, whatever host the target has.
    """
    config = trunk_config(settings, trunk, password)
    if settings.edge_route:  # PJSIP lets no header be added here: the edge finds the trunk in the Route
        _route(config, f"{settings.edge_route};trunk={trunk.name}")
    else:
        _route(config, f"{uri_of_host(trunk, trunk.outbound_proxy or trunk.target)};lr")
    return config


def uri_of_host(trunk: TrunkSettings, host: str) -> str:
    """`host[:port]` of a trunk as a request URI."""
    return f"sip:{host}" + ("" if trunk.transport == "udp" else f";transport={trunk.transport}")


def edge_headers(settings: SipSettings, trunk: str) -> Mapping[str, str]:
    """What the edge needs to know of a request that goes out by this trunk; nothing without an edge."""
    return {"X-Sipserver-Trunk": trunk} if settings.edge_route and trunk else {}


def header_vector(headers: Mapping[str, str]) -> pj.SipHeaderVector:
    vector = pj.SipHeaderVector()
    for name, value in headers.items():
        header = pj.SipHeader()
        header.hName, header.hValue = name, value
        vector.append(header)
    return vector


def needs_account(trunk: TrunkSettings) -> bool:
    """Others go out through an account without credentials, which all of them share."""
    return trunk.credentials is not None or bool(trunk.outbound_proxy) or trunk.register_ is not None


def _user(settings: SipSettings, trunk: TrunkSettings) -> str:
    if trunk.register_ is not None and trunk.register_.user:
        return trunk.register_.user
    return trunk.credentials.user if trunk.credentials is not None else settings.user


def _route(config: pj.AccountConfig, route: str) -> None:
    if route:
        proxies = pj.StringVector()
        proxies.append(route)
        config.sipConfig.proxies = proxies


def _config(settings: SipSettings, srtp: Srtp) -> pj.AccountConfig:
    config = pj.AccountConfig()
    config.regConfig.registerOnAdd = False
    call, nat, media = config.callConfig, config.natConfig, config.mediaConfig
    call.timerUse = pj.PJSUA_SIP_TIMER_OPTIONAL
    call.timerMinSESec, call.timerSessExpiresSec = settings.min_session_expires_s, settings.session_expires_s
    call.prackUse = pj.PJSUA_100REL_OPTIONAL  # reliable provisional answers where the peer requires them (RFC 3262)
    nat.iceEnabled = nat.turnEnabled = False
    nat.sipStunUse = nat.mediaStunUse = pj.PJSUA_STUN_USE_DISABLED
    nat.contactRewriteUse = nat.viaRewriteUse = nat.sdpNatRewriteUse = 0
    nat.sipOutboundUse = nat.udpKaIntervalSec = 0
    media.lockCodecEnabled = False  # no re-INVITE only because a peer's answer names two codecs
    media.streamKaEnabled = False
    media.srtpUse, media.srtpSecureSignaling = _SRTP[srtp], 0
    keyings = pj.IntVector()
    keyings.append(pj.PJMEDIA_SRTP_KEYING_SDES)
    media.srtpOpt.keyings = keyings
    first, last = settings.rtp_ports
    transport = media.transportConfig
    transport.port, transport.portRange = first, last - first
    transport.boundAddress = settings.media_host or settings.host
    if settings.public_address:
        transport.publicAddress = settings.public_address
    return config
