"""Users and clients: whoever may grant a role may create them."""

from typing import Any
from uuid import UUID

from jose import jwk
from jose.exceptions import JWKError
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from api import clock, ids
from api.auth.caller import Caller
from api.auth.issuers import Issuers
from api.auth.password_policy import check_password
from api.auth.passwords import hash_secret, new_secret
from api.auth.permissions import Permission
from api.auth.scope import visible
from api.errors import Conflict, FieldError, IdConflict, NotFound, ValidationFailed, not_found_at
from api.models.members import Member
from api.models.principals import (
    ClientCreate,
    ClientRead,
    ClientSecret,
    Principal,
    PrincipalKind,
    PublicKeys,
    UserCreate,
    UserRead,
)
from api.services import identities
from api.services.oauth import ASSERTION_ALGORITHMS
from api.services.writing import locked, touch

SHORTEST_RSA = 2048


async def insert_principal(session: AsyncSession, **values: Any) -> Principal | None:
    """Insert a principal; `None` when its id or its login is taken."""
    now = clock.now()
    row = {"version": 1, "created_at": now, "updated_at": now} | values
    statement = insert(Principal).values(row).on_conflict_do_nothing().returning(Principal)
    return (await session.execute(statement)).scalar_one_or_none()


def _user(row: Principal) -> UserRead:
    return UserRead(**row.model_dump(), username=row.login, full_name=row.name)


async def create_user(
    session: AsyncSession, caller: Caller, issuers: Issuers, given: UserCreate
) -> tuple[UserRead, bool]:
    """Create a person who signs in. 409 `conflict` when the name or an identity is taken.

    A user may stand for a member whom the caller can see: 422 `not_found` for any other, and
    `password_common` for a password that is guessed early.
    """
    if given.member_id:
        seen = visible(Member, caller, Permission.members_read)
        if await session.scalar(seen.where(col(Member.id) == given.member_id)) is None:
            raise not_found_at("/member_id")
    check_password(given.password, given.username, "/password")
    identities.check_issuers(issuers, given.identities)
    later = set() if given.identities else {"identities"}  # as hashed before there were any
    content = caller.secrets.hash_content(given.model_dump(exclude={"id"} | later))
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
        await identities.give(session, caller, user_id, given.identities)
        return _user(made), True
    known = await session.get(Principal, user_id)
    if known is None:
        raise Conflict(FieldError("/username", "taken"))
    if known.content_hash != content or known.created_by != caller.id:
        raise IdConflict
    return _user(known), False


async def create_client(session: AsyncSession, caller: Caller, given: ClientCreate) -> ClientSecret:
    """Create a system; its secret is shown this once, so a repeated id is a conflict.

    With keys of its own it gets no secret: one is hashed all the same, and thrown away.
    """
    client_id = given.id or ids.new_id()
    secret = new_secret()
    keys = _usable(given.jwks, "/jwks") if given.jwks else None
    made = await insert_principal(
        session,
        id=client_id,
        kind=PrincipalKind.client,
        login=str(client_id),
        secret_hash=await hash_secret(secret),
        name=given.name,
        public_jwks=keys,
        created_by=caller.id,
    )
    if made is None:
        raise IdConflict
    return _client(made, None if keys else secret)


def _usable(jwks: PublicKeys, pointer: str) -> dict[str, Any]:
    """Return keys as they are kept; 422 for one that cannot verify anything, or is too weak."""
    kept = jwks.model_dump(mode="json", exclude_none=True)
    for index, key in enumerate(kept["keys"]):
        try:
            parsed: Any = jwk.construct(key, ASSERTION_ALGORITHMS[key["kty"]])
            strong = key["kty"] == "EC" or parsed.prepared_key.key_size >= SHORTEST_RSA
        except (JWKError, ValueError, KeyError):
            strong = False
        if not strong:
            raise ValidationFailed(FieldError(f"{pointer}/keys/{index}", "key_invalid"))
    return kept


def _client(row: Principal, secret: str | None) -> ClientSecret:
    return ClientSecret(**row.model_dump(), client_id=row.login, client_secret=secret)


async def rotate_secret(session: AsyncSession, caller: Caller, client_id: UUID) -> ClientSecret:
    """Give a client that the caller made a new secret; the old one ends at once.

    409 for one that signs with keys of its own.
    """
    client = await _own_client(session, caller, client_id)
    if client.public_jwks is not None:
        raise Conflict(FieldError("/jwks", "signs_with_keys"))
    secret = new_secret()
    client.secret_hash = await hash_secret(secret)
    touch(client)
    await session.flush()
    return _client(client, secret)


async def replace_keys(
    session: AsyncSession, caller: Caller, client_id: UUID, jwks: PublicKeys
) -> ClientRead:
    """Give a client that the caller made these public keys; any others, or its secret, end."""
    client = await _own_client(session, caller, client_id)
    if client.public_jwks is None:
        client.secret_hash = await hash_secret(new_secret())  # which nobody knows
    client.public_jwks = _usable(jwks, "")
    touch(client)
    await session.flush()
    return ClientRead(**client.model_dump(), client_id=client.login)


async def _own_client(session: AsyncSession, caller: Caller, client_id: UUID) -> Principal:
    """Return a client that the caller made, locked; any other is not found."""
    client = await session.scalar(
        locked(
            select(Principal).where(
                Principal.id == client_id,
                Principal.kind == PrincipalKind.client,
                Principal.created_by == caller.id,
            )
        )
    )
    if client is None:
        raise NotFound
    return client
