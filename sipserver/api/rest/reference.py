"""The operations of the REST API as a table for docs/api.md. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel

from sipserver.api.rest.access import Who
from sipserver.api.rest.operations import Operation

BEGIN = "<!-- Made by `python -m tools.api_document`: change the operations instead. -->"
END = "<!-- The end of what is made. -->"
_NEEDS = {Who.ANYBODY: "nothing", Who.KNOWN: "any", Who.PERSON: "a session"}


def table(operations: Sequence[Operation]) -> str:
    """As Markdown: a row for each operation, in the order in which they are offered; what must be there is bold."""
    rows = [
        f"| `{each.method} {each.path}` | {each.summary} | {_needs(each)} | {_takes(each)} |" for each in operations
    ]
    return "\n".join(["| operation | what it does | needs | takes |", "|---|---|---|---|", *rows])


def filled(document: str, operations: Sequence[Operation]) -> str:
    """The document with the table of these operations between its marks. Raises ValueError when it has none."""
    head, begin, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError("the document has no marks between which the table belongs")
    return f"{head}{BEGIN}\n{table(operations)}\n{END}{tail}"


def _needs(operation: Operation) -> str:
    return _NEEDS[operation.scope] if isinstance(operation.scope, Who) else f"`{operation.scope}`"


def _takes(operation: Operation) -> str:
    names = [*_fields(operation.query), *_fields(operation.body)]
    if operation.takes:
        names.append(operation.takes)
    return ", ".join(names + [f"`{name}` (header)" for name in operation.reads])


def _fields(model: type[BaseModel] | None) -> list[str]:
    if model is None:
        return []
    return [
        f"**`{field.alias or name}`**" if field.is_required() else f"`{field.alias or name}`"
        for name, field in model.model_fields.items()
    ]
