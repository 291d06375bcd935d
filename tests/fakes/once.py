"""Requests without an Idempotency-Key, each of which is done."""

from __future__ import annotations

from aiohttp import web

from sipserver.api.rest.operations import Asked, Operation, Work


async def always(operation: Operation, asked: Asked, work: Work) -> web.StreamResponse:
    """As `operations.Once`."""
    return await work(asked)
