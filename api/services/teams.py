"""Teams: founding, changing, moving, dissolving."""

from collections.abc import Sequence
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, JSON, ColumnElement, Label, Row, Uuid, exists, func, or_, text
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from api import clock
from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.auth.scope import spot_of, visible
from api.driver import Connection, connection_of
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
from api.services.one_row import TODAY, find, one_row
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


def _people(today: date | ColumnElement[date]) -> Label[Any]:
    """Return the size and the leader of the team at hand, on a day.

    Not every reader of a team may read who its members are: one who is not shown is counted.
    """
    member = col(Membership.member_id)
    gone = exists().where(col(Member.id) == member, col(Member.deleted_at).is_not(None))
    leaders = func.array_agg(
        aggregate_order_by(member, col(Membership.joined_on).desc(), member), type_=ARRAY(Uuid)
    ).filter(col(Membership.role) == MembershipRole.leader)
    size = func.count(member.distinct())
    told = func.json_build_object("member_count", size, "leader_id", leaders[1], type_=JSON)
    present = select(told).where(
        col(Membership.team_id) == col(Team.id),
        col(Membership.joined_on) <= today,
        or_(col(Membership.left_on).is_(None), col(Membership.left_on) >= today),
        ~gone,
    )
    return present.correlate(Team).scalar_subquery().label("people")


_ONE = one_row(Team, {Permission.teams_read, Permission.members_read}, _people(TODAY))


_ORDERS = {
    TeamSort.id: Order(col(Team.id), col(Team.id)),
    TeamSort.name: Order(col(Team.search), col(Team.id)),
    TeamSort.name_desc: Order(col(Team.search), col(Team.id), descending=True),
    TeamSort.founded_on: Order(col(Team.founded_on), col(Team.id)),
    TeamSort.founded_on_desc: Order(col(Team.founded_on), col(Team.id), descending=True),
}


async def list_teams(session: AsyncSession, caller: Caller, query: TeamQuery) -> TeamPage:
    """Return a page of the teams in scope."""
    statement = visible(Team, caller, Permission.teams_read).add_columns(_people(clock.today()))
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

    def read(rows: Sequence[Row[Any]]) -> list[TeamRead]:
        return [TeamRead(**dict(row.Team), **row.people) for row in rows]

    page = await paginate(session, caller.cursors, query, statement, _ORDERS[query.sort], read)
    return TeamPage(**dict(page))


async def get_team(
    database: Connection, caller: Caller, team_id: UUID, *, hidden: bool = False
) -> TeamRead:
    """Return a team in scope; absent and out of scope look alike."""
    row = await find(database, caller, _ONE, team_id, clock.today(), hidden=hidden)
    if not caller.reach(Permission.teams_read).covers(spot_of(row), team_id):
        raise NotFound
    return TeamRead(**row, **row["people"])


async def _present(
    session: AsyncSession, caller: Caller, team_id: UUID, *, hidden: bool = False
) -> TeamRead:
    """Return a team as it is within the transaction."""
    return await get_team(await connection_of(session), caller, team_id, hidden=hidden)


async def create_team(
    session: AsyncSession, caller: Caller, given: TeamCreate
) -> tuple[TeamRead, bool]:
    """Found a team in a village or commune that stood on its founding day."""
    if made := await made_before(session, caller, Team, given):
        return await _present(session, caller, made.id, hidden=True), False
    if given.dissolved_on and given.dissolved_on < given.founded_on:
        raise ValidationFailed(FieldError("/dissolved_on", "end_before_start"))
    where = await place(session, given.unit_id, given.founded_on, PLACES)
    if not caller.reach(Permission.teams_write).covers(where):
        raise not_found_at("/unit_id")
    values = given.model_dump(exclude={"id"}) | where.columns()
    row, is_new = await insert_once(session, caller, Team, given, values)
    if is_new:
        await external_ids.claim(session, caller, RESOURCE, row.id, given.external_ids)
    return await _present(session, caller, row.id, hidden=True), is_new


async def _lock(
    session: AsyncSession, caller: Caller, team_id: UUID, expected: int, *, hidden: bool = False
) -> tuple[Team, TeamRead]:
    """Lock a team and compare its version; 404, 403 (what only may be read is not locked), 412."""
    found = visible(Team, caller, Permission.teams_read, hidden=hidden)
    team = await session.scalar(locked(found.where(col(Team.id) == team_id)))
    if team is None:
        await _present(session, caller, team_id)
        raise InsufficientRole
    current = await _present(session, caller, team_id, hidden=hidden)
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
    return await _present(session, caller, team_id)


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
    return await _present(session, caller, team_id)
