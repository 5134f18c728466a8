"""The connections of hot statements: whatever goes wrong on one, all are there for the next."""

import asyncio
from typing import cast

import asyncpg
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api.driver import Hot
from api.problems import from_database
from tests.waiting import until

MANY = 40


async def used(hot: Hot) -> int:
    """Return how many connections answer at once."""
    asked = (hot.fetch("select pg_backend_pid() as pid, pg_sleep(0.05)") for _ in range(MANY))
    return len({rows[0]["pid"] for rows in await asyncio.gather(*asked)})


async def standing(superuser: AsyncEngine) -> int:
    """Return how many hot connections the database holds."""
    count = text("""
        select count(*) from pg_stat_activity
        where application_name = 'noidai hot' and datname = current_database()
    """)
    async with superuser.connect() as connection:
        return await connection.scalar(count) or 0


async def test_who_hangs_up_leaves_no_connection_held(app: FastAPI) -> None:
    hot: Hot = app.state.hot
    size = await used(hot)
    sleeping = [asyncio.create_task(hot.fetch("select pg_sleep(60)")) for _ in range(MANY)]
    await asyncio.sleep(0.2)
    for task in sleeping:
        task.cancel()
    await asyncio.gather(*sleeping, return_exceptions=True)
    assert await used(hot) == size > 1


async def test_all_connections_are_closed_in_the_end(app: FastAPI, superuser: AsyncEngine) -> None:
    hot: Hot = app.state.hot
    before = await used(hot)
    url = app.state.callers.url
    other = Hot(url, size=3, statement_timeout_ms=10_000, readings="select 1")
    assert await used(other) == 3
    assert await standing(superuser) == before + 3
    await other.close()

    async def gone() -> bool:
        return await standing(superuser) == before

    await until(gone)


async def test_a_refused_statement_leaves_its_connection_whole(app: FastAPI) -> None:
    hot: Hot = app.state.hot
    size = await used(hot)
    for _ in range(MANY):
        with pytest.raises(asyncpg.DivisionByZeroError):
            await hot.fetch("select 1 / 0")
        with pytest.raises(asyncpg.DivisionByZeroError):
            async with hot.connection() as connection, connection.transaction():
                await connection.fetch("select 1 / 0")
    assert await used(hot) == size


async def test_broken_connections_are_replaced(app: FastAPI, superuser: AsyncEngine) -> None:
    hot: Hot = app.state.hot
    size = await used(hot)
    end = text("""
        select count(*) filter (where pg_terminate_backend(pid)) from pg_stat_activity
        where application_name = 'noidai hot' and datname = current_database()
    """)
    async with superuser.connect() as connection:
        assert await connection.scalar(end) == size
    asked = (hot.fetch("select pg_sleep(0.05)") for _ in range(size))
    for answer in await asyncio.gather(*asked, return_exceptions=True):
        if isinstance(answer, BaseException):  # whoever comes before a break was heard of meets it
            assert from_database(cast("Exception", answer)).status == 503
    assert await used(hot) == size
