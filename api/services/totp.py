"""The second factor of people: TOTP (RFC 6238: 30 s, six digits) with recovery codes.

A number is accepted one step early or late, for clocks that differ, and never twice: the last
step that was accepted is remembered in the statement that accepts it.
"""

from uuid import UUID

import pyotp
from pyotp.exceptions import OTPVerificationError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from api import clock
from api.auth.caller import Caller
from api.auth.codes import hash_code, new_code
from api.auth.secrets import Secrets
from api.errors import Conflict, FieldError, InsufficientRole, ValidationFailed
from api.models.principals import PrincipalKind
from api.models.totp import RecoveryCodes, TotpStart
from api.services.guessing import Proof

ISSUER = "Nối Dài"
RECOVERY_CODES = 10
RECOVERY_GROUPS = 4  # 100 bits
DRIFT = 1

_ON = text("select true from totp where principal_id = :id and confirmed_at is not null")
_START = text("""
    insert into totp (principal_id, secret, created_at, last_step) values (:id, :secret, :now, 0)
    on conflict (principal_id) do update set secret = :secret, created_at = :now
        where totp.confirmed_at is null
    returning (select login from principal where id = :id)
""")
_PENDING = text("""
    select secret, confirmed_at from totp where principal_id = :id for update
""")
_CONFIRM = text("""
    update totp set confirmed_at = :now, last_step = :step where principal_id = :id
""")
_KEEP_CODES = text("""
    insert into recovery_code (principal_id, code_hash) select :id, unnest(cast(:codes as bytea[]))
""")
_PROVED = text("""
    update session set otp_at = cast(:otp_at as timestamptz)
    where principal_id = :id and (id = cast(:session as uuid) or cast(:session as uuid) is null)
""")
_END_OTHERS = text("""
    delete from session where principal_id = :id and id is distinct from cast(:session as uuid)
""")
_SECRET = text("""
    select secret from totp where principal_id = :id and confirmed_at is not null for update
""")
_TAKE_STEP = text("""
    update totp set last_step = :step
    where principal_id = :id and confirmed_at is not null and last_step < :step
    returning true
""")
_TAKE_CODE = text("""
    delete from recovery_code where principal_id = :id and code_hash = :hash returning true
""")
_OFF = text("""
    with codes as (delete from recovery_code where principal_id = :id)
    delete from totp where principal_id = :id
""")
_NEW_VERSION = text("""
    update principal set version = version + 1, updated_at = :now where id = :id
""")


async def is_on(session: AsyncSession, principal_id: UUID) -> bool:
    """Tell whether a person has a second factor."""
    return await session.scalar(_ON, {"id": principal_id}) is not None


async def accept(session: AsyncSession, secrets: Secrets, principal_id: UUID, otp: str) -> bool:
    """Take a number or a recovery code: each is taken once, also by many at the same moment."""
    sealed = await session.scalar(_SECRET, {"id": principal_id})
    if sealed is None:
        return False
    step = _step_of(secrets, sealed, otp)
    if step is not None:
        taken = await session.scalar(_TAKE_STEP, {"id": principal_id, "step": step})
    else:
        hashed = hash_code(secrets, "recovery", otp)
        taken = await session.scalar(_TAKE_CODE, {"id": principal_id, "hash": hashed})
    return taken is not None


def _step_of(secrets: Secrets, sealed: bytes, otp: str) -> int | None:
    """Return the step of which the number is, if that is now or next to it.

    Authenticators show it in two groups, and so people type it.
    """
    digits = otp.replace(" ", "")
    totp = pyotp.TOTP(secrets.decrypt(sealed).decode())
    try:
        return totp.verify_and_get_timecode(digits, for_time=clock.now(), valid_window=DRIFT)
    except OTPVerificationError:
        return None


async def prove(session: AsyncSession, secrets: Secrets, principal_id: UUID, otp: str) -> bool:
    """Take a number or a recovery code; 429 after wrong ones, wherever they came from.

    The count belongs to the transaction: it must be kept when this returns `False`.
    """
    proof = Proof.of(secrets, "otp", principal_id)
    await session.execute(_SECRET, {"id": principal_id})  # locks: guesses see each other's failures
    await proof.check(session)
    return await proof.settle(session, right=await accept(session, secrets, principal_id, otp))


async def start(session: AsyncSession, caller: Caller) -> TotpStart:
    """Make a secret, in place of one that was not confirmed; 409 when TOTP is on.

    403 for systems and devices, which have no password that a second factor would stand by.
    """
    if caller.kind != PrincipalKind.user:
        raise InsufficientRole
    secret = pyotp.random_base32()
    sealed = caller.secrets.encrypt(secret.encode())
    made = {"id": caller.id, "secret": sealed, "now": clock.now()}
    login = await session.scalar(_START, made)
    if login is None:
        raise Conflict(FieldError("", "totp_on"))
    url = pyotp.TOTP(secret).provisioning_uri(name=login, issuer_name=ISSUER)
    return TotpStart(secret=secret, otpauth_url=url)


async def confirm(session: AsyncSession, caller: Caller, otp: str) -> RecoveryCodes:
    """Switch TOTP on by a first number, and return the recovery codes, this once.

    The person's other sessions end: they have proved nothing but a password.
    """
    row = (await session.execute(_PENDING, {"id": caller.id})).one_or_none()
    if row is None or row.confirmed_at is not None:
        raise Conflict(FieldError("", "totp_not_begun" if row is None else "totp_on"))
    step = _step_of(caller.secrets, row.secret, otp)
    if step is None:
        raise ValidationFailed(FieldError("/otp", "otp_wrong"))
    codes = [new_code(RECOVERY_GROUPS) for _ in range(RECOVERY_CODES)]
    now = clock.now()
    hashes = [hash_code(caller.secrets, "recovery", code) for code in codes]
    await session.execute(_NEW_VERSION, {"id": caller.id, "now": now})
    await session.execute(_CONFIRM, {"id": caller.id, "now": now, "step": step})
    await session.execute(_KEEP_CODES, {"id": caller.id, "codes": hashes})
    mine = {"id": caller.id, "session": caller.session_id}
    await session.execute(_END_OTHERS, mine)
    await session.execute(_PROVED, mine | {"otp_at": now})
    return RecoveryCodes(recovery_codes=codes)


async def disable(session: AsyncSession, caller: Caller, otp: str) -> None:
    """Switch TOTP off, by a number or a recovery code; wrong ones count like those of a sign-in."""
    if not await is_on(session, caller.id):
        raise Conflict(FieldError("", "totp_not_on"))
    if not await prove(session, caller.secrets, caller.id, otp):
        await session.commit()  # the count stays though the request is refused
        raise ValidationFailed(FieldError("/otp", "otp_wrong"))
    await session.execute(_NEW_VERSION, {"id": caller.id, "now": clock.now()})
    await session.execute(_OFF, {"id": caller.id})
    await session.execute(_PROVED, {"id": caller.id, "session": None, "otp_at": None})
