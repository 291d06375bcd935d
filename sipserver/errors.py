"""Every error that crosses a room's border, and whose fault it is.

SipServerError
├── ConfigError            the operator's: a file says something impossible; carries file and line
│   ├── SettingsError          etc/sipserver.yaml
│   ├── DialplanError          dialplans/*.yaml
│   └── ModelMissing           a model that the settings name is not installed
├── CallerError            the caller's or their equipment's
│   ├── NoRoute                no dialplan route matches                    404
│   ├── NotAcceptable          no common codec, unusable SDP                488
│   ├── Unauthorized           an API key that is missing, unknown or over   401
│   ├── NotAllowed             a number or address that no trunk may call   403
│   ├── Conflict               not as things are now                        409
│   ├── Outdated               somebody else changed it first               412
│   ├── Gone                   a cursor that is too old to go on from       410
│   └── BadPayload             media bytes that no codec could have made
├── CarrierError           the trunk's or the network's                     503, retry elsewhere
├── ProviderError          a speech or language engine's                    503
│   ├── ProviderTimeout        no answer in time; another engine may do
│   ├── ProviderRejected       it said no (credentials, quota, bad input); the same again is useless
│   └── ProviderBusy           its queue is full; a moment later may do
├── CapacityError          ours: more calls than this cell holds            486 with Retry-After
├── TooMany                the asker's: more than one may have at a time    429 with Retry-After
├── Draining               ours: shutting down, running calls go on         503 with Retry-After
├── NotFound               the asker's: no such call, run or machine        404
├── DiskFull               ours: no room for what was to be kept           507
├── StorageFull            the tenant's: no more may be kept                507
├── KeyMissing             the operator's: no key here opens a file         503
├── Damaged                a file was changed, cut off, or is another one   500
├── BusDown                ours: the bus between the processes is away      503
├── MachineAway            ours: another machine of the fleet is needed    503, retry
├── IdentityError          an OpenID provider's: no answer, or none to believe   502, retry
├── RemoteError            what another process raised; has its codes
└── InternalError          ours: a bug
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from pathlib import Path


class Fault(enum.StrEnum):
    OURS = "ours"
    OPERATOR = "operator"
    CALLER = "caller"
    CARRIER = "carrier"
    PROVIDER = "provider"


class SipServerError(Exception):
    """fault: who has to act. retry: the same again may succeed. sip_code and http_code: what the outside is told."""

    fault: Fault = Fault.OURS
    retry: bool = False
    sip_code: int = 500
    http_code: int = 500


class ConfigError(SipServerError):
    """A file that a person wrote is wrong. Prints as `file:line: key: reason`."""

    fault = Fault.OPERATOR

    def __init__(self, reason: str, *, file: Path | str = "", line: int | None = None, key: str = "") -> None:
        self.reason, self.file, self.line, self.key = reason, str(file), line, key
        where = f"{file}:{line}: " if file and line else f"{file}: " if file else ""
        super().__init__(f"{where}{key + ': ' if key else ''}{reason}")


class SettingsError(ConfigError):
    pass


class DialplanError(ConfigError):
    pass


class ModelMissing(ConfigError):
    """command: what the operator types to install the model."""

    def __init__(self, model: str, command: str) -> None:
        self.model, self.command = model, command
        super().__init__(f"model {model} is not installed; install it with: {command}")


class CallerError(SipServerError):
    fault = Fault.CALLER
    sip_code = 400
    http_code = 400


class NoRoute(CallerError):
    sip_code = 404
    http_code = 404


class NotAcceptable(CallerError):
    sip_code = 488
    http_code = 422


class NotAllowed(CallerError):
    sip_code = 403
    http_code = 403


class Conflict(CallerError):
    http_code = 409


class Outdated(CallerError):
    """It is no longer as the asker has seen it."""

    http_code = 412


class Unauthorized(CallerError):
    sip_code = 401
    http_code = 401


class Gone(CallerError):
    sip_code = 410
    http_code = 410


class BadPayload(CallerError):
    """Raised by decoders for one packet; the next one may be good."""


class CarrierError(SipServerError):
    """A call could not be placed or was lost on the way. status: the SIP status that said so, 0 if none did."""

    fault = Fault.CARRIER
    retry = True
    sip_code = 503
    http_code = 502

    def __init__(self, reason: str, status: int = 0) -> None:
        self.status = status
        super().__init__(reason)


class ProviderError(SipServerError):
    """engine: the name under which the settings know the engine."""

    fault = Fault.PROVIDER
    sip_code = 503
    http_code = 503

    def __init__(self, engine: str, reason: str) -> None:
        self.engine, self.reason = engine, reason
        super().__init__(f"{engine}: {reason}")


class IdentityError(SipServerError):
    """An OpenID provider does not answer, or says what cannot be believed."""

    fault = Fault.PROVIDER
    retry = True
    http_code = 502


class ProviderTimeout(ProviderError):
    retry = True


class ProviderRejected(ProviderError):
    pass


class ProviderBusy(ProviderError):
    retry = True


class CapacityError(SipServerError):
    retry = True
    sip_code = 486
    http_code = 503


class TooMany(SipServerError):
    fault = Fault.CALLER
    retry = True
    sip_code = 503
    http_code = 429

    def __init__(self, reason: str, *, retry_after_s: int = 1) -> None:
        """retry_after_s: 0: not soon."""
        self.retry_after_s = retry_after_s
        super().__init__(reason)


class Draining(SipServerError):
    retry = True
    sip_code = 503
    http_code = 503


class NotFound(SipServerError):
    fault = Fault.CALLER
    sip_code = 404
    http_code = 404


class DiskFull(SipServerError):
    retry = True
    sip_code = 503
    http_code = 507


class StorageFull(SipServerError):
    """The tenant's limit, not the disk's end."""

    fault = Fault.CALLER
    sip_code = 403
    http_code = 507


class KeyMissing(SipServerError):
    """key_ids: those with which the file was closed, any of which would do."""

    fault = Fault.OPERATOR
    http_code = 503

    def __init__(self, reason: str, key_ids: Sequence[str] = ()) -> None:
        self.key_ids = tuple(key_ids)
        super().__init__(reason)


class Damaged(SipServerError):
    """What was read is not what was written. The same again is useless."""


class BusDown(SipServerError):
    retry = True
    sip_code = 503
    http_code = 503


class MachineAway(SipServerError):
    """Another machine of the fleet has what is asked for, and does not answer."""

    retry = True
    sip_code = 503
    http_code = 503


class RemoteError(SipServerError):
    """A SipServerError of another process. name: of its class. The codes are those of the original."""

    def __init__(
        self,
        name: str,
        text: str,
        *,
        fault: Fault,
        retry: bool = False,
        sip_code: int = 500,
        http_code: int = 500,
        retry_after_s: int = 0,
    ) -> None:
        self.retry_after_s = retry_after_s
        self.name, self.text = name, text
        self.fault, self.retry, self.sip_code, self.http_code = fault, retry, sip_code, http_code
        super().__init__(f"{name}: {text}" if text else name)


class InternalError(SipServerError):
    pass
