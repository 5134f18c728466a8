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
from api.errors import NotFound, Refusal
from api.models.admin_units import AdminUnit
from api.models.members import Membership
from api.models.support_events import (
    BeneficiaryRead,
    EventSort,
    SupportEvent,
    SupportEventCreate,
    SupportEventPage,
    SupportEventQuery,
    SupportEventRead,
)
from api.pagination import Order, Source, paginate
from api.services import event_intake, event_rows, external_ids
from api.services.audit import record_one, record_read
from api.services.event_duplicates import find_duplicates
from api.services.event_references import event_places
from api.services.masking import PERSONAL, mask, sees_people
from api.services.places import under

RESOURCE = event_intake.RESOURCE


def present_event(caller: Caller, row: Mapping[str, Any]) -> SupportEventRead:
    """Return an event's row as the caller may see it."""
    values = presentable(row)
    if sees_people(caller, row["created_by"], *event_places(row)):
        return SupportEventRead(**mask(values, ()))
    values["possible_duplicate_of"] = None
    return SupportEventRead(**mask(values, PERSONAL[RESOURCE]))


def presentable(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event's row by the names of the contract, in clear."""
    values = dict(row, recorded_at=row["created_at"], beneficiary=None)
    values["clock_skew"] = row["occurred_at"] > row["created_at"]
    age_band, gender = row["beneficiary_age_band"], row["beneficiary_gender"]
    if age_band or gender or row["beneficiary_hash"]:
        values["beneficiary"] = BeneficiaryRead(age_band=age_band, gender=gender)
    return values


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
        return [present_event(caller, row.SupportEvent.model_dump()) for row in rows]

    newest = query.sort is EventSort.newest
    order = Order(col(SupportEvent.occurred_at), col(SupportEvent.id), newest)
    sources = await _sources(session, caller, query)
    page = await paginate(session, caller.cursors, query, statement, order, read, sources)
    database = await connection_of(session)
    await _flag(database, caller, page.items)
    await record(database, caller, page.items, query)
    return SupportEventPage(**dict(page))


async def _flag(database: Connection, caller: Caller, shown: Sequence[SupportEventRead]) -> None:
    """Say of events that are shown in clear what they may be duplicates of."""
    named = [event.id for event in shown if event.household_id or event.beneficiary]
    found = await find_duplicates(database, caller, named)
    for event in shown:
        event.possible_duplicate_of = found.get(event.id)


async def present(session: AsyncSession, caller: Caller, event: SupportEvent) -> SupportEventRead:
    """Return an event as the caller may see it, and what it may be a duplicate of."""
    shown = present_event(caller, event.model_dump())
    await _flag(await connection_of(session), caller, [shown])
    return shown


async def record(
    database: Connection,
    caller: Caller,
    shown: Sequence[SupportEventRead],
    query: SupportEventQuery | None = None,
) -> None:
    """Record which events were shown in clear."""
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


def one_event(caller: Caller, event_id: UUID) -> Select[SupportEvent]:
    """Select an event in scope."""
    return visible(SupportEvent, caller, Permission.events_read).where(
        col(SupportEvent.id) == event_id
    )


async def find_event(session: AsyncSession, caller: Caller, event_id: UUID) -> SupportEvent:
    """Return an event's row; absent and out of scope look alike."""
    event = await session.scalar(one_event(caller, event_id))
    if event is None:
        raise NotFound
    return event


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
