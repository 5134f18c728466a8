"""Households: registered in a village, visited, reached by services."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, and_, func, literal_column, not_
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import Text, col, select

from api import clock
from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.auth.scope import spot_of, visible
from api.driver import Connection, Hot, connection_of
from api.errors import FieldError, InsufficientRole, NotFound, ValidationFailed, not_found_at
from api.models.households import (
    Consent,
    ConsentRead,
    Household,
    HouseholdCreate,
    HouseholdPage,
    HouseholdQuery,
    HouseholdRead,
    HouseholdUpdate,
    LegalBasis,
)
from api.models.support_events import EventStatus, Outcome, SupportEvent
from api.models.types import Level
from api.pagination import Order, paginate
from api.services import external_ids
from api.services.audit import record_one, record_read
from api.services.masking import PERSONAL, check_unsealed, mask, sees_people
from api.services.one_row import find, one_row
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

RESOURCE = "households"
METHOD = "consent.method"
"""Free text inside the legal basis: masked like the personal fields."""
REQUIRED = frozenset({"unit_id", "head_name", "is_business", "external_ids"})
COUNTED = (EventStatus.submitted, EventStatus.verified)
REACHING = (Outcome.completed, Outcome.guided)


def _reached() -> Select[Any]:
    """Select the counted events that reached the household at hand."""
    return (
        select(SupportEvent)
        .where(
            col(SupportEvent.household_id) == col(Household.id),
            col(SupportEvent.status).in_(COUNTED),
            col(SupportEvent.outcome).in_(REACHING),
        )
        .correlate(Household)
    )


def _reached_by(codes: Sequence[str]) -> ColumnElement[bool]:
    return _reached().where(col(SupportEvent.service_type).in_(codes)).exists()


_CODES = func.coalesce(
    func.array_agg(func.distinct(SupportEvent.service_type), type_=ARRAY(Text)),
    literal_column("'{}'"),
)
_SERVICES = _reached().with_only_columns(_CODES).scalar_subquery().label("services_reached")
_ONE = one_row(Household, {Permission.households_read, Permission.events_read}, _SERVICES)


def _reader(caller: Caller) -> Any:
    def read(rows: Sequence[Row[Any]]) -> list[HouseholdRead]:
        found = (dict(row.Household, services_reached=row.services_reached) for row in rows)
        return [_read(caller, household) for household in found]

    return read


def _read(caller: Caller, household: dict[str, Any]) -> HouseholdRead:
    personal = PERSONAL[RESOURCE]
    values = household | (dict.fromkeys(personal) if household["redacted_at"] else {})
    sees = sees_people(caller, household["created_by"], (spot_of(household), None))
    hidden = () if sees and not _is_closed(household) else personal
    values = mask(values, hidden)
    consent = household["consent"]
    if not sees and consent and consent.get("method"):
        values["consent"] = consent | {"method": None}
        values["masked"] = sorted([*values["masked"], METHOD])
    return HouseholdRead(**values)


def _is_closed(household: Mapping[str, Any]) -> bool:
    """Tell whether nobody reads the personal fields: consent was withdrawn, or use restricted."""
    consent = household["consent"] or {}
    withdrawn = consent.get("basis") == LegalBasis.consent and consent.get("withdrawn_at")
    return bool(withdrawn or household["restricted_at"])


def _open() -> ColumnElement[bool]:
    """Keep the households that `_is_closed` does not close and that were not erased."""
    consent = col(Household.consent)
    basis: ColumnElement[str] = consent["basis"].astext
    return and_(
        not_(and_(basis == LegalBasis.consent, consent["withdrawn_at"].astext.is_not(None))),
        col(Household.restricted_at).is_(None),
        col(Household.redacted_at).is_(None),
    )


async def list_households(
    session: AsyncSession, caller: Caller, query: HouseholdQuery
) -> HouseholdPage:
    """Return a page of the households in scope.

    `q` searches only households whose head's name the caller may read: a search must not tell
    what a mask hides.
    """
    statement = visible(Household, caller, Permission.households_read).add_columns(_SERVICES)
    if query.unit_id:
        statement = statement.where(
            col(Household.unit_key).in_(under(query.unit_id, clock.today()))
        )
    if query.reached_by:
        statement = statement.where(_reached_by(query.reached_by))
    if query.not_reached_by:
        statement = statement.where(~_reached_by(query.not_reached_by))
    if query.external_id:
        statement = statement.where(
            col(Household.id).in_(external_ids.named(RESOURCE, query.external_id))
        )
    if query.q:
        readable = caller.reach(Permission.people_read).filter(Household)
        if caller.has(Permission.own_people_read):
            readable |= col(Household.created_by) == caller.id
        statement = statement.where(readable, _open(), contains(col(Household.search), query.q))
    order = Order(col(Household.id), col(Household.id))
    page = await paginate(session, caller.cursors, query, statement, order, _reader(caller))
    await _record(await connection_of(session), caller, page.items, query)
    return HouseholdPage(**dict(page))


async def _record(
    database: Connection,
    caller: Caller,
    shown: Sequence[HouseholdRead],
    query: HouseholdQuery | None = None,
) -> None:
    await record_read(database, caller, RESOURCE, [(row, row.unit_id) for row in shown], query)


async def _find(
    database: Connection, caller: Caller, household_id: UUID, *, hidden: bool = False
) -> dict[str, Any]:
    row = await find(database, caller, _ONE, household_id, hidden=hidden)
    if not caller.reach(Permission.households_read).covers(spot_of(row)):
        raise NotFound
    return row


async def get_household(database: Hot, caller: Caller, household_id: UUID) -> HouseholdRead:
    """Return a household in scope; absent and out of scope look alike."""
    row = await _find(database, caller, household_id)
    household = _read(caller, row)
    await record_one(database, caller, RESOURCE, household, row)
    return household


async def _present(
    session: AsyncSession,
    caller: Caller,
    household_id: UUID,
    *,
    hidden: bool = False,
    records: bool = False,
) -> HouseholdRead:
    """Return a household as it is within the transaction; `records` records that as a read."""
    database = await connection_of(session)
    household = _read(caller, await _find(database, caller, household_id, hidden=hidden))
    if records:
        await _record(database, caller, [household])
    return household


async def create_household(
    session: AsyncSession, caller: Caller, given: HouseholdCreate
) -> tuple[HouseholdRead, bool]:
    """Register a household in a village that stands today."""
    if made := await made_before(session, caller, Household, given):
        return await _present(session, caller, made.id, hidden=True, records=True), False
    where = await place(session, given.unit_id, clock.today(), {Level.village})
    if not caller.reach(Permission.households_write).covers(where):
        raise not_found_at("/unit_id")
    values = given.model_dump(exclude={"id", "consent"}) | where.columns()
    values["consent"] = given.consent and given.consent.model_dump(mode="json")
    row, is_new = await insert_once(session, caller, Household, given, values)
    if is_new:
        await external_ids.claim(session, caller, RESOURCE, row.id, given.external_ids)
    present = await _present(session, caller, row.id, hidden=True, records=not is_new)
    return present, is_new


async def _lock(
    session: AsyncSession,
    caller: Caller,
    household_id: UUID,
    expected: int,
    *,
    hidden: bool = False,
) -> tuple[Household, HouseholdRead]:
    """Lock a household that the caller may write; 404, 403, then 412."""
    found = visible(Household, caller, Permission.households_read, hidden=hidden)
    household = await session.scalar(locked(found.where(col(Household.id) == household_id)))
    if household is None:  # what only may be read is not locked
        await _present(session, caller, household_id)
        raise InsufficientRole
    if not caller.reach(Permission.households_write).covers(household):
        raise NotFound if household.deleted_at else InsufficientRole
    current = await _present(session, caller, household_id, hidden=hidden)
    check_version(current, expected, lambda own: _record(own, caller, [current]))
    check_unsealed(household)
    return household, current


async def update_household(
    session: AsyncSession,
    caller: Caller,
    household_id: UUID,
    expected: int,
    change: HouseholdUpdate,
) -> HouseholdRead:
    """Change a household; moving it needs both villages in scope, its events stay."""
    household, current = await _lock(session, caller, household_id, expected)
    if METHOD in current.masked:  # what is merged is what is kept
        kept = ConsentRead.model_validate(household.consent)
        current = current.model_copy(update={"consent": kept})
    values = changed_values(current, change, REQUIRED)
    if not values:
        return await _present(session, caller, household_id, records=True)
    if values.get("consent"):
        if "basis" not in values["consent"]:
            raise ValidationFailed(FieldError("/consent/basis", "missing"))
        values["consent"] = Consent.model_validate(values["consent"]).model_dump(mode="json")
    if "unit_id" in values:
        where = await place(session, values["unit_id"], clock.today(), {Level.village})
        if not caller.reach(Permission.households_write).covers(where):
            raise not_found_at("/unit_id")
        values |= where.columns()
    if "external_ids" in values:
        await external_ids.claim(session, caller, RESOURCE, household_id, values["external_ids"])
    change_row(household, values)
    await session.flush()
    return await _present(session, caller, household_id)


async def delete_household(
    session: AsyncSession, caller: Caller, household_id: UUID, expected: int
) -> None:
    """Hide a household that was entered by mistake."""
    household, _ = await _lock(session, caller, household_id, expected)
    hide(household)
    await session.flush()


async def bring_household_back(
    session: AsyncSession, caller: Caller, household_id: UUID, expected: int
) -> None:
    """Bring a hidden household back; one that stands stays as it is."""
    household, _ = await _lock(session, caller, household_id, expected, hidden=True)
    bring_back(household)
    await session.flush()


async def undelete_household(
    session: AsyncSession, caller: Caller, household_id: UUID, expected: int
) -> HouseholdRead:
    """Bring a hidden household back, and show it: one that stood may have been changed since."""
    await bring_household_back(session, caller, household_id, expected)
    return await _present(session, caller, household_id, records=True)
