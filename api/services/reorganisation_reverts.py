"""Taking a reorganisation back: the tree says again what it said before, exactly."""

import json
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from api import clock
from api.auth.caller import Caller, enter, present
from api.auth.permissions import Permission
from api.auth.scope import Reach, Spot
from api.errors import Conflict, FieldError, InsufficientRole, NotFound
from api.models.reorganisations import Reorganisation, ReorganisationRead, ReorganisationRevert
from api.services.reorganisation_order import find_later, later_fault
from api.services.reorganisations import COUNTED, checksum, checksums, read_one
from api.services.tree import hold_tree
from api.services.tree_work import conflict
from api.services.writing import locked, touch

_PLACES = text("""
    select k.key, c.ancestor_key as commune_key, p.ancestor_key as province_key, u.level
    from unnest(cast(:keys as integer[])) k (key)
    join admin_unit u on u.key = k.key
    left join placement c on c.unit_key = u.key and c.level = 'commune'
         and c.during @> coalesce(u.valid_to, u.valid_from, cast(:day as date))
    left join placement p on p.unit_key = u.key and p.level = 'province'
         and p.during @> coalesce(u.valid_to, u.valid_from, cast(:day as date))
""")
# Whoever writes a row there meanwhile waits for this lock, and then finds the unit gone.
_LOCK_UNITS = text("""
    select key from admin_unit where key = any(cast(:created as integer[])) order by key for update
""")
_RECORDED = text("""
    with made as (select unnest(cast(:created as integer[])) as key)
    select (select count(distinct s.unit_key) from admin_unit_state s
            join made on made.key = s.parent_key
            where s.unit_key <> all(cast(:touched as integer[]))) as villages,
           (select count(*) from team t where t.unit_key in (table made)
               or t.commune_key in (table made) or t.province_key in (table made)) as teams,
           (select count(*) from household h where h.unit_key in (table made)
               or h.commune_key in (table made) or h.province_key in (table made)) as households,
           (select count(*) from support_event e where e.unit_key in (table made)
               or e.commune_key in (table made) or e.province_key in (table made)
               or e.team_unit_key in (table made) or e.team_commune_key in (table made))
               as support_events,
           (select count(*) from activity a where a.unit_key in (table made)
               or a.commune_key in (table made) or a.province_key in (table made)) as activities,
           (select count(*) from campaign c where c.unit_key in (table made)
               or c.commune_key in (table made) or c.province_key in (table made)) as campaigns,
           (select count(*) from commendation c where c.unit_key in (table made)
               or c.commune_key in (table made) or c.province_key in (table made))
               as commendations,
           (select count(*) from statistic s where s.unit_key in (table made)
               or s.commune_key in (table made) or s.province_key in (table made)) as statistics,
           (select count(*) from target t where t.unit_key in (table made)
               or t.commune_key in (table made) or t.province_key in (table made)) as targets,
           (select count(*) from role_grant g where g.unit_key in (table made)
               or g.commune_key in (table made) or g.province_key in (table made)) as grants
""")
_AFFECTED = text("select affected_units(cast(:keys as integer[]))")
_FORGET = (
    text("""
        delete from unit_succession where predecessor_key = any(cast(:touched as integer[]))
                                       or successor_key = any(cast(:touched as integer[]))
    """),
    text("delete from admin_unit_state where unit_key = any(cast(:touched as integer[]))"),
    text("delete from placement where unit_key = any(cast(:created as integer[]))"),
    text("delete from placement where ancestor_key = any(cast(:created as integer[]))"),
    text("delete from admin_unit where key = any(cast(:created as integer[]))"),
)
_RESTORE = (
    text("""
        insert into admin_unit_state (unit_key, during, name, type, code, parent_key)
        select s.* from jsonb_array_elements(cast(:images as jsonb)) i
        cross join lateral jsonb_to_recordset(i -> 'states') as s (
            unit_key integer, during daterange, name text, type text, code text,
            parent_key integer)
    """),
    text("""
        insert into unit_succession (predecessor_key, successor_key, happened_on, extent)
        select distinct x.* from jsonb_array_elements(cast(:images as jsonb)) i
        cross join lateral jsonb_to_recordset(i -> 'successions') as x (
            predecessor_key integer, successor_key integer, happened_on date, extent text)
    """),
    text("""
        update admin_unit u
        set valid_from = cast(i.image ->> 'valid_from' as date),
            valid_to = cast(i.image ->> 'valid_to' as date),
            version = version + 1, updated_at = :now
        from jsonb_each(cast(:by_key as jsonb)) i (key, image)
        where u.key = i.key::integer
    """),
)
_PLACE = text("""
    select place_units(array(select unnest(cast(:keys as integer[]))
                             union select unnest(affected_units(cast(:old as integer[])))))
""")
_PLACED = text("select placement_checksum(cast(:old as integer[]))")
_IDS = text("select id from admin_unit where key = any(cast(:keys as integer[])) order by key")


async def revert_reorganisation(
    session: AsyncSession, caller: Caller, reorganisation_id: UUID, given: ReorganisationRevert
) -> ReorganisationRead:
    """Take a reorganisation back; one that was taken back stays as it is.

    409 with the rows while something rests on it: a later reorganisation of its units, a change
    of them, or anything recorded at the units that it created.
    """
    await hold_tree(session)
    found = select(Reorganisation).where(col(Reorganisation.id) == reorganisation_id)
    row = await session.scalar(locked(found))
    if row is None:
        raise NotFound
    await _check_right(session, caller, row)
    if row.reverted_at is not None:
        return read_one(row)
    await _check_free(session, row)
    await _restore(session, row)
    row.reverted_at, row.reverted_by, row.revert_reason = clock.now(), caller.id, given.reason
    touch(row)
    await session.flush()
    await enter(session, caller)
    return read_one(row)


async def _check_right(session: AsyncSession, caller: Caller, row: Reorganisation) -> None:
    """Refuse (403) whoever could not have applied it."""
    if caller.has(Permission.reorganise):
        return
    reach = caller.reach(Permission.reorganise_villages)
    places = await session.execute(_PLACES, {"keys": row.touched, "day": row.effective_on})
    for place in places:
        spot = Spot(place.key, place.commune_key, place.province_key)
        if place.level != "village" or not reach.covers(spot):
            raise InsufficientRole


async def _check_free(session: AsyncSession, row: Reorganisation) -> None:
    """Refuse (409) while anything rests on the reorganisation."""
    later = await find_later(session, row.touched, col(Reorganisation.number) > row.number)
    if later:
        raise Conflict(*(later_fault("", found) for found in later))
    now = await checksums(session, row.touched)
    if changed := [int(key) for key, was in row.undo["after"].items() if now.get(key) != was]:
        raise conflict("", "changed_since", await session.scalars(_IDS, {"keys": changed}))
    keys = {"created": row.created, "touched": row.touched}
    await session.execute(_LOCK_UNITS, keys)
    made = frozenset(row.created)
    reach = Reach(provinces=made, communes=made, units=made)
    await present(session, dict.fromkeys(COUNTED, reach))
    counts: dict[str, Any] = dict((await session.execute(_RECORDED, keys)).mappings().one())
    if any(counts.values()):
        raise Conflict(FieldError("", "still_used", counts))


async def _restore(session: AsyncSession, row: Reorganisation) -> None:
    before: dict[str, Any] = row.undo["before"]
    old = sorted(map(int, before))
    keys = await session.scalar(_AFFECTED, {"keys": row.touched})
    values = {
        "touched": row.touched,
        "created": row.created,
        "old": old,
        "keys": sorted(set(keys or ()) - set(row.created)),
        "images": json.dumps(list(before.values())),
        "by_key": json.dumps(before),
        "now": clock.now(),
    }
    for statement in (*_FORGET, *_RESTORE, _PLACE):
        await session.execute(statement, values)
    restored = await checksums(session, old)
    expected = {key: checksum(image) for key, image in before.items()}
    if restored != expected or await session.scalar(_PLACED, values) != row.undo["placement"]:
        raise Conflict(FieldError("", "changed_since"))
