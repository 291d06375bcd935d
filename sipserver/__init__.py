"""sipserver: a self-hosted voice server for telephone calls.

The folders tell the route of a call: `sip/` answers it, `audio/` and `codecs/` carry its sound, `dialplan/` says what
should happen, `calls/` makes it happen, `agent/` talks with `speech/`, `store/` remembers, `api/` shows.
`app.py` alone sees every room and connects them.
"""

__version__ = "0.1.0"
