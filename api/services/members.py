"""Members: people of teams, whose personal fields only some may see."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, ColumnElement, Row, literal_column
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from api import clock, ids
from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.auth.scope import visible
from api.driver import Connection, Hot, connection_of
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
    MemberUpdate,
    Stay,
)
from api.pagination import Order, paginate
from api.services import external_ids
from api.services.audit import record_one, record_read
from api.services.masking import PERSONAL, check_unsealed, mask, sees_people
from api.services.memberships import insert_memberships, lock_member, put_memberships
from api.services.one_row import find, one_row
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


_STAYS: ColumnElement[Any] = literal_column(
    "(select json_agg(s order by s.joined_on, s.team_id)"
    " from membership s where s.member_id = member.id)",
    JSON,
).label("stays")
_ONE = one_row(Member, {Permission.members_read}, _STAYS)


def is_youth(member: Mapping[str, Any], day: date) -> bool | None:
    """Tell whether someone is youth on a day: a union member, or aged 16-30.

    `None` when neither is known.
    """
    if member["is_youth_union_member"]:
        return True
    born = member["birth_year"]
    return None if born is None else day.year - born in YOUTH


def _stays(caller: Caller, member: Mapping[str, Any]) -> list[Stay]:
    """Return a member's stays that the caller may see, by their beginnings."""
    reach = caller.reach(Permission.members_read)
    stays = (Stay.model_validate(stay) for stay in member["stays"] or ())
    return [stay for stay in stays if reach.covers(stay, stay.team_id)]


def _read(caller: Caller, member: dict[str, Any], stays: Sequence[Stay]) -> MemberRead:
    hidden: Sequence[str] = ()
    if not sees_people(caller, member["created_by"], *((stay, stay.team_id) for stay in stays)):
        named = caller.reach(Permission.names_read)
        hidden = PERSONAL[RESOURCE]
        if any(named.covers(stay) for stay in stays):
            hidden = [name for name in hidden if name != "full_name"]
    if member["restricted_at"]:
        hidden = PERSONAL[RESOURCE]
    redacted = member["redacted_at"]
    return MemberRead(
        **mask(member | (NEVER_SHOWN if redacted else {}), hidden),
        is_youth=None if redacted else is_youth(member, clock.today()),
        memberships=[*stays],
    )


async def list_members(session: AsyncSession, caller: Caller, query: MemberQuery) -> MemberPage:
    """Return a page of the members in scope."""
    statement = visible(Member, caller, Permission.members_read).add_columns(_STAYS)
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

    def read(rows: Sequence[Row[Any]]) -> list[tuple[MemberRead, UUID]]:
        found = [dict(row.Member, stays=row.stays) for row in rows]
        every = [(member, _stays(caller, member)) for member in found]
        return [(_read(caller, member, stays), stays[-1].unit_id) for member, stays in every]

    order = Order(col(Member.id), col(Member.id))
    page = await paginate(session, caller.cursors, query, statement, order, read)
    await record_read(await connection_of(session), caller, RESOURCE, page.items, query)
    items = [member for member, _ in page.items]
    return MemberPage(items=items, next_cursor=page.next_cursor, total=page.total)


async def _find(
    database: Connection, caller: Caller, member_id: UUID, *, hidden: bool = False
) -> tuple[MemberRead, list[Stay]]:
    """Return a member as the caller may see it, and by which stays: by one at least."""
    row = await find(database, caller, _ONE, member_id, hidden=hidden)
    stays = _stays(caller, row)
    if not stays:
        raise NotFound
    return _read(caller, row, stays), stays


async def get_member(database: Hot, caller: Caller, member_id: UUID) -> MemberRead:
    """Return a member in scope; absent and out of scope look alike."""
    member, stays = await _find(database, caller, member_id)
    await record_one(database, caller, RESOURCE, member, stays[-1].model_dump())
    return member


async def _present(
    session: AsyncSession, caller: Caller, member_id: UUID, *, records: bool = False
) -> MemberRead:
    """Return a member as it is within the transaction; `records` records that as a read."""
    database = await connection_of(session)
    member, stays = await _find(database, caller, member_id, hidden=True)
    if records:
        await record_read(database, caller, RESOURCE, [(member, stays[-1].unit_id)])
    return member


async def create_member(
    session: AsyncSession, caller: Caller, given: MemberCreate
) -> tuple[MemberRead, bool]:
    """Create a person who joins teams in the caller's scope.

    The memberships go in first: scope comes from them, in the database as here.
    """
    if made := await made_before(session, caller, Member, given):
        return await _present(session, caller, made.id, records=True), False
    given.id = given.id or ids.new_id()
    await insert_memberships(session, caller, given.id, given.memberships)
    values = given.model_dump(exclude={"id", "memberships"})
    row, is_new = await insert_once(session, caller, Member, given, values)
    if is_new:
        await external_ids.claim(session, caller, RESOURCE, row.id, given.external_ids)
    return await _present(session, caller, row.id, records=not is_new), is_new


async def _lock(
    session: AsyncSession, caller: Caller, member_id: UUID, expected: int, *, hidden: bool = False
) -> tuple[Member, MemberRead]:
    """Lock a member of a team that the caller may write; 404, 403, then 412."""
    member = await lock_member(session, caller, member_id, hidden=hidden)
    current, stays = await _find(await connection_of(session), caller, member_id, hidden=True)
    writes = caller.reach(Permission.members_write)
    if not any(writes.covers(stay, stay.team_id) for stay in stays):
        raise NotFound if member.deleted_at else InsufficientRole
    shown = [(current, stays[-1].unit_id)]
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
        return await _present(session, caller, member_id, records=True)
    if "external_ids" in values:
        await external_ids.claim(session, caller, RESOURCE, member_id, values["external_ids"])
    change_row(member, values)
    await session.flush()
    return await _present(session, caller, member_id)


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
) -> None:
    """Bring a hidden person back; one who is there stays as they are."""
    member, _ = await _lock(session, caller, member_id, expected, hidden=True)
    bring_back(member)
    await session.flush()


async def undelete_member(
    session: AsyncSession, caller: Caller, member_id: UUID, expected: int
) -> MemberRead:
    """Bring a hidden person back, and show them: who was there may have been changed since."""
    await bring_member_back(session, caller, member_id, expected)
    return await _present(session, caller, member_id, records=True)
