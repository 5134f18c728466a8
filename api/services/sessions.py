"""Sessions of people: signing in, refreshing, signing out.

Guessing is slowed down by what failed from where: per name and address, and per address. A name
alone is never blocked, so that nobody locks another out: the right password from another address
signs in, and one who signed in from an address before is not held back by strangers behind it.
"""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple, cast

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from api import clock, ids
from api.auth.addresses import network_of
from api.auth.caller import Caller
from api.auth.passwords import turn, verify_secret
from api.auth.tokens import Tokens
from api.db import transaction
from api.errors import InvalidCredentials, NotFound, RateLimited, Unauthenticated
from api.models.principals import Principal, PrincipalKind
from api.models.sessions import TokenRead

IDLE = timedelta(days=90)
"""A session that was not refreshed for so long has ended."""


MOST_REPEATS = 64
"""Answers to one refresh token that may be lost: of more, only the latest are good."""


class Patience(NamedTuple):
    """How many failures are free; each further one doubles the wait, from 1 s to `longest`."""

    free: int
    longest: int


PER_NAME = Patience(free=5, longest=15 * 60)
PER_ADDRESS = Patience(free=50, longest=60)
"""Many people share an address (an office, a mobile network): loose, and never for long."""
FORGOTTEN = timedelta(days=1)
"""Failures are forgotten when none was added for so long."""

_BLOCKED = text("""
    select max(f.blocked_until) from sign_in_failure f
    where f.blocked_until > :now
      and (f.key = :pair or f.key = :origin and not exists (
          select from session s join principal p on p.id = s.principal_id
          where p.login = :login and s.origin = :origin))
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
_FORGET = text("""
    delete from sign_in_failure where key = any(array(
        select key from sign_in_failure where last_at < :forgotten limit 100
        for update skip locked))
""")
_BEGIN = text("""
    with idle as (delete from session where principal_id = :principal and last_used_at < :idle),
         right_one as (delete from sign_in_failure where key = :pair)
    insert into session (id, principal_id, created_at, last_used_at, origin, next_hashes)
    values (:id, :principal, :now, :now, :origin, array[cast(:hash as bytea)])
""")
_REFRESH = text("""
    update session s set
        last_used_at = :now,
        previous_hash = case when :given = any(s.next_hashes) then :given else s.previous_hash end,
        next_hashes = case when :given = any(s.next_hashes) then array[cast(:made as bytea)]
            else (s.next_hashes || cast(:made as bytea))
                [greatest(1, cardinality(s.next_hashes) + 2 - :most):] end
    from principal p
    where s.id = :id and p.id = s.principal_id and p.disabled_at is null
      and s.last_used_at >= :idle
      and (:given = any(s.next_hashes) or :given = s.previous_hash)
    returning p.id, p.login
""")
_END = text("delete from session where id = :id returning id")
_END_ALL = text("delete from session where principal_id = :principal")


@asynccontextmanager
async def _kept(session: AsyncSession) -> AsyncIterator[AsyncSession]:
    """Open a transaction whose writes stay although the request is refused.

    The request's own session must not have been used yet: nobody holds two connections.
    """
    async with transaction(cast("AsyncEngine", session.bind)) as own:
        yield own


@dataclass(frozen=True)
class Attempt:
    """A sign-in: the keys under which its failure counts."""

    login: str
    pair: bytes
    origin: bytes

    @classmethod
    def of(cls, tokens: Tokens, login: str, address: str) -> "Attempt":
        """Hash what is counted: people type passwords into the field of the name."""
        network = network_of(address)
        hashed = tokens.secrets.hash_content
        return cls(login, hashed(["failures", login, network]), hashed(["origin", network]))

    async def check(self, session: AsyncSession) -> None:
        """429 while the name from this address, or the address, has to wait."""
        now = clock.now()
        blocked = {"now": now, "pair": self.pair, "origin": self.origin, "login": self.login}
        until = await session.scalar(_BLOCKED, blocked)
        if until is not None:
            raise RateLimited(math.ceil((until - now).total_seconds()))

    async def count(self, session: AsyncSession) -> None:
        """Count a failure; the same order for all, so that nobody waits in a circle."""
        now = clock.now()
        forgotten = now - FORGOTTEN
        await session.execute(_FORGET, {"forgotten": forgotten})
        for key, patience in ((self.pair, PER_NAME), (self.origin, PER_ADDRESS)):
            counted = {"key": key, "now": now, "forgotten": forgotten, **patience._asdict()}
            await session.execute(_COUNT, counted)


async def verified(
    session: AsyncSession, kind: PrincipalKind, attempt: Attempt, secret: str
) -> Principal | None:
    """Return the principal when the secret is its own; unknown ones take as long.

    429 when guessing has to slow down.
    """
    async with _kept(session) as own:
        await attempt.check(own)
    async with turn():
        async with _kept(session) as own:
            await attempt.check(own)
            principal = await own.scalar(holder(kind, attempt.login))
        if await verify_secret(secret, principal.secret_hash if principal else None):
            return principal
        async with _kept(session) as own:
            await attempt.count(own)
    return None


def holder(kind: PrincipalKind, login: str) -> SelectOfScalar[Principal]:
    """Find who signs in under a name, and may."""
    return select(Principal).where(
        Principal.login == login,
        Principal.kind == kind,
        col(Principal.disabled_at).is_(None),
    )


async def sign_in(
    session: AsyncSession, tokens: Tokens, username: str, password: str, address: str
) -> TokenRead:
    """Sign a person in; 401 for an unknown name as for a wrong password, 429 for guessing.

    `address` is the client's. The session lasts until it is ended, or idle for 90 days.
    """
    attempt = Attempt.of(tokens, username.strip().lower(), address)
    principal = await verified(session, PrincipalKind.user, attempt, password)
    if principal is None:
        raise InvalidCredentials
    await tokens.keep_up(session)
    now, session_id = clock.now(), ids.new_id()
    refresh_token, kept = tokens.new_refresh_token(session_id)
    begun = {"id": session_id, "principal": principal.id, "now": now, "idle": now - IDLE}
    keys = {"pair": attempt.pair, "origin": attempt.origin, "hash": kept}
    await session.execute(_BEGIN, begun | keys)
    access, life = tokens.issue(principal.id, principal.login, session_id)
    return TokenRead(access_token=access, refresh_token=refresh_token, expires_in=life)


async def refresh(session: AsyncSession, tokens: Tokens, given: str) -> TokenRead:
    """Give new tokens for a refresh token that was not used, or was the last one used.

    A token that is older was in two hands: its session ends (RFC 9700, section 4.14.2). 401 then,
    and for one that is not ours.
    """
    known = tokens.read_refresh_token(given)
    if known is None:
        raise Unauthenticated("the refresh token is invalid")
    session_id, hashed = known
    refresh_token, kept = tokens.new_refresh_token(session_id)
    now = clock.now()
    turned = {"id": session_id, "now": now, "idle": now - IDLE, "most": MOST_REPEATS}
    async with _kept(session) as own:
        await tokens.keep_up(own)
        found = (
            await own.execute(_REFRESH, turned | {"given": hashed, "made": kept})
        ).one_or_none()
        if found is None:
            await own.execute(_END, {"id": session_id})
    if found is None:
        raise Unauthenticated("the refresh token is worn out: sign in again")
    access, life = tokens.issue(found.id, found.login, session_id)
    return TokenRead(access_token=access, refresh_token=refresh_token, expires_in=life)


async def sign_out(session: AsyncSession, caller: Caller) -> None:
    """End the session that the caller's token names; 404 when it names none."""
    ended = await session.scalar(_END, {"id": caller.session_id})
    if ended is None:
        raise NotFound


async def sign_out_everywhere(session: AsyncSession, caller: Caller) -> None:
    """End every session of the caller."""
    await session.execute(_END_ALL, {"principal": caller.id})
