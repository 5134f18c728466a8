"""Progress that need not be counted again: what a worker remembers of what it told.

Whoever watches a plan asks for all of it every few seconds. What was told holds until a target, a
fact or the tree that it rests on changes, which one statement sees; then only that is counted anew
which rests on what has changed.
"""

import asyncio
from dataclasses import replace
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

from sqlalchemy.ext.asyncio import AsyncSession

from api import clock
from api.auth.caller import Caller, enter
from api.driver import Hot
from api.models.target_progress import TargetProgressQuery
from api.services.target_progress import Progress, list_progress

MOST_KNOWN: Final = 20_000
"""Targets, of all answers together: about four kilobytes each."""

type _Key = tuple[object, ...]


class Told(NamedTuple):
    """A page of progress as it is sent."""

    body: str
    next_cursor: str | None


class _Known(NamedTuple):
    told: Told
    progress: Progress


class TargetAnswers:
    """Tells how far targets have come, and knows which of its answers still hold."""

    def __init__(self, hot: Hot) -> None:
        """Look at what has changed through `hot`."""
        self._hot = hot
        self._known: dict[_Key, _Known] = {}
        self._counting: WeakValueDictionary[_Key, asyncio.Lock] = WeakValueDictionary()

    async def answer(
        self, session: AsyncSession, caller: Caller, query: TargetProgressQuery
    ) -> Told:
        """Return a page of progress; one that still holds costs one statement.

        Who asks the same at the same time waits for whoever came first: the snapshot of what is
        known is never newer than that in which it is looked at.
        """
        key = (caller.id, caller.scopes, caller.tree, clock.today(), query.model_dump_json())
        async with self._counting.setdefault(key, asyncio.Lock()):
            known = self._known.pop(key, None)
            if known and await self._holds(key, known):
                return known.told
            await enter(session, caller)
            progress = await list_progress(session, caller, query, known and known.progress)
            told = Told(progress.page.model_dump_json(), progress.plan.next_cursor)
            self._keep(key, _Known(told, progress))
            return told

    async def _holds(self, key: _Key, known: _Known) -> bool:
        found = known.progress.found
        basis = await found.basis.holds(self._hot) if found else None
        if found and basis:
            found = found._replace(basis=basis)
            self._keep(key, known._replace(progress=replace(known.progress, found=found)))
        return basis is not None

    def _keep(self, key: _Key, known: _Known) -> None:
        """Remember an answer as the newest; the oldest are forgotten."""
        if known.progress.found is None:
            return
        self._known[key] = known
        sizes = {kept: len(each.progress.plan.asking) for kept, each in self._known.items()}
        while sum(sizes.values()) > MOST_KNOWN and len(sizes) > 1:
            oldest = next(iter(sizes))
            del self._known[oldest], sizes[oldest]
