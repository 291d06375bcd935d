"""What calls need to ask a tenant's own server where they go on. `webhooks.decider.Decider` satisfies it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Question:
    """data: what is asked about, as JSON takes it. secret_env: the environment variable with the secret that signs;
    empty: nothing does.
    """

    url: str
    data: Mapping[str, object]
    timeout_s: float
    secret_env: str = ""


class Decision(Protocol):
    """outcome: where to go on. variables: new values."""

    @property
    def outcome(self) -> str: ...
    @property
    def variables(self) -> Mapping[str, str]: ...


class Decides(Protocol):
    async def ask(self, question: Question) -> Decision:
        """Raises ProviderError when there is no answer in time, or none that can be used."""
        ...
