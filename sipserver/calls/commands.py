"""What may be asked of the calls of a process from outside: by an operator, by another process.

Owns the verbs and the form of questions and answers. Refuses to know how a question gets here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from sipserver.calls.call import Call
from sipserver.calls.conference import Member, NoMember
from sipserver.calls.outbound import Order
from sipserver.calls.registry import Registry
from sipserver.calls.runner import Busy
from sipserver.calls.states import EndReason, State
from sipserver.dialplan.steps import Amd, Handover, Play, Record, Say, Step
from sipserver.dialplan.steps.parties import HeaderName
from sipserver.errors import CallerError, CarrierError, StorageFull
from sipserver.events import CallMuted, CallOnHold, Fault

Json = Mapping[str, Any]
M = TypeVar("M", bound=BaseModel)
_ADDRESS = frozenset({"call", "call_id", "on"})
"""Arguments that are no options of a step: which call, which a bus says once more, and a step's branches."""


class UnknownCall(CallerError):
    """No such call lives in this process (any more)."""

    sip_code = 481
    http_code = 404


OneLine = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=1000)]


class Originate(BaseModel):
    """What `originate` takes: see `Order` and `Registry.originate`. amd: the options of the step `amd`; {}: its
    defaults. call: the id that the call is to have.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    to: OneLine = Field(min_length=1)
    tenant: str = ""
    flow: str = ""
    trunk: str = ""
    from_user: OneLine = ""
    from_display: OneLine = ""
    headers: dict[HeaderName, OneLine] = {}
    ring_s: float = Field(default=30, gt=0, le=600)
    variables: dict[str, str] = {}
    amd: Amd | None = None
    call: str = ""

    @field_validator("amd")
    @classmethod
    def _without_branches(cls, amd: Amd | None) -> Amd | None:
        if amd is not None and amd.on:
            raise ValueError("`on` belongs into a dialplan; here the outcome becomes the variable `answerer`")
        return amd

    @property
    def order(self) -> Order:
        return Order(self.to, self.trunk, self.from_user, self.from_display, self.headers, self.ring_s)


class Digits(BaseModel):
    """What `digits` takes."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    word: ClassVar[str] = "digits"

    digits: str = Field(pattern=r"^[0-9A-Da-d*#]{1,64}$")
    duration_ms: int = Field(default=160, ge=40, le=1000)


class CallCommands:
    """Loop thread. `handle` is what a bus serves."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._verbs: dict[str, Callable[[Json], Awaitable[Json]]] = {
            "calls": self._calls,
            "status": self._status,
            "hangup": self._hangup,
            "originate": self._originate,
            "transfer": self._transfer,
            "say": self._say,
            "play": self._play,
            "record": self._record,
            "digits": self._digits,
            "mute": self._mute_call,
            "hold": self._hold,
            "conference.list": self._rooms,
            "conference.mute": self._mute,
            "conference.unmute": self._unmute,
            "conference.kick": self._kick,
        }

    async def handle(self, verb: str, arguments: Json) -> Json:
        """calls {} -> {calls: [...]}; status {call} -> the call; hangup {call, detail?} -> {ended: id}; originate (the
        fields of `Originate`) -> {call: id} when the INVITE is out; transfer {call, options of the step `transfer`} and
        say {call, options of the step `say`}, play {call, options of the step `play`} -> {call: id}: they interrupt the
        step that runs. record {call, action, stereo?}, digits {call, digits, duration_ms?}, mute {call, on}, hold
        {call, on} -> {call: id}: they do not, but for a hold of a call that is joined with nobody.

        conference.list {tenant?} -> {rooms: [...]}; conference.mute {call}, conference.unmute {call} -> the member;
        conference.kick {call} -> {kicked: id}.

        Raises UnknownCall, NoMember for a call that is in no room, CallerError for a verb that does not exist, and what
        `Registry.originate` raises.
        """
        answer = self._verbs.get(verb)
        if answer is None:
            raise CallerError(f"there is no command {verb}; there are {', '.join(self._verbs)}")
        return await answer(arguments)

    async def _calls(self, _arguments: Json) -> Json:
        return {"calls": [describe(call) for call in self._registry.calls.values()]}

    async def _status(self, arguments: Json) -> Json:
        return describe(self._call(arguments))

    async def _hangup(self, arguments: Json) -> Json:
        call = self._call(arguments)
        call.end(EndReason.OPERATOR_HANGUP, str(arguments.get("detail", "")))
        return {"ended": call.id}

    async def _transfer(self, arguments: Json) -> Json:
        return self._send(Handover, arguments)

    async def _say(self, arguments: Json) -> Json:
        return self._send(Say, arguments)

    async def _play(self, arguments: Json) -> Json:
        return self._send(Play, arguments)

    async def _record(self, arguments: Json) -> Json:
        call = self._answered(arguments)
        wanted = _checked(Record, arguments)
        if reason := await call.tape.act(wanted.action, stereo=wanted.stereo):
            raise StorageFull(reason)
        return {"call": call.id}

    async def _digits(self, arguments: Json) -> Json:
        """They are sent after the answer; what goes wrong then is told as a fault."""
        call = self._answered(arguments)
        wanted = _checked(Digits, arguments)
        call.beside(_press(call, wanted), f"digits for {call.id}")
        return {"call": call.id}

    async def _mute_call(self, arguments: Json) -> Json:
        call, on = self._answered(arguments), bool(arguments.get("on", True))
        member = self._registry.services.rooms.member(call.id)
        if member is not None:
            member.mute(on, "operator")
        elif call.wiring.aside.mute(on):
            call.emit(CallMuted(muted=on))
        return {"call": call.id}

    async def _hold(self, arguments: Json) -> Json:
        call = self._answered(arguments)
        if bool(arguments.get("on", True)):
            self._registry.hold(call.id)
        elif call.wiring.aside.hold(False):
            call.emit(CallOnHold(on=False))
        return {"call": call.id}

    def _answered(self, arguments: Json) -> Call:
        call = self._call(arguments)
        if call.state is not State.ANSWERED:
            raise Busy("the call is not answered, or is ending")
        return call

    def _send(self, kind: type[Step], arguments: Json) -> Json:
        """Have a call run a step; the options are checked here, as those of a dialplan are."""
        call = self._call(arguments)
        self._registry.send(call.id, _checked(kind, arguments))
        return {"call": call.id}

    async def _rooms(self, arguments: Json) -> Json:
        tenant = arguments.get("tenant")
        rooms = self._registry.services.rooms
        return {"rooms": [room.describe() for room in rooms if tenant in (None, "", room.tenant)]}

    async def _mute(self, arguments: Json) -> Json:
        member = self._member(arguments)
        member.mute(True, "operator")
        return member.describe()

    async def _unmute(self, arguments: Json) -> Json:
        member = self._member(arguments)
        member.mute(False, "operator")
        return member.describe()

    async def _kick(self, arguments: Json) -> Json:
        member = self._member(arguments)
        member.leave("kicked")
        return {"kicked": member.call.id}

    def _member(self, arguments: Json) -> Member:
        call = self._call(arguments)
        member = self._registry.services.rooms.member(call.id)
        if member is None:
            raise NoMember(f"call {call.id} is in no room")
        return member

    async def _originate(self, arguments: Json) -> Json:
        try:
            wanted = Originate.model_validate(dict(arguments))
        except ValidationError as problem:
            raise CallerError(f"originate: {_wrong(problem)}") from None
        call = await self._registry.originate(
            wanted.order,
            tenant=wanted.tenant,
            flow=wanted.flow,
            variables=wanted.variables,
            amd=wanted.amd,
            call_id=wanted.call,
        )
        return {"call": call.id}

    def _call(self, arguments: Json) -> Call:
        call = self._registry.calls.get(str(arguments.get("call", "")))
        if call is None:
            raise UnknownCall(f"no call {arguments.get('call', '')} lives here")
        return call


async def _press(call: Call, wanted: Digits) -> None:
    try:
        await call.leg.send_digits(wanted.digits, wanted.duration_ms)
    except CarrierError as problem:
        call.emit(Fault(where="digits", error=str(problem)))


def _checked(kind: type[M], arguments: Json) -> M:
    """Its options, checked as those of a dialplan are. Raises CallerError."""
    options = {name: value for name, value in arguments.items() if name not in _ADDRESS}
    try:
        return kind.model_validate(options)
    except ValidationError as problem:
        raise CallerError(f"{getattr(kind, 'word', '')}: {_wrong(problem)}") from None


def _wrong(problem: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in problem.errors())


def describe(call: Call) -> Json:
    """A live call in a few words; the numbers are private, as in the record. since_ms: since it began; answered_ms:
    after that; None: it was not.
    """
    offer = call.leg.offer
    return {
        "id": call.id,
        "tenant": call.tenant,
        "state": str(call.state),
        "since_ms": call.at_ms,
        "answered_ms": call.answered_at_ms,
        "held": call.held,
        "on_hold": call.wiring.aside.on_hold,
        "muted": call.wiring.aside.muted,
        "direction": offer.direction,
        "from_uri": offer.from_uri,
        "to_uri": offer.to_uri,
        "source": offer.source,
        "sip_call_id": offer.sip_call_id,
    }
