"""Counting what the service sends to the database, through the toolkit and through the driver."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
from fastapi import FastAPI
from sqlalchemy import event as hooks


@contextmanager
def statements(app: FastAPI) -> Iterator[list[str]]:
    """Collect the SQL that the service sends."""
    sent: list[str] = []
    engine = app.state.engine.sync_engine
    fetch = asyncpg.Connection.fetch

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        sent.append(statement)

    async def noted(connection: Any, query: str, *arguments: Any, **options: Any) -> Any:
        sent.append(query)
        return await fetch(connection, query, *arguments, **options)

    hooks.listen(engine, "before_cursor_execute", note)
    asyncpg.Connection.fetch = noted
    try:
        yield sent
    finally:
        asyncpg.Connection.fetch = fetch
        hooks.remove(engine, "before_cursor_execute", note)
