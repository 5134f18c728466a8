"""Members: people of teams, whose personal fields only some may see."""

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from api import clock, ids
from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.auth.scope import visible
from api.driver import connection_of
from api.errors import InsufficientRole, NotFound
from api.models.members import (
    Gender,
    Member,
    MemberCreate,
    MemberPage,
    MemberQuery,
    MemberRead,
    MemberRewrite,
    Membership,
    MembershipRead,
    MemberUpdate,
)
from api.pagination import Order, paginate
from api.services import external_ids
from api.services.audit import record_read
from api.services.masking import PERSONAL, check_unsealed, mask, sees_people
from api.services.memberships import insert_memberships, lock_member, put_memberships
from api.services.places import under
from api.services.writing import (
    bring_back,
    change_row,
    changed_values,
    check_version,
    hide,
    insert_once,
    made_before,
)

RESOURCE = "members"
NEVER_SHOWN = {"full_name": None, "birth_year": None, "gender": Gender.unstated}
"""What a row of an erased person still holds, for counting only."""
REQUIRED = frozenset({"full_name", "gender", "is_youth_union_member", "external_ids"})
YOUTH = range(16, 31)


def is_youth(member: Member, day: date) -> bool | None:
    """Tell whether someone is youth on a day: a union member, or aged 16-30.

    `None` when neither is known.
    """
    if member.is_youth_union_member:
        return True
    return None if member.birth_year is None else day.year - member.birth_year in YOUTH


async def _memberships(
    session: AsyncSession, caller: Caller, members: Iterable[UUID]
) -> dict[UUID, list[Membership]]:
    """Return the stays that the caller may see, by member, in one statement."""
    statement = (
        select(Membership)
        .where(
            col(Membership.member_id).in_(list(members)),
            caller.reach(Permission.members_read).filter(Membership),
        )
        .order_by(col(Membership.joined_on), col(Membership.team_id))
        .execution_options(populate_existing=True)
    )
    found: dict[UUID, list[Membership]] = {}
    for stay in await session.scalars(statement):
        found.setdefault(stay.member_id, []).append(stay)
    return found


def _read(caller: Caller, member: Member, stays: Sequence[Membership]) -> MemberRead:
    hidden: Sequence[str] = ()
    if not sees_people(caller, member.created_by, *((stay, stay.team_id) for stay in stays)):
        named = caller.reach(Permission.names_read)
        hidden = PERSONAL[RESOURCE]
        if any(named.covers(stay) for stay in stays):
            hidden = [name for name in hidden if name != "full_name"]
    if member.restricted_at:
        hidden = PERSONAL[RESOURCE]
    held = member.model_dump() | (NEVER_SHOWN if member.redacted_at else {})
    return MemberRead(
        **mask(held, hidden),
        is_youth=None if member.redacted_at else is_youth(member, clock.today()),
        memberships=[MembershipRead.model_validate(stay.model_dump()) for stay in stays],
    )


async def list_members(session: AsyncSession, caller: Caller, query: MemberQuery) -> MemberPage:
    """Return a page of the members in scope; two statements whatever its size."""
    statement = visible(Member, caller, Permission.members_read)
    stays = select(col(Membership.member_id)).where(
        caller.reach(Permission.members_read).filter(Membership)
    )
    if query.unit_id:
        inside = stays.where(col(Membership.unit_key).in_(under(query.unit_id, clock.today())))
        statement = statement.where(col(Member.id).in_(inside))
    if query.team_id:
        inside = stays.where(col(Membership.team_id).in_(query.team_id))
        statement = statement.where(col(Member.id).in_(inside))
    if query.external_id:
        statement = statement.where(
            col(Member.id).in_(external_ids.named(RESOURCE, query.external_id))
        )

    def rows_of(rows: Sequence[Row[Any]]) -> list[Member]:
        return [row.Member for row in rows]

    order = Order(col(Member.id), col(Member.id))
    page = await paginate(session, caller.cursors, query, statement, order, rows_of)
    found = await _memberships(session, caller, [member.id for member in page.items])
    items = [_read(caller, member, found.get(member.id, [])) for member in page.items]
    shown = [(row, _unit_of(found.get(row.id, []))) for row in items]
    await record_read(await connection_of(session), caller, RESOURCE, shown, query)
    return MemberPage(items=items, next_cursor=page.next_cursor, total=page.total)


def _unit_of(stays: Sequence[Membership]) -> UUID | None:
    return stays[-1].unit_id if stays else None


async def _present(
    session: AsyncSession, caller: Caller, member: Member, *, records: bool = False
) -> MemberRead:
    """Return a member as the caller may see it; with `records` that is recorded as a read."""
    stays = (await _memberships(session, caller, [member.id])).get(member.id, [])
    present = _read(caller, member, stays)
    if records:
        await record_read(
            await connection_of(session), caller, RESOURCE, [(present, _unit_of(stays))]
        )
    return present


async def get_member(session: AsyncSession, caller: Caller, member_id: UUID) -> MemberRead:
    """Return a member in scope; absent and out of scope look alike."""
    found = visible(Member, caller, Permission.members_read).where(col(Member.id) == member_id)
    member = await session.scalar(found)
    if member is None:
        raise NotFound
    return await _present(session, caller, member, records=True)


async def create_member(
    session: AsyncSession, caller: Caller, given: MemberCreate
) -> tuple[MemberRead, bool]:
    """Create a person who joins teams in the caller's scope.

    The memberships go in first: scope comes from them, in the database as here.
    """
    if made := await made_before(session, caller, Member, given):
        return await _present(session, caller, made, records=True), False
    given.id = given.id or ids.new_id()
    await insert_memberships(session, caller, given.id, given.memberships)
    values = given.model_dump(exclude={"id", "memberships"})
    row, is_new = await insert_once(session, caller, Member, given, values)
    if is_new:
        await external_ids.claim(session, caller, RESOURCE, row.id, given.external_ids)
    return await _present(session, caller, row, records=not is_new), is_new


async def _lock(
    session: AsyncSession, caller: Caller, member_id: UUID, expected: int, *, hidden: bool = False
) -> tuple[Member, MemberRead]:
    """Lock a member of a team that the caller may write; 404, 403, then 412."""
    member = await lock_member(session, caller, member_id, hidden=hidden)
    stays = (await _memberships(session, caller, [member_id])).get(member_id, [])
    writes = caller.reach(Permission.members_write)
    if not any(writes.covers(stay, stay.team_id) for stay in stays):
        raise NotFound if member.deleted_at else InsufficientRole
    current = _read(caller, member, stays)
    shown = [(current, _unit_of(stays))]
    check_version(current, expected, lambda own: record_read(own, caller, RESOURCE, shown))
    check_unsealed(member)
    return member, current


async def update_member(
    session: AsyncSession, caller: Caller, member_id: UUID, expected: int, change: MemberUpdate
) -> MemberRead:
    """Change a person; a masked field may be overwritten, never read."""
    member, current = await _lock(session, caller, member_id, expected)
    values = changed_values(current, change, REQUIRED)
    if not values:
        return await _present(session, caller, member, records=True)
    if "external_ids" in values:
        await external_ids.claim(session, caller, RESOURCE, member_id, values["external_ids"])
    change_row(member, values)
    await session.flush()
    return await _present(session, caller, member)


async def rewrite_member(
    session: AsyncSession, caller: Caller, member_id: UUID, expected: int, change: MemberRewrite
) -> MemberRead:
    """Join or change the stays that are named, and change the fields that are given."""
    await put_memberships(session, caller, member_id, change.memberships)
    given = change.model_dump(exclude={"memberships"}, exclude_unset=True)
    return await update_member(
        session, caller, member_id, expected, MemberUpdate.model_validate(given)
    )


async def delete_member(
    session: AsyncSession, caller: Caller, member_id: UUID, expected: int
) -> None:
    """Hide a person who was entered by mistake (one who goes leaves the team instead)."""
    member, _ = await _lock(session, caller, member_id, expected)
    hide(member)
    await session.flush()


async def bring_member_back(
    session: AsyncSession, caller: Caller, member_id: UUID, expected: int
) -> Member:
    """Bring a hidden person back; one who is there stays as they are."""
    member, _ = await _lock(session, caller, member_id, expected, hidden=True)
    bring_back(member)
    await session.flush()
    return member


async def undelete_member(
    session: AsyncSession, caller: Caller, member_id: UUID, expected: int
) -> MemberRead:
    """Bring a hidden person back, and show them: who was there may have been changed since."""
    member = await bring_member_back(session, caller, member_id, expected)
    return await _present(session, caller, member, records=True)
