"""decide: a step that asks the tenant's own server where to go on."""

from __future__ import annotations

import re

from pydantic import Field, model_validator

from sipserver.dialplan.agents import Template, Text
from sipserver.dialplan.steps.base import Step
from sipserver.dialplan.steps.streams import Environment

_HOST = re.compile(r"^https?://[^/{}\s?#@]+([/?][^{}\s]*)?$")
_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")


class Decide(Step):
    """Ask a server of yours where to go on, and wait for its answer. Outcomes: those that `on` names, of which the
    server chooses one; `failed`: it did not answer in time, or with something else.

    send: what the server is told besides the call's own facts. into: the variables that it may set. secret_env: the
    environment variable with the secret that signs the question.
    """

    word = "decide"
    short = "url"
    outcomes = ("failed",)
    required = frozenset({"failed"})
    waits = True

    url: Text
    timeout_ms: int = Field(default=2000, ge=50, le=15_000)
    send: dict[Text, Template] = Field(default_factory=dict)
    into: list[Text] = Field(default_factory=list)
    secret_env: Environment = ""

    @model_validator(mode="after")
    def _possible(self) -> Decide:
        if not _HOST.match(self.url):
            raise ValueError("`url` is like https://crm.example/route, without variables: those belong into `send`")
        if set(self.on) == {"failed"}:
            raise ValueError("`on` must name what the server may answer, as in on: {vip: front_desk, failed: next}")
        wrong = next((name for name in self.into if not _NAME.match(name)), None)
        if wrong is not None:
            raise ValueError(f"`{wrong}` is no name of a variable")
        return self

    @classmethod
    def accepts(cls, outcome: str) -> bool:
        return bool(_NAME.match(outcome))

    @classmethod
    def more_outcomes(cls) -> str:
        return ", and any name that your server answers (letters, digits and _)"

    def templates(self) -> tuple[str, ...]:
        return tuple(self.send.values())

    def sets(self) -> tuple[str, ...]:
        return tuple(self.into)
