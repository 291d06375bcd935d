"""The gate: who may come in by HTTP and WebSocket, how many, and what becomes of those that are too slow.

Tokens, origins, limits, heartbeats, back-pressure and close codes, once for all WebSockets. Refuses to know calls.
"""
