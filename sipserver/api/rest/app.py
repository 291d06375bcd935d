"""The REST API as one aiohttp application, its documents included; mounted at PREFIX."""

from __future__ import annotations

import json
from collections.abc import Sequence

from aiohttp import web

from sipserver.api.rest import openapi, operations
from sipserver.api.rest.access import Access
from sipserver.api.rest.deeds import Note
from sipserver.api.rest.operations import Once, Operation
from sipserver.events import catalogue

PREFIX = "/api/v1"
_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


def application(
    access: Access, note: Note, once: Once, offered: Sequence[Operation], open_to_all: Sequence[web.RouteDef] = ()
) -> web.Application:
    """Everybody may read the document, its page and the catalogue of events: they tell of no tenant. open_to_all: what
    else needs no key.
    """
    document = json.dumps(openapi.document(offered))
    events = json.dumps(catalogue.document())
    page = openapi.page(offered)

    async def as_document(_request: web.Request) -> web.Response:
        return web.Response(text=document, content_type="application/json")

    async def as_page(_request: web.Request) -> web.Response:
        return web.Response(text=page, content_type="text/html", headers={"Content-Security-Policy": _PAGE_POLICY})

    async def as_catalogue(_request: web.Request) -> web.Response:
        return web.Response(text=events, content_type="application/json")

    documents = [
        web.get("/openapi.json", as_document),
        web.get("/docs", as_page),
        web.get("/events/catalogue", as_catalogue),
        *open_to_all,
    ]
    return operations.application(access, note, once, offered, documents)
