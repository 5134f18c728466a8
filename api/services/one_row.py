"""One row by its id: a hot statement, made of the columns that lists show of the same rows.

It takes a connection of its own, or a transaction's. The database shows the row to whoever reaches
it, and nothing to anybody else; what it shows is compared with the caller's reach again.
"""

from collections.abc import Collection
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

from sqlalchemy import ColumnElement, Date, Uuid, literal_column, select, text
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlmodel import col

from api.auth.caller import Caller, entering
from api.auth.permissions import Permission
from api.driver import ENTERED, Connection
from api.errors import NotFound
from api.models.base import Record

_ID: Final = literal_column("$3", Uuid)
TODAY: Final = literal_column("$4::date", Date)
"""For columns that tell how something is on a day: the first value behind the row's id."""


class OneRow(NamedTuple):
    """The statement, and the permissions by which the database shows what it selects."""

    query: str
    needed: frozenset[Permission]


def one_row(
    table: type[Record], needed: Collection[Permission], *columns: ColumnElement[Any]
) -> OneRow:
    """Return how a row of `table` is read with further columns, laid behind the scope."""
    row = select(table).add_columns(*columns)
    row = row.where(col(table.id) == _ID, text("entered.scopes is not null")).offset(0)
    shown = row.compile(dialect=cast("Any", dialect)(), compile_kwargs={"literal_binds": True})
    query = f"{ENTERED} select found.* from entered cross join lateral ({shown}) found"  # noqa: S608 - constants
    return OneRow(query, frozenset(needed))


async def find(
    database: Connection,
    caller: Caller,
    how: OneRow,
    row_id: UUID,
    *values: Any,
    hidden: bool = False,
) -> dict[str, Any]:
    """Return a row that the database shows the caller: 404 for none, and for one that is hidden."""
    entered = entering(database, caller, how.needed)
    for row in await database.fetch(how.query, *entered, row_id, *values):
        if hidden or row["deleted_at"] is None:
            return dict(row)
    raise NotFound
