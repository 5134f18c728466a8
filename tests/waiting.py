"""Waiting for what another worker, or the database, does; and watching it meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

SOON = 5
"""Seconds within which a change of somebody's rights must act on every worker."""


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something holds, for as long as it may take at most."""
    async with asyncio.timeout(SOON):
        while not await holds():  # noqa: ASYNC110 - it happens elsewhere, nothing tells of it
            await asyncio.sleep(0.01)


async def watch(
    engine: AsyncEngine,
    over: asyncio.Event,
    holds: Callable[[AsyncConnection], Awaitable[bool]],
) -> int:
    """Look, until it is over, whether something holds in every snapshot; return how often."""
    looks = 0
    snapshot = engine.execution_options(isolation_level="REPEATABLE READ")
    async with snapshot.connect() as connection:
        while not over.is_set():
            assert await holds(connection)
            looks += 1
    return looks
