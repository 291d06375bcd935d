"""The steps at work: one executor a step, and the table that names them all.

An executor is awaited once per step. It may be cancelled at any await, since the call can end at any moment. The runner
has opened the media before it runs a step that needs them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from sipserver.calls.scene import Left, Scene
from sipserver.calls.steps import (
    agent,
    amd,
    bridge,
    collect,
    conference,
    decide,
    flow,
    queue,
    record,
    secure,
    sound,
    stream,
    telephony,
    transfer,
    voicemail,
)
from sipserver.dialplan import steps

Executor = Callable[[Any, Scene], Awaitable[Left]]

EXECUTORS: dict[type[steps.Step], Executor] = {
    steps.Answer: telephony.answer,
    steps.Early: telephony.early,
    steps.Wait: telephony.wait,
    steps.Hold: telephony.hold,
    steps.Hangup: telephony.hangup,
    steps.Say: sound.say,
    steps.Play: sound.play,
    steps.Echo: sound.echo,
    steps.Collect: collect.collect,
    steps.Agent: agent.agent,
    steps.Record: record.record,
    steps.Secure: secure.secure,
    steps.SetStep: flow.set_variables,
    steps.When: flow.when,
    steps.Goto: flow.goto,
    steps.Conference: conference.conference,
    steps.Queue: queue.queue,
    steps.Serve: queue.serve,
    steps.Voicemail: voicemail.voicemail,
    steps.Bridge: bridge.bridge,
    steps.Transfer: transfer.transfer,
    steps.Amd: amd.amd,
    steps.Stream: stream.stream,
    steps.Decide: decide.decide,
}
