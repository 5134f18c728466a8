"""Corrections of events, and how any change of an event is made: locked, then a version more."""

from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.caller import Caller
from api.driver import connection_of
from api.errors import Conflict, FieldError, InsufficientRole
from api.models.support_events import (
    EventAction,
    EventStatus,
    SupportEvent,
    SupportEventRead,
    SupportEventUpdate,
)
from api.services import event_intake, external_ids
from api.services.event_judgement import event_places, may_write
from api.services.support_events import RESOURCE, find_event, one_event, present, record
from api.services.writing import changed_values, check_version, locked, touch

COUNTED = frozenset({EventStatus.submitted, EventStatus.verified})
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


async def update_support_event(
    session: AsyncSession,
    caller: Caller,
    event_id: UUID,
    expected: int,
    change: SupportEventUpdate,
) -> SupportEventRead:
    """Correct an event of the caller's own team; a plain member corrects its own only.

    What was verified was something else: a corrected event is `submitted` again. What changes
    nothing is taken whatever the status is: portals send all they have again.
    """
    event = await lock_event(session, caller, event_id)
    if not may_correct(caller, event):
        raise InsufficientRole
    current = await present(session, caller, event)
    check_version(current, expected, lambda own: record(own, caller, [current]))
    values = _corrections(caller, event, current, change)
    if not values:
        await record(await connection_of(session), caller, [current])
        return current
    if event.status not in COUNTED:
        raise wrong_status(event)
    values |= await event_intake.check_correction(session, caller, event, values)
    if "external_ids" in values:
        await external_ids.claim(session, caller, RESOURCE, event_id, values["external_ids"])
    for name, value in values.items():  # with the version at once: nothing is asked in between
        setattr(event, name, value)
    return await keep(
        session, caller, event, EventAction.correct, EventStatus.submitted, change.reason
    )


async def lock_event(session: AsyncSession, caller: Caller, event_id: UUID) -> SupportEvent:
    """Lock an event; 404 out of scope, 403 where the caller may not write anything there."""
    event = await session.scalar(locked(one_event(caller, event_id)))
    if event is None:  # what only may be read is not locked
        await find_event(session, caller, event_id)
        raise InsufficientRole
    return event


def may_correct(caller: Caller, event: SupportEvent) -> bool:
    """Tell whether an event is the caller's to correct: its team's, or what it took part in."""
    _, (home, _) = event_places(event.model_dump())
    return may_write(caller, home, event.team_id, event.member_ids)


def wrong_status(event: SupportEvent) -> Conflict:
    """Refuse (409) what an event's status does not allow."""
    return Conflict(FieldError("/status", "wrong_status", {"status": event.status.value}))


async def keep(
    session: AsyncSession,
    caller: Caller,
    event: SupportEvent,
    action: EventAction,
    status: EventStatus,
    reason: str | None,
) -> SupportEventRead:
    """Make a new version of a locked event; the database keeps the one before."""
    event.status, event.action, event.changed_by, event.reason = status, action, caller.id, reason
    touch(event)
    await session.flush()
    return await present(session, caller, event)


def _corrections(
    caller: Caller, event: SupportEvent, current: SupportEventRead, change: SupportEventUpdate
) -> dict[str, Any]:
    """Return the columns that a correction changes."""
    values = changed_values(current, change, REQUIRED)
    values.pop("reason", None)  # of the version, not of the event
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
