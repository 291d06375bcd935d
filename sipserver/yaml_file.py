"""YAML files that people write, parsed with the line of every key. What the values mean is `yaml_check`'s.

Scalars follow the core schema of YAML 1.2: `on`, `off`, `yes`, `no`, dates and `12:30` are text, `010` is ten. Whatever
the text is, nothing but a `ConfigError` leaves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sipserver.errors import ConfigError

KeyPath = tuple[str | int, ...]

MAX_BYTES = 4_000_000
MAX_NODES = 200_000
"""Bounds of one file, aliases counted as often as they are used: a small file cannot grow into a huge one."""


class WrittenInt(int):
    """A number that remembers how it was written, so that `+4930` and `007` can still become text."""

    written: str


class WrittenFloat(float):
    """As `WrittenInt`."""

    written: str


def as_written(value: Any) -> Any:
    """A scalar as the text that stands in the file; anything but a number or a boolean is returned unchanged."""
    if isinstance(value, WrittenInt | WrittenFloat):
        return value.written
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


class Document:
    """A parsed file. `value` is plain Python; `line(path)` tells where a key or its nearest parent stands."""

    def __init__(self, file: Path, value: Any, lines: Mapping[KeyPath, int]) -> None:
        self.file, self.value, self._lines = file, value, lines

    def line(self, path: KeyPath) -> int:
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)

    def at(self, path: KeyPath) -> Any:
        """The value at a path; None where there is none."""
        nearest, value = self._descend(path)
        return value if len(nearest) == len(path) else None

    def nearest(self, path: KeyPath) -> KeyPath:
        """As much of a path as stands in the file."""
        return self._descend(path)[0]

    def _descend(self, path: KeyPath) -> tuple[KeyPath, Any]:
        value = self.value
        for depth, part in enumerate(path):
            if not holds(value, part):
                return path[:depth], value
            value = value[part]
        return path, value


class _Loader(yaml.SafeLoader):
    pass


_CORE_SCHEMA = {
    "tag:yaml.org,2002:bool": (r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    "tag:yaml.org,2002:int": (r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    "tag:yaml.org,2002:float": (
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+.0123456789",
    ),
}
_KEPT = {"tag:yaml.org,2002:null", "tag:yaml.org,2002:merge"}

_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in _KEPT]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, (_pattern, _firsts) in _CORE_SCHEMA.items():
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), list(_firsts))


def _int(_loader: _Loader, node: yaml.ScalarNode) -> WrittenInt:
    base = {"0o": 8, "0x": 16}.get(node.value[:2], 10)
    try:
        value = WrittenInt(int(node.value, base))
    except ValueError as problem:
        raise yaml.constructor.ConstructorError(None, None, "not a whole number", node.start_mark) from problem
    value.written = node.value
    return value


def _float(_loader: _Loader, node: yaml.ScalarNode) -> WrittenFloat:
    try:
        value = WrittenFloat(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError as problem:
        raise yaml.constructor.ConstructorError(None, None, "not a number", node.start_mark) from problem
    value.written = node.value
    return value


_Loader.add_constructor("tag:yaml.org,2002:int", _int)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)
for _tag in ("timestamp", "binary", "omap", "pairs", "set"):
    _Loader.yaml_constructors.pop(f"tag:yaml.org,2002:{_tag}", None)


def parse(file: Path, error: type[ConfigError] = ConfigError) -> Document:
    """Read and parse. Raises `error` with the line for syntax errors and duplicate keys, without one if unreadable."""
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except OSError as problem:
        raise error(problem.strerror or str(problem), file=file) from problem
    except UnicodeDecodeError as problem:
        line = raw.count(b"\n", 0, problem.start) + 1
        raise error("not UTF-8 text", file=file, line=line) from problem
    if len(raw) > MAX_BYTES:
        raise error(f"longer than {MAX_BYTES} bytes", file=file)
    return parse_text(text, file, error)


def parse_text(text: str, file: Path, error: type[ConfigError] = ConfigError) -> Document:
    """As `parse`, for text that was already read."""
    try:
        loader = _Loader(text)
    except yaml.YAMLError as problem:
        line = text.count("\n", 0, getattr(problem, "position", 0)) + 1
        raise error("contains a character that YAML does not allow", file=file, line=line) from problem
    try:
        builder = _Builder(loader, file, error)
        node = loader.get_single_node()
        value = builder.build(node, ()) if node is not None else None
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        raise error(str(problem.problem or problem), file=file, line=mark.line + 1 if mark else None) from problem
    except (yaml.YAMLError, ValueError) as problem:  # PyYAML lets ValueError out for escapes beyond Unicode
        raise error(str(problem), file=file, line=loader.line + 1) from problem
    except RecursionError as problem:
        raise error("nested too deeply", file=file, line=loader.line + 1) from problem
    finally:
        loader.dispose()
    return Document(file, value, builder.lines)


class _Builder:
    """Turns nodes into plain Python and notes the line of every key."""

    def __init__(self, loader: _Loader, file: Path, error: type[ConfigError]) -> None:
        self._loader, self._file, self._error = loader, file, error
        self._open: set[int] = set()
        self._nodes = 0
        self.lines: dict[KeyPath, int] = {}

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise self._refused("the file has too many values", node)
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return self._loader.construct_object(node)
        if node.tag not in ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
            raise self._refused(f"the tag {node.tag} is not supported", node)
        if id(node) in self._open:
            raise self._refused("an alias inside its own anchor", node)
        self._open.add(id(node))
        value = self._mapping(node, path) if isinstance(node, yaml.MappingNode) else self._sequence(node, path)
        self._open.remove(id(node))
        return value

    def _sequence(self, node: yaml.Node, path: KeyPath) -> list[Any]:
        return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]

    def _mapping(self, node: yaml.Node, path: KeyPath) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                mapping |= self._merged(value_node, path)
        own: set[str] = set()
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._refused("a key must be a word or a number", key_node)
            key = str(key_node.value)
            if key in own:
                raise self._refused(f"the key {key!r} stands here twice", key_node, key)
            own.add(key)
            self.lines[(*path, key)] = key_node.start_mark.line + 1
            mapping[key] = self.build(value_node, (*path, key))
        return mapping

    def _merged(self, node: yaml.Node, path: KeyPath) -> dict[str, Any]:
        """`<<: *a` or `<<: [*a, *b]`: the first that has a key wins, and the mapping's own keys win over all."""
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for source in reversed(sources):
            if not isinstance(source, yaml.MappingNode):
                raise self._refused("`<<` takes a mapping or a list of mappings", source)
            merged |= self.build(source, path)
        return merged

    def _refused(self, reason: str, node: yaml.Node, key: str = "") -> ConfigError:
        return self._error(reason, file=self._file, line=node.start_mark.line + 1, key=key)


def holds(value: Any, part: str | int) -> bool:
    """Whether a value has a key or an item of this name."""
    if isinstance(value, dict):
        return part in value
    return isinstance(value, list) and isinstance(part, int) and 0 <= part < len(value)
