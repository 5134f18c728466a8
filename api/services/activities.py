"""Activities: what was held where, by whom, and who came."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from api import clock
from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.auth.scope import spot_of, visible
from api.driver import Connection, connection_of
from api.errors import InsufficientRole, NotFound
from api.models.activities import (
    Activity,
    ActivityCreate,
    ActivityPage,
    ActivityQuery,
    ActivityRead,
    ActivitySort,
    ActivityUpdate,
)
from api.pagination import Order, paginate
from api.services import external_ids
from api.services.activity_references import check_activity, check_attendees
from api.services.masking import mask
from api.services.one_row import find, one_row
from api.services.places import under
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

RESOURCE: Final = "activities"
REQUIRED: Final = frozenset(
    {
        "kind",
        "title",
        "host_unit_id",
        "organiser",
        "partners",
        "held_on",
        "attendee_ids",
        "external_ids",
    }
)
_ORDERS: Final = {
    ActivitySort.newest: Order(col(Activity.held_on), col(Activity.id), descending=True),
    ActivitySort.oldest: Order(col(Activity.held_on), col(Activity.id)),
}


_ONE: Final = one_row(Activity, {Permission.activities_read})


def _read(caller: Caller, row: Mapping[str, Any]) -> ActivityRead:
    values = dict(row, host_unit_id=row["unit_id"])
    sees = caller.reach(Permission.members_read).covers(spot_of(row), row["team_id"])
    return ActivityRead(**mask(values, () if sees else ("attendee_ids",)))


async def list_activities(
    session: AsyncSession, caller: Caller, query: ActivityQuery
) -> ActivityPage:
    """Return a page of the activities in scope."""
    statement = visible(Activity, caller, Permission.activities_read)
    if query.unit_id:
        inside = under(query.unit_id, clock.today())
        statement = statement.where(col(Activity.unit_key).in_(inside))
    for column, wanted in (
        (Activity.team_id, query.team_id),
        (Activity.kind, query.kind),
        (Activity.campaign_id, query.campaign_id),
    ):
        if wanted:
            statement = statement.where(col(column).in_(wanted))
    if query.held_on_gte:
        statement = statement.where(col(Activity.held_on) >= query.held_on_gte)
    if query.held_on_lt:
        statement = statement.where(col(Activity.held_on) < query.held_on_lt)
    if query.external_id:
        named = external_ids.named(RESOURCE, query.external_id)
        statement = statement.where(col(Activity.id).in_(named))

    def read(rows: Sequence[Row[Any]]) -> list[ActivityRead]:
        return [_read(caller, dict(row.Activity)) for row in rows]

    order = _ORDERS[query.sort]
    page = await paginate(session, caller.cursors, query, statement, order, read)
    return ActivityPage(**dict(page))


async def get_activity(database: Connection, caller: Caller, activity_id: UUID) -> ActivityRead:
    """Return an activity in scope; absent and out of scope look alike."""
    row = await find(database, caller, _ONE, activity_id)
    if not caller.reach(Permission.activities_read).covers(spot_of(row), row["team_id"]):
        raise NotFound
    return _read(caller, row)


async def create_activity(
    session: AsyncSession, caller: Caller, given: ActivityCreate
) -> tuple[ActivityRead, bool]:
    """Record an activity of a host that stood on its day."""
    if made := await made_before(session, caller, Activity, given):
        return _read(caller, dict(made)), False
    values = given.model_dump(exclude={"id"})
    columns = await check_activity(session, caller, values, values)
    await check_attendees(session, caller, given.attendee_ids)
    del values["host_unit_id"]
    row, is_new = await insert_once(session, caller, Activity, given, values | columns)
    if is_new:
        await external_ids.claim(session, caller, RESOURCE, row.id, given.external_ids)
    return _read(caller, dict(row)), is_new


async def _lock(
    session: AsyncSession, caller: Caller, activity_id: UUID, expected: int, *, hidden: bool = False
) -> tuple[Activity, ActivityRead]:
    """Lock an activity that the caller may write; 404, 403, then 412."""
    found = visible(Activity, caller, Permission.activities_read, hidden=hidden)
    row = await session.scalar(locked(found.where(col(Activity.id) == activity_id)))
    if row is None:  # what only may be read is not locked
        await get_activity(await connection_of(session), caller, activity_id)
        raise InsufficientRole
    if not caller.reach(Permission.activities_write).covers(row, row.team_id):
        raise NotFound if row.deleted_at else InsufficientRole
    current = _read(caller, dict(row))
    check_version(current, expected)
    return row, current


async def update_activity(
    session: AsyncSession, caller: Caller, activity_id: UUID, expected: int, change: ActivityUpdate
) -> ActivityRead:
    """Change an activity; moving it needs both hosts in scope."""
    row, current = await _lock(session, caller, activity_id, expected)
    values = changed_values(current, change, REQUIRED)
    if not values:
        return current
    wanted = row.model_dump() | {"host_unit_id": row.unit_id} | values
    columns = await check_activity(session, caller, wanted, values)
    if "attendee_ids" in values:
        await check_attendees(session, caller, values["attendee_ids"], row.attendee_ids)
    values.pop("host_unit_id", None)
    change_row(row, values | columns)
    if "external_ids" in values:
        await external_ids.claim(session, caller, RESOURCE, activity_id, values["external_ids"])
    await session.flush()
    return _read(caller, dict(row))


async def delete_activity(
    session: AsyncSession, caller: Caller, activity_id: UUID, expected: int
) -> None:
    """Hide an activity that was entered by mistake; it counts no more."""
    row, _ = await _lock(session, caller, activity_id, expected)
    hide(row)
    await session.flush()


async def undelete_activity(
    session: AsyncSession, caller: Caller, activity_id: UUID, expected: int
) -> ActivityRead:
    """Bring a hidden activity back; one that stands stays as it is."""
    row, _ = await _lock(session, caller, activity_id, expected, hidden=True)
    bring_back(row)
    await session.flush()
    return _read(caller, dict(row))
