"""Which calls the media relay takes part in and how: what `etc/kamailio/media.cfg.j2` prints, from the settings.

Owns codec lists and rtpengine's flags a trunk. Refuses to know processes (rtpengine.py) and the rest of the edge.

The caller is offered what it offered itself, less what its trunk does not allow. Sound is transcoded only for a caller
who shares no codec with the cells: a codec in common costs a fraction of it and sounds as well. Who is called is
offered what the cell offers and its trunk allows, and after it the trunk's codecs that the cells lack: the callee
chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sipserver.edge.settings import EdgeSettings
from sipserver.trunks.settings import TrunkSettings

FROM_OUTSIDE = (
    "direction=outside direction=inside address-family=IP4 RTP/AVP ICE=remove rtcp-mux-demux "
    "replace-origin replace-session-connection strict-source"
)
"""Cells speak plain RTP on IPv4, without ICE and with RTCP on its own port."""
FROM_INSIDE = "direction=inside direction=outside replace-origin replace-session-connection strict-source"
_KEYS = "DTLS=off SDES-no-NULL_HMAC_SHA1_80 SDES-no-NULL_HMAC_SHA1_32"
OUTWARDS = {
    "off": ("p", "RTP/AVP"),
    "offered": ("o", f"RTP/AVP OSRTP-offer {_KEYS}"),
    "required": ("k", f"RTP/SAVP {_KEYS}"),
}
"""How we offer, by the trunk's SRTP policy: the letter in the Record-Route parameter, and rtpengine's flags."""
ANSWER = "replace-origin replace-session-connection strict-source"


@dataclass(frozen=True, slots=True)
class MediaTrunk:
    """name: empty for callers of no trunk. common: codecs that trunk and cells both speak; foreign: the trunk's others.

    pass_in, transcode_in: rtpengine's flags for an offer from outside with a common codec, or with foreign ones only.
    pass_out, transcode_out: the same for an offer of a cell. both_out: common ones, and then foreign ones.
    """

    name: str
    srtp: str
    common: tuple[str, ...]
    foreign: tuple[str, ...]
    pass_in: str
    transcode_in: str
    pass_out: str
    transcode_out: str
    both_out: str


@dataclass(frozen=True, slots=True)
class OutboundMedia:
    """How a call through a trunk is offered: letters of the Record-Route parameter, and rtpengine's flags for them.

    direct: where only what needs the relay goes through it, this does not.
    """

    name: str
    profile: str
    towards: str
    kind: str
    direct: bool


@dataclass(frozen=True, slots=True)
class MediaRoutes:
    """control: rtpengine's ng address as Kamailio writes it. always: relay every call, else only those that need it.

    stranger: for calls of no trunk (`edge.open`). The flags are rtpengine's, for offers of either side and answers.
    """

    control: str
    always: bool
    trunks: tuple[MediaTrunk, ...]
    stranger: MediaTrunk
    outbound: tuple[OutboundMedia, ...] = ()
    outwards: tuple[tuple[str, str], ...] = tuple(OUTWARDS.values())
    from_outside: str = FROM_OUTSIDE
    from_inside: str = FROM_INSIDE
    answer: str = ANSWER

    @property
    def everyone(self) -> tuple[MediaTrunk, ...]:
        return (*self.trunks, self.stranger)


def media_routes(edge: EdgeSettings, trunks: Sequence[TrunkSettings], cell_codecs: Sequence[str]) -> MediaRoutes | None:
    """None when there is no relay. cell_codecs: `sip.codecs`, the cells' order."""
    relay = edge.rtpengine
    if relay is None:
        return None
    control = f"udp6:{relay.control}" if relay.control.startswith("[") else f"udp:{relay.control}"
    every = ("opus", "G722", "PCMA", "PCMU")
    always = relay.relay == "always"
    ours = [(trunk, _trunk(trunk.name, trunk.srtp, trunk.codecs, cell_codecs)) for trunk in trunks]
    return MediaRoutes(
        control=control,
        always=always,
        trunks=tuple(media for _, media in ours),
        stranger=_trunk("", "offered", every, cell_codecs),
        outbound=tuple(_outbound(media, always) for trunk, media in ours if trunk.places_calls),
    )


def _outbound(trunk: MediaTrunk, always: bool) -> OutboundMedia:
    profile, towards = OUTWARDS[trunk.srtp]
    kind = "b" if trunk.common and trunk.foreign else "x" if trunk.foreign else "c"
    return OutboundMedia(trunk.name, profile, towards, kind, direct=not always and profile == "p" and kind == "c")


def _trunk(name: str, srtp: str, codecs: Sequence[str], cell_codecs: Sequence[str]) -> MediaTrunk:
    common = tuple(codec for codec in codecs if codec in cell_codecs)
    foreign = tuple(codec for codec in codecs if codec not in cell_codecs)
    only_common = _only(common)
    return MediaTrunk(
        name=name,
        srtp=srtp,
        common=common,
        foreign=foreign,
        pass_in=only_common,
        transcode_in=f"{_only(foreign)} {_each('mask', foreign)} {_each('transcode', cell_codecs)}",
        pass_out=only_common,
        transcode_out=f"codec-mask=all codec-except=telephone-event {_each('transcode', foreign)}",
        both_out=f"{only_common} {_each('transcode', foreign)}",
    )


def _only(codecs: Sequence[str]) -> str:
    return f"codec-strip=all codec-except=telephone-event {_each('except', codecs)}".rstrip()


def _each(verb: str, codecs: Sequence[str]) -> str:
    return " ".join(f"codec-{verb}={codec}" for codec in codecs)
