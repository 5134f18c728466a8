"""Progress of targets, over HTTP: every kind of target, and the plans of two provinces."""

from dataclasses import dataclass, field
from datetime import date
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI

from api import clock, ids
from api.models.role_grants import Role
from tests.factories import (
    BAO_THANG,
    HA_NOI,
    LAO_CAI,
    MUONG_KHUONG,
    NATION,
    OLD_LAO_CAI,
    OLD_MUONG_KHUONG,
    As,
    Province,
    make,
)
from tests.rules import Row, fault, ids_in, problem, same_answer, walk
from tests.statements import statements

TODAY = date(2026, 7, 2)
"""Exactly half of the year has passed at its end: 183 of 365 days."""


@pytest.fixture(autouse=True)
def _one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "today", lambda: TODAY)


type Told = tuple[Any, Any, Any, str]


@dataclass
class Plan:
    """Somebody who sets targets and reads their progress."""

    client: httpx.AsyncClient
    unit_id: UUID = LAO_CAI
    made: list[str] = field(default_factory=list)

    async def aim(self, indicator: str, value: float, **given: Any) -> str:
        target = {"indicator": indicator, "unit_id": str(self.unit_id), "period": "2026"}
        made = await make(self.client, "targets", **target | {"value": value} | given)
        self.made.append(made["id"])
        return str(made["id"])

    async def progress(self, target_id: str, **query: Any) -> dict[str, Any]:
        response = await self.client.get(f"/v1/targets/{target_id}/progress", params=query)
        assert response.status_code == 200, response.text
        told: dict[str, Any] = response.json()
        return told

    async def told(self, indicator: str, value: float, **given: Any) -> Told:
        """Set a target and return its value, attainment, missing and status."""
        return figures(await self.progress(await self.aim(indicator, value, **given)))


def figures(told: dict[str, Any]) -> Told:
    attainment = told["attainment"]
    rounded = None if attainment is None else round(attainment, 4)
    return told["value"], rounded, told["missing"], told["status"]


async def record(province: Province, times: int = 1, **changes: Any) -> None:
    place = changes.pop("place", province.muong_khuong)
    leader = changes.pop("leader", None) or await province.leader_of(place)
    event = {"occurred_at": "2026-03-10T09:00:00+07:00"} | changes
    for _ in range(times):
        await make(leader, "support-events", **place.event(**event))


@pytest.fixture
async def plan(as_: As, lao_cai: Province) -> Plan:
    """Lào Cai with 60 activations and 30 uses of VNeID, in two communes, two teams."""
    leader = await lao_cai.leader_of(lao_cai.muong_khuong)
    await record(lao_cai, 4, quantity=10, leader=leader)
    await record(lao_cai, 1, quantity=30, leader=leader, service_type="ID.USE", channel="market")
    await record(lao_cai, 2, quantity=10, place=lao_cai.bao_thang)
    await record(lao_cai, 1, outcome="attempted", quantity=100, leader=leader)
    await record(lao_cai, 1, quantity=24, occurred_at="2025-12-31T23:59:00+07:00", leader=leader)
    return Plan(await as_(Role.province_admin, at=LAO_CAI))


async def test_a_period_count_with_its_filters(plan: Plan) -> None:
    accounts = {"service_types": ["ID.ACTIVATE"]}
    assert await plan.told("events.quantity", 120, **accounts) == (60, 0.5, 60, "on_track")
    assert await plan.told("events.quantity", 60, **accounts) == (60, 1, 0, "ahead")
    assert await plan.told("events.quantity", 100, **accounts) == (60, 0.6, 40, "ahead")
    assert await plan.told("events.quantity", 150, **accounts) == (60, 0.4, 90, "behind")
    assert await plan.told("events.count", 16) == (8, 0.5, 8, "on_track")
    assert await plan.told("events.count", 10, channel="market") == (1, 0.1, 9, "behind")
    turns = {"service_types": ["ID.USE"], "channel": "market"}
    assert await plan.told("events.quantity", 20, **turns) == (30, 1.5, 0, "ahead")
    assert await plan.told("events.count", 8, team_kind="core_squad") == (0, 0, 8, "behind")
    last = {"period": "2025", **accounts}
    assert await plan.told("events.quantity", 24, **last) == (24, 1, 0, "met")
    assert await plan.told("events.quantity", 24, comparator="gt", **last) == (24, 1, 0, "missed")
    assert await plan.told("events.quantity", 25, **last) == (24, 0.96, 1, "missed")
    coming = await plan.told("events.count", 5, period="2027")
    assert coming == (None, None, None, "not_computable")


async def test_comparators(plan: Plan) -> None:
    for comparator, value, period, expected in (
        ("lte", 8, "2026", (8, 1, 0, "on_track")),
        ("lt", 8, "2026", (8, 0, 0, "behind")),
        ("lte", 7, "2026", (8, 0, 1, "behind")),
        ("lte", 1, "2025", (1, 1, 0, "met")),
        ("lt", 1, "2025", (1, 0, 0, "missed")),
        ("eq", 1, "2025", (1, 1, 0, "met")),
        ("eq", 2, "2025", (1, 0.5, 1, "missed")),
        ("eq", 4, "2026", (8, 2, 4, "behind")),
        ("eq", 8, "2026", (8, 1, 0, "on_track")),
        ("gte", 0, "2026", (8, None, 0, "ahead")),
    ):
        given = {"comparator": comparator, "period": period}
        assert await plan.told("events.count", value, **given) == expected, given | {"v": value}


async def test_a_cumulative_target_adds_to_its_baseline(plan: Plan) -> None:
    given = {"measure": "cumulative", "service_types": ["ID.ACTIVATE"]}
    assert await plan.told("events.quantity", 9_300, baseline=9_200, **given) == (
        9_260,
        round(9_260 / 9_300, 4),
        40,
        "ahead",
    )
    assert await plan.told("events.quantity", 60, **given) == (60, 1, 0, "ahead")


async def test_growth_is_against_a_baseline_period(plan: Plan) -> None:
    given = {"measure": "growth", "service_types": ["ID.ACTIVATE"]}
    target = await plan.aim("events.quantity", 100, baseline_period="2025", **given)
    told = await plan.progress(target)
    assert (told["numerator"], told["denominator"], told["value"]) == (36, 24, 150)
    assert await plan.told("events.quantity", 300, baseline=24, **given) == (
        150,
        0.5,
        150,
        "on_track",
    )
    nothing = await plan.told("events.quantity", 10, baseline_period="2024", **given)
    assert nothing == (None, None, None, "not_computable")


async def test_stocks_shares_and_coverage(plan: Plan, lao_cai: Province) -> None:
    place = lao_cai.muong_khuong
    squad = {"unit_id": str(MUONG_KHUONG), "kind": "core_squad", "founded_on": "2026-01-05"}
    await make(place.admin, "teams", name="Đội thanh niên nòng cốt", **squad)
    assert await plan.told("teams.active", 20, team_kind="core_squad") == (1, 0.05, 19, "behind")
    assert await plan.told("teams.founded", 2) == (1, 0.5, 1, "on_track")
    assert await plan.told("teams.active", 2, period="2025") == (2, 1, 0, "met")
    assert await plan.told("villages.coverage", 100) == (100, 1, 0, "ahead")
    coverage = await plan.progress(await plan.aim("communes.coverage", 100))
    communes = coverage["denominator"]
    assert (coverage["numerator"], coverage["value"]) == (2, pytest.approx(200 / communes))
    assert coverage["missing"] == pytest.approx(100 - 200 / communes, abs=1e-4)
    verified = await plan.progress(await plan.aim("events.verified_share", 50))
    assert (verified["numerator"], verified["denominator"], verified["value"]) == (0, 8, 0)


async def test_a_ratio_needs_its_denominator(plan: Plan) -> None:
    given = {"denominator": "population.youth", "service_types": ["ID.USE"]}
    target = await plan.aim("events.quantity", 60, **given)
    none = await plan.progress(target)
    assert (none["numerator"], none["denominator"]) == (30, None)
    assert figures(none) == (None, None, None, "not_computable")
    statistic = {"indicator": "population.youth", "unit_id": str(LAO_CAI), "value": 0}
    statistic |= {"attribution": "government", "as_of": "2026-01-01"}
    row = Row(plan.client, "statistics", (await make(plan.client, "statistics", **statistic))["id"])
    zero = await plan.progress(target)
    assert (zero["denominator"], zero["status"]) == (0, "not_computable")
    await row.patch(value=100)
    ratio = await plan.progress(target)
    assert (ratio["numerator"], ratio["denominator"], ratio["value"]) == (30, 100, 30)
    assert figures(ratio) == (30, 0.5, 30, "on_track")
    assert (await plan.progress(target, as_of="2025-12-31"))["status"] == "not_computable"


async def test_declared_indicators_have_targets_too(plan: Plan, as_: As) -> None:
    nation = await as_(Role.national_admin, at=NATION)
    names = {"name_vi": "Hạng", "name_en": "Rank", "unit_of_count": "rank"}
    await make(nation, "indicators", code="rank.digital_society", **names)
    target = await plan.aim("rank.digital_society", 15, comparator="lte", period="2025")
    assert (await plan.progress(target))["status"] == "not_computable"
    rank = {"indicator": "rank.digital_society", "unit_id": str(LAO_CAI), "as_of": "2025-11-20"}
    await make(plan.client, "statistics", **rank, value=12, attribution="government")
    assert figures(await plan.progress(target)) == (12, 1, 0, "met")
    await make(plan.client, "statistics", **rank, value=18, attribution="press")
    assert figures(await plan.progress(target)) == (18, 0, 3, "missed")


async def test_a_teams_own_target(plan: Plan, lao_cai: Province) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    accounts = {"service_types": ["ID.ACTIVATE"]}
    for place, count, quantity in ((here, 6, 40), (there, 2, 20)):
        given = {"team_id": place.team["id"]}
        assert (await plan.told("events.count", 100, **given))[0] == count
        assert (await plan.told("events.quantity", 100, **given, **accounts))[0] == quantity
        commune = given | {"unit_id": str(place.unit_id)}
        assert (await plan.told("events.count", 100, **commune))[0] == count
        assert (await plan.told("members.active", 5, **given))[0] == 1
        assert (await plan.told("teams.active", 1, **given))[0] == 1
    elsewhere = {"team_id": here.team["id"], "unit_id": here.village["id"], "channel": "market"}
    assert (await plan.told("events.count", 5, **elsewhere))[0] == 1


async def test_progress_as_of_a_day(plan: Plan) -> None:
    target = await plan.aim("events.count", 16)
    for day, value, expected, status in (
        ("2026-03-09", 0, 68 / 365, "behind"),
        ("2026-03-10", 8, 69 / 365, "ahead"),
        ("2026-07-02", 8, 183 / 365, "on_track"),
    ):
        told = await plan.progress(target, as_of=day)
        assert (told["as_of"], told["value"], told["status"]) == (day, value, status)
        assert told["expected"] == pytest.approx(expected)
    before = await plan.progress(target, as_of="2025-12-31")
    assert (before["expected"], before["status"]) == (0, "not_computable")
    last = await plan.aim("events.count", 1, period="2025")
    assert (await plan.progress(last, as_of="2025-12-31"))["status"] == "met"
    assert (await plan.progress(last, as_of="2025-12-30"))["status"] == "behind"
    refused = await plan.client.get(f"/v1/targets/{target}/progress?as_of=2026-07-03")
    assert fault(refused) == (422, "/query/as_of", "in_the_future")


async def test_all_targets_of_a_subtree_at_once(plan: Plan, as_: As, lao_cai: Province) -> None:
    own = {"unit_id": str(MUONG_KHUONG)}
    made = [
        await plan.aim("events.count", 5),
        await plan.aim("events.count", 5, **own),
        await plan.aim("teams.active", 5, **own, period="2026-Q2"),
        await plan.aim("events.count", 5, unit_id=str(BAO_THANG), period="2025"),
    ]
    everything = await plan.client.get("/v1/targets/progress")
    assert {item["target_id"] for item in everything.json()["items"]} == set(made)
    for item in everything.json()["items"]:
        assert item == await plan.progress(item["target_id"])
    narrowed: list[tuple[dict[str, Any], set[str]]] = [
        (own, set(made[1:3])),
        ({"period": "2026"}, set(made[:3])),
        (own | {"period": "2026-Q2"}, {made[2]}),
        ({"as_of": "2026-01-01", "indicator": "teams.active"}, {made[2]}),
    ]
    for query, wanted in narrowed:
        response = await plan.client.get("/v1/targets/progress", params=query)
        assert {item["target_id"] for item in response.json()["items"]} == wanted
    pages = await walk(plan.client, "targets/progress", limit=3)
    assert [item["target_id"] for item in pages] == sorted(made)
    officer = lao_cai.muong_khuong.admin
    seen = await officer.get("/v1/targets/progress")
    assert {item["target_id"] for item in seen.json()["items"]} == set(made[1:3])
    far = await as_(Role.ioc_reader, at=HA_NOI)
    assert (await far.get("/v1/targets/progress")).json()["items"] == []
    hidden = await far.get(f"/v1/targets/{made[0]}/progress")
    assert same_answer(hidden, await far.get(f"/v1/targets/{ids.new_id()}/progress"))
    assert problem(hidden) == (404, "not_found")


async def test_more_targets_are_no_more_statements(plan: Plan, app: FastAPI) -> None:
    async def ask() -> tuple[int, int]:
        with statements(app) as sent:
            answer = await plan.client.get("/v1/targets/progress")
        return len(answer.json()["items"]), len(sent)

    for unit in (MUONG_KHUONG, BAO_THANG):
        await plan.aim("events.count", 5, unit_id=str(unit))
    await ask()  # what is known of places is known from the first time on
    await plan.aim("events.count", 6, unit_id=str(BAO_THANG))
    few, sent = await ask()
    for value in range(30):
        for unit in (MUONG_KHUONG, BAO_THANG):
            await plan.aim("events.count", value, unit_id=str(unit))
    many, again = await ask()
    assert (few, many) == (3, 63)
    assert again == sent


async def test_what_still_holds_is_not_counted_again(
    plan: Plan, app: FastAPI, as_: As, lao_cai: Province
) -> None:
    async def ask(client: httpx.AsyncClient = plan.client) -> tuple[list[Any], int]:
        with statements(app) as sent:
            answer = await client.get("/v1/targets/progress")
        return [item["value"] for item in answer.json()["items"]], len(sent)

    indicator = {"code": "youth.start_ups", "name_vi": "Khởi nghiệp", "name_en": "Start-ups"}
    await make(await as_(Role.national_admin), "indicators", **indicator, unit_of_count="person")
    first = await plan.aim("events.count", 5)
    await plan.aim("youth.start_ups", 5)
    assert (await ask())[0] == [8, None]
    assert await ask() == ([8, None], 1)
    narrow = lao_cai.muong_khuong.admin
    assert (await ask(narrow))[0] == []
    declared = {"indicator": "youth.start_ups", "unit_id": str(LAO_CAI), "as_of": "2026-06-30"}
    body = {"value": 3} | declared | {"attribution": "press"}
    for change, values in (
        (record(lao_cai), [9, None]),
        (make(plan.client, "statistics", **body), [9, 3]),
        (plan.aim("events.count", 7, channel="market"), [9, 3, 1]),
        (
            plan.client.delete(f"/v1/targets/{first}", headers={"If-Match": "*"}),
            [3, 1],
        ),
    ):
        await change
        assert (await ask())[0] == values
        assert await ask() == (values, 1)


async def test_small_counts_of_people_are_hidden_in_progress_too(
    as_: As, lao_cai: Province
) -> None:
    officer, province = lao_cai.muong_khuong.admin, Plan(await as_(Role.province_admin, at=LAO_CAI))
    here = {"unit_id": str(MUONG_KHUONG)}
    young = await province.aim("members.youth", 5, **here, period="2025")
    running = await province.aim("members.youth_share", 40, **here)
    below = await province.aim("households.reached", 5, unit_id=lao_cai.muong_khuong.village["id"])
    reader = await as_(Role.ioc_reader, at=LAO_CAI)
    hidden = [None, None, None, None, None, "suppressed"]
    names = ("numerator", "denominator", "value", "attainment", "missing", "status")
    for client in (reader, province.client):
        for target in (young, running, below):
            told = (await client.get(f"/v1/targets/{target}/progress")).json()
            assert [told[name] for name in names] == hidden
        items = (await client.get("/v1/targets/progress")).json()["items"]
        assert [[item[name] for name in names] for item in items] == [hidden] * 3
    shown = (await officer.get(f"/v1/targets/{young}/progress")).json()
    assert (shown["value"], shown["missing"], shown["status"]) == (1, 4, "missed")
    none = await province.aim("households.reached", 5, **here, period="2025")
    assert figures(await province.progress(none)) == (0, 0, 5, "missed")  # 0 tells nothing
    assert await ids_in(reader, "targets") == {young, running, below, none}


async def test_a_target_is_read_under_the_tree_of_its_periods_last_day(
    as_: As, lao_cai: Province
) -> None:
    """A reorganisation leaves what was set for a unit until then as it was."""
    nation = await as_(Role.national_admin, at=NATION)
    plan = Plan(await as_(Role.province_admin, at=LAO_CAI))
    await record(lao_cai, 3)
    before = await plan.aim("events.count", 3, period="2026-Q1", unit_id=str(MUONG_KHUONG))
    over = await plan.aim("events.count", 6, unit_id=str(MUONG_KHUONG))
    whole = await plan.aim("events.count", 6)
    merged = await nation.post(
        "/v1/reorganisations",
        json={
            "effective_on": "2026-06-01",
            "document": {"number": "7/NQ", "issued_on": "2026-05-01", "issuer": "UBTVQH"},
            "changes": [
                {
                    "kind": "merge",
                    "from_ids": [str(MUONG_KHUONG), str(BAO_THANG)],
                    "to": {"level": "commune", "name": "Mới", "type": "xã", "code": "99901"}
                    | {"parent_id": str(LAO_CAI)},
                }
            ],
        },
    )
    assert merged.status_code == 201, merged.text
    assert figures(await plan.progress(before)) == (3, 1, 0, "met")
    assert figures(await plan.progress(over)) == (None, None, None, "not_computable")
    assert figures(await plan.progress(whole)) == (3, 0.5, 3, "on_track")
    units = (await plan.client.get("/v1/admin-units?code=99901")).json()["items"]
    new = await plan.aim("events.count", 6, unit_id=units[0]["id"])
    assert figures(await plan.progress(new)) == (3, 0.5, 3, "on_track")  # with what lies in it
    gone = await plan.client.post(
        "/v1/targets",
        json={"indicator": "events.count", "unit_id": str(MUONG_KHUONG), "period": "2026"}
        | {"value": 1},
    )
    assert problem(gone) == (409, "unit_dissolved")


async def test_old_units_keep_their_old_targets(as_: As, lao_cai: Province) -> None:
    plan = Plan(await as_(Role.province_admin, at=LAO_CAI))
    admin = await as_(Role.province_admin, at=LAO_CAI)
    village = {"level": "village", "name": "Thôn cũ", "type": "thôn", "valid_from": "2020-01-01"}
    made = await make(admin, "admin-units", **village, parent_id=str(OLD_MUONG_KHUONG))
    for day in ("2023-02-01", "2023-12-31"):
        team = {"name": "Tổ", "unit_id": made["id"], "kind": "community_team"}
        await make(admin, "teams", **team, founded_on=day)
    for unit in (OLD_LAO_CAI, OLD_MUONG_KHUONG):
        given = {"unit_id": str(unit), "period": "2023"}
        assert await plan.told("teams.active", 2, **given) == (2, 1, 0, "met")
        assert await plan.told("teams.founded", 3, **given) == (2, 0.6667, 1, "missed")
        assert (await plan.told("villages.coverage", 100, **given))[0] == 100
    assert lao_cai.unit_id == LAO_CAI
