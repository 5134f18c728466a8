"""Memberships: joining a team, changing the role, leaving."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import or_, text
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


async def insert_memberships(
    session: AsyncSession, caller: Caller, member_id: UUID, stays: Sequence[MembershipCreate]
) -> None:
    """Insert the first stays of a new member; every team must be in the caller's write scope."""
    wanted = [stay.team_id for stay in stays]
    statement = visible(Team, caller, Permission.members_write).where(col(Team.id).in_(wanted))
    teams = {team.id: team for team in await session.scalars(statement)}
    rows = []
    for index, stay in enumerate(stays):
        pointer = f"/memberships/{index}"
        if stay.team_id not in teams:
            raise not_found_at(f"{pointer}/team_id")
        _check_dates(teams[stay.team_id], stay, pointer)
        rows.append(_row(member_id, teams[stay.team_id], stay))
    if len({(row["team_id"], row["joined_on"]) for row in rows}) < len(rows):
        raise ValidationFailed(FieldError("/memberships", "duplicate"))
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


async def _lock_member(session: AsyncSession, caller: Caller, member_id: UUID) -> Member:
    """Lock the member: its stays change one at a time, and count as its new version."""
    member = await session.scalar(
        visible(Member, caller, Permission.members_read)
        .where(col(Member.id) == member_id)
        .with_for_update()
    )
    if member is None:
        raise NotFound
    return member


_END_BEFORE = text("""
    update membership set left_on = cast(:joined_on as date) - 1
    where team_id = :team_id and member_id = :member_id
      and joined_on < :joined_on and (left_on is null or left_on >= :joined_on)
""")


async def put_membership(
    session: AsyncSession, caller: Caller, team_id: UUID, member_id: UUID, given: MembershipPut
) -> tuple[MembershipRead, bool]:
    """Join a team, or change the stay that began on the same day.

    A later day than that of the present stay ends that one the day before (a new role). 409 when
    it would overlap another stay. Returns the stay and whether it is new.
    """
    team = await _team_to_write(session, caller, team_id)
    member = await _lock_member(session, caller, member_id)
    _check_dates(team, given, "")
    values = _row(member_id, team, given)
    await session.execute(_END_BEFORE, values)
    stay = await session.get(Membership, (team_id, member_id, given.joined_on))
    is_new = stay is None
    try:
        async with session.begin_nested():
            if stay is None:
                session.add(Membership.model_validate(values))
            else:
                stay.role, stay.left_on = given.role, given.left_on
            member.version += 1
            member.updated_at = clock.now()
            await session.flush()
    except IntegrityError as error:
        raise Conflict(FieldError("/joined_on", "overlapping")) from error
    return MembershipRead(team_id=team_id, **given.model_dump()), is_new


async def leave(session: AsyncSession, caller: Caller, team_id: UUID, member_id: UUID) -> None:
    """End the present stay today, its last day; one that has not begun is taken back."""
    await _team_to_write(session, caller, team_id)
    member = await _lock_member(session, caller, member_id)
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
    if stay.joined_on > today:
        await session.delete(stay)
    else:
        stay.left_on = today
    member.version += 1
    member.updated_at = clock.now()
    await session.flush()
