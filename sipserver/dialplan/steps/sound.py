"""say, play, record, echo: what the caller hears and what is kept of the sound."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sipserver.dialplan.agents import Template, Text
from sipserver.dialplan.steps.base import Speaking, Step

RecordAction = Literal["start", "stop", "pause", "resume"]


class Say(Speaking):
    """Speak a text. `{name}` is replaced by a variable. With interruptible, a digit ends it and is kept for collect.

    tts and voice: an engine of the settings and one of its voices; empty means the default. language: of the text.
    """

    word = "say"
    short = "text"
    outcomes = ("done", "failed")
    waits = True
    needs_media = True

    text: Template = Field(min_length=1)
    interruptible: bool = True

    def templates(self) -> tuple[str, ...]:
        return self.spoken()

    def spoken(self) -> tuple[str, ...]:
        return (self.text,)


class Play(Step):
    """Play a sound file (any format that FFmpeg reads), relative to the dialplan's folder.

    With interruptible, a digit ends it and is kept for collect.
    """

    word = "play"
    short = "file"
    outcomes = ("done", "failed")
    waits = True
    needs_media = True
    sounds = ("file",)

    file: Text = Field(min_length=1)
    interruptible: bool = True


class Record(Step):
    """Start, stop, pause or resume the recording. Stereo: the caller left, the agent right; otherwise both mixed.

    If the disk is full the call goes on, and the call record says so.
    """

    word = "record"
    short = "action"
    needs_media = True
    hears = True

    action: RecordAction = "start"
    stereo: bool = True


class Echo(Step):
    """Send the caller's sound back until they hang up or max_s is over."""

    word = "echo"
    short = "max_s"
    waits = True
    needs_media = True
    hears = True

    max_s: float = Field(default=3600, gt=0)
