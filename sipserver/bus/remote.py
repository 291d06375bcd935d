"""A command and its answer on their way: handlers at work, and errors in a form that travels. Both backends use it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from sipserver.bus.contract import Handler, Json
from sipserver.errors import BusDown, Fault, RemoteError, SipServerError
from sipserver.log import logger

Answer = dict[str, Any]
"""`{"answer": {...}}` or `{"error": {...}}`; JSON-able."""

_log = logger("bus")


async def answer(handler: Handler, verb: str, arguments: Json) -> Answer:
    """What a handler says, errors included; a mistake of ours is logged here and reaches the asker as InternalError."""
    try:
        return {"answer": dict(await handler(verb, arguments))}
    except SipServerError as problem:
        return {"error": packed(problem)}
    except Exception as problem:  # the edge of a command
        _log.error("command broke", verb=verb, exc_info=problem)
        return {"error": packed(SipServerError(type(problem).__name__)) | {"name": "InternalError"}}


def packed(problem: SipServerError) -> Answer:
    name, text = type(problem).__name__, str(problem)
    if isinstance(problem, RemoteError):
        name, text = problem.name, problem.text
    codes = {"retry": problem.retry, "sip_code": problem.sip_code, "http_code": problem.http_code}
    if later_s := getattr(problem, "retry_after_s", 0):
        codes["retry_after_s"] = later_s
    return {"name": name, "text": text, "fault": problem.fault.value, **codes}


def unpacked(answer: Answer) -> Json:
    """The answer, or RemoteError."""
    if "error" not in answer:
        found: Json = answer["answer"]
        return found
    error = answer["error"]
    raise RemoteError(
        error["name"],
        error["text"],
        fault=Fault(error["fault"]),
        retry=error["retry"],
        sip_code=error["sip_code"],
        http_code=error["http_code"],
        retry_after_s=error.get("retry_after_s", 0),
    )


def call_of(address: str) -> str:
    """The call that an address names, or nothing.

    A call that serves no address of its own is reached through its lease `call/<call id>`: the handler of `run:<run>`
    is asked, with `call_id` among the arguments.
    """
    kind, _, call_id = address.partition(":")
    return call_id if kind == "call" else ""


def late(address: str, timeout_s: float) -> BusDown:
    return BusDown(f"{address} did not answer within {timeout_s:g} s")


class Errands:
    """Tasks that nobody waits for, held until they are over. Loop thread."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._over)
        return task

    async def close(self) -> None:
        """Cancel those that run."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            _log.error("a task of the bus broke", task=task.get_name(), exc_info=problem)
