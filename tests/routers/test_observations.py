"""Observations, over HTTP: every figure against a naive recount of the same facts in Python."""

import csv
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from functools import cache
from io import StringIO
from itertools import product
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from api import clock, ids
from api.db import transaction
from api.models.observations import Every
from api.models.role_grants import Role
from api.services import event_folding, periods
from api.services.formulas import FORMULAS
from tests.factories import HA_NOI, LAO_CAI, NATION, As, Country, Province, make
from tests.rules import fault, problem, same_answer

TODAY = date(2026, 10, 15)
DAY = timedelta(1)
EDGES = [date(2024, 12, 31), date(2025, 6, 30), date(2025, 7, 1), date(2025, 12, 31), TODAY]
OLD_HA_NOI = ids.official_unit_id("province", "01")
OLD_BA_DINH = ids.official_unit_id("district", "001")
WHOLE = ids.official_unit_id("commune", "00001")  # Phúc Xá, all of it Hồng Hà today
HONG_HA = ids.official_unit_id("commune", "00097", "2025-07-01")
SPLIT = ids.official_unit_id("commune", "00016")  # Ngọc Hà, today in two wards
BA_DINH = ids.official_unit_id("commune", "00004", "2025-07-01")
NGOC_HA = ids.official_unit_id("commune", "00008", "2025-07-01")
MUONG_KHUONG = ids.official_unit_id("commune", "02761", "2025-07-01")
UNIT_OF_COUNT = {"ID.ACTIVATE": "account", "ID.USE": "turn", "PS.ACCOUNT": "account"}
DIMENSIONS = ["service_type", "channel", "outcome", "kind"]
ADDITIVE = [
    *("teams.active", "teams.founded", "villages.total", "villages.covered", "events.count"),
    *("households.registered", "households.reached"),
    *("activities.count", "activities.participants"),
]

type Row = dict[str, Any]


@pytest.fixture(autouse=True)
def _one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "today", lambda: TODAY)


@dataclass
class Tree:
    """The dated tree, walked step by step from the recorded states and successions."""

    units: dict[UUID, Row]
    states: dict[UUID, list[Row]]
    became: dict[UUID, list[UUID]]
    came_from: dict[UUID, list[UUID]]
    turns: list[date] = field(default_factory=list)
    """The days on which anything changes."""

    @classmethod
    async def read(cls, superuser: AsyncEngine) -> "Tree":
        async with superuser.connect() as connection:
            units = (
                await connection.execute(
                    text("select id, level, valid_from, valid_to from admin_unit")
                )
            ).mappings()
            states = (
                await connection.execute(
                    text("""
                        select u.id, s.code, s.name, p.id as parent, lower(s.during) as since,
                               upper(s.during) - 1 as until
                        from admin_unit_state s join admin_unit u on u.key = s.unit_key
                        left join admin_unit p on p.key = s.parent_key order by s.during
                    """)
                )
            ).mappings()
            steps = (
                await connection.execute(
                    text("""
                        select o.id as old, n.id as new from unit_succession x
                        join admin_unit o on o.key = x.predecessor_key
                        join admin_unit n on n.key = x.successor_key
                    """)
                )
            ).all()
        tree = cls({row["id"]: dict(row) for row in units}, {}, {}, {})
        for row in states:
            tree.states.setdefault(row["id"], []).append(dict(row))
        for old, new in steps:
            tree.became.setdefault(old, []).append(new)
            tree.came_from.setdefault(new, []).append(old)
        ends = {s["until"] + DAY for several in tree.states.values() for s in several if s["until"]}
        starts = {s["since"] for several in tree.states.values() for s in several if s["since"]}
        tree.turns = sorted(ends | starts)
        tree._above = cache(tree._above)  # type: ignore[method-assign]
        tree._under = cache(tree._under)  # type: ignore[method-assign]
        return tree

    def stands(self, unit: UUID, day: date) -> bool:
        row = self.units[unit]
        return (row["valid_from"] or day) <= day <= (row["valid_to"] or day)

    def state(self, unit: UUID, day: date) -> Row:
        states = self.states[unit]
        return next((s for s in states if day <= (s["until"] or day)), states[-1])

    def may_hold(self, unit: UUID, day: date) -> set[UUID]:
        """Return the official units that may hold a unit's territory on a day."""
        if self.units[unit]["level"] == "village":
            states = self.states[unit]
            now = states.index(self.state(unit, day))
            parent = next(s["parent"] for s in reversed(states[: now + 1]) if s["parent"])
            return self.may_hold(parent, day)
        if self.stands(unit, day):
            return {unit}
        ended = (self.units[unit]["valid_to"] or day) < day
        steps = (self.became if ended else self.came_from).get(unit, [])
        return set().union(*(self.may_hold(step, day) for step in steps))

    def era(self, day: date) -> date:
        """Return the day since which nothing has changed: what is walked once is remembered."""
        return max((turn for turn in self.turns if turn <= day), default=date.min)

    def above(self, unit: UUID, level: str, day: date) -> UUID | None:
        """Return the unit of a level in which all of a territory lies on a day."""
        return self._above(unit, level, self.era(day))

    def _above(self, unit: UUID, level: str, day: date) -> UUID | None:
        if level == "village":
            village = self.units[unit]["level"] == "village" and self.stands(unit, day)
            return unit if village else None
        if level == "nation":
            return NATION
        found: set[UUID | None] = set()
        for candidate in self.may_hold(unit, day):
            here: UUID | None = candidate
            while here and self.units[here]["level"] != level:
                here = self.state(here, day)["parent"]
            found.add(here)
        return found.pop() if len(found) == 1 else None

    def under(self, root: UUID, level: str, day: date) -> set[UUID]:
        """Return the units of a level that stand under a root on a day."""
        return self._under(root, level, self.era(day))

    def _under(self, root: UUID, level: str, day: date) -> set[UUID]:
        top = self.units[root]["level"]
        return {
            unit
            for unit, row in self.units.items()
            if row["level"] == level
            and self.stands(unit, day)
            and self.above(unit, top, day) == root
        }


@dataclass
class Facts:
    """Everything that was recorded, as plain rows."""

    tree: Tree
    team: list[Row] = field(default_factory=list)
    member: list[Row] = field(default_factory=list)
    stay: list[Row] = field(default_factory=list)
    household: list[Row] = field(default_factory=list)
    event: list[Row] = field(default_factory=list)
    activity: list[Row] = field(default_factory=list)


INSERTS = {
    "team": """
        insert into team (id, version, created_at, updated_at, deleted_at, unit_id, unit_key,
            commune_key, province_key, name, kind, founded_on, dissolved_on, zalo_group_url,
            external_ids)
        select r.id, 1, now(), now(), case when r.deleted then now() end, u.id, u.key, c.key, p.key,
               'Tổ', r.kind, r.day, r.until, r.zalo, '{}'
    """,
    "member": """
        insert into member (id, version, created_at, updated_at, deleted_at, full_name, birth_year,
            gender, is_youth_union_member, trained_on, external_ids)
        select r.id, 1, now(), now(), case when r.deleted then now() end, 'Người', r.birth_year,
               'unstated', r.in_union, r.trained_on, '{}'
    """,
    "stay": """
        insert into membership (team_id, member_id, joined_on, left_on, role, unit_id, unit_key,
            commune_key, province_key)
        select r.team, r.member, r.day, r.until, r.role, t.unit_id, t.unit_key, t.commune_key,
               t.province_key
    """,
    "household": """
        insert into household (id, version, created_at, updated_at, deleted_at, unit_id, unit_key,
            commune_key, province_key, head_name, is_business, external_ids)
        select r.id, 1, r.day::timestamp at time zone 'Asia/Ho_Chi_Minh', now(),
               case when r.deleted then now() end, u.id, u.key, c.key, p.key, 'Hộ', false, '{}'
    """,
    "event": """
        insert into support_event (id, version, created_at, updated_at, unit_id, unit_key,
            commune_key, province_key, team_id, team_unit_key, team_commune_key, member_ids,
            household_id, service_type, occurred_at, quantity, outcome, mode, channel, status,
            beneficiary_hash, external_ids)
        select r.id, 1, now(), now(), u.id, u.key, c.key, p.key, r.team, t.unit_key, t.commune_key,
               '{}', r.household, r.service_type, r.at, r.quantity, r.outcome, 'assisted',
               r.channel, r.status, decode(r.hash, 'hex'), '{}'
    """,
    "activity": """
        insert into activity (id, version, created_at, updated_at, deleted_at, unit_id, unit_key,
            commune_key, province_key, kind, title, organiser, partners, held_on, participants,
            attendee_ids, external_ids)
        select r.id, 1, now(), now(), case when r.deleted then now() end, u.id, u.key, c.key, p.key,
               r.kind, 'Lớp', 'team', '{}', r.day, r.participants, r.attendees, '{}'
    """,
}
GIVEN = """
    from jsonb_to_recordset(cast(:rows as jsonb)) as r (
        id uuid, unit uuid, team uuid, member uuid, household uuid, day date, until date,
        deleted boolean, kind text, zalo text, birth_year integer, in_union boolean,
        trained_on date, role text, service_type text, at timestamptz, quantity integer,
        outcome text, channel text, status text, hash text, participants integer,
        attendees uuid[])
    left join admin_unit u on u.id = r.unit
    left join team t on t.id = r.team
    left join lateral (select ancestor_key as key from placement
        where unit_key = u.key and level = 'commune' and during @> r.day) c on true
    left join lateral (select ancestor_key as key from placement
        where unit_key = u.key and level = 'province' and during @> r.day) p on true
"""


async def record(superuser: AsyncEngine, facts: Facts) -> None:
    """Write the facts as the service would: placed in the tree of their own day."""
    async with superuser.connect() as connection, connection.begin():
        for table, insert in INSERTS.items():
            rows = json.dumps(getattr(facts, table), default=str)
            await connection.execute(text(insert + GIVEN), {"rows": rows})
    await unsettle(superuser)


CORRECTION = """
    update support_event e set version = e.version + 1, status = o.status, outcome = o.outcome,
        channel = o.channel, service_type = o.service_type, occurred_at = o.occurred_at,
        quantity = o.quantity, unit_id = o.unit_id, unit_key = o.unit_key,
        commune_key = o.commune_key, province_key = o.province_key
    from truth t join truth o on {values}
    where t.id = e.id and {which}
"""
# Done twice, each leaves everything as it was.
STRAYED = """
    with known as (select *, row_number() over (order by id) - 1 as n from household)
    update household h set version = h.version + 1, unit_key = other.unit_key,
        commune_key = other.commune_key, province_key = other.province_key, unit_id = other.unit_id
    from known join known other on other.n = known.n # 1
    where known.id = h.id
"""
MISTAKEN = """
    update household set deleted_at = case when deleted_at is null then now() end
    where get_byte(uuid_send(id), 15) % 3 = 0
"""
RENAMED = """
    update support_event
    set beneficiary_hash = set_byte(beneficiary_hash, 0, 255 - get_byte(beneficiary_hash, 0))
    where beneficiary_hash is not null and get_byte(uuid_send(id), 15) % 5 < 2
"""

HIDDEN = """
    update {0} set version = version + 1, deleted_at = case when deleted_at is null then now() end
    where get_byte(uuid_send(id), 15) % 4 = 0
"""
MOVED = """
    with known as (select *, row_number() over (order by id) - 1 as n from {0})
    update {0} t set version = t.version + 1, unit_key = other.unit_key,
        commune_key = other.commune_key, province_key = other.province_key, unit_id = other.unit_id
    from known join known other on other.n = known.n # 1
    where known.id = t.id
"""
CHANGED = (
    """
    update team set version = version + 1, founded_on = founded_on {0} 40,
        kind = case kind when 'core_squad' then 'expert_group' when 'expert_group' then 'core_squad'
               else kind end,
        zalo_group_url = case when zalo_group_url is null then 'https://zalo.me/g/1' end
    where get_byte(uuid_send(id), 14) % 3 = 0
    """,
    """
    update member set version = version + 1, birth_year = 3970 - birth_year,
        is_youth_union_member = not is_youth_union_member, trained_on = trained_on {0} 100
    where get_byte(uuid_send(id), 14) % 3 = 0
    """,
    """
    update activity set version = version + 1, held_on = held_on {0} 40,
        participants = 200 - participants, kind = case kind when 'training' then 'meeting'
        when 'meeting' then 'training' else kind end
    where get_byte(uuid_send(id), 14) % 3 = 0
    """,
    """
    update membership set joined_on = joined_on {0} 30
    where get_byte(uuid_send(member_id), 15) % 3 = 0
    """,
)
GONE = """
    with gone as (
        delete from membership where get_byte(uuid_send(member_id), 15) % 5 = 0 returning *)
    insert into left_out select * from gone
"""
BACK = "insert into membership select * from left_out"


BEFORE, AFTER = [change.format("-") for change in CHANGED], [c.format("+") for c in CHANGED]
HIDING = [HIDDEN.format(noun) for noun in ("team", "member", "activity")]
MOVING = [MOVED.format(noun) for noun in ("team", "activity")]
DISTURBED = [
    [*HIDING, *BEFORE, *MOVING],
    [*HIDING, AFTER[0], GONE, HIDING[0]],
    [*MOVING, BACK, *AFTER[1:], HIDING[0]],
]
"""Before the first fold, before the second one, and after both: all is as it was in the end."""


async def unsettle(superuser: AsyncEngine) -> None:
    """Let every third event have been recorded otherwise, and corrected; fold in between.

    What stands is the same; some of the corrections, and some events, are not folded.
    """

    async def correct(values: str, which: str) -> None:
        await connection.execute(text(CORRECTION.format(values=values, which=which)))

    async def fold() -> None:
        async with transaction(superuser, snapshot=True) as session:
            await event_folding.fold(session)

    async with superuser.connect() as connection:
        await connection.execute(text("create temporary table left_out (like membership)"))
        await connection.execute(
            text("""
                create temporary table truth as
                select *, row_number() over (order by id) as n,
                       row_number() over (order by md5(id::text)) as shuffled
                from support_event
            """)
        )
        await correct("o.shuffled = t.n", "t.n % 3 = 0")
        for change in (STRAYED, MISTAKEN, *DISTURBED[0]):
            await connection.execute(text(change))
        await fold()
        await correct("o.n = t.n", "t.n % 6 = 0")
        await correct("o.shuffled = t.n", "t.n % 7 = 0")
        await correct("o.n = t.n", "t.n % 7 = 0")
        for change in (STRAYED, RENAMED, *DISTURBED[1]):
            await connection.execute(text(change))
        await fold()
        for change in (MISTAKEN, RENAMED, *DISTURBED[2]):
            await connection.execute(text(change))
        await correct("o.n = t.n", "t.n % 3 = 0")
        await correct("o.shuffled = t.n", "t.n % 11 = 0")
        await correct("o.n = t.n", "t.n % 11 = 0")
        await connection.execute(text("drop table truth, left_out"))


@dataclass
class Inventor:
    """Makes up facts of four years, in units that stood on their days."""

    tree: Tree
    units: list[UUID]
    dice: random.Random

    def day(self, first: date) -> date:
        edges = [day for day in EDGES if first <= day]
        if edges and self.dice.random() < 0.3:
            return self.dice.choice(edges)
        return first + timedelta(self.dice.randint(0, (TODAY - first).days))

    def maybe[T](self, chance: float, value: T) -> T | None:
        return value if self.dice.random() < chance else None

    def place(self, first: date) -> Row:
        while True:
            unit, day = self.dice.choice(self.units), self.day(first)
            if self.tree.stands(unit, day):
                return {"id": ids.new_id(), "unit": unit, "day": day}

    def team(self) -> Row:
        row = self.place(date(2022, 6, 1))
        return row | {
            "until": self.maybe(0.3, self.day(row["day"])),
            "deleted": self.dice.random() < 0.1,
            "kind": self.dice.choice(["community_team", "core_squad", "expert_group"]),
            "zalo": self.maybe(0.5, "https://zalo.me/g/1"),
        }

    def member(self) -> Row:
        return {
            "id": ids.new_id(),
            "birth_year": self.maybe(0.8, self.dice.randint(1960, 2012)),
            "in_union": self.dice.random() < 0.2,
            "trained_on": self.maybe(0.5, self.day(date(2023, 1, 1))),
            "deleted": self.dice.random() < 0.05,
        }

    def stay(self, team: Row, member: Row) -> Row:
        day = self.day(team["day"])
        return {
            "team": team["id"],
            "member": member["id"],
            "day": day,
            "until": self.maybe(0.4, self.day(day)),
            "role": self.dice.choice(["leader", "deputy", "member", "member"]),
        }

    def household(self) -> Row:
        return self.place(date(2023, 6, 1)) | {"deleted": self.dice.random() < 0.1}

    def activity(self, facts: Facts) -> Row:
        row = self.place(date(2023, 10, 1))
        return row | {
            "kind": self.dice.choice(["training", "course", "launch", "meeting"]),
            "deleted": self.dice.random() < 0.1,
            "participants": self.maybe(0.7, self.dice.randint(3, 90)),
            "attendees": [m["id"] for m in self.dice.sample(facts.member, self.dice.randint(0, 3))],
        }

    def event(self, facts: Facts) -> Row:
        row = self.place(date(2023, 10, 1))
        hour = time(self.dice.choice([0, 9, 23]), 30, tzinfo=clock.REPORTING_ZONE)
        return row | {
            "at": datetime.combine(row["day"], hour),
            "team": self.dice.choice(facts.team)["id"],
            "household": self.maybe(0.5, self.dice.choice(facts.household)["id"]),
            "service_type": self.dice.choice(list(UNIT_OF_COUNT)),
            "quantity": self.dice.randint(1, 4),
            "outcome": self.dice.choice(["completed", "guided", "attempted", "referred"]),
            "channel": self.dice.choice(["market", "household_visit", "online"]),
            "status": self.dice.choice(["submitted", "verified", "rejected", "voided"]),
            "hash": self.maybe(0.6, f"{self.dice.randint(0, 60):04x}"),
        }

    def facts(self) -> Facts:
        facts = Facts(self.tree)
        facts.team = [self.team() for _ in range(60)]
        facts.member = [self.member() for _ in range(80)]
        pairs = self.dice.sample(list(product(facts.team, facts.member)), 200)
        facts.stay = [self.stay(team, member) for team, member in pairs]
        facts.household = [self.household() for _ in range(50)]
        facts.event = [self.event(facts) for _ in range(600)]
        facts.activity = [self.activity(facts) for _ in range(80)]
        return facts


def is_young(member: Row, day: date) -> bool:
    born = member["birth_year"]
    return member["in_union"] or (born is not None and 16 <= day.year - born <= 30)


def in_force(row: Row, day: date) -> bool:
    return bool(row["day"] <= day and (row["until"] is None or day <= row["until"]))


@dataclass
class Counted:
    """One thing that counts: where, in the tree of which day, what, how much, its dimensions."""

    unit: UUID
    day: date
    thing: Any
    amount: int = 1
    row: Row = field(default_factory=dict)


class Recount:
    """The definitions of the contract over the facts of one piece, as loops."""

    least = 2
    """The value of `minimum_per_unit`."""
    kinds: tuple[str, ...] = ()
    """Of `activity_kind`, where it filters what units hosted."""

    def __init__(self, facts: Facts, first: date, last: date, today: date | None) -> None:
        self.facts, self.tree = facts, facts.tree
        self.first, self.last, self.current = first, last, today
        self.at = min(last, TODAY)
        self.tree_day = today or self.at
        self.teams = {t["id"]: t for t in facts.team}
        self.members = {m["id"]: m for m in facts.member}
        self.households = {h["id"]: h for h in facts.household}

    def stock(self, unit: UUID, thing: Any, row: Row | None = None) -> Counted:
        return Counted(unit, self.tree_day, thing, 1, row or {})

    def active_teams(self) -> list[Row]:
        return [t for t in self.facts.team if not t["deleted"] and in_force(t, self.at)]

    def active_stays(self) -> list[tuple[Row, Row, Row]]:
        stays = [
            (stay, self.teams[stay["team"]], self.members[stay["member"]])
            for stay in self.facts.stay
            if in_force(stay, self.at)
        ]
        return [s for s in stays if not s[1]["deleted"] and not s[2]["deleted"]]

    def teams_where(self, condition: Callable[[Row], bool] = lambda _: True) -> list[Counted]:
        return [self.stock(t["unit"], t["id"], t) for t in self.active_teams() if condition(t)]

    def has_youth_core(self, team: Row) -> bool:
        stays = [(stay, member) for stay, t, member in self.active_stays() if t is team]
        young = [stay for stay, member in stays if is_young(member, self.at)]
        return bool(stays) and (
            2 * len(young) >= len(stays) or any(stay["role"] == "leader" for stay in young)
        )

    def people(self, condition: Callable[[Row], bool] = lambda _: True) -> list[Counted]:
        return [
            self.stock(team["unit"], member["id"], team)
            for _, team, member in self.active_stays()
            if condition(member)
        ]

    def is_trained(self, member: Row) -> bool:
        days = [member["trained_on"]] if member["trained_on"] else []
        days += [
            activity["day"]
            for activity in self.facts.activity
            if not activity["deleted"] and activity["kind"] in {"training", "course"}
            if member["id"] in activity["attendees"]
        ]
        return any(day <= self.at for day in days)

    def activities(self) -> list[Counted]:
        return [
            Counted(a["unit"], self.current or a["day"], a["id"], 1, a)
            for a in self.facts.activity
            if not a["deleted"] and self.first <= a["day"] <= self.last
        ]

    def participants(self) -> list[Counted]:
        return [
            replace(
                c, amount=len(c.row["attendees"]) if (n := c.row["participants"]) is None else n
            )
            for c in self.activities()
        ]

    def hosting(self, level: str) -> list[Counted]:
        held = Counter(
            self.tree.above(c.unit, level, self.tree_day)
            for c in self.activities()
            if not self.kinds or c.row["kind"] in self.kinds
        )
        return self.official(level, [u for u, n in held.items() if u and n >= self.least])

    def villages(self, among: set[UUID] | None = None) -> list[Counted]:
        return [
            self.stock(unit, unit)
            for unit, row in self.tree.units.items()
            if row["level"] == "village" and self.tree.stands(unit, self.at)
            if among is None or unit in among
        ]

    def official(self, level: str, holding: list[UUID] | None = None) -> list[Counted]:
        held = {self.tree.above(unit, level, self.tree_day) for unit in holding or []}
        return [
            self.stock(unit, unit)
            for unit, row in self.tree.units.items()
            if row["level"] == level and self.tree.stands(unit, self.tree_day)
            if holding is None or unit in held
        ]

    def events(self, condition: Callable[[Row], bool] = lambda _: True) -> list[Counted]:
        return [
            Counted(
                e["unit"],
                self.current or e["day"],
                e["id"],
                1,
                e | {"kind": self.teams[e["team"]]["kind"]},
            )
            for e in self.facts.event
            if e["status"] in {"submitted", "verified"}
            if self.first <= e["day"] <= self.last and condition(e)
        ]

    def helped(self, condition: Callable[[Row], bool] = lambda _: True) -> list[Counted]:
        return self.events(lambda e: e["outcome"] in {"completed", "guided"} and condition(e))

    def quantities(self, counted: list[Counted]) -> list[Counted]:
        return [Counted(c.unit, c.day, c.thing, c.row["quantity"], c.row) for c in counted]

    def reached(self, counted: list[Counted]) -> list[Counted]:
        found = []
        for c in counted:
            household = self.households.get(c.row["household"])
            if household and not household["deleted"]:
                found.append(self.stock(household["unit"], household["id"], c.row))
        return found

    def founded(self) -> list[Counted]:
        return [
            Counted(t["unit"], self.current or t["day"], t["id"], 1, t)
            for t in self.facts.team
            if not t["deleted"] and self.first <= t["day"] <= self.last
        ]

    def registered(self) -> list[Counted]:
        here = [h for h in self.facts.household if not h["deleted"] and h["day"] <= self.at]
        return [self.stock(h["unit"], h["id"]) for h in here]

    def ever_reached(self) -> list[Counted]:
        self.first, self.last = date.min, self.at
        return self.reached(self.helped())

    def hashes(self) -> list[Counted]:
        events = [c for c in self.events() if c.row["hash"]]
        return [Counted(c.unit, c.day, c.row["hash"], 1, c.row) for c in events]

    def young(self) -> list[Counted]:
        return self.people(lambda member: is_young(member, self.at))

    def trained(self) -> list[Counted]:
        return self.people(self.is_trained)

    def with_teams(self) -> list[UUID]:
        return [team["unit"] for team in self.active_teams()]

    def of(self, code: str) -> list[list[Counted]]:
        """Return the things that count, above and below the line."""
        return [count(self) for count in DEFINITIONS[code]]


def is_verified(row: Row) -> bool:
    return bool(row["status"] == "verified")


type Definition = Callable[[Recount], list[Counted]]
DEFINITIONS: dict[str, list[Definition]] = {
    "teams.active": [Recount.teams_where],
    "teams.founded": [Recount.founded],
    "teams.zalo_share": [lambda r: r.teams_where(lambda t: bool(t["zalo"])), Recount.teams_where],
    "teams.youth_core_share": [lambda r: r.teams_where(r.has_youth_core), Recount.teams_where],
    "members.active": [Recount.people],
    "members.youth": [Recount.young],
    "members.youth_share": [Recount.young, Recount.people],
    "members.trained_share": [Recount.trained, Recount.people],
    "villages.total": [Recount.villages],
    "villages.covered": [lambda r: r.villages(set(r.with_teams()))],
    "villages.coverage": [lambda r: r.villages(set(r.with_teams())), Recount.villages],
    "communes.coverage": [
        lambda r: r.official("commune", r.with_teams()),
        lambda r: r.official("commune"),
    ],
    "communes.trained": [
        lambda r: r.official("commune", [c.unit for c in r.trained()]),
        lambda r: r.official("commune"),
    ],
    "districts.coverage": [
        lambda r: r.official("district", r.with_teams()),
        lambda r: r.official("district"),
    ],
    "events.count": [Recount.events],
    "events.quantity": [lambda r: r.quantities(r.helped())],
    "events.quantity_verified": [lambda r: r.quantities(r.helped(is_verified))],
    "events.verified_share": [lambda r: r.events(is_verified), Recount.events],
    "events.completed_share": [
        lambda r: r.events(lambda e: e["outcome"] == "completed"),
        Recount.events,
    ],
    "households.registered": [Recount.registered],
    "households.reached": [lambda r: r.reached(r.helped())],
    "households.reached_share": [Recount.ever_reached, lambda _: []],
    "beneficiaries.distinct": [Recount.hashes],
    "activities.count": [Recount.activities],
    "activities.participants": [Recount.participants],
    "communes.min_activities": [
        lambda r: r.hosting("commune"),
        lambda r: r.official("commune"),
    ],
    "districts.min_activities": [
        lambda r: r.hosting("district"),
        lambda r: r.official("district"),
    ],
}
FLOWS = {
    *("teams.founded", "events.count", "events.quantity", "events.quantity_verified"),
    *("events.verified_share", "events.completed_share", "beneficiaries.distinct"),
}
OF_EVENTS = FLOWS - {"teams.founded"} | {"households.reached"}
OF_ACTIVITIES = {"activities.count", "activities.participants"}
FLOWS |= OF_ACTIVITIES
PARAMETER = {"service_type": "service_type", "channel": "channel", "team_kind": "kind"}
PARAMETER |= {"activity_kind": "kind"}


def has(code: str, dimension: str | None) -> bool:
    if code in OF_EVENTS:
        return dimension != "outcome" or code != "events.completed_share"
    return dimension == "kind" and code.startswith(("teams.", "members.", "activities."))


@dataclass
class Expected:
    """What a query should answer, cell by cell."""

    facts: Facts
    query: Row

    def __post_init__(self) -> None:
        self.tree = self.facts.tree
        self.root = self.query["unit_id"]
        self.top = self.tree.units[self.root]["level"]
        self.level = self.query.get("level") or self.top
        boundary = self.query.get("boundary", "current")
        self.current: date | None = TODAY
        if boundary != "current":
            self.current = None if boundary == "as_recorded" else date.fromisoformat(boundary)

    def turning_days(self, first: date, last: date) -> list[date]:
        """Return the first day, and those on which anything in the tree changes."""
        if self.current:
            return [self.current]
        return [first, *(day for day in self.tree.turns if first < day <= last)]

    def standing(self, days: list[date]) -> set[UUID]:
        return set().union(*(self.tree.under(self.root, self.level, day) for day in days))

    def cells(self) -> dict[tuple[Any, ...], tuple[Any, ...]]:
        every = self.query.get("every")
        pieces = periods.parse(self.query["period"], every and Every(every))
        whole = (pieces[0].first, pieces[-1].last)
        targets = self.standing(self.turning_days(*whole))
        if not any(self.tree.stands(self.root, day) for day in self.turning_days(*whole)):
            targets.add(self.root)
        cells: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        for code, piece in product(self.query["indicator"], pieces):
            at = self.current or min(piece.last, TODAY)
            days = self.turning_days(piece.first, piece.last) if code in FLOWS else [at]
            here = self.standing(days) & targets if piece.first <= TODAY else set()
            for unit in targets - here:
                cells[code, piece.label, unit, None] = (None, None, None, "not_computable")
            for (unit, part), cell in self.counted(code, piece, here).items():
                cells[code, piece.label, unit, part] = cell
        return cells

    def counted(self, code: str, piece: periods.Period, here: set[UUID]) -> dict[Any, Any]:
        by = self.query.get("by")
        by = by if has(code, by) else None
        if piece.first > TODAY:
            return {}
        recount = Recount(self.facts, piece.first, piece.last, self.current)
        recount.least = self.query.get("minimum_per_unit", 0)
        recount.kinds = tuple(self.query.get("activity_kind", ()))
        things = recount.of(code)
        tables = [self.table(counted, by) for counted in things]
        keys = set().union(*tables)
        if not by:
            keys |= {(unit, None) for unit in here}
        found = {}
        for key in keys:
            numbers: list[Any] = [sum(table.get(key, {}).values()) for table in tables]
            if code == "households.reached_share":
                numbers[1] = None
            found[key] = self.cell(code, key, numbers)
        return found

    def table(self, counted: list[Counted], by: str | None) -> dict[Any, dict[Any, int]]:
        table: dict[Any, dict[Any, int]] = {}
        for c in counted:
            if self.tree.above(c.unit, self.top, c.day) != self.root or not self.passes(c):
                continue
            target = self.tree.above(c.unit, self.level, c.day)
            table.setdefault((target, c.row[by] if by else None), {})[c.thing] = c.amount
        return table

    def passes(self, counted: Counted) -> bool:
        return all(
            counted.row[dimension] in self.query[name]
            for name, dimension in PARAMETER.items()
            if self.query.get(name) and dimension in counted.row
        )

    def cell(self, code: str, key: tuple[Any, Any], numbers: list[Any]) -> tuple[Any, ...]:
        value, share = numbers[0], len(numbers) > 1
        if share:
            value = 100 * numbers[0] / numbers[1] if numbers[1] else None
        elif code.startswith("events.quantity"):
            services = self.query.get("service_type") or list(UNIT_OF_COUNT)
            units = {UNIT_OF_COUNT[service] for service in services}
            if self.query.get("by") != "service_type" and len(units) > 1:
                value = None
        status = "ok" if value is not None else "not_computable"
        if key[0] is None:
            status = "unallocated"
        return (value, *(numbers if share else (None, None)), status)


def cells_of(answer: Row) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    cells = {}
    for item in answer["items"]:
        unit = UUID(item["unit_id"]) if item["unit_id"] else None
        parts = [item[name] for name in DIMENSIONS if item[name] is not None]
        key = (item["indicator"], item["period"], unit, parts[0] if parts else None)
        assert key not in cells, key
        cells[key] = tuple(item[name] for name in ("value", "numerator", "denominator", "status"))
    return cells


@dataclass
class Ground:
    """Wards of Hà Nội before and after 2025-07-01, with made-up facts, and who reads all of them.

    No figure is hidden from the reader, who has the right to people everywhere.
    """

    facts: Facts
    reader: httpx.AsyncClient

    async def ask(self, client: httpx.AsyncClient | None = None, **query: Any) -> Row:
        response = await (client or self.reader).get("/v1/observations", params=query)
        assert response.status_code == 200, response.text
        answer: Row = response.json()
        return answer

    async def agrees(self, **query: Any) -> None:
        """Hold an answer against the recount, cell by cell."""
        found = cells_of(await self.ask(**query))
        expected = Expected(self.facts, query).cells()
        wrong = {
            key: (found.get(key), expected.get(key))
            for key in found.keys() | expected.keys()
            if found.get(key) != expected.get(key)
        }
        assert not wrong, (query, len(wrong), dict(list(wrong.items())[:5]))


async def make_village(admin: httpx.AsyncClient, parent: UUID, **changes: Any) -> UUID:
    village = {"level": "village", "name": "Tổ dân phố", "type": "tổ dân phố"}
    given = village | {"parent_id": str(parent), "valid_from": "2020-01-01"} | changes
    return UUID((await make(admin, "admin-units", **given))["id"])


async def move(superuser: AsyncEngine, village: UUID, parent: UUID, day: date) -> None:
    """Place a village under a commune from a day on, as a reorganisation will."""
    async with superuser.connect() as connection, connection.begin():
        given = {"village": village, "parent": parent, "day": day}
        await connection.execute(
            text("""
                with ended as (
                    update admin_unit_state s set during = daterange(lower(s.during), :day)
                    from admin_unit u
                    where u.id = :village and s.unit_key = u.key and upper(s.during) is null
                      and coalesce(lower(s.during) < :day, true)
                    returning s.unit_key, s.name, s.type
                )
                insert into admin_unit_state (unit_key, during, name, type, parent_key)
                select unit_key, daterange(:day, null), name || ' mới', type,
                       (select key from admin_unit where id = :parent)
                from ended
            """),
            given,
        )
        await connection.execute(
            text("select place_villages(array(select key from admin_unit where id = :village))"),
            given,
        )


@pytest.fixture
async def ground(as_: As, superuser: AsyncEngine) -> Ground:
    admin = await as_(Role.province_admin, at=HA_NOI)
    villages = [
        await make_village(admin, WHOLE),
        await make_village(admin, WHOLE, valid_to="2024-06-30"),
        await make_village(admin, SPLIT),
        await make_village(admin, SPLIT, name="Tổ xếp lại"),
        await make_village(admin, HONG_HA, valid_from="2025-09-01"),
        await make_village(admin, BA_DINH, valid_from="2025-07-01", name="Tổ sang xã khác"),
        await make_village(admin, BA_DINH, valid_from="2025-07-01", name="Tổ sang tỉnh khác"),
    ]
    await move(superuser, villages[3], NGOC_HA, date(2025, 10, 1))
    await move(superuser, villages[5], HONG_HA, date(2026, 2, 10))
    await move(superuser, villages[6], MUONG_KHUONG, date(2026, 3, 1))
    tree = await Tree.read(superuser)
    facts = Inventor(tree, [*villages, WHOLE, SPLIT, HONG_HA, BA_DINH], random.Random(20)).facts()
    await record(superuser, facts)
    return Ground(facts, await as_(Role.ioc_reader, Role.commune_admin, at=NATION))


CODES = [code for code, formula in FORMULAS.items() if not formula.needs]
MINIMUM = [code for code, formula in FORMULAS.items() if formula.needs]


@pytest.mark.parametrize(
    "boundary", [pytest.param("current", marks=pytest.mark.long), "as_recorded"]
)
async def test_every_indicator_equals_a_recount(ground: Ground, boundary: str) -> None:
    for unit_id, level in (
        *((HA_NOI, level) for level in (None, "district", "commune", "village")),
        *((OLD_HA_NOI, level) for level in (None, "district", "commune")),
        *((OLD_BA_DINH, None), (OLD_BA_DINH, "commune"), (NATION, None), (NATION, "province")),
        *((HONG_HA, None), (HONG_HA, "village"), (SPLIT, None), (SPLIT, "village")),
        *((BA_DINH, None), (LAO_CAI, "village"), (MUONG_KHUONG, None)),
    ):
        query = {"unit_id": unit_id, "boundary": boundary} | ({"level": level} if level else {})
        for codes in (CODES[:12], CODES[12:]):
            await ground.agrees(indicator=codes, period="2025", **query)
            await ground.agrees(
                indicator=codes, period="2024-05-15/2026-12-31", every="quarter", **query
            )
        minimum = {"indicator": MINIMUM, "minimum_per_unit": 2} | query
        await ground.agrees(**minimum, period="2025")
        await ground.agrees(**minimum, period="2024-05-15/2026-12-31", every="quarter")


@pytest.mark.long  # test_recounts.py draws from the same questions
@pytest.mark.parametrize("by", DIMENSIONS)
async def test_parts_and_filters_equal_a_recount(ground: Ground, by: str) -> None:
    events = sorted(OF_EVENTS)
    teams = ["teams.active", "members.active", "members.youth_share", "teams.founded"]
    for boundary, level in product(("current", "as_recorded"), (None, "commune", "village")):
        query = {
            "unit_id": HA_NOI,
            "boundary": boundary,
            "by": by,
            "period": "2026",
            "every": "month",
        }
        query |= {"level": level} if level else {}
        await ground.agrees(indicator=CODES[:16], **query)
        await ground.agrees(indicator=events, **query)
        await ground.agrees(indicator=events, service_type=["ID.USE"], **query)
        await ground.agrees(
            indicator=events, service_type=["ID.USE", "PS.ACCOUNT"], channel=["market"], **query
        )
        await ground.agrees(
            indicator=[*events, *teams], team_kind=["core_squad", "expert_group"], **query
        )
        kinds = {"activity_kind": ["training", "launch"]}
        await ground.agrees(indicator=sorted(OF_ACTIVITIES), **query)
        await ground.agrees(indicator=sorted(OF_ACTIVITIES), **kinds, **query)
        await ground.agrees(indicator=MINIMUM, minimum_per_unit=1, **kinds, **query)


async def test_nothing_is_lost_or_counted_twice(ground: Ground) -> None:
    for boundary, (level, period) in product(
        ("current", "as_recorded"),
        (("commune", "2025"), ("village", "2026-Q1"), ("district", "2024")),
    ):
        query: Row = {"indicator": ADDITIVE, "period": period, "boundary": boundary}
        root = OLD_HA_NOI if boundary == "as_recorded" and period == "2024" else HA_NOI
        whole = cells_of(await ground.ask(**query, unit_id=root))
        parts = cells_of(await ground.ask(**query, unit_id=root, level=level))
        for (code, *_), (value, *_) in whole.items():
            assert sum(cell[0] or 0 for key, cell in parts.items() if key[0] == code) == value


async def test_a_split_leaves_facts_unallocated_until_a_village_tells(ground: Ground) -> None:
    query: Row = {
        "indicator": "events.count",
        "unit_id": HA_NOI,
        "level": "commune",
        "period": "2024",
    }
    today = await ground.ask(**query)
    (untold,) = [item for item in today["items"] if item["status"] == "unallocated"]
    assert untold["value"] > 0
    assert [untold[name] for name in ("unit_id", "unit_code", "unit_name")] == [None] * 3
    past = await ground.ask(**query | {"unit_id": OLD_HA_NOI}, boundary="as_recorded")
    assert {item["status"] for item in past["items"]} == {"ok"}


async def test_a_unit_has_the_name_of_the_day(ground: Ground) -> None:
    query: Row = {"indicator": "teams.active", "period": "2026-01-20/2026-02-20", "every": "month"}
    query |= {"unit_id": HA_NOI, "level": "village"}
    for boundary, names in (
        ("current", {"Tổ sang xã khác mới": 2}),
        ("as_recorded", {"Tổ sang xã khác": 1, "Tổ sang xã khác mới": 1}),
    ):
        items = (await ground.ask(**query, boundary=boundary))["items"]
        found = [item["unit_name"] for item in items if "sang xã" in (item["unit_name"] or "")]
        assert {name: found.count(name) for name in found} == names
    (nation,) = (await ground.ask(indicator="teams.active", unit_id=NATION, period="2026"))["items"]
    assert (nation["unit_code"], nation["unit_name"]) == ("VN", "Việt Nam")


async def test_whoever_reads_a_province_reads_its_own_past(ground: Ground, as_: As) -> None:
    """A village that has moved to another province since leaves its past behind."""
    here, there = [await as_(Role.commune_admin, at=unit) for unit in (HA_NOI, LAO_CAI)]
    query: Row = {"indicator": ["events.count", "members.active", "households.registered"]}
    query |= {"period": "2026", "every": "quarter", "boundary": "as_recorded"}
    for reader, root in ((here, HA_NOI), (there, LAO_CAI), (here, OLD_HA_NOI)):
        everything = await ground.ask(**query, unit_id=root)
        own = await ground.ask(reader, **query, unit_id=root)
        assert own["items"] == everything["items"]
    assert (await ground.ask(here, **query))["items"] == (
        await ground.ask(**query, unit_id=HA_NOI)
    )["items"]


async def test_a_team_from_elsewhere_keeps_its_kind(ground: Ground, as_: As) -> None:
    reader = await as_(Role.ioc_reader, at=HONG_HA)
    changes: Row
    for changes in ({"by": "kind"}, {"team_kind": ["core_squad"]}):
        query: Row = {"indicator": ["events.count"], "unit_id": HONG_HA, "period": "2025"} | changes
        await ground.agrees(**query)
        assert (await ground.ask(reader, **query))["items"] == (await ground.ask(**query))["items"]


async def test_the_default_root_is_the_scope(ground: Ground, as_: As, country: Country) -> None:
    query: Row = {"indicator": "events.count", "period": "2025"}
    reader = await as_(Role.ioc_reader, at=HONG_HA)
    await country.grant(reader.principal_id, Role.youth_coordinator, BA_DINH)
    await country.grant(reader.principal_id, Role.partner, LAO_CAI)
    items = (await ground.ask(reader, **query))["items"]
    assert {item["unit_id"] for item in items} == {str(HONG_HA), str(BA_DINH)}
    await country.grant(reader.principal_id, Role.ioc_reader, HA_NOI)
    (whole,) = (await ground.ask(reader, **query))["items"]
    assert whole["unit_id"] == str(HA_NOI)


async def test_a_foreign_unit_and_no_unit_are_the_same_answer(ground: Ground, as_: As) -> None:
    reader = await as_(Role.ioc_reader, at=HONG_HA)
    query: Row = {"indicator": "teams.active", "period": "2026"}
    answers = [
        await reader.get("/v1/observations", params=query | {"unit_id": str(unit)})
        for unit in (ids.new_id(), BA_DINH, HA_NOI, OLD_HA_NOI, SPLIT, NATION, LAO_CAI)
    ]
    assert answers[0].status_code == 404
    assert all(same_answer(answers[0], answer) for answer in answers[1:])
    for unit in (HONG_HA, WHOLE):  # a retired unit lies where all of it went
        (await ground.ask(reader, **query, unit_id=unit))["items"][0]
    leader = await as_(Role.team_leader, at=HONG_HA)
    refused = await leader.get("/v1/observations", params=query)
    assert problem(refused) == (403, "insufficient_role")


REFUSED: list[tuple[Row, str, str]] = [
    ({"indicator": []}, "/query/indicator", "missing"),
    ({"indicator": ["teams.active"] * 21}, "/query/indicator", "too_long"),
    ({"indicator": "teams.actve"}, "/query/indicator", "unknown_indicator"),
    ({"indicator": "x\0"}, "/query/indicator/0", "control_character"),
    ({"period": None}, "/query/period", "missing"),
    ({"period": "2023-13"}, "/query/period", "period_invalid"),
    ({"period": "1900-01-01/2200-12-31", "every": "day"}, "/query/period", "period_invalid"),
    ({"every": "decade"}, "/query/every", "enum"),
    ({"boundary": "yesterday"}, "/query/boundary", "string_pattern_mismatch"),
    ({"boundary": "2024-1-1"}, "/query/boundary", "string_pattern_mismatch"),
    ({"boundary": "2025-02-29"}, "/query/boundary", "date_invalid"),
    ({"boundary": "0000-00-00"}, "/query/boundary", "date_invalid"),
    ({"boundary": "0001-01-01"}, "/query/boundary", "date_out_of_range"),
    ({"boundary": "9999-12-31"}, "/query/boundary", "date_out_of_range"),
    ({"by": "gender"}, "/query/by", "enum"),
    ({"level": "nation"}, "/query/level", "wrong_level"),
    ({"level": "hamlet"}, "/query/level", "enum"),
    ({"unit_id": "x"}, "/query/unit_id", "uuid_invalid"),
    ({"service_type": "ID.USE"}, "/query/service_type", "not_applicable"),
    ({"channel": "market"}, "/query/channel", "not_applicable"),
    (
        {"indicator": "villages.total", "team_kind": "core_squad"},
        "/query/team_kind",
        "not_applicable",
    ),
    (
        {"indicator": "population.total", "team_kind": "core_squad"},
        "/query/team_kind",
        "not_applicable",
    ),
    (
        {"indicator": "events.count", "service_type": "ID.US"},
        "/query/service_type",
        "not_found",
    ),
    ({"campaign": "1"}, "/query/campaign", "unknown_parameter"),
    ({"format": "xml"}, "/query/format", "enum"),
]


async def test_what_cannot_be_answered_is_refused(as_: As) -> None:
    reader = await as_(Role.ioc_reader, at=HA_NOI)
    for query, pointer, code in REFUSED:
        asked = {"indicator": "teams.active", "period": "2026"} | query
        params = {name: value for name, value in asked.items() if value is not None}
        answer = await reader.get("/v1/observations", params=params)
        assert fault(answer) == (422, pointer, code), query


async def test_too_many_cells_are_refused(as_: As) -> None:
    reader = await as_(Role.ioc_reader, at=NATION)
    query: Row = {
        "indicator": ["teams.active", "events.count"],
        "level": "commune",
        "period": "2026",
    }
    allowed = await reader.get("/v1/observations", params=query | {"every": "month"})
    assert allowed.status_code == 200
    assert len(allowed.json()["items"]) == 2 * 3321 * 12
    refused = await reader.get("/v1/observations", params=query | {"every": "week"})
    assert problem(refused) == (422, "result_too_large")


async def test_quantities_of_several_units_of_count_are_not_added_up(
    ground: Ground, superuser: AsyncEngine
) -> None:
    async with superuser.connect() as connection:
        await connection.execute(
            text("""
                insert into service_type (id, version, created_at, updated_at, code, parent_code,
                                          category, unit_of_count, name_vi, name_en, status)
                select uuidv7(), 1, now(), now(), 'ID.USE.HN', code, category, unit_of_count, 'Con',
                       'Child', 'active' from service_type where code = 'ID.USE'
            """)
        )
        await connection.execute(
            text("""
                update support_event set service_type = 'ID.USE.HN', version = version + 1
                where service_type = 'ID.USE' and quantity > 2
            """)
        )
    query: Row = {"indicator": "events.quantity", "unit_id": HA_NOI, "period": "2026"}
    (mixed,) = (await ground.ask(**query))["items"]
    assert [mixed[name] for name in ("value", "unit_of_count", "status")] == [
        None,
        None,
        "not_computable",
    ]
    parts = (await ground.ask(**query, by="service_type"))["items"]
    values = {item["service_type"]: item["value"] for item in parts}
    units = {item["service_type"]: item["unit_of_count"] for item in parts}
    assert units == UNIT_OF_COUNT | {"ID.USE.HN": "turn"}
    for services, unit, among in (
        ("ID.USE", "turn", ["ID.USE", "ID.USE.HN"]),  # a code includes its children
        ("ID.USE.HN", "turn", ["ID.USE.HN"]),
        (["ID.ACTIVATE", "PS.ACCOUNT"], "account", ["ID.ACTIVATE", "PS.ACCOUNT"]),
    ):
        (item,) = (await ground.ask(**query, service_type=services))["items"]
        assert (item["value"], item["unit_of_count"]) == (sum(values[code] for code in among), unit)
        by_channel = (await ground.ask(**query, service_type=services, by="channel"))["items"]
        assert sum(part["value"] for part in by_channel) == item["value"]


async def test_the_meta_says_what_the_figures_rest_on(ground: Ground) -> None:
    query: Row = {"unit_id": HA_NOI, "level": "commune"}
    codes = ["events.count", "population.total", "teams.active"]
    meta = (await ground.ask(indicator=codes, period="2026", every="month", **query))["meta"]
    assert meta["definition_versions"] == dict.fromkeys(codes, 1)
    assert (meta["boundary"], meta["complete_through"]) == ("current", "2026-10-15")
    (share,) = (await ground.ask(indicator="events.verified_share", period="2026", unit_id=HA_NOI))[
        "items"
    ]
    assert meta["verified_share"] == share["value"] > 0
    past = (await ground.ask(indicator="teams.active", period="2025-Q1", **query))["meta"]
    assert (past["verified_share"], past["complete_through"]) == (None, "2025-03-31")


@pytest.mark.usefixtures("ground")
async def test_a_poll_costs_a_304_until_something_changes(as_: As, superuser: AsyncEngine) -> None:
    query: Row = {
        "indicator": "events.count",
        "unit_id": HA_NOI,
        "level": "commune",
        "period": "2026",
    }

    async def poll(client: httpx.AsyncClient, tag: str = "", **changes: Any) -> httpx.Response:
        headers = {"If-None-Match": tag} if tag else {}
        return await client.get("/v1/observations", params=query | changes, headers=headers)

    reader = await as_(Role.ioc_reader, at=NATION)
    first = await poll(reader)
    tag = first.headers["ETag"]
    assert first.headers["Cache-Control"] == "private, no-cache"
    assert first.headers["Vary"] == "Accept, Accept-Language"
    for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        same = await poll(reader, known)
        assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", tag)
        assert same.headers["Vary"] == first.headers["Vary"]
    assert (await poll(await as_(Role.ioc_reader, at=NATION), tag)).status_code == 304
    others = {
        (await poll(reader, tag, **changes)).headers["ETag"]
        for changes in ({"format": "csv"}, {"period": "2025"}, {"by": "channel"}, {"every": "year"})
    }
    others.add((await poll(await as_(Role.ioc_reader, at=HA_NOI), tag)).headers["ETag"])
    assert len(others | {tag}) == 6
    async with superuser.connect() as connection:
        changed = await connection.execute(
            text("""
                update support_event set status = 'voided', version = version + 1 where id = (
                    select e.id from support_event e join admin_unit u on u.key = e.unit_key
                    where u.id = :unit and e.status = 'submitted'
                      and e.occurred_on between '2026-01-01' and '2026-10-15' limit 1)
            """),
            {"unit": HONG_HA},
        )
        assert changed.rowcount == 1
    second = await poll(reader, tag)
    assert second.status_code == 200
    assert second.json()["meta"]["data_version"] != first.json()["meta"]["data_version"]


async def test_a_spreadsheet_gets_csv_under_sdmx_names(
    ground: Ground, superuser: AsyncEngine
) -> None:
    async with superuser.connect() as connection:
        await connection.execute(
            text("update admin_unit_state set name = '=SUM(A1)' where name = 'Tổ xếp lại mới'")
        )
    query: Row = {
        "indicator": ["events.count", "teams.zalo_share"],
        "by": "channel",
        "period": "2026",
    }
    query |= {"unit_id": HA_NOI, "level": "village"}
    items = (await ground.ask(**query))["items"]
    for how in (
        {"params": query | {"format": "csv"}},
        {"params": query, "headers": {"Accept": "text/csv"}},
    ):
        response = await ground.reader.get("/v1/observations", **how)  # type: ignore[arg-type]
        assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
        rows = list(csv.DictReader(StringIO(response.text)))
        assert len(rows) == len(items)
        for row, item in zip(rows, items, strict=True):
            assert row["INDICATOR"] == item["indicator"]
            assert row["REF_AREA"] == (item["unit_id"] or "")
            assert row["REF_AREA_NAME"].removeprefix("'") == (item["unit_name"] or "")
            assert row["CHANNEL"] == (item["channel"] or "")
            assert (float(row["OBS_VALUE"]) if row["OBS_VALUE"] else None) == item["value"]
            assert row["OBS_STATUS"] == item["status"]
        assert "'=SUM(A1)" in {row["REF_AREA_NAME"] for row in rows}
    for accept in (
        "text/csv;q=0.5, application/json",
        "*/*",
        "application/json",
        "text/html",
        "q=;",
    ):
        answer = await ground.reader.get(
            "/v1/observations", params=query, headers={"Accept": accept}
        )
        assert answer.headers["Content-Type"] == "application/json"


async def test_the_number_of_statements_does_not_grow(ground: Ground, app: FastAPI) -> None:
    statements: list[str] = []

    @event.listens_for(app.state.engine.sync_engine, "before_cursor_execute")
    def count(*arguments: Any) -> None:
        statements.append(arguments[2])

    async def used(**query: Any) -> int:
        for _ in range(2):  # what makes up the units asked for is known from the first time on
            statements.clear()
            await ground.ask(indicator=["teams.active", "events.verified_share"], **query)
        return len(statements)

    small = await used(unit_id=HONG_HA, level="village", period="2026-03")
    for every in ("month", "week"):  # the weeks of villages are counted from the facts
        large = {"unit_id": HA_NOI, "level": "village", "period": "2024", "every": every}
        assert await used(**large) == small


async def test_a_committed_write_is_in_the_next_answer(lao_cai: Province) -> None:
    reader = lao_cai.muong_khuong.admin
    leader = await lao_cai.leader_of(lao_cai.muong_khuong)
    query: Row = {"indicator": ["events.count", "households.reached"], "period": "2025-08"}

    async def values() -> list[Any]:
        response = await reader.get("/v1/observations", params=query)
        return [item["value"] for item in response.json()["items"]]

    assert await values() == [0, 0]
    household = lao_cai.muong_khuong.household["id"]
    await make(leader, "support-events", **lao_cai.muong_khuong.event(household_id=household))
    assert await values() == [1, 1]
