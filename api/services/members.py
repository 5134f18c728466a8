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
from api.errors import InsufficientRole, NotFound
from api.models.members import (
    Member,
    MemberCreate,
    MemberPage,
    MemberQuery,
    MemberRead,
    Membership,
    MembershipRead,
    MemberUpdate,
)
from api.pagination import Order, paginate
from api.services import external_ids
from api.services.masking import mask, sees_people
from api.services.memberships import insert_memberships
from api.services.places import under
from api.services.writing import changed_values, check_version, insert_once, touch

RESOURCE = "members"
PERSONAL = ("full_name", "birth_year", "phone")
REQUIRED = frozenset({"full_name", "gender", "is_youth_union_member", "external_ids"})
YOUTH = range(16, 31)


def is_youth(member: Member, day: date) -> bool:
    """Tell whether someone is youth on a day: a union member, or aged 16-30."""
    return member.is_youth_union_member or (
        member.birth_year is not None and day.year - member.birth_year in YOUTH
    )


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
    )
    found: dict[UUID, list[Membership]] = {}
    for stay in await session.scalars(statement):
        found.setdefault(stay.member_id, []).append(stay)
    return found


def _read(caller: Caller, member: Member, stays: Sequence[Membership]) -> MemberRead:
    hidden: Sequence[str] = ()
    if not sees_people(caller, member.created_by, *((stay, stay.team_id) for stay in stays)):
        named = caller.reach(Permission.names_read)
        hidden = PERSONAL[1:] if any(named.covers(stay) for stay in stays) else PERSONAL
    values = mask(member.model_dump(), hidden)
    return MemberRead(
        **values,
        is_youth=is_youth(member, clock.today()),
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
    return MemberPage(items=items, next_cursor=page.next_cursor, total=page.total)


async def _find(
    session: AsyncSession, caller: Caller, member_id: UUID, *, lock: bool = False
) -> Member:
    statement = visible(Member, caller, Permission.members_read).where(col(Member.id) == member_id)
    member = await session.scalar(statement.with_for_update() if lock else statement)
    if member is None:
        raise NotFound
    return member


async def _present(session: AsyncSession, caller: Caller, member: Member) -> MemberRead:
    stays = await _memberships(session, caller, [member.id])
    return _read(caller, member, stays.get(member.id, []))


async def get_member(session: AsyncSession, caller: Caller, member_id: UUID) -> MemberRead:
    """Return a member in scope; absent and out of scope look alike."""
    return await _present(session, caller, await _find(session, caller, member_id))


async def create_member(
    session: AsyncSession, caller: Caller, given: MemberCreate
) -> tuple[MemberRead, bool]:
    """Create a person who joins teams in the caller's scope.

    The memberships go in first: scope comes from them, in the database as here.
    """
    member_id = given.id
    known = member_id and await session.scalar(
        visible(Member, caller, Permission.members_read, hidden=True)
        .with_only_columns(col(Member.id))
        .where(col(Member.id) == member_id)
    )
    if member_id is None:
        given.id = member_id = ids.new_id()
    if not known:
        await insert_memberships(session, caller, member_id, given.memberships)
    values = given.model_dump(exclude={"id", "memberships"})
    row, is_new = await insert_once(session, caller, Member, given, values)
    if is_new:
        await external_ids.claim(session, caller, RESOURCE, row.id, given.external_ids)
    return await _present(session, caller, row), is_new


async def _lock(
    session: AsyncSession, caller: Caller, member_id: UUID, expected: int
) -> tuple[Member, MemberRead]:
    """Lock a member of a team that the caller may write; 404, 403, then 412."""
    member = await _find(session, caller, member_id, lock=True)
    stays = (await _memberships(session, caller, [member_id])).get(member_id, [])
    writes = caller.reach(Permission.members_write)
    if not any(writes.covers(stay, stay.team_id) for stay in stays):
        raise InsufficientRole
    current = _read(caller, member, stays)
    check_version(current, expected)
    return member, current


async def update_member(
    session: AsyncSession, caller: Caller, member_id: UUID, expected: int, change: MemberUpdate
) -> MemberRead:
    """Change a person; a masked field may be overwritten, never read."""
    member, current = await _lock(session, caller, member_id, expected)
    values = changed_values(member, change, REQUIRED)
    if not values:
        return current
    for name, value in values.items():
        setattr(member, name, value)
    if "external_ids" in values:
        await external_ids.claim(session, caller, RESOURCE, member_id, values["external_ids"])
    touch(member)
    await session.flush()
    return await _present(session, caller, member)


async def delete_member(
    session: AsyncSession, caller: Caller, member_id: UUID, expected: int
) -> None:
    """Hide a person who was entered by mistake (one who goes leaves the team instead)."""
    member, _ = await _lock(session, caller, member_id, expected)
    member.deleted_at = clock.now()
    touch(member)
    await session.flush()
