"""What a person gets to see of themselves: every row that is held on whom an open request names."""

from collections.abc import Collection
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, false, or_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import SQLModel, col, select

from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.db import as_subjects
from api.driver import connection_of
from api.errors import Conflict, FieldError
from api.models.activities import Activity
from api.models.commendations import Commendation
from api.models.consent_entries import ConsentEntry
from api.models.data_subject_requests import DataSubjectRequest, SubjectExport
from api.models.devices import Device
from api.models.event_versions import SupportEventVersion
from api.models.households import Household
from api.models.identities import ExternalIdentity
from api.models.members import Member, Membership
from api.models.principals import Principal
from api.models.support_events import SupportEvent
from api.services.audit import record_export
from api.services.data_subject_requests import find_request

INTERNAL = {
    "code_hash",
    "beneficiary_hash",
    "beneficiary_key",
    "commune_key",
    "ended_xid",
    "content_hash",
    "province_key",
    "public_jwks",
    "search",
    "secret_hash",
    "subject_hash",
    "team_commune_key",
    "team_unit_key",
    "unit_key",
    "xid",
}
"""Columns that are the service's own bookkeeping."""


async def export(session: AsyncSession, caller: Caller, request_id: UUID) -> SubjectExport:
    """Return all that is held; 409 `conflict` once the request is fulfilled. It is recorded."""
    request = await find_request(session, caller, request_id)
    if request.fulfilled_at is not None:
        raise Conflict(FieldError("", "already_fulfilled"))
    database = await connection_of(session)
    await record_export(database, caller, "data_subject_requests", request_id, request.unit_id)
    member, household = request.member_id, request.household_id
    async with as_subjects(session):
        return SubjectExport(
            request_id=request_id,
            members=await _rows(session, Member, _is(Member.id, member)),
            memberships=await _rows(session, Membership, _is(Membership.member_id, member)),
            households=await _rows(session, Household, _is(Household.id, household)),
            consent_entries=await _rows(
                session, ConsentEntry, _is(ConsentEntry.household_id, household)
            ),
            support_events=await _events(session, caller, request, SupportEvent),
            support_event_versions=await _events(session, caller, request, SupportEventVersion),
            activities=await _rows(
                session, Activity, _attended(member), INTERNAL | {"attendee_ids"}
            ),
            commendations=await _rows(session, Commendation, _is(Commendation.member_id, member)),
            devices=await _rows(session, Device, _is(Device.member_id, member)),
            accounts=await _rows(session, Principal, _is(Principal.member_id, member)),
            identities=await _rows(session, ExternalIdentity, _of_account(member)),
        )


def _is(column: Any, person: UUID | None) -> ColumnElement[bool]:
    """Keep the rows of a person; none for nobody (`= null` would be `is null`)."""
    return false() if person is None else col(column) == person


def _attended(member_id: UUID | None) -> ColumnElement[bool]:
    """Keep the activities that a member came to."""
    return false() if member_id is None else col(Activity.attendee_ids).contains([member_id])


def _of_account(member_id: UUID | None) -> ColumnElement[bool]:
    """Keep the identities elsewhere of a member's account."""
    accounts = select(Principal.id).where(_is(Principal.member_id, member_id))
    return col(ExternalIdentity.principal_id).in_(accounts)


async def _events(
    session: AsyncSession, caller: Caller, request: DataSubjectRequest, event: Any
) -> list[dict[str, Any]]:
    """Return the household's events, those the member took part in, or the beneficiary's.

    `event` is the table: of what stands, or of what was before, as far as that named the person.

    A beneficiary's: within the caller's reach, since a hash is the same in the whole country.
    """
    teams = select(Membership.team_id).where(col(Membership.member_id) == request.member_id)
    took_part = col(event.member_ids).contains([request.member_id])
    hashed = col(event.beneficiary_hash).in_(request.identifier_hashes)
    conditions = {
        "member_id": took_part & col(event.team_id).in_(teams),
        "household_id": col(event.household_id) == request.household_id,
        "identifier_hashes": hashed & caller.reach(Permission.subjects_write).filter(event),
    }
    asked = [condition for name, condition in conditions.items() if getattr(request, name)]
    return await _rows(session, event, or_(*asked))


async def _rows(
    session: AsyncSession, table: type[SQLModel], condition: Any, hidden: Collection[str] = INTERNAL
) -> list[dict[str, Any]]:
    found = await session.scalars(select(table).where(condition))
    return [row.model_dump(mode="json", exclude=set(hidden)) for row in found]
