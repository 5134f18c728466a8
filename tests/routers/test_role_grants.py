"""Who may grant what, where."""

from typing import Any

import httpx

from api import ids
from api.models.role_grants import Role
from tests.factories import BAO_THANG, HA_NOI, LAO_CAI, MUONG_KHUONG, NATION, As, Province, make


async def person(admin: httpx.AsyncClient) -> str:
    body = {"password": "a long enough password", "full_name": "Người mới"}
    return str((await make(admin, "users", username=f"u.{ids.new_id()}", **body))["id"])


async def grant(who: httpx.AsyncClient, principal: str, role: str, **body: Any) -> httpx.Response:
    return await who.post("/v1/role-grants", json={"principal_id": principal, "role": role} | body)


async def test_grants_go_down_the_tree(as_: As) -> None:
    nation = await as_(Role.national_admin, at=NATION)
    someone = await person(nation)
    given = await grant(nation, someone, "province_admin", unit_id=str(LAO_CAI))
    assert given.status_code == 201
    assert given.headers["location"].endswith(given.json()["id"])
    province = await as_(Role.province_admin, at=LAO_CAI)
    officer = await grant(province, someone, "commune_admin", unit_id=str(MUONG_KHUONG))
    assert officer.status_code == 201
    listed = (await province.get("/v1/role-grants", params={"principal_id": someone})).json()
    assert {row["role"] for row in listed["items"]} == {"province_admin", "commune_admin"}
    elsewhere = await as_(Role.province_admin, at=HA_NOI)
    assert (await elsewhere.get("/v1/role-grants", params={"principal_id": someone})).json()[
        "items"
    ] == []
    assert (await elsewhere.get(f"/v1/role-grants/{given.json()['id']}")).status_code == 404


async def test_a_grantor_keeps_to_its_own_row(as_: As, lao_cai: Province) -> None:
    province = await as_(Role.province_admin, at=LAO_CAI)
    someone = await person(province)
    up = await grant(province, someone, "national_admin", unit_id=str(NATION))
    assert (up.status_code, up.json()["code"]) == (403, "insufficient_role")
    beside = await grant(province, someone, "commune_admin", unit_id=str(HA_NOI))
    absent = await grant(province, someone, "commune_admin", unit_id=str(ids.new_id()))
    assert beside.status_code == absent.status_code == 422
    assert beside.json()["errors"] == absent.json()["errors"]
    level = await grant(province, someone, "commune_admin", unit_id=str(LAO_CAI))
    assert level.json()["errors"][0]["code"] == "role_level"
    itself = await grant(
        province,
        str(province.principal_id),
        "commune_admin",
        unit_id=str(MUONG_KHUONG),
    )
    assert itself.json()["errors"][0]["code"] == "self_grant"
    nobody = await grant(province, str(ids.new_id()), "commune_admin", unit_id=str(MUONG_KHUONG))
    assert nobody.json()["errors"][0]["pointer"] == "/principal_id"
    officer = lao_cai.muong_khuong.admin
    team = {"unit_id": lao_cai.bao_thang.village["id"], "team_id": lao_cai.bao_thang.team["id"]}
    foreign = await grant(officer, someone, "team_leader", **team)
    assert foreign.json()["errors"][0]["pointer"] == "/unit_id"
    mixed = team | {"unit_id": lao_cai.muong_khuong.village["id"]}
    assert (await grant(officer, someone, "team_leader", **mixed)).json()["errors"][0][
        "pointer"
    ] == "/team_id"
    bare = {"unit_id": lao_cai.muong_khuong.village["id"]}
    assert (await grant(officer, someone, "team_leader", **bare)).status_code == 422


async def test_a_grant_acts_at_once_and_ends_at_once(lao_cai: Province) -> None:
    officer = lao_cai.muong_khuong.admin
    stranger = await lao_cai.country.sign_in()
    assert (await stranger.get("/v1/teams")).status_code == 403
    given = await grant(
        officer,
        str(stranger.principal_id),
        "team_leader",
        unit_id=lao_cai.muong_khuong.village["id"],
        team_id=lao_cai.muong_khuong.team["id"],
    )
    assert given.status_code == 201, given.text
    teams = (await stranger.get("/v1/teams")).json()["items"]
    assert [team["id"] for team in teams] == [lao_cai.muong_khuong.team["id"]]
    path = f"/v1/role-grants/{given.json()['id']}"
    assert (await officer.delete(path)).status_code == 428
    foreign = await lao_cai.bao_thang.admin.delete(path, headers={"If-Match": "*"})
    assert foreign.status_code == 404
    assert (await officer.delete(path, headers={"If-Match": '"1"'})).status_code == 204
    assert (await stranger.get("/v1/teams")).status_code == 403


async def test_a_grant_holds_between_its_days(as_: As) -> None:
    province = await as_(Role.province_admin, at=LAO_CAI)
    stranger = await as_()
    who = str(stranger.principal_id)
    over = {"valid_from": "2024-01-01", "valid_to": "2024-12-31"}
    for unit, days in ((MUONG_KHUONG, over), (BAO_THANG, {"valid_from": "2199-01-01"})):
        given = await grant(province, who, "commune_admin", unit_id=str(unit), **days)
        assert given.status_code == 201
    assert (await stranger.get("/v1/teams")).status_code == 403
    assert (await stranger.get("/v1/me")).json()["grants"] == []
    turned = {"valid_from": "2024-02-01", "valid_to": "2024-01-01"}
    refused = await grant(province, who, "commune_admin", unit_id=str(BAO_THANG), **turned)
    assert refused.json()["errors"][0]["code"] == "end_before_start"
