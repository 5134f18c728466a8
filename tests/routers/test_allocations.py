"""Sharing targets out, over HTTP: by hand, by keys, again, and by two people at once."""

import asyncio
from datetime import date
from typing import Any
from uuid import UUID

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api import clock
from api.models.role_grants import Role
from api.services.allocations import apportion
from tests.factories import (
    BAO_THANG,
    HOAN_KIEM,
    LAO_CAI,
    MUONG_KHUONG,
    NATION,
    As,
    Province,
    make,
)
from tests.rules import Row, fault, ids_in, problem, walk

TODAY = date(2026, 10, 15)


@pytest.fixture(autouse=True)
def _one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "today", lambda: TODAY)


async def aim(client: httpx.AsyncClient, unit_id: UUID, value: float = 100, **more: Any) -> str:
    target = {"indicator": "events.count", "unit_id": str(unit_id), "period": "2026"}
    return str((await make(client, "targets", **target | {"value": value} | more))["id"])


async def share(client: httpx.AsyncClient, target_id: str, **body: Any) -> httpx.Response:
    return await client.post(f"/v1/targets/{target_id}:allocate", json=body)


def parts(*given: tuple[Any, float]) -> list[dict[str, Any]]:
    return [{"unit_id": str(unit), "value": value} for unit, value in given]


async def standing(client: httpx.AsyncClient, target_id: str) -> dict[str, float]:
    rows = await walk(client, "targets", allocated_from_id=target_id)
    return {row["unit_id"]: row["value"] for row in rows}


async def test_a_target_is_shared_out_by_hand(as_: As) -> None:
    admin = await as_(Role.province_admin, at=LAO_CAI)
    filters: dict[str, Any] = {
        "service_types": ["ID.ACTIVATE"],
        "channel": "market",
        "document": "12/KH",
    }
    target = await aim(admin, LAO_CAI, **filters)
    given = parts((MUONG_KHUONG, 60), (BAO_THANG, 30.5))
    shared = await share(admin, target, allocations=given)
    assert shared.status_code == 200, shared.text
    told = shared.json()
    assert told["unallocated"] == 9.5
    assert [(p["unit_id"], p["value"]) for p in told["allocations"]] == [
        (str(MUONG_KHUONG), 60),
        (str(BAO_THANG), 30.5),
    ]
    part = await Row(admin, "targets", told["allocations"][0]["target_id"]).get()
    whole = await Row(admin, "targets", target).get()
    differs = {name for name in part if part[name] != whole[name]}
    assert differs == {"id", "created_at", "updated_at", "unit_id", "value", "allocated_from_id"}
    assert part["allocated_from_id"] == target
    more = await share(admin, target, allocations=parts((MUONG_KHUONG, 130)))
    assert more.json()["unallocated"] == -30  # they need not add up


async def test_another_allocation_takes_the_place_of_the_one_before(
    as_: As, lao_cai: Province
) -> None:
    admin, place = await as_(Role.province_admin, at=LAO_CAI), lao_cai.muong_khuong
    target = await aim(admin, LAO_CAI)
    first = parts((MUONG_KHUONG, 60), (BAO_THANG, 40))
    made = (await share(admin, target, allocations=first)).json()["allocations"]
    again = (await share(admin, target, allocations=first)).json()["allocations"]
    assert again == made
    here, there = (Row(admin, "targets", part["target_id"]) for part in made)
    assert [(await row.get())["version"] for row in (here, there)] == [1, 1]
    below = await share(place.admin, here.id, allocations=parts((place.village["id"], 20)))
    (village,) = below.json()["allocations"]

    await share(admin, target, allocations=parts((BAO_THANG, 70)))
    assert await standing(admin, target) == {str(BAO_THANG): 70}
    assert (await there.get())["version"] == 2
    versions = await walk(admin, f"targets/{there.id}/versions")
    assert [version["value"] for version in versions] == [70, 40]
    for gone in (here.id, village["target_id"]):  # with what was shared out of it
        assert problem(await admin.get(f"/v1/targets/{gone}")) == (404, "not_found")
    back = await share(admin, target, allocations=first)
    assert [part["target_id"] for part in back.json()["allocations"]] == [here.id, there.id]
    assert (await here.get())["version"] == 3


async def test_a_target_is_shared_out_evenly_in_whole_numbers(as_: As, lao_cai: Province) -> None:
    admin = await as_(Role.province_admin, at=LAO_CAI)
    communes = await walk(admin, "admin-units", level="commune", within=str(LAO_CAI), limit=200)
    target = await aim(admin, LAO_CAI, 1_000)
    told = (await share(admin, target, by="even")).json()
    values = [part["value"] for part in told["allocations"]]
    assert (len(values), sum(values), told["unallocated"]) == (len(communes), 1_000, 0)
    assert max(values) - min(values) <= 1
    assert all(isinstance(value, int) for value in values)
    again = (await share(admin, target, by="even")).json()
    assert again == told
    nation = await as_(Role.national_admin, at=NATION)
    national = await aim(nation, NATION, 34)
    provinces = (await share(nation, national, by="even")).json()["allocations"]
    assert [part["value"] for part in provinces] == [1] * 34
    assert lao_cai.unit_id == LAO_CAI


async def test_a_target_is_shared_out_by_households_and_members(
    as_: As, lao_cai: Province, superuser: AsyncEngine
) -> None:
    place = lao_cai.muong_khuong
    admin = await as_(Role.province_admin, at=LAO_CAI)
    village = {"level": "village", "name": "Thôn Hai", "type": "thôn", "valid_from": "2025-07-01"}
    second = await make(place.admin, "admin-units", **village, parent_id=str(MUONG_KHUONG))
    target = await aim(admin, MUONG_KHUONG, 10)
    statistic = {"indicator": "households.total", "as_of": "2026-01-01", "attribution": "survey"}
    first = {"unit_id": place.village["id"], "value": 200}
    await make(place.admin, "statistics", **statistic, **first)
    lacking = await share(place.admin, target, by="households")
    assert fault(lacking) == (422, "/by", "no_weights")
    async with superuser.connect() as connection:
        earlier = "update household set created_at = '2026-01-01', version = version + 1"
        await connection.execute(text(earlier))
    assert (await share(place.admin, target, by="households")).status_code == 200  # registered
    assert await standing(admin, target) == {place.village["id"]: 10, second["id"]: 0}
    await make(place.admin, "statistics", **statistic, unit_id=second["id"], value=100)
    assert (await share(place.admin, target, by="households")).status_code == 200
    assert await standing(admin, target) == {place.village["id"]: 7, second["id"]: 3}
    told = await share(place.admin, target, by="members")
    assert told.json()["unallocated"] == 0
    assert await standing(admin, target) == {place.village["id"]: 10, second["id"]: 0}
    growing = await aim(admin, MUONG_KHUONG, 110, measure="cumulative", baseline=100)
    told = await share(place.admin, growing, by="even")
    part = await Row(admin, "targets", told.json()["allocations"][0]["target_id"]).get()
    assert (part["measure"], part["baseline"], part["value"]) == ("period", None, 5)


async def test_what_cannot_be_shared_out(as_: As, lao_cai: Province) -> None:
    admin, place = await as_(Role.province_admin, at=LAO_CAI), lao_cai.muong_khuong
    target = await aim(admin, MUONG_KHUONG)
    team = {"team_id": lao_cai.bao_thang.team["id"]}
    village = place.village["id"]
    wrong: list[tuple[dict[str, Any], str, str]] = [
        ({}, "/by", "exactly_one"),
        ({"by": "even", "allocations": parts((village, 1))}, "/by", "exactly_one"),
        ({"by": "chance"}, "/by", "enum"),
        ({"allocations": []}, "/allocations", "too_short"),
        ({"allocations": parts((BAO_THANG, 1))}, "/allocations/0/unit_id", "not_found"),
        (
            {"allocations": parts((village, 1), (HOAN_KIEM, 1))},
            "/allocations/1/unit_id",
            "not_found",
        ),
        ({"allocations": parts((LAO_CAI, 1))}, "/allocations/0/unit_id", "not_found"),
        ({"allocations": parts((MUONG_KHUONG, 1))}, "/allocations/0/unit_id", "not_below"),
        ({"allocations": parts((village, 1), (village, 2))}, "/allocations/1", "duplicate"),
        (
            {"allocations": [{"unit_id": village, "value": 1} | team]},
            "/allocations/0/team_id",
            "not_found",
        ),
    ]
    for body, pointer, code in wrong:
        assert fault(await share(admin, target, **body)) == (422, pointer, code), body
    shares: list[dict[str, Any]] = [
        {"indicator": "villages.coverage"},
        {"measure": "growth", "baseline_period": "2025"},
        {"indicator": "beneficiaries.distinct", "denominator": "population.youth"},
    ]
    for more in shares:
        refused = await share(admin, await aim(admin, LAO_CAI, **more), by="even")
        assert fault(refused) == (422, "/by", "not_shareable"), more
    assert await standing(admin, target) == {}


async def test_teams_get_their_parts(as_: As, lao_cai: Province) -> None:
    place = lao_cai.muong_khuong
    admin = await as_(Role.province_admin, at=LAO_CAI)
    target = await aim(admin, MUONG_KHUONG, 2)
    team = {"unit_id": str(MUONG_KHUONG), "team_id": place.team["id"], "value": 2}
    told = (await share(place.admin, target, allocations=[team])).json()
    assert told["allocations"][0]["team_id"] == place.team["id"]
    leader = await lao_cai.leader_of(place)
    await make(leader, "support-events", **place.event(occurred_at="2026-03-01T09:00:00+07:00"))
    part = told["allocations"][0]["target_id"]
    progress = (await place.admin.get(f"/v1/targets/{part}/progress")).json()
    assert (progress["value"], progress["missing"]) == (1, 1)


async def test_who_shares_out_what(as_: As, lao_cai: Province) -> None:
    place = lao_cai.muong_khuong
    admin = await as_(Role.province_admin, at=LAO_CAI)
    youth = await as_(Role.youth_coordinator, at=LAO_CAI)
    owned = await aim(admin, MUONG_KHUONG)
    young = await aim(youth, MUONG_KHUONG, owner="youth_union")
    given = {"allocations": parts((place.village["id"], 5))}
    assert (await share(place.admin, owned, **given)).status_code == 200
    assert (await share(youth, young, **given)).status_code == 200
    assert problem(await share(youth, owned, **given)) == (403, "insufficient_role")
    (part,) = await ids_in(place.admin, "targets", allocated_from_id=owned)
    assert problem(await Row(place.admin, "targets", part).patch(value=1)) == (
        403,
        "insufficient_role",
    )  # its own targets are allocated, not set
    for client in (lao_cai.bao_thang.admin, await as_(Role.commune_admin, at=HOAN_KIEM)):
        assert problem(await share(client, owned, **given)) == (404, "not_found")
    for role in (Role.ioc_reader, Role.portal_client, Role.auditor):
        reader = await as_(role, at=LAO_CAI)
        assert problem(await share(reader, owned, **given)) == (403, "insufficient_role")
    above = await aim(admin, LAO_CAI)
    assert problem(await share(place.admin, above, **given)) == (404, "not_found")


async def test_two_allocations_at_once_leave_one_whole(as_: As, lao_cai: Province) -> None:
    admin = await as_(Role.province_admin, at=LAO_CAI)
    target = await aim(admin, LAO_CAI)
    sets = [{str(MUONG_KHUONG): n, str(BAO_THANG): 100 - n} for n in range(1, 7)]
    sets += [{str(MUONG_KHUONG): 99}, {str(BAO_THANG): 98}]
    answers = await asyncio.gather(
        *(share(admin, target, allocations=parts(*one.items())) for one in sets)
    )
    assert {answer.status_code for answer in answers} == {200}
    assert await standing(admin, target) in sets
    assert lao_cai.unit_id == LAO_CAI


@given(
    whole=st.integers(0, 10_000_000) | st.integers(0, 10_000_000).map(lambda n: n / 10_000),
    weights=st.lists(st.integers(0, 100_000), min_size=1, max_size=200).filter(any),
)
def test_parts_add_up_and_are_fair(whole: float, weights: list[int]) -> None:
    shares = apportion(whole, dict(enumerate(map(float, weights))))
    step = 1 if whole == int(whole) else 0.0001
    assert round(sum(shares.values()), 4) == whole
    for key, weight in enumerate(weights):
        assert abs(shares[key] - whole * weight / sum(weights)) < step * 1.0001
    assert shares == apportion(whole, dict(enumerate(map(float, weights))))
