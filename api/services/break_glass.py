"""Breaking the glass: who reads people only masked sees them in clear for an hour.

It is a grant that its holder makes out to itself, the only one of its kind: it carries no more
than the sight of people, in a unit that the holder reads anyway, and it is kept with its reason.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from api import clock
from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.auth.scope import visible
from api.errors import InsufficientRole, NotFound, not_found_at
from api.models.break_glass import (
    BreakGlassCreate,
    BreakGlassPage,
    BreakGlassQuery,
    BreakGlassRead,
)
from api.models.role_grants import Role, RoleGrant
from api.models.types import Level
from api.pagination import Order, paginate
from api.services.places import place
from api.services.writing import check_version, hide, insert_once, locked, made_before

LASTS = timedelta(minutes=60)


def _read(row: RoleGrant) -> BreakGlassRead:
    return BreakGlassRead.model_validate(row.model_dump() | {"ended_at": row.deleted_at})


async def break_glass(
    session: AsyncSession, caller: Caller, given: BreakGlassCreate
) -> tuple[BreakGlassRead, bool]:
    """Let the caller read people in clear under a unit of its own subtree for 60 minutes."""
    if made := await made_before(session, caller, RoleGrant, given):
        return _read(made), False
    where = await place(session, given.unit_id, clock.today(), set(Level))
    if not caller.reach(Permission.glass_break).covers(where):
        raise not_found_at("/unit_id")
    values = where.columns() | {
        "principal_id": caller.id,
        "role": Role.break_glass,
        "reason": given.reason,
        "expires_at": clock.now() + LASTS,
    }
    row, is_new = await insert_once(session, caller, RoleGrant, given, values)
    return _read(row), is_new


def _glasses(caller: Caller) -> Any:
    return visible(RoleGrant, caller, Permission.glass_break, hidden=True).where(
        col(RoleGrant.role) == Role.break_glass
    )


async def list_broken(
    session: AsyncSession, caller: Caller, query: BreakGlassQuery
) -> BreakGlassPage:
    """Return what was broken in the caller's own subtree, by whomever, expired or not."""
    statement = _glasses(caller)
    if query.principal_id:
        statement = statement.where(col(RoleGrant.principal_id).in_(query.principal_id))

    def read(rows: Sequence[Row[Any]]) -> list[BreakGlassRead]:
        return [_read(row.RoleGrant) for row in rows]

    order = Order(col(RoleGrant.created_at), col(RoleGrant.id), descending=True)
    page = await paginate(session, caller.cursors, query, statement, order, read)
    return BreakGlassPage(**dict(page))


async def get_broken(session: AsyncSession, caller: Caller, glass_id: UUID) -> BreakGlassRead:
    """Return one of the caller's own subtree."""
    row = await session.scalar(_glasses(caller).where(col(RoleGrant.id) == glass_id))
    if row is None:
        raise NotFound
    return _read(row)


async def mend(session: AsyncSession, caller: Caller, glass_id: UUID, expected: int) -> None:
    """End the caller's own right early; another's is ended by nobody."""
    row = await session.scalar(
        locked(
            _glasses(caller).where(
                col(RoleGrant.id) == glass_id, col(RoleGrant.deleted_at).is_(None)
            )
        )
    )
    if row is None:
        raise NotFound
    if row.principal_id != caller.id:
        raise InsufficientRole
    check_version(_read(row), expected)
    hide(row)
    await session.flush()
