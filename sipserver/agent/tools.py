"""What the model may do besides speaking: end the call, hand it over, collect digits, ask an HTTP service.

Owns the specs, the validation of arguments and the bounds on what a service may answer. A tool that fails tells the
model so in its result; it never ends the conversation by itself.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp

from sipserver.agent.chain import Clock, milliseconds
from sipserver.agent.llm.contract import ToolCall, ToolSpec
from sipserver.agent.options import DigitSource, HttpToolOptions, Outcome
from sipserver.events import Emit, ToolSpan
from sipserver.open_files import high_socket

MAX_RESPONSE_BYTES = 64 * 1024
MAX_RESULT_CHARACTERS = 4_000
MAX_ROUNDS = 4
"""Requests to the model in one turn: a model that goes on calling tools is stopped there."""

_BUILT_IN = {
    "end_call": ToolSpec(
        "end_call",
        "End the call. Use it when the caller says good bye or wants nothing more.",
        {"type": "object", "properties": {"farewell": {"type": "string"}}, "additionalProperties": False},
    ),
    "transfer": ToolSpec(
        "transfer",
        "Hand the caller over to a person. Use it when the caller asks for one or you cannot help.",
        {"type": "object", "properties": {"reason": {"type": "string"}}, "additionalProperties": False},
    ),
    "collect_digits": ToolSpec(
        "collect_digits",
        "Wait for digits that the caller types on the telephone. Ask for them in the same answer.",
        {
            "type": "object",
            "properties": {
                "count": {"type": "integer", "minimum": 1, "maximum": 32},
                "timeout_s": {"type": "number", "exclusiveMinimum": 0, "maximum": 60},
            },
            "required": ["count"],
            "additionalProperties": False,
        },
    ),
}
_SUMMONING = ToolSpec(
    "transfer",
    "Call a person who takes over from you. Use it when the caller asks for one or you cannot help. You go on talking "
    "with the caller while the person is called.",
    _BUILT_IN["transfer"].parameters,
)
_CALLING = json.dumps({
    "status": "calling",
    "note": "The person is being called and takes over when they answer. Tell the caller so and go on with the "
    "conversation; you are told if nobody comes.",
})  # fmt: skip
_DIGITS_TIMEOUT_S = 10.0
_VARIABLE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class ToolResult:
    """content: JSON for the model. outcome: the conversation is over once everything was said. say: last words."""

    content: str
    outcome: Outcome | None = None
    say: str = ""


Summon = Callable[[str], bool]
"""Begin to call a person, for a reason; False when one is being called already. Returns at once."""


class Toolbox:
    """The tools of one conversation. Loop thread. `close` ends its HTTP session.

    summon: what the tool `transfer` does; None: it ends the conversation.
    """

    def __init__(
        self,
        built_in: Sequence[str],
        http_tools: Sequence[HttpToolOptions],
        digits: DigitSource,
        variables: Mapping[str, str],
        emit: Emit,
        clock: Clock = time.monotonic_ns,
        *,
        summon: Summon | None = None,
    ) -> None:
        self._digits, self._variables, self._emit, self._clock = digits, variables, emit, clock
        self._summon = summon
        self._http = {tool.name: tool for tool in http_tools}
        known = _BUILT_IN if summon is None else {**_BUILT_IN, "transfer": _SUMMONING}
        self.specs = [known[name] for name in built_in] + [
            ToolSpec(tool.name, tool.description, tool.parameters) for tool in http_tools
        ]
        self._session: aiohttp.ClientSession | None = None

    def offers(self, name: str) -> bool:
        return any(spec.name == name for spec in self.specs)

    async def run(self, call: ToolCall, *, patience_s: float = 0.0) -> ToolResult:
        """Do what the model asked for. Never raises but CancelledError; safe to cancel.

        patience_s: how much longer to wait for digits, because the caller still listens to what they are to type.
        """
        started = self._clock()
        ok, result = False, ToolResult(_error("cancelled"))
        try:
            result = await self._run(call, patience_s)
            ok = True
        except _ToolError as error:
            result = ToolResult(_error(str(error)))
        finally:
            took_ms = milliseconds(self._clock() - started)
            self._emit(ToolSpan(call.name, ok, took_ms, call.arguments, result.content))
        return result

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _run(self, call: ToolCall, patience_s: float) -> ToolResult:
        arguments = self._arguments(call)
        if call.name == "end_call":
            return ToolResult('{"ok": true}', Outcome("done", "end_call"), str(arguments.get("farewell", "")))
        if call.name == "transfer":
            return self._transfer(str(arguments.get("reason", "")))
        if call.name == "collect_digits":
            timeout_s = float(arguments.get("timeout_s", _DIGITS_TIMEOUT_S)) + patience_s
            return ToolResult(json.dumps({"digits": await self._digits.collect(int(arguments["count"]), timeout_s)}))
        return ToolResult(await self._request(self._http[call.name], arguments))

    def _transfer(self, reason: str) -> ToolResult:
        if self._summon is None:
            return ToolResult('{"ok": true}', Outcome("transfer", reason))
        if not self._summon(reason):
            raise _ToolError("a person is being called already; you are told what comes of it")
        return ToolResult(_CALLING)

    def _arguments(self, call: ToolCall) -> dict[str, Any]:
        spec = next((spec for spec in self.specs if spec.name == call.name), None)
        if spec is None:
            raise _ToolError(f"there is no tool {call.name}")
        import jsonschema  # 3 MB that only servers with tools need

        try:
            arguments = json.loads(call.arguments or "{}")
            jsonschema.validate(arguments, dict(spec.parameters), jsonschema.Draft202012Validator)
        except json.JSONDecodeError as error:
            raise _ToolError(f"the arguments are no JSON: {error}") from error
        except jsonschema.ValidationError as error:
            raise _ToolError(f"invalid arguments: {error.message}") from error
        except jsonschema.SchemaError as error:
            raise _ToolError(f"the tool's schema is invalid: {error.message}") from error
        if not isinstance(arguments, dict):
            raise _ToolError("the arguments must be a JSON object")
        return arguments

    async def _request(self, tool: HttpToolOptions, arguments: dict[str, Any]) -> str:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(socket_factory=high_socket))
        headers = {name: fill(value, self._variables) for name, value in tool.headers.items()}
        sent: dict[str, Any] = {"json": arguments}
        if tool.method == "GET":
            sent = {"params": {name: _plain(value) for name, value in arguments.items()}}
        try:
            async with self._session.request(
                tool.method,
                fill(tool.url, {name: quote(value, safe="") for name, value in self._variables.items()}),
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=tool.timeout_s),
                allow_redirects=False,
                **sent,
            ) as response:
                body = await _read(response)
                if not 200 <= response.status < 300:
                    raise _ToolError(f"the service answered {response.status}")
        except TimeoutError as error:
            raise _ToolError(f"the service did not answer within {tool.timeout_s:g} s") from error
        except (aiohttp.ClientError, ValueError, OSError) as error:
            raise _ToolError(f"the service cannot be reached: {type(error).__name__}") from error
        return _shortened(body)


def fill(text: str, variables: Mapping[str, str]) -> str:
    """Replace `{name}` by the variable; a name without a value stays as it is written."""
    return _VARIABLE.sub(lambda match: variables.get(match[1], match[0]), text)


class _ToolError(Exception):
    """Why a tool did not work, in words for the model."""


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for part in response.content.iter_chunked(8192):
        body += part
        if len(body) > MAX_RESPONSE_BYTES:
            raise _ToolError(f"the service answered more than {MAX_RESPONSE_BYTES} bytes")
    return bytes(body)


def _shortened(body: bytes) -> str:
    if not body.strip():
        return '{"ok": true}'
    try:
        text = json.dumps(json.loads(body), ensure_ascii=False)
    except ValueError as error:
        raise _ToolError("the service did not answer with JSON") from error
    if len(text) > MAX_RESULT_CHARACTERS:
        return json.dumps({"truncated": text[:MAX_RESULT_CHARACTERS]}, ensure_ascii=False)
    return text


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _error(reason: str) -> str:
    return json.dumps({"error": reason})
