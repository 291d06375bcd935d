"""What is counted of calls, and in which unit. Knows no database, so that prices can be checked without one."""

from __future__ import annotations

UNITS = {
    "call.inbound": "ms",
    "call.outbound": "ms",
    "leg": "ms",
    "stt": "ms",
    "tts": "characters",
    "llm.in": "tokens",
    "llm.out": "tokens",
    "llm.untold": "requests",
    "recording": "ms",
    "recording.size": "bytes",
}
"""What is counted, by part. leg: another party that a call brought in, by itself. llm.untold: requests whose tokens the
engine did not tell, such as those that the caller interrupted."""
