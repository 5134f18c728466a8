"""Secrets of people and systems: argon2id by pwdlib, in a thread, in constant time."""

import secrets

from anyio.to_thread import run_sync
from pwdlib import PasswordHash

_HASHER = PasswordHash.recommended()
_NOBODY = _HASHER.hash("nobody has this password")


async def hash_secret(plain: str) -> str:
    """Return the hash to keep."""
    return await run_sync(_HASHER.hash, plain)


async def verify_secret(plain: str, kept: str | None) -> bool:
    """Compare; an unknown principal (`None`) takes as long as a wrong secret."""
    matches = await run_sync(_HASHER.verify, plain, kept or _NOBODY)
    return matches and kept is not None


def new_secret() -> str:
    """Return a random secret of 256 bits for a client."""
    return secrets.token_urlsafe(32)
