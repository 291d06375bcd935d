"""Streams: calls that come over WebSockets (Twilio, Vonage, plain voice), and our end of somebody's bot.

Legs shaped like any other leg (`calls.leg.Leg`), which they satisfy structurally. Only this room and `webhooks` import
the carriers' packages.
"""
