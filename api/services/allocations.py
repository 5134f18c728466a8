"""Allocation: a target shared out over the units below it, as targets of their own.

An allocation takes the place of the one before: what stays is left alone, what changes has a new
version, what is not given any more is hidden, with what was shared out of it. Whoever allocates
holds the target meanwhile, so that of two at once the later one stands, whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from api import clock, ids
from api.auth.caller import Caller, enter
from api.auth.permissions import Permission
from api.errors import FieldError, InsufficientRole, NotFound, ValidationFailed
from api.models.allocations import AllocateBy, Allocation, Allocations, TargetAllocate
from api.models.targets import Target, TargetMeasure, TargetOwner
from api.models.types import Level, number
from api.services.formulas import formula_of
from api.services.observation_units import Unit
from api.services.places import Place, find_places
from api.services.target_figures import count_parts, find_parts
from api.services.target_questions import need_of
from api.services.target_rules import check_team
from api.services.targets import NATION, find_target
from api.services.writing import bring_back, hide, touch

type Key = tuple[UUID, UUID | None]
"""A unit, and a team in it or `None`."""
SCALE: Final = 10_000
"""Parts of one, where what is shared out is no whole number."""
_KEPT: Final = (
    *("indicator", "owner", "period", "first_on", "last_on", "baseline_period", "denominator"),
    *("comparator", "minimum_per_unit", "service_types", "team_kind", "activity_kind", "channel"),
    *("campaign_id", "document"),
)
"""What parts have of the target that they are shared out of."""
_WEIGHTS: Final = {
    AllocateBy.households: ("households.total", "households.registered"),
    AllocateBy.members: ("members.active",),
}
"""What is divided by: the first that is known of every unit."""

_HOLD = text("select pg_advisory_xact_lock(hashtextextended('target ' || cast(:id as text), 0))")
_BELOW = text("""
    with inside as (
        select u.id, u.key, u.level,
               array_position(array['nation', 'province', 'district', 'commune', 'village'],
                              u.level) as depth
        from placement p join admin_unit u on u.key = p.unit_key and u.deleted_at is null
        where p.ancestor_key = :unit and p.level = :level and u.key <> :unit
          and p.during @> cast(:day as date)
          and coalesce(u.valid_from <= cast(:day as date), true)
          and coalesce(u.valid_to >= cast(:day as date), true)
    )
    select id, key, level from inside where depth = (select min(depth) from inside) order by id
""")
_INSIDE = text("""
    select p.unit_key from placement p
    where p.ancestor_key = :unit and p.level = :level and p.during @> cast(:day as date)
      and p.unit_key = any(cast(:units as integer[]))
""")
_OUT_OF = text("""
    with recursive part as (
        select id from target where allocated_from_id = any(cast(:ids as uuid[]))
        union select t.id from target t join part on t.allocated_from_id = part.id
    )
    select id from part
""")


@dataclass(frozen=True)
class Share:
    """A part that is to stand."""

    where: Place
    team_id: UUID | None
    value: float


async def allocate(
    session: AsyncSession, caller: Caller, target_id: UUID, given: TargetAllocate
) -> Allocations:
    """Share a target out, by hand or by a key; tell what stands, and what is left.

    403 for somebody else's target; 422 `exactly_one`, `not_found` (a unit or a team elsewhere),
    `duplicate`, `not_shareable` (a share or growth by a key), `no_weights` (nothing to go by).
    """
    if (given.by is None) == (given.allocations is None):
        raise ValidationFailed(FieldError("/by", "exactly_one", {"expected": "allocations, by"}))
    target = await _lock(session, caller, target_id)
    day = min(target.last_on, clock.today())
    ((_, place),) = (await find_places(session, [(target.unit_id, day)])).items()
    if not isinstance(place, Place):
        raise ValidationFailed(FieldError("", "unit_dissolved"))
    whole = _whole(target)
    if given.by is None:
        shares = await _by_hand(session, caller, target, place, given)
    else:
        shares = await _by_key(session, caller, target, place, given.by, whole)
    parts = await _put(session, caller, target, shares)
    given_out = sum((Decimal(str(share.value)) for share in shares), Decimal(0))
    return Allocations(
        allocations=[
            Allocation(
                target_id=part.id,
                unit_id=part.unit_id,
                team_id=part.team_id,
                value=number(part.value),
            )
            for part in parts
        ],
        unallocated=number(float(Decimal(str(whole)) - given_out)),
    )


def _whole(target: Target) -> float:
    """Return what there is to share out: of a cumulative target what the period has to add."""
    baseline = target.baseline or 0
    return target.value - baseline if target.measure == TargetMeasure.cumulative else target.value


async def _lock(session: AsyncSession, caller: Caller, target_id: UUID) -> Target:
    """Hold a target that the caller may share out; 404, then 403.

    Whoever allocates need not be allowed to change it: the lock is one on its id.
    """
    await session.execute(_HOLD, {"id": str(target_id)})
    target = await find_target(session, caller, target_id)
    if target is None:
        raise NotFound
    youth = caller.reach(Permission.youth_union_write)
    nation = caller.reach(Permission.national_targets_write)
    may = (
        caller.reach(Permission.all_targets_allocate).covers(target)
        or (target.owner == TargetOwner.youth_union and youth.covers(target))
        or (target.unit_id == NATION and nation.covers(target))
    )
    if not may:
        raise InsufficientRole
    return target


async def _by_hand(
    session: AsyncSession, caller: Caller, target: Target, place: Place, given: TargetAllocate
) -> list[Share]:
    rows = given.allocations or []
    day = min(target.last_on, clock.today())
    found = await find_places(session, {(row.unit_id, day) for row in rows})
    places = {unit: spot for (unit, _), spot in found.items() if isinstance(spot, Place)}
    asked = {
        "unit": place.unit_key,
        "level": place.level,
        "day": day,
        "units": [spot.unit_key for spot in places.values()],
    }
    inside = set(await session.scalars(_INSIDE, asked))
    reach = caller.reach(Permission.targets_allocate)
    shares: dict[Key, Share] = {}
    for n, row in enumerate(rows):
        spot = places.get(row.unit_id)
        pointer = f"/allocations/{n}"
        if spot is None or spot.unit_key not in inside or not reach.covers(spot):
            raise ValidationFailed(FieldError(f"{pointer}/unit_id", "not_found"))
        if spot.unit_key == place.unit_key and row.team_id is None:
            raise ValidationFailed(FieldError(f"{pointer}/unit_id", "not_below"))
        if (row.unit_id, row.team_id) in shares:
            raise ValidationFailed(FieldError(pointer, "duplicate"))
        if row.team_id:
            await check_team(session, caller, row.team_id, spot, f"{pointer}/team_id")
        shares[row.unit_id, row.team_id] = Share(spot, row.team_id, row.value)
    return list(shares.values())


async def _by_key(
    session: AsyncSession,
    caller: Caller,
    target: Target,
    place: Place,
    by: AllocateBy,
    whole: float,
) -> list[Share]:
    """Share out evenly, by households or by active members: largest remainders first.

    Households are those declared or, where not every unit has declared them, those registered, for
    whoever lists these. A percentage is not shared out, nor is anything by what is not known.
    """
    is_share = formula_of(target.indicator).share or target.denominator is not None
    if is_share or target.measure == TargetMeasure.growth or target.team_id is not None:
        raise ValidationFailed(FieldError("/by", "not_shareable"))
    day = min(target.last_on, clock.today())
    asked = {"unit": place.unit_key, "level": place.level, "day": day}
    below = list(await session.execute(_BELOW, asked))
    units = [Unit(r.key, r.id, Level(r.level), ((day, day),), ((day, None, ""),)) for r in below]
    if not units:
        raise ValidationFailed(FieldError("/by", "no_weights"))
    found = await find_places(session, {(unit.id, day) for unit in units})
    spots = {unit: spot for (unit, _), spot in found.items() if isinstance(spot, Place)}
    weights = dict.fromkeys((unit.key for unit in units), 1.0)
    for indicator in _WEIGHTS.get(by, ()):
        needs = {u.key: need_of(indicator, u, (day, day), day) for u in units}
        known = {unit.key: unit for unit in units}
        asking = await find_parts(session, needs.values(), known, day)
        (told,) = (await count_parts(session, caller, asking, known)).figures.values()
        await enter(session, caller)
        lists = caller.reach(Permission.households_read).covers(place)
        shown = lists or not formula_of(indicator).people
        values = {key: told[need].value for key, need in needs.items() if shown}
        if any(values.values()) and None not in values.values():
            weights = {key: float(value or 0) for key, value in values.items()}
            break
    else:
        if by in _WEIGHTS:
            raise ValidationFailed(FieldError("/by", "no_weights"))
    parts = apportion(whole, weights)
    return [Share(spots[unit.id], None, parts[unit.key]) for unit in units]


def apportion(whole: float, weights: Mapping[int, float]) -> dict[int, float]:
    """Return whole parts of a whole number (else to four places) that add up to it exactly.

    By largest remainders (Hamilton); of equal ones the first in order is given more.
    """
    scale = 1 if whole == int(whole) else SCALE
    amount = round(whole * scale)
    total = sum(Fraction(weight) for weight in weights.values())
    exact = {key: amount * Fraction(weight) / total for key, weight in weights.items()}
    parts = {key: int(share // 1) for key, share in exact.items()}
    order = sorted(exact, key=lambda key: parts[key] - exact[key])
    for key in order[: amount - sum(parts.values())]:
        parts[key] += 1
    return {key: part / scale for key, part in parts.items()}


async def _put(
    session: AsyncSession, caller: Caller, target: Target, shares: Sequence[Share]
) -> list[Target]:
    """Make the parts that are to stand of those that do, or did; hide the others."""
    known: dict[Key, Target] = {}
    found = select(Target).where(col(Target.allocated_from_id) == target.id)
    for row in await session.scalars(found.order_by(col(Target.deleted_at).asc().nulls_last())):
        known[row.unit_id, row.team_id] = row  # one that stands comes last
    parts = []
    for share in shares:
        part = known.pop((share.where.unit_id, share.team_id), None)
        values = _values(target, share)
        if part is None:
            now = clock.now()
            record: dict[str, Any] = {"created_at": now, "updated_at": now, "created_by": caller.id}
            part = Target(**values, **record, id=ids.new_id(), version=1)
            session.add(part)
        else:
            _change(part, values)
        parts.append(part)
    gone = [row for row in known.values() if row.deleted_at is None]
    await session.flush()
    await _hide(session, gone)
    return parts


def _values(target: Target, share: Share) -> dict[str, Any]:
    period = target.measure == TargetMeasure.cumulative
    growth = target.measure == TargetMeasure.growth
    return {
        **{name: getattr(target, name) for name in _KEPT},
        **share.where.columns(),
        "measure": TargetMeasure.period if period else target.measure,
        "baseline": target.baseline if growth else None,
        "team_id": share.team_id,
        "value": share.value,
        "allocated_from_id": target.id,
    }


def _change(part: Target, values: Mapping[str, Any]) -> None:
    version = part.version
    bring_back(part)
    changed = {name: value for name, value in values.items() if getattr(part, name) != value}
    for name, value in changed.items():
        setattr(part, name, value)
    if changed and part.version == version:
        touch(part)


async def _hide(session: AsyncSession, gone: Sequence[Target]) -> None:
    """Hide parts, and what was shared out of them."""
    if not gone:
        return
    below = list(await session.scalars(_OUT_OF, {"ids": [row.id for row in gone]}))
    standing = select(Target).where(col(Target.id).in_(below), col(Target.deleted_at).is_(None))
    for row in [*gone, *await session.scalars(standing)]:
        hide(row)
    await session.flush()
