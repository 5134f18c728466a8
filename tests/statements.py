"""Counting what the service sends to the database, through the toolkit and through the driver."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
from fastapi import FastAPI
from sqlalchemy import event as hooks

_CALLER = ("set_config('noidai.principal'", "from role_grant g")


@contextmanager
def statements(app: FastAPI, *, callers: bool = False, values: bool = False) -> Iterator[list[str]]:
    """Collect the SQL that the service sends; what reads a caller only if `callers`.

    With `values`, the toolkit's are told behind it.

    A caller is read again whenever an announcement of it is heard late, at any moment.
    """
    sent: list[str] = []
    engine = app.state.engine.sync_engine
    fetch = asyncpg.Connection.fetch

    def keep(statement: str) -> None:
        if callers or not any(part in statement for part in _CALLER):
            sent.append(statement)

    def note(_connection: Any, _cursor: Any, statement: str, given: Any, *_rest: Any) -> None:
        keep(f"{statement} {given}" if values else statement)

    async def noted(connection: Any, query: str, *arguments: Any, **options: Any) -> Any:
        keep(query)
        return await fetch(connection, query, *arguments, **options)

    hooks.listen(engine, "before_cursor_execute", note)
    asyncpg.Connection.fetch = noted
    try:
        yield sent
    finally:
        asyncpg.Connection.fetch = fetch
        hooks.remove(engine, "before_cursor_execute", note)
