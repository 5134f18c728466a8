"""Users and clients: whoever may grant a role may create them."""

from typing import Any
from uuid import UUID

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import select

from api import clock, ids
from api.auth.caller import Caller
from api.auth.passwords import hash_secret, new_secret
from api.errors import Conflict, FieldError, IdConflict, NotFound
from api.models.principals import (
    ClientCreate,
    ClientSecret,
    GrantOfMe,
    MeRead,
    Principal,
    PrincipalKind,
    UserCreate,
    UserRead,
)
from api.services.admin_units import get_unit


async def insert_principal(session: AsyncSession, **values: Any) -> Principal | None:
    """Insert a principal; `None` when its id or its login is taken."""
    now = clock.now()
    row = {"version": 1, "created_at": now, "updated_at": now} | values
    statement = insert(Principal).values(row).on_conflict_do_nothing().returning(Principal)
    return (await session.execute(statement)).scalar_one_or_none()


def _user(row: Principal) -> UserRead:
    return UserRead(**row.model_dump(), username=row.login, full_name=row.name)


async def create_user(
    session: AsyncSession, caller: Caller, given: UserCreate
) -> tuple[UserRead, bool]:
    """Create a person who signs in. 409 `conflict` when the name is taken."""
    content = caller.secrets.hash_content(given.model_dump(exclude={"id"}))
    user_id = given.id or ids.new_id()
    made = await insert_principal(
        session,
        id=user_id,
        kind=PrincipalKind.user,
        login=given.username,
        secret_hash=await hash_secret(given.password),
        name=given.full_name,
        member_id=given.member_id,
        must_change_password=given.must_change_password,
        created_by=caller.id,
        content_hash=content,
    )
    if made is not None:
        return _user(made), True
    known = await session.get(Principal, user_id)
    if known is None:
        raise Conflict(FieldError("/username", "taken"))
    if known.content_hash != content or known.created_by != caller.id:
        raise IdConflict
    return _user(known), False


async def create_client(session: AsyncSession, caller: Caller, given: ClientCreate) -> ClientSecret:
    """Create a system; its secret is shown this once, so a repeated id is a conflict."""
    client_id = given.id or ids.new_id()
    secret = new_secret()
    made = await insert_principal(
        session,
        id=client_id,
        kind=PrincipalKind.client,
        login=str(client_id),
        secret_hash=await hash_secret(secret),
        name=given.name,
        created_by=caller.id,
    )
    if made is None:
        raise IdConflict
    return _client(made, secret)


def _client(row: Principal, secret: str) -> ClientSecret:
    return ClientSecret(**row.model_dump(), client_id=row.login, client_secret=secret)


async def rotate_secret(session: AsyncSession, caller: Caller, client_id: UUID) -> ClientSecret:
    """Give a client that the caller made a new secret; the old one ends at once."""
    client = await session.scalar(
        select(Principal)
        .where(
            Principal.id == client_id,
            Principal.kind == PrincipalKind.client,
            Principal.created_by == caller.id,
        )
        .with_for_update()
    )
    if client is None:
        raise NotFound
    secret = new_secret()
    client.secret_hash = await hash_secret(secret)
    client.version += 1
    client.updated_at = clock.now()
    await session.flush()
    return _client(client, secret)


async def who_am_i(session: AsyncSession, caller: Caller) -> MeRead:
    """Return the principal behind the token with the grants that hold today."""
    grants = []
    for grant in caller.grants:
        unit = await get_unit(session, grant.unit_id)
        grants.append(
            GrantOfMe(
                id=grant.id,
                role=grant.role,
                unit_id=grant.unit_id,
                unit_name=unit.name,
                unit_level=unit.level,
                team_id=grant.team_id,
            )
        )
    return MeRead(
        id=caller.id,
        kind=PrincipalKind(caller.kind),
        name=caller.name,
        member_id=caller.member_id,
        grants=grants,
    )
