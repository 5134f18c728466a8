"""The kinds of changes of a reorganisation, each on top of those before it."""

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import date
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text

from api import ids
from api.errors import FieldError, ValidationFailed
from api.models.reorganisations import Change, ChangeKind, NewUnit
from api.models.types import Level
from api.services.tree_work import TreeWork, Unit, conflict

REFORM: Final = date(2025, 7, 1)
"""From this day on there are no districts."""
_OFFICIAL: Final = {Level.province, Level.commune}

FIELDS: Final[dict[ChangeKind, tuple[set[str], set[str]]]] = {
    ChangeKind.create: ({"unit"}, set()),
    ChangeKind.rename: ({"unit_id", "name"}, {"type", "code"}),
    ChangeKind.move: ({"unit_ids", "parent_id"}, set()),
    ChangeKind.merge: ({"from_ids", "to"}, set()),
    ChangeKind.split: ({"from_id", "into"}, set()),
    ChangeKind.dissolve: ({"unit_id"}, {"successor_id"}),
}
"""What each kind needs, and what else it takes: the kinds' functions rely on it."""

_FACTS = text("""
    with under as (
        select distinct unit_key from placement where ancestor_key = :key
    )
    select exists (select from team t join under using (unit_key))
        or exists (select from household h join under using (unit_key))
        or exists (select from support_event e join under using (unit_key))
        or exists (select from activity a join under using (unit_key))
        or exists (select from campaign c join under using (unit_key))
        or exists (select from commendation c join under using (unit_key))
        or exists (select from statistic s join under using (unit_key))
        or exists (select from target t join under using (unit_key))
""")


def check_shape(changes: Sequence[Change]) -> None:
    """Refuse (422) changes that lack a field of their kind, or have one of another."""
    faults = []
    for index, change in enumerate(changes):
        needed, optional = FIELDS[change.kind]
        given = {name for name in change.model_fields_set if getattr(change, name) is not None}
        at = f"/changes/{index}"
        faults += [FieldError(f"{at}/{name}", "missing") for name in sorted(needed - given)]
        others = given - needed - optional - {"kind"}
        faults += [FieldError(f"{at}/{name}", "extra_forbidden") for name in sorted(others)]
        for name in ("unit_ids", "from_ids"):
            faults += _repeated(getattr(change, name) or [], f"{at}/{name}")
        named = [village for part in change.into or [] for village in part.village_ids]
        faults += _repeated(named, f"{at}/into")
    if faults:
        raise ValidationFailed(*faults[:50])


def _repeated(unit_ids: Sequence[UUID], pointer: str) -> list[FieldError]:
    twice = [str(unit) for unit, times in Counter(unit_ids).items() if times > 1]
    return [FieldError(pointer, "duplicate", {"unit_ids": twice[:50]})] if twice else []


def _above(level: Level, day: date) -> Level:
    """Return the level under which units of a level stand on a day."""
    middle = Level.province if day >= REFORM else Level.district
    return {
        Level.province: Level.nation,
        Level.district: Level.province,
        Level.commune: middle,
        Level.village: Level.commune,
    }[level]


def _check_parent(unit: Unit, expected: Level, pointer: str) -> None:
    """Refuse a parent of another level, or one whose end is known: what then is not for us."""
    if unit.level is not expected:
        raise ValidationFailed(FieldError(pointer, "wrong_level", {"expected": str(expected)}))
    if unit.valid_to is not None:
        raise conflict(pointer, "later_change", [unit.id])


def _pointers(pointer: str, units: Collection[UUID]) -> list[str]:
    return [f"{pointer}/{index}" for index in range(len(units))]


async def _begin(
    work: TreeWork, given: NewUnit, pointer: str, parents: Collection[int | None] = ()
) -> int:
    """Begin a unit under its parent, or under the one that its predecessors had."""
    known = set(Level) - {Level.nation} - ({Level.district} if work.day >= REFORM else set())
    if given.level not in known:
        expected = {"expected": ", ".join(sorted(known))}
        raise ValidationFailed(FieldError(f"{pointer}/level", "wrong_level", expected))
    work.check_right(given.level, f"{pointer}/level")
    if given.code and given.level is Level.village:
        raise ValidationFailed(FieldError(f"{pointer}/code", "no_code"))
    if given.parent_id is not None:
        (parent,) = await work.find([given.parent_id], [f"{pointer}/parent_id"])
        _check_parent(parent, _above(given.level, work.day), f"{pointer}/parent_id")
        parent_key = parent.key
    else:
        (common,) = parents if len(parents) == 1 else (None,)
        if common is None:
            raise ValidationFailed(FieldError(f"{pointer}/parent_id", "missing"))
        await work.check_lasting(common, f"{pointer}/parent_id")
        parent_key = common
    await work.check_free(given.level, parent_key, given.name, given.code, pointer)
    unit_id = given.id or ids.new_id()
    if given.id is None and given.code and given.level in _OFFICIAL:
        unit_id = ids.official_unit_id(given.level, given.code, work.day.isoformat())
    state = {"name": given.name, "type": given.type, "code": given.code}
    return await work.begin(unit_id, given.level, parent_key, state, pointer)


async def _create(work: TreeWork, change: Any, at: str) -> None:
    await _begin(work, change.unit, f"{at}/unit")


async def _rename(work: TreeWork, change: Any, at: str) -> None:
    (unit,) = await work.find_changed([change.unit_id], [f"{at}/unit_id"])
    if change.code and unit.level is Level.village:
        raise ValidationFailed(FieldError(f"{at}/code", "no_code"))
    kind, code = change.type or unit.type, change.code or unit.code
    await work.check_free(unit.level, unit.parent_key, change.name, code, at, unit.key)
    await work.rename(unit, change.name, kind, code, f"{at}/unit_id")


async def _move(work: TreeWork, change: Any, at: str) -> None:
    pointers = _pointers(f"{at}/unit_ids", change.unit_ids)
    units = await work.find_changed(change.unit_ids, pointers)
    (parent,) = await work.find([change.parent_id], [f"{at}/parent_id"])
    for unit in units:
        _check_parent(parent, _above(unit.level, work.day), f"{at}/parent_id")
    await work.move([unit.key for unit in units], parent.key, f"{at}/unit_ids")


async def _merge(work: TreeWork, change: Any, at: str) -> None:
    if len(change.from_ids) == 1:
        raise ValidationFailed(FieldError(f"{at}/from_ids", "too_short", {"min_length": 2}))
    pointers = _pointers(f"{at}/from_ids", change.from_ids)
    units = await work.find_changed(change.from_ids, pointers)
    if {unit.level for unit in units} != {change.to.level}:
        others = [unit.id for unit in units if unit.level is not change.to.level]
        params = {"unit_ids": [str(unit) for unit in others[:50]]}
        raise ValidationFailed(FieldError(f"{at}/from_ids", "different_levels", params))
    for unit, pointer in zip(units, pointers, strict=True):
        await work.end(unit, pointer)
    to = await _begin(work, change.to, f"{at}/to", {unit.parent_key for unit in units})
    for unit in units:
        await work.succeed(unit.key, to, "whole")
    keys = [unit.key for unit in units]
    children = await work.children(keys)
    await work.move(children.values(), to, f"{at}/from_ids", was=keys)


async def _split(work: TreeWork, change: Any, at: str) -> None:
    (unit,) = await work.find_changed([change.from_id], [f"{at}/from_id"])
    children = await work.children([unit.key])
    named: set[UUID] = set()
    for index, part in enumerate(change.into):
        here = f"{at}/into/{index}"
        if part.unit.level is not unit.level:
            expected = {"expected": str(unit.level)}
            raise ValidationFailed(FieldError(f"{here}/unit/level", "wrong_level", expected))
        pointers = _pointers(f"{here}/village_ids", part.village_ids)
        for village, pointer in zip(part.village_ids, pointers, strict=True):
            if village not in children:
                await work.find([village], [pointer])  # whoever may not see it reads `not_found`
                raise ValidationFailed(FieldError(pointer, "not_under"))
        named.update(part.village_ids)
    if len(change.into) == 1:
        raise ValidationFailed(FieldError(f"{at}/into", "too_short", {"min_length": 2}))
    if left := [village for village in children if village not in named]:
        raise conflict(f"{at}/into", "unnamed", left)
    await work.end(unit, f"{at}/from_id")
    for index, part in enumerate(change.into):
        here = f"{at}/into/{index}"
        key = await _begin(work, part.unit, f"{here}/unit", {unit.parent_key})
        await work.succeed(unit.key, key, "part")
        moving = [children[village] for village in part.village_ids]
        await work.move(moving, key, f"{here}/village_ids", was=[unit.key])


async def _dissolve(work: TreeWork, change: Any, at: str) -> None:
    """End a unit; without a successor only where nothing stands, or was recorded, under it."""
    (unit,) = await work.find_changed([change.unit_id], [f"{at}/unit_id"])
    children = await work.children([unit.key])
    if change.successor_id is None:
        if children:
            raise conflict(f"{at}/unit_id", "not_empty", children)
        recorded = unit.level is not Level.village and await work.session.scalar(
            _FACTS, {"key": unit.key}
        )
        if recorded:  # they would lie nowhere
            raise conflict(f"{at}/unit_id", "still_used", [unit.id])
        await work.end(unit, f"{at}/unit_id")
        return
    (heir,) = await work.find([change.successor_id], [f"{at}/successor_id"])
    _check_parent(heir, unit.level, f"{at}/successor_id")
    if heir.key == unit.key:
        raise ValidationFailed(FieldError(f"{at}/successor_id", "duplicate"))
    await work.touch([heir.key])
    await work.end(unit, f"{at}/unit_id")
    await work.succeed(unit.key, heir.key, "whole")
    await work.move(children.values(), heir.key, f"{at}/unit_id", was=[unit.key])


_KINDS: Final[dict[ChangeKind, Callable[[TreeWork, Change, str], Awaitable[Any]]]] = {
    ChangeKind.create: _create,
    ChangeKind.rename: _rename,
    ChangeKind.move: _move,
    ChangeKind.merge: _merge,
    ChangeKind.split: _split,
    ChangeKind.dissolve: _dissolve,
}


async def make_change(work: TreeWork, change: Change, pointer: str) -> None:
    """Make one change. 422 at its pointers, 409 with the rows where the tree forbids it."""
    await _KINDS[change.kind](work, change, pointer)
