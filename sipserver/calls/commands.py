"""What may be asked of the calls of a process from outside: by an operator, by another process.

Owns the verbs and the form of their answers. Refuses to know how a question gets here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sipserver.calls.call import Call
from sipserver.calls.conference import Member, NoMember
from sipserver.calls.registry import Registry
from sipserver.calls.states import EndReason
from sipserver.errors import CallerError

Json = Mapping[str, Any]


class UnknownCall(CallerError):
    """No such call lives in this process (any more)."""

    sip_code = 481
    http_code = 404


class CallCommands:
    """Loop thread. `handle` is what a bus serves."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._verbs: dict[str, Callable[[Json], Json]] = {
            "calls": self._calls,
            "status": lambda arguments: describe(self._call(arguments)),
            "hangup": self._hangup,
            "conference.list": self._rooms,
            "conference.mute": lambda arguments: self._mute(arguments, True),
            "conference.unmute": lambda arguments: self._mute(arguments, False),
            "conference.kick": self._kick,
        }

    async def handle(self, verb: str, arguments: Json) -> Json:
        """calls {} -> {calls: [...]}; status {call} -> the call; hangup {call, detail?} -> {ended: id}.

        conference.list {tenant?} -> {rooms: [...]}; conference.mute {call}, conference.unmute {call} -> the member;
        conference.kick {call} -> {kicked: id}. Raises UnknownCall, NoMember for a call that is in no room, CallerError
        for a verb that does not exist.
        """
        answer = self._verbs.get(verb)
        if answer is None:
            raise CallerError(f"there is no command {verb}; there are {', '.join(self._verbs)}")
        return answer(arguments)

    def _calls(self, _arguments: Json) -> Json:
        return {"calls": [describe(call) for call in self._registry.calls.values()]}

    def _hangup(self, arguments: Json) -> Json:
        call = self._call(arguments)
        call.end(EndReason.OPERATOR_HANGUP, str(arguments.get("detail", "")))
        return {"ended": call.id}

    def _rooms(self, arguments: Json) -> Json:
        tenant = arguments.get("tenant")
        rooms = self._registry.services.rooms
        return {"rooms": [room.describe() for room in rooms if tenant in (None, "", room.tenant)]}

    def _mute(self, arguments: Json, muted: bool) -> Json:
        member = self._member(arguments)
        member.mute(muted, "operator")
        return member.describe()

    def _kick(self, arguments: Json) -> Json:
        member = self._member(arguments)
        member.leave("kicked")
        return {"kicked": member.call.id}

    def _member(self, arguments: Json) -> Member:
        call = self._call(arguments)
        member = self._registry.services.rooms.member(call.id)
        if member is None:
            raise NoMember(f"call {call.id} is in no room")
        return member

    def _call(self, arguments: Json) -> Call:
        call = self._registry.calls.get(str(arguments.get("call", "")))
        if call is None:
            raise UnknownCall(f"no call {arguments.get('call', '')} lives here")
        return call


def describe(call: Call) -> Json:
    """A live call in a few words; the numbers are private, as in the record."""
    offer = call.leg.offer
    return {
        "id": call.id,
        "tenant": call.tenant,
        "state": str(call.state),
        "since_ms": call.at_ms,
        "held": call.held,
        "direction": offer.direction,
        "from_uri": offer.from_uri,
        "to_uri": offer.to_uri,
        "source": offer.source,
        "sip_call_id": offer.sip_call_id,
    }
