"""The life of an event: submitted, then verified or rejected; reopened; voided. Nothing is deleted.

Each step makes a version with its actor, its time and its reason. Sent again by the same person
(an answer may get lost), a step that stands changes nothing and answers as before.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.driver import connection_of
from api.errors import FieldError, InsufficientRole
from api.models.event_versions import EventDecision, EventVerify
from api.models.support_events import EventAction, EventStatus, SupportEvent, SupportEventRead
from api.services.event_corrections import keep, lock_event, may_correct, wrong_status
from api.services.event_judgement import event_places
from api.services.support_events import present, record
from api.services.writing import check_version


@dataclass(frozen=True)
class Step:
    """From which status a verb leads to which, and the right that it takes."""

    permission: Permission
    starts: frozenset[EventStatus]
    ends: EventStatus


_SUBMITTED = frozenset({EventStatus.submitted})
_JUDGED = frozenset({EventStatus.verified, EventStatus.rejected})
STEPS: Final[Mapping[EventAction, Step]] = {
    EventAction.verify: Step(Permission.events_verify, _SUBMITTED, EventStatus.verified),
    EventAction.reject: Step(Permission.events_verify, _SUBMITTED, EventStatus.rejected),
    EventAction.void: Step(Permission.events_verify, _SUBMITTED | _JUDGED, EventStatus.voided),
    EventAction.reopen: Step(Permission.events_reopen, _JUDGED, EventStatus.submitted),
}
JUDGEMENTS: Final = frozenset({EventAction.verify, EventAction.reject})
"""What nobody does to an event of their own."""

# The accounts and devices of whoever recorded the event or corrected any version of it.
_AUTHOR = text("""
    with author as (
        select created_by as id from support_event where id = :event
        union select changed_by from support_event where id = :event and action = 'correct'
        union select changed_by from support_event_version where id = :event and action = 'correct')
    select exists (
        select from author join principal p using (id)
        where p.id = :caller or p.member_id = cast(:member as uuid))
""")


async def verify_support_event(
    session: AsyncSession, caller: Caller, event_id: UUID, expected: int, given: EventVerify
) -> SupportEventRead:
    """Confirm a submitted event of somebody else's."""
    return await _step(session, caller, event_id, expected, EventAction.verify, given.reason)


async def reject_support_event(
    session: AsyncSession, caller: Caller, event_id: UUID, expected: int, given: EventDecision
) -> SupportEventRead:
    """Refuse a submitted event of somebody else's: it is not counted any more."""
    return await _step(session, caller, event_id, expected, EventAction.reject, given.reason)


async def void_support_event(
    session: AsyncSession, caller: Caller, event_id: UUID, expected: int, given: EventDecision
) -> SupportEventRead:
    """Take an event back for good: an officer, or whoever may correct it."""
    return await _step(session, caller, event_id, expected, EventAction.void, given.reason)


async def reopen_support_event(
    session: AsyncSession, caller: Caller, event_id: UUID, expected: int, given: EventDecision
) -> SupportEventRead:
    """Undo what was decided of an event: it is submitted again."""
    return await _step(session, caller, event_id, expected, EventAction.reopen, given.reason)


async def _step(
    session: AsyncSession,
    caller: Caller,
    event_id: UUID,
    expected: int,
    action: EventAction,
    reason: str | None,
) -> SupportEventRead:
    """Lock, then refuse: 404, 403, 412, 403 `own_event`, 409 `conflict` with the status."""
    event = await lock_event(session, caller, event_id)
    step = STEPS[action]
    if not _may(caller, action, event):
        raise InsufficientRole
    current = await present(session, caller, event)
    if (event.action, event.changed_by, event.reason) == (action, caller.id, reason):
        await record(await connection_of(session), caller, [current])
        return current
    check_version(current, expected, lambda own: record(own, caller, [current]))
    if action in JUDGEMENTS and await _is_own(session, caller, event):
        raise InsufficientRole(FieldError("", "own_event"))
    if event.status not in step.starts:
        raise wrong_status(event)
    done = await keep(session, caller, event, action, step.ends, reason)
    await record(await connection_of(session), caller, [done])
    return done


def _may(caller: Caller, action: EventAction, event: SupportEvent) -> bool:
    reach = caller.reach(STEPS[action].permission)
    if any(reach.covers(*place) for place in event_places(event.model_dump())):
        return True
    return action is EventAction.void and may_correct(caller, event)


async def _is_own(session: AsyncSession, caller: Caller, event: SupportEvent) -> bool:
    """Tell whether the caller recorded or corrected the event, or took part in it."""
    if caller.member_id in event.member_ids:
        return True
    who = {"event": event.id, "caller": caller.id, "member": caller.member_id}
    return bool(await session.scalar(_AUTHOR, who))
