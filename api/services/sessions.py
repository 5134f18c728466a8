"""Sessions: signing in with a password, refreshing, signing out."""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from api import clock, ids
from api.auth.caller import Caller
from api.auth.passwords import turn, verify_secret
from api.auth.tokens import Tokens
from api.errors import (
    FieldError,
    InvalidCredentials,
    NotFound,
    OtpRequired,
    Unauthenticated,
    Unavailable,
)
from api.models.principals import Principal, PrincipalKind
from api.models.sessions import TokenRead
from api.services import totp
from api.services.guessing import Attempt, kept

IDLE = timedelta(days=90)
"""A session that was not refreshed for so long has ended."""


MOST_REPEATS = 64
"""Answers to one refresh token that may be lost: of more, only the latest are good."""

_NAMED = text("""
    select set_config('noidai.context', json_build_object(
        'request_id', cast(:request_id as text))::text, true)
""")
# Locks the account as it was when its secret was compared: a change of password or of the second
# factor, which counts as a new version, ends all sessions, also those that begin meanwhile.
_BEGIN = text("""
    insert into session (id, principal_id, created_at, last_used_at, origin, next_hashes, otp_at,
                         identity_id)
    select :id, p.id, :now, :now, :origin, array[cast(:hash as bytea)],
           cast(:otp_at as timestamptz), cast(:identity as uuid)
    from principal p
    where p.id = :principal and p.version = :version and p.disabled_at is null
    for share
    returning id
""")
_TIDY = text("""
    with idle as (delete from session where principal_id = :principal and last_used_at < :idle)
    delete from sign_in_failure where key = cast(:pair as bytea)
""")
_REFRESH = text("""
    update session s set
        last_used_at = :now,
        previous_hash = case when :given = any(s.next_hashes) then :given else s.previous_hash end,
        next_hashes = case when :given = any(s.next_hashes) then array[cast(:made as bytea)]
            else (s.next_hashes || cast(:made as bytea))
                [greatest(1, cardinality(s.next_hashes) + 2 - :most):] end
    from principal p
    where s.id = :id and p.id = s.principal_id and p.disabled_at is null
      and s.last_used_at >= :idle
      and (:given = any(s.next_hashes) or :given = s.previous_hash)
    returning p.id, p.login
""")
_END = text("delete from session where id = :id returning id")
_END_ALL = text("delete from session where principal_id = :principal")
_END_OTHERS = text("""
    delete from session where principal_id = :principal
       and id is distinct from cast(:own as uuid)
""")


async def verified(
    session: AsyncSession, kind: PrincipalKind, attempt: Attempt, secret: str
) -> Principal | None:
    """Return the principal when the secret is its own; unknown ones take as long.

    429 when guessing has to slow down.
    """
    async with kept(session) as own:
        await attempt.check(own)
    async with turn():
        async with kept(session) as own:
            await attempt.check(own)
            principal = await own.scalar(holder(kind, attempt.login))
        if await verify_secret(secret, principal.secret_hash if principal else None):
            return principal
        async with kept(session) as own:
            await attempt.count(own)
    return None


def holder(kind: PrincipalKind, login: str) -> SelectOfScalar[Principal]:
    """Find who signs in under a name, and may."""
    return select(Principal).where(
        Principal.login == login,
        Principal.kind == kind,
        col(Principal.disabled_at).is_(None),
    )


async def sign_in(
    session: AsyncSession,
    tokens: Tokens,
    username: str,
    password: str,
    otp: str | None,
    address: str,
) -> TokenRead:
    """Sign a person in; 401 for an unknown name as for a wrong password, 429 for guessing.

    401 `otp_required` once the password was right, when the second factor is on and missing.
    `address` is the client's. The session lasts until it is ended, or idle for 90 days.
    """
    attempt = Attempt.of(tokens.secrets, username.strip().lower(), address)
    principal = await verified(session, PrincipalKind.user, attempt, password)
    if principal is None:
        raise InvalidCredentials
    otp_at = await second_factor(session, tokens, principal.id, otp, attempt)
    return await begin(session, tokens, principal, attempt, otp_at)


async def second_factor(
    session: AsyncSession, tokens: Tokens, principal_id: UUID, otp: str | None, attempt: Attempt
) -> datetime | None:
    """Return when the second factor was proved; `None` while there is none to prove."""
    async with kept(session) as own:
        if not await totp.is_on(own, principal_id):
            return None
        if otp is None:
            raise OtpRequired(FieldError("/otp", "missing"))
        right = await totp.prove(own, tokens.secrets, principal_id, otp)
        if not right:
            await attempt.count(own)
    if not right:
        raise InvalidCredentials(FieldError("/otp", "otp_wrong"))
    return clock.now()


async def begin(
    session: AsyncSession,
    tokens: Tokens,
    principal: Principal,
    attempt: Attempt,
    otp_at: datetime | None = None,
    identity_id: UUID | None = None,
) -> TokenRead:
    """Begin a session of a principal as it was read; 503 when it has changed since.

    One that begins with an identity elsewhere ends with it.
    """
    await tokens.keep_up(session)
    now, session_id = clock.now(), ids.new_id()
    refresh_token, hashed = tokens.new_refresh_token(session_id)
    begun = {
        "id": session_id,
        "principal": principal.id,
        "version": principal.version,
        "now": now,
        "origin": attempt.origin,
        "hash": hashed,
        "otp_at": otp_at,
        "identity": identity_id,
    }
    await session.execute(_NAMED, {"request_id": session.info.get("request_id")})
    if await session.scalar(_BEGIN, begun) is None:
        raise Unavailable
    worn = {"principal": principal.id, "idle": now - IDLE, "pair": attempt.pair}
    await session.execute(_TIDY, worn)
    access, life = tokens.issue(principal.id, principal.login, session_id)
    return TokenRead(access_token=access, refresh_token=refresh_token, expires_in=life)


async def refresh(session: AsyncSession, tokens: Tokens, given: str) -> TokenRead:
    """Give new tokens for a refresh token that was not used, or was the last one used.

    A token that is older was in two hands: its session ends (RFC 9700, section 4.14.2). 401 then,
    and for one that is not ours.
    """
    known = tokens.read_refresh_token(given)
    if known is None:
        raise Unauthenticated("the refresh token is invalid")
    session_id, hashed = known
    refresh_token, made = tokens.new_refresh_token(session_id)
    now = clock.now()
    turned = {"id": session_id, "now": now, "idle": now - IDLE, "most": MOST_REPEATS}
    async with kept(session) as own:
        await tokens.keep_up(own)
        found = (
            await own.execute(_REFRESH, turned | {"given": hashed, "made": made})
        ).one_or_none()
        if found is None:
            await own.execute(_END, {"id": session_id})
    if found is None:
        raise Unauthenticated("the refresh token is worn out: sign in again")
    access, life = tokens.issue(found.id, found.login, session_id)
    return TokenRead(access_token=access, refresh_token=refresh_token, expires_in=life)


async def sign_out(session: AsyncSession, caller: Caller) -> None:
    """End the session that the caller's token names; 404 when it names none."""
    ended = await session.scalar(_END, {"id": caller.session_id})
    if ended is None:
        raise NotFound


async def sign_out_everywhere(session: AsyncSession, caller: Caller) -> None:
    """End every session of the caller."""
    await end_all(session, caller.id)


async def end_all(session: AsyncSession, principal_id: UUID) -> None:
    """End every session of a principal: their tokens are refused from the next request."""
    await session.execute(_END_ALL, {"principal": principal_id})


async def end_others(session: AsyncSession, principal_id: UUID, own: UUID | None) -> None:
    """End every session of a principal but one."""
    await session.execute(_END_OTHERS, {"principal": principal_id, "own": own})
