"""What a dialplan says about a queue. Pure."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sipserver.dialplan.agents import Strict, Text


class QueueSpec(Strict):
    """Who serves the callers of a queue: those who dial in by the step `serve`, and `agents`, who are called.

    agents: numbers, users or SIP URIs. trunk: by name; empty: the first one that carries the number. ring_s: how long
    one agent is rung. max: most callers that wait. strategy: `longest_idle` rings the agent whose last call is longest
    ago, `in_order` always begins with the first, `all` rings everybody. wrapup_s: pause after each call.
    """

    agents: tuple[Text, ...] = ()
    trunk: Text = ""
    ring_s: float = Field(default=20, gt=0, le=600)
    max: int = Field(default=50, ge=1, le=10_000)
    strategy: Literal["longest_idle", "in_order", "all"] = "longest_idle"
    wrapup_s: float = Field(default=5, ge=0, le=3600)

    def about(self) -> str:
        """In one line, as `explain` prints it."""
        who = ", ".join((*self.agents, "whoever dials in"))
        return f"served by {who} ({self.strategy}, {self.ring_s:g} s each, at most {self.max} wait)"
