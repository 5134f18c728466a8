"""What every worker does beside answering: chores of the database, each at its own pace.

All workers try; an advisory lock lets one of them act at a time, and the rest go on. They have
connections of their own, so that requests do not wait for them.
"""

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from types import FrameType
from typing import Final, NamedTuple

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from api.db import TOOK_TURNS, create_engine, transaction
from api.services import (
    applied_changes,
    audit_seals,
    event_folding,
    idempotency,
    observation_answers,
)

log = logging.getLogger("noidai")
LONGEST_GOODBYE: Final = 10
"""Seconds that an ending service gives a chore."""


class Chore(NamedTuple):
    """What is done, at the start or not, and the seconds until it is done again.

    What it returns is how much it found to do: after more than `much` it is done again at once.
    """

    do: Callable[[AsyncSession], Awaitable[int | None]]
    every: float
    at_once: bool = True
    in_one_snapshot: bool = False
    much: int = 1_000


CHORES: Final = (
    Chore(audit_seals.prepare, 60),
    Chore(audit_seals.seal, 60, at_once=False),
    Chore(observation_answers.tidy, 10),
    Chore(idempotency.tidy, 600),
    Chore(applied_changes.tidy, 3600),
    Chore(event_folding.fold, 1, in_one_snapshot=True),
)


@asynccontextmanager
async def working(database_url: str) -> AsyncIterator[None]:
    """Do the chores beside what is done within; a long one is cut short at the end."""
    engine = create_engine(database_url, pool_size=len(CHORES), statement_timeout_ms=60_000)
    ending = asyncio.Event()
    chores = [asyncio.create_task(repeat(engine, chore, ending)) for chore in CHORES]
    try:
        yield
    finally:
        ending.set()
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*chores), LONGEST_GOODBYE)
        await engine.dispose()


@contextmanager
def telling(ending: asyncio.Event) -> Iterator[None]:
    """Set `ending` when the process is asked to end, before the server acts on it.

    The server waits for its connections first, and for a stream it would wait forever.
    """
    loop = asyncio.get_running_loop()

    def tell(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(ending.set)
        given = before[signal.Signals(number)]
        if callable(given):
            given(number, frame)

    before = {}
    if threading.current_thread() is threading.main_thread():
        taken = [n for n in (signal.SIGINT, signal.SIGTERM) if callable(signal.getsignal(n))]
        before = {number: signal.signal(number, tell) for number in taken}
    try:
        yield
    finally:
        for number, given in before.items():
            signal.signal(number, given)


async def repeat(engine: AsyncEngine, chore: Chore, ending: asyncio.Event) -> None:
    """Do a chore until `ending` is set; what fails is logged, and tried again the next time."""
    found = await _do(engine, chore) if chore.at_once else 0
    while not ending.is_set():
        if found <= chore.much:
            with suppress(TimeoutError):
                await asyncio.wait_for(ending.wait(), chore.every)
        if not ending.is_set():
            found = await _do(engine, chore)


async def _do(engine: AsyncEngine, chore: Chore) -> int:
    try:
        async with transaction(engine, snapshot=chore.in_one_snapshot) as session:
            return await chore.do(session) or 0
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != TOOK_TURNS:
            log.exception("a chore failed: %s", chore.do.__doc__)
    except Exception:
        log.exception("a chore failed: %s", chore.do.__doc__)
    return 0
