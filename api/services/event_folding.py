"""Folding what has changed into its rolls, and holding the rolls against a recount."""

import asyncio
from collections.abc import Awaitable, Callable

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from api.db import TOOK_TURNS, transaction

TRIES = 60
PART = 20_000
"""Changes that are folded at once: of anywhere in the country, in one or two seconds."""

_PATIENCE = text("set local statement_timeout = '1h'")
_FOLD = text("select fold_events()")
_FOLD_PART = text("select fold_events(:most)")
_REBUILD = text("select rebuild_event_rolls()")
_DIFFERENCES = text("""
    select * from event_roll_differences(), people_roll_differences(), standing_differences()
""")


async def fold(session: AsyncSession) -> int:
    """Add what has changed to the rolls; return how many changes, 0 when another folds.

    The session is one of `transaction(engine, snapshot=True)`: what is folded is one moment. Two
    that fold at the same moment cannot both commit. Of a backlog, the oldest transactions are
    folded that have `PART` changes together: as long as that many are returned, there may be more.
    """
    await session.execute(_PATIENCE)
    return int(await session.scalar(_FOLD_PART, {"most": PART}) or 0)


async def repair(engine: AsyncEngine) -> None:
    """Count every roll anew, while events go on coming in."""

    async def rebuild(session: AsyncSession) -> bool:
        return bool(await session.scalar(_REBUILD))

    await _in_turn(engine, rebuild)


async def differences(engine: AsyncEngine) -> dict[str, int]:
    """Return, for every number that rolls hold, in how many rows it is not that of a recount.

    `rows` is how many rolls of events were compared. What has not been folded is folded before.
    """

    async def compare(session: AsyncSession) -> dict[str, int] | None:
        if await session.scalar(_FOLD) is None:
            return None
        (row,) = (await session.execute(_DIFFERENCES)).mappings()
        return dict(row)

    return await _in_turn(engine, compare)


async def _in_turn[T](
    engine: AsyncEngine, work: Callable[[AsyncSession], Awaitable[T | None]]
) -> T:
    """Return what `work` does in one snapshot, once nobody else holds the rolls."""
    for _ in range(TRIES):
        try:
            async with transaction(engine, snapshot=True) as session:
                await session.execute(_PATIENCE)
                if done := await work(session):
                    return done
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != TOOK_TURNS:
                raise
        await asyncio.sleep(1)
    raise TimeoutError("the rolls of events are held by others")
