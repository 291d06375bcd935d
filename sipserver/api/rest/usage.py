"""Usage by REST: of a call, of a time, of a month as a file.

Owns that a tenant's key reaches this tenant's usage alone. Refuses to know how it is counted and what it costs
(`tenants.bills`).
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime, timedelta

from aiohttp import web

from sipserver.api.rest import usage_models as models
from sipserver.api.rest.models import aware
from sipserver.api.rest.operations import Answered, Asked, Operation
from sipserver.errors import CallerError
from sipserver.store.reader import CallRow
from sipserver.tenants import bills as forms
from sipserver.tenants.bills import Bills, Line, Month
from sipserver.tenants.keys import Scope

LONGEST = timedelta(days=366)
_AT_ONCE = 500
"""Lines of a table that are sent together."""

RowOf = Callable[[Asked], Awaitable[CallRow]]


class UsageOperations:
    """Loop thread. row_of: the record of the call in the path, if it is the tenant's."""

    def __init__(self, bills: Bills, row_of: RowOf) -> None:
        self._bills, self._row_of = bills, row_of

    def operations(self) -> Sequence[Operation]:
        return [
            Operation(
                "getCallUsage",
                "GET",
                "/calls/{id}/usage",
                Scope.USAGE_READ,
                self._call,
                "What a call used, and what that costs",
                answer=models.CallUsage,
            ),
            Operation(
                "getUsage",
                "GET",
                "/usage",
                Scope.USAGE_READ,
                self._between,
                "What all calls of a time used, by part or by day",
                "Calls count when they are over, in full on the day on which they began.",
                query=models.UsageAsked,
                answer=models.Usage,
                refusals=(400,),
            ),
            Operation(
                "exportUsage",
                "GET",
                "/usage/export",
                Scope.USAGE_READ,
                self._export,
                "Fetch a month for an invoice",
                "As JSON, or with `format=csv` as a table.",
                query=models.ExportAsked,
                answer=models.UsageExport,
                media_type="text/csv",
                refusals=(400,),
            ),
        ]

    async def _call(self, asked: Asked) -> Answered:
        row = await self._row_of(asked)
        lines = await self._bills.of_call(row.id)
        return Answered(
            models.CallUsage(
                id=row.id,
                final=row.ended_at is not None,
                currency=self._bills.currency,
                lines=_shown(lines),
                total=f"{forms.total(lines):f}",
            )
        )

    async def _between(self, asked: Asked) -> Answered:
        wanted: models.UsageAsked = asked.query
        since, until = _moment(wanted.from_), _moment(wanted.to)
        if not since < until:
            raise CallerError("`to` is after `from`")
        if until - since > LONGEST:
            raise CallerError(f"it is {LONGEST.days} days at most from `from` to `to`")
        lines = await self._bills.between(asked.key.tenant, since, until, wanted.by)
        groups = [
            models.UsageGroup(day=day, lines=_shown(own := list(found)), total=f"{forms.total(own):f}")
            for day, found in itertools.groupby(lines, key=lambda line: line.group)
        ]
        total = f"{forms.total(lines):f}"
        return Answered(models.Usage(currency=self._bills.currency, groups=groups, total=total))

    async def _export(self, asked: Asked) -> Answered | web.StreamResponse:
        wanted: models.ExportAsked = asked.query
        month, tenant = Month.of(wanted.month), asked.key.tenant
        if wanted.format == "csv":
            return await self._table(asked, month, each_call=wanted.lines == "calls")
        if wanted.lines == "calls":
            raise CallerError("every call's own lines come as a table only: say `format=csv`")
        lines = await self._bills.between(tenant, month.since, month.until)
        told = forms.as_json(tenant, month, self._bills.currency, lines)
        return Answered(models.UsageExport.model_validate(told))

    async def _table(self, asked: Asked, month: Month, *, each_call: bool) -> web.StreamResponse:
        """Sent while it is read: a month may have many calls."""
        tenant = asked.key.tenant
        name = f"usage-{month.text}{'-calls' if each_call else ''}.csv"
        pieces = self._pieces(tenant, month, each_call=each_call)
        first = await anext(pieces)  # what the database refuses is answered as such
        answer = web.StreamResponse(headers={"Content-Disposition": f'attachment; filename="{name}"'})
        answer.content_type, answer.charset = "text/csv", "utf-8"
        await answer.prepare(asked.request)
        await answer.write(first.encode())
        async for piece in pieces:
            await answer.write(piece.encode())
        await answer.write_eof()
        return answer

    async def _pieces(self, tenant: str, month: Month, *, each_call: bool) -> AsyncIterator[str]:
        currency, waiting, begun = self._bills.currency, list[Line](), False
        if each_call:
            async for line in self._bills.calls(tenant, month.since, month.until):
                waiting.append(line)
                if len(waiting) >= _AT_ONCE:
                    yield ("" if begun else forms.head()) + forms.as_rows(tenant, month, currency, waiting)
                    waiting, begun = [], True
        else:
            waiting = list(await self._bills.between(tenant, month.since, month.until))
        yield ("" if begun else forms.head()) + forms.as_rows(tenant, month, currency, waiting)


def _shown(lines: Sequence[Line]) -> list[models.UsageLine]:
    return [models.UsageLine.model_validate(line.plain()) for line in lines]


def _moment(given: datetime) -> datetime:
    moment = aware(given)
    assert moment is not None
    return moment
