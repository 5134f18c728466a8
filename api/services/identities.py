"""Identities at other OpenID Connect issuers: linked to an account, and signed in with.

No account is made by itself: an administrator names the identity when creating the user, or the
person links it, having proved both sides. The issuers verify a token before any database
connection is taken, since they may have to be asked for their keys.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from api import clock, ids
from api.auth.caller import Caller, enter
from api.auth.issuers import Identity, Issuers
from api.auth.secrets import Secrets
from api.auth.tokens import Tokens
from api.errors import (
    Conflict,
    FieldError,
    InsufficientRole,
    InvalidCredentials,
    NotFound,
    ValidationFailed,
)
from api.models.identities import (
    ExternalIdentity,
    IdentityGiven,
    IdentityPage,
    IdentityQuery,
    IdentityRead,
)
from api.models.principals import Principal, PrincipalKind
from api.models.sessions import TokenRead
from api.pagination import Order, paginate
from api.services.guessing import Attempt, kept
from api.services.sessions import begin, second_factor

_USE = text("""
    with worn as (delete from used_id_token where token_hash = any(array(
        select token_hash from used_id_token where expires_at < :now limit 100
        for update skip locked)))
    insert into used_id_token (token_hash, expires_at) values (:token, :until)
    on conflict do nothing returning true
""")
# A new version of the person, as for a change of password: a sign-in at this moment, which read the
# identity before, either has begun its session, which ends with the identity, or finds it changed.
_NEW_VERSION = text("""
    update principal set version = version + 1, updated_at = :now where id = :principal
""")
_REMOVE = text("""
    delete from external_identity where id = :id and principal_id = :principal returning id
""")


def _hash(secrets: Secrets, issuer: str, subject: str) -> bytes:
    return secrets.hash_content(["identity", issuer, subject])


def _read(row: ExternalIdentity) -> IdentityRead:
    return IdentityRead.model_validate(row.model_dump())


async def _use(session: AsyncSession, identity: Identity) -> bool:
    """Take an ID token, once: of many at the same moment the first to commit has it."""
    used = {"token": identity.spent, "until": identity.until, "now": clock.now()}
    return await session.scalar(_USE, used) is not None


async def sign_in(
    session: AsyncSession,
    tokens: Tokens,
    issuers: Issuers,
    id_token: str,
    otp: str | None,
    address: str,
) -> TokenRead:
    """Sign in whose identity an ID token tells; the session and its tokens are ours.

    401 for a token that does not hold, or was used, and for an identity that nobody linked.
    Where the issuer does not say that a second factor was proved, `otp` is asked for as ever.
    """
    identity = await issuers.verify(id_token)
    if identity is None:
        raise InvalidCredentials(FieldError("/id_token", "id_token_invalid"))
    hashed = _hash(tokens.secrets, identity.issuer, identity.subject)
    async with kept(session) as own:
        found = (await own.execute(_linked(hashed))).one_or_none()
    if found is None:
        raise InvalidCredentials(FieldError("/id_token", "identity_unknown"))
    identity_id, person = found
    attempt = Attempt.of(tokens.secrets, person.login, address)
    otp_at = await _second_factor(session, tokens, person, identity, otp, attempt)
    if not await _use(session, identity):
        raise InvalidCredentials(FieldError("/id_token", "id_token_invalid"))
    return await begin(session, tokens, person, attempt, otp_at, identity_id)


async def _second_factor(
    session: AsyncSession,
    tokens: Tokens,
    person: Principal,
    identity: Identity,
    otp: str | None,
    attempt: Attempt,
) -> datetime | None:
    if identity.proved_otp:
        return clock.now()
    return await second_factor(session, tokens, person.id, otp, attempt)


def _linked(subject_hash: bytes) -> Any:
    """Find whose identity it is, if they may sign in."""
    return (
        select(ExternalIdentity.id, Principal)
        .join(Principal, col(Principal.id) == col(ExternalIdentity.principal_id))
        .where(ExternalIdentity.subject_hash == subject_hash, col(Principal.disabled_at).is_(None))
    )


async def link(
    session: AsyncSession, caller: Caller, issuers: Issuers, id_token: str
) -> tuple[IdentityRead, bool]:
    """Link the identity that an ID token tells to the caller; tells whether that is new.

    422 for a token that does not hold or was used; 409 when the identity is another's, whose is
    not said. 403 for systems and devices, who are nobody elsewhere.
    """
    if caller.kind != PrincipalKind.user:
        raise InsufficientRole
    identity = await issuers.verify(id_token)
    await enter(session, caller)
    if identity is None or not await _use(session, identity):
        raise ValidationFailed(FieldError("/id_token", "id_token_invalid"))
    hashed = _hash(caller.secrets, identity.issuer, identity.subject)
    made = await _insert(session, caller.id, caller.id, identity.issuer, hashed)
    if made is not None:
        return _read(made), True
    mine = await session.scalar(
        select(ExternalIdentity).where(
            ExternalIdentity.subject_hash == hashed, ExternalIdentity.principal_id == caller.id
        )
    )
    if mine is None:
        raise Conflict(FieldError("/id_token", "taken"))
    return _read(mine), False


async def _insert(
    session: AsyncSession, principal_id: UUID, by: UUID, issuer: str, subject_hash: bytes
) -> ExternalIdentity | None:
    row = {
        "id": ids.new_id(),
        "principal_id": principal_id,
        "issuer": issuer,
        "subject_hash": subject_hash,
        "created_at": clock.now(),
        "created_by": by,
    }
    statement = insert(ExternalIdentity).values(row).on_conflict_do_nothing()
    return (await session.execute(statement.returning(ExternalIdentity))).scalar_one_or_none()


def check_issuers(issuers: Issuers, given: Sequence[IdentityGiven]) -> None:
    """422 for an identity at an issuer that is not configured, or given twice."""
    faults = []
    for index, identity in enumerate(given):
        if identity.issuer not in issuers:
            faults.append(FieldError(f"/identities/{index}/issuer", "issuer_unknown"))
        elif identity in given[:index]:
            faults.append(FieldError(f"/identities/{index}", "duplicate"))
    if faults:
        raise ValidationFailed(*faults)


async def give(
    session: AsyncSession, caller: Caller, principal_id: UUID, given: Sequence[IdentityGiven]
) -> None:
    """Link a new user to identities; 409 when one is another's, whose is not said."""
    for index, identity in enumerate(given):
        hashed = _hash(caller.secrets, identity.issuer, identity.subject)
        if await _insert(session, principal_id, caller.id, identity.issuer, hashed) is None:
            raise Conflict(FieldError(f"/identities/{index}", "taken"))


async def list_own(session: AsyncSession, caller: Caller, query: IdentityQuery) -> IdentityPage:
    """Return a page of the caller's identities."""
    mine = select(ExternalIdentity).where(ExternalIdentity.principal_id == caller.id)

    def read(rows: Sequence[Row[Any]]) -> list[IdentityRead]:
        return [_read(row.ExternalIdentity) for row in rows]

    order = Order(col(ExternalIdentity.created_at), col(ExternalIdentity.id))
    page = await paginate(session, caller.cursors, query, mine, order, read)
    return IdentityPage(**dict(page))


async def unlink(session: AsyncSession, caller: Caller, identity_id: UUID) -> None:
    """Remove an identity of the caller; the sessions that began with it end, by the database."""
    await session.execute(_NEW_VERSION, {"principal": caller.id, "now": clock.now()})
    gone = {"id": identity_id, "principal": caller.id}
    if await session.scalar(_REMOVE, gone) is None:
        raise NotFound
