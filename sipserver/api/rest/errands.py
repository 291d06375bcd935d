"""What a running call may be asked to do by REST: the table of these operations.

Refuses to know how the call is reached (`calls.CallOperations`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pydantic import BaseModel

from sipserver.api.rest import models
from sipserver.api.rest.operations import Does, Operation
from sipserver.tenants.keys import Scope

ANNOUNCED = (
    "A call that is joined with another party or is in a conference stays so: the caller hears this alone, and is "
    "heard meanwhile. Otherwise it interrupts the step that runs, which then begins again; 409 where that is `secure`."
)


class Sends(Protocol):
    """Makes what asks a call for a verb of `calls.commands`, with the options of the body and these."""

    def __call__(self, verb: str, **fixed: bool) -> Does: ...


def errands(does: Sends) -> Sequence[Operation]:
    return [
        _errand(
            "transferCall",
            "transfer",
            does("transfer"),
            "call.transferred",
            "Hand the call over",
            "It interrupts the step that runs; 409 where that is `secure`, and 403, with nothing interrupted, for a "
            "target that `targets` of the dialplan does not allow. `transfer.ended` tells the outcome, as a far end "
            "said it; on any but `answered` the flow goes on with the step that was interrupted, from its beginning.",
            body=models.TransferCall,
            shows=("mode", "trunk"),
        ),
        _errand(
            "sayText",
            "say",
            does("say"),
            "call.said",
            "Say something",
            ANNOUNCED,
            body=models.SayText,
        ),
        _errand(
            "playSound",
            "play",
            does("play"),
            "call.played",
            "Play a sound file",
            ANNOUNCED,
            body=models.PlaySound,
            shows=("file",),
        ),
        _errand(
            "sendDigits",
            "digits",
            does("digits"),
            "call.digits_sent",
            "Send digits to the far end",
            "They are told as `digit.sent`.",
            body=models.SendDigits,
        ),
        _errand(
            "recordCall",
            "record",
            does("record"),
            "call.recorded",
            "Start, stop, pause or resume the recording",
            "An action that changes nothing is no error. 507: the tenant may keep no more; the call goes on without.",
            body=models.RecordCall,
            shows=("action", "stereo"),
            refusals=(400, 409, 507),
        ),
        _errand(
            "muteCall",
            "mute",
            does("mute", on=True),
            "call.muted",
            "Let nobody hear the caller",
            "Not those whom the call is joined with, no agent, no recording. Digits are heard.",
        ),
        _errand(
            "unmuteCall",
            "unmute",
            does("mute", on=False),
            "call.unmuted",
            "Let the caller be heard again",
        ),
        _errand(
            "holdCall",
            "hold",
            does("hold", on=True),
            "call.held",
            "Put the caller on hold",
            "Nobody hears the caller, who hears music. A call that is joined with another party stays joined; "
            "otherwise it interrupts the step that runs, which begins again after `resume`; 409 where that is "
            "`secure`.",
        ),
        _errand(
            "resumeCall",
            "resume",
            does("hold", on=False),
            "call.resumed",
            "End the hold",
        ),
    ]


def _errand(
    name: str,
    verb: str,
    does: Does,
    deed: str,
    summary: str,
    detail: str = "",
    *,
    body: type[BaseModel] | None = None,
    refusals: tuple[int, ...] = (400, 409),
    shows: tuple[str, ...] = (),
) -> Operation:
    return Operation(
        name,
        "POST",
        f"/calls/{{id}}/{verb}",
        Scope.CALLS_WRITE,
        does,
        summary,
        detail,
        body=body,
        answer=models.Accepted,
        status=202,
        refusals=refusals,
        deed=deed,
        of="call",
        shows=shows,
    )
