"""Redaction: an erased person's values leave every table, the facts stay and are counted on.

What is personal is listed once, by table; a table that comes to hold personal values joins the
list, gets its statement below, and its grant and policy for `noidai_subjects` in its migration.
The audit holds no personal values. What stays of a member: stays in teams, year of birth and
gender, which are never shown again, so that shares of youth stay exact for every past day.
"""

from collections.abc import Sequence
from secrets import token_bytes
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ARRAY, LargeBinary, Text, bindparam, cast, false, func, null, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import SQLModel, col, select

from api import clock
from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.db import as_subjects
from api.models.consent_entries import ConsentEntry
from api.models.data_subject_requests import DataSubjectRequest
from api.models.devices import Device
from api.models.event_versions import SupportEventVersion
from api.models.households import Household
from api.models.members import Member
from api.models.principals import Principal
from api.models.support_events import EventAction, SupportEvent

ERASED: Final = "(đã xoá)"

PERSONAL: Final[dict[type[SQLModel], dict[str, Any]]] = {
    Member: {"full_name": ERASED, "phone": None, "occupation": None, "external_ids": {}},
    Household: {
        "head_name": ERASED,
        "address": None,
        "phone": None,
        "business_name": None,
        "consent": null(),
        "external_ids": {},
    },
    ConsentEntry: {"method": None},
    SupportEvent: {"note": None, "lat": None, "lon": None, "external_ids": {}, "reason": None},
    SupportEventVersion: {
        "note": None,
        "lat": None,
        "lon": None,
        "external_ids": {},
        "reason": None,
    },
    Device: {"name": None},
    Principal: {
        "login": "erased." + cast(col(Principal.id), Text),
        "name": ERASED,
        "secret_hash": "",
        "public_jwks": null(),
    },
}
"""Table -> personal columns and what stands there afterwards."""

# A commendation in a team of theirs may tell of the person without naming the member.
_BY_NAME = """(
    c.member_id = m.id or (
        c.recipient_kind = 'individual'
        and position(search_text(m.full_name) in search_text(c.recipient_name)) > 0))
"""
_COMMENDED = text(f"""
    update commendation c
    set recipient_name = case when {_BY_NAME} then :erased else c.recipient_name end,
        reason = null, content_hash = null, version = c.version + 1, updated_at = :now
    from member m
    where m.id = :member
      and ({_BY_NAME}
           or position(search_text(m.full_name) in search_text(coalesce(c.reason, ''))) > 0)
""")  # noqa: S608 - constants
_SHARED = text("select pg_advisory_xact_lock_shared(hashtext('noidai hash keys'))")
_EXTERNAL_IDS = text("""
    delete from external_id where resource = :resource and row_id = any(cast(:rows as uuid[]))
""")
_REPEATS = text("delete from applied_change where row_id = any(cast(:rows as uuid[]))")
_SESSIONS = text("""
    with account as (select id from principal where member_id = :member),
         codes as (delete from recovery_code where principal_id in (select id from account)),
         factor as (delete from totp where principal_id in (select id from account))
    delete from session where principal_id in (select id from account)
""")
_IDENTITIES = text("""
    delete from external_identity
    where principal_id in (select id from principal where member_id = :member)
""")
# Who took part in an event may be called by name, or by phone, in its note or a reason.
_MENTIONED = """
    m.id = :member and e.team_id in (select team_id from membership where member_id = m.id)
    and (position(search_text(m.full_name) in search_text(concat_ws(' ', e.note, e.reason))) > 0
         or position(right(m.phone, 9) in
                     regexp_replace(concat_ws(' ', e.note, e.reason), '[^0-9]', '', 'g')) > 0)
"""
_MENTIONS = text(f"""
    update support_event e set note = null, content_hash = null, reason = null, action = 'erase',
           changed_by = :actor, version = e.version + 1, updated_at = :now
    from member m
    where e.member_ids @> array[m.id] and {_MENTIONED}
""")  # noqa: S608 - constants
_MENTIONS_THEN = text(f"""
    update support_event_version e set note = null, content_hash = null, reason = null
    from member m
    where (e.member_ids @> array[m.id]
           or exists (select from support_event now
                      where now.id = e.id and now.member_ids @> array[m.id]))
      and {_MENTIONED}
""")  # noqa: S608 - constants
_SURROGATES = text("""
    update support_event e set beneficiary_hash = s.surrogate, beneficiary_key = :generation,
           reason = null, action = 'erase', changed_by = :actor,
           version = e.version + 1, updated_at = :now
    from unnest(:hashes, :surrogates) as s (hash, surrogate)
    where e.beneficiary_hash = s.hash
""").bindparams(
    bindparam("hashes", type_=ARRAY(LargeBinary)), bindparam("surrogates", type_=ARRAY(LargeBinary))
)
_SURROGATES_THEN = text("""
    update support_event_version v
    set beneficiary_hash = s.surrogate, beneficiary_key = :generation
    from unnest(:hashes, :surrogates) as s (hash, surrogate)
    where v.beneficiary_hash = s.hash
""").bindparams(
    bindparam("hashes", type_=ARRAY(LargeBinary)), bindparam("surrogates", type_=ARRAY(LargeBinary))
)


async def redact(session: AsyncSession, caller: Caller, request: DataSubjectRequest) -> list[bytes]:
    """Erase the person whom an open request names; return the surrogates of their hashes.

    A hash becomes the same random value in all its rows, wherever they lie: it tells nothing any
    more, and distinct people stay as many.
    """
    await session.execute(_SHARED)  # no hash is wrapped meanwhile
    surrogate = token_bytes(32)
    surrogates = dict.fromkeys(request.identifier_hashes, surrogate)
    if request.household_id:
        async with as_subjects(session):
            hashes = await _hashes_of(session, request.household_id)
        surrogates = {known: token_bytes(32) for known in hashes}
    # Only what the request names may be changed, and only into what it names.
    request.identifier_hashes = [*surrogates, *surrogates.values()]
    await session.flush()
    async with as_subjects(session):
        if request.member_id:
            await _redact_member(session, caller, request.member_id)
        if request.household_id:
            await _redact_household(session, request.household_id)
        await _redact_events(session, caller, request.household_id, surrogates)
    return sorted(set(surrogates.values()))


async def _hashes_of(session: AsyncSession, household_id: UUID) -> Sequence[bytes]:
    found = (
        select(SupportEvent.beneficiary_hash)
        .where(
            col(SupportEvent.household_id) == household_id,
            col(SupportEvent.beneficiary_hash).is_not(None),
        )
        .distinct()
    )
    return [known for known in await session.scalars(found) if known]


async def _empty(session: AsyncSession, table: Any, *where: Any, **more: Any) -> list[UUID]:
    """Empty the personal columns of some rows, and count a new version of each."""
    values = PERSONAL[table] | more
    if "content_hash" in table.__table__.c:  # the same create must not find its own again
        values |= {"content_hash": None}
    if "version" in table.__table__.c and table is not SupportEventVersion:
        values |= {"version": table.version + 1, "updated_at": clock.now()}
    changed = update(table).where(*where).values(values).returning(table.id)
    options = {"synchronize_session": False}
    return list(await session.scalars(changed, execution_options=options))


async def _redact_member(session: AsyncSession, caller: Caller, member_id: UUID) -> None:
    now = clock.now()
    member = {"member": member_id}
    await session.execute(_MENTIONS, member | {"now": now, "actor": caller.id})
    await session.execute(_MENTIONS_THEN, member)
    await session.execute(_COMMENDED, member | {"now": now, "erased": ERASED})
    of_member = col(Member.id) == member_id, col(Member.redacted_at).is_(None)
    rows = await _empty(session, Member, *of_member, redacted_at=now)
    await _forget_names(session, "members", rows)
    disabled = func.coalesce(Principal.disabled_at, now)
    await _empty(
        session,
        Device,
        col(Device.member_id) == member_id,
        col(Device.name).is_not(None) | col(Device.deleted_at).is_(None),
        deleted_at=func.coalesce(Device.deleted_at, now),
    )
    secret = col(Principal.secret_hash)
    of_account = col(Principal.member_id) == member_id, secret.is_distinct_from("")
    await _empty(session, Principal, *of_account, disabled_at=disabled)
    await session.execute(_SESSIONS, member)
    await session.execute(_IDENTITIES, member)


async def _redact_household(session: AsyncSession, household_id: UUID) -> None:
    of_household = col(Household.id) == household_id, col(Household.redacted_at).is_(None)
    rows = await _empty(session, Household, *of_household, redacted_at=clock.now())
    await _forget_names(session, "households", rows)
    await _empty(session, ConsentEntry, col(ConsentEntry.household_id) == household_id)


async def _redact_events(
    session: AsyncSession,
    caller: Caller,
    household_id: UUID | None,
    surrogates: dict[bytes, bytes],
) -> None:
    """Empty a household's events everywhere, a person's within reach, and replace the hashes.

    First the events as they stand, which leaves a version of each; then every version of theirs,
    and of others' events those versions that named the household or the person. Hashes go last:
    later nobody could tell whose they are.
    """
    reach = caller.reach(Permission.subjects_write)

    def named(table: Any) -> Any:
        person = col(table.beneficiary_hash).in_(surrogates) & reach.filter(table)
        home = false() if household_id is None else col(table.household_id) == household_id
        return person | home

    done = {"action": EventAction.erase, "changed_by": caller.id}
    rows = await _empty(session, SupportEvent, named(SupportEvent), **done)
    await _forget_names(session, "support_events", rows)
    replaced = {
        "hashes": list(surrogates),
        "surrogates": list(surrogates.values()),
        "generation": caller.secrets.generation,
    }
    await session.execute(_SURROGATES, replaced | {"now": clock.now(), "actor": caller.id})
    version = SupportEventVersion
    await _empty(session, version, col(version.id).in_(rows) | named(version))
    await session.execute(_SURROGATES_THEN, replaced)


async def _forget_names(session: AsyncSession, resource: str, rows: Sequence[UUID]) -> None:
    """Forget other systems' ids of some rows, and the hashes of what was changed of them."""
    await session.execute(_EXTERNAL_IDS, {"resource": resource, "rows": list(rows)})
    await session.execute(_REPEATS, {"rows": list(rows)})
