"""Possible duplicates: what was recorded before of the same service for the same person or home.

They are told, never refused: the same help may be needed twice. Only what the caller reads in
clear is compared with only what it reads in clear: that two events are about one person is itself
personal, and a guess at somebody's identifier must not be answered.
"""

from collections.abc import Collection
from typing import Final
from uuid import UUID

from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.driver import ENTERED, Connection

WINDOW_DAYS: Final = 1
"""Reporting days between two events of which one may be the other, recorded again."""

COLUMNS: Final = (
    "id, created_at, service_type, occurred_on, household_id, beneficiary_hash, beneficiary_key"
)
"""The columns of an event by which its twin is found."""

_SAME = (
    "d.household_id = e.household_id",
    "d.beneficiary_hash = e.beneficiary_hash and d.beneficiary_key = e.beneficiary_key",
)
_KEYS = {"province_key": "provinces", "commune_key": "communes", "unit_key": "units"}
_KEYS |= {"team_commune_key": "communes", "team_unit_key": "units"}
_READABLE = " or ".join(
    f"d.{column} = any ((select scope_keys(array['people_read'], '{kind}'))::integer[])"
    for column, kind in _KEYS.items()
)
_EARLIER = f"""
    select d.id, d.created_at from support_event d
    where {{same}} and d.service_type = e.service_type
      and d.occurred_on between e.occurred_on - {WINDOW_DAYS} and e.occurred_on + {WINDOW_DAYS}
      and d.status in ('submitted', 'verified') and d.deleted_at is null
      and (d.created_at, d.id) < (e.created_at, e.id)
      and (d.created_by = {{own}}::uuid or {_READABLE}
           or d.team_id = any ((select scope_teams(array['people_read']))::uuid[]))
"""  # noqa: S608 - constants
_BOTH = " union all ".join(_EARLIER.replace("{same}", same) for same in _SAME)


def earliest(own: str) -> str:
    """Return the lateral query that finds the twin of an event `e`: its id, if there is one.

    `own` is the parameter of `own_of`. It costs nothing where `e` names nobody.
    """
    earlier = _BOTH.replace("{own}", own)
    return f"select t.id from ({earlier}) t order by t.created_at, t.id limit 1"  # noqa: S608


def own_of(caller: Caller) -> UUID | None:
    """Return whose own events the caller reads in clear wherever they lie: its own, or nobody's."""
    return caller.id if caller.has(Permission.own_people_read) else None


_FIND = f"""
{ENTERED}
select e.id, twin.id as twin from entered cross join lateral (
    select {COLUMNS} from support_event
    where id = any ($3::uuid[]) and entered.scopes is not null offset 0) e
cross join lateral ({earliest("$4")}) twin
"""  # noqa: S608 - constants


async def find_duplicates(
    database: Connection, caller: Caller, event_ids: Collection[UUID]
) -> dict[UUID, UUID]:
    """Return what events may be duplicates of, in one statement; none for none."""
    if not event_ids:
        return {}
    found = await database.fetch(
        _FIND, caller.scopes, caller.context, list(event_ids), own_of(caller)
    )
    return {row["id"]: row["twin"] for row in found}
