"""A person is called for the caller while the caller talks with the agent.

Owns the person's leg from the agent's wish until the two have each other, and what the record says about each try.
Refuses to know the conversation, which ends when the person is there and goes on when not.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from types import TracebackType

from sipserver.audio.frame import Samples
from sipserver.calls.outbound import Outcome
from sipserver.calls.party import Party
from sipserver.calls.scene import Left, Scene
from sipserver.calls.steps import placing
from sipserver.calls.steps.transfer import Account, connected, reached
from sipserver.dialplan import steps
from sipserver.errors import CallerError, CapacityError, NotAllowed


class Fetching:
    """As `sipserver.agent.options.Fetch`, for the length of an `async with` block: whoever is called or there when it
    is left is hung up, and the transfer's outcome is then caller_gone unless the two have talked. Loop thread.
    """

    def __init__(self, step: steps.Handover, scene: Scene) -> None:
        self._step, self._scene = step, scene
        self._there: tuple[Party, Account, Samples | None] | None = None
        self._kept = AsyncExitStack()
        self._calling: asyncio.Task[object] | None = None

    async def __aenter__(self) -> Fetching:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._calling is not None:  # the conversation was given up before it had seen its tasks out
                self._calling.cancel()
                await asyncio.wait({self._calling})
        finally:
            await self._kept.aclose()

    @property
    def there(self) -> bool:
        """The person has answered, and accepted if the transfer is warm. They hear nothing yet."""
        return self._there is not None

    async def __call__(self, reason: str) -> str:
        """See `Fetch`. Raises CarrierError when the caller's leg is gone."""
        scene = self._scene
        scene.set("transfer_reason", reason)
        self._calling = asyncio.current_task()
        try:
            await scene.call.answer()
            return (await self._call()).value
        finally:
            self._calling = None

    async def connect(self) -> Left:
        """Caller and person have each other until one of them is gone; `there` must be."""
        assert self._there is not None
        return await connected(self._scene, *self._there)

    async def _call(self) -> Outcome:
        step, scene = self._step, self._scene
        try:
            order = placing.order(step, scene)
        except NotAllowed as problem:
            scene.failed("transfer", problem)
            return Outcome.FAILED
        samples = await placing.sound(step, scene)
        async with AsyncExitStack() as stack:
            account = Account(scene.call, step.mode, order.to)
            stack.callback(account.close)
            try:
                party = await stack.enter_async_context(Party(scene.call, order))
            except (CallerError, CapacityError) as problem:
                account.ended(Outcome.FAILED, code=problem.sip_code)
                scene.failed("transfer", problem)
                return Outcome.FAILED
            outcome, code = await reached(step, scene, party)
            if outcome is Outcome.ANSWERED:
                self._there = (party, account, samples)
                self._kept = stack.pop_all()
            else:
                account.ended(outcome, code=code)
            return outcome
