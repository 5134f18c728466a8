"""Memberships: joining a team, changing the role, leaving."""

from collections.abc import Sequence
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import func, or_, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from api import clock
from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.auth.scope import visible
from api.errors import (
    Conflict,
    FieldError,
    InsufficientRole,
    NotFound,
    ValidationFailed,
    not_found_at,
)
from api.models.members import (
    Member,
    Membership,
    MembershipCreate,
    MembershipFields,
    MembershipPut,
    MembershipRead,
)
from api.models.teams import Team
from api.services.writing import locked, touch


def _check_dates(team: Team, stay: MembershipFields, pointer: str) -> None:
    """Refuse a stay outside the team's own life, or that ends before it began."""
    if stay.left_on and stay.left_on < stay.joined_on:
        raise ValidationFailed(FieldError(f"{pointer}/left_on", "end_before_start"))
    if stay.joined_on < team.founded_on:
        founded = {"founded_on": team.founded_on.isoformat()}
        raise ValidationFailed(FieldError(f"{pointer}/joined_on", "before_founding", founded))
    if team.dissolved_on and stay.joined_on > team.dissolved_on:
        dissolved = {"dissolved_on": team.dissolved_on.isoformat()}
        raise ValidationFailed(FieldError(f"{pointer}/joined_on", "after_dissolution", dissolved))


def _row(member_id: UUID, team: Team, stay: MembershipFields) -> dict[str, Any]:
    return {
        "team_id": team.id,
        "member_id": member_id,
        "role": stay.role,
        "joined_on": stay.joined_on,
        "left_on": stay.left_on,
        "unit_id": team.unit_id,
        "unit_key": team.unit_key,
        "commune_key": team.commune_key,
        "province_key": team.province_key,
    }


async def _teams_of(
    session: AsyncSession, caller: Caller, stays: Sequence[MembershipCreate]
) -> dict[UUID, Team]:
    """Return the teams of a body's stays; each must be in the caller's write scope."""
    wanted = {stay.team_id for stay in stays}
    statement = visible(Team, caller, Permission.members_write).where(col(Team.id).in_(wanted))
    teams = {team.id: team for team in await session.scalars(statement)}
    for index, stay in enumerate(stays):
        if stay.team_id not in teams:
            raise not_found_at(f"/memberships/{index}/team_id")
    return teams


def _check_apart(stays: Sequence[MembershipCreate]) -> None:
    """Refuse stays of one body that overlap in the same team."""
    for index, stay in enumerate(stays):
        for other in stays[:index]:
            if (
                stay.team_id == other.team_id
                and stay.joined_on <= (other.left_on or date.max)
                and other.joined_on <= (stay.left_on or date.max)
            ):
                pointer = f"/memberships/{index}/joined_on"
                raise ValidationFailed(FieldError(pointer, "overlapping"))


async def insert_memberships(
    session: AsyncSession, caller: Caller, member_id: UUID, stays: Sequence[MembershipCreate]
) -> None:
    """Insert the first stays of a new member."""
    teams = await _teams_of(session, caller, stays)
    for index, stay in enumerate(stays):
        _check_dates(teams[stay.team_id], stay, f"/memberships/{index}")
    _check_apart(stays)
    rows = [_row(member_id, teams[stay.team_id], stay) for stay in stays]
    await session.execute(insert(Membership).values(rows).on_conflict_do_nothing())


async def _team_to_write(session: AsyncSession, caller: Caller, team_id: UUID) -> Team:
    team = await session.scalar(
        visible(Team, caller, Permission.teams_read).where(col(Team.id) == team_id)
    )
    if team is None:
        raise NotFound
    if not caller.reach(Permission.members_write).covers(team, team.id):
        raise InsufficientRole
    return team


async def lock_member(
    session: AsyncSession, caller: Caller, member_id: UUID, *, hidden: bool = False
) -> Member:
    """Lock a member: its stays change one at a time, and count as its new version.

    404, or 403 for one whom the caller may only read.
    """
    found = visible(Member, caller, Permission.members_read, hidden=hidden)
    member = await session.scalar(locked(found.where(col(Member.id) == member_id)))
    if member is None:
        seen = visible(Member, caller, Permission.members_read).where(col(Member.id) == member_id)
        raise NotFound if await session.scalar(seen) is None else InsufficientRole
    return member


_END_BEFORE = text("""
    update membership set left_on = cast(:joined_on as date) - 1
    where team_id = :team_id and member_id = :member_id
      and joined_on < :joined_on and left_on is null
""")


async def _join(
    session: AsyncSession, team: Team, member: Member, given: MembershipFields, pointer: str = ""
) -> bool:
    """Write one stay of a locked member; return whether it is new."""
    _check_dates(team, given, pointer)
    stay = await session.get(Membership, (team.id, member.id, given.joined_on))
    if stay and (stay.role, stay.left_on) == (given.role, given.left_on):
        return False
    values = _row(member.id, team, given)
    try:
        async with session.begin_nested():
            await session.execute(_END_BEFORE, values)
            if stay is None:
                session.add(Membership.model_validate(values))
            else:
                stay.role, stay.left_on = given.role, given.left_on
            touch(member)
            await session.flush()
    except IntegrityError as error:
        raise Conflict(FieldError(f"{pointer}/joined_on", "overlapping")) from error
    return stay is None


async def put_membership(
    session: AsyncSession, caller: Caller, team_id: UUID, member_id: UUID, given: MembershipPut
) -> tuple[MembershipRead, bool]:
    """Join a team, or change the stay that began on the same day.

    A stay without an end that began earlier ends the day before (a new role). 409 when the new one
    would overlap another. Returns the stay and whether it is new.
    """
    team = await _team_to_write(session, caller, team_id)
    member = await lock_member(session, caller, member_id)
    is_new = await _join(session, team, member, given)
    return MembershipRead(team_id=team_id, **given.model_dump()), is_new


async def put_memberships(
    session: AsyncSession, caller: Caller, member_id: UUID, stays: Sequence[MembershipCreate]
) -> None:
    """Write the stays that an upsert names; the others stay as they are."""
    teams = await _teams_of(session, caller, stays)
    member = await lock_member(session, caller, member_id)
    for index, stay in enumerate(stays):
        await _join(session, teams[stay.team_id], member, stay, f"/memberships/{index}")


async def leave(session: AsyncSession, caller: Caller, team_id: UUID, member_id: UUID) -> None:
    """End the present stay today, its last day; one that has not begun is taken back.

    409 for a person's only stay that has not begun: without any they would be nowhere.
    """
    await _team_to_write(session, caller, team_id)
    member = await lock_member(session, caller, member_id)
    today = clock.today()
    stay = await session.scalar(
        select(Membership)
        .where(
            col(Membership.team_id) == team_id,
            col(Membership.member_id) == member_id,
            or_(col(Membership.left_on).is_(None), col(Membership.left_on) > today),
        )
        .order_by(col(Membership.joined_on))
        .limit(1)
    )
    if stay is None:
        raise NotFound
    touch(member)
    await session.flush()  # while the member still has the stay that puts them in scope
    if stay.joined_on <= today:
        stay.left_on = today
    elif await _is_only(session, caller, stay):
        raise Conflict(FieldError("", "only_membership"))
    else:
        await session.delete(stay)
    await session.flush()


async def _is_only(session: AsyncSession, caller: Caller, stay: Membership) -> bool:
    """Tell whether the caller sees no other stay of the same member."""
    others = select(func.count()).where(
        col(Membership.member_id) == stay.member_id,
        caller.reach(Permission.members_read).filter(Membership),
    )
    return await session.scalar(others) == 1
