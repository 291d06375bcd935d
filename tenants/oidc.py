"""An OpenID provider as we ask it: the authorization code flow with PKCE, state and nonce (OpenID Connect Core, 3.1).

Owns what is believed of its answers: an ID token of this issuer for this client and this flow, signed with a key that
the provider publishes now. Refuses to know users, and keeps nothing of a flow: all of it comes from the cookie.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jwk, jwt
from joserfc.errors import JoseError

from sipserver.errors import CallerError, IdentityError, NotAllowed, SettingsError
from sipserver.tenants.settings import ProviderSettings

ANSWER_S = 10.0
MOST_BYTES = 256 * 1024
KNOWN_S = 3600.0
"""How long what the provider says of itself is believed."""
KEYS_EVERY_S = 5.0
"""A key that is not known has the keys fetched again, but not more often: anybody may send a token."""
LEEWAY_S = 60
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA")
"""Only those whose keys can be published: a client's secret signs nothing here."""
_OF_US = ("authorization_endpoint", "token_endpoint", "jwks_uri")


@dataclass(frozen=True, slots=True)
class Flow:
    """One way to the provider and back. tenant: whose user comes. back: the path to go to afterwards. token: random, in
    the browser's cookie alone; what the provider is told is derived from it.
    """

    tenant: str
    back: str
    token: str

    @classmethod
    def begun(cls, tenant: str, back: str) -> Flow:
        return cls(tenant, back, secrets.token_urlsafe(32))

    @classmethod
    def of(cls, text: str) -> Flow | None:
        """As `text` made it; None: it is none."""
        try:
            tenant, back, token = json.loads(base64.urlsafe_b64decode(text.encode()))
        except (ValueError, TypeError, binascii.Error, RecursionError):
            return None
        fits = all(isinstance(each, str) for each in (tenant, back, token)) and len(token) >= 43
        return cls(tenant, back, token) if fits else None

    def text(self) -> str:
        """For the cookie."""
        return base64.urlsafe_b64encode(json.dumps([self.tenant, self.back, self.token]).encode()).decode()

    def derived(self, name: str) -> str:
        """name: `state`, `nonce`, `verifier`. 43 characters (RFC 7636, 4.1)."""
        told = json.dumps([name, self.tenant, self.back]).encode()
        digest = hmac.digest(self.token.encode("utf-8", "surrogatepass"), told, hashlib.sha256)
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom the provider let in. email: empty unless the provider has verified it. claims: all."""

    issuer: str
    subject: str
    email: str
    name: str
    claims: Mapping[str, Any]


class Provider:
    """Loop thread. Raises IdentityError when the provider does not answer, or says what cannot be believed."""

    def __init__(
        self,
        settings: ProviderSettings,
        client: Callable[[], aiohttp.ClientSession],
        environment: Mapping[str, str],
        clock: Callable[[], float],
    ) -> None:
        self.settings, self._client, self._clock = settings, client, clock
        self._secret = environment.get(settings.client_secret_env, "") if settings.client_secret_env else ""
        if settings.client_secret_env and not self._secret:
            raise SettingsError(f"there is no secret: {settings.client_secret_env} is not set", key="login.oidc")
        self._about: dict[str, Any] = {}
        self._about_s = self._keys_s = -KNOWN_S
        self._keys: list[jwk.Key] = []
        self._turn = asyncio.Lock()

    async def begin(self, flow: Flow, redirect_uri: str) -> str:
        """Where the browser goes."""
        about = await self._known()
        url = prepare_grant_uri(
            about["authorization_endpoint"],
            self.settings.client_id,
            "code",
            redirect_uri,
            " ".join(self.settings.scopes),
            flow.derived("state"),
            nonce=flow.derived("nonce"),
            code_challenge=create_s256_code_challenge(flow.derived("verifier")),
            code_challenge_method="S256",
        )
        return str(url)

    async def finish(self, flow: Flow, redirect_uri: str, answer: Mapping[str, str]) -> Identity:
        """answer: the query with which the browser came back. Raises CallerError when it is not that of this flow, and
        NotAllowed when the provider let nobody in.
        """
        state = answer.get("state", "").encode("utf-8", "surrogatepass")
        if not hmac.compare_digest(state, flow.derived("state").encode()):
            raise CallerError("this login did not begin in this browser, or too long ago: begin again")
        if answer.get("iss", self.settings.issuer) != self.settings.issuer:
            raise CallerError("another provider than the one that was asked answered")  # RFC 9207
        if "code" not in answer:
            raise NotAllowed("the OpenID provider let nobody in")
        told = await self._exchange(flow, redirect_uri, answer["code"])
        claims = await self._believed(str(told.get("id_token", "")), flow, told)
        wanted = {"email", self.settings.role_claim} - {""} - set(claims)
        if wanted and "userinfo_endpoint" in self._about:
            claims = {**await self._more(str(told.get("access_token", "")), claims["sub"]), **claims}
        email = str(claims.get("email", "")) if claims.get("email_verified") is True else ""
        return Identity(self.settings.issuer, str(claims["sub"]), email, str(claims.get("name") or ""), claims)

    async def _exchange(self, flow: Flow, redirect_uri: str, code: str) -> Mapping[str, Any]:
        about = await self._known()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": flow.derived("verifier"),
        }
        if not self._secret:
            return await self._ask("POST", about["token_endpoint"], data={**form, "client_id": self.settings.client_id})
        pair = f"{quote(self.settings.client_id, safe='')}:{quote(self._secret, safe='')}"  # RFC 6749, 2.3.1
        headers = {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
        return await self._ask("POST", about["token_endpoint"], data=form, headers=headers)

    async def _believed(self, text: str, flow: Flow, told: Mapping[str, Any]) -> dict[str, Any]:
        """The claims of the ID token (3.1.3.7)."""
        try:
            token = await self._opened(text)
            options = {
                "iss": {"essential": True, "value": self.settings.issuer},
                "aud": {"essential": True, "value": self.settings.client_id},
            }
            params = {"nonce": flow.derived("nonce"), "client_id": self.settings.client_id}
            if isinstance(told.get("access_token"), str):
                params["access_token"] = told["access_token"]
            CodeIDToken(token.claims, token.header, options, params).validate(leeway=LEEWAY_S)
        except (JoseError, ValueError, TypeError, KeyError, RecursionError) as problem:
            raise IdentityError(f"the ID token cannot be believed: {type(problem).__name__}: {problem}") from problem
        if not isinstance(token.claims["sub"], str) or not 0 < len(token.claims["sub"]) <= 255:
            raise IdentityError("the ID token has no subject of 1 to 255 characters")
        return dict(token.claims)

    async def _opened(self, text: str) -> jwt.Token:
        """Its signature is good. Keys are fetched again when it is of one that is not known."""
        head = json.loads(base64.urlsafe_b64decode(text.partition(".")[0] + "=="))
        kid = head.get("kid") if isinstance(head, dict) else None
        if not self._fitting(kid) or self._clock() - self._keys_s >= KNOWN_S:
            await self._fetch_keys(kid)
        fitting = self._fitting(kid)
        for key in fitting:
            try:
                return jwt.decode(text, key, algorithms=ALGORITHMS)
            except JoseError:
                if key is fitting[-1]:
                    raise
        raise IdentityError("the ID token is signed with a key that the provider does not publish")

    def _fitting(self, kid: Any) -> Sequence[jwk.Key]:
        return [key for key in self._keys if kid is None or key.kid == kid]

    async def _fetch_keys(self, kid: Any) -> None:
        uri = (await self._known())["jwks_uri"]
        async with self._turn:
            if self._clock() - self._keys_s < KEYS_EVERY_S or (self._fitting(kid) and self._is_fresh(self._keys_s)):
                return
            self._keys_s = self._clock()
            found = (await self._ask("GET", uri)).get("keys", [])
            self._keys = [key for each in found if (key := _public(each)) is not None]

    async def _more(self, token: str, subject: str) -> Mapping[str, Any]:
        """Of the UserInfo endpoint (5.3)."""
        endpoint = self._about["userinfo_endpoint"]
        told = await self._ask("GET", endpoint, headers={"Authorization": f"Bearer {token}"})
        if told.get("sub") != subject:
            raise IdentityError("the UserInfo is somebody else's")
        return told

    async def _known(self) -> Mapping[str, Any]:
        """What the provider says of itself (OpenID Connect Discovery 1.0, 4)."""
        async with self._turn:
            if not self._is_fresh(self._about_s):
                issuer = self.settings.issuer
                told = await self._ask("GET", f"{issuer.rstrip('/')}/.well-known/openid-configuration")
                if told.get("issuer") != issuer:
                    raise IdentityError("the provider calls itself otherwise than `issuer` of the settings")
                safe = ("https://",) if issuer.startswith("https:") else ("https://", "http://")
                for name in (*_OF_US, *({"userinfo_endpoint"} & set(told))):
                    if not str(told.get(name, "")).startswith(safe):
                        raise IdentityError(f"the provider's {name} is missing, or not https")
                self._about, self._about_s = dict(told), self._clock()
        return self._about

    def _is_fresh(self, since_s: float) -> bool:
        return self._clock() - since_s < KNOWN_S

    async def _ask(self, method: str, url: str, **more: Any) -> Mapping[str, Any]:
        """JSON. No redirect is followed: it could lead anywhere."""
        try:
            async with (
                asyncio.timeout(ANSWER_S),
                self._client().request(method, url, allow_redirects=False, **more) as answer,
            ):
                text = await answer.content.read(MOST_BYTES)
                while len(text) < MOST_BYTES and (rest := await answer.content.read(MOST_BYTES - len(text))):
                    text += rest
                told = json.loads(text)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, RecursionError) as problem:
            raise IdentityError(
                f"the OpenID provider does not answer as it should: {type(problem).__name__}"
            ) from problem
        if answer.status != 200 or not isinstance(told, dict):
            error = str(told.get("error", ""))[:64] if isinstance(told, dict) else ""
            raise IdentityError(f"the OpenID provider answers {answer.status} {error}".strip())
        return told


class Providers:
    """Loop thread. `close` at the end. clock: monotonic seconds. Raises SettingsError when a secret is missing."""

    def __init__(
        self,
        settings: Sequence[ProviderSettings],
        *,
        environment: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._by_tenants = {each.tenants: Provider(each, self._connected, environment, clock) for each in settings}
        self._client: aiohttp.ClientSession | None = None

    def of(self, settings: ProviderSettings) -> Provider:
        return self._by_tenants[settings.tenants]

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    def _connected(self) -> aiohttp.ClientSession:
        if self._client is None:
            self._client = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        return self._client


def _public(found: Any) -> jwk.Key | None:
    """None: for something else than signatures, or of a kind that is not known."""
    try:
        if found.get("use", "sig") != "sig" or found.get("kty") == "oct":
            return None
        return jwk.import_key(found)
    except (JoseError, ValueError, TypeError, AttributeError, KeyError):
        return None
