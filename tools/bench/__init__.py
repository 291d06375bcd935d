"""Benches: what the server costs and how fast it is, measured on the running server from outside."""
