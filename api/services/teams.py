"""Teams: founding, changing, moving, dissolving."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, func, or_, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from api import clock
from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.auth.scope import visible
from api.errors import FieldError, InsufficientRole, NotFound, ValidationFailed, not_found_at
from api.models.members import Member, Membership, MembershipRole
from api.models.teams import (
    Team,
    TeamCreate,
    TeamPage,
    TeamQuery,
    TeamRead,
    TeamSort,
    TeamUpdate,
)
from api.models.types import Level
from api.pagination import Order, paginate
from api.services import external_ids
from api.services.places import place, under
from api.services.searching import contains
from api.services.writing import (
    bring_back,
    change_row,
    changed_values,
    check_version,
    hide,
    insert_once,
    locked,
    made_before,
)

RESOURCE = "teams"
PLACES = frozenset({Level.village, Level.commune})
REQUIRED = frozenset({"name", "unit_id", "kind", "founded_on", "external_ids"})


def _reading(caller: Caller, *, hidden: bool = False) -> Select[Any]:
    """Select the teams the caller may see, with today's size and leader."""
    today = clock.today()
    present = (
        select(Membership)
        .join(Member, isouter=True)  # not every reader of a team may read who its members are
        .where(
            col(Member.deleted_at).is_(None),
            col(Membership.team_id) == col(Team.id),
            col(Membership.joined_on) <= today,
            or_(col(Membership.left_on).is_(None), col(Membership.left_on) >= today),
        )
        .correlate(Team)
    )
    size = present.with_only_columns(func.count(func.distinct(Membership.member_id)))
    leader = (
        present.with_only_columns(col(Membership.member_id))
        .where(col(Membership.role) == MembershipRole.leader)
        .order_by(col(Membership.joined_on).desc(), col(Membership.member_id))
        .limit(1)
    )
    return visible(Team, caller, Permission.teams_read, hidden=hidden).add_columns(
        size.scalar_subquery().label("member_count"), leader.scalar_subquery().label("leader_id")
    )


def _read(rows: Sequence[Row[Any]]) -> list[TeamRead]:
    return [
        TeamRead(**row.Team.model_dump(), member_count=row.member_count, leader_id=row.leader_id)
        for row in rows
    ]


_ORDERS = {
    TeamSort.id: Order(col(Team.id), col(Team.id)),
    TeamSort.name: Order(col(Team.search), col(Team.id)),
    TeamSort.name_desc: Order(col(Team.search), col(Team.id), descending=True),
    TeamSort.founded_on: Order(col(Team.founded_on), col(Team.id)),
    TeamSort.founded_on_desc: Order(col(Team.founded_on), col(Team.id), descending=True),
}


async def list_teams(session: AsyncSession, caller: Caller, query: TeamQuery) -> TeamPage:
    """Return a page of the teams in scope."""
    statement = _reading(caller)
    if query.unit_id:
        statement = statement.where(col(Team.unit_key).in_(under(query.unit_id, clock.today())))
    if query.kind:
        statement = statement.where(col(Team.kind).in_(query.kind))
    if query.active_on:
        statement = statement.where(
            col(Team.founded_on) <= query.active_on,
            or_(col(Team.dissolved_on).is_(None), col(Team.dissolved_on) >= query.active_on),
        )
    if query.q:
        statement = statement.where(contains(col(Team.search), query.q))
    if query.external_id:
        statement = statement.where(
            col(Team.id).in_(external_ids.named(RESOURCE, query.external_id))
        )
    page = await paginate(session, caller.cursors, query, statement, _ORDERS[query.sort], _read)
    return TeamPage(**dict(page))


async def get_team(
    session: AsyncSession, caller: Caller, team_id: UUID, *, hidden: bool = False
) -> TeamRead:
    """Return a team in scope; absent and out of scope look alike."""
    statement = _reading(caller, hidden=hidden).where(col(Team.id) == team_id)
    row = (await session.execute(statement)).one_or_none()
    if row is None:
        raise NotFound
    return _read([row])[0]


async def create_team(
    session: AsyncSession, caller: Caller, given: TeamCreate
) -> tuple[TeamRead, bool]:
    """Found a team in a village or commune that stood on its founding day."""
    if made := await made_before(session, caller, Team, given):
        return await get_team(session, caller, made.id, hidden=True), False
    if given.dissolved_on and given.dissolved_on < given.founded_on:
        raise ValidationFailed(FieldError("/dissolved_on", "end_before_start"))
    where = await place(session, given.unit_id, given.founded_on, PLACES)
    if not caller.reach(Permission.teams_write).covers(where):
        raise not_found_at("/unit_id")
    values = given.model_dump(exclude={"id"}) | where.columns()
    row, is_new = await insert_once(session, caller, Team, given, values)
    if is_new:
        await external_ids.claim(session, caller, RESOURCE, row.id, given.external_ids)
    return await get_team(session, caller, row.id, hidden=True), is_new


async def _lock(
    session: AsyncSession, caller: Caller, team_id: UUID, expected: int, *, hidden: bool = False
) -> tuple[Team, TeamRead]:
    """Lock a team and compare its version; 404, 403 (what only may be read is not locked), 412."""
    found = visible(Team, caller, Permission.teams_read, hidden=hidden)
    team = await session.scalar(locked(found.where(col(Team.id) == team_id)))
    if team is None:
        await get_team(session, caller, team_id)
        raise InsufficientRole
    current = await get_team(session, caller, team_id, hidden=hidden)
    check_version(current, expected)
    return team, current


_MOVE_MEMBERSHIPS, _MOVE_GRANTS = (
    text(f"""
        update {table} set unit_id = :unit_id, unit_key = :unit_key, commune_key = :commune_key,
                           province_key = :province_key
        where team_id = :team_id
    """)  # noqa: S608 - two tables' names
    for table in ("membership", "role_grant")
)
_MOVE_EVENTS = text("""
    update support_event set team_unit_key = :unit_key, team_commune_key = :commune_key
    where team_id = :team_id
""")


async def update_team(
    session: AsyncSession, caller: Caller, team_id: UUID, expected: int, change: TeamUpdate
) -> TeamRead:
    """Change a team; a leader changes the Zalo link only. Facts keep the unit of their day."""
    team, current = await _lock(session, caller, team_id, expected)
    values = changed_values(current, change, REQUIRED)
    writes = caller.reach(Permission.teams_write)
    links = caller.reach(Permission.team_link_write)
    only_link = set(values) <= {"zalo_group_url"} and links.covers(team, team.id)
    if not (only_link or writes.covers(team, team.id)):
        raise InsufficientRole
    if not values:
        return current
    will = team.model_dump() | values
    if will["dissolved_on"] and will["dissolved_on"] < will["founded_on"]:
        raise ValidationFailed(FieldError("/dissolved_on", "end_before_start"))
    if {"unit_id", "founded_on"} & set(values):
        where = await place(session, will["unit_id"], will["founded_on"], PLACES)
        if not writes.covers(where):
            raise not_found_at("/unit_id")
        columns = where.columns()
        values |= columns
        for statement in (_MOVE_MEMBERSHIPS, _MOVE_GRANTS, _MOVE_EVENTS):
            await session.execute(statement, columns | {"team_id": team_id})
    if "external_ids" in values:
        await external_ids.claim(session, caller, RESOURCE, team_id, values["external_ids"])
    change_row(team, values)
    await session.flush()
    return await get_team(session, caller, team_id)


async def delete_team(session: AsyncSession, caller: Caller, team_id: UUID, expected: int) -> None:
    """Hide a team that was entered by mistake (one that ends is dissolved instead)."""
    team, _ = await _lock(session, caller, team_id, expected)
    if not caller.reach(Permission.teams_write).covers(team):
        raise InsufficientRole
    hide(team)
    await session.flush()


async def undelete_team(
    session: AsyncSession, caller: Caller, team_id: UUID, expected: int
) -> TeamRead:
    """Bring a hidden team back; one that stands stays as it is."""
    team, _ = await _lock(session, caller, team_id, expected, hidden=True)
    if not caller.reach(Permission.teams_write).covers(team):
        raise NotFound if team.deleted_at else InsufficientRole
    bring_back(team)
    await session.flush()
    return await get_team(session, caller, team_id)
