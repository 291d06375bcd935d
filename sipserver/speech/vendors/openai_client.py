"""What the OpenAI-compatible speech engines share: the client, and its errors in our words.

The `openai` package costs 20 MB and half a second, so it is imported when the first engine of this kind is loaded. The
client never retries: that is for the caller's fallback chain to decide.
"""

from __future__ import annotations

import importlib
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from sipserver.errors import ProviderBusy, ProviderError, ProviderRejected, ProviderTimeout, SettingsError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_CLOUD = "api.openai.com"
_BUSY = frozenset({409, 429, 503})
_NOWHERE = "http://127.0.0.1:9"
_FIRST_USED = ("httpcore2", "httpcore", "h11", "anyio._backends._asyncio", "openai.lib.streaming.chat")
"""What the package's transport imports with its first request."""


def connect(engine: str, base_url: str, api_key_env: str, timeout_s: float) -> AsyncOpenAI:
    """A client for any server that speaks this API. Raises SettingsError if OpenAI itself is meant and no key is set.

    Servers of one's own often need no key; the package insists on one, so they get a placeholder.
    """
    openai: Any = importlib.import_module("openai")
    key = os.environ.get(api_key_env, "")
    if not key and _CLOUD in base_url:
        raise SettingsError(f"the environment variable {api_key_env} is not set", key=f"speech engine {engine}")
    client: AsyncOpenAI = openai.AsyncOpenAI(
        base_url=base_url, api_key=key or "none", max_retries=0, timeout=timeout_s, http_client=without_tls(base_url)
    )
    return client


def without_tls(base_url: str) -> Any:
    """The transport of a client that speaks plain HTTP; None, which means the package's own, for all others.

    The package's own reads the machine's certificates for every client, 12 MB each, also where none is ever needed.
    This one has none to trust, so that a server which redirects to HTTPS is refused.
    """
    if not base_url.startswith("http://"):
        return None
    openai: Any = importlib.import_module("openai")
    return openai.DefaultAsyncHttpxClient(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


@cache
def preload() -> None:
    """Import what every client needs, and would import only when it is first used: half a second and 25 MB, which a
    parent of many processes spends once for all of them."""
    openai: Any = importlib.import_module("openai")
    client = openai.AsyncOpenAI(base_url=_NOWHERE, api_key="none", http_client=without_tls(_NOWHERE))
    for part in (client.chat.completions, client.audio.speech, client.audio.transcriptions):
        _ = part.create
    for module in _FIRST_USED:
        with suppress(ImportError):  # another version of the package has another transport
            importlib.import_module(module)


@contextmanager
def errors_in_our_words(engine: str) -> Iterator[None]:
    """Timeouts, refusals and failures of the client become ProviderTimeout, ProviderBusy, ProviderRejected, ..."""
    openai: Any = importlib.import_module("openai")
    try:
        yield
    except openai.APITimeoutError as problem:
        raise ProviderTimeout(engine, "no answer in time") from problem
    except openai.APIConnectionError as problem:
        raise ProviderError(engine, f"no connection: {problem.__cause__ or problem}") from problem
    except openai.APIStatusError as problem:
        raise _refusal(engine, problem.status_code, problem.message) from problem
    except (
        Exception
    ) as problem:  # a cut connection or an answer that is no JSON surfaces as an error of other libraries
        raise ProviderError(engine, f"not understood: {type(problem).__name__}: {problem}") from problem


def _refusal(engine: str, status: int, message: str) -> ProviderError:
    reason = f"HTTP {status}: {message[:300]}"
    if status in _BUSY:
        return ProviderBusy(engine, reason)
    if status in {408, 504}:
        return ProviderTimeout(engine, reason)
    if 400 <= status < 500:
        return ProviderRejected(engine, reason)
    return ProviderError(engine, reason)
