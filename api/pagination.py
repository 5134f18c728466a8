"""Keyset pages with opaque cursors: signed, bound to the filters, without authority of their own.

Every list is ordered by one column that is never null, then by id. Walking while others write
shows every row that stood throughout exactly once.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, cast

from itsdangerous import BadSignature, URLSafeSerializer
from sqlalchemy import (
    ARRAY,
    Row,
    Select,
    SQLColumnExpression,
    Subquery,
    func,
    literal,
    select,
    true,
    tuple_,
    union,
)
from sqlalchemy import column as named
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import TypeEngine

from api.errors import CursorInvalid
from api.models.pages import Page
from api.models.types import PageQuery


@dataclass(frozen=True)
class Order:
    """How a list runs: a column that is never null, the id that breaks ties, the direction."""

    column: SQLColumnExpression[Any]
    tie: SQLColumnExpression[Any]
    descending: bool = False


type Source = tuple[SQLColumnExpression[Any], Collection[Any]]
"""An indexed column and the values of it that a list consists of."""


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
    sources: Sequence[Source] = (),
) -> Page[Item]:
    """Run one page of `statement` (unordered) and let `present` make its items.

    Two statements when the total is asked for, else one. `sources` let an index on (column, order)
    drive a long list: the page is the best of each value's own first rows, so that its cost does
    not grow with the rows that lie elsewhere.
    """
    page = _after(statement, order, cursors.read(query))
    if sources:
        first = _first_of_each(page, order, sources, query.limit + 1)
        page = statement.join(first, first.c.tie == order.tie)
    page = _in_order(page, order).add_columns(order.column.label("_sort"), order.tie.label("_tie"))
    rows = (await session.execute(page.limit(query.limit + 1))).all()
    more, rows = len(rows) > query.limit, rows[: query.limit]
    total = None
    if query.include_total:
        total = await session.scalar(select(func.count()).select_from(statement.subquery()))
    cursor = cursors.write(query, rows[-1][-2:]) if more else None
    return Page(items=list(present(rows)), next_cursor=cursor, total=total)


def _after(
    statement: Select[*tuple[Any, ...]], order: Order, last: Sequence[str] | None
) -> Select[*tuple[Any, ...]]:
    """Keep what comes behind a cursor's row."""
    if last is None:
        return statement
    keys = tuple_(order.column, order.tie)
    bounds = tuple_(
        *(literal(value).cast(column.type) for value, column in zip(last, keys, strict=True))
    )
    return statement.where(keys < bounds if order.descending else keys > bounds)


def _in_order(statement: Select[*tuple[Any, ...]], order: Order) -> Select[*tuple[Any, ...]]:
    for column in (order.column, order.tie):
        statement = statement.order_by(column.desc() if order.descending else column.asc())
    return statement


def _first_of_each(
    page: Select[*tuple[Any, ...]], order: Order, sources: Sequence[Source], limit: int
) -> Subquery:
    """Select the first rows over all sources: of each value its own first ones, then the best."""
    branches = []
    for column, values in sources:
        kind = cast("TypeEngine[Any]", getattr(column, "type", None))
        array = func.unnest(literal(sorted(values), ARRAY(kind)))
        value = array.table_valued(named("value", kind)).render_derived()
        both: tuple[Any, Any] = order.column.label("sort"), order.tie.label("tie")
        narrowed: Select[*tuple[Any, ...]] = page.with_only_columns(*both)
        narrowed = _in_order(narrowed.where(column == value.c.value), order).limit(limit)
        own = narrowed.lateral()
        branches.append(select(own.c.sort, own.c.tie).select_from(value.join(own, true())))
    rows = union(*branches).subquery()
    best = Order(rows.c.sort, rows.c.tie, order.descending)
    return _in_order(select(rows.c.sort, rows.c.tie), best).limit(limit).subquery("first")
