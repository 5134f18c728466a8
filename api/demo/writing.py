"""Writing generated rows: many at once, through arrays, since `COPY` is refused under policies."""

from collections.abc import Callable, Sequence
from itertools import batched
from typing import Any

from sqlalchemy import ARRAY
from sqlalchemy.dialects import postgresql
from sqlmodel import SQLModel

_CHUNK = 5_000


async def insert(
    connection: Any,
    table: type[SQLModel],
    rows: Sequence[Any],
    done: Callable[[float], None] = lambda _part: None,
) -> None:
    """Insert named tuples, whose fields are columns of the table; `done` hears the part written.

    Arrays and JSON come as PostgreSQL's text of them: `unnest` would flatten an array of arrays.
    """
    if not rows:
        return
    statement = _statement(table, rows[0]._fields)
    for number, chunk in enumerate(batched(rows, _CHUNK)):
        await connection.execute(statement, *zip(*chunk, strict=True))
        done(min(1.0, (number + 1) * _CHUNK / len(rows)))


def _statement(table: type[SQLModel], names: Sequence[str]) -> str:
    columns = [table.__table__.c[name] for name in names]  # type: ignore[attr-defined]
    types = [column.type.compile(dialect=postgresql.dialect()) for column in columns]  # type: ignore[no-untyped-call]
    as_text = [isinstance(column.type, (ARRAY, postgresql.JSONB)) for column in columns]
    given = [
        f"${n}::{'text' if written else kind}[]"
        for n, (kind, written) in enumerate(zip(types, as_text, strict=True), start=1)
    ]
    taken = [f"{name}::{kind}" for name, kind in zip(names, types, strict=True)]
    return (  # every part is a name of ours
        f"insert into {table.__tablename__} ({', '.join(names)}) "  # noqa: S608
        f"select {', '.join(taken)} from unnest({', '.join(given)}) as given ({', '.join(names)})"
    )
