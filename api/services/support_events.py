"""Support events: reading, correcting, and the one way in, which takes a set at a time."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.auth.scope import visible
from api.driver import Connection, Hot, connection_of
from api.errors import NotFound, Refusal
from api.models.support_events import (
    SupportEvent,
    SupportEventCreate,
    SupportEventRead,
)
from api.services import event_intake, event_rows
from api.services.audit import record_one, record_read
from api.services.event_duplicates import find_duplicates
from api.services.event_judgement import event_places
from api.services.masking import PERSONAL, mask, sees_people

RESOURCE = event_intake.RESOURCE


def present_event(caller: Caller, row: Mapping[str, Any]) -> SupportEventRead:
    """Return an event's row as the caller may see it."""
    return SupportEventRead(**shown_event(caller, row))


def shown_event(caller: Caller, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of an event that the caller may see."""
    values = presentable(row)
    if sees_people(caller, row["created_by"], *event_places(row)):
        return mask(values, ())
    values["possible_duplicate_of"] = None
    return mask(values, PERSONAL[RESOURCE])


def presentable(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event's row by the names of the contract, in clear."""
    values = dict(row, recorded_at=row["created_at"], beneficiary=None)
    values["clock_skew"] = row["occurred_at"] > row["created_at"]
    age_band, gender = row["beneficiary_age_band"], row["beneficiary_gender"]
    if age_band or gender or row["beneficiary_hash"]:
        values["beneficiary"] = {"age_band": age_band, "gender": gender}
    return values


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
) -> None:
    """Record which events were shown in clear."""
    await record_read(database, caller, RESOURCE, [(row, row.unit_id) for row in shown])


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
