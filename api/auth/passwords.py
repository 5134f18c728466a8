"""Secrets of people and systems: argon2id by pwdlib, in a thread, in constant time.

One hash takes 64 MiB and some 50 ms of all cores: only so many run at a time, and only so many
sign-ins wait for their turn, so that a flood of them cannot take the service's memory.
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from pwdlib import PasswordHash

from api.errors import Unavailable

_HASHER = PasswordHash.recommended()
_NOBODY = _HASHER.hash("nobody has this password")
_AT_ONCE = CapacityLimiter(2)
_TURNS = CapacityLimiter(2)
MOST_WAITING = 200


@asynccontextmanager
async def turn() -> AsyncIterator[None]:
    """Wait for one's turn to sign in; 503 when too many wait already.

    Whoever holds a turn looks whether guessing is to be slowed down, compares, and counts a
    failure: so guesses that are sent at the same moment see each other's failures. It must hold
    no database connection while it waits: those who hold a turn need one.
    """
    if _TURNS.statistics().tasks_waiting >= MOST_WAITING:
        raise Unavailable
    async with _TURNS:
        yield


async def hash_secret(plain: str) -> str:
    """Return the hash to keep."""
    return await run_sync(_HASHER.hash, plain, limiter=_AT_ONCE)


async def verify_secret(plain: str, kept: str | None) -> bool:
    """Compare; an unknown principal, or one without a secret, takes as long as a wrong secret."""
    matches = await run_sync(_HASHER.verify, plain, kept or _NOBODY, limiter=_AT_ONCE)
    return matches and bool(kept)


def new_secret() -> str:
    """Return a random secret of 256 bits for a client."""
    return secrets.token_urlsafe(32)
