"""The country's units through time, and villages."""

from datetime import date
from typing import Any

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api import ids
from api.models.role_grants import Role
from tests.factories import (
    BAO_THANG,
    HOAN_KIEM,
    LAO_CAI,
    MUONG_KHUONG,
    NATION,
    OLD_LAO_CAI,
    OLD_MUONG_KHUONG,
    As,
    Province,
    make,
)


async def listed(who: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    response = await who.get("/v1/admin-units", params=query)
    assert response.status_code == 200, response.text
    items: list[dict[str, Any]] = response.json()["items"]
    return items


async def test_the_country_stands_as_it_did_on_each_day(as_: As) -> None:
    anyone = await as_()
    counts = {}
    for day in ("2025-06-30", "2025-07-01"):
        for level in ("province", "district", "commune"):
            query = {"level": level, "at": day, "include_total": "true", "limit": 1}
            page = (await anyone.get("/v1/admin-units", params=query)).json()
            counts[day, level] = page["total"]
    assert list(counts.values()) == [63, 696, 10_035, 34, 0, 3_321]


async def test_a_recycled_code_is_looked_up_with_its_day(as_: As) -> None:
    anyone = await as_()
    (then,) = await listed(anyone, code="15", at="2025-06-30")
    (now,) = await listed(anyone, code="15", at="2025-07-01")
    assert (then["name"], now["name"]) == ("Tỉnh Yên Bái", "Tỉnh Lào Cai")
    assert now["id"] == str(LAO_CAI)
    assert now["parent_id"] == then["parent_id"] == str(NATION)
    assert (then["valid_from"], then["valid_to"]) == (None, "2025-06-30")


async def test_names_are_found_without_accents_and_by_what_they_were(as_: As) -> None:
    anyone = await as_()
    names = {unit["name"] for unit in await listed(anyone, q="muong khuong")}
    assert names == {"Xã Mường Khương"}
    found = await listed(anyone, q="Xuan Thuong", within=str(LAO_CAI))
    assert [unit["name"] for unit in found] == ["Xã Bảo Yên"]
    assert await listed(anyone, q="%") == []
    then = await listed(anyone, q="MƯỜNG KHƯƠNG", at="2024-01-01", level="district")
    assert [unit["name"] for unit in then] == ["Huyện Mường Khương"]


async def test_the_tree_is_read_downwards(as_: As) -> None:
    anyone = await as_()
    provinces = await listed(anyone, parent_id=str(NATION), limit=200)
    assert len(provinces) == 34
    query = {"within": str(OLD_LAO_CAI), "level": "commune", "at": "2023-12-31"}
    page = await anyone.get("/v1/admin-units", params=query | {"include_total": "true"})
    assert page.json()["total"] == 151
    several = await listed(anyone, level=["province", "district"], at="2020-01-01", limit=1)
    assert several[0]["level"] in {"province", "district"}


async def test_lineage_tells_what_became_of_a_unit(as_: As) -> None:
    anyone = await as_()

    async def lineage(unit: Any) -> dict[str, Any]:
        found: dict[str, Any] = (await anyone.get(f"/v1/admin-units/{unit}/lineage")).json()
        return found

    old = await lineage(OLD_LAO_CAI)
    assert old["predecessors"] == []
    assert old["successors"] == [
        {
            "unit_id": str(LAO_CAI),
            "code": "15",
            "name": "Tỉnh Lào Cai",
            "level": "province",
            "on": "2025-07-01",
            "extent": "whole",
        }
    ]
    commune = await lineage(MUONG_KHUONG)
    assert {unit["level"] for unit in commune["predecessors"]} == {"commune"}
    assert str(OLD_MUONG_KHUONG) in {unit["unit_id"] for unit in commune["predecessors"]}
    split = await lineage(ids.official_unit_id("commune", "00007"))
    assert {(unit["code"], unit["extent"]) for unit in split["successors"]} == {
        ("00008", "part"),
        ("00025", "part"),
    }
    island = await lineage(ids.official_unit_id("district", "318"))
    assert [(u["level"], u["extent"]) for u in island["successors"]] == [("commune", "whole")]


async def test_a_retired_unit_is_read_as_it_was_on_its_last_day(as_: As) -> None:
    anyone = await as_()
    response = await anyone.get(f"/v1/admin-units/{OLD_MUONG_KHUONG}")
    unit = response.json()
    assert (unit["name"], unit["valid_to"]) == ("Thị trấn Mường Khương", "2025-06-30")
    assert unit["parent_id"] == str(ids.official_unit_id("district", "083"))
    assert response.headers["etag"] == '"1"'
    unknown = await anyone.get(f"/v1/admin-units/{ids.new_id()}")
    assert unknown.status_code == 404


async def test_every_placement_agrees_with_the_published_reform(superuser: AsyncEngine) -> None:
    placed = text("""
        select u.level, count(*) filter (where p.level = u.level),
               count(*) filter (where p.level = 'province')
        from placement p join admin_unit u on u.key = p.unit_key
        where p.during @> cast(:day as date) and (u.valid_from is null) = :old
          and u.level in ('province', 'commune') group by 1 order by 1
    """)
    async with superuser.connect() as connection:
        onward = await connection.execute(placed, {"day": date(2025, 7, 1), "old": True})
        back = await connection.execute(placed, {"day": date(2025, 6, 30), "old": False})
        assert [tuple(row) for row in onward] == [("commune", 9564, 10035), ("province", 63, 63)]
        assert next(tuple(row) for row in back) == ("commune", 135, 3298)


async def test_a_village_lies_where_its_commune_went(as_: As) -> None:
    admin = await as_(Role.province_admin, at=LAO_CAI)
    village = await make(
        admin,
        "admin-units",
        level="village",
        name="Bản Lùng Vai",
        type="bản",
        parent_id=str(OLD_MUONG_KHUONG),
        valid_from="2022-03-01",
    )
    assert village["parent_id"] == str(MUONG_KHUONG)
    then = await admin.get(f"/v1/admin-units/{village['id']}", params={"at": "2023-01-01"})
    assert then.json()["parent_id"] == str(OLD_MUONG_KHUONG)
    for day, above in (("2023-01-01", OLD_LAO_CAI), ("2026-01-01", LAO_CAI)):
        inside = await listed(admin, within=str(above), level="village", at=day)
        assert [unit["id"] for unit in inside] == [village["id"]]
    assert await listed(admin, within=str(HOAN_KIEM), level="village") == []


async def test_a_village_of_a_split_commune_waits_to_be_placed(as_: As) -> None:
    split = ids.official_unit_id("commune", "00007")
    ha_noi = ids.official_unit_id("province", "01", "2025-07-01")
    admin = await as_(Role.province_admin, at=ha_noi)
    village = await make(
        admin,
        "admin-units",
        level="village",
        name="Tổ dân phố số 1",
        type="tổ dân phố",
        parent_id=str(split),
        valid_from="2022-01-01",
    )
    assert village["parent_id"] is None
    inside = await listed(admin, within=str(ha_noi), level="village")
    assert [unit["id"] for unit in inside] == [village["id"]]


async def test_villages_are_renamed_closed_and_removed(lao_cai: Province) -> None:
    admin, village = lao_cai.muong_khuong.admin, lao_cai.muong_khuong.village
    path = f"/v1/admin-units/{village['id']}"
    renamed = await admin.patch(path, json={"name": "Thôn Mới"}, headers={"If-Match": '"1"'})
    assert (renamed.json()["name"], renamed.headers["etag"]) == ("Thôn Mới", '"2"')
    before = await admin.get(path, params={"at": "2025-08-01"})
    assert before.json()["name"] == "Thôn Na Đẩy"
    assert [u["id"] for u in await listed(admin, q="na day", level="village")] == [village["id"]]

    stale = await admin.patch(path, json={"name": "Khác"}, headers={"If-Match": '"1"'})
    assert stale.status_code == 412
    assert stale.json()["current"]["name"] == "Thôn Mới"
    assert stale.headers["etag"] == '"2"'

    used = await admin.delete(path, headers={"If-Match": "*"})
    assert (used.status_code, used.json()["code"]) == (409, "conflict")

    closed = await admin.patch(path, json={"valid_to": "2026-01-31"}, headers={"If-Match": "*"})
    assert closed.json()["valid_to"] == "2026-01-31"
    assert village["id"] not in {u["id"] for u in await listed(admin, level="village")}
    late = await admin.post(
        "/v1/households", json={"unit_id": village["id"], "head_name": "Người đến sau"}
    )
    assert (late.status_code, late.json()["code"]) == (409, "unit_dissolved")
    reopened = await admin.patch(path, json={"valid_to": None}, headers={"If-Match": "*"})
    assert reopened.json()["valid_to"] is None
    assert village["id"] in {u["id"] for u in await listed(admin, level="village")}

    empty = await make(
        admin,
        "admin-units",
        level="village",
        name="Nhầm",
        type="thôn",
        parent_id=str(lao_cai.muong_khuong.unit_id),
        valid_from="2025-07-01",
    )
    gone = await admin.delete(f"/v1/admin-units/{empty['id']}", headers={"If-Match": '"1"'})
    assert gone.status_code == 204
    assert (await admin.get(f"/v1/admin-units/{empty['id']}")).status_code == 404


async def test_villages_are_made_only_in_ones_own_communes(lao_cai: Province, as_: As) -> None:
    officer = lao_cai.muong_khuong.admin
    body = {
        "level": "village",
        "name": "Thôn Lạ",
        "type": "thôn",
        "parent_id": str(BAO_THANG),
        "valid_from": "2026-01-01",
    }
    foreign = await officer.post("/v1/admin-units", json=body)
    absent = await officer.post("/v1/admin-units", json=body | {"parent_id": str(ids.new_id())})
    assert foreign.status_code == absent.status_code == 422
    assert foreign.json()["errors"] == absent.json()["errors"]
    assert foreign.json()["errors"][0]["pointer"] == "/parent_id"

    path = f"/v1/admin-units/{lao_cai.bao_thang.village['id']}"
    refused = await officer.patch(path, json={"name": "Của tôi"}, headers={"If-Match": "*"})
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_role")
    reader = await as_(Role.auditor, at=LAO_CAI)
    assert (await reader.post("/v1/admin-units", json=body)).status_code == 403


async def test_a_villages_parent_must_stand_on_its_first_day(lao_cai: Province) -> None:
    officer = lao_cai.muong_khuong.admin
    body = {"level": "village", "name": "Thôn", "type": "thôn", "valid_from": "2024-01-01"}
    early = await officer.post("/v1/admin-units", json=body | {"parent_id": str(MUONG_KHUONG)})
    assert early.json()["errors"][0]["code"] == "before_unit"
    late = await officer.post(
        "/v1/admin-units",
        json=body | {"parent_id": str(OLD_MUONG_KHUONG), "valid_from": "2025-07-01"},
    )
    assert (late.status_code, late.json()["code"]) == (409, "unit_dissolved")
    assert [unit["unit_id"] for unit in late.json()["successors"]] == [str(MUONG_KHUONG)]
    official = await officer.post(
        "/v1/admin-units", json=body | {"level": "commune", "parent_id": str(LAO_CAI)}
    )
    assert official.json()["errors"][0]["pointer"] == "/level"


async def test_the_same_create_again_is_the_same_village(lao_cai: Province) -> None:
    officer = lao_cai.muong_khuong.admin
    body = {
        "id": str(ids.new_id()),
        "level": "village",
        "name": "Thôn Sảng Chải",
        "type": "thôn",
        "parent_id": str(MUONG_KHUONG),
        "valid_from": "2026-01-01",
    }
    first = await officer.post("/v1/admin-units", json=body)
    assert (first.status_code, first.headers["location"]) == (201, f"/v1/admin-units/{body['id']}")
    again = await officer.post("/v1/admin-units", json=body)
    assert (again.status_code, again.json()) == (200, first.json())
    other = await officer.post("/v1/admin-units", json=body | {"name": "Thôn Khác"})
    assert (other.status_code, other.json()["code"]) == (409, "id_conflict")


async def test_pages_of_units_follow_each_other(as_: As) -> None:
    anyone = await as_()
    seen: list[str] = []
    query: dict[str, Any] = {"level": "province", "limit": 10, "sort": "-name"}
    while True:
        response = await anyone.get("/v1/admin-units", params=query)
        seen += [unit["id"] for unit in response.json()["items"]]
        if response.json()["next_cursor"] is None:
            break
        assert 'rel="next"' in response.headers["link"]
        query["cursor"] = response.json()["next_cursor"]
    assert len(seen) == len(set(seen)) == 34
    other = await anyone.get("/v1/admin-units", params=query | {"level": "commune"})
    assert (other.status_code, other.json()["code"]) == (400, "cursor_invalid")
    forged = await anyone.get("/v1/admin-units", params=query | {"cursor": query["cursor"] + "x"})
    assert forged.json()["code"] == "cursor_invalid"


async def test_units_are_points_on_a_map(as_: As) -> None:
    reader = await as_(Role.ioc_reader, at=LAO_CAI)
    asks = {"Accept": "application/geo+json"}
    communes = {"within": str(LAO_CAI), "level": "commune"}
    response = await reader.get("/v1/admin-units", params=communes, headers=asks)
    assert response.headers["content-type"] == "application/geo+json"
    collection = response.json()
    assert collection["type"] == "FeatureCollection"
    (one,) = [f for f in collection["features"] if f["properties"]["code"] == "02761"]
    listed = (await reader.get("/v1/admin-units", params=communes | {"code": "02761"})).json()
    (unit,) = listed["items"]
    assert one["id"] == unit["id"]
    assert one["geometry"] == {"type": "Point", "coordinates": [unit["lon"], unit["lat"]]}
    assert one["properties"]["name"] == unit["name"]
    assert len(collection["features"]) > 90
    known = asks | {"If-None-Match": response.headers["etag"]}
    again = await reader.get("/v1/admin-units", params=communes, headers=known)
    assert (again.status_code, again.content) == (304, b"")
    before = await reader.get(
        "/v1/admin-units", params=communes | {"at": "2025-06-30"}, headers=known
    )
    assert before.status_code == 200
    country = await reader.get("/v1/admin-units", headers=asks)
    assert len(country.json()["features"]) >= 3321 + 34
