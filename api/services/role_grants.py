"""Role grants: who may act as what, where and until when.

A grantor gives only the roles that its own role lists, inside its own subtree and dates, never to
itself; each role at its own level (see `auth/permissions.py`).
"""

from collections.abc import Sequence
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from api import clock, ids
from api.auth.caller import Caller, Grant, present
from api.auth.loading import resolve
from api.auth.passwords import hash_secret
from api.auth.permissions import GRANT_LEVELS, MAY_GRANT, OFFICIAL_LEVELS, TEAM_ROLES, Permission
from api.auth.scope import Reach, visible
from api.errors import FieldError, InsufficientRole, NotFound, ValidationFailed, not_found_at
from api.models.principals import Principal, PrincipalKind
from api.models.role_grants import (
    Role,
    RoleGrant,
    RoleGrantCreate,
    RoleGrantPage,
    RoleGrantQuery,
    RoleGrantRead,
)
from api.models.teams import Team
from api.models.types import Level
from api.pagination import Order, paginate
from api.services.places import Place, place
from api.services.principals import insert_principal
from api.services.writing import check_version, hide, insert_once


def _read(row: RoleGrant) -> RoleGrantRead:
    return RoleGrantRead.model_validate(row.model_dump())


async def _grantors(
    session: AsyncSession, caller: Caller, role: Role, where: Place | RoleGrant
) -> list[Grant]:
    """Return the caller's grants that may give `role` there; 403 when none may give it at all."""
    able = [g for g in caller.grants if role in MAY_GRANT.get(g.role, ())]
    if not able:
        raise InsufficientRole(FieldError("/role", "role_not_grantable"))
    roots = {g.id: frozenset({g.root} if g.root else ()) for g in able}
    reaches = await resolve(session, set(roots.values()), caller.tree)
    return [g for g in able if reaches[roots[g.id]].covers(where)]


def _check_dates(given: RoleGrantCreate, grantors: Sequence[Grant]) -> None:
    if given.valid_from and given.valid_to and given.valid_to < given.valid_from:
        raise ValidationFailed(FieldError("/valid_to", "end_before_start"))
    starts, ends = given.valid_from or clock.today(), given.valid_to or date.max
    if not any(
        (g.valid_from or date.min) <= starts and ends <= (g.valid_to or date.max) for g in grantors
    ):
        raise ValidationFailed(FieldError("/valid_to", "beyond_grantor"))


async def _check_team(session: AsyncSession, caller: Caller, given: RoleGrantCreate) -> None:
    if (given.role in TEAM_ROLES) != (given.team_id is not None):
        code = "missing" if given.team_id is None else "read_only"
        raise ValidationFailed(FieldError("/team_id", code))
    if given.team_id is not None and await _team_of(session, caller, given) is None:
        raise not_found_at("/team_id")


async def _team_of(session: AsyncSession, caller: Caller, given: RoleGrantCreate) -> Team | None:
    """Return the team that a grant names, in the unit that it names."""
    found: Team | None = await session.scalar(
        visible(Team, caller, Permission.teams_read).where(
            col(Team.id) == given.team_id, col(Team.unit_id) == given.unit_id
        )
    )
    return found


async def _day(session: AsyncSession, caller: Caller, given: RoleGrantCreate) -> date:
    """Return the day on which a grant's unit must stand: its first, today if that has been.

    A team's unit stood when the team was founded: teams outlive their units.
    """
    if given.role in TEAM_ROLES and (team := await _team_of(session, caller, given)):
        return team.founded_on
    return max(clock.today(), given.valid_from or date.min)


async def create_grant(
    session: AsyncSession, caller: Caller, given: RoleGrantCreate
) -> tuple[RoleGrantRead, bool]:
    """Give a role. 403 for a role that the caller may not give anywhere, 422 for the rest.

    409 `unit_dissolved` for a unit that ends before the grant begins.
    """
    day = await _day(session, caller, given)
    where = await place(session, given.unit_id, day, set(Level))
    grantors = await _grantors(session, caller, given.role, where)
    if not grantors:
        raise not_found_at("/unit_id")
    levels = GRANT_LEVELS.get(given.role, OFFICIAL_LEVELS)
    if where.level not in levels:
        raise ValidationFailed(
            FieldError("/unit_id", "role_level", {"expected": ", ".join(sorted(levels))})
        )
    _check_dates(given, grantors)
    if given.principal_id == caller.id:
        raise ValidationFailed(FieldError("/principal_id", "self_grant"))
    receiver = await session.get(Principal, given.principal_id)
    if receiver is None or receiver.kind is PrincipalKind.device:  # these follow their member
        raise not_found_at("/principal_id")
    await _check_team(session, caller, given)
    values = given.model_dump(exclude={"id"}) | where.columns()
    row, is_new = await insert_once(session, caller, RoleGrant, given, values)
    return _read(row), is_new


async def list_grants(
    session: AsyncSession, caller: Caller, query: RoleGrantQuery
) -> RoleGrantPage:
    """Return the grants inside the caller's own subtree."""
    statement = visible(RoleGrant, caller, Permission.principals_write)
    if query.principal_id:
        statement = statement.where(col(RoleGrant.principal_id).in_(query.principal_id))
    if query.role:
        statement = statement.where(col(RoleGrant.role).in_(query.role))

    def read(rows: Sequence[Row[Any]]) -> list[RoleGrantRead]:
        return [_read(row.RoleGrant) for row in rows]

    order = Order(col(RoleGrant.created_at), col(RoleGrant.id))
    page = await paginate(session, caller.cursors, query, statement, order, read)
    return RoleGrantPage(**dict(page))


async def get_grant(
    session: AsyncSession, caller: Caller, grant_id: UUID, *, lock: bool = False
) -> RoleGrant:
    """Return a grant inside the caller's own subtree, locked for a change when asked."""
    statement = visible(RoleGrant, caller, Permission.principals_write).where(
        col(RoleGrant.id) == grant_id
    )
    row = await session.scalar(statement.with_for_update() if lock else statement)
    if row is None:
        raise NotFound
    return row


async def read_grant(session: AsyncSession, caller: Caller, grant_id: UUID) -> RoleGrantRead:
    """Return a grant inside the caller's own subtree."""
    return _read(await get_grant(session, caller, grant_id))


async def end_grant(session: AsyncSession, caller: Caller, grant_id: UUID, expected: int) -> None:
    """End a grant at once; whoever could give it may end it."""
    row = await get_grant(session, caller, grant_id, lock=True)
    if not await _grantors(session, caller, Role(row.role), row):
        raise InsufficientRole
    check_version(_read(row), expected)
    hide(row)
    await session.flush()


async def bootstrap(session: AsyncSession, username: str, password: str) -> bool:
    """Make the first national administrator; `False` when there is one already."""
    await session.execute(text("select pg_advisory_xact_lock(hashtext('noidai bootstrap'))"))
    nation = await session.execute(text("select id, key from admin_unit where level = 'nation'"))
    unit = nation.one()
    everywhere = Reach(provinces=frozenset({unit.key}))
    await present(session, {Permission.principals_write: everywhere})
    known = select(RoleGrant.id).where(
        col(RoleGrant.role) == Role.national_admin, col(RoleGrant.deleted_at).is_(None)
    )
    if await session.scalar(known.limit(1)):
        return False
    admin = await insert_principal(
        session,
        id=ids.new_id(),
        kind=PrincipalKind.user,
        login=username.strip().lower(),
        secret_hash=await hash_secret(password),
        name=username,
    )
    if admin is None:
        return False
    session.add(
        RoleGrant(
            id=ids.new_id(),
            created_at=clock.now(),
            updated_at=clock.now(),
            principal_id=admin.id,
            role=Role.national_admin,
            unit_id=unit.id,
            unit_key=unit.key,
            province_key=unit.key,
        )
    )
    await session.flush()
    return True
