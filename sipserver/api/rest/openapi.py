"""The OpenAPI 3.1 document of the REST API, made of its operations, and a page that shows it. Pure.

Owns the form. Refuses to know what operations do: `operations.Operation` says all that stands here.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from sipserver import __version__
from sipserver.api.rest.access import CSRF_HEADER, Who
from sipserver.api.rest.cookies import SESSION
from sipserver.api.rest.operations import MOST_HEADER, Operation
from sipserver.api.rest.problems import CONTENT_TYPE

_SESSION = (
    "`POST /login` makes one; by https its name begins with `__Host-`. "
    f"All but GET needs the header `{CSRF_HEADER}` beside it."
)
_REF = "#/components/schemas/{model}"
_ALWAYS = {
    401: "No API key and no session, or none that is good",
    403: "The key or the role does not have the scope, or the request came out of a page that is not ours, or it names "
    "what is not allowed",
    404: "There is no such thing, or it is another tenant's",
    422: "The query or the body is not as it should be; `errors` says where",
    429: "Too many requests; Retry-After says how long to wait",
    500: "A mistake of the server",
    503: "Not now: no room, shutting down, or the records cannot be read",
}
_MORE = {
    400: "What was asked for cannot be",
    409: "Not in this state",
    412: "Somebody else changed it first",
    413: "The body is too large",
    416: "No such range in the file",
    428: "The request does not say which version it changes",
    502: "The trunk or the network did not take it",
    507: "The server's disk is full",
}
_RATE = {
    "RateLimit-Limit": "Requests at once",
    "RateLimit-Remaining": "What is left of them now",
    "RateLimit-Reset": "Seconds until all are there again",
}
_PROBLEM: Mapping[str, Any] = {
    "type": "object",
    "description": "RFC 9457",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What this request did wrong, and what to do."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["where", "reason"],
                "properties": {"where": {"type": "string"}, "reason": {"type": "string"}},
            },
        },
    },
}


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """Of /api/v1; JSON-able."""
    schemas = _schemas(operations)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(f"/api/v1{operation.path}", {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "sipserver",
            "version": __version__,
            "description": "Calls, placed and read by programs and people. Every key and user belongs to a tenant and "
            "reaches its calls.",
        },
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Problem": _PROBLEM},
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "`sipserver keys create` makes one."},
                "session": {"type": "apiKey", "in": "cookie", "name": SESSION, "description": _SESSION},
            },
        },
        "security": [{"key": []}, {"session": []}],
    }


def _schemas(operations: Sequence[Operation]) -> dict[str, Any]:
    models: list[tuple[type[BaseModel], Any]] = []
    for each in operations:
        if each.body is not None:
            models.append((each.body, "validation"))
        if each.answer is not None:
            models.append((each.answer, "serialization"))
    _, found = models_json_schema(list(dict.fromkeys(models)), by_alias=True, ref_template=_REF)
    return dict(found.get("$defs", {}))


def _operation(operation: Operation) -> dict[str, Any]:
    said: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": " ".join(filter(None, (operation.detail, _needs(operation)))),
        "parameters": [*_path(operation), *_query(operation), *_headers(operation)],
        "responses": {**_successes(operation), **_refusals(operation)},
    }
    if operation.scope is Who.ANYBODY:
        said["security"] = []
    elif operation.scope is Who.PERSON:
        said["security"] = [{"session": []}]
    if operation.body is not None:
        schema = {"$ref": _REF.format(model=operation.body.__name__)}
        needed = any(field.is_required() for field in operation.body.model_fields.values())
        said["requestBody"] = {"required": needed, "content": {"application/json": {"schema": schema}}}
    elif operation.takes:
        said["requestBody"] = {"required": False, "content": {operation.takes: {}}}
    return said


def _needs(operation: Operation) -> str:
    return operation.scope.value if isinstance(operation.scope, Who) else f"Needs the scope `{operation.scope}`."


def _path(operation: Operation) -> list[dict[str, Any]]:
    names = re.findall(r"{(\w+)}", operation.path)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _query(operation: Operation) -> list[dict[str, Any]]:
    if operation.query is None:
        return []
    schema = operation.query.model_json_schema(by_alias=True)
    required = schema.get("required", [])
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            "description": field.get("description", ""),
            "schema": {key: value for key, value in field.items() if key not in ("title", "description")},
        }
        for name, field in schema["properties"].items()
    ]


def _headers(operation: Operation) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "header", "description": text, "schema": {"type": "string", "maxLength": MOST_HEADER}}
        for name, text in operation.reads.items()
    ]


def _successes(operation: Operation) -> dict[str, Any]:
    """200 beside 201: what was made before, by a request with the same Idempotency-Key."""
    said = _success(operation)
    also = dict(operation.also)
    if operation.once and operation.status == 201 and not operation.told_once:
        also[200] = "Made before"
    found = {operation.status: said, **{status: {**said, "description": text} for status, text in also.items()}}
    return {str(status): each for status, each in sorted(found.items())}


def _success(operation: Operation) -> dict[str, Any]:
    rate = {name: {"description": text, "schema": {"type": "integer"}} for name, text in _RATE.items()}
    said: dict[str, Any] = {"description": operation.summary, "headers": rate}
    if operation.answer is not None:
        schema = {"$ref": _REF.format(model=operation.answer.__name__)}
        said["content"] = {"application/json": {"schema": schema}}
    if operation.media_type:
        files = {each: _file(each) for each in operation.media_type.split(", ")}
        said["content"] = {**said.get("content", {}), **files}
    return said


def _file(media_type: str) -> dict[str, Any]:
    """Text that a program may read as more than a text has no schema."""
    binary = media_type.startswith(("audio/", "application/zip"))
    return {"schema": {"type": "string", "format": "binary"}} if binary else {}


def _refusals(operation: Operation) -> dict[str, Any]:
    takes = operation.body is not None or operation.takes
    more = {*operation.refusals, *([409] if operation.once else []), *([413] if takes else [])}
    texts = {**_ALWAYS, **{status: _MORE.get(status, "") for status in more}}
    content = {CONTENT_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}}
    return {
        str(status): {"description": _ALWAYS.get(status) or text, "content": content}
        for status, text in sorted(texts.items())
    }


def page(operations: Sequence[Operation]) -> str:
    """The same for people: HTML without scripts."""
    told = document(operations)
    parts = [_PAGE_HEAD]
    for path, methods in told["paths"].items():
        for method, operation in methods.items():
            parts.append(_section(method, path, operation))
    parts.append("<h2>Schemas</h2>")
    for name, schema in told["components"]["schemas"].items():
        parts.append(f'<h3 id="{html.escape(name)}">{html.escape(name)}</h3><pre>{_pretty(schema)}</pre>')
    return "\n".join([*parts, "</main></html>"])


def _section(method: str, path: str, operation: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{html.escape(each['name'])}</code></td><td>{each['in']}</td>"
        f"<td>{_prose(each.get('description', ''))}</td></tr>"
        for each in operation["parameters"]
    )
    answers = "".join(
        f"<tr><td>{status}</td><td>{_prose(answer['description'])}</td></tr>"
        for status, answer in operation["responses"].items()
    )
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    takes = f"<p>Takes {_link(body['$ref'])}.</p>" if body else ""
    return (
        f'<h2 id="{operation["operationId"]}"><code>{method.upper()} {html.escape(path)}</code></h2>'
        f"<p>{_prose(operation['summary'])}. {_prose(operation['description'])}</p>{takes}"
        f"<table>{rows}</table><table>{answers}</table>"
    )


def _prose(text: str) -> str:
    """With what stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def _link(reference: str) -> str:
    name = html.escape(reference.rpartition("/")[2])
    return f'<a href="#{name}">{name}</a>'


def _pretty(schema: Any) -> str:
    return html.escape(json.dumps(schema, indent=2))


_PAGE_HEAD = """<!doctype html><html lang="en"><meta charset="utf-8"><title>sipserver: REST API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body{font:16px/1.5 system-ui,sans-serif;margin:0;color:#1a1a1a;background:#fff}main{max-width:60rem;margin:auto;
padding:1rem}h2{margin-top:2.5rem;font-size:1.1rem;border-top:1px solid #ddd;padding-top:1rem}table{border-collapse:
collapse;margin:.5rem 0}td{padding:.15rem .8rem .15rem 0;vertical-align:top}pre{background:#f5f5f5;padding:.8rem;
overflow:auto;font-size:.85rem}code{font-size:.95em}</style>
<main><h1>REST API</h1><p>Send <code>Authorization: Bearer sips_...</code>; <code>sipserver keys create</code> makes a
key. The document for programs: <a href="openapi.json">openapi.json</a> (OpenAPI 3.1).</p>"""
