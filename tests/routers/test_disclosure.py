"""People measures for readers without personal rights: what is hidden, and that it stays so."""

import csv
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from fractions import Fraction
from io import StringIO
from itertools import pairwise, product
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from api import clock, ids
from api.models.role_grants import Role
from tests.factories import (
    HA_NOI,
    LAO_CAI,
    MUONG_KHUONG,
    NATION,
    OLD_LAO_CAI,
    OLD_MUONG_KHUONG,
    OLD_PHO_LU,
    As,
    Province,
    make,
)
from tests.routers.test_observations import Facts, Row, Tree, record
from tests.rules import fault

TODAY = date(2026, 10, 15)
FIRST = date(2025, 1, 1)
WHOLE = ids.official_unit_id("commune", "00001")  # Phúc Xá, all of it Hồng Hà today
HONG_HA = ids.official_unit_id("commune", "00097", "2025-07-01")
SPLIT = ids.official_unit_id("commune", "00016")  # Ngọc Hà, today in two wards
BA_DINH = ids.official_unit_id("commune", "00004", "2025-07-01")
NGOC_HA = ids.official_unit_id("commune", "00008", "2025-07-01")
OLD_HA_NOI = ids.official_unit_id("province", "01")
CHANNELS = ["market", "household_visit", "online"]
PEOPLE = ["members.youth", "households.registered", "households.reached", "beneficiaries.distinct"]
SERIES = {
    "month": "2025-01-01/2026-09-30",
    "quarter": "2025-01-01/2026-09-30",
    "year": "2025",
}


@pytest.fixture(autouse=True)
def _one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "today", lambda: TODAY)


def crowd(dice: random.Random) -> int:
    """Return how many do something in a commune in a month: often none, often few."""
    return dice.choice([0, 0, 0, 1, 2, 3, 4, 6, 9, 15, 30])


def make_up(tree: Tree, dice: random.Random, places: dict[UUID, Iterable[UUID]]) -> Facts:
    """Make up facts whose every count adds up, over units, months and channels.

    The worst that can be: everybody is in one place, helped once, by one channel.
    """
    facts = Facts(tree)
    for unit in (unit for several in places.values() for unit in several):
        kinds = ("community_team", "core_squad")
        teams: list[Row] = [
            {"id": ids.new_id(), "unit": unit, "day": FIRST, "deleted": False, "kind": kind}
            for kind in kinds
        ]
        facts.team += teams
        for month in months():
            if not tree.stands(unit, month):
                continue
            for _ in range(crowd(dice)):
                row: Row = {"id": ids.new_id(), "unit": unit, "day": month, "deleted": False}
                facts.household.append(row)
                if dice.random() < 0.8:
                    facts.event.append(act(dice, row, month, household=row["id"]))
            for _ in range(crowd(dice)):
                passer_by = f"{dice.getrandbits(64):016x}"
                facts.event.append(act(dice, {"unit": unit}, month, hash=passer_by))
            for _ in range(crowd(dice) // 3):
                young = dice.random() < 0.6
                member: Row = {"id": ids.new_id(), "deleted": False, "in_union": young}
                facts.member.append(member)
                stay: Row = {"team": dice.choice(teams)["id"], "member": member["id"]}
                left = month + timedelta(dice.randint(40, 400))
                until = left if dice.random() < 0.3 else None
                facts.stay.append(stay | {"day": month, "until": until, "role": "member"})
    for row in facts.event:
        row["team"] = next(t["id"] for t in facts.team if t["unit"] == row["unit"])
    return facts


def act(dice: random.Random, row: Row, month: date, **whom: Any) -> Row:
    day = month + timedelta(dice.randint(0, 27))
    noon = datetime.combine(day, time(12), tzinfo=clock.REPORTING_ZONE)
    return whom | {
        "id": ids.new_id(),
        "unit": row["unit"],
        "day": day,
        "at": noon,
        "service_type": "ID.USE",
        "quantity": 1,
        "outcome": "completed",
        "channel": dice.choice(CHANNELS),
        "status": "submitted",
    }


def months() -> Iterator[date]:
    month = FIRST
    while month <= TODAY:
        yield month
        month = (month + timedelta(31)).replace(day=1)


type Variable = tuple[str, str, str | None, str, str | None]
"""Boundary, province of what is unallocated, unit, period, part."""


@dataclass
class Attack:
    """All that a reader can ask about one indicator, and what follows from it."""

    reader: httpx.AsyncClient
    clear: httpx.AsyncClient
    indicator: str
    by: str | None
    true: dict[Variable, int] = field(default_factory=dict)
    shown: dict[Variable, int] = field(default_factory=dict)
    hidden: set[Variable] = field(default_factory=set)
    closed: set[tuple[str, str, str | None, str]] = field(default_factory=set)
    """Whose split is hidden as a whole, so that nobody knows which of its parts are none."""

    async def ask(self, root: UUID, level: str | None) -> None:
        for boundary, every in product(("current", "as_recorded"), SERIES):
            for by in {None, self.by}:
                query: Row = {"indicator": self.indicator, "unit_id": root, "boundary": boundary}
                query |= {"period": SERIES[every], "every": every}
                query |= {"level": level} if level else {}
                query |= {"by": by} if by else {}
                answers = [
                    await client.get("/v1/observations", params=query, timeout=60)
                    for client in (self.clear, self.reader)
                ]
                assert [a.status_code for a in answers] == [200, 200], answers[1].text
                self.note(root, boundary, by, *(a.json()["items"] for a in answers))

    def note(
        self, root: UUID, boundary: str, by: str | None, true: list[Row], seen: list[Row]
    ) -> None:
        """Take one answer down, and find it the same wherever it was asked."""
        closed = set()
        for item in seen:
            name = self.name(root, boundary, by, item)
            if item["status"] == "suppressed":
                assert item["value"] is item["numerator"] is item["denominator"] is None
                closed.add(name[:4])
            elif item["value"] is not None:
                assert not 1 <= item["value"] <= 4, item
                assert self.shown.setdefault(name, item["value"]) == item["value"]
        self.closed |= closed if by else set()
        for item in true:
            name = self.name(root, boundary, by, item)
            if item["value"] is None:
                continue
            self.true[name] = item["value"]
            where = (*name[:4], None) if by else name
            assert (name in self.shown) != (where[:4] in closed), (name, item)
            if where[:4] in closed:
                self.hidden.add(name)

    def name(self, root: UUID, boundary: str, by: str | None, item: Row) -> Variable:
        unit = item["unit_id"]
        return boundary, "" if unit else str(root), unit, item["period"], item[by] if by else None

    def value(self, cell: Variable) -> int:
        return self.true.get(cell, 0)

    def equations(self, tree: Tree, provinces: Iterable[UUID]) -> Iterator[list[Variable]]:
        """Give every sum that holds: the first is the sum of all others."""
        parts = {cell[4] for cell in self.true}
        periods = {cell[3] for cell in self.true}
        units = {UUID(cell[2]) for cell in self.true if cell[2]}
        heirs = {u: tree.may_hold(u, TODAY) for u in units}
        split = {heir for land in heirs.values() if len(land) > 1 for heir in land}
        for boundary, period in product(("current", "as_recorded"), periods):
            if boundary == "as_recorded" and len(period) == 4:  # placed in two trees
                continue
            day = last_day(period) if boundary == "as_recorded" else TODAY
            standing = [p for p in units if tree.units[p]["level"] == "province"]
            standing = [p for p in standing if tree.stands(p, day)]
            under = {p: tree.under(p, "commune", day) for p in provinces if p in standing}
            for part in parts:
                yield [self.cell(boundary, u, period, part) for u in (NATION, *standing)]
                for province, communes in under.items():
                    rest = (boundary, str(province), None, period, part)
                    cells = [self.cell(boundary, u, period, part) for u in (province, *communes)]
                    yield [*cells, rest]
            for unit, part in product(units, parts):
                whole = self.cell(boundary, unit, period, part)
                if part is None and parts != {None}:
                    yield [whole, *(self.cell(boundary, unit, period, p) for p in parts if p)]
                pieces = list(pieces_of(period))
                if self.indicator in {"members.youth", "households.registered"}:
                    pieces = pieces[-1:]
                if pieces:
                    yield [whole, *(self.cell(boundary, unit, p, part) for p in pieces)]
        for period, part in product(periods, parts):
            if len(period) == 4:
                continue
            olds: dict[UUID, list[Variable]] = {}
            for unit, land in heirs.items():
                if len(land) == 1 and tree.stands(unit, last_day(period)):
                    (heir,) = land
                    cell = self.cell("as_recorded", unit, period, part)
                    olds.setdefault(heir, []).append(cell)
            for heir, cells in olds.items():
                if heir not in split and tree.units[heir]["level"] == "commune":
                    yield [self.cell("current", heir, period, part), *cells]

    def cell(self, boundary: str, unit: UUID, period: str, part: str | None) -> Variable:
        return boundary, "", str(unit), period, part

    def solve(self, equations: Iterable[list[Variable]]) -> tuple[set[Variable], set[Variable]]:
        """Return the hidden cells that elimination determines, and those that 0 ≤ x does."""
        named = {cell[4] for cell in self.true if cell[4]}
        self.hidden |= {(*where, part) for where in self.closed for part in named}
        rows: list[dict[Variable, Fraction]] = []
        for whole, *parts in {tuple(e) for e in equations}:
            signs = [(whole, 1), *((part, -1) for part in parts)]
            assert sum(sign * self.value(cell) for cell, sign in signs) == 0, (whole, parts)
            row = {cell: Fraction(sign) for cell, sign in signs if cell in self.hidden}
            if row:
                rows.append(row)
        solved = eliminate([dict(row) for row in rows])
        bounded = bound(rows, {cell: self.value(cell) for cell in self.hidden})
        return solved, {c for c, (low, high) in bounded.items() if low == high}


def eliminate(rows: list[dict[Variable, Fraction]]) -> set[Variable]:
    """Return the variables that a system determines: alone in a row of its reduced form."""
    pivots: dict[Variable, dict[Variable, Fraction]] = {}
    for row in rows:
        for known in [cell for cell in row if cell in pivots]:
            subtract(row, pivots[known], row.get(known, Fraction(0)))
        if not row:
            continue
        pivot = next(iter(row))
        factor = row[pivot]
        new = {cell: number / factor for cell, number in row.items()}
        for other in pivots.values():
            subtract(other, new, other.get(pivot, Fraction(0)))
        pivots[pivot] = new
    return {pivot for pivot, row in pivots.items() if len(row) == 1}


def subtract(
    row: dict[Variable, Fraction], other: dict[Variable, Fraction], factor: Fraction
) -> None:
    if factor:
        for cell, number in other.items():
            row[cell] = row.get(cell, Fraction(0)) - factor * number
            if not row[cell]:
                del row[cell]


def bound(
    rows: list[dict[Variable, Fraction]], true: dict[Variable, int]
) -> dict[Variable, tuple[float, float]]:
    """Return what 0 ≤ x and the sums leave of each cell, by passing bounds on until they hold."""
    bounds: dict[Variable, tuple[float, float]] = dict.fromkeys(true, (0.0, float("inf")))
    settled = False
    while not settled:
        settled = True
        for row in rows:
            total = float(sum(number * true[cell] for cell, number in row.items()))
            reach = {
                cell: sorted(float(number) * bound for bound in bounds[cell])
                for cell, number in row.items()
            }
            for cell, number in row.items():
                low = total - sum(high for c, (_, high) in reach.items() if c != cell)
                high = total - sum(low for c, (low, _) in reach.items() if c != cell)
                low, high = sorted((low / float(number), high / float(number)))
                known = bounds[cell]
                bounds[cell] = (max(low, known[0]), min(high, known[1]))
                settled &= bounds[cell] == known
    return bounds


def last_day(period: str) -> date:
    month = 3 * int(period[-1]) if "Q" in period else int(period[5:] or 12)
    following = date(int(period[:4]), month, 1) + timedelta(31)
    return following.replace(day=1) - timedelta(1)


def pieces_of(period: str) -> Iterator[str]:
    if len(period) == 4:
        yield from (f"{period}-Q{n}" for n in range(1, 5))
    elif "Q" in period:
        last = 3 * int(period[-1])
        yield from (f"{period[:4]}-{n:02}" for n in range(last - 2, last + 1))


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    ("indicator", "by"),
    [
        ("members.youth", "kind"),
        ("households.registered", None),
        pytest.param("households.reached", "channel", marks=pytest.mark.long),
        pytest.param("beneficiaries.distinct", "channel", marks=pytest.mark.long),
    ],
)
async def test_nothing_hidden_follows_from_what_is_shown(
    as_: As,
    superuser: AsyncEngine,
    indicator: str,
    by: str | None,
    seed: int,
    record_property: Any,
) -> None:
    """Subtract parents, siblings, months, parts and boundaries: no hidden cell is found."""
    tree = await Tree.read(superuser)
    dice = random.Random(seed)
    in_lao_cai = sorted(tree.under(LAO_CAI, "commune", TODAY), key=str)
    lao_cai = [*dice.sample(in_lao_cai, 4), MUONG_KHUONG, OLD_MUONG_KHUONG, OLD_PHO_LU]
    ha_noi = [WHOLE, HONG_HA, SPLIT, BA_DINH, NGOC_HA]
    facts = make_up(tree, dice, {LAO_CAI: dict.fromkeys(lao_cai), HA_NOI: ha_noi})
    await record(superuser, facts)
    attack = Attack(
        await as_(Role.ioc_reader, at=NATION),
        await as_(Role.ioc_reader, Role.commune_admin, at=NATION),
        indicator,
        by,
    )
    for province in (LAO_CAI, OLD_LAO_CAI, HA_NOI, OLD_HA_NOI):
        for level in (None, "commune"):
            await attack.ask(province, level)
    for commune in (MUONG_KHUONG, OLD_MUONG_KHUONG, HONG_HA, SPLIT):
        await attack.ask(commune, None)
    await attack.ask(NATION, "province")
    await attack.ask(NATION, None)
    asked = (LAO_CAI, OLD_LAO_CAI, HA_NOI, OLD_HA_NOI)
    solved, bounded = attack.solve(attack.equations(tree, asked))
    some = {cell for cell in attack.hidden if attack.value(cell)}
    if indicator == "households.registered":  # the other tree's are hidden as such: all, not few
        some = {cell for cell in some if cell[0] == "current" or attack.value(cell) < 5}
    assert some
    wrong = [(*cell, attack.value(cell)) for cell in sorted(solved & some, key=str)]
    assert not wrong, wrong[:9]
    few = {cell for cell in some if attack.value(cell) < 5}
    assert not bounded & few, sorted(bounded & few, key=str)[:5]
    if indicator == "households.registered":
        for unit, boundary in {(cell[2], cell[0]) for cell in attack.true}:
            series = [
                value
                for (b, _, u, period, _), value in sorted(
                    attack.shown.items(), key=lambda s: s[0][3]
                )
                if (u, b) == (unit, boundary) and period[4:5] == "-" and "Q" not in period
            ]
            assert not [1 for one, other in pairwise(series) if 0 < abs(other - one) < 5]
    many = {cell for cell, value in attack.true.items() if value >= 5}
    share = len(many & attack.shown.keys()) / len(many)
    record_property("share of counts from 5 that are shown", f"{share:.0%} of {len(many)}")

    assert share > 0.2


async def test_small_counts_are_hidden_with_one_more(lao_cai: Province) -> None:
    """One household in each of two communes: the province's two are hidden as well."""
    reader = await lao_cai.country.sign_in(Role.ioc_reader, at=LAO_CAI)
    for place in (lao_cai.muong_khuong, lao_cai.bao_thang):
        await make(
            await lao_cai.leader_of(place),
            "support-events",
            **place.event(household_id=place.household["id"]),
        )
    query: Row = {"indicator": "households.reached", "period": "2025-08"}
    for who, status, value in (
        (reader, "suppressed", None),
        (lao_cai.muong_khuong.admin, "ok", 1),
    ):
        answer = await who.get("/v1/observations", params=query | {"unit_id": str(MUONG_KHUONG)})
        (item,) = answer.json()["items"]
        assert (item["status"], item["value"]) == (status, value)
    whole = (await reader.get("/v1/observations", params=query)).json()["items"][0]
    assert (whole["status"], whole["value"]) == ("suppressed", None)
    sheet = await reader.get("/v1/observations", params=query | {"format": "csv"})
    (row,) = csv.DictReader(StringIO(sheet.text))
    assert (row["OBS_VALUE"], row["OBS_STATUS"]) == ("", "suppressed")


async def test_an_etag_is_of_what_its_reader_may_see(as_: As) -> None:
    query: Row = {"indicator": "households.reached", "period": "2025-08"}
    tags = {
        (await who.get("/v1/observations", params=query)).headers["ETag"]
        for who in (
            await as_(Role.ioc_reader, at=MUONG_KHUONG),
            await as_(Role.commune_admin, at=MUONG_KHUONG),
        )
    }
    assert len(tags) == 2


@pytest.mark.parametrize("code", [*PEOPLE, "members.youth_share", "households.reached_share"])
async def test_what_cannot_be_protected_is_refused(as_: As, code: str) -> None:
    reader = await as_(Role.province_admin, at=HA_NOI)
    for query, pointer, problem in (
        ({"level": "village"}, "/query/level", "people_unit"),
        ({"period": "2026-10"}, "/query/period", "people_period"),
        ({"period": "2026"}, "/query/period", "people_period"),
        ({"period": "2026-W10"}, "/query/period", "people_period"),
        ({"period": "2026-01-02/2026-02-28", "every": "month"}, "/query/period", "people_period"),
        ({"boundary": "2025-06-30"}, "/query/boundary", "people_filter"),
        ({"boundary": clock.today().isoformat()}, "/query/boundary", "people_filter"),
    ):
        asked = {"indicator": code, "period": "2025-08"} | query
        response = await reader.get("/v1/observations", params=asked)
        assert fault(response) == (422, pointer, problem)
    officer = await as_(Role.commune_admin, at=HONG_HA)
    asked = {"indicator": code, "period": "2026-10", "level": "village", "boundary": "2026-03-01"}
    assert (await officer.get("/v1/observations", params=asked)).status_code == 200
    if code == "households.reached":
        asked = {"indicator": code, "period": "2025-08", "channel": "market"}
        response = await reader.get("/v1/observations", params=asked)
        assert fault(response) == (422, "/query/channel", "people_filter")


async def test_a_series_of_a_province_costs_a_fixed_number_of_statements(
    as_: As, app: FastAPI
) -> None:
    statements: list[str] = []

    @event.listens_for(app.state.engine.sync_engine, "before_cursor_execute")
    def count(*arguments: Any) -> None:
        statements.append(arguments[2])

    reader = await as_(Role.ioc_reader, at=NATION)

    async def used(**query: Any) -> int:
        params = {"indicator": PEOPLE, "boundary": "as_recorded"} | query
        await reader.get("/v1/observations", params=params)  # what is kept between requests
        statements.clear()
        answer = await reader.get("/v1/observations", params=params)
        assert answer.status_code == 200
        return len(statements)

    small = await used(unit_id=str(MUONG_KHUONG), level="commune", period="2025-09")
    wide: Row = {"unit_id": str(LAO_CAI), "level": "commune"}
    assert await used(**wide, period="2025-09-01/2026-08-31", every="month") == small
