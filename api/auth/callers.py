"""Callers in memory: read once, and again when the database says that they changed.

Grants, accounts, sessions and the tree of units announce their changes at commit (`NOTIFY`); each
worker hears them and forgets. While nothing can be heard, every request reads its caller anew: so a
change acts within seconds on every worker, whatever breaks.
"""

from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from api import clock
from api.auth.caller import Caller
from api.auth.loading import load
from api.auth.secrets import Secrets
from api.db import transaction
from api.driver import Watch
from api.pagination import Cursors

MOST_KNOWN = 10_000


@dataclass
class Callers:
    """What a worker knows of whoever calls it."""

    engine: AsyncEngine
    url: str
    secrets: Secrets
    cursors: Cursors
    _known: dict[UUID, dict[UUID | None, Caller]] = field(default_factory=dict)
    _members: dict[UUID, set[UUID]] = field(default_factory=dict)
    _forgotten: int = 0

    def __post_init__(self) -> None:
        """Prepare to listen; whoever runs the service runs `watch`."""
        self.watch = Watch(self.url, self.forget)

    def forget(self, who: str = "") -> None:
        """Read `principal:{id}`, or the devices of `member:{id}`, anew the next time; else all."""
        self._forgotten += 1
        kind, _, named = who.partition(":")
        if kind == "principal":
            self._known.pop(UUID(named), None)
        elif kind == "member":
            for principal_id in self._members.pop(UUID(named), ()):
                self._known.pop(principal_id, None)
        else:
            self._known.clear()
            self._members.clear()

    def remembered(self, principal_id: UUID, session_id: UUID | None) -> Caller | None:
        """Return who calls, if that is known without asking the database."""
        known = self._known.get(principal_id, {}).get(session_id)
        return known if known and self.watch.awake and known.holds(clock.now()) else None

    async def find(
        self, principal_id: UUID, session_id: UUID | None, *, anew: bool = False
    ) -> Caller:
        """Return who calls, as of now; 401 when it is gone, disabled or signed out.

        `anew` reads it from the database in any case.
        """
        if not anew and (known := self.remembered(principal_id, session_id)):
            return known
        before = self._forgotten
        async with transaction(self.engine) as session:
            found = await load(
                session, principal_id, clock.today(), self.secrets, self.cursors, session_id
            )
        if self._forgotten == before:  # else something changed while it was read
            if len(self._known) >= MOST_KNOWN:
                self.forget()
            if found.member_id is not None:
                self._members.setdefault(found.member_id, set()).add(principal_id)
            self._known.setdefault(principal_id, {})[session_id] = found
        return found
