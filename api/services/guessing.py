"""Guessing is slowed down by what failed, and from where.

Per name and address, and per address. A name alone is never blocked, so that nobody locks another
out: the right password from another address signs in, and one who signed in from an address
before is not held back by strangers behind it. What is asked of somebody who is already known by
a password or a session is counted per person, wherever it comes from.
"""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, cast
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from api import clock
from api.auth.addresses import network_of
from api.auth.secrets import Secrets
from api.db import transaction
from api.errors import RateLimited


class Patience(NamedTuple):
    """How many failures are free; each further one doubles the wait, from 1 s to `longest`."""

    free: int
    longest: int


PER_NAME = Patience(free=5, longest=15 * 60)
PER_ADDRESS = Patience(free=50, longest=60)
"""Many people share an address (an office, a mobile network): loose, and never for long."""
PER_PERSON = Patience(free=5, longest=15 * 60)
FORGOTTEN = timedelta(days=1)
"""Failures are forgotten when none was added for so long."""

_BLOCKED = text("""
    select max(f.blocked_until) from sign_in_failure f
    where f.blocked_until > :now
      and (f.key = cast(:pair as bytea) or f.key = :origin and not exists (
          select from session s join principal p on p.id = s.principal_id
          where p.login = :login and s.origin = :origin))
""")
_BLOCKED_PERSON = text("""
    select blocked_until from sign_in_failure where key = :key and blocked_until > :now
""")
_COUNT = text("""
    insert into sign_in_failure as f (key, failures, last_at, blocked_until)
    values (:key, 1, :now, :now)
    on conflict (key) do update set
        failures = case when f.last_at < :forgotten then 1 else f.failures + 1 end,
        last_at = :now,
        blocked_until = cast(:now as timestamptz) + make_interval(secs =>
            case when f.last_at < :forgotten or f.failures + 1 < :free then 0
            else least(2.0 ^ least(f.failures + 1 - :free, 20), :longest) end)
""")
_FORGET_OLD = text("""
    delete from sign_in_failure where key = any(array(
        select key from sign_in_failure where last_at < :forgotten limit 100
        for update skip locked))
""")
_FORGET = text("delete from sign_in_failure where key = :key")


@asynccontextmanager
async def kept(session: AsyncSession) -> AsyncIterator[AsyncSession]:
    """Open a transaction whose writes stay although the request is refused.

    The request's own session must not have been used yet: nobody holds two connections.
    """
    async with transaction(cast("AsyncEngine", session.bind)) as own:
        own.info.update(session.info)
        yield own


@dataclass(frozen=True)
class Attempt:
    """A sign-in: the keys under which its failure counts."""

    login: str
    pair: bytes | None
    origin: bytes

    @classmethod
    def of(cls, secrets: Secrets, login: str, address: str) -> "Attempt":
        """Hash what is counted: people type passwords into the field of the name."""
        network = network_of(address)
        hashed = secrets.hash_content
        return cls(login, hashed(["failures", login, network]), hashed(["origin", network]))

    @classmethod
    def without_name(cls, secrets: Secrets, address: str) -> "Attempt":
        """Return an attempt with a code, which names nobody: only the address counts."""
        return cls("", None, secrets.hash_content(["origin", network_of(address)]))

    async def check(self, session: AsyncSession) -> None:
        """429 while the name from this address, or the address, has to wait."""
        now = clock.now()
        blocked = {"now": now, "pair": self.pair, "origin": self.origin, "login": self.login}
        _wait_until(await session.scalar(_BLOCKED, blocked), now)

    async def count(self, session: AsyncSession) -> None:
        """Count a failure; the same order for all, so that nobody waits in a circle."""
        await session.execute(_FORGET_OLD, {"forgotten": clock.now() - FORGOTTEN})
        for key, patience in ((self.pair, PER_NAME), (self.origin, PER_ADDRESS)):
            if key is not None:
                await _count(session, key, patience)


@dataclass(frozen=True)
class Proof:
    """What somebody known is asked for: wrong answers count per person and kind of proof.

    The caller locks a row of that person first: answers at the same moment see each other.
    """

    key: bytes

    @classmethod
    def of(cls, secrets: Secrets, kind: str, principal_id: UUID) -> "Proof":
        """Name the person and what is asked for."""
        return cls(secrets.hash_content(["proof", kind, str(principal_id)]))

    async def check(self, session: AsyncSession) -> None:
        """429 while the person has to wait."""
        now = clock.now()
        _wait_until(await session.scalar(_BLOCKED_PERSON, {"key": self.key, "now": now}), now)

    async def settle(self, session: AsyncSession, *, right: bool) -> bool:
        """Count a wrong answer, or forget the wrong ones before a right one; return which."""
        if right:
            await session.execute(_FORGET, {"key": self.key})
        else:
            await _count(session, self.key, PER_PERSON)
        return right


def _wait_until(blocked: datetime | None, now: datetime) -> None:
    if blocked is not None:
        raise RateLimited(math.ceil((blocked - now).total_seconds()))


async def _count(session: AsyncSession, key: bytes, patience: Patience) -> None:
    now = clock.now()
    counted = {"key": key, "now": now, "forgotten": now - FORGOTTEN, **patience._asdict()}
    await session.execute(_COUNT, counted)
