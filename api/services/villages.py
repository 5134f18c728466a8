"""Villages: units without a national code, created, renamed and closed locally."""

from datetime import date
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from api import clock, ids
from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.errors import (
    Conflict,
    FieldError,
    IdConflict,
    InsufficientRole,
    NotFound,
    ValidationFailed,
    not_found_at,
)
from api.models.admin_units import AdminUnit, AdminUnitCreate, AdminUnitRead, AdminUnitUpdate
from api.models.types import Level
from api.services.admin_units import get_unit
from api.services.places import place
from api.services.tree import share_tree
from api.services.writing import changed_values, check_version, content_of, hide, touch

_PLACE = text("select place_villages(array[cast(:key as integer)])")
_INSERT_STATES = text("""
    insert into admin_unit_state (unit_key, during, name, type, parent_key)
    select :key, part.during, :name, :type, part.parent_key
    from (
        select p.during * daterange(:valid_from, :valid_to, '[]') as during,
               p.ancestor_key as parent_key
        from placement p
        where p.unit_key = :parent and p.level = 'commune'
          and p.during && daterange(:valid_from, :valid_to, '[]')
        union all
        select unnest(datemultirange(daterange(:valid_from, :valid_to, '[]')) - coalesce(
                   (select range_agg(p.during) from placement p
                    where p.unit_key = :parent and p.level = 'commune'), '{}')), null
    ) part
""")


async def create_village(
    session: AsyncSession, caller: Caller, given: AdminUnitCreate
) -> tuple[AdminUnitRead, bool]:
    """Create a village under a commune that stands on its first day.

    Where the commune later went whole to another, the village lies there from then on; where it
    was split, the village has no parent until someone places it. 422 for any other level: those
    come by a reorganisation. Returns the village and whether it is new.
    """
    if given.level is not Level.village:
        raise ValidationFailed(FieldError("/level", "enum", {"expected": "village"}))
    if given.valid_to and given.valid_to < given.valid_from:
        raise ValidationFailed(FieldError("/valid_to", "end_before_start"))
    await share_tree(session)
    above = await place(session, given.parent_id, given.valid_from, {Level.commune}, "/parent_id")
    if not caller.reach(Permission.villages_write).covers(above):
        raise not_found_at("/parent_id")
    unit_id = given.id or ids.new_id()
    now = clock.now()
    content = content_of(caller, given)
    key = await session.scalar(
        insert(AdminUnit)
        .values(
            id=unit_id,
            level=given.level,
            valid_from=given.valid_from,
            valid_to=given.valid_to,
            lat=given.lat,
            lon=given.lon,
            created_at=now,
            updated_at=now,
            version=1,
            created_by=caller.id,
            content_hash=content,
        )
        .on_conflict_do_nothing()
        .returning(col(AdminUnit.key))
    )
    if key is None:
        same = await session.scalar(
            select(col(AdminUnit.id)).where(
                col(AdminUnit.id) == unit_id, col(AdminUnit.content_hash) == content
            )
        )
        if same is None:
            raise IdConflict
        return await get_unit(session, unit_id), False
    await session.execute(
        _INSERT_STATES,
        {
            "key": key,
            "name": given.name,
            "type": given.type,
            "parent": above.unit_key,
            "valid_from": given.valid_from,
            "valid_to": given.valid_to,
        },
    )
    await session.execute(_PLACE, {"key": key})
    return await get_unit(session, unit_id), True


async def _village_to_change(
    session: AsyncSession, caller: Caller, unit_id: UUID, expected: int
) -> tuple[AdminUnit, AdminUnitRead]:
    """Lock a village of the caller's own scope; 404 unknown, 403 elsewhere, 412 stale."""
    await share_tree(session)
    unit = await session.scalar(
        select(AdminUnit).where(col(AdminUnit.id) == unit_id).with_for_update()
    )
    read = await get_unit(session, unit_id)
    if unit is None or unit.key is None:
        raise NotFound
    day = min(clock.today(), unit.valid_to or date.max)
    where = await place(session, unit_id, max(day, unit.valid_from or date.min), set(Level))
    if where.level is not Level.village or not caller.reach(Permission.villages_write).covers(
        where
    ):
        raise InsufficientRole
    check_version(read, expected)
    return unit, read


_RENAME = text("""
    with standing as (
        select during from admin_unit_state
        where unit_key = :key
        order by during @> cast(:today as date) desc, during desc limit 1
    ), ended as (
        update admin_unit_state s
        set during = daterange(lower(s.during), cast(:today as date))
        from standing
        where s.unit_key = :key and s.during = standing.during
          and s.during @> cast(:today as date) and lower(s.during) < cast(:today as date)
        returning s.unit_key, old.during, s.parent_key
    ), begun as (
        insert into admin_unit_state (unit_key, during, name, type, parent_key)
        select unit_key, daterange(cast(:today as date), upper(during)), :name, :type, parent_key
        from ended
        returning unit_key
    )
    update admin_unit_state s
    set name = :name, type = :type
    from standing
    where s.unit_key = :key and s.during = standing.during and not exists (select from begun)
""")
_CLOSE = text("""
    with gone as (
        delete from admin_unit_state
        where unit_key = :key and lower(during) > cast(:valid_to as date)
        returning unit_key
    )
    update admin_unit_state s
    set during = daterange(lower(s.during), cast(:valid_to as date), '[]')
    where s.unit_key = :key and (select count(*) from gone) >= 0
      and s.during = (
          select during from admin_unit_state
          where unit_key = :key
            and coalesce(lower(during) <= cast(:valid_to as date), true)
          order by during desc limit 1)
""")
_USED = text("""
    select exists (select from team where unit_key = :key and deleted_at is null)
        or exists (select from household where unit_key = :key and deleted_at is null)
        or exists (select from support_event where unit_key = :key)
        or exists (select from activity where unit_key = :key and deleted_at is null)
        or exists (select from campaign where unit_key = :key and deleted_at is null)
        or exists (select from commendation where unit_key = :key and deleted_at is null)
        or exists (select from statistic where unit_key = :key and deleted_at is null)
        or exists (select from target where unit_key = :key and deleted_at is null)
""")


async def update_village(
    session: AsyncSession, caller: Caller, unit_id: UUID, expected: int, change: AdminUnitUpdate
) -> AdminUnitRead:
    """Rename a village from today on, place it on the map, or close it on a day."""
    unit, read = await _village_to_change(session, caller, unit_id, expected)
    values = changed_values(read, change, required={"name", "type"})
    if not values:
        return read
    if {"name", "type"} & set(values):
        wanted = {"name": read.name, "type": read.type} | values
        await session.execute(
            _RENAME,
            {
                "key": unit.key,
                "today": clock.today(),
                "name": wanted["name"],
                "type": wanted["type"],
            },
        )
    if "valid_to" in values:
        last = values["valid_to"]
        if last is not None and unit.valid_from is not None and last < unit.valid_from:
            raise ValidationFailed(FieldError("/valid_to", "end_before_start"))
        await session.execute(_CLOSE, {"key": unit.key, "valid_to": last})
    for name in {"valid_to", "lat", "lon"} & set(values):
        setattr(unit, name, values[name])
    touch(unit)
    await session.flush()
    await session.execute(_PLACE, {"key": unit.key})
    return await get_unit(session, unit_id)


async def delete_village(
    session: AsyncSession, caller: Caller, unit_id: UUID, expected: int
) -> None:
    """Hide a village that was made by mistake; 409 while anything refers to it."""
    unit, _ = await _village_to_change(session, caller, unit_id, expected)
    if await session.scalar(_USED, {"key": unit.key}):
        raise Conflict(FieldError("", "still_used"))
    hide(unit)
    await session.flush()
    # Another version of the tree: whoever knows where the village lay forgets it.
    await session.execute(_PLACE, {"key": unit.key})
