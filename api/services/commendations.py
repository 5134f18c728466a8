"""Commendations: who is commended where, and why; a person's name is personal."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from api import clock
from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.auth.scope import visible
from api.driver import connection_of
from api.errors import FieldError, InsufficientRole, NotFound, ValidationFailed, not_found_at
from api.models.commendations import (
    Commendation,
    CommendationCreate,
    CommendationPage,
    CommendationQuery,
    CommendationRead,
    CommendationUpdate,
    RecipientKind,
)
from api.models.members import Member, Membership
from api.models.teams import Team
from api.models.types import Level
from api.pagination import Order, paginate
from api.services.audit import record_read
from api.services.masking import PERSONAL, mask, sees_people
from api.services.places import Place, place, under
from api.services.writing import (
    bring_back,
    changed_values,
    check_version,
    hide,
    insert_once,
    locked,
    made_before,
    touch,
)

RESOURCE: Final = "commendations"
REQUIRED: Final = frozenset({"recipient_kind", "recipient_name", "unit_id"})
LEVELS: Final = frozenset(Level)


def _read(caller: Caller, row: Commendation) -> CommendationRead:
    """Return a commendation as the caller may see it: names are kept for whoever reads names."""
    clear = (
        row.recipient_kind is not RecipientKind.individual
        or sees_people(caller, None, (row, row.team_id))
        or caller.reach(Permission.names_read).covers(row, row.team_id)
    )
    return CommendationRead(**mask(row.model_dump(), () if clear else PERSONAL[RESOURCE]))


async def record(session: AsyncSession, caller: Caller, *shown: CommendationRead) -> None:
    """Record which persons were shown by their names."""
    people = [row for row in shown if row.recipient_kind is RecipientKind.individual]
    if people:
        database = await connection_of(session)
        await record_read(database, caller, RESOURCE, [(row, row.unit_id) for row in people])


async def list_commendations(
    session: AsyncSession, caller: Caller, query: CommendationQuery
) -> CommendationPage:
    """Return a page of the commendations in scope."""
    statement = visible(Commendation, caller, Permission.commendations_read)
    if query.unit_id:
        inside = under(query.unit_id, clock.today())
        statement = statement.where(col(Commendation.unit_key).in_(inside))
    for column, wanted in (
        (Commendation.team_id, query.team_id),
        (Commendation.member_id, query.member_id),
        (Commendation.recipient_kind, query.recipient_kind),
    ):
        if wanted:
            statement = statement.where(col(column).in_(wanted))
    if query.awarded_on_gte:
        statement = statement.where(col(Commendation.awarded_on) >= query.awarded_on_gte)
    if query.awarded_on_lt:
        statement = statement.where(col(Commendation.awarded_on) < query.awarded_on_lt)

    def read(rows: Sequence[Row[Any]]) -> list[CommendationRead]:
        return [_read(caller, row.Commendation) for row in rows]

    order = Order(col(Commendation.id), col(Commendation.id))
    page = await paginate(session, caller.cursors, query, statement, order, read)
    await record(session, caller, *page.items)
    return CommendationPage(**dict(page))


async def find_commendation(
    session: AsyncSession, caller: Caller, commendation_id: UUID
) -> Commendation:
    """Return a commendation's row; absent and out of scope look alike."""
    found = visible(Commendation, caller, Permission.commendations_read)
    row: Commendation | None = await session.scalar(
        found.where(col(Commendation.id) == commendation_id)
    )
    if row is None:
        raise NotFound
    return row


async def get_commendation(
    session: AsyncSession, caller: Caller, commendation_id: UUID
) -> CommendationRead:
    """Return a commendation in scope."""
    shown = _read(caller, await find_commendation(session, caller, commendation_id))
    await record(session, caller, shown)
    return shown


async def create_commendation(
    session: AsyncSession, caller: Caller, given: CommendationCreate
) -> tuple[CommendationRead, bool]:
    """Record a commendation, or propose one."""
    if made := await made_before(session, caller, Commendation, given):
        shown = _read(caller, made)
        await record(session, caller, shown)
        return shown, False
    values = given.model_dump(exclude={"id"})
    where = await _check(session, caller, values, values)
    row, is_new = await insert_once(session, caller, Commendation, given, values | where.columns())
    return _read(caller, row), is_new


async def _check(
    session: AsyncSession, caller: Caller, wanted: Mapping[str, Any], changed: Collection[str]
) -> Place:
    """Check a commendation as it shall be; return where it is placed, on its day or today."""
    day = wanted["awarded_on"] or clock.today()
    if day > clock.today():
        raise ValidationFailed(FieldError("/awarded_on", "in_the_future"))
    member, team = wanted["member_id"], wanted["team_id"]
    if member and wanted["recipient_kind"] != RecipientKind.individual:
        raise ValidationFailed(FieldError("/member_id", "not_of_a_collective"))
    where = await place(session, wanted["unit_id"], day, LEVELS)
    if not caller.reach(Permission.commendations_write).covers(where):
        raise not_found_at("/unit_id")
    if team and "team_id" in changed:
        teams = visible(Team, caller, Permission.teams_read).where(col(Team.id) == team)
        if await session.scalar(teams) is None:
            raise not_found_at("/team_id")
    if member and "member_id" in changed:
        people = visible(Member, caller, Permission.members_read).where(
            col(Member.id) == member, col(Member.redacted_at).is_(None)
        )
        if await session.scalar(people) is None:
            raise not_found_at("/member_id")
    if member and team and {"member_id", "team_id"} & set(changed):
        stay = select(Membership.member_id).where(
            col(Membership.member_id) == member, col(Membership.team_id) == team
        )
        if await session.scalar(stay.limit(1)) is None:
            raise ValidationFailed(FieldError("/member_id", "never_in_team"))
    return where


async def _lock(
    session: AsyncSession,
    caller: Caller,
    commendation_id: UUID,
    expected: int,
    *,
    hidden: bool = False,
) -> tuple[Commendation, CommendationRead]:
    """Lock a commendation that the caller may write; 404, 403, then 412."""
    found = visible(Commendation, caller, Permission.commendations_read, hidden=hidden)
    row = await session.scalar(locked(found.where(col(Commendation.id) == commendation_id)))
    if row is None:  # what only may be read is not locked
        await find_commendation(session, caller, commendation_id)
        raise InsufficientRole
    if not caller.reach(Permission.commendations_write).covers(row):
        raise NotFound if row.deleted_at else InsufficientRole
    current = _read(caller, row)
    people = [(current, current.unit_id)] * (row.recipient_kind is RecipientKind.individual)
    check_version(current, expected, lambda own: record_read(own, caller, RESOURCE, people))
    return row, current


async def update_commendation(
    session: AsyncSession,
    caller: Caller,
    commendation_id: UUID,
    expected: int,
    change: CommendationUpdate,
) -> CommendationRead:
    """Change a commendation; a proposal is awarded by its `awarded_on`."""
    row, current = await _lock(session, caller, commendation_id, expected)
    values = changed_values(current, change, REQUIRED)
    if not values:
        await record(session, caller, current)
        return current
    where = await _check(session, caller, row.model_dump() | values, values)
    placed = where.columns() if {"unit_id", "awarded_on"} & set(values) else {}
    for name, value in (values | placed).items():
        setattr(row, name, value)
    touch(row)
    await session.flush()
    return _read(caller, row)


async def delete_commendation(
    session: AsyncSession, caller: Caller, commendation_id: UUID, expected: int
) -> None:
    """Hide a commendation that was entered by mistake."""
    row, _ = await _lock(session, caller, commendation_id, expected)
    hide(row)
    await session.flush()


async def undelete_commendation(
    session: AsyncSession, caller: Caller, commendation_id: UUID, expected: int
) -> CommendationRead:
    """Bring a hidden commendation back; one that stands stays as it is."""
    row, _ = await _lock(session, caller, commendation_id, expected, hidden=True)
    bring_back(row)
    await session.flush()
    shown = _read(caller, row)
    await record(session, caller, shown)
    return shown
