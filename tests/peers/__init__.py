"""Real peers from Debian: SIPp scenarios and the baresip softphone, against the whole server."""
