"""What becomes of grants: they follow a merger, wait after a split, and return by a revert."""

from typing import Any
from uuid import UUID

import httpx
import pytest

from api.models.role_grants import Role
from tests.factories import BAO_THANG, LAO_CAI, MUONG_KHUONG, As, Person, Province, make
from tests.timeline import figures, listed

DAY = "2026-03-01"
LISTS = ("teams", "members", "households", "support-events")


@pytest.fixture
async def nation(as_: As) -> Person:
    return await as_(Role.national_admin)


@pytest.fixture
async def officer(as_: As) -> Person:
    return await as_(Role.province_admin, at=LAO_CAI)


@pytest.fixture
async def busy(lao_cai: Province) -> Province:
    for place in (lao_cai.muong_khuong, lao_cai.bao_thang):
        await make(await lao_cai.leader_of(place), "support-events", **place.event())
    return lao_cai


async def granted(officer: Person, who: Person, unit: Any) -> dict[str, Any]:
    return await make(
        officer, "role-grants", principal_id=str(who.principal_id), role="commune_admin",
        unit_id=str(unit),
    )  # fmt: skip


async def apply(nation: Person, number: str, change: dict[str, Any]) -> dict[str, Any]:
    document = {"number": number, "issued_on": "2026-01-15", "issuer": "Quốc hội"}
    return await make(
        nation, "reorganisations", effective_on=DAY, document=document, changes=[change]
    )


async def revert(nation: Person, made: dict[str, Any]) -> None:
    path = f"/v1/reorganisations/{made['id']}:revert"
    response = await nation.post(path, json={"reason": "Sai văn bản"})
    assert response.status_code == 200, response.text


async def sizes(who: httpx.AsyncClient) -> list[int]:
    """Return how many teams, members, households and events somebody sees."""
    return [len(await listed(who, path)) for path in LISTS]


def commune(name: str, code: str) -> dict[str, Any]:
    return {"level": "commune", "name": name, "type": "xã", "code": code}


def merger() -> dict[str, Any]:
    both = [str(MUONG_KHUONG), str(BAO_THANG)]
    return {"kind": "merge", "from_ids": both, "to": commune("Xã Chung", "99999")}


def split(village: str) -> dict[str, Any]:
    """Return a split of Mường Khương that gives its village to the northern half."""
    parts = [
        {"unit": commune("Xã Bắc", "99001"), "village_ids": [village]},
        {"unit": commune("Xã Nam", "99003"), "village_ids": []},
    ]
    return {"kind": "split", "from_id": str(MUONG_KHUONG), "into": parts}


async def test_after_a_merger_both_grants_reach_the_successor_until_it_is_taken_back(
    busy: Province, nation: Person, officer: Person, as_: As
) -> None:
    here, there = await as_(), await as_()
    grants = [await granted(officer, here, MUONG_KHUONG), await granted(officer, there, BAO_THANG)]
    reader = await as_(Role.ioc_reader, at=MUONG_KHUONG)
    assert await sizes(here) == await sizes(there) == [1, 1, 1, 1]
    made = await apply(nation, "1/NQ", merger())
    (new,) = made["unit_ids"]
    assert await sizes(here) == await sizes(there) == [2, 2, 2, 2]
    assert await figures(reader, period="2025-08") == {UUID(new): 2}
    path = f"/v1/households/{busy.bao_thang.household['id']}"
    change = {"address": "Số 2"}
    changed = await here.patch(path, json=change, headers={"If-Match": "*"})
    assert changed.status_code == 200  # it writes there, too
    # a grant stays what was granted, in the list of whoever may end it
    path = "/v1/role-grants"
    kept = {row["id"]: row for row in (await officer.get(path)).json()["items"]}
    assert [kept[grant["id"]]["unit_id"] for grant in grants] == [
        str(MUONG_KHUONG),
        str(BAO_THANG),
    ]
    ended = await officer.delete(f"{path}/{grants[1]['id']}", headers={"If-Match": "*"})
    assert ended.status_code == 204
    assert (await there.get("/v1/teams")).status_code == 403  # no grant is left
    await revert(nation, made)
    assert await sizes(here) == [1, 1, 1, 1]
    assert await figures(reader, period="2025-08") == {MUONG_KHUONG: 1}


async def test_after_a_split_a_grant_gives_nothing_until_an_officer_decides(
    busy: Province, nation: Person, officer: Person, as_: As
) -> None:
    holder, village = await as_(), busy.muong_khuong.village["id"]
    await granted(officer, holder, MUONG_KHUONG)
    leader = await busy.leader_of(busy.muong_khuong)
    made = await apply(nation, "1/NQ", split(village))
    north, south = made["unit_ids"]
    assert await sizes(holder) == [0, 0, 0, 0]
    query = {"indicator": "events.count", "period": "2025-08"}
    for unit in (north, str(MUONG_KHUONG)):
        found = await holder.get("/v1/observations", params=query | {"unit_id": unit})
        assert found.status_code == 404
    body = {"unit_id": village, "head_name": "Hộ"}
    refusal = (await holder.post("/v1/households", json=body)).json()
    assert [(e["pointer"], e["code"]) for e in refusal["errors"]] == [("/unit_id", "not_found")]
    assert await sizes(officer) == [2, 2, 2, 2]  # the province's grant holds all of it
    assert await sizes(leader) == [1, 1, 1, 1]  # and the village's went with its village

    await granted(officer, holder, south)
    assert await sizes(holder) == [0, 0, 0, 0]
    decided = await granted(officer, holder, north)
    assert await sizes(holder) == [1, 1, 1, 1]
    blocked = await nation.post(
        f"/v1/reorganisations/{made['id']}:revert", json={"reason": "Sai văn bản"}
    )
    assert (blocked.status_code, blocked.json()["errors"][0]["code"]) == (409, "still_used")
    assert blocked.json()["errors"][0]["params"]["grants"] == 2
    path = f"/v1/role-grants/{decided['id']}"
    assert (await officer.delete(path, headers={"If-Match": "*"})).status_code == 204
    assert await sizes(holder) == [0, 0, 0, 0]


async def test_a_split_that_is_taken_back_gives_the_grant_its_commune_again(
    busy: Province, nation: Person, officer: Person, as_: As
) -> None:
    holder, village = await as_(), busy.muong_khuong.village["id"]
    await granted(officer, holder, MUONG_KHUONG)
    made = await apply(nation, "1/NQ", split(village))
    assert await sizes(holder) == [0, 0, 0, 0]
    await revert(nation, made)
    assert await sizes(holder) == [1, 1, 1, 1]
    body = {"unit_id": village, "head_name": "Hộ"}
    assert (await holder.post("/v1/households", json=body)).status_code == 201
