"""Two published plans, set as targets and computed from generated facts with known answers.

The youth union's plan of Lào Cai for 2023 and the yearly targets of Quảng Trị's, as the provinces'
press and their youth unions published them; only the targets are theirs, every fact is made up.
"""

from typing import Any
from uuid import UUID

import httpx
import pytest

from api import ids
from api.models.role_grants import Role
from tests.factories import LAO_CAI, NATION, OLD_LAO_CAI, OLD_MUONG_KHUONG, As, make

QUANG_TRI = ids.official_unit_id("province", "44", "2025-07-01")
OLD_QUANG_TRI = ids.official_unit_id("province", "45")
DONG_HA = ids.official_unit_id("commune", "19333")

type Answer = tuple[Any, Any, Any, str]
"""Value, attainment, missing, status."""


async def declare(nation: httpx.AsyncClient, *codes: str) -> None:
    for code in codes:
        names = {"name_vi": code, "name_en": code, "unit_of_count": "percent"}
        await make(nation, "indicators", code=code, **names)


async def publish(client: httpx.AsyncClient, unit_id: UUID, **figures: float) -> None:
    for name, value in figures.items():
        statistic = {"indicator": f"youth.{name}", "unit_id": str(unit_id), "value": value}
        statistic |= {"as_of": "2023-12-20", "attribution": "survey"}
        await make(client, "statistics", **statistic)


async def set_and_told(
    client: httpx.AsyncClient, unit_id: UUID, plan: list[tuple[dict[str, Any], Answer]]
) -> None:
    """Set a plan; hold all of it, in one answer, against what is known to be right."""
    expected = {}
    for aim, answer in plan:
        target = {"unit_id": str(unit_id), "period": "2023", "owner": "youth_union"}
        expected[(await make(client, "targets", **target | aim))["id"]] = (aim, answer)
    told = await client.get("/v1/targets/progress", params={"unit_id": str(unit_id)})
    items = {item["target_id"]: item for item in told.json()["items"]}
    assert items.keys() == expected.keys()
    for target_id, (aim, answer) in expected.items():
        item = items[target_id]
        found = [item[name] for name in ("value", "attainment", "missing")]
        assert found == pytest.approx(list(answer[:3]), abs=1e-4), aim
        assert item["status"] == answer[3], aim


@pytest.fixture
async def nation(as_: As) -> httpx.AsyncClient:
    """Whoever declares indicators."""
    return await as_(Role.national_admin, at=NATION)


async def hold(admin: httpx.AsyncClient, commune: UUID, day: str, **given: Any) -> None:
    activity = {"kind": "training", "title": "Lớp kỹ năng số", "organiser": "youth_union"}
    host = {"host_unit_id": str(commune), "held_on": day}
    await make(admin, "activities", **activity | host | given)


async def village(admin: httpx.AsyncClient, commune: UUID) -> str:
    given = {"level": "village", "name": "Thôn", "type": "thôn", "valid_from": "2020-01-01"}
    return str((await make(admin, "admin-units", **given, parent_id=str(commune)))["id"])


async def test_the_plan_of_lao_cai_for_2023(as_: As, nation: httpx.AsyncClient) -> None:
    admin = await as_(Role.province_admin, at=LAO_CAI)
    youth = await as_(Role.youth_coordinator, at=LAO_CAI)
    place = {"unit_id": await village(admin, OLD_MUONG_KHUONG), "name": "Tổ"}
    for number in range(22):  # of which one only in 2024
        founded = "2024-01-01" if number == 21 else "2023-03-01"
        await make(admin, "teams", **place, kind="core_squad", founded_on=founded)
    for number, born in enumerate([2000, 1999, 1998, 1970]):  # 24 teams active, 3 led by youth
        team = {"kind": "community_team", "founded_on": "2022-10-01"}
        if number == 3:
            team["dissolved_on"] = "2023-06-30"
        made = await make(admin, "teams", **place, **team)
        stay = {"team_id": made["id"], "role": "leader", "joined_on": "2022-10-01"}
        trained = {"trained_on": "2023-05-01"} if number < 2 else {}
        await make(
            admin, "members", full_name="Người", birth_year=born, memberships=[stay], **trained
        )
    for day in ("2023-03-26", "2023-10-10"):
        await hold(admin, OLD_MUONG_KHUONG, day)
    codes = ("sell_online", "public_services", "e_payment", "society_rank", "software")
    await declare(nation, *(f"youth.{code}" for code in codes))
    await publish(admin, OLD_LAO_CAI, sell_online=8, public_services=61.5, society_rank=14)
    await set_and_told(
        youth,
        OLD_LAO_CAI,
        [
            (
                {"indicator": "teams.active", "team_kind": "core_squad", "value": 20},
                (21, 1.05, 0, "met"),
            ),
            (  # 3 of 21 squads and 3 teams
                {"indicator": "teams.youth_core_share", "comparator": "eq", "value": 100},
                (12.5, 0.125, 87.5, "missed"),
            ),
            (  # 2 of the 4 who stayed members
                {"indicator": "members.trained_share", "comparator": "eq", "value": 100},
                (50, 0.5, 50, "missed"),
            ),
            (  # one of nine districts
                {"indicator": "districts.min_activities", "minimum_per_unit": 2, "value": 100},
                (11.1111, 0.1111, 88.8889, "missed"),
            ),
            (
                {"indicator": "districts.min_activities", "minimum_per_unit": 3, "value": 100},
                (0, 0, 100, "missed"),
            ),
            ({"indicator": "youth.sell_online", "value": 10}, (8, 0.8, 2, "missed")),
            ({"indicator": "youth.public_services", "value": 60}, (61.5, 1.025, 0, "met")),
            (
                {"indicator": "youth.e_payment", "value": 80},
                (None, None, None, "not_computable"),
            ),
            (
                {"indicator": "youth.society_rank", "comparator": "lte", "value": 15},
                (14, 1, 0, "met"),
            ),
            (
                {"indicator": "youth.software", "comparator": "eq", "value": 100},
                (None, None, None, "not_computable"),
            ),
        ],
    )


async def test_the_yearly_targets_of_quang_tri(as_: As, nation: httpx.AsyncClient) -> None:
    admin = await as_(Role.province_admin, at=QUANG_TRI)
    place = {"unit_id": await village(admin, DONG_HA), "name": "Tổ"}
    team = await make(admin, "teams", **place, kind="community_team", founded_on="2022-06-01")
    portal = await as_(Role.portal_client, at=QUANG_TRI)
    event = {
        "team_id": team["id"],
        "service_type": "ID.USE",
        "outcome": "guided",
        "mode": "assisted",
        "channel": "training",
    }
    for quantity, day in ((700, "2023-02-01"), (250, "2023-11-30"), (500, "2024-01-01")):
        at = f"{day}T08:00:00+07:00"
        await make(portal, "support-events", **event, quantity=quantity, occurred_at=at)
    await hold(admin, DONG_HA, "2023-05-19", participants=400)
    await hold(admin, DONG_HA, "2023-12-31", participants=650, kind="contest")
    await declare(nation, "youth.reached", "youth.startups_online", "youth.e_payment")
    total = {"indicator": "population.youth", "unit_id": str(OLD_QUANG_TRI), "value": 1_500}
    total |= {"as_of": "2023-06-30", "attribution": "government"}
    await make(admin, "statistics", **total)
    await publish(admin, OLD_QUANG_TRI, reached=60, startups_online=12.5)
    turns = {"service_types": ["ID.USE"], "channel": "training"}
    await set_and_told(
        admin,
        OLD_QUANG_TRI,
        [
            (
                {"indicator": "youth.reached", "comparator": "gt", "value": 60},
                (60, 1, 0, "missed"),
            ),
            (  # the same, from what was recorded: 950 of 1,500
                {"indicator": "events.quantity", "denominator": "population.youth"}
                | {"comparator": "gt", "value": 60, **turns},
                (63.3333, 1.0556, 0, "met"),
            ),
            (
                {"indicator": "events.quantity", "value": 1_000, **turns},
                (950, 0.95, 50, "missed"),
            ),
            ({"indicator": "activities.participants", "value": 1_000}, (1_050, 1.05, 0, "met")),
            (
                {
                    "indicator": "activities.participants",
                    "activity_kind": "contest",
                    "value": 1_000,
                },
                (650, 0.65, 350, "missed"),
            ),
            ({"indicator": "youth.startups_online", "value": 10}, (12.5, 1.25, 0, "met")),
            (
                {"indicator": "youth.e_payment", "value": 70},
                (None, None, None, "not_computable"),
            ),
        ],
    )
