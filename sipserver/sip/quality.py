"""The E-model: what a listener would think of the line (ITU-T G.107, 06/2015). Pure.

All parameters but delay, loss and codec keep the defaults of G.107 table 2. Codecs are rated on the narrow-band scale:
G.722 at 64 kbit/s counts like G.711 with packet loss concealment, so its wider band earns no extra.
"""

from __future__ import annotations

from math import e, log, log10, sqrt

_SLR, _RLR, _STMR, _LSTR, _DS = 8.0, 2.0, 15.0, 18.0, 3.0
_TELR, _WEPL, _QDU, _NC, _NFOR, _PS, _PR = 65.0, 110.0, 1.0, -70.0, -64.0, 35.0, 35.0
_OLR = _SLR + _RLR

_EQUIPMENT = {
    "PCMU": (0.0, 25.1),
    "PCMA": (0.0, 25.1),
    "G722": (0.0, 25.1),
    "OPUS": (0.0, 25.1),
    "GSM": (20.0, 10.0),
    "ILBC": (11.0, 32.0),
}
"""Codec -> (Ie, Bpl), ITU-T G.113 appendix I; what it does not list is rated like G.711 with concealment."""


def rating(one_way_ms: float = 0.0, loss_percent: float = 0.0, codec: str = "PCMA") -> float:
    """The transmission rating R, about 93.2 for a perfect narrow-band line, never below 0.

    one_way_ms: mouth to ear. loss_percent: packets lost or too late, 0-100, taken as random loss (BurstR 1).
    """
    noise = _noise()
    basic = 15 - 1.5 * (_SLR + noise)
    impairment, robustness = _EQUIPMENT.get(codec.upper().partition("/")[0], (0.0, 25.1))
    effective = impairment + (95 - impairment) * loss_percent / (loss_percent + robustness)
    return max(0.0, basic - _simultaneous(basic, noise, one_way_ms) - _delay(basic, noise, one_way_ms) - effective)


def opinion(r: float) -> float:
    """Mean opinion score of a rating, 1.0 to 4.5 (G.107 annex B)."""
    if r <= 0:
        return 1.0
    if r >= 100:
        return 4.5
    return max(1.0, 1 + 0.035 * r + r * (r - 60) * (100 - r) * 7e-6)


def _noise() -> float:
    sender = _PS - _SLR - _DS - 100 + 0.004 * (_PS - _OLR - _DS - 14) ** 2
    effective = _PR + 10 * log10(1 + 10 ** ((10 - _LSTR) / 10))
    receiver = _RLR - 121 + effective + 0.008 * (effective - 35) ** 2
    floor = _NFOR + _RLR
    return 10 * log10(sum(10 ** (level / 10) for level in (_NC, sender, receiver, floor)))


def _simultaneous(basic: float, noise: float, one_way_ms: float) -> float:
    """Is: too loud, side tone, quantising."""
    loud = _OLR + 0.2 * (64 + noise - _RLR)
    too_loud = 20 * ((1 + (loud / 8) ** 8) ** (1 / 8) - loud / 8)
    masking = -10 * log10(10 ** (-_STMR / 10) + e ** (-one_way_ms / 4) * 10 ** (-_TELR / 10))
    side_tone = (
        12 * (1 + ((masking - 13) / 6) ** 8) ** (1 / 8)
        - 28 * (1 + ((masking + 1) / 19.4) ** 35) ** (1 / 35)
        - 13 * (1 + ((masking - 3) / 33) ** 13) ** (1 / 13)
        + 29
    )
    q = 37 - 15 * log10(_QDU)
    g = 1.07 + 0.258 * q + 0.0602 * q**2
    quantising = 15 * log10(1 + 10 ** ((basic - 100) / 15 + 46 / 8.4 - g / 9) + 10 ** (46 / 30 - g / 40))
    return float(too_loud + side_tone + quantising)


def _delay(basic: float, noise: float, one_way_ms: float) -> float:
    """Id: talker echo, listener echo, and long delay itself."""
    loudness = _TELR - 40 * log10((1 + one_way_ms / 10) / (1 + one_way_ms / 150)) + 6 * e ** (-0.3 * one_way_ms**2)
    echo_gap = -1.5 * (noise - _RLR) - (80 + 2.5 * (loudness - 14))
    talker = (echo_gap / 2 + sqrt(echo_gap**2 / 4 + 100) - 1) * (1 - e**-one_way_ms)
    listener_gap = basic - 10.5 * (_WEPL + 7) * (2 * one_way_ms + 1) ** -0.25
    listener = listener_gap / 2 + sqrt(listener_gap**2 / 4 + 169)
    if one_way_ms <= 100:
        return float(talker + listener)
    x = log(one_way_ms / 100) / log(2)
    return float(talker + listener + 25 * ((1 + x**6) ** (1 / 6) - 3 * (1 + (x / 3) ** 6) ** (1 / 6) + 2))
