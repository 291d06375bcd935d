"""Lists of patterns in which `!` in front of one excludes what it matches. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import translate
from functools import lru_cache
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field

from sipserver.dialplan.agents import Text

_T = TypeVar("_T")
NOT = "!"
_WILD = re.compile(r"[*?\[]")


def listed(value: Any) -> Any:
    """One value as a list of it."""
    return value if isinstance(value, list | tuple) else (value,)


def bare(pattern: str) -> str:
    """A pattern without its `!`."""
    return pattern.removeprefix(NOT).lstrip()


def _something(glob: str) -> str:
    if not bare(glob):
        raise ValueError("should not be empty")
    return glob


Glob = Annotated[
    Text, AfterValidator(_something), Field(description="`*` is any text, `?` one character; `!` in front: not these")
]

SOME = Field(min_length=1)
Some = Annotated[list[_T], SOME]
Globs = Annotated[tuple[Glob, ...], SOME, BeforeValidator(listed, json_schema_input_type=Glob | Some[Glob])]
"""One glob or a list of them."""


def chosen(patterns: tuple[str, ...], hits: Callable[[str], bool], bars: Callable[[str], bool] | None = None) -> bool:
    """Whether a list takes something: no pattern with `!` hits it, and one of the others does, if there are others.

    hits: whether a pattern, given without `!`, hits. bars: the same for the patterns with `!`, where it differs.
    """
    wanted, barred = _sorted(patterns)
    if barred and any(map(bars or hits, barred)):
        return False
    return not wanted or any(map(hits, wanted))


def fits(glob: str, value: str, *, fold: bool = False) -> bool:
    """Whether a glob without `!` matches a whole text. fold: upper and lower case are the same."""
    return _compiled(glob, fold).match(value) is not None


def takes(globs: tuple[str, ...], value: str, *, fold: bool = False) -> bool:
    """Whether a list of globs takes a text."""
    return chosen(globs, lambda glob: _compiled(glob, fold).match(value) is not None)


def exact(globs: tuple[str, ...]) -> frozenset[str]:
    """All the texts that a list takes, if it takes no others than those that are written in it; else empty."""
    plain = all(not glob.startswith(NOT) and not _WILD.search(glob) for glob in globs)
    return frozenset(globs) if plain else frozenset()


@lru_cache(maxsize=65_536)
def _sorted(patterns: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those without and those with `!`, which is taken off."""
    wanted = tuple(pattern for pattern in patterns if not pattern.startswith(NOT))
    return wanted, tuple(bare(pattern) for pattern in patterns if pattern.startswith(NOT))


@lru_cache(maxsize=65_536)
def _compiled(glob: str, fold: bool) -> re.Pattern[str]:
    return re.compile(translate(glob), re.IGNORECASE if fold else 0)
