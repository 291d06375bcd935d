"""Both loops: the server runs on uvloop, whose transports write and buffer in ways of their own."""

from __future__ import annotations

import asyncio

import pytest
import uvloop


@pytest.fixture(params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy], ids=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    made: asyncio.AbstractEventLoopPolicy = request.param()
    return made
