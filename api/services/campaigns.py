"""Campaigns: who runs one where, between which days."""

from collections.abc import Collection, Sequence
from datetime import date, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from api import clock
from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.auth.scope import visible
from api.errors import FieldError, InsufficientRole, NotFound, ValidationFailed, not_found_at
from api.models.campaigns import (
    Campaign,
    CampaignCreate,
    CampaignPage,
    CampaignQuery,
    CampaignRead,
    CampaignSort,
    CampaignUpdate,
)
from api.models.types import EARLIEST, Level
from api.pagination import Order, paginate
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

REQUIRED: Final = frozenset({"name", "unit_id", "starts_on", "ends_on", "service_types"})
LEVELS: Final = frozenset(Level)
_ORDERS: Final = {
    CampaignSort.newest: Order(col(Campaign.starts_on), col(Campaign.id), descending=True),
    CampaignSort.oldest: Order(col(Campaign.starts_on), col(Campaign.id)),
}
_KNOWN_SERVICES = text("""
    select code from service_type
    where code = any(cast(:codes as text[])) and deleted_at is null
""")


def read_campaign(row: Campaign) -> CampaignRead:
    """Return a campaign's row as everybody sees it."""
    return CampaignRead.model_validate(row.model_dump())


async def list_campaigns(
    session: AsyncSession, caller: Caller, query: CampaignQuery
) -> CampaignPage:
    """Return a page of the campaigns in scope, and of those above it."""
    statement = visible(Campaign, caller, Permission.campaigns_read)
    if query.unit_id:
        inside = under(query.unit_id, clock.today())
        statement = statement.where(col(Campaign.unit_key).in_(inside))
    if query.running_on:
        day = query.running_on
        statement = statement.where(col(Campaign.starts_on) <= day, col(Campaign.ends_on) >= day)

    def read(rows: Sequence[Row[Any]]) -> list[CampaignRead]:
        return [read_campaign(row.Campaign) for row in rows]

    order = _ORDERS[query.sort]
    page = await paginate(session, caller.cursors, query, statement, order, read)
    return CampaignPage(**dict(page))


async def find_campaign(
    session: AsyncSession, caller: Caller, campaign_id: UUID, *, hidden: bool = False
) -> Campaign:
    """Return a campaign's row; absent and out of scope look alike."""
    found = visible(Campaign, caller, Permission.campaigns_read, hidden=hidden)
    row: Campaign | None = await session.scalar(found.where(col(Campaign.id) == campaign_id))
    if row is None:
        raise NotFound
    return row


async def get_campaign(session: AsyncSession, caller: Caller, campaign_id: UUID) -> CampaignRead:
    """Return a campaign in scope, or of a unit above it."""
    return read_campaign(await find_campaign(session, caller, campaign_id))


async def create_campaign(
    session: AsyncSession, caller: Caller, given: CampaignCreate
) -> tuple[CampaignRead, bool]:
    """Begin a campaign of a unit that stood on its first day."""
    if made := await made_before(session, caller, Campaign, given):
        return read_campaign(made), False
    values = given.model_dump(exclude={"id"})
    where = await _check(session, caller, values, values)
    row, is_new = await insert_once(session, caller, Campaign, given, values | where.columns())
    return read_campaign(row), is_new


def baseline_of(starts_on: date, ends_on: date, baseline_on: date | None) -> tuple[date, date]:
    """Return the first and last day of a baseline: as many days as the campaign has."""
    last = baseline_on or starts_on - timedelta(days=1)
    return last - (ends_on - starts_on), last


async def _check(
    session: AsyncSession, caller: Caller, wanted: dict[str, Any], changed: Collection[str]
) -> Place:
    """Check a campaign as it shall be; return where it is placed."""
    if wanted["ends_on"] < wanted["starts_on"]:
        raise ValidationFailed(FieldError("/ends_on", "end_before_start"))
    if baseline_of(wanted["starts_on"], wanted["ends_on"], wanted["baseline_on"])[0] < EARLIEST:
        raise ValidationFailed(FieldError("/baseline_on", "date_out_of_range"))
    if wanted["baseline_on"] and wanted["baseline_on"] >= wanted["starts_on"]:
        starts = {"starts_on": wanted["starts_on"].isoformat()}
        raise ValidationFailed(FieldError("/baseline_on", "not_before", starts))
    if "service_types" in changed:
        codes = wanted["service_types"]
        known = set(await session.scalars(_KNOWN_SERVICES, {"codes": codes}))
        unknown = [n for n, code in enumerate(codes) if code not in known]
        if unknown:
            raise ValidationFailed(
                *(FieldError(f"/service_types/{n}", "not_found") for n in unknown)
            )
    where = await place(session, wanted["unit_id"], wanted["starts_on"], LEVELS)
    if not caller.reach(Permission.campaigns_write).covers(where):
        raise not_found_at("/unit_id")
    return where


async def _lock(
    session: AsyncSession, caller: Caller, campaign_id: UUID, expected: int, *, hidden: bool = False
) -> Campaign:
    """Lock a campaign that the caller may write; 404, 403, then 412."""
    found = visible(Campaign, caller, Permission.campaigns_read, hidden=hidden)
    row = await session.scalar(locked(found.where(col(Campaign.id) == campaign_id)))
    if row is None:  # what only may be read is not locked
        await find_campaign(session, caller, campaign_id)
        raise InsufficientRole
    if not caller.reach(Permission.campaigns_write).covers(row):
        raise NotFound if row.deleted_at else InsufficientRole
    check_version(read_campaign(row), expected)
    return row


async def update_campaign(
    session: AsyncSession, caller: Caller, campaign_id: UUID, expected: int, change: CampaignUpdate
) -> CampaignRead:
    """Change a campaign; what was recorded for it stays, and counts within its days."""
    row = await _lock(session, caller, campaign_id, expected)
    values = changed_values(read_campaign(row), change, REQUIRED)
    if not values:
        return read_campaign(row)
    wanted = row.model_dump() | values
    where = await _check(session, caller, wanted, values)
    for name, value in (values | where.columns()).items():
        setattr(row, name, value)
    touch(row)
    await session.flush()
    return read_campaign(row)


async def delete_campaign(
    session: AsyncSession, caller: Caller, campaign_id: UUID, expected: int
) -> None:
    """Hide a campaign that was entered by mistake; what was recorded for it stays."""
    row = await _lock(session, caller, campaign_id, expected)
    hide(row)
    await session.flush()


async def undelete_campaign(
    session: AsyncSession, caller: Caller, campaign_id: UUID, expected: int
) -> CampaignRead:
    """Bring a hidden campaign back; one that stands stays as it is."""
    row = await _lock(session, caller, campaign_id, expected, hidden=True)
    bring_back(row)
    await session.flush()
    return read_campaign(row)
