"""Progress that need not be counted again: what a worker remembers of what it told.

Whoever watches a plan asks for all of it every few seconds. What was told holds until a target, a
fact or the tree that it rests on changes, which one statement sees.
"""

from typing import Final, NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from api import clock
from api.auth.caller import Caller, enter
from api.driver import Hot
from api.models.target_progress import TargetProgressQuery
from api.services.observation_basis import Basis
from api.services.target_progress import list_progress

MOST_KNOWN: Final = 50
"""Answers of up to a megabyte."""

type _Key = tuple[object, ...]


class Told(NamedTuple):
    """A page of progress as it is sent."""

    body: str
    next_cursor: str | None


class TargetAnswers:
    """Tells how far targets have come, and knows which of its answers still hold."""

    def __init__(self, hot: Hot) -> None:
        """Look at what has changed through `hot`."""
        self._hot = hot
        self._known: dict[_Key, tuple[Told, Basis]] = {}

    async def answer(
        self, session: AsyncSession, caller: Caller, query: TargetProgressQuery
    ) -> Told:
        """Return a page of progress; one that still holds costs one statement."""
        key = (caller.id, caller.scopes, caller.tree, clock.today(), query.model_dump_json())
        if known := self._known.get(key):
            told, basis = known
            if now := await basis.holds(self._hot):
                self._known[key] = told, now
                return told
            self._known.pop(key, None)
        await enter(session, caller)
        page, found = await list_progress(session, caller, query)
        told = Told(page.model_dump_json(), page.next_cursor)
        if found:
            while len(self._known) >= MOST_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[key] = told, found
        return told
