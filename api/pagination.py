"""Keyset pages with opaque cursors: signed, bound to the filters, without authority of their own.

Every list is ordered by one column that is never null, then by id. Walking while others write
shows every row that stood throughout exactly once.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from itsdangerous import BadSignature, URLSafeSerializer
from sqlalchemy import Row, Select, SQLColumnExpression, func, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from api.errors import CursorInvalid
from api.models.pages import Page
from api.models.types import PageQuery


@dataclass(frozen=True)
class Order:
    """How a list runs: a column that is never null, the id that breaks ties, the direction."""

    column: SQLColumnExpression[Any]
    tie: SQLColumnExpression[Any]
    descending: bool = False


class Cursors:
    """Signs and reads cursors."""

    def __init__(self, key: bytes) -> None:
        """`key` is the service's secret for cursors."""
        self._serializer = URLSafeSerializer(key, salt="cursor")

    def write(self, query: PageQuery, last: Sequence[Any]) -> str:
        """Return the cursor behind the last row's sort values, for this query only."""
        return str(self._serializer.dumps([_fingerprint(query), [str(value) for value in last]]))

    def read(self, query: PageQuery) -> list[str] | None:
        """Return the sort values in the query's cursor; refuse one made for another query."""
        if query.cursor is None:
            return None
        try:
            fingerprint, last = self._serializer.loads(query.cursor)
        except (BadSignature, ValueError, TypeError) as error:
            raise CursorInvalid from error
        if fingerprint != _fingerprint(query):
            raise CursorInvalid
        return list(last)


def _fingerprint(query: PageQuery) -> str:
    filters = query.model_dump(mode="json", exclude={"cursor", "limit", "include_total"})
    text = json.dumps([type(query).__name__, filters], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


async def paginate[Item](
    session: AsyncSession,
    cursors: Cursors,
    query: PageQuery,
    statement: Select[*tuple[Any, ...]],
    order: Order,
    present: Callable[[Sequence[Row[Any]]], Sequence[Item]],
) -> Page[Item]:
    """Run one page of `statement` (unordered) and let `present` make its items.

    Two statements when the total is asked for, else one.
    """
    keys = tuple_(order.column, order.tie)
    page = statement
    if last := cursors.read(query):
        bounds = tuple_(
            *(literal(value).cast(column.type) for value, column in zip(last, keys, strict=True))
        )
        page = page.where(keys < bounds if order.descending else keys > bounds)
    for column in keys:
        page = page.order_by(column.desc() if order.descending else column.asc())
    page = page.add_columns(order.column.label("_sort"), order.tie.label("_tie"))
    rows = (await session.execute(page.limit(query.limit + 1))).all()
    more, rows = len(rows) > query.limit, rows[: query.limit]
    total = None
    if query.include_total:
        total = await session.scalar(select(func.count()).select_from(statement.subquery()))
    cursor = cursors.write(query, rows[-1][-2:]) if more else None
    return Page(items=list(present(rows)), next_cursor=cursor, total=total)
