"""The principal behind the token: who it is, and its password."""

from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from api.auth.caller import Caller
from api.auth.password_policy import check_password
from api.auth.passwords import hash_secret, verify_secret
from api.errors import FieldError, InsufficientRole, ValidationFailed
from api.models.principals import GrantOfMe, MeRead, PasswordChange, Principal, PrincipalKind
from api.services import totp
from api.services.admin_units import get_units
from api.services.guessing import Proof
from api.services.sessions import end_others
from api.services.writing import locked, touch


async def who_am_i(session: AsyncSession, caller: Caller) -> MeRead:
    """Return the principal behind the token with the grants that hold today."""
    units = await get_units(session, {grant.unit_id for grant in caller.grants})
    grants = [
        GrantOfMe(
            id=grant.id,
            role=grant.role,
            unit_id=grant.unit_id,
            unit_name=units[grant.unit_id].name,
            unit_level=units[grant.unit_id].level,
            team_id=grant.team_id,
        )
        for grant in caller.grants
    ]
    kind = PrincipalKind(caller.kind)
    return MeRead(
        id=caller.id,
        kind=kind,
        name=caller.name,
        member_id=caller.member_id,
        device_id=caller.id if kind is PrincipalKind.device else None,
        must_change_password=caller.must_change_password,
        totp_enabled=await totp.is_on(session, caller.id),
        grants=grants,
    )


async def change_password(session: AsyncSession, caller: Caller, given: PasswordChange) -> None:
    """Change one's password: all other sessions of the person end.

    422 `password_wrong` for the present one, and 429 after too many of these; `password_common`
    or `password_unchanged` for the new one. 403 for systems and devices, which have none.
    """
    if caller.kind != PrincipalKind.user:
        raise InsufficientRole
    found = await session.scalars(locked(select(Principal).where(col(Principal.id) == caller.id)))
    person = found.one()
    proof = Proof.of(caller.secrets, "password", caller.id)
    await proof.check(session)
    right = await verify_secret(given.current_password, person.secret_hash)
    if not await proof.settle(session, right=right):
        await session.commit()  # the count stays though the request is refused
        raise ValidationFailed(FieldError("/current_password", "password_wrong"))
    if given.new_password == given.current_password:
        raise ValidationFailed(FieldError("/new_password", "password_unchanged"))
    check_password(given.new_password, person.login, "/new_password")
    person.secret_hash = await hash_secret(given.new_password)
    person.must_change_password = False
    touch(person)
    await session.flush()
    await end_others(session, caller.id, caller.session_id)
