"""The caller of a request: who it is, and where each of its permissions holds today."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import NamedTuple
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.permissions import FACT_READS, MATRIX, Permission
from api.auth.scope import Reach
from api.auth.secrets import Secrets
from api.clock import reporting_day
from api.driver import Connection, Hot
from api.models.role_grants import Role
from api.pagination import Cursors

NOWHERE = Reach()


class Tree(NamedTuple):
    """The tree of units as it stands on a day; its version changes with every change of it."""

    version: UUID
    day: date


@dataclass(frozen=True)
class Grant:
    """A role that holds today; `root` is the unit today's tree gives for the granted one."""

    id: UUID
    role: Role
    unit_id: UUID
    unit_key: int
    root: int | None
    team_id: UUID | None
    valid_from: date | None
    valid_to: date | None
    expires_at: datetime | None


@dataclass(frozen=True)
class Caller:
    """Whoever sends the request. Deny by default: an absent permission reaches nowhere."""

    id: UUID
    kind: str
    name: str
    member_id: UUID | None
    must_change_password: bool
    proved_otp: bool
    grants: tuple[Grant, ...]
    reaches: Mapping[Permission, Reach]
    tree: Tree
    session_id: UUID | None
    secrets: Secrets = field(repr=False)
    cursors: Cursors = field(repr=False)
    scopes: str = field(repr=False)
    """The reaches as the database takes them (`noidai.scopes`)."""
    said: Mapping[str, str | None] = field(default_factory=dict)
    """Who asks, by which grant, in which request."""
    context: str = ""
    """The same as the database takes it (`noidai.context`)."""
    _written: dict[frozenset[Permission], str] = field(default_factory=dict, repr=False)

    def asking(self, permission: Permission, request_id: str) -> "Caller":
        """Return the caller within one request, to which every trace of it will point.

        Totals are counted from rows that their reader may not list: only a request for totals
        presents its reach to the tables of facts.
        """
        grant = self.grant(permission)
        said: dict[str, str | None] = {
            "principal": str(self.id),
            self.kind: str(self.id),
            "session": str(self.session_id) if self.session_id else None,
            "grant": str(grant.id) if grant else None,
            "request_id": request_id,
        }
        scopes = self.scopes
        if permission is Permission.aggregates_read:
            reaches = dict.fromkeys(FACT_READS, self.reach(permission))
            scopes = written({**self.reaches, **reaches})
        return replace(self, scopes=scopes, said=said, context=to_json(said).decode())

    def holds(self, now: datetime) -> bool:
        """Tell whether what was read of the caller is still so, unless the database says else."""
        ends = (grant.expires_at for grant in self.grants)
        return self.tree.day == reporting_day(now) and all(end is None or now < end for end in ends)

    def reach(self, permission: Permission) -> Reach:
        """Return where the permission holds."""
        return self.reaches.get(permission, NOWHERE)

    def scopes_of(self, permissions: frozenset[Permission]) -> str:
        """Return the reaches of some permissions as the database takes them; written once."""
        known = self._written.get(permissions)
        if known is None:
            reaches = {p: reach for p, reach in self.reaches.items() if p in permissions}
            known = self._written[permissions] = written(reaches)
        return known

    def has(self, permission: Permission) -> bool:
        """Tell whether any grant carries the permission at all."""
        return permission is Permission.open or permission in self.reaches

    def grant(self, *permissions: Permission) -> Grant | None:
        """Return the first grant that carries one of the permissions."""
        carrying = (g for g in self.grants if not MATRIX[g.role].isdisjoint(permissions))
        return next(carrying, None)

    def roots(self, permission: Permission) -> list[int]:
        """Return the units, in today's tree, under which the permission was granted."""
        return sorted(
            {g.root for g in self.grants if g.root is not None and permission in MATRIX[g.role]}
        )


type Renewed = Callable[[], Awaitable[Caller]]
"""Gives the caller as of now; 401 or 403 once the token or the right has ended."""


def written(reaches: Mapping[Permission, Reach]) -> str:
    """Return reaches as row-level security reads them: by permission, keys with commas."""
    known = {reach: _keys(reach) for reach in set(reaches.values())}
    return json.dumps({permission.value: known[reach] for permission, reach in reaches.items()})


def _keys(reach: Reach) -> dict[str, str]:
    arrays: dict[str, Sequence[object]] = {
        "provinces": sorted(reach.provinces),
        "communes": sorted(reach.communes),
        "units": sorted(reach.units),
        "teams": sorted(map(str, reach.teams)),
    }
    return {name: ",".join(str(key) for key in array) for name, array in arrays.items() if array}


_ENTER = text("""
    select set_config('noidai.scopes', :scopes, true), set_config('noidai.context', :context, true),
           set_config('noidai.principal', :principal, true)
""")


async def enter(session: AsyncSession, caller: Caller) -> None:
    """Tell the database, for this transaction, who asks and where the permissions hold."""
    entered = {"scopes": caller.scopes, "context": caller.context, "principal": str(caller.id)}
    await session.execute(_ENTER, entered)


def entering(
    database: Connection, caller: Caller, needed: frozenset[Permission]
) -> tuple[str, str]:
    """Return the parameters of `ENTERED` for a statement that needs some permissions' reaches.

    A hot one brings no more of the scope than it needs, since the database reads it at each; within
    a transaction the scope lasts for whatever follows.
    """
    hot = isinstance(database, Hot)
    return caller.scopes_of(needed) if hot else caller.scopes, caller.context


async def present(session: AsyncSession, reaches: Mapping[Permission, Reach]) -> None:
    """Give row-level security other reaches than a caller's own, until the transaction's end."""
    scopes = {"scopes": written(reaches)}
    await session.execute(text("select set_config('noidai.scopes', :scopes, true)"), scopes)


def totals_of(reach: Reach) -> str:
    """Return the totals that make up an answer, as row-level security reads them (`totals`)."""
    return json.dumps(_keys(reach))
