"""PCM on its way between the wire and the conversation: frames, the playout queue, resampling, tones, digits, levels.

Owns the one `Frame`. Refuses to know where sound comes from (codecs, RTP, WebSockets) or what it means (speech).
"""
