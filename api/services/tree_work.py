"""Writing the tree of units on a day: finding, beginning, ending, changing and moving units.

All of it happens in one transaction that holds the tree (`hold_tree`). Whatever is changed was
kept before by `touch`, so that a revert can bring it back.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from api import clock
from api.auth.scope import Reach, Spot
from api.driver import connection_of
from api.errors import Conflict, FieldError, UnitDissolved, ValidationFailed, not_found_at
from api.models.types import Level
from api.services.places import Gone, find_successors

MOST_ROWS = 50
"""Units that a refusal names."""


class Unit(NamedTuple):
    """A unit as it stands on the day."""

    id: UUID
    key: int
    level: Level
    valid_from: date | None
    valid_to: date | None
    parent_key: int | None
    name: str
    type: str
    code: str | None


# Its scope is told by any day of its life: today's reach names recorded keys.
_FIND = text("""
    select u.id, u.key, u.level, u.valid_from, u.valid_to, s.unit_key is not null as stands,
           s.parent_key, s.name, s.type, s.code,
           (select p.ancestor_key from placement p where p.unit_key = u.key
               and p.level = 'commune' and p.during @> d.day) as commune_key,
           (select p.ancestor_key from placement p where p.unit_key = u.key
               and p.level = 'province' and p.during @> d.day) as province_key
    from admin_unit u
    cross join lateral (select greatest(
        least(cast(:day as date), u.valid_to), u.valid_from) as day) d
    left join admin_unit_state s on s.unit_key = u.key and s.during @> cast(:day as date)
    where u.id = any(cast(:ids as uuid[])) and u.deleted_at is null
""")
_CHILDREN = text("""
    select distinct u.id, u.key from admin_unit_state s
    join admin_unit u on u.key = s.unit_key and u.deleted_at is null
    where s.parent_key = any(cast(:keys as integer[]))
      and s.during && daterange(cast(:day as date), null)
    order by u.key
""")
_IMAGES = text("select key, image from tree_images(cast(:keys as integer[]))")
_PART_AT = text("""
    with ended as (
        update admin_unit_state set during = daterange(lower(during), cast(:day as date))
        where unit_key = any(cast(:keys as integer[])) and during @> cast(:day as date)
          and coalesce(lower(during) < cast(:day as date), true)
        returning unit_key, upper(old.during) as last, name, type, code, parent_key
    )
    insert into admin_unit_state (unit_key, during, name, type, code, parent_key)
    select unit_key, daterange(cast(:day as date), last), name, type, code, parent_key from ended
""")
_END = text("""
    with gone as (
        delete from admin_unit_state
        where unit_key = :key and lower(during) >= cast(:day as date)
    ), ended as (
        update admin_unit_state set during = daterange(lower(during), cast(:day as date))
        where unit_key = :key and during @> cast(:day as date)
          and coalesce(lower(during) < cast(:day as date), true)
    )
    update admin_unit set valid_to = cast(:day as date) - 1 where key = :key
""")
_BEGIN = text("""
    insert into admin_unit (id, level, valid_from, version, created_at, updated_at, created_by)
    values (:id, :level, cast(:day as date), 1, :now, :now, cast(:actor as uuid))
    on conflict (id) do nothing returning key
""")
_FIRST_STATE = text("""
    insert into admin_unit_state (unit_key, during, name, type, code, parent_key)
    values (:key, daterange(cast(:day as date), null), :name, :type, :code, :parent)
""")
_SUCCEED = text("""
    insert into unit_succession (predecessor_key, successor_key, happened_on, extent)
    values (:before, :after, cast(:day as date), :extent)
""")
_MOVE = text("""
    update admin_unit_state set parent_key = :parent
    where unit_key = any(cast(:keys as integer[])) and lower(during) >= cast(:day as date)
      and (cast(:was as integer[]) is null or parent_key = any(cast(:was as integer[])))
""")
_LATER = text("""
    select exists (select from unit_succession
                   where predecessor_key = :key and happened_on > cast(:day as date))
""")
_LATER_STATES = text("""
    select distinct u.id from admin_unit_state s
    join admin_unit_state n on n.unit_key = s.unit_key and n.during @> cast(:day as date)
    join admin_unit u on u.key = s.unit_key
    where s.unit_key = any(cast(:keys as integer[])) and lower(s.during) > cast(:day as date)
      and (not :only_parents or s.parent_key is distinct from n.parent_key)
""")
_ENDING = text("select id from admin_unit where key = :key and valid_to is not null")
_RENAME = text("""
    update admin_unit_state set name = :name, type = :type, code = :code
    where unit_key = :key and lower(during) = cast(:day as date)
""")
_TAKEN = text("""
    select u.id from admin_unit_state s join admin_unit u on u.key = s.unit_key
    where u.level = :level and u.key is distinct from cast(:but as integer)
      and u.deleted_at is null
      and s.during && daterange(cast(:day as date), null)
      and ((cast(:name as text) is not null and s.name = :name and s.parent_key = :parent)
           or (cast(:code as text) is not null and s.code = :code))
    order by u.key limit 50
""")


def conflict(pointer: str, code: str, units: Iterable[UUID] = (), **params: Any) -> Conflict:
    """Refuse what the tree as it stands forbids, naming the rows."""
    rows = {"unit_ids": [str(unit) for unit in list(units)[:MOST_ROWS]]} if units else {}
    return Conflict(FieldError(pointer, code, params | rows))


@dataclass
class TreeWork:
    """What one reorganisation has done to the tree so far."""

    session: AsyncSession
    day: date
    actor: UUID | None
    within: Reach | None
    """Where villages may be reorganised; none: everything, in the whole country."""
    before: dict[int, Any] = field(default_factory=dict)
    created: dict[UUID, int] = field(default_factory=dict)
    named: set[int] = field(default_factory=set)
    """Units that were there before and are changed: what lies under them is affected."""

    @property
    def touched(self) -> list[int]:
        """The keys of every unit that was changed or created."""
        return sorted({*self.before, *self.created.values()})

    async def _run(self, statement: Any, **values: Any) -> Any:
        return await self.session.execute(statement, {"day": self.day} | values)

    async def find(self, unit_ids: Sequence[UUID], pointers: Sequence[str]) -> list[Unit]:
        """Return units that stand on the day, in the order asked.

        422 `not_found` (absent or out of scope) or `before_unit`, 409 `unit_dissolved`.
        """
        rows = {row.id: row for row in await self._run(_FIND, ids=list(unit_ids))}
        units = []
        for unit_id, pointer in zip(unit_ids, pointers, strict=True):
            row = rows.get(unit_id)
            if row is None or not self._reaches(row):
                raise not_found_at(pointer)
            if not row.stands:
                raise await self._absence(row, pointer)
            units.append(Unit(*(getattr(row, name) for name in Unit._fields)))
        return [unit._replace(level=Level(unit.level)) for unit in units]

    def _reaches(self, row: Any) -> bool:
        if self.within is None or row.id in self.created:
            return True
        return self.within.covers(Spot(row.key, row.commune_key, row.province_key))

    async def _absence(self, row: Any, pointer: str) -> ValidationFailed | UnitDissolved:
        if row.valid_from is not None and row.valid_from > self.day:
            begins = {"valid_from": row.valid_from.isoformat()}
            return ValidationFailed(FieldError(pointer, "before_unit", begins))
        database = await connection_of(self.session)
        heirs = await find_successors(database, [Gone(row.id, None)])
        return UnitDissolved(FieldError(pointer, "unit_dissolved"), successors=heirs[row.id])

    async def find_changed(self, unit_ids: Sequence[UUID], pointers: Sequence[str]) -> list[Unit]:
        """Return units that are to be changed: villages only, for whoever has only these."""
        units = await self.find(unit_ids, pointers)
        for unit, pointer in zip(units, pointers, strict=True):
            self.check_right(unit.level, pointer)
            if unit.level is Level.nation:
                raise ValidationFailed(FieldError(pointer, "wrong_level", {"expected": "province"}))
        self.named.update(unit.key for unit in units if unit.id not in self.created)
        return units

    def check_right(self, level: Level, pointer: str) -> None:
        """Refuse (422) what is no village to whoever reorganises only these."""
        if self.within is not None and level is not Level.village:
            raise ValidationFailed(FieldError(pointer, "wrong_level", {"expected": "village"}))

    async def touch(self, keys: Collection[int]) -> None:
        """Keep how units are before they are changed."""
        new = set(keys) - set(self.before) - set(self.created.values())
        if new:
            self.before |= {row.key: row.image for row in await self._run(_IMAGES, keys=list(new))}

    async def children(self, keys: Collection[int]) -> dict[UUID, int]:
        """Return what stands under some units on the day or later."""
        return {row.id: row.key for row in await self._run(_CHILDREN, keys=list(keys))}

    async def check_lasting(self, key: int, pointer: str) -> None:
        """Refuse a parent whose end is known."""
        if ending := (await self._run(_ENDING, key=key)).scalar():
            raise conflict(pointer, "later_change", [ending])

    async def check_free(
        self,
        level: Level,
        parent: int | None,
        name: str,
        code: str | None,
        pointer: str,
        but: int | None = None,
    ) -> None:
        """Refuse a name of a unit beside it, or a code of its level; `but` is the unit itself."""
        for fault, values in {
            "name_taken": {"name": name, "code": None},
            "code_taken": {"name": None, "code": code},
        }.items():
            what = values | {"level": level, "parent": parent, "but": but}
            if taken := list((await self._run(_TAKEN, **what)).scalars()):
                raise conflict(f"{pointer}/{fault.removesuffix('_taken')}", fault, taken)

    async def begin(
        self, unit_id: UUID, level: Level, parent: int, state: dict[str, str | None], pointer: str
    ) -> int:
        """Begin a unit on the day, without an end."""
        new = {"id": unit_id, "level": level, "now": clock.now(), "actor": self.actor}
        key: int | None = (await self._run(_BEGIN, **new)).scalar()
        if key is None:
            raise conflict(f"{pointer}/id", "taken", [unit_id])
        self.created[unit_id] = key
        await self._run(_FIRST_STATE, key=key, parent=parent, **state)
        return key

    async def end(self, unit: Unit, pointer: str) -> None:
        """End a unit on the day before; whatever it was to become later is a conflict."""
        if unit.valid_from is not None and unit.valid_from >= self.day:
            raise conflict(pointer, "begins_later", [unit.id])
        if (await self._run(_LATER, key=unit.key)).scalar():
            raise conflict(pointer, "later_change", [unit.id])
        await self.touch([unit.key])
        await self._run(_END, key=unit.key)

    async def succeed(self, before: int, after: int, extent: str) -> None:
        """Say what became of a unit that ended."""
        await self._run(_SUCCEED, before=before, after=after, extent=extent)

    async def move(
        self, keys: Collection[int], parent: int, pointer: str, was: Collection[int] | None = None
    ) -> None:
        """Place units under another from the day on; only where they lie under `was`, if given."""
        if not keys:
            return
        await self.touch(keys)
        if was is None:
            later = await self._run(_LATER_STATES, keys=list(keys), only_parents=True)
            if units := list(later.scalars()):
                raise conflict(pointer, "later_change", units)
        await self._run(_PART_AT, keys=list(keys))
        old = None if was is None else list(was)
        await self._run(_MOVE, keys=list(keys), parent=parent, was=old)

    async def rename(self, unit: Unit, name: str, kind: str, code: str | None, at: str) -> None:
        """Give a unit another name, type or code from the day on."""
        later = await self._run(_LATER_STATES, keys=[unit.key], only_parents=False)
        if units := list(later.scalars()):
            raise conflict(at, "later_change", units)
        await self.touch([unit.key])
        await self._run(_PART_AT, keys=[unit.key])
        await self._run(_RENAME, key=unit.key, name=name, type=kind, code=code)
