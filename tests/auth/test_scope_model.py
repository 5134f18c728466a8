"""Scope against a model: random trees, a reform that splits them, random grants.

The model says in plain sets what `domain` says in words; the service says it in arrays of keys,
once in the application and again in the database. Both must show the same rows.
"""

from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from api import clock, ids
from api.auth.caller import Caller, enter
from api.auth.loading import load
from api.auth.permissions import GRANT_LEVELS, MATRIX, TEAM_ROLES, Permission
from api.auth.scope import visible
from api.auth.secrets import Secrets
from api.db import create_engine, transaction
from api.models.households import Household
from api.models.role_grants import Role
from api.models.teams import Team
from api.pagination import Cursors
from tests.conftest import LET_GO, SECRET

REFORM = date(2025, 7, 1)
SECRETS = Secrets(SECRET)
ROLES = [role for role in Role if role not in TEAM_ROLES and Permission.teams_read in MATRIX[role]]
READS: dict[Permission, Any] = {Permission.teams_read: Team, Permission.households_read: Household}


@dataclass
class World:
    """A small country: units 1… with their parents before and after the reform; 0 is the nation."""

    old: dict[int, int] = field(default_factory=dict)
    new: dict[int, int] = field(default_factory=dict)
    became: dict[int, set[int]] = field(default_factory=dict)
    village: dict[int, tuple[int, int | None]] = field(default_factory=dict)
    """Village -> the commune it stood in, and the one it stands in; None when nobody said."""

    def level(self, unit: int) -> str:
        if unit in self.village:
            return "village"
        above = (self.old | self.new).get(unit)
        return "nation" if unit == 0 else "province" if above == 0 else "commune"


@dataclass(frozen=True)
class Given:
    """A grant: role, unit, and whether it holds today."""

    role: Role
    unit: int
    holds: bool


# The model, in plain sets. ----------------------------------------------------------------------


def communes_today(world: World, unit: int) -> set[int]:
    """Return the communes of today that may hold the territory of a unit of any day."""
    if unit == 0:
        return {new for new, above in world.new.items() if above != 0}
    if unit in world.village:
        before, now = world.village[unit]
        return communes_today(world, before) if now is None else {now}
    if world.level(unit) == "province":
        tree = world.old if unit in world.old else world.new
        return {c for below in tree if tree[below] == unit for c in communes_today(world, below)}
    return world.became.get(unit, {unit})


def root(world: World, unit: int) -> int | None:
    """Return the unit of today that a grant on a unit means; none once it was split."""
    if unit == 0 or unit in world.new or unit in world.village:
        return unit
    level = world.level(unit)
    at_level = communes_today(world, unit)
    if level == "province":
        at_level = {world.new[commune] for commune in at_level}
    return next(iter(at_level)) if len(at_level) == 1 else None


def sees(world: World, grants: list[Given], permission: Permission, unit: int) -> bool:
    """Tell whether a row of a unit is in scope: every half of where it may lie is granted."""
    roots = {root(world, g.unit) for g in grants if g.holds and permission in MATRIX[g.role]}
    covered = {c for r in roots - {None} for c in communes_today(world, r or 0)}
    return unit in roots or (bool(covered) and communes_today(world, unit) <= covered)


# ------------------------------------------------------------------------------------------------


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Draw two provinces with communes and villages, merged and split by one reform."""
    world, names = World(), iter(range(1, 1000))
    old_provinces = [next(names) for _ in range(2)]
    world.old = dict.fromkeys(old_provinces, 0)
    olds = [next(names) for _ in range(draw(st.integers(2, 5)))]
    world.old |= {c: draw(st.sampled_from(old_provinces)) for c in olds}
    new_provinces = [next(names) for _ in range(draw(st.integers(1, 2)))]
    world.new = dict.fromkeys(new_provinces, 0)
    news = [next(names) for _ in range(draw(st.integers(1, 4)))]
    world.new |= {c: draw(st.sampled_from(new_provinces)) for c in news}
    for old in olds:
        world.became[old] = draw(st.sets(st.sampled_from(news), min_size=1, max_size=2))
    for new in set(news) - {c for heirs in world.became.values() for c in heirs}:
        del world.new[new]
    for _ in range(draw(st.integers(0, 4))):
        before = draw(st.sampled_from(olds))
        heirs = sorted(world.became[before])
        places: list[int | None] = [*heirs, None] if len(heirs) > 1 else [*heirs]
        world.village[next(names)] = before, draw(st.sampled_from(places))
    return world


@st.composite
def situations(draw: st.DrawFn) -> tuple[World, list[Given]]:
    """Draw a world and the grants of somebody in it."""
    world = draw(worlds())
    units = [0, *world.old, *world.new]
    grants = []
    for _ in range(draw(st.integers(1, 4))):
        role = draw(st.sampled_from(ROLES))
        levels = GRANT_LEVELS.get(role, {"nation", "province", "commune"})
        fit = [unit for unit in units if world.level(unit) in levels]
        grants.append(Given(role, draw(st.sampled_from(fit)), draw(st.booleans())))
    return world, grants


def identity(unit: int) -> UUID:
    return UUID(int=unit + 1)


async def found(connection: AsyncConnection, world: World) -> None:
    """Put the world in the place of the real one, with a team and a household in every unit."""
    eras: list[tuple[int, int | None, date | None, date | None]]
    eras = [(unit, above, None, REFORM) for unit, above in world.old.items()]
    eras += [(unit, above, REFORM, None) for unit, above in world.new.items()]
    eras += [(unit, before, None, REFORM) for unit, (before, _) in world.village.items()]
    eras += [(unit, now, REFORM, None) for unit, (_, now) in world.village.items()]
    await connection.execute(LET_GO)
    await connection.execute(text("truncate admin_unit, tree cascade"))
    await connection.execute(text("insert into tree values (gen_random_uuid())"))
    await connection.execute(
        text("""
            insert into admin_unit (id, key, level, valid_from, valid_to)
            overriding system value values (:id, :key, :level, :starts, :ends)
        """),
        [
            {
                "id": identity(unit),
                "key": unit,
                "level": world.level(unit),
                "starts": REFORM if unit in world.new else None,
                "ends": REFORM - timedelta(days=1) if unit in world.old else None,
            }
            for unit in [0, *world.old, *world.new, *world.village]
        ],
    )
    await connection.execute(
        text("""
            insert into admin_unit_state (unit_key, during, name, type, parent_key)
            values (:unit, daterange(cast(:starts as date), cast(:ends as date)), 'x', 'x', :above)
        """),
        [
            {"unit": unit, "above": above, "starts": starts, "ends": ends}
            for unit, above, starts, ends in [(0, None, None, None), *eras]
        ],
    )
    heirs = [(old, new) for old, news in world.became.items() for new in news]
    for province in [unit for unit, above in world.old.items() if above == 0]:
        after = {world.new[commune] for commune in communes_today(world, province)}
        heirs += [(province, new) for new in after]
    await connection.execute(
        text("insert into unit_succession values (:old, :new, :on, :extent)"),
        [
            {
                "old": old,
                "new": new,
                "on": REFORM,
                "extent": "whole" if sum(o == old for o, _ in heirs) == 1 else "part",
            }
            for old, new in heirs
        ],
    )
    await connection.execute(text("select rebuild_placement()"))
    for unit, above, starts, _ in eras:
        if world.level(unit) == "province" or above is None:
            continue
        commune = above if world.level(unit) == "village" else unit
        place = {
            "unit": identity(unit),
            "unit_key": unit,
            "commune": commune,
            "province": (world.old if starts is None else world.new)[commune],
        }
        for table, fields in (
            ("team", "name, kind, founded_on, external_ids"),
            ("household", "head_name, is_business, external_ids"),
        ):
            values = {
                "team": "'x', 'community_team', '2023-01-01', '{}'",
                "household": "'x', false, '{}'",
            }
            await connection.execute(
                text(f"""
                    insert into {table} (id, version, created_at, updated_at, unit_id, unit_key,
                                         commune_key, province_key, {fields})
                    values (:id, 1, now(), now(), :unit, :unit_key, :commune, :province,
                            {values[table]})
                """),
                place | {"id": ids.new_id()},
            )


async def grant(connection: AsyncConnection, grants: list[Given]) -> UUID:
    """Make somebody who holds the grants."""
    person, day = ids.new_id(), clock.today()
    await connection.execute(
        text("""
            insert into principal (id, kind, login, secret_hash, name, version, created_at,
                                   updated_at)
            values (:id, 'user', :login, 'x', 'x', 1, now(), now())
        """),
        {"id": person, "login": str(person)},
    )
    for given_ in grants:
        await connection.execute(
            text("""
                insert into role_grant (id, version, created_at, updated_at, principal_id, role,
                                        unit_id, unit_key, valid_from, valid_to)
                values (:id, 1, now(), now(), :person, :role, :unit, :key, :starts, :ends)
            """),
            {
                "id": ids.new_id(),
                "person": person,
                "role": given_.role.value,
                "unit": identity(given_.unit),
                "key": given_.unit,
                "starts": day - timedelta(days=9),
                "ends": day if given_.holds else day - timedelta(days=1),
            },
        )
    return person


async def shown(engine: AsyncEngine, person: UUID) -> tuple[Caller, dict[Permission, list[int]]]:
    """Return the units whose rows the service shows, by permission."""
    async with transaction(engine) as session:
        known = await load(session, person, clock.today(), SECRETS, Cursors(SECRETS.cursors))
        await enter(session, known)
        rows: dict[Permission, list[Any]] = {}
        for permission, table in READS.items():
            rows[permission] = list(await session.scalars(visible(table, known, permission)))
            by_policy = await session.scalar(text(f"select count(*) from {table.__tablename__}"))
            assert by_policy == len(rows[permission])  # the database alone shows the same
    return known, {p: sorted(row.unit_key for row in found) for p, found in rows.items()}


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(situation=situations())
@example(  # a village that neither half was given, and somebody who holds both
    situation=(
        World(
            old={1: 0, 2: 0, 3: 1, 7: 1},
            new={8: 0, 10: 8, 11: 8},
            became={3: {10}, 7: {10, 11}},
            village={12: (7, None)},
        ),
        [Given(Role.commune_admin, unit, holds=True) for unit in (3, 11)],
    )
)
async def test_the_service_shows_what_the_model_says(
    database: str, superuser: AsyncEngine, situation: tuple[World, list[Given]]
) -> None:
    world, grants = situation
    engine = create_engine(database, pool_size=1)
    try:
        async with superuser.connect() as connection:
            await found(connection, world)
            person = await grant(connection, grants)
            recorded = list(await connection.scalars(text("select unit_key from team")))
        _, seen = await shown(engine, person)
        for permission in READS:
            expected = sorted(u for u in recorded if sees(world, grants, permission, u))
            assert seen[permission] == expected, permission
    finally:
        await engine.dispose()
