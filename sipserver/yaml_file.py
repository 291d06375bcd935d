"""YAML files that people write: parsed with the line of every key, checked by a pydantic model, refused with file:line.

Used by the settings and the dialplans, so that both say the same about the same mistake.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from sipserver.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)
KeyPath = tuple[str | int, ...]


class Document:
    """A parsed file. `value` is plain Python; `line(path)` tells where a key stands (1-based), or its nearest parent."""

    def __init__(self, file: Path, value: Any, lines: dict[KeyPath, int]) -> None:
        self.file, self.value, self._lines = file, value, lines

    def line(self, path: KeyPath) -> int:
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)


class _Loader(yaml.SafeLoader):
    """Safe YAML where `on`, `off`, `yes` and `no` stay text (YAML 1.2 core schema): `on:` is a key of dialplan steps."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool",
    re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"),
    list("tTfF"),
)


def parse(file: Path, error: type[ConfigError] = ConfigError) -> Document:
    """Read and parse. Raises `error` with the line for syntax errors and duplicate keys, without one if unreadable."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise error(str(problem), file=file) from problem
    return parse_text(text, file, error)


def parse_text(text: str, file: Path, error: type[ConfigError] = ConfigError) -> Document:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        lines: dict[KeyPath, int] = {}
        value = _plain(loader, node, (), lines, file, error) if node is not None else None
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        raise error(str(problem.problem or problem), file=file, line=mark.line + 1 if mark else None) from problem
    except yaml.YAMLError as problem:
        raise error(str(problem), file=file) from problem
    finally:
        loader.dispose()
    return Document(file, value, lines)


def _plain(
    loader: _Loader, node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], file: Path, error: type[ConfigError]
) -> Any:
    lines[path] = lines.get(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)
        mapping: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if isinstance(key, (dict, list)):
                raise error("a key must be a word or a number", file=file, line=line)
            key = key if isinstance(key, str) else str(key_node.value)
            if key in mapping:
                raise error(f"the key {key!r} stands here twice", file=file, line=line, key=key)
            lines[(*path, key)] = line
            mapping[key] = _plain(loader, value_node, (*path, key), lines, file, error)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [
            _plain(loader, item, (*path, index), lines, file, error) for index, item in enumerate(node.value)
        ]
    return loader.construct_object(node, deep=True)


def check(document: Document, model: type[Model], error: type[ConfigError] = ConfigError) -> Model:
    """Validate against a pydantic model. Raises `error` naming the key and the line of the first mistake."""
    try:
        return model.model_validate(document.value if document.value is not None else {})
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        path: KeyPath = tuple(first["loc"])
        shown = ".".join(str(part) for part in path)
        raise error(_reason(first), file=document.file, line=document.line(path), key=shown) from problem


def _reason(mistake: Any) -> str:
    if mistake["type"] == "extra_forbidden":
        return "unknown key"
    if mistake["type"] == "missing":
        return "this key is required"
    message = str(mistake["msg"])
    return message.removeprefix("Value error, ")
