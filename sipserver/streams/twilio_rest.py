"""Twilio's REST API, as far as our calls need it: hang up, do something else with a call, call somebody.

By the package `twilio`, which blocks: requests run as `errands`. Owns what an HTTP status means. Refuses to know legs
and TwiML. Source: Twilio, "Call resource".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import requests
from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client

from sipserver.errors import CarrierError
from sipserver.streams.errands import Errands
from sipserver.streams.settings import TwilioAccount

TIMEOUT_S = 10.0
_HOST = "https://api.twilio.com"

Answer = TypeVar("Answer")


class TwilioRest:
    """Loop thread; `close` at the end. Every method raises CarrierError, with the HTTP status as its `status`, when
    Twilio says no, and with 503 when it cannot be reached. Cancelling a method does not stop the request.
    """

    def __init__(self, account: TwilioAccount, auth_token: str) -> None:
        self._account, self._auth_token = account, auth_token
        self._errands = Errands(f"twilio {account.name}")

    async def hang_up(self, call_sid: str) -> None:
        await self._ask(lambda client: client.calls(call_sid).update(status="completed"))

    async def do(self, call_sid: str, twiml: str) -> None:
        """The call leaves what it is in, and goes on with this."""
        await self._ask(lambda client: client.calls(call_sid).update(twiml=twiml))

    async def call(self, to: str, twiml: str, *, from_number: str, told_url: str, ring_s: float) -> str:
        """Call somebody; when they answer, their call goes on with the TwiML. Its CallSid.

        told_url: where Twilio tells what becomes of it.
        """
        made = await self._ask(
            lambda client: client.calls.create(
                to=to,
                from_=from_number,
                twiml=twiml,
                timeout=min(600, max(5, round(ring_s))),
                status_callback=told_url,
                status_callback_event=["ringing", "answered", "completed"],
            )
        )
        return str(made.sid)

    async def close(self) -> None:
        """Returns when the requests that run are over: TIMEOUT_S at most."""
        await self._errands.close()

    async def _ask(self, request: Callable[[Client], Any]) -> Any:
        try:
            return await self._errands.run(lambda: request(self._client()))
        except TwilioRestException as problem:
            raise CarrierError(f"Twilio said no: HTTP {problem.status}", problem.status) from None
        except (requests.RequestException, OSError) as problem:
            raise CarrierError(f"Twilio cannot be reached: {type(problem).__name__}", 503) from None

    def _client(self) -> Client:
        """A new one for each request: `requests` does not promise that threads may share a session."""
        http = _To(self._account.api_url)
        return Client(self._account.account_sid, self._auth_token, http_client=http)


class _To(TwilioHttpClient):  # type: ignore[misc]  # the package has no types
    """Sends to another host what the package would send to Twilio's."""

    def __init__(self, api_url: str) -> None:
        super().__init__(pool_connections=False, timeout=TIMEOUT_S)
        self._api_url = api_url.rstrip("/")

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        return super().request(method, self._api_url + url.removeprefix(_HOST), *args, **kwargs)
