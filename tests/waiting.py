"""Waiting for what another worker, or the database, does."""

import asyncio
from collections.abc import Awaitable, Callable

SOON = 5
"""Seconds within which a change of somebody's rights must act on every worker."""


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something holds, for as long as it may take at most."""
    async with asyncio.timeout(SOON):
        while not await holds():  # noqa: ASYNC110 - it happens elsewhere, nothing tells of it
            await asyncio.sleep(0.01)
