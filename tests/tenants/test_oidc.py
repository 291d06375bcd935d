"""What is not believed: providers and ID tokens that are not as they must be. The good ones are in test_provider."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from joserfc import jwk, jwt
from pydantic import ValidationError

from sipserver.errors import CallerError, IdentityError, NotAllowed, SettingsError
from sipserver.tenants.oidc import KEYS_EVERY_S, Flow, Identity, Providers
from sipserver.tenants.provider_login import role_by_claim
from sipserver.tenants.roles import Role
from sipserver.tenants.settings import LoginSettings, ProviderSettings

KEY = jwk.RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
OTHER = jwk.RSAKey.generate_key(2048, {"kid": "two"})
FLOW = Flow.begun("acme", "/")
BACK = "https://voice.example.com/callback"


class Answers:
    """A provider's own words. claims, about: merged into what is right; None takes away."""

    def __init__(self) -> None:
        self.claims: dict[str, Any] = {}
        self.about: dict[str, Any] = {}
        self.token: Any = None
        self.keys = [KEY]
        self.fetched = 0
        self.url = ""

    async def configuration(self, _request: web.Request) -> web.Response:
        told = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/auth",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
        }
        return web.json_response(_merged(told, self.about))

    async def exchange(self, request: web.Request) -> web.Response:
        form = await request.post()
        assert form["code_verifier"] == FLOW.derived("verifier")
        return web.json_response({"id_token": self.token or self.signed(KEY), "token_type": "Bearer"})

    async def published(self, _request: web.Request) -> web.Response:
        self.fetched += 1
        strange: list[Any] = [{"kty": "what"}, {"kty": "oct", "k": "AAAA", "kid": "one"}, None, {"use": "enc"}]
        return web.json_response({"keys": [*strange, *(key.as_dict(private=False) for key in self.keys)]})

    def signed(self, key: jwk.RSAKey, **header: Any) -> str:
        now = int(time.time())
        right = {
            "iss": self.url,
            "sub": "anna",
            "aud": "sipserver",
            "iat": now,
            "exp": now + 60,
            "nonce": FLOW.derived("nonce"),
            "email": "anna@example.com",
            "email_verified": True,
        }
        return jwt.encode({"alg": "RS256", "kid": key.kid, **header}, _merged(right, self.claims), key)

    @property
    def settings(self) -> ProviderSettings:
        return ProviderSettings(issuer=self.url, client_id="sipserver")


def _merged(right: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**right, **other}.items() if value is not None}


def _encoded(payload: bytes) -> str:
    return base64.urlsafe_b64encode(payload).decode().rstrip("=")


@pytest.fixture
async def answers() -> AsyncIterator[Answers]:
    made = Answers()
    app = web.Application()
    app.add_routes(
        [
            web.get("/.well-known/openid-configuration", made.configuration),
            web.post("/token", made.exchange),
            web.get("/jwks", made.published),
        ]
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
async def providers(answers: Answers) -> AsyncIterator[Providers]:
    made = Providers([answers.settings], clock=Clock())
    yield made
    await made.close()


async def finish(providers: Providers, answers: Answers) -> Identity:
    answer = {"state": FLOW.derived("state"), "code": "a code"}
    return await providers.of(answers.settings).finish(FLOW, BACK, answer)


async def test_what_is_right_is_believed(providers: Providers, answers: Answers) -> None:
    found = await finish(providers, answers)
    assert (found.issuer, found.subject, found.email) == (answers.url, "anna", "anna@example.com")
    answers.claims = {"aud": ["sipserver", "another"], "azp": "sipserver", "email_verified": "true"}
    assert (await finish(providers, answers)).email == "", "verified is `true` and nothing else"
    assert answers.fetched == 1


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.example"},
        {"aud": "another"},
        {"aud": ["sipserver", "another"], "azp": "another"},
        {"exp": 1_000_000_000},
        {"iat": 10_000_000_000},
        {"nonce": "of another flow"},
        {"nonce": None},
        {"exp": None},
        {"aud": None},
        {"sub": None},
        {"sub": ""},
        {"sub": "x" * 256},
        {"sub": 7},
    ],
    ids=str,
)
async def test_claims_that_are_wrong_are_not(providers: Providers, answers: Answers, claims: dict[str, Any]) -> None:
    answers.claims = claims
    with pytest.raises(IdentityError, match="ID token"):
        await finish(providers, answers)


async def test_signatures_that_are_wrong_are_not(providers: Providers, answers: Answers) -> None:
    good = answers.signed(KEY)
    head, body, signature = good.split(".")
    none, changed = _encoded(b'{"alg":"none","kid":"one"}'), _encoded(b'{"sub":"bob"}')
    symmetric = _encoded(b'{"alg":"HS256","kid":"one"}')
    digest = hmac.digest(KEY.as_pem(private=False), f"{symmetric}.{body}".encode(), hashlib.sha256)
    forged = (
        f"{none}.{body}.",
        f"{head}.{changed}.{signature}",
        f"{head}.{body}.{signature[:-4]}AAAA",
        answers.signed(OTHER, kid="one"),
        answers.signed(OTHER),
        f"{symmetric}.{body}.{_encoded(digest)}",
        "nonsense",
        "a.b.c",
        "....",
        json.dumps({}),
    )
    for token in forged:
        answers.token = token
        with pytest.raises(IdentityError):
            await finish(providers, answers)


async def test_keys_are_fetched_again_for_a_new_one_but_not_for_ever(answers: Answers) -> None:
    clock = Clock()
    providers = Providers([answers.settings], clock=clock)
    try:
        await finish(providers, answers)
        answers.token, answers.keys = answers.signed(OTHER), [OTHER]
        for _ in range(3):
            with pytest.raises(IdentityError, match="does not publish"):
                await finish(providers, answers)
        assert answers.fetched == 1, "not so soon"
        clock.now_s += KEYS_EVERY_S
        await finish(providers, answers)
        assert answers.fetched == 2
        answers.token = answers.signed(KEY)
        clock.now_s += KEYS_EVERY_S
        with pytest.raises(IdentityError, match="does not publish"):
            await finish(providers, answers)
    finally:
        await providers.close()


@pytest.mark.parametrize(
    "about", [{"issuer": "https://evil.example"}, {"token_endpoint": None}, {"jwks_uri": "file:///etc/passwd"}], ids=str
)
async def test_a_provider_that_is_another_is_not_asked(
    providers: Providers, answers: Answers, about: dict[str, Any]
) -> None:
    answers.about = about
    with pytest.raises(IdentityError):
        await providers.of(answers.settings).begin(FLOW, BACK)


async def test_what_the_browser_brings_is_that_of_the_flow(providers: Providers, answers: Answers) -> None:
    provider = providers.of(answers.settings)
    for answer in ({}, {"state": ""}, {"state": Flow.begun("acme", "/").derived("state"), "code": "x"}):
        with pytest.raises(CallerError, match="browser"):
            await provider.finish(FLOW, BACK, answer)
    with pytest.raises(NotAllowed):
        await provider.finish(FLOW, BACK, {"state": FLOW.derived("state"), "error": "access_denied"})


def test_a_cookie_holds_the_flow_or_nothing() -> None:
    assert Flow.of(FLOW.text()) == FLOW
    moved = Flow("zenith", FLOW.back, FLOW.token)
    assert moved.derived("state") != FLOW.derived("state"), "the tenant cannot be another one on the way back"
    assert len({FLOW.derived(name) for name in ("state", "nonce", "verifier")}) == 3
    for wrong in (
        "",
        "x",
        "\u00e4",
        base64.urlsafe_b64encode(b'["a","b","short"]').decode(),
        "W10=",
        "e30=",
        "MQ==",
        "W1tb" * 1500,
    ):
        assert Flow.of(wrong) is None


def test_settings_that_would_let_anybody_in_are_refused() -> None:
    right: dict[str, Any] = {"issuer": "https://login.example.com", "client_id": "x"}
    assert ProviderSettings(**right)
    for wrong in (
        {"issuer": "http://login.example.com"},
        {"create": True, "new_role": "viewer"},
        {"create": True, "tenants": ["acme"]},
        {"role_claim": "groups"},
        {"roles": {"a": "admin"}},
        {"roles": {"a": "king"}, "role_claim": "groups"},
        {"scopes": ["email"]},
    ):
        with pytest.raises(ValidationError):
            ProviderSettings(**{**right, **wrong})
    with pytest.raises(ValidationError, match="two providers for every tenant"):
        LoginSettings(oidc=(ProviderSettings(**right), ProviderSettings(**right)))
    own = ProviderSettings(**right, tenants=("acme",))
    both = LoginSettings(oidc=(ProviderSettings(**right), own))
    assert both.provider_of("acme") is own
    assert both.provider_of("zenith") is both.oidc[0]
    with pytest.raises(SettingsError, match="NOT_SET"):
        Providers([ProviderSettings(**right, client_secret_env="NOT_SET")], environment={})


def test_the_highest_role_that_the_claim_means_counts() -> None:
    roles = {"a": Role.VIEWER, "b": Role.ADMIN, "c": Role.OPERATOR}
    settings = ProviderSettings(issuer="https://a.example", client_id="x", role_claim="groups", roles=roles)
    for value, role in (
        (["a", "b"], Role.ADMIN),
        (["a", "c"], Role.OPERATOR),
        ("c", Role.OPERATOR),
        ([], None),
        (["x", 7, None], None),
        ({"a": 1}, None),
        (None, None),
    ):
        assert role_by_claim({"groups": value}, settings) is role
    assert role_by_claim({}, settings) is None
