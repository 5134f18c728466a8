"""Random reorganisations of a small country: nothing is lost, sums agree, all can be taken back."""

from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from api import clock, ids
from api.auth.caller import Caller
from api.auth.loading import load
from api.auth.secrets import Secrets
from api.db import create_engine, transaction
from api.errors import Refusal
from api.models.reorganisations import (
    LegalDocument,
    ReorganisationCreate,
    ReorganisationRead,
    ReorganisationRevert,
)
from api.pagination import Cursors
from api.services.reorganisation_reverts import revert_reorganisation
from api.services.reorganisations import reorganise_as_operator
from tests.conftest import LET_GO, SECRET

FIRST = date(2026, 1, 1)
SECRETS = Secrets(SECRET)
LEVELS = ("nation", "province", "commune", "village")
CHILDREN = 2
KINDS = ("create", "rename", "move", "merge", "split", "dissolve", "revert")

EMPTY = text("truncate admin_unit, tree, reorganisation, principal, support_event cascade")
UNIT = text("""
    with unit as (
        insert into admin_unit (id, level) values (:id, :level) returning key
    )
    insert into admin_unit_state (unit_key, during, name, type, parent_key)
    select key, daterange(null, null), :name, 'x', cast(:parent as integer) from unit
    returning unit_key
""")
EVENT = text("""
    insert into support_event (
        id, version, created_at, updated_at, unit_id, unit_key, commune_key, province_key, team_id,
        team_unit_key, member_ids, service_type, occurred_at, quantity, outcome, mode, channel,
        status, external_ids)
    select :id, 1, now(), now(), u.id, u.key, :commune, :province, :id, u.key, '{}', 'ID.ACTIVATE',
           '2025-08-01', 1, 'completed', 'assisted', 'market', 'submitted', '{}'
    from admin_unit u where u.key = :unit
""")
ADMIN = text("""
    with somebody as (
        insert into principal (id, kind, login, secret_hash, name, version, created_at, updated_at)
        values (:id, 'user', 'x', 'x', 'x', 1, now(), now()) returning id
    )
    insert into role_grant (id, version, created_at, updated_at, principal_id, role, unit_id,
                            unit_key)
    select gen_random_uuid(), 1, now(), now(), s.id, 'national_admin', u.id, u.key
    from somebody s join admin_unit u on u.level = 'nation'
""")
TREE = text("""
    select md5(concat_ws('|',
        (select string_agg(row(u.id, u.valid_from, u.valid_to)::text, ',' order by u.key)
         from admin_unit u),
        (select string_agg(s::text, ',' order by s.unit_key, s.during) from admin_unit_state s),
        (select string_agg(x::text, ',' order by x.predecessor_key, x.successor_key)
         from unit_succession x),
        (select string_agg(p::text, ',' order by p.unit_key, p.level, p.during)
         from placement p)))
""")
FACTS = text("select md5(string_agg(e::text, ',' order by e.id)) from support_event e")
STANDING = text("""
    select u.id, u.level, p.id as parent_id from admin_unit_state s
    join admin_unit u on u.key = s.unit_key
    left join admin_unit p on p.key = s.parent_key
    where s.during @> cast(:day as date) order by u.key
""")
DANGLING = text("""
    select u.id, s.during from admin_unit_state s
    join admin_unit u on u.key = s.unit_key
    left join admin_unit p on p.key = s.parent_key
    where u.level <> 'nation'
      and (p.key is null
           or not s.during <@ daterange(p.valid_from, p.valid_to, '[]')
           or array_position(cast(:levels as text[]), p.level) + 1
              <> array_position(cast(:levels as text[]), u.level))
""")
GAPS = text("""
    select u.id from admin_unit u
    where (select range_agg(s.during) from admin_unit_state s where s.unit_key = u.key)
          is distinct from datemultirange(daterange(u.valid_from, u.valid_to, '[]'))
""")
# Each event's units of a day, level by level: whoever has a commune has that commune's province.
TERRITORY = text(
    """
    select e.id, n.ancestor_key as nation, p.ancestor_key as province, c.ancestor_key as commune,
           v.ancestor_key as village, ps.parent_key as above_province,
           cs.parent_key as above_commune, vs.parent_key as above_village
    from support_event e
    left join placement n on n.unit_key = e.unit_key and n.level = 'nation' and n.during @> d.day
    left join placement p on p.unit_key = e.unit_key and p.level = 'province' and p.during @> d.day
    left join placement c on c.unit_key = e.unit_key and c.level = 'commune' and c.during @> d.day
    left join placement v on v.unit_key = e.unit_key and v.level = 'village' and v.during @> d.day
    left join admin_unit_state ps on ps.unit_key = p.ancestor_key and ps.during @> d.day
    left join admin_unit_state cs on cs.unit_key = c.ancestor_key and cs.during @> d.day
    left join admin_unit_state vs on vs.unit_key = v.ancestor_key and vs.during @> d.day
""".replace(
        "from support_event e\n",
        "from support_event e cross join (select cast(:day as date) as day) d\n",
    )
)


@dataclass
class Small:
    """A small country and what was done to it; `done` are reorganisations, the last one last."""

    connection: AsyncConnection
    engine: AsyncEngine
    caller: Caller
    documents: int = 0
    done: list[tuple[UUID, str]] = field(default_factory=list)

    async def tree(self) -> str:
        return str(await self.connection.scalar(TREE))

    async def step(self, kind: str, numbers: list[int], day: date) -> None:
        """Try something; what is refused changes nothing."""
        before = await self.tree()
        if kind == "revert":
            if self.done:
                reorganisation, was = self.done.pop()
                await self.revert(reorganisation)
                assert await self.tree() == was
            return
        change = await self.change(kind, numbers, day)
        self.documents += 1
        given_ = ReorganisationCreate(
            effective_on=day,
            document=LegalDocument(number=str(self.documents), issued_on=FIRST, issuer="x"),
            changes=[change],
        )
        try:
            async with transaction(self.engine) as session:
                made = await reorganise_as_operator(session, given_)
        except Refusal as refusal:
            event(f"{kind}: {refusal.errors[0].code}")
            assert await self.tree() == before
            return
        event(f"{kind}: done")
        assert isinstance(made, ReorganisationRead)
        assert made.unplaced == []
        self.done.append((made.id, before))

    async def revert(self, reorganisation: UUID) -> None:
        async with transaction(self.engine) as session:
            reason = ReorganisationRevert(reason="x")
            await revert_reorganisation(session, self.caller, reorganisation, reason)

    async def change(self, kind: str, numbers: list[int], day: date) -> Any:
        """Return a change of units that stand on the day, chosen by the numbers."""
        rows = (await self.connection.execute(STANDING, {"day": day})).all()
        level = LEVELS[1 + numbers[0] % 3]
        units = [row for row in rows if row.level == level]
        parents = [row.id for row in rows if row.level == LEVELS[LEVELS.index(level) - 1]]
        one, other = (units[n % len(units)] if units else rows[0] for n in numbers[1:3])
        parent = parents[numbers[3] % len(parents)] if parents else rows[0].id
        new = {"level": level, "type": "x", "name": f"Đơn vị {self.documents}", "parent_id": parent}
        below = [row.id for row in rows if row.parent_id == one.id]
        halves = [[u for n, u in enumerate(below) if (numbers[3] >> n) % 2 == i] for i in (0, 1)]
        parts = [
            {"unit": new | {"name": f"{new['name']} {i}"}, "village_ids": half}
            for i, half in enumerate(halves)
        ]
        heir = {"successor_id": other.id} if numbers[3] % 2 else {}
        return {
            "create": {"kind": kind, "unit": new},
            "rename": {"kind": kind, "unit_id": one.id, "name": new["name"]},
            "move": {"kind": kind, "unit_ids": [one.id], "parent_id": parent},
            "merge": {"kind": kind, "from_ids": list({one.id, other.id}), "to": new},
            "split": {"kind": kind, "from_id": one.id, "into": parts},
            "dissolve": {"kind": kind, "unit_id": one.id} | heir,
        }[kind]

    async def check(self, days: list[date], facts: str) -> None:
        """Nothing is lost, sums agree at every boundary, the tree has no cycle and no gap."""
        events = await self.connection.scalar(text("select count(*) from support_event"))
        assert await self.connection.scalar(FACTS) == facts
        for day in days:
            rows = (await self.connection.execute(TERRITORY, {"day": day})).all()
            assert len(rows) == events
            for row in rows:
                assert row.nation is not None
                assert row.province is None or row.above_province == row.nation
                assert row.commune is None or row.above_commune == row.province
                assert row.village is None or row.above_village == row.commune
        dangling = await self.connection.execute(DANGLING, {"levels": list(LEVELS)})
        assert dangling.all() == []
        assert (await self.connection.execute(GAPS)).all() == []
        tree = await self.tree()
        await self.connection.execute(text("select rebuild_placement()"))
        assert await self.tree() == tree


async def found(connection: AsyncConnection, engine: AsyncEngine) -> Small:
    """Put a country of two provinces with two communes of two villages in the real one's place."""
    await connection.execute(LET_GO)
    await connection.execute(EMPTY)
    await connection.execute(text("insert into tree values (gen_random_uuid())"))

    async def add(parent: list[int], depth: int) -> None:
        name = ".".join(map(str, parent)) or "x"
        values = {"id": ids.new_id(), "level": LEVELS[depth], "name": name}
        above = {"parent": parent[-1] if parent else None}
        key = await connection.scalar(UNIT, values | above)
        assert isinstance(key, int)
        path = [*parent, key]
        if depth > 1:
            what = {"id": ids.new_id(), "unit": key, "commune": path[2], "province": path[1]}
            await connection.execute(EVENT, what)
        for _ in range(CHILDREN if depth < len(LEVELS) - 1 else 0):
            await add(path, depth + 1)

    await add([], 0)
    await connection.execute(text("select rebuild_placement()"))
    person = ids.new_id()
    await connection.execute(ADMIN, {"id": person})
    async with transaction(engine) as session:
        caller = await load(session, person, clock.today(), SECRETS, Cursors(SECRETS.cursors))
    return Small(connection, engine, caller)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.lists(st.integers(0, 7), min_size=4, max_size=4),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=8,
)


@settings(
    max_examples=12,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS)
async def test_nothing_is_lost_and_everything_can_be_taken_back(
    database: str, superuser: AsyncEngine, steps: list[tuple[str, list[int], int]]
) -> None:
    engine = create_engine(database, pool_size=1)
    try:
        async with superuser.connect() as connection:
            small = await found(connection, engine)
            tree, facts = await small.tree(), str(await connection.scalar(FACTS))
            days = [FIRST + timedelta(days=30 * n - 1) for n in range(6)]
            for kind, numbers, month in steps:
                await small.step(kind, numbers, FIRST + timedelta(days=30 * month))
                await small.check(days, facts)
            while small.done:
                reorganisation, was = small.done.pop()
                await small.revert(reorganisation)
                assert await small.tree() == was
            assert await small.tree() == tree
    finally:
        await engine.dispose()
