"""WebRTC: a browser as a leg, by aiortc. Only this room imports it.

Offer and answer come and go by HTTP (WHIP, RFC 9725, as far as it fits a call that goes both ways).
"""
