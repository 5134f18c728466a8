"""What every worker does beside answering: chores of the database, about once a minute.

All workers try; an advisory lock lets one of them act at a time, and the rest go on.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from api.db import transaction
from api.services import audit_seals

log = logging.getLogger("noidai")
SEAL_EVERY = 60
"""Seconds between two seals of the audit."""
LONGEST_GOODBYE = 10
"""Seconds that an ending service gives a chore."""


@asynccontextmanager
async def working(engine: AsyncEngine) -> AsyncIterator[None]:
    """Do the chores beside what is done within; a long one is cut short at the end."""
    ending = asyncio.Event()
    chores = asyncio.create_task(work(engine, ending))
    try:
        yield
    finally:
        ending.set()
        with suppress(TimeoutError):
            await asyncio.wait_for(chores, LONGEST_GOODBYE)


async def work(engine: AsyncEngine, ending: asyncio.Event, every: float = SEAL_EVERY) -> None:
    """Do the chores until `ending` is set; what fails is logged, and tried again the next time."""
    while not ending.is_set():
        await _do(engine, audit_seals.prepare)
        with suppress(TimeoutError):
            await asyncio.wait_for(ending.wait(), every)
        if not ending.is_set():
            await _do(engine, audit_seals.seal)


async def _do(engine: AsyncEngine, chore: Callable[[AsyncSession], Awaitable[object]]) -> None:
    try:
        async with transaction(engine) as session:
            await chore(session)
    except Exception:
        log.exception("a chore failed: %s", chore.__doc__)
