"""What `sipserver doctor` looks at when calls may come by HTTP: secrets, keys, and how carriers reach us.

Owns the same kind of judgement as `checks`; asks no carrier anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from sipserver.cli.checks import Finding, ok, problem, warning
from sipserver.settings import Settings

SET_IT = "set it in the service's environment file"


def gate(settings: Settings, environment: Mapping[str, str] = os.environ) -> list[Finding]:
    """Nothing where no calls come by HTTP. environment: where the secrets are."""
    if not settings.calls_by_http:
        return []
    found = [*_secret(settings, environment), *_accounts(settings, environment), *_address(settings)]
    return found or [ok("calls by HTTP", ", ".join(settings.streams.names) or "with tokens")]


def _secret(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    name = settings.gate.secret_env
    if environment.get(name):
        return
    what = f"the environment variable {name} is not set"
    if settings.mode == "fleet":
        reason = f"{what}: each gateway refuses the tokens of the others"
        yield problem("tokens", reason, "set it to 32 bytes or more, the same on all machines")
    elif not settings.streams.names:
        yield warning("tokens", f"{what}: only the server's own pages get tokens", "set it to make tokens elsewhere")


def _accounts(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    for twilio in settings.streams.twilio:
        if not environment.get(twilio.auth_token_env):
            yield problem(twilio.name, f"the environment variable {twilio.auth_token_env} is not set", SET_IT)
    for vonage in settings.streams.vonage:
        if not environment.get(vonage.signature_secret_env):
            yield problem(vonage.name, f"the environment variable {vonage.signature_secret_env} is not set", SET_IT)
        key = vonage.private_key
        if key is None:
            what = "no private_key: calls can be taken, but not placed, transferred or hung up by their REST API"
            yield warning(vonage.name, what, "name the key file of the application")
        elif not os.access(key, os.R_OK):
            yield problem(vonage.name, f"{key} cannot be read", "correct streams.vonage.private_key, or its rights")


def _address(settings: Settings) -> Iterator[Finding]:
    if not settings.streams.names:
        return
    url = settings.gate.public_url
    if not url:
        what = "gate.public_url is empty: signatures hold only if the proxy passes Host and X-Forwarded-Proto"
        yield warning("carriers", what, "set gate.public_url, e.g. https://voice.example.com")
    elif not url.startswith("https://"):
        yield warning("carriers", f"{url}: carriers open WebSockets by wss alone", "put TLS in front and say https")
