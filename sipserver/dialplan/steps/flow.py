"""set, when, goto: steps that only decide."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any

from pydantic import Field, model_validator

from sipserver.dialplan import template
from sipserver.dialplan.agents import Template, Text, Variable
from sipserver.dialplan.steps.base import NEXT, Branch, Step, Target


class SetStep(Step):
    """Set variables: `set: {language: de, account: "{header.x-account}"}`. Values may contain `{name}`."""

    word = "set"
    outcomes = ("done",)

    values: dict[Variable, Template] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _plain_mapping(cls, value: Any) -> Any:
        return {"values": value} if isinstance(value, dict) else value

    def templates(self) -> tuple[str, ...]:
        return tuple(self.values.values())

    def sets(self) -> tuple[str, ...]:
        return tuple(self.values)


class When(Step):
    """Branch on a variable: `when: {var: digits, is: "1", then: sales, else: next}`. Exactly one test.

    is: equal. in: one of. like: glob pattern. set: true if it has a value, false if not.
    """

    word = "when"
    outcomes = ()

    var: Annotated[Text, Field(pattern=f"^(?:{template.NAME})$")]
    is_: Text | None = Field(default=None, alias="is")
    in_: tuple[Text, ...] | None = Field(default=None, alias="in")
    like: Text | None = None
    set_: bool | None = Field(default=None, alias="set")
    then: Target
    else_: Target = Field(default=NEXT, alias="else")

    @model_validator(mode="after")
    def _one_test(self) -> When:
        if sum(test is not None for test in (self.is_, self.in_, self.like, self.set_)) != 1:
            raise ValueError("`when` needs exactly one of `is`, `in`, `like`, `set`")
        return self

    def branch(self, variables: Mapping[str, str]) -> Target:
        """Where the call goes on. A variable without a value counts as empty."""
        value = variables.get(template.canonical(self.var), "")
        if self.set_ is not None:
            holds = bool(value) == self.set_
        elif self.in_ is not None:
            holds = value in self.in_
        elif self.like is not None:
            holds = fnmatchcase(value, self.like)
        else:
            holds = value == self.is_
        return self.then if holds else self.else_

    def branches(self) -> tuple[Branch, ...]:
        return Branch(self.test(), self.then, ("then",)), Branch("else", self.else_, ("else",))

    def test(self) -> str:
        """The test in words, as `explain` prints it."""
        if self.set_ is not None:
            return f"{self.var} is set" if self.set_ else f"{self.var} is not set"
        if self.in_ is not None:
            return f"{self.var} in {', '.join(self.in_)}"
        return f"{self.var} like {self.like}" if self.like is not None else f"{self.var} is {self.is_}"


class Goto(Step):
    """Go on with another flow (`end` ends the call)."""

    word = "goto"
    short = "flow"
    outcomes = ()

    flow: Target

    @model_validator(mode="after")
    def _goes_somewhere(self) -> Goto:
        if self.flow == NEXT:
            raise ValueError("`goto` needs the name of a flow or `end`")
        return self

    def branches(self) -> tuple[Branch, ...]:
        return (Branch("", self.flow, ("flow",)),)
