"""How a migration runs: one transaction each, one migrator at a time, never waiting for long.

`noidai migrate` and the tests pass the connection in; `alembic` on the command line has none and
is not a way in, since the roles must exist before.
"""

from typing import Any

from alembic import context
from sqlalchemy import Connection, String, text

from api.models import metadata

ADVISORY_LOCK = 0x6E6F69646169  # "noidai"


def include_object(item: Any, name: str | None, kind: str, _reflected: bool, _other: Any) -> bool:
    """Compare what the models describe: tables, columns, foreign keys.

    Indexes and other constraints are said once, in the migrations; a view is no table to make.
    """
    if kind == "table":
        return name in metadata.tables and not item.info.get("view")
    return kind not in {"index", "unique_constraint"}


def compare_type(_context: Any, _column: Any, _meta: Any, there: Any, here: Any) -> bool | None:
    """Take every kind of text for the same: limits are checked on the way in."""
    return (
        False
        if isinstance(there, String) and isinstance(getattr(here, "impl", here), String)
        else None
    )


def migrate(connection: Connection) -> None:
    """Run the migrations on a connection whose transaction the caller began and commits."""
    connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
    connection.execute(text("set local lock_timeout = '5s'"))
    connection.execute(text("set local statement_timeout = '120s'"))
    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_object=include_object,
        compare_type=compare_type,
    )
    with context.begin_transaction():
        context.run_migrations()


migrate(context.config.attributes["connection"])
