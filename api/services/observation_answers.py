"""Answers that need not be counted again: what a worker remembers of those it gave.

A worker keeps, for every question, the ETag of its newest answer and what that rests on. Another
worker, or one that was started anew, counts once and comes to the same ETag: it is made of the
figures and of the moment at which they were first seen, which all workers share (`data_version`).
"""

import asyncio
import hashlib
import json
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final
from weakref import WeakValueDictionary

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from api import clock
from api.auth.caller import Caller, enter
from api.auth.permissions import Permission
from api.db import transaction
from api.driver import Hot
from api.models.observations import ObservationQuery
from api.services.measures import FILTERS
from api.services.observation_basis import Basis
from api.services.observations import Observed, observe

MOST_KNOWN: Final = 5_000
MOST_AT_ONCE: Final = 3
"""Answers that streams count at the same time: other requests need connections too."""
_KEPT: Final = timedelta(days=90)

_FIRST_SEEN: Final = """
    with known as (select at from data_version where version = $1),
         new as (insert into data_version select $1, $2 where not exists (select from known)
                 on conflict do nothing returning at)
    select at from known union all select at from new
"""
_FORGET = text("delete from data_version where at < :before")
_FOLD = text("select fold_changes()")


@dataclass(frozen=True)
class Seen:
    """The newest answer to a question: its ETag, its figures' version and what it rests on."""

    key: bytes
    tag: str
    version: str
    computed_at: datetime
    basis: Basis


class Answers:
    """Answers questions, and knows without counting which of its answers still hold."""

    def __init__(self, engine: AsyncEngine, hot: Hot) -> None:
        """Read through the engine, and look at what has changed through `hot`."""
        self._engine, self._hot = engine, hot
        self._known: dict[bytes, Seen] = {}
        self._counting: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        self._turns = asyncio.Semaphore(MOST_AT_ONCE)

    async def answer(
        self, session: AsyncSession, caller: Caller, query: ObservationQuery, tags: AbstractSet[str]
    ) -> tuple[Seen, Observed | None]:
        """Return an answer with its `ETag`; no answer if that is one of `tags`, which are known.

        An ETag that still holds costs one statement, and no transaction.
        """
        key = key_of(caller, query)
        known = self._known.get(key)
        if known and known.tag in tags and await self._holds(known):
            return known, None
        seen, observed = await self._count(session, key, caller, query)
        return seen, None if tags & {seen.tag, "*"} else observed

    async def holding(self, key: bytes, tags: AbstractSet[str]) -> str | None:
        """Return the `ETag` of a question's newest answer if it is one of `tags`, and holds.

        Without the database nothing is known to hold.
        """
        known = self._known.get(key)
        if known is None or known.tag not in tags:
            return None
        try:
            return known.tag if await self._holds(known) else None
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            return None

    async def current(self, caller: Caller, query: ObservationQuery) -> Seen:
        """Return what the newest answer is, counted only if anything that it rests on changed."""
        key = key_of(caller, query)
        async with self._counting.setdefault(key, asyncio.Lock()):
            known = self._known.get(key)
            if known and await self._holds(known):
                return known
            async with self._turns, transaction(self._engine, snapshot=True) as session:
                return (await self._count(session, key, caller, query))[0]

    async def _holds(self, known: Seen) -> bool:
        basis = await known.basis.holds(self._hot)
        if basis and basis is not known.basis and self._known.get(known.key) is known:
            self._known[known.key] = replace(known, basis=basis)
        return basis is not None

    async def _count(
        self, session: AsyncSession, key: bytes, caller: Caller, query: ObservationQuery
    ) -> tuple[Seen, Observed]:
        await enter(session, caller)
        observed = await observe(session, caller, query)
        meta = observed.answer.meta
        meta.computed_at = await self._first_seen(meta.data_version)
        told = [meta.data_version, meta.computed_at.isoformat(), *_asked(caller, query)]
        tag = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]
        seen = Seen(key, f'"{tag}"', meta.data_version, meta.computed_at, observed.basis)
        self._known.pop(key, None)
        while len(self._known) >= MOST_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[key] = seen
        return seen, observed

    async def _first_seen(self, version: str) -> datetime:
        while True:  # a second time when another worker saw it just now
            for row in await self._hot.fetch(_FIRST_SEEN, version, clock.now()):
                found: datetime = row["at"]
                return found


def _asked(caller: Caller, query: ObservationQuery) -> list[Any]:
    """Return the question and the scope that an answer is for, however they were written."""
    asked = {
        name: sorted(value) if name in FILTERS else value
        for name, value in query.model_dump(mode="json").items()
    }
    reach = caller.reach(Permission.aggregates_read)
    return [asked, sorted(reach.provinces), sorted(reach.communes), sorted(reach.units)]


def key_of(caller: Caller, query: ObservationQuery) -> bytes:
    """Return what two requests have in common if one answer does for both, today."""
    who = [caller.scopes, caller.roots(Permission.aggregates_read), *map(str, caller.tree)]
    told = query.model_dump_json() + json.dumps(who)
    return hashlib.sha256(told.encode()).digest()


async def tidy(session: AsyncSession) -> int:
    """Fold numbers of changes into their sums, and forget the oldest moments of figures."""
    await session.execute(_FORGET, {"before": clock.now() - _KEPT})
    return int(await session.scalar(_FOLD) or 0)
