"""Data subjects' requests: opened for a person of the officer's own subtree, answered in time.

The officer sees nobody by its role: the database shows it whom an open request names, and that
only in the role `noidai_subjects` (see `db.as_subjects`).
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, or_, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from api import clock
from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.auth.scope import visible
from api.db import as_subjects
from api.errors import FieldError, InsufficientRole, NotFound, ValidationFailed, not_found_at
from api.models.admin_units import AdminUnit
from api.models.data_subject_requests import (
    DataSubjectRequest,
    DataSubjectRequestCreate,
    DataSubjectRequestFulfil,
    DataSubjectRequestPage,
    DataSubjectRequestQuery,
    DataSubjectRequestRead,
    RequestKind,
    RequestStatus,
    Subject,
    SubjectRead,
)
from api.models.households import Consent, Household, LegalBasis
from api.models.members import Member
from api.models.types import Level
from api.pagination import Order, paginate
from api.services import redaction
from api.services.deadlines import due_at
from api.services.places import place
from api.services.writing import insert_once, locked, made_before, touch

APPLICABLE = {
    "member_id": {RequestKind.access, RequestKind.erasure, RequestKind.restriction},
    "household_id": set(RequestKind),
    "identifier": {RequestKind.access, RequestKind.erasure},
}
"""What each may ask for: consent is a household's; on a hash there is nothing to restrict."""


def _read(row: DataSubjectRequest) -> DataSubjectRequestRead:
    status = RequestStatus.open if row.fulfilled_at is None else RequestStatus.fulfilled
    person = SubjectRead(member_id=row.member_id, household_id=row.household_id)
    return DataSubjectRequestRead(**row.model_dump(), person=person, status=status)


def _named(person: Subject, kind: RequestKind) -> str:
    """Return which field names the person; 422 unless it is one that may ask for this."""
    named = [name for name in APPLICABLE if getattr(person, name) is not None]
    if len(named) != 1:
        expected = {"expected": ", ".join(APPLICABLE)}
        raise ValidationFailed(FieldError("/person", "exactly_one", expected))
    if kind not in APPLICABLE[named[0]]:
        raise ValidationFailed(FieldError("/kind", "kind_not_applicable"))
    return named[0]


async def _office(session: AsyncSession, caller: Caller) -> dict[str, Any]:
    """Return the columns of the place at which the caller is the officer."""
    office = select(AdminUnit).where(
        col(AdminUnit.key).in_(caller.roots(Permission.subjects_write)[:1])
    )
    unit = await session.scalar(office)
    if unit is None:  # the unit of the grant was split: it gives nothing
        raise InsufficientRole
    return (await place(session, unit.id, clock.today(), set(Level))).columns()


async def create_request(
    session: AsyncSession, caller: Caller, given: DataSubjectRequestCreate
) -> tuple[DataSubjectRequestRead, bool]:
    """Open a request. 422 `not_found` for a person outside the caller's own subtree.

    The request goes in first, since only an open request shows its person at all.
    """
    if made := await made_before(session, caller, DataSubjectRequest, given):
        return _read(made), False
    person, name = given.person, _named(given.person, given.kind)
    values = await _office(session, caller) | {
        "kind": given.kind,
        "member_id": person.member_id,
        "household_id": person.household_id,
        "identifier_hashes": (
            caller.secrets.hash_generations(person.identifier) if person.identifier else []
        ),
        "note": given.note,
        "due_at": due_at(given.kind, clock.now()),
    }
    row, is_new = await insert_once(session, caller, DataSubjectRequest, given, values)
    if is_new and name != "identifier":
        await _check_person(session, row, name)
    return _read(row), is_new


async def _check_person(session: AsyncSession, row: DataSubjectRequest, name: str) -> None:
    """Refuse a person who is not in the caller's reach, or has no consent to withdraw."""
    async with as_subjects(session):
        if name == "member_id":
            found: Any = await session.get(Member, row.member_id)
        else:
            found = await session.get(Household, row.household_id)
        if found is None:
            raise not_found_at(f"/person/{name}")
        if row.kind is RequestKind.withdrawal and not _standing(found):
            raise ValidationFailed(FieldError("/kind", "no_consent"))


def _standing(household: Household) -> Consent | None:
    """Return the consent on which the household's data rests, unless it was withdrawn."""
    consent = Consent.model_validate(household.consent) if household.consent else None
    if consent is None or consent.basis is not LegalBasis.consent or consent.withdrawn_at:
        return None
    return consent


async def list_requests(
    session: AsyncSession, caller: Caller, query: DataSubjectRequestQuery
) -> DataSubjectRequestPage:
    """Return a page of the requests of the caller's own subtree."""
    table = DataSubjectRequest
    statement = visible(table, caller, Permission.subjects_write)
    if len(set(query.status)) == 1:
        is_open = query.status[0] is RequestStatus.open
        done = col(table.fulfilled_at)
        statement = statement.where(done.is_(None) if is_open else done.is_not(None))
    if query.kind:
        statement = statement.where(col(table.kind).in_(query.kind))
    if query.due_at_lt:
        statement = statement.where(col(table.due_at) < query.due_at_lt)

    def read(rows: Sequence[Row[Any]]) -> list[DataSubjectRequestRead]:
        return [_read(row.DataSubjectRequest) for row in rows]

    order = Order(col(table.due_at), col(table.id))
    page = await paginate(session, caller.cursors, query, statement, order, read)
    return DataSubjectRequestPage(**dict(page))


async def find_request(
    session: AsyncSession, caller: Caller, request_id: UUID, *, lock: bool = False
) -> DataSubjectRequest:
    """Return a request of the caller's own subtree; 404 for any other.

    The hashes of an open one are brought to the newest generation first, so that it still names
    its person after a rotation of keys.
    """
    statement = visible(DataSubjectRequest, caller, Permission.subjects_write).where(
        col(DataSubjectRequest.id) == request_id
    )
    row = await session.scalar(locked(statement) if lock else statement)
    if row is None:
        raise NotFound
    if row.fulfilled_at is None and row.identifier_hashes:
        last = len(row.identifier_hashes) - 1
        row.identifier_hashes = caller.secrets.wrap(row.identifier_hashes, last)
        await session.flush()
    return row


async def get_request(
    session: AsyncSession, caller: Caller, request_id: UUID
) -> DataSubjectRequestRead:
    """Return a request of the caller's own subtree."""
    return _read(await find_request(session, caller, request_id))


async def fulfil(
    session: AsyncSession, caller: Caller, request_id: UUID, given: DataSubjectRequestFulfil
) -> DataSubjectRequestRead:
    """Do what was asked for and close the request; one that is closed stays as it is."""
    row = await find_request(session, caller, request_id, lock=True)
    if row.fulfilled_at is not None:
        return _read(row)
    match row.kind:
        case RequestKind.erasure:
            row.identifier_hashes = await redaction.redact(session, caller, row)
            await _forget_notes(session, row)
        case RequestKind.restriction:
            await _restrict(session, row)
        case RequestKind.withdrawal:
            await _withdraw(session, row)
        case _:
            pass
    if row.kind is not RequestKind.erasure:
        row.identifier_hashes = []
    row.fulfilled_at, row.fulfilled_by, row.outcome = clock.now(), caller.id, given.reason
    touch(row)
    await session.flush()
    return _read(row)


async def _forget_notes(session: AsyncSession, row: DataSubjectRequest) -> None:
    """Empty the free texts of every request of somebody who was erased."""
    table = DataSubjectRequest
    same = [col(table.id) == row.id]
    if row.member_id:
        same.append(col(table.member_id) == row.member_id)
    if row.household_id:
        same.append(col(table.household_id) == row.household_id)
    values: dict[str, Any] = {"note": None, "outcome": None}
    await session.execute(update(table).where(or_(*same)).values(values))
    if not (row.member_id or row.household_id):  # the content held the identifier
        row.content_hash = None
    await session.refresh(row, ["note", "outcome"])


async def _person(session: AsyncSession, row: DataSubjectRequest) -> Member | Household | None:
    """Return the person whom a request names, locked for a change."""
    if row.member_id:
        member = select(Member).where(col(Member.id) == row.member_id)
        return await session.scalar(locked(member))
    household = select(Household).where(col(Household.id) == row.household_id)
    return await session.scalar(locked(household))


async def _restrict(session: AsyncSession, row: DataSubjectRequest) -> None:
    """From now on the person's data may only be kept."""
    async with as_subjects(session):
        person = await _person(session, row)
        if person and not (person.restricted_at or person.redacted_at):
            person.restricted_at = clock.now()
            touch(person)
        await session.flush()


async def _withdraw(session: AsyncSession, row: DataSubjectRequest) -> None:
    """Withdraw the consent that stands; the change makes its own entry in the ledger."""
    async with as_subjects(session):
        household = await _person(session, row)
        consent = _standing(household) if isinstance(household, Household) else None
        if isinstance(household, Household) and consent:
            consent.withdrawn_at = clock.now()
            household.consent = consent.model_dump(mode="json")
            touch(household)
        await session.flush()
