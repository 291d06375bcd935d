"""A process that lives for one question: how many calls the linked PJSIP holds."""

from __future__ import annotations

from sipserver.fleet.control import Control
from sipserver.fleet.process import ChildSpec
from sipserver.sip import capacity


async def main(_spec: ChildSpec, control: Control) -> None:
    """Wakes PJSIP up in this process, which ends right after the answer."""
    await control.ready(capacity=capacity.count())
    await control.obey(drain=_nothing_to_drain)


async def _nothing_to_drain(_within_s: float) -> None:
    return
