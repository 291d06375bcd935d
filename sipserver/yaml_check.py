"""Checks a parsed YAML file by a pydantic model; mistakes name file, line and key as they are written, without jargon.

Used by the settings and the dialplans, so that both say the same about the same mistake.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from sipserver.errors import ConfigError
from sipserver.yaml_file import Document, KeyPath, holds

Model = TypeVar("Model", bound=BaseModel)
Problem = TypeVar("Problem", bound=ConfigError)
MOST_MEANT = 100
"""Mistakes of a file for which a word is looked for that may have been meant: for thousands it would take minutes."""


def check(document: Document, model: type[Model], error: type[ConfigError] = ConfigError) -> Model:
    """Validate against a pydantic model. Raises `error` naming the key and the line of the first mistake."""
    checked, mistakes = check_all(document, {} if document.value is None else document.value, model, error)
    if checked is None:
        raise mistakes[0]
    return checked


def check_all(
    document: Document,
    value: Any,
    model: type[Model],
    error: type[ConfigError] = ConfigError,
    *,
    at: KeyPath = (),
) -> tuple[Model | None, list[ConfigError]]:
    """Validate a value that stands at a path: the model, or None and all mistakes by line. Does not raise."""
    try:
        return model.model_validate(value), []
    except ValidationError as problem:
        items = problem.errors(include_url=False)
        causes = [item for item in items if not _follows_from_another(item)]
        found = [_mistake(document, at, item, model, error) for item in causes or items]
        return None, sorted(found, key=lambda mistake: mistake.line or 0)


def shown(path: Iterable[str | int]) -> str:
    """`flows.main[0].say`: a path as messages print it."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def problem_at(document: Document, path: KeyPath, reason: str, error: type[Problem]) -> Problem:
    """A mistake that no model finds: with its line, and with as much of the path as stands in the file."""
    key = shown(document.nearest(path))
    return error(reason, file=document.file, line=document.line(path), key=key)


def _mistake(
    document: Document, at: KeyPath, item: Any, model: type[BaseModel], error: type[ConfigError]
) -> ConfigError:
    """Pydantic's location also holds union tags and names that the file does not have; only what stands is kept."""
    path, value = at, document.at(at)
    for part in item["loc"]:
        if holds(value, part):
            path, value = (*path, part), value[part]
    if item["type"] == "missing":
        path = (*path, item["loc"][-1])
    elif item["type"] in ("union_tag_invalid", "union_tag_not_found"):
        path = (*path, str(item["ctx"]["discriminator"]).strip("'"))
    reason = _reason(item)
    if item["type"] == "extra_forbidden":
        reason += meant(str(item["loc"][-1]), _keys(model, item["loc"][:-1]))
    return error(reason, file=document.file, line=document.line(path), key=shown(path))


def meant(word: str, known: Iterable[str]) -> str:
    """`, did you mean `port`?` for the known word that is closest, or nothing."""
    close = get_close_matches(word, list(known), n=1)
    return f", did you mean `{close[0]}`?" if close else ""


def _keys(kind: Any, location: KeyPath) -> set[str]:
    """The keys that a type allows at one of pydantic's locations, which name the tag of a union before its fields."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        fields = {field.alias or name: field for name, field in kind.model_fields.items()}
        if not location:
            return set(fields)
        return _keys(fields[location[0]].annotation, location[1:]) if location[0] in fields else set()
    arguments = [argument for argument in get_args(kind) if argument is not ...]
    if get_origin(kind) in (dict, list, tuple):
        return _keys(arguments[-1], location[1:]) if arguments and location else set()
    if get_origin(kind) is Annotated:
        return _keys(arguments[0], location)
    arms = [_keys(arm, part) for arm in arguments for part in (location, location[1:])]
    return set().union(*arms)


def _follows_from_another(item: Any) -> bool:
    """A list whose items are wrong is also said to be too short."""
    return bool(item["type"] == "too_short" and item["input"])


_REASONS = {
    "extra_forbidden": "unknown key",
    "missing": "this key is required",
    "union_tag_not_found": "this key is required",
    "string_type": "should be text",
    "int_type": "should be a whole number",
    "int_parsing": "should be a whole number",
    "int_from_float": "should be a whole number",
    "float_type": "should be a number",
    "float_parsing": "should be a number",
    "finite_number": "should be a finite number",
    "bool_type": "should be true or false",
    "bool_parsing": "should be true or false",
    "path_type": "should be a path",
    "too_short": "should not be empty",
    "string_too_short": "should not be empty",
} | {
    f"{kind}_type": f"should be {what}"
    for what, kinds in {
        "a mapping (`key: value`)": ("model", "model_attributes", "dict", "mapping"),
        "a list": ("list", "tuple", "set", "frozen_set"),
    }.items()
    for kind in kinds
}

_SUBJECT = re.compile(r"^(?:Input|String|List|Tuple|Dictionary|Value) should")


def _reason(item: Any) -> str:
    if item["type"] == "union_tag_invalid":
        return f"should be one of {item['ctx']['expected_tags']}"
    message = _REASONS.get(item["type"]) or str(item["msg"]).removeprefix("Value error, ")
    return _SUBJECT.sub("should", message)
