"""The tools, the HTTP ones against a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from sipserver.agent import tools
from sipserver.agent.llm.contract import ToolCall
from sipserver.agent.options import Outcome
from sipserver.agent.tools import Toolbox
from sipserver.dialplan.agents import HttpTool
from sipserver.events import Event, ToolSpan
from tests.fakes.engines import call
from tests.fakes.stage import FakeDigits

SCHEMA = {"type": "object", "properties": {"people": {"type": "integer"}}, "required": ["people"]}


class Service:
    """An HTTP service that answers what the test says and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str], Any, dict[str, str]]] = []
        self.answer = web.json_response({"free": True})
        self.delay_s = 0.0

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else None
        self.asked.append((str(request.rel_url), dict(request.query), body, dict(request.headers)))
        await asyncio.sleep(self.delay_s)
        return self.answer


@asynccontextmanager
async def restaurant(**options: Any) -> AsyncIterator[tuple[Service, Toolbox, list[Event]]]:
    service = Service()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", service.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    given = {
        "name": "book",
        "description": "Book a table.",
        "url": f"http://127.0.0.1:{port}/tables/{{name}}",
        "parameters": SCHEMA,
        "headers": {"Authorization": "Bearer {key}"},
        **options,
    }
    tool = HttpTool.model_validate(given)
    events: list[Event] = []
    toolbox = Toolbox((), (tool,), FakeDigits(), {"name": "Smith/Co?", "key": "k1"}, events.append)
    try:
        yield service, toolbox, events
    finally:
        await toolbox.close()
        await runner.cleanup()


async def test_a_post_sends_json_and_fills_in_variables() -> None:
    async with restaurant() as (service, toolbox, events):
        result = await toolbox.run(call("book", people=2))
    assert json.loads(result.content) == {"free": True}
    url, _, body, headers = service.asked[0]
    assert url == "/tables/Smith%2FCo%3F"
    assert body == {"people": 2}
    assert headers["Authorization"] == "Bearer k1"
    (span,) = events
    assert isinstance(span, ToolSpan)
    assert span.ok


async def test_a_get_sends_a_query() -> None:
    async with restaurant(method="GET") as (service, toolbox, _):
        await toolbox.run(ToolCall("1", "book", '{"people": 2, "guest": "Anna"}'))
    assert service.asked[0][1] == {"people": "2", "guest": "Anna"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [('{"people": "two"}', "invalid arguments"), ("{", "no JSON"), ("[]", "invalid arguments"), ("", "invalid")],
)
async def test_invalid_arguments_are_told_to_the_model(arguments: str, words: str) -> None:
    async with restaurant() as (service, toolbox, events):
        result = await toolbox.run(ToolCall("1", "book", arguments))
    assert words in json.loads(result.content)["error"]
    assert service.asked == []
    assert [event.ok for event in events if isinstance(event, ToolSpan)] == [False]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (web.json_response({"oops": 1}, status=500), "answered 500"),
        (web.Response(status=302), "answered 302"),
        (web.Response(text="<html>"), "not answer with JSON"),
        (web.Response(body=b"x" * 100_000), "more than 65536 bytes"),
    ],
)
async def test_what_a_service_may_answer_is_bounded(answer: web.Response, words: str) -> None:
    async with restaurant() as (service, toolbox, _):
        service.answer = web.Response(status=answer.status, body=answer.body, headers={"Location": "/elsewhere"})
        result = await toolbox.run(call("book", people=2))
    assert words in json.loads(result.content)["error"]
    assert len(service.asked) == 1, "no redirect is followed"


async def test_a_long_answer_is_shortened_for_the_model() -> None:
    async with restaurant() as (service, toolbox, _):
        service.answer = web.json_response({"text": "x" * 10_000})
        result = await toolbox.run(call("book", people=2))
    assert len(json.loads(result.content)["truncated"]) == tools.MAX_RESULT_CHARACTERS


async def test_an_empty_answer_is_fine() -> None:
    async with restaurant() as (service, toolbox, _):
        service.answer = web.Response(status=204)
        result = await toolbox.run(call("book", people=2))
    assert json.loads(result.content) == {"ok": True}


async def test_a_slow_service_is_given_up() -> None:
    async with restaurant(timeout_s=0.05) as (service, toolbox, _):
        service.delay_s = 5
        result = await toolbox.run(call("book", people=2))
    assert "did not answer within 0.05 s" in result.content


async def test_a_service_that_is_not_there(free_port: int) -> None:
    async with restaurant(url=f"http://127.0.0.1:{free_port}/") as (_, toolbox, _events):
        result = await toolbox.run(call("book", people=2))
    assert "cannot be reached" in result.content


async def test_the_tools_that_are_built_in() -> None:
    digits = FakeDigits("42", after_s=0)
    toolbox = Toolbox(("end_call", "transfer", "collect_digits"), (), digits, {}, lambda _: None)
    end = await toolbox.run(call("end_call", farewell="Bye"))
    assert (end.outcome, end.say) == (Outcome("done", "end_call"), "Bye")
    assert (await toolbox.run(call("transfer", reason="angry"))).outcome == Outcome("transfer", "angry")
    assert json.loads((await toolbox.run(call("collect_digits", count=2, timeout_s=3))).content) == {"digits": "42"}
    assert digits.asked == [(2, 3.0)]
    assert "no tool fly" in (await toolbox.run(call("fly"))).content
    assert "invalid" in (await toolbox.run(call("collect_digits", count=0))).content


async def test_a_cancelled_tool_leaves_its_span() -> None:
    events: list[Event] = []
    toolbox = Toolbox(("collect_digits",), (), FakeDigits(after_s=100), {}, events.append)
    task = asyncio.create_task(toolbox.run(call("collect_digits", count=1, timeout_s=60)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [event.ok for event in events if isinstance(event, ToolSpan)] == [False]


async def test_a_broken_schema_is_told_to_the_model() -> None:
    """Dialplans are checked when they are loaded; another caller of the room may not have done so."""
    tool = HttpTool.model_construct(name="book", description="", parameters={"type": "nonsense"})
    toolbox = Toolbox((), (tool,), FakeDigits(), {}, lambda _: None)
    assert "schema is invalid" in (await toolbox.run(call("book", people=2))).content
