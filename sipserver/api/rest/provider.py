"""People by REST who come by their OpenID provider: the way there, and the way back.

Owns that the browser that comes back is the one that went. Refuses to know what a provider's words are worth
(`tenants.oidc`) and whom they let in (`tenants.provider_login`).
"""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web
from pydantic import Field

from sipserver.api.rest.access import Who
from sipserver.api.rest.login import Entrance
from sipserver.api.rest.models import Taken
from sipserver.api.rest.operations import Asked, Operation
from sipserver.api.rest.people_models import Name
from sipserver.errors import CallerError, NotAllowed, NotFound, Unauthorized
from sipserver.gate.requests import address_of, public_url
from sipserver.tenants import principal
from sipserver.tenants.oidc import Flow, Provider, Providers
from sipserver.tenants.provider_login import ProviderLogin
from sipserver.tenants.settings import LoginSettings

CALLBACK = "/login/oidc/callback"
ME = "/api/v1/me"


class ProviderAsked(Taken):
    tenant: Name = Field(min_length=1, description="Whose user comes.")
    back: str = Field(
        default=ME,
        max_length=500,
        pattern=r"^/([A-Za-z0-9._~%?&=#:@+,;-][A-Za-z0-9._~%?&=#:@+,;/-]*)?$",
        description="The path here to go to afterwards.",
    )


class ProviderOperations:
    """Loop thread."""

    def __init__(
        self, providers: Providers, arrivals: ProviderLogin, entrance: Entrance, settings: LoginSettings
    ) -> None:
        self._providers, self._arrivals, self._entrance, self._settings = providers, arrivals, entrance, settings

    def operations(self) -> Sequence[Operation]:
        return [
            Operation(
                "loginByProvider",
                "GET",
                "/login/oidc",
                Who.ANYBODY,
                self._begin,
                "Go to the tenant's OpenID provider",
                "For browsers: they are led there, and back.",
                query=ProviderAsked,
                status=302,
                refusals=(502,),
            ),
            Operation(
                "comeFromProvider",
                "GET",
                CALLBACK,
                Who.ANYBODY,
                self._finish,
                "Come back from the OpenID provider",
                "Its redirect URI. Sets the cookie of a new session and leads to `back`.",
                status=302,
                refusals=(400, 502),
            ),
        ]

    async def _begin(self, asked: Asked) -> web.StreamResponse:
        wanted: ProviderAsked = asked.query
        self._entrance.check(asked.request)
        flow = Flow.begun(wanted.tenant, wanted.back)
        response = _led(await self._provider(flow).begin(flow, self._callback(asked.request)))
        self._entrance.cookies.put_login(asked.request, response, flow.text())
        return response

    async def _finish(self, asked: Asked) -> web.StreamResponse:
        request, cookies = asked.request, self._entrance.cookies
        self._entrance.check(request)
        flow = Flow.of(cookies.login(request))
        if flow is None:
            raise CallerError("this login did not begin in this browser, or too long ago: begin again")
        provider = self._provider(flow)
        identity = await provider.finish(flow, self._callback(request), dict(request.query))
        arrival = await self._arrivals.arrive(flow.tenant, identity, provider.settings)
        if arrival.who.user is None:
            raise NotAllowed("this user is disabled")
        system, subject = principal.of_system(flow.tenant), f"user:{arrival.who.user.id}"
        for deed, detail in arrival.deeds:
            await self._entrance.note(system, deed, subject, address_of(request), detail)
        begun = await self._entrance.begin(arrival.who, request, provider.settings.issuer)
        if begun is None:
            raise Unauthorized("the account was changed meanwhile: log in again")
        response = _led(flow.back)
        cookies.put_session(request, response, begun[1])
        cookies.drop_login(request, response)
        return response

    def _provider(self, flow: Flow) -> Provider:
        settings = self._settings.provider_of(flow.tenant)
        if settings is None:
            raise NotFound("this tenant has no OpenID provider")
        return self._providers.of(settings)

    def _callback(self, request: web.Request) -> str:
        """Our address as the provider knows it."""
        return f"{public_url(request, self._entrance.cookies.gate)}/api/v1{CALLBACK}"


def _led(where: str) -> web.Response:
    return web.Response(status=302, headers={"Location": where})
