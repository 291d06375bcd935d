"""Bytes to PCM and back: G.711, G.722, Opus, L16; their names, payload types and clock rates.

Installed as `sipserver.codecs` (setup.cfg maps the folder). Knows nothing of RTP, sockets or calls.
"""
