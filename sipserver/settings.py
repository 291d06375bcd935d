"""The server's settings: `etc/sipserver.yaml`, one nested model a room. Options are declared in the rooms, once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from sipserver import environment_file, tenant_name, yaml_check, yaml_file
from sipserver.agent.settings import LlamaCppSettings, LlmSettings
from sipserver.api.settings import HttpSettings
from sipserver.bus.settings import BusSettings
from sipserver.calls.settings import CallSettings
from sipserver.edge.settings import EdgeSettings
from sipserver.errors import SettingsError
from sipserver.fleet.settings import FleetSettings
from sipserver.gate.settings import GateSettings
from sipserver.sip.settings import SipSettings
from sipserver.speech.settings import SpeechSettings
from sipserver.store.settings import StoreSettings
from sipserver.streams.settings import StreamSettings
from sipserver.tenants.prices import PriceSettings
from sipserver.tenants.settings import AuditSettings, LoginSettings, RetentionSettings, TenantLimits
from sipserver.trunks.settings import TrunkSettings
from sipserver.webhooks.settings import WebhookSettings
from sipserver.webrtc.settings import WebRtcSettings

DEFAULT_FILE = Path("etc/sipserver.yaml")


class LogSettings(BaseModel):
    """private: write speech, digits and phone numbers into the log in clear (for development only)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"
    private: bool = False


class Settings(BaseModel):
    """Everything. tenants: limits by the tenant's name. Relative paths are relative to the file's folder; `resolved`
    makes them absolute.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["single", "fleet"] = "single"
    dialplans: Path = Path("../dialplans")
    sip: SipSettings = SipSettings()
    http: HttpSettings = HttpSettings()
    gate: GateSettings = GateSettings()
    streams: StreamSettings = StreamSettings()
    webrtc: WebRtcSettings = WebRtcSettings()
    webhooks: WebhookSettings = WebhookSettings()
    speech: SpeechSettings = SpeechSettings()
    llm: dict[str, LlmSettings] = {"local": LlamaCppSettings()}
    calls: CallSettings = CallSettings()
    store: StoreSettings = StoreSettings()
    audit: AuditSettings = AuditSettings()
    login: LoginSettings = LoginSettings()
    retention: RetentionSettings = RetentionSettings()
    bus: BusSettings = BusSettings()
    fleet: FleetSettings = FleetSettings()
    edge: EdgeSettings = EdgeSettings()
    trunks: tuple[TrunkSettings, ...] = ()
    tenants: dict[str, TenantLimits] = {}
    prices: PriceSettings = PriceSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _tenants_have_names_and_numbers_of_their_own(self) -> Self:
        owners: dict[str, str] = {}
        for tenant, limits in self.tenants.items():
            if not tenant_name.is_name(tenant):
                raise ValueError(f"tenants: {tenant!r}: {tenant_name.WORDS}")
            for number in limits.numbers:
                if owners.setdefault(number, tenant) != tenant:
                    raise ValueError(f"tenants: both {owners[number]} and {tenant} have the number {number}")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [trunk.name for trunk in self.trunks]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"trunks: two trunks are called {', '.join(sorted(twice))}")
        if both := sorted(set(names) & set(self.streams.names)):
            raise ValueError(f"streams: {', '.join(both)} is the name of a trunk, too; give one another name")
        for trunk in self.trunks:
            if unknown := sorted(set(trunk.failover) - set(names)):
                raise ValueError(f"trunks: {trunk.name}: failover names {', '.join(unknown)}, which is no trunk")
        for key, name in (("gate", self.gate.secret_env), ("audit", self.audit.secret_env)):
            if 0 < (size := len(os.environ.get(name, ""))) < 32:
                raise ValueError(f"{key}: the secret in {name} has {size} bytes; 32 are needed at least")
        if self.mode == "fleet" and not self.bus.url:
            raise ValueError("mode: fleet needs bus.url, e.g. redis://127.0.0.1:6379/0")
        if self.fleet.files_port and self.fleet.files_port == self.http.port:
            raise ValueError("fleet.files_port is http.port, too; whoever comes would meet either of them")
        return self

    @property
    def calls_by_http(self) -> bool:
        """Whether calls may come in on the HTTP port: a carrier's streams, the phone page, or whoever has a token."""
        return bool(self.streams.names or self.http.phone or os.environ.get(self.gate.secret_env))

    @property
    def most_agents(self) -> Mapping[str, int]:
        """How many agents the dialplan of a tenant may have; 0: any number."""
        return {name: limits.agents for name, limits in self.tenants.items()}

    def resolved(self, folder: Path) -> Settings:
        """The same settings with absolute paths, `folder` being the folder of the file."""

        def absolute(path: Path) -> Path:
            return (folder / path.expanduser()).resolve()

        prefix, slashes, path = self.store.url.partition(":///")
        url = (
            f"{prefix}:///{absolute(Path(path))}"
            if slashes and path and prefix.startswith("sqlite")
            else self.store.url
        )
        tls = self.edge.tls
        if tls is not None:
            files = {"certificate": absolute(tls.certificate), "key": absolute(tls.key)}
            tls = tls.model_copy(update={**files, "ca": absolute(tls.ca) if tls.ca is not None else None})
        sip_tls = self.sip.tls
        if sip_tls is not None:
            named = {name: getattr(sip_tls, name) for name in ("certificate", "key", "ca")}
            sip_tls = sip_tls.model_copy(update={name: absolute(path) for name, path in named.items() if path})
        vonage = tuple(
            account.model_copy(update={"private_key": absolute(account.private_key)})
            if account.private_key is not None
            else account
            for account in self.streams.vonage
        )
        return self.model_copy(
            update={
                "streams": self.streams.model_copy(update={"vonage": vonage}),
                "sip": self.sip.model_copy(update={"tls": sip_tls}),
                "dialplans": absolute(self.dialplans),
                "speech": self.speech.model_copy(update={"models": absolute(self.speech.models)}),
                "calls": self.calls.model_copy(update={"recordings": absolute(self.calls.recordings)}),
                "store": self.store.model_copy(update={"url": url}),
                "audit": self.audit.model_copy(update={"secret_file": absolute(self.audit.secret_file)}),
                "bus": self.bus.model_copy(update={"spool": absolute(self.bus.spool)}),
                "fleet": self.fleet.model_copy(update={"runtime": absolute(self.fleet.runtime)}),
                "edge": self.edge.model_copy(update={"folder": absolute(self.edge.folder), "tls": tls}),
            }
        )


def load(file: Path) -> Settings:
    """Read, check, resolve; variables that are not set come from the file `environment` beside it.

    Raises SettingsError with file, line, key and reason.
    """
    environment_file.fill(environment_file.beside(file))
    document = yaml_file.parse(file, SettingsError)
    return yaml_check.check(document, Settings, SettingsError).resolved(file.resolve().parent)
