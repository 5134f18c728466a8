"""Devices: a leader enrols a member's phone by a code that works once and soon expires.

A device acts as its member, in the teams of the member that lay within the scope of whoever
enrolled it: nobody hands on more than they hold. What it may do there follows the member's
memberships at each request (`auth/caller.py`), so that leaving a team ends it at once.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, or_, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from api import clock, ids
from api.auth.caller import Caller
from api.auth.codes import hash_code, new_code
from api.auth.permissions import Permission
from api.auth.scope import visible
from api.auth.tokens import Tokens
from api.errors import (
    FieldError,
    IdConflict,
    InvalidCredentials,
    NotFound,
    ValidationFailed,
    not_found_at,
)
from api.models.devices import (
    Device,
    DeviceCreate,
    DeviceEnrolment,
    DevicePage,
    DeviceQuery,
    DeviceRead,
)
from api.models.members import Member, Membership
from api.models.principals import Principal, PrincipalKind
from api.models.sessions import TokenRead
from api.pagination import Order, paginate
from api.services.guessing import Attempt, kept
from api.services.principals import insert_principal
from api.services.sessions import begin, end_all
from api.services.writing import check_version, hide, locked, touch

CODE_GROUPS = 5  # 125 bits
CODE_HOLDS = timedelta(minutes=15)
_UNNAMED = "device"

_PRESENT_CODE = text("select set_config('noidai.enrolment', :hash, true)")
_REDEEM = text("""
    update device set enrolled_at = :now, name = :name, version = version + 1, updated_at = :now
    where code_hash = :hash and enrolled_at is null and deleted_at is null
      and code_expires_at > :now
    returning id
""")


def _read(row: Device) -> DeviceRead:
    return DeviceRead.model_validate(row.model_dump())


async def _teams_within(session: AsyncSession, caller: Caller, member_id: UUID) -> list[UUID]:
    """Return the teams in scope that somebody is in today, beyond today."""
    today = clock.today()
    stays = select(Membership.team_id).where(
        col(Membership.member_id) == member_id,
        caller.reach(Permission.devices_write).filter(Membership),
        col(Membership.joined_on) <= today,
        or_(col(Membership.left_on).is_(None), col(Membership.left_on) > today),
    )
    return sorted(await session.scalars(stays))


async def create_device(
    session: AsyncSession, caller: Caller, given: DeviceCreate
) -> DeviceEnrolment:
    """Make a device of a member, with the code that enrols it; no secret takes time to hash.

    422 `not_found` for a member out of scope, `not_in_team` for one who is in no team there now.
    The code is shown this once, so a repeated id is a conflict.
    """
    seen = visible(Member, caller, Permission.devices_write)
    if await session.scalar(seen.where(col(Member.id) == given.member_id)) is None:
        raise not_found_at("/member_id")
    teams = await _teams_within(session, caller, given.member_id)
    if not teams:
        raise ValidationFailed(FieldError("/member_id", "not_in_team"))
    device_id = given.id or ids.new_id()
    principal = await insert_principal(
        session,
        id=device_id,
        kind=PrincipalKind.device,
        login=f"device:{device_id}",
        name=_UNNAMED,
        member_id=given.member_id,
        created_by=caller.id,
    )
    if principal is None:
        raise IdConflict
    code, now = new_code(CODE_GROUPS), clock.now()
    device = Device(
        id=device_id,
        created_at=now,
        updated_at=now,
        created_by=caller.id,
        member_id=given.member_id,
        team_ids=teams,
        code_hash=hash_code(caller.secrets, "enrolment", code),
        code_expires_at=now + CODE_HOLDS,
    )
    session.add(device)
    await session.flush()
    return DeviceEnrolment(**_read(device).model_dump(), enrolment_code=code)


async def enrol(
    session: AsyncSession, tokens: Tokens, code: str, name: str, address: str
) -> TokenRead:
    """Bind the device that holds the code, once; 401 for a code that is wrong, used or too old."""
    attempt = Attempt.without_name(tokens.secrets, address)
    hashed = hash_code(tokens.secrets, "enrolment", code)
    async with kept(session) as own:
        await attempt.check(own)
        await own.execute(_PRESENT_CODE, {"hash": hashed.hex()})
        redeemed = {"hash": hashed, "name": name, "now": clock.now()}
        device_id = await own.scalar(_REDEEM, redeemed)
        if device_id is not None:
            found = select(Principal).where(col(Principal.id) == device_id)
            principal = (await own.scalars(locked(found))).one()
            principal.name = name
            touch(principal)
            await own.flush()
            return await begin(own, tokens, principal, attempt)
        await attempt.count(own)
    raise InvalidCredentials(FieldError("/enrolment_code", "otp_wrong"))


async def list_devices(session: AsyncSession, caller: Caller, query: DeviceQuery) -> DevicePage:
    """Return a page of the devices of members in scope."""
    statement = visible(Device, caller, Permission.devices_write)
    if query.member_id:
        statement = statement.where(col(Device.member_id).in_(query.member_id))

    def read(rows: Sequence[Row[Any]]) -> list[DeviceRead]:
        return [_read(row.Device) for row in rows]

    order = Order(col(Device.created_at), col(Device.id))
    page = await paginate(session, caller.cursors, query, statement, order, read)
    return DevicePage(**dict(page))


async def _get(
    session: AsyncSession, caller: Caller, device_id: UUID, *, lock: bool = False
) -> Device:
    found = visible(Device, caller, Permission.devices_write).where(col(Device.id) == device_id)
    device = await session.scalar(locked(found) if lock else found)
    if device is None:
        raise NotFound
    return device


async def get_device(session: AsyncSession, caller: Caller, device_id: UUID) -> DeviceRead:
    """Return a device in scope that was not ended."""
    return _read(await _get(session, caller, device_id))


async def end_device(session: AsyncSession, caller: Caller, device_id: UUID, expected: int) -> None:
    """End a device: its code and its tokens are refused from the next request."""
    device = await _get(session, caller, device_id, lock=True)
    check_version(_read(device), expected)
    hide(device)
    found = select(Principal).where(col(Principal.id) == device_id)
    principal = (await session.scalars(locked(found))).one()
    principal.disabled_at = device.deleted_at
    touch(principal)
    await session.flush()
    await end_all(session, device_id)
