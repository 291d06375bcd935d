"""Vonage's REST API, as far as our calls need it: hang up, connect to somebody else, play digits, call somebody.

By the package `vonage`, which blocks: requests run as `errands`. Owns what an HTTP status means. Refuses to know legs.
Source: Vonage, "Voice API reference" (`/v1/calls`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from pydantic import ValidationError
from requests.adapters import HTTPAdapter
from vonage_http_client import Auth, HttpClient, HttpClientOptions
from vonage_http_client.errors import HttpRequestError
from vonage_utils import VonageError
from vonage_voice import Voice

from sipserver.errors import CarrierError, SettingsError
from sipserver.streams.errands import Errands
from sipserver.streams.settings import VonageAccount
from sipserver.streams.vonage_messages import Ncco

TIMEOUT_S = 10

Answer = TypeVar("Answer")

logging.getLogger("vonage").setLevel(logging.ERROR)
"""The package logs requests and answers, numbers and all."""


class VonageRest:
    """Loop thread; `close` at the end. Every method raises CarrierError, with the HTTP status as its `status`, when
    Vonage says no, and with 503 when it cannot be reached. Cancelling a method does not stop the request.

    Raises SettingsError when the account's private key cannot be read.
    """

    def __init__(self, account: VonageAccount) -> None:
        self._account, self._key = account, _read(account.private_key)
        self._errands = Errands(f"vonage {account.name}")
        self._own = threading.local()

    async def hang_up(self, uuid: str) -> None:
        await self._ask(lambda voice: voice.hangup(uuid))

    async def connect(self, uuid: str, actions: Ncco) -> None:
        """The call leaves what it is in, and goes on with these actions."""
        body = {"action": "transfer", "destination": {"type": "ncco", "ncco": actions}}
        await self._ask(lambda voice: voice.http_client.put(voice.http_client.api_host, f"/v1/calls/{uuid}", body))

    async def press(self, uuid: str, digits: str) -> None:
        """digits: of 0-9, *, #."""
        await self._ask(lambda voice: voice.play_dtmf_into_call(uuid, digits))

    async def call(
        self, endpoint: dict[str, Any], actions: Ncco, *, from_number: str, event_url: str, ring_s: float
    ) -> str:
        """Call somebody; when they answer, their call goes on with these actions. Its uuid.

        event_url: where Vonage tells what becomes of it. from_number: empty: one of the application's numbers.
        """
        body = {
            "to": [endpoint],
            "ncco": actions,
            "event_url": [event_url],
            "event_method": "POST",
            "ringing_timer": _ringing(ring_s),
            **({"from": {"type": "phone", "number": from_number}} if from_number else {"random_from_number": True}),
        }
        made = await self._ask(lambda voice: voice.http_client.post(voice.http_client.api_host, "/v1/calls", body))
        if not isinstance(made, dict) or not made.get("uuid"):
            raise CarrierError("Vonage did not say the uuid of the call", 502)
        return str(made["uuid"])

    async def close(self) -> None:
        """Returns when the requests that run are over: TIMEOUT_S at most."""
        await self._errands.close()

    async def _ask(self, request: Callable[[Voice], Answer]) -> Answer:
        return await self._errands.run(lambda: self._do(request))

    def _do(self, request: Callable[[Voice], Answer]) -> Answer:
        try:
            return request(self._voice())
        except HttpRequestError as problem:
            status = problem.response.status_code
            raise CarrierError(f"Vonage said no: HTTP {status}", status) from None
        except (requests.RequestException, OSError) as problem:
            raise CarrierError(f"Vonage cannot be reached: {type(problem).__name__}", 503) from None
        except (ValidationError, VonageError) as problem:
            raise CarrierError(f"Vonage cannot do this: {type(problem).__name__}", 400) from None

    def _voice(self) -> Voice:
        """One client a thread: `requests` does not promise that threads may share a session."""
        voice: Voice | None = getattr(self._own, "voice", None)
        if voice is None:
            voice = self._own.voice = Voice(_client(self._account, self._key))
        return voice


def _client(account: VonageAccount, key: str) -> HttpClient:
    """The package asks again when a connection breaks, as often as its pool is large: a call that we place would be
    placed twice. A pool of one asks once.
    """
    where = urlsplit(account.api_url)
    host = f"{where.netloc}{where.path.rstrip('/')}"
    options = HttpClientOptions(api_host=host, timeout=TIMEOUT_S, pool_connections=1, pool_maxsize=1, max_retries=0)
    client = HttpClient(Auth(application_id=account.application_id, private_key=key), options)
    if where.scheme == "http":
        client._session.mount(f"https://{where.netloc}", _Plain())  # the package knows https alone
    return client


class _Plain(HTTPAdapter):
    """Sends without TLS what the package would send with it."""

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        request.url = "http" + (request.url or "").removeprefix("https")
        return super().send(request, *args, **kwargs)


def _ringing(ring_s: float) -> int:
    return min(120, max(1, round(ring_s)))


def _read(path: Path | None) -> str:
    try:
        key = path.read_text() if path else ""
    except OSError as problem:
        raise SettingsError(f"cannot read {path}: {problem.strerror}", key="streams.vonage.private_key") from problem
    if "-----BEGIN PRIVATE KEY-----" not in key:
        raise SettingsError(f"{path} is no private key of a Vonage application", key="streams.vonage.private_key")
    return key
