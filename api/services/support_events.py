"""Support events: reading, correcting, and the one way in, which takes a set at a time."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from api import clock
from api.auth.caller import Caller
from api.auth.loading import resolve
from api.auth.permissions import Permission
from api.auth.scope import visible
from api.driver import Connection, Hot, connection_of
from api.errors import FieldError, InsufficientRole, NotFound, Refusal, ValidationFailed
from api.models.admin_units import AdminUnit
from api.models.members import Membership
from api.models.support_events import (
    BeneficiaryRead,
    EventSort,
    EventStatus,
    SupportEvent,
    SupportEventCreate,
    SupportEventPage,
    SupportEventQuery,
    SupportEventRead,
    SupportEventUpdate,
)
from api.pagination import Order, Source, paginate
from api.services import event_intake, event_rows, external_ids
from api.services.audit import record_one, record_read
from api.services.event_references import event_places, may_write
from api.services.masking import PERSONAL, mask, sees_people
from api.services.places import under
from api.services.writing import changed_values, check_version, locked, touch

RESOURCE = event_intake.RESOURCE
REQUIRED = frozenset(
    {
        "member_ids",
        "unit_id",
        "service_type",
        "occurred_at",
        "quantity",
        "outcome",
        "mode",
        "channel",
        "external_ids",
    }
)


def read_event(caller: Caller, event: SupportEvent) -> SupportEventRead:
    """Return an event as the caller may see it."""
    return present_event(caller, event.model_dump())


def present_event(caller: Caller, row: Mapping[str, Any]) -> SupportEventRead:
    """Return an event's row as the caller may see it."""
    values = dict(row, recorded_at=row["created_at"], beneficiary=None)
    age_band, gender = row["beneficiary_age_band"], row["beneficiary_gender"]
    if age_band or gender or row["beneficiary_hash"]:
        values["beneficiary"] = BeneficiaryRead(age_band=age_band, gender=gender)
    hidden = (
        () if sees_people(caller, row["created_by"], *event_places(row)) else PERSONAL[RESOURCE]
    )
    return SupportEventRead(**mask(values, hidden))


def _filters(caller: Caller, query: SupportEventQuery) -> list[ColumnElement[bool]]:
    event = SupportEvent
    found: list[ColumnElement[bool]] = []
    if query.unit_id:
        found.append(col(event.unit_key).in_(under(query.unit_id, clock.today())))
    for column, wanted in (
        (event.team_id, query.team_id),
        (event.household_id, query.household_id),
        (event.service_type, query.service_type),
        (event.status, query.status),
        (event.outcome, query.outcome),
    ):
        if wanted:
            found.append(col(column).in_(wanted))
    if query.household_id:  # which household it was is personal: a filter must not tell it
        readable = caller.reach(Permission.people_read).filter(event)
        if caller.has(Permission.own_people_read):
            readable |= col(event.created_by) == caller.id
        found.append(readable)
    if query.member_id:  # a member's events are its teams' events: that is what the index has
        teams = select(col(Membership.team_id)).where(
            col(Membership.member_id).in_(query.member_id)
        )
        found.append(col(event.team_id).in_(teams))
        found.append(col(event.member_ids).overlap(query.member_id))  # type: ignore[attr-defined]
    if query.occurred_at_gte:
        found.append(col(event.occurred_at) >= query.occurred_at_gte)
    if query.occurred_at_lt:
        found.append(col(event.occurred_at) < query.occurred_at_lt)
    if query.external_id:
        found.append(col(event.id).in_(external_ids.named(RESOURCE, query.external_id)))
    return found


async def list_support_events(
    session: AsyncSession, caller: Caller, query: SupportEventQuery
) -> SupportEventPage:
    """Return a page of the events whose unit or team is in scope, the newest first."""
    statement = visible(SupportEvent, caller, Permission.events_read)
    statement = statement.where(*_filters(caller, query))

    def read(rows: Sequence[Row[Any]]) -> list[SupportEventRead]:
        return [read_event(caller, row.SupportEvent) for row in rows]

    newest = query.sort is EventSort.newest
    order = Order(col(SupportEvent.occurred_at), col(SupportEvent.id), newest)
    sources = await _sources(session, caller, query)
    page = await paginate(session, caller.cursors, query, statement, order, read, sources)
    await _record(await connection_of(session), caller, page.items, query)
    return SupportEventPage(**dict(page))


async def _record(
    database: Connection,
    caller: Caller,
    shown: Sequence[SupportEventRead],
    query: SupportEventQuery | None = None,
) -> None:
    await record_read(database, caller, RESOURCE, [(row, row.unit_id) for row in shown], query)


async def _sources(session: AsyncSession, caller: Caller, query: SupportEventQuery) -> list[Source]:
    """Return what drives the list: a filter's teams or units, else the caller's whole scope.

    None where a filter finds few rows by an index of its own.
    """
    event = SupportEvent
    if query.household_id or query.external_id or query.member_id:
        return []
    if query.team_id:
        return [(col(event.team_id), query.team_id)]
    reach = caller.reach(Permission.events_read)
    teams: list[Source] = [
        (col(event.team_commune_key), reach.communes),
        (col(event.team_unit_key), reach.units),
        (col(event.team_id), reach.teams),
    ]
    if query.unit_id:
        asked = select(col(AdminUnit.key), col(AdminUnit.valid_to))
        units = (await session.execute(asked.where(col(AdminUnit.id).in_(query.unit_id)))).all()
        if any(last and last < clock.today() for _, last in units):
            return []  # what lay in a unit that has ended is in no reach of today
        keys = frozenset(key for key, _ in units if key is not None)
        reach, teams = (await resolve(session, {keys}, caller.tree))[keys], []
    places: list[Source] = [
        (col(event.province_key), reach.provinces),
        (col(event.commune_key), reach.communes),
        (col(event.unit_key), reach.units),
    ]
    return [source for source in places + teams if source[1]]


def _one(caller: Caller, event_id: UUID) -> Select[SupportEvent]:
    return visible(SupportEvent, caller, Permission.events_read).where(
        col(SupportEvent.id) == event_id
    )


async def get_support_event(database: Hot, caller: Caller, event_id: UUID) -> SupportEventRead:
    """Return an event in scope; absent and out of scope look alike.

    One statement, and one that records it where anything personal is shown.
    """
    row = (await event_rows.read(database, caller, [event_id])).get(event_id)
    reach = caller.reach(Permission.events_read)
    if (
        row is None
        or row["deleted_at"] is not None
        or not any(reach.covers(*place) for place in event_places(row))
    ):
        raise NotFound
    event = present_event(caller, row)
    await record_one(database, caller, RESOURCE, event, row)
    return event


async def create_support_event(
    database: Hot, caller: Caller, given: SupportEventCreate
) -> tuple[SupportEventRead, bool]:
    """Record one act of help: a set of one."""
    outcome = (await event_intake.insert_events(database, caller, [given]))[0]
    if isinstance(outcome, Refusal):
        raise outcome
    row, is_new = outcome
    event = present_event(caller, row)
    if not is_new:
        await record_one(database, caller, RESOURCE, event, row)
    return event, is_new


async def update_support_event(
    session: AsyncSession,
    caller: Caller,
    event_id: UUID,
    expected: int,
    change: SupportEventUpdate,
) -> SupportEventRead:
    """Correct an event of the caller's own team; a plain member corrects its own only."""
    event = await session.scalar(locked(_one(caller, event_id)))
    if event is None:  # what only may be read is not locked
        if await session.scalar(_one(caller, event_id)) is None:
            raise NotFound
        raise InsufficientRole
    _, (home, _) = event_places(event.model_dump())
    if not may_write(caller, home, event.team_id, event.member_ids):
        raise InsufficientRole
    current = read_event(caller, event)
    check_version(current, expected, lambda own: _record(own, caller, [current]))
    if event.status in {EventStatus.voided, EventStatus.rejected}:
        raise ValidationFailed(FieldError("/status", "read_only"))
    values = _corrections(caller, event, current, change)
    if not values:
        await _record(await connection_of(session), caller, [current])
        return current
    values |= await event_intake.check_correction(session, caller, event, values)
    for name, value in values.items():
        setattr(event, name, value)
    if "external_ids" in values:
        await external_ids.claim(session, caller, RESOURCE, event_id, values["external_ids"])
    touch(event)
    await session.flush()
    return read_event(caller, event)


def _corrections(
    caller: Caller, event: SupportEvent, current: SupportEventRead, change: SupportEventUpdate
) -> dict[str, Any]:
    """Return the columns that a correction changes."""
    values = changed_values(current, change, REQUIRED)
    if "beneficiary" not in values:
        return values
    del values["beneficiary"]
    known = "beneficiary" not in current.masked
    columns = event_intake.corrected_beneficiary(caller, change.beneficiary)
    if known and event_intake.is_same_person(caller, event, change.beneficiary):
        del columns["beneficiary_hash"]
    if columns.get("beneficiary_hash"):
        values["beneficiary_key"] = caller.secrets.generation
    return values | {
        name: value
        for name, value in columns.items()
        if not (known and getattr(event, name) == value)
    }
