"""What a running call may be asked to do by REST: the table of these operations.

Refuses to know how the call is reached (`calls.CallOperations`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sipserver.api.rest import models
from sipserver.api.rest.operations import Does, Operation
from sipserver.tenants.keys import Scope


class Sends(Protocol):
    """Makes what asks a call for a verb of `calls.commands`, with the options of the body and these."""

    def __call__(self, verb: str, **fixed: bool) -> Does: ...


def errands(does: Sends) -> Sequence[Operation]:
    write = Scope.CALLS_WRITE
    return [
        Operation(
            "transferCall",
            "POST",
            "/calls/{id}/transfer",
            write,
            does("transfer"),
            "Hand the call over",
            "It interrupts the step that runs. `transfer.ended` tells the outcome, as a far end said it; on any "
            "but `answered` the flow goes on with the step that was interrupted, from its beginning.",
            body=models.TransferCall,
            answer=models.Accepted,
            status=202,
            refusals=(400, 409),
            deed="call.transferred",
            of="call",
        ),
        Operation(
            "sayText",
            "POST",
            "/calls/{id}/say",
            write,
            does("say"),
            "Say something",
            "It interrupts the step that runs, which then begins again.",
            body=models.SayText,
            answer=models.Accepted,
            status=202,
            refusals=(400, 409),
            deed="call.said",
            of="call",
        ),
        Operation(
            "playSound",
            "POST",
            "/calls/{id}/play",
            write,
            does("play"),
            "Play a sound file",
            "It interrupts the step that runs, which then begins again.",
            body=models.PlaySound,
            answer=models.Accepted,
            status=202,
            refusals=(400, 409),
            deed="call.played",
            of="call",
        ),
        Operation(
            "sendDigits",
            "POST",
            "/calls/{id}/digits",
            write,
            does("digits"),
            "Send digits to the far end",
            "They are told as `digit.sent`.",
            body=models.SendDigits,
            answer=models.Accepted,
            status=202,
            refusals=(400, 409),
            deed="call.digits_sent",
            of="call",
        ),
        Operation(
            "recordCall",
            "POST",
            "/calls/{id}/record",
            write,
            does("record"),
            "Start, stop, pause or resume the recording",
            "An action that changes nothing is no error.",
            body=models.RecordCall,
            answer=models.Accepted,
            status=202,
            refusals=(400, 409),
            deed="call.recorded",
            of="call",
        ),
        Operation(
            "muteCall",
            "POST",
            "/calls/{id}/mute",
            write,
            does("mute", on=True),
            "Let nobody hear the caller",
            "Not those whom the call is joined with, no agent, no recording. Digits are heard.",
            answer=models.Accepted,
            status=202,
            refusals=(400, 409),
            deed="call.muted",
            of="call",
        ),
        Operation(
            "unmuteCall",
            "POST",
            "/calls/{id}/unmute",
            write,
            does("mute", on=False),
            "Let the caller be heard again",
            answer=models.Accepted,
            status=202,
            refusals=(400, 409),
            deed="call.unmuted",
            of="call",
        ),
        Operation(
            "holdCall",
            "POST",
            "/calls/{id}/hold",
            write,
            does("hold", on=True),
            "Put the caller on hold",
            "Nobody hears the caller, who hears music. A call that is joined with another party stays joined; "
            "otherwise it interrupts the step that runs, which begins again after `resume`.",
            answer=models.Accepted,
            status=202,
            refusals=(400, 409),
            deed="call.held",
            of="call",
        ),
        Operation(
            "resumeCall",
            "POST",
            "/calls/{id}/resume",
            write,
            does("hold", on=False),
            "End the hold",
            answer=models.Accepted,
            status=202,
            refusals=(400, 409),
            deed="call.resumed",
            of="call",
        ),
    ]
