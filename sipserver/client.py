"""A client of the REST API, for programs in Python: one method an operation, the models of the server itself.

    async with Client("http://127.0.0.1:8080", key) as server:
        made = await server.create_call("+493012345", flow="reminder")
        async for event in server.follow(made.id):
            print(event.kind, event.fields)
        await server.recording(made.id, Path("call.wav"))

Owns trying again, after the server's Retry-After where it says one: requests too many (429), and questions, recordings
and orders of calls that found the server busy (503), whose connection broke, or whose first sending is under way still
(409); orders have an Idempotency-Key. Refuses to try anything else again: it may have been done. docs/api.md tells
the operations.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import aiohttp
from pydantic import BaseModel, ValidationError
from yarl import URL

from sipserver import __version__
from sipserver.api.rest import models, people_models, webhook_models
from sipserver.errors import CallerError, InternalError, SipServerError
from sipserver.gate.close_codes import Close

ATTEMPTS = 4
LONGEST_PAUSE_S = 30.0
LOOK_S = 0.25
PART_BYTES = 64 * 1024
HEARTBEAT_S = 20.0
_OUTSIDE = "the client is used outside of its `async with` block"
_REFUSED = {
    400: "`after` is no cursor of this server's",
    403: "the key does not have the scope events:read",
    410: "the cursor is older than a day: read what happened of the calls, and go on without it",
}
_AGAIN = frozenset({"GET", "DELETE"})

M = TypeVar("M", bound=BaseModel)


class ApiError(SipServerError):
    """The server refused. status: of HTTP. detail: why, in its words. errors: (where, reason) of each field that is
    wrong. pause_s: when it may be asked again; 0: it does not say.
    """

    def __init__(
        self, status: int, detail: str, errors: tuple[tuple[str, str], ...] = (), *, retry_after: str = ""
    ) -> None:
        self.status, self.detail, self.errors = status, detail, errors
        self.pause_s = min(float(retry_after), LONGEST_PAUSE_S) if retry_after.isdecimal() else 0.0
        self.http_code = status
        self.retry = status in (429, 503) or (status == 409 and self.pause_s > 0)
        fields = "".join(f"; {where}: {reason}" for where, reason in errors)
        super().__init__(f"{detail}{fields} ({status})")


@dataclass(frozen=True, slots=True)
class Happened:
    """A live event. call_id: empty: it belongs to no call; seq and at_ms say nothing then. timestamp: RFC 3339. cursor:
    from here on one can go on later.
    """

    kind: str
    call_id: str
    seq: int
    at_ms: int
    timestamp: str
    fields: Mapping[str, Any]
    cursor: str


class Client:
    """An async context; its loop. url: of the server, with or without /api/v1. All methods raise ApiError for what the
    server refuses, CallerError for options that no server takes, InternalError when it cannot be reached. Raises
    CallerError for what is no URL and no key.
    """

    def __init__(self, url: str, key: str, *, timeout_s: float = 30, attempts: int = ATTEMPTS) -> None:
        self._base, self._key = _base(url), _key(key)
        self._timeout_s, self._attempts = timeout_s, max(1, attempts)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._key}", "User-Agent": f"sipserver-client/{__version__}"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timeout_s, sock_read=self._timeout_s),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    # --- calls --------------------------------------------------------------------------------------------------------

    async def create_call(self, to: str, *, idempotency_key: str = "", **options: Any) -> models.CallCreated:
        """Place a call. options: the other fields of `CreateCall`; the number to show is `from_`."""
        body = _taken(models.CreateCall, {"to": to, **options})
        key = idempotency_key or uuid.uuid4().hex
        return await self._json("POST", "calls/create", models.CallCreated, body, {"Idempotency-Key": key}, again=True)

    async def call(self, call_id: str) -> models.Call:
        return await self._json("GET", f"calls/{call_id}", models.Call)

    async def calls(self, most: int = 500, **conditions: Any) -> AsyncIterator[models.Call]:
        """The newest first. conditions: the fields of `CallsAsked` but its cursor."""
        left, cursor = most, ""
        while left > 0:
            asked = _taken(models.CallsAsked, {**conditions, "limit": min(left, 500), "cursor": cursor})
            page = await self._json("GET", "calls", models.CallPage, query=asked)
            for call in page.calls:
                yield call
            left -= len(page.calls)
            if not page.next:
                return
            cursor = page.next

    async def events(self, call_id: str, after: int = -1) -> AsyncIterator[models.CallEvent]:
        """What has happened so far, from the first `seq` beyond `after` on."""
        while True:
            page = await self._json("GET", f"calls/{call_id}/events", models.CallEvents, query={"after": after})
            for event in page.events:
                after = event.seq
                yield event
            if not page.more:
                return

    async def follow(self, call_id: str, after: int = -1) -> AsyncIterator[models.CallEvent]:
        """The same, and what happens from now on, until the call is over. The server is asked every LOOK_S."""
        while True:
            async for event in self.events(call_id, after):
                after = event.seq
                yield event
                if event.kind == "call.ended":
                    return
            await asyncio.sleep(LOOK_S)

    async def transcript(self, call_id: str) -> list[models.Said]:
        return (await self._json("GET", f"calls/{call_id}/transcript", models.CallTranscript)).lines

    async def recording(self, call_id: str, file: Path, *, number: int = 0) -> int:
        """Write the recording to a file; its bytes. A connection that breaks is taken up where it broke. The file
        appears when all of it is there. number: of several, from 1; 0: the last one.
        """
        part = file.with_name(f".{file.name}.part")
        which = {"number": str(number)} if number else None
        try:
            with await asyncio.to_thread(part.open, "wb") as out:
                size = await self._download(f"calls/{call_id}/recording", out, which)
            await asyncio.to_thread(part.replace, file)
        finally:
            await asyncio.to_thread(part.unlink, missing_ok=True)
        return size

    async def transfer(self, call_id: str, to: str, **options: Any) -> None:
        """options: the other fields of `TransferCall`. The call's events tell the outcome."""
        await self._errand(call_id, "transfer", _taken(models.TransferCall, {"to": to, **options}))

    async def say(self, call_id: str, text: str, **options: Any) -> None:
        """options: the other fields of `SayText`."""
        await self._errand(call_id, "say", _taken(models.SayText, {"text": text, **options}))

    async def play(self, call_id: str, file: str, *, interruptible: bool = True) -> None:
        await self._errand(call_id, "play", _taken(models.PlaySound, {"file": file, "interruptible": interruptible}))

    async def digits(self, call_id: str, digits: str, *, duration_ms: int = 160) -> None:
        await self._errand(call_id, "digits", _taken(models.SendDigits, {"digits": digits, "duration_ms": duration_ms}))

    async def record(self, call_id: str, action: str = "start", *, stereo: bool = True) -> None:
        await self._errand(call_id, "record", _taken(models.RecordCall, {"action": action, "stereo": stereo}))

    async def mute(self, call_id: str, on: bool = True) -> None:
        await self._errand(call_id, "mute" if on else "unmute")

    async def hold(self, call_id: str, on: bool = True) -> None:
        await self._errand(call_id, "hold" if on else "resume")

    async def hangup(self, call_id: str) -> None:
        """A call that is over already is no error."""
        await self._ask("DELETE", f"calls/{call_id}")

    # --- webhooks -----------------------------------------------------------------------------------------------------

    async def create_webhook(self, url: str, *kinds: str) -> webhook_models.WebhookWithSecret:
        """kinds: patterns such as `call.*`; none: everything."""
        body = _taken(webhook_models.CreateWebhook, {"url": url, "kinds": list(kinds)})
        return await self._json("POST", "webhooks", webhook_models.WebhookWithSecret, body)

    async def webhooks(self) -> list[webhook_models.Webhook]:
        return (await self._json("GET", "webhooks", webhook_models.Webhooks)).webhooks

    async def delete_webhook(self, endpoint: str) -> None:
        await self._ask("DELETE", f"webhooks/{endpoint}")

    # --- live events --------------------------------------------------------------------------------------------------

    async def live(
        self,
        *,
        kinds: Sequence[str] = (),
        call_id: str = "",
        after: str = "",
        on_live: Callable[[], None] = lambda: None,
    ) -> AsyncIterator[Happened]:
        """What happens in the tenant's calls from now on, or since the cursor `after`; without an end. Each event comes
        once, over any number of breaks (docs/websockets.md). kinds: patterns such as `call.*`. on_live: called when all
        that is past has been told.
        """
        tenant = (await self._json("GET", "me", people_models.Me)).tenant
        asked = {"kinds": ",".join(kinds), "call": call_id}
        failures = 0
        while True:
            query = {name: value for name, value in {**asked, "after": after}.items() if value}
            try:
                async with self._connected(self._base.origin() / "ws/events" / tenant % query) as socket:
                    async for message in socket:
                        told = json.loads(message.data)
                        after, failures = told["cursor"], 0
                        if told["kind"] == "events.live":
                            on_live()
                        elif "call_id" in told:
                            yield Happened(**{name: told[name] for name in Happened.__slots__})
                    if socket.close_code == Close.KEY_OVER:
                        raise ApiError(401, "the API key is over")
            except (aiohttp.ClientError, TimeoutError) as problem:
                failures += 1
                await self._pause(problem, failures, harmless=True)
            else:
                await asyncio.sleep(_pause_s(1))

    @contextlib.asynccontextmanager
    async def _connected(self, url: URL) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Raises ApiError for a refusal that stays one, and what aiohttp raises."""
        if self._session is None:
            raise InternalError(_OUTSIDE)
        try:
            async with self._session.ws_connect(url, heartbeat=HEARTBEAT_S, compress=0) as socket:
                yield socket
        except aiohttp.WSServerHandshakeError as refused:
            if refused.status in (429, 503):
                raise
            raise ApiError(refused.status, _REFUSED.get(refused.status, refused.message)) from None

    # --- inside -------------------------------------------------------------------------------------------------------

    async def _errand(self, call_id: str, verb: str, body: Mapping[str, Any] | None = None) -> None:
        await self._json("POST", f"calls/{call_id}/{verb}", models.Accepted, body)

    async def _json(
        self,
        method: str,
        path: str,
        model: type[M],
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        query: Mapping[str, Any] | None = None,
        again: bool = False,
    ) -> M:
        text = await self._ask(method, path, body, headers, query=query, again=again)
        try:
            return model.model_validate_json(text)
        except ValidationError as problem:
            wrong = problem.errors()[0]["msg"]
            raise InternalError(f"{method} {path}: this is no answer of a sipserver: {wrong}") from None

    async def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        query: Mapping[str, Any] | None = None,
        again: bool = False,
    ) -> bytes:
        """The body of the answer. again: it does no harm to ask twice."""
        harmless = again or method in _AGAIN
        for attempt in itertools.count(1):
            try:
                async with self._request(method, path, headers, json=body, params=query) as answer:
                    return await answer.read()
            except (ApiError, aiohttp.ClientError, TimeoutError) as problem:
                await self._pause(problem, attempt, harmless=harmless)
        raise AssertionError

    async def _download(self, path: str, out: Any, query: Mapping[str, str] | None = None) -> int:
        size = 0
        for attempt in itertools.count(1):
            headers = {"Range": f"bytes={size}-"} if size else {}
            try:
                async with self._request("GET", path, headers, params=query) as answer:
                    if size and answer.status != 206:
                        out.seek(0)
                        size = 0
                    async for part in answer.content.iter_chunked(PART_BYTES):
                        await asyncio.to_thread(out.write, part)
                        size += len(part)
                    return size
            except (ApiError, aiohttp.ClientError, TimeoutError) as problem:
                await self._pause(problem, attempt, harmless=True)
        raise AssertionError

    async def _pause(self, problem: Exception, attempt: int, *, harmless: bool) -> None:
        """Until the next attempt. Raises what went wrong when there is none."""
        last = attempt >= self._attempts
        if isinstance(problem, ApiError):
            if last or not (problem.retry and (harmless or problem.status == 429)):
                raise problem
            await asyncio.sleep(problem.pause_s or _pause_s(attempt))
        elif last or not harmless:
            what = str(problem) or type(problem).__name__
            raise InternalError(f"the server at {self._base.origin()} cannot be asked: {what}") from None
        else:
            await asyncio.sleep(_pause_s(attempt))

    @contextlib.asynccontextmanager
    async def _request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer below 300. Raises ApiError, and what aiohttp raises."""
        if self._session is None:
            raise InternalError(_OUTSIDE)
        async with self._session.request(
            method, self._base / path, headers=dict(headers or {}), allow_redirects=False, **options
        ) as answer:
            if answer.status >= 300:
                raise await _refusal(answer)
            yield answer


def _base(url: str) -> URL:
    """Of all operations."""
    try:
        given = URL(url.strip())
        known = given.scheme in ("http", "https") and bool(given.host)
    except ValueError:
        known = False
    if not known:
        raise CallerError(f"{url!r} is no URL of a server: write it as http://127.0.0.1:8080")
    path = given.path.rstrip("/").removesuffix("/api/v1")
    return given.with_path(path) / "api/v1"


def _key(key: str) -> str:
    given = key.strip()
    if not (given.isascii() and given.isprintable()):
        raise CallerError("the API key has line breaks or other signs that no key has: give the key alone")
    return given


def _pause_s(attempt: int) -> float:
    return min(float(2**attempt) / 4, LONGEST_PAUSE_S)


async def _refusal(answer: aiohttp.ClientResponse) -> ApiError:
    """As RFC 9457 has it; of somebody in between, what the status says."""
    try:
        told = await answer.json(content_type=None)
        errors = tuple((str(each["where"]), str(each["reason"])) for each in told.get("errors", ()))
        detail = str(told.get("detail") or told.get("title") or answer.reason)
        return ApiError(answer.status, detail, errors, retry_after=answer.headers.get("Retry-After", ""))
    except (ValueError, LookupError, TypeError, AttributeError, aiohttp.ClientError):
        return ApiError(answer.status, f"{answer.reason or 'refused'}, by something that is no sipserver")


def _taken(model: type[BaseModel], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON of a request. Raises CallerError for what no server would take."""
    try:
        checked = model.model_validate(fields)
    except ValidationError as problem:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in problem.errors())
        raise CallerError(f"{model.__name__}: {wrong}") from None
    told = checked.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return {
        name: str(value).lower() if isinstance(value, bool) and model is models.CallsAsked else value
        for name, value in told.items()
        if value not in (None, "")
    }
