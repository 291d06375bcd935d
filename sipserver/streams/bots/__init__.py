"""Our end of somebody's bot: a call's sound goes to a WebSocket server that expects a carrier, and its answers to the
caller.

One file a protocol, all of them pure (`twilio`, `vonage`, `asterisk`, `pcm`); `speaker` owns what the bot has said and
the caller has not heard yet; `client` owns the connection. Refuses to know calls and dialplans.
"""
