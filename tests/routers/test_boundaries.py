"""Observations in the tree of any day, before, between and after reorganisations, over HTTP.

The ground: wards of Hà Nội of both vintages, one of them split, with villages that lie in either
half, in none yet, or in another province since; a ward founded on nothing, and two that merge on a
day to come.
"""

import csv
from collections import Counter
from collections.abc import Iterator
from datetime import date
from io import StringIO
from itertools import product
from random import Random
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import event as hooks
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api import clock, ids
from api.models.role_grants import Role
from api.services import event_folding
from api.services.formulas import FORMULAS
from tests.factories import HA_NOI, MUONG_KHUONG, NATION, OLD_LAO_CAI, As
from tests.routers.test_observations import (
    BA_DINH,
    HONG_HA,
    NGOC_HA,
    OLD_BA_DINH,
    OLD_HA_NOI,
    SPLIT,
    TODAY,
    UNIT_OF_COUNT,
    WHOLE,
    Facts,
    Ground,
    Inventor,
    Row,
    Tree,
    cells_of,
    make_village,
    move,
    record,
)
from tests.rules import problem, same_answer

FOUNDED, MERGING = date(2026, 3, 1), date(2026, 12, 1)
MERGED = ids.official_unit_id("commune", "99998", MERGING.isoformat())
DAYS = ["2025-06-30", "2025-07-01", "2026-02-20", "2026-11-30", "2026-12-01"]
CODES = [code for code, formula in FORMULAS.items() if not formula.needs]
MINIMUM = [code for code, formula in FORMULAS.items() if formula.needs]
SPLIT_BY_KIND = ["teams.active", "members.youth", "events.count", "households.reached"]


@pytest.fixture(autouse=True)
def _one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "today", lambda: TODAY)


def ward(name: str, code: str) -> Row:
    unit = {"level": "commune", "name": name, "type": "phường", "code": code}
    return unit | {"parent_id": str(HA_NOI)}


async def reorganise(nation: httpx.AsyncClient, day: date, change: Row) -> None:
    paper = {"number": day.isoformat(), "issued_on": "2026-01-15", "issuer": "Chính phủ"}
    body = {"effective_on": day.isoformat(), "document": paper, "changes": [change]}
    response = await nation.post("/v1/reorganisations", json=body)
    assert response.status_code == 201, response.text


class Wards:
    """Where facts may lie; none lie there yet. (No dataclass: what it holds is not for reports.)"""

    def __init__(self, tree: Tree, units: list[UUID]) -> None:
        self.tree, self.units = tree, units

    def place(self, drawn: tuple[int, str]) -> Row:
        unit, day = self.units[drawn[0] % len(self.units)], date.fromisoformat(drawn[1])
        row = self.tree.units[unit]
        day = min(max(day, row["valid_from"] or day), row["valid_to"] or TODAY)
        return {"id": ids.new_id(), "unit": unit, "day": day}

    def facts(self, teams: list[Any], households: list[Any], events: list[Any]) -> Facts:
        facts = Facts(self.tree)
        plain = {"deleted": False, "until": None, "kind": "community_team", "zalo": None}
        facts.team = [self.place(drawn) | plain for drawn in teams]
        facts.household = [self.place(drawn) | {"deleted": False} for drawn in households]
        for drawn, service, outcome, status, quantity, household in events:
            row = self.place(drawn) | {"service_type": service, "outcome": outcome}
            row |= {"status": status, "quantity": quantity, "channel": "market", "hash": None}
            row |= {"at": f"{row['day']}T09:00:00+07:00", "team": facts.team[0]["id"]}
            known = dict(enumerate(facts.household)).get(household, {})
            facts.event.append(row | {"household": known.get("id")})
        return facts


@pytest.fixture
async def wards(as_: As, superuser: AsyncEngine) -> Wards:
    admin, nation = await as_(Role.province_admin, at=HA_NOI), await as_(Role.national_admin)
    founded = ids.official_unit_id("commune", "99999", FOUNDED.isoformat())
    await reorganise(nation, FOUNDED, {"kind": "create", "unit": ward("Phường Mới", "99999")})
    villages = [
        await make_village(admin, WHOLE),
        await make_village(admin, SPLIT, name="Tổ chưa xếp"),
        await make_village(admin, SPLIT, name="Tổ về Ba Đình"),
        await make_village(admin, SPLIT, name="Tổ về Ngọc Hà"),
        await make_village(admin, SPLIT, name="Tổ đã thôi", valid_to="2025-03-31"),
        await make_village(admin, HONG_HA, valid_from="2025-09-01"),
        await make_village(admin, BA_DINH, valid_from="2025-07-01", name="Tổ sang tỉnh khác"),
        await make_village(admin, founded, valid_from="2026-03-01"),
    ]
    await move(superuser, villages[2], BA_DINH, date(2025, 7, 2))
    await move(superuser, villages[3], NGOC_HA, date(2025, 10, 1))
    await move(superuser, villages[6], MUONG_KHUONG, date(2026, 3, 1))
    merge = {"kind": "merge", "from_ids": [str(NGOC_HA), str(HONG_HA)]}
    await reorganise(nation, MERGING, merge | {"to": ward("Phường Hợp nhất", "99998")})
    units = [*villages, WHOLE, SPLIT, HONG_HA, BA_DINH, founded]
    return Wards(await Tree.read(superuser), units)


@pytest.fixture
async def reader(as_: As) -> httpx.AsyncClient:
    """Who may read people everywhere: nothing is hidden from it."""
    return await as_(Role.ioc_reader, Role.commune_admin, at=NATION)


@pytest.fixture
async def ground(wards: Wards, reader: httpx.AsyncClient, superuser: AsyncEngine) -> Ground:
    facts = Inventor(wards.tree, wards.units, Random(7)).facts()
    await record(superuser, facts)
    return Ground(facts, reader)


@pytest.mark.long  # test_recounts.py draws from the same questions
@pytest.mark.parametrize("day", DAYS)
async def test_every_indicator_equals_a_recount_in_the_tree_of_a_day(
    ground: Ground, day: str
) -> None:
    for unit_id, level in (
        *((HA_NOI, level) for level in (None, "commune", "village")),
        *((OLD_HA_NOI, level) for level in (None, "district", "commune", "village")),
        *((OLD_BA_DINH, "commune"), (NATION, None), (NATION, "province")),
        *((SPLIT, "village"), (NGOC_HA, None), (MERGED, "village")),
    ):
        query: Row = {"unit_id": unit_id, "boundary": day} | ({"level": level} if level else {})
        period = {"period": "2024-10-01/2026-12-31", "every": "quarter"}
        for codes in (CODES[:12], CODES[12:]):
            await ground.agrees(indicator=codes, **period, **query)
        await ground.agrees(indicator=MINIMUM, minimum_per_unit=2, **period, **query)
    for by in ("kind", "service_type"):
        query = {"unit_id": HA_NOI, "level": "commune", "by": by, "boundary": day}
        await ground.agrees(
            indicator=SPLIT_BY_KIND, period="2026", team_kind=["core_squad"], **query
        )


async def test_the_current_boundary_is_that_of_today(ground: Ground) -> None:
    for unit_id, level in product((NATION, HA_NOI), (None, "province", "commune", "village")):
        if (unit_id, level) == (HA_NOI, "province"):
            continue
        query: Row = {
            "indicator": CODES[:18],
            "unit_id": unit_id,
            "period": "2025-06-01/2026-10-15",
        }
        query |= {"every": "year"} | ({"level": level} if level and unit_id != NATION else {})
        now, dated = [
            await ground.ask(**query, boundary=boundary)
            for boundary in ("current", TODAY.isoformat())
        ]
        assert dated["items"] == now["items"]
        assert (now["meta"]["boundary"], dated["meta"]["boundary"]) == ("current", "2026-10-15")
        assert now["meta"] | dated["meta"] == dated["meta"] | {"boundary": "2026-10-15"}


async def test_a_unit_that_does_not_stand_on_the_day_says_so(ground: Ground) -> None:
    query: Row = {"indicator": "events.count", "period": "2026"}
    for unit, day, stands in (
        (HA_NOI, "2025-06-30", False),
        (HA_NOI, "2025-07-01", True),
        (OLD_HA_NOI, "2025-06-30", True),
        (OLD_HA_NOI, "2025-07-01", False),
        (MERGED, "2026-11-30", False),
        (MERGED, "2026-12-01", True),
    ):
        (item,) = (await ground.ask(**query, unit_id=unit, boundary=day))["items"]
        assert (item["value"] is not None, item["status"] == "ok") == (stands, stands), (unit, day)
    (lao_cai,) = (await ground.ask(**query, unit_id=OLD_LAO_CAI, boundary="2024-01-01"))["items"]
    assert (lao_cai["unit_code"], lao_cai["value"]) == ("10", 0)  # codes are recycled
    recent = await ground.ask(**query, unit_id=HA_NOI, level="commune", boundary="2026-12-01")
    assert str(MERGED) in {item["unit_id"] for item in recent["items"]}


@pytest.mark.parametrize("day", ["1900-01-01", "2200-12-31"])
async def test_the_farthest_days_are_answered(ground: Ground, day: str) -> None:
    query: Row = {"indicator": ["events.count", "teams.active"], "period": "2026"}
    far = await ground.ask(**query, unit_id=NATION, level="commune", boundary=day)
    near = await ground.ask(**query, unit_id=NATION)
    for code in query["indicator"]:
        whole = [item["value"] for item in near["items"] if item["indicator"] == code]
        parts = [item["value"] or 0 for item in far["items"] if item["indicator"] == code]
        assert [sum(parts)] == whole


async def test_a_day_does_not_widen_the_scope(ground: Ground, as_: As) -> None:
    here = await as_(Role.ioc_reader, at=HONG_HA)
    query: Row = {"indicator": "events.count", "period": "2025", "boundary": "2025-06-30"}
    answers = [
        await here.get("/v1/observations", params=query | {"unit_id": str(unit)})
        for unit in (ids.new_id(), OLD_HA_NOI, OLD_BA_DINH, SPLIT, BA_DINH, NATION)
    ]
    assert answers[0].status_code == 404
    assert all(same_answer(answers[0], answer) for answer in answers[1:])
    own = await ground.ask(here, **query, unit_id=WHOLE, level="village")
    assert own["items"] == (await ground.ask(**query, unit_id=WHOLE, level="village"))["items"]
    assert sum(item["value"] for item in own["items"]) > 0
    refused = await here.get("/v1/observations", params=query | {"level": "nation"})
    assert problem(refused) == (422, "validation_failed")


async def test_a_day_has_its_own_entity_tag_and_sheet(ground: Ground) -> None:
    query: Row = {"indicator": "events.count", "period": "2025", "unit_id": str(OLD_HA_NOI)}
    query |= {"level": "district", "boundary": "2025-06-30"}
    first = await ground.reader.get("/v1/observations", params=query)
    tag = {"If-None-Match": first.headers["ETag"]}
    again = await ground.reader.get("/v1/observations", params=query, headers=tag)
    assert (again.status_code, again.content) == (304, b"")
    for boundary in ("2025-06-29", "current", "as_recorded"):
        changed = query | {"boundary": boundary}
        other = await ground.reader.get("/v1/observations", params=changed, headers=tag)
        assert other.status_code == 200
    sheet = await ground.reader.get("/v1/observations", params=query | {"format": "csv"})
    rows = list(csv.DictReader(StringIO(sheet.text)))
    items = first.json()["items"]
    assert [row["REF_AREA"] for row in rows] == [item["unit_id"] or "" for item in items]
    assert [row["OBS_VALUE"] for row in rows] == [str(item["value"]) for item in items]


async def test_a_day_costs_as_many_statements_as_today(ground: Ground, app: FastAPI) -> None:
    statements: list[str] = []

    @hooks.listens_for(app.state.engine.sync_engine, "before_cursor_execute")
    def count(*arguments: Any) -> None:
        statements.append(arguments[2])

    used = []
    query: Row = {"indicator": CODES[:20], "period": "2025", "every": "month"}
    for boundary in ("current", "2025-06-30", "2026-12-01"):
        for _ in range(2):  # what makes up the units of a day is known from the first time on
            statements.clear()
            await ground.ask(**query, unit_id=HA_NOI, level="commune", boundary=boundary)
        used.append(len(statements))
    assert used[0] == used[1] == used[2]


SERVICES, OUTCOMES = list(UNIT_OF_COUNT), ["completed", "guided", "attempted"]
PLACED = st.tuples(
    st.integers(0, 12),
    st.sampled_from(["2025-06-30", "2025-07-01", "2026-03-01", "2026-10-15"])
    | st.dates(date(2024, 1, 1), TODAY).map(date.isoformat),
)
THINGS = st.lists(PLACED, min_size=1, max_size=6)
EVENTS = st.lists(
    st.tuples(
        PLACED,
        st.sampled_from(SERVICES),
        st.sampled_from(OUTCOMES),
        st.sampled_from(["submitted", "verified", "rejected"]),
        st.integers(1, 3),
        st.integers(0, 11),
    ),
    min_size=8,
    max_size=30,
)
EMPTY = ("support_event", "household", "training_attended", "activity", "team")

type Sums = Counter[tuple[str, str | None]]


def sums_of(answer: Row) -> dict[UUID | None, Sums]:
    """Return the values of an answer by unit: those of each indicator and part."""
    found: dict[UUID | None, Sums] = {}
    for (code, _, unit, part), (value, *_) in cells_of(answer).items():
        if value:
            found.setdefault(unit, Counter())[code, part] += value
    return found


def steps(boundary: str) -> Iterator[tuple[str, str]]:
    """Give the levels that lie one in another; districts in the trees that have any."""
    yield from (("nation", "province"), ("province", "commune"), ("commune", "village"))
    if boundary == "as_recorded" or boundary < "2025-07-01":
        yield from (("province", "district"), ("district", "commune"))


@settings(
    max_examples=5,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    drawn=st.tuples(THINGS, THINGS, EVENTS),
    day=st.dates(date(2024, 1, 1), date(2027, 6, 30)).map(date.isoformat),
    period=st.sampled_from(["2025", "2024-06-15/2026-12-31", "2026-03", "2025-06-30/2025-07-01"]),
    by=st.sampled_from([None, "service_type", "outcome"]),
)
async def test_sums_agree_in_every_tree(
    wards: Wards,
    reader: httpx.AsyncClient,
    superuser: AsyncEngine,
    drawn: tuple[list[Any], list[Any], list[Any]],
    day: str,
    period: str,
    by: str | None,
) -> None:
    """Each unit is the sum of those below it and what is unallocated; the nation never changes.

    Stocks too: the day on which they are taken is the period's last under every boundary (the
    villages of `villages.total` are those of that day); only where they are placed differs.
    """
    async with superuser.connect() as connection:
        for table in EMPTY:
            await connection.execute(text(f"delete from {table}"))
    await event_folding.repair(superuser)
    ground = Ground(wards.facts(*drawn), reader)
    await record(superuser, ground.facts)
    known = (await reader.get("/v1/indicators", params={"kind": "computed", "limit": 200})).json()
    query: Row = {"indicator": [item["code"] for item in known["items"] if item["additive"]]}
    query |= {"period": period} | ({"by": by} if by else {})
    nations = []
    for boundary in ("current", "as_recorded", "2025-06-30", "2025-07-01", day):
        sums = {"nation": sums_of(await ground.ask(**query, unit_id=NATION, boundary=boundary))}
        nations.append(sums["nation"])
        for above, below in steps(boundary):
            for unit, whole in sums[above].items():
                answer = await ground.ask(**query, unit_id=unit, level=below, boundary=boundary)
                parts = sums_of(answer)
                assert sum(parts.values(), Counter()) == whole, (boundary, above, unit)
                parts.pop(None, None)
                for part, value in parts.items():  # a commune has districts and provinces above
                    known_as = sums.setdefault(below, {}).setdefault(part, value)
                    assert known_as == value or below == "village"  # which may have moved
            sums.setdefault(below, {})
    assert all(nation == nations[0] for nation in nations)
    assert any(nations[0].values())
