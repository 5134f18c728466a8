"""Teams, over HTTP."""

import asyncio
from typing import Any

import httpx

from api import ids
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
    Place,
    Province,
    make,
)
from tests.rules import (
    Row,
    brought_back,
    changed_on_its_version,
    created_once,
    fault,
    hidden_by_delete,
    ids_in,
    problem,
    safe_at_once,
    same_answer,
    unseen_by,
    upserted,
    walk,
)


def body(place: Place, **changes: Any) -> dict[str, Any]:
    return {
        "name": "Tổ Lùng Vai",
        "unit_id": place.village["id"],
        "kind": "community_team",
        "founded_on": "2025-08-01",
    } | changes


async def moved(row: Row, unit_id: Any) -> httpx.Response:
    return await row.patch(unit_id=str(unit_id))


async def test_a_commune_officer_does_not_see_the_next_commune(as_: As, lao_cai: Province) -> None:
    officer = await as_(Role.commune_admin, at=lao_cai.muong_khuong.unit_id)
    mine = await officer.get(f"/v1/teams/{lao_cai.muong_khuong.team['id']}")
    assert mine.status_code == 200
    foreign = await officer.get(f"/v1/teams/{lao_cai.bao_thang.team['id']}")
    assert foreign.status_code == 404


async def test_the_dashboard_of_one_record(lao_cai: Province) -> None:
    leader = await lao_cai.leader_of(lao_cai.muong_khuong)
    event = await make(leader, "support-events", **lao_cai.muong_khuong.event())
    assert event["status"] == "submitted"
    again = await leader.get(f"/v1/support-events/{event['id']}")
    assert again.json() == event


async def test_a_team_follows_the_rules_of_writing(lao_cai: Province) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    team = body(here)
    # the stranger's own body names the stranger's own village, the answer is the same
    stranger_body = body(there, name="Tổ khác")
    row = await created_once(here.admin, "teams", team, body(here, name="Tổ Lùng Vai 2"))
    mine = await here.admin.post("/v1/teams", json=body(here, name="Khác", id=row.id))
    theirs = await there.admin.post("/v1/teams", json=stranger_body | {"id": row.id})
    assert same_answer(mine, theirs)
    await unseen_by(there.admin, row, name="Của tôi")
    change = {"name": "Tổ Nấm Lư", "zalo_group_url": "https://zalo.me/g/abc"}
    await changed_on_its_version(row, change, "name")
    await hidden_by_delete(row, team)
    await brought_back(row, there.admin)


async def test_simultaneous_writers_of_a_team(lao_cai: Province) -> None:
    admin = lao_cai.muong_khuong.admin
    await safe_at_once(
        admin, "teams", body(lao_cai.muong_khuong), lambda n: {"decision_number": f"{n}/QĐ"}
    )


async def test_a_portal_upserts_its_teams(as_: As, lao_cai: Province) -> None:
    portal = await as_(Role.portal_client, at=LAO_CAI)
    officer = lao_cai.muong_khuong.admin
    change = {"name": "Tổ Na Đẩy 3", "dissolved_on": "2026-01-31"}
    team = await upserted(portal, officer, "teams", body(lao_cai.muong_khuong), change)

    row = Row(portal, "teams", team["id"])
    again = await portal.put(
        "/v1/teams/by-external-id/portal/12%2FQĐ", json=body(lao_cai.bao_thang)
    )
    assert again.json()["unit_id"] == lao_cai.bao_thang.village["id"]
    abroad = await portal.put(
        "/v1/teams/by-external-id/portal/99",
        json=body(lao_cai.bao_thang, unit_id=str(HA_NOI)),
    )
    assert fault(abroad)[0] == 422
    assert await ids_in(portal, "teams", external_id="portal:99") == set()
    reader = await as_(Role.auditor, at=LAO_CAI)
    refused = await reader.put("/v1/teams/by-external-id/a/1", json=body(lao_cai.bao_thang))
    assert problem(refused) == (403, "insufficient_role")
    assert (await row.get())["kind"] == "community_team"


async def test_an_external_id_names_one_team_and_its_system_one_client(
    as_: As, lao_cai: Province
) -> None:
    portal = await as_(Role.portal_client, at=LAO_CAI)
    place = lao_cai.muong_khuong
    first = await make(portal, "teams", **body(place, external_ids={"p": "1", "q": "x:y"}))
    taken = await portal.post("/v1/teams", json=body(place, external_ids={"p": "1"}))
    assert fault(taken) == (409, "/external_ids/p", "taken")
    assert problem(taken) == (409, "external_id_conflict")
    foreign = await place.admin.post("/v1/teams", json=body(place, external_ids={"p": "2"}))
    assert problem(foreign) == (409, "external_id_conflict")
    await make(
        portal, "households", unit_id=place.village["id"], head_name="A", external_ids={"p": "1"}
    )

    second = Row(portal, "teams", (await make(portal, "teams", **body(place)))["id"])
    assert problem(await second.patch(external_ids={"p": "1"})) == (409, "external_id_conflict")
    both = await second.patch(external_ids={"p": "2", "q": "z"})
    assert both.json()["external_ids"] == {"p": "2", "q": "z"}
    merged = await second.patch(external_ids={"q": None})  # RFC 7396: null takes one back
    assert merged.json()["external_ids"] == {"p": "2"}
    same = await second.patch(external_ids={"p": "2", "absent": None})
    assert same.headers["ETag"] == merged.headers["ETag"]
    assert await ids_in(portal, "teams", external_id="q:x:y") == {first["id"]}
    named = await ids_in(portal, "teams", external_id=["p:1", "p:2", "p:3"])
    assert named == {first["id"], second.id}
    assert await ids_in(portal, "teams", external_id="q:z") == set()

    officer = Row(place.admin, "teams", second.id)
    own = await officer.patch(external_ids={"xa": "7"})
    assert own.json()["external_ids"] == {"p": "2", "xa": "7"}
    for change in ({"p": None}, {"p": "3"}):
        assert problem(await officer.patch(external_ids=change)) == (409, "external_id_conflict")
    many = {f"s{n}": "1" for n in range(9)}
    assert fault(await second.patch(external_ids=many)) == (422, "/external_ids", "too_long")


async def test_of_simultaneous_claims_of_an_external_id_one_is_taken(
    as_: As, lao_cai: Province
) -> None:
    portal = await as_(Role.portal_client, at=LAO_CAI)
    team = body(lao_cai.muong_khuong, external_ids={"p": "1"})
    sent = await asyncio.gather(*(portal.post("/v1/teams", json=team) for _ in range(8)))
    assert sorted(answer.status_code for answer in sent) == [201] + [409] * 7
    assert len(await ids_in(portal, "teams", external_id="p:1")) == 1


async def test_a_team_is_founded_where_its_unit_stood_on_the_day(
    lao_cai: Province,
) -> None:
    officer = lao_cai.muong_khuong.admin
    old = await make(
        officer,
        "teams",
        **body(lao_cai.muong_khuong, unit_id=str(OLD_MUONG_KHUONG)) | {"founded_on": "2022-06-01"},
    )
    assert old["unit_id"] == str(OLD_MUONG_KHUONG)
    late = body(lao_cai.muong_khuong, unit_id=str(OLD_MUONG_KHUONG))
    gone = await officer.post("/v1/teams", json=late)
    assert problem(gone) == (409, "unit_dissolved")
    assert [heir["unit_id"] for heir in gone.json()["successors"]] == [str(MUONG_KHUONG)]
    early = body(lao_cai.muong_khuong, founded_on="2022-06-01", unit_id=str(MUONG_KHUONG))
    assert fault(await officer.post("/v1/teams", json=early)) == (422, "/unit_id", "before_unit")
    for unit_id in (HA_NOI, lao_cai.bao_thang.village["id"], ids.new_id()):
        foreign = body(lao_cai.muong_khuong, unit_id=str(unit_id))
        assert fault(await officer.post("/v1/teams", json=foreign))[:2] == (422, "/unit_id")
    at_province = body(lao_cai.muong_khuong, unit_id=str(LAO_CAI))
    refused = await officer.post("/v1/teams", json=at_province)
    assert fault(refused) == (422, "/unit_id", "wrong_level")
    ended = body(lao_cai.muong_khuong, dissolved_on="2025-07-31")
    refused = await officer.post("/v1/teams", json=ended)
    assert fault(refused) == (422, "/dissolved_on", "end_before_start")
    required = await officer.post("/v1/teams", json={})
    assert [(e["pointer"], e["code"]) for e in required.json()["errors"]] == [
        (f"/{name}", "missing") for name in ("name", "kind", "founded_on", "unit_id")
    ]

    # The old units, and the old province, still find what lies there today.
    team = lao_cai.muong_khuong.team["id"]
    for unit_id in (OLD_MUONG_KHUONG, OLD_LAO_CAI, MUONG_KHUONG, LAO_CAI, NATION):
        assert old["id"] in await ids_in(officer, "teams", unit_id=str(unit_id)), unit_id
    for unit_id in (lao_cai.muong_khuong.village["id"], MUONG_KHUONG, LAO_CAI, OLD_LAO_CAI):
        assert team in await ids_in(officer, "teams", unit_id=str(unit_id)), unit_id
    for unit_id in (OLD_PHO_LU, HA_NOI, ids.new_id()):
        assert await ids_in(officer, "teams", unit_id=str(unit_id)) == set()


async def test_teams_are_filtered_sorted_and_counted(as_: As, lao_cai: Province) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    province = await as_(Role.province_admin, at=LAO_CAI)
    squad = await make(
        here.admin,
        "teams",
        **body(here, name="đội Á 100%", kind="core_squad", dissolved_on="2025-12-31"),
    )
    everything = {here.team["id"], there.team["id"], squad["id"]}
    for query, wanted in (
        ({}, everything),
        ({"q": "na day"}, {here.team["id"]}),
        ({"q": "NA ĐẨY"}, {here.team["id"]}),
        ({"q": "Đội a"}, {squad["id"]}),
        ({"q": "0%"}, {squad["id"]}),
        ({"q": "_"}, set()),
        ({"q": "\\"}, set()),
        ({"kind": "core_squad"}, {squad["id"]}),
        ({"kind": ["core_squad", "community_team"]}, everything),
        ({"active_on": "2025-07-01"}, set()),
        ({"active_on": "2025-07-02"}, {here.team["id"], there.team["id"]}),
        ({"active_on": "2025-12-31"}, everything),
        ({"active_on": "2026-01-01"}, {here.team["id"], there.team["id"]}),
        ({"unit_id": [here.village["id"], there.village["id"]]}, everything),
        ({"unit_id": here.village["id"], "kind": "community_team"}, {here.team["id"]}),
    ):
        assert await ids_in(province, "teams", **query) == wanted, query

    names = [team["name"] for team in await walk(province, "teams", sort="-name", limit=1)]
    assert names == [there.team["name"], here.team["name"], "đội Á 100%"]
    assert names[::-1] == [team["name"] for team in await walk(province, "teams", sort="name")]
    days = [t["founded_on"] for t in await walk(province, "teams", sort="-founded_on", limit=2)]
    assert days == ["2025-08-01", "2025-07-02", "2025-07-02"]
    page = (await province.get("/v1/teams?limit=1&include_total=true&kind=community_team")).json()
    assert (len(page["items"]), page["total"]) == (1, 2)
    assert (await province.get("/v1/teams")).json()["total"] is None

    for query, refusal in (
        ({"limit": 0}, ("/query/limit", "greater_than_equal")),
        ({"limit": 201}, ("/query/limit", "less_than_equal")),
        ({"sort": "kind"}, ("/query/sort", "enum")),
        ({"kind": "club"}, ("/query/kind/0", "enum")),
        ({"active_on": "2025-7-1"}, ("/query/active_on", "date_invalid")),
        ({"unit_id": "x"}, ("/query/unit_id/0", "uuid_invalid")),
        ({"external_id": "x"}, ("/query/external_id/0", "string_pattern_mismatch")),
    ):
        assert fault(await province.get("/v1/teams", params=query)) == (422, *refusal), query


async def test_walking_shows_each_team_once_while_others_write(lao_cai: Province) -> None:
    here = lao_cai.muong_khuong
    stood = {here.team["id"]}
    for n in range(6):
        stood.add((await make(here.admin, "teams", **body(here, name=f"Tổ {n}")))["id"])
    for query in ({"sort": "name"}, {"sort": "-founded_on"}, {}):
        response = await here.admin.get("/v1/teams", params={"limit": 2, **query})
        first = response.json()["next_cursor"]
        seen = [item["id"] for item in response.json()["items"]]
        while "next" in response.links:
            await make(here.admin, "teams", **body(here, name=f"Tổ {len(seen) % 5}b"))
            response = await here.admin.get(response.links["next"]["url"])
            seen += [item["id"] for item in response.json()["items"]]
        assert len(seen) == len(set(seen))
        assert stood <= set(seen)

        good = {"limit": 1, "cursor": first, **query}
        assert (await here.admin.get("/v1/teams", params=good)).status_code == 200
        for bad in (
            {"cursor": first.swapcase()},
            {"cursor": first[:-3]},
            {"cursor": "rubbish"},
            {"cursor": ""},
            {"kind": "core_squad"},
            {"sort": "-name"},
        ):
            answer = await here.admin.get("/v1/teams", params=good | bad)
            assert problem(answer) == (400, "cursor_invalid"), bad
        elsewhere = await here.admin.get("/v1/households", params={"cursor": first})
        assert problem(elsewhere) == (400, "cursor_invalid")


async def test_a_cursor_carries_no_authority(as_: As, lao_cai: Province) -> None:
    province = await as_(Role.province_admin, at=LAO_CAI)
    page = (await province.get("/v1/teams?limit=1")).json()
    officer = lao_cai.bao_thang.admin
    rest = await officer.get("/v1/teams", params={"limit": 1, "cursor": page["next_cursor"]})
    assert {item["id"] for item in rest.json()["items"]} <= {lao_cai.bao_thang.team["id"]}


async def test_a_leader_changes_the_zalo_link_only(as_: As, lao_cai: Province) -> None:
    place = lao_cai.muong_khuong
    leader = await lao_cai.leader_of(place)
    row = Row(leader, "teams", place.team["id"])
    linked = await row.patch(zalo_group_url="https://zalo.me/g/x", name=place.team["name"])
    assert (linked.status_code, linked.json()["zalo_group_url"]) == (200, "https://zalo.me/g/x")
    for change in ({"name": "Khác"}, {"zalo_group_url": None, "dissolved_on": "2026-01-01"}):
        assert problem(await row.patch(**change)) == (403, "insufficient_role")
    assert problem(await row.delete()) == (403, "insufficient_role")
    assert problem(await row.undelete()) == (403, "insufficient_role")
    assert problem(await leader.post("/v1/teams", json=body(place))) == (403, "insufficient_role")
    assert await ids_in(leader, "teams") == {place.team["id"]}
    assert (await row.patch(zalo_group_url="http://zalo.me/g/x")).status_code == 422
    assert (await Row(leader, "teams", lao_cai.bao_thang.team["id"]).patch()).status_code == 404
    auditor = await as_(Role.auditor, at=LAO_CAI)
    read_only = Row(auditor, "teams", place.team["id"])
    assert (await read_only.get())["leader_id"] == place.leader["id"]
    assert problem(await read_only.patch(name="Khác")) == (403, "insufficient_role")
    mixed = await as_(Role.auditor, at=LAO_CAI)
    await lao_cai.country.grant(mixed.principal_id, Role.commune_admin, MUONG_KHUONG)
    readable = Row(mixed, "teams", lao_cai.bao_thang.team["id"])
    assert [a.status_code for a in (await readable.patch(name="X"), await readable.delete())] == [
        403,
        403,
    ]
    assert problem(await readable.undelete()) == (403, "insufficient_role")
    dashboard = await as_(Role.ioc_reader, at=LAO_CAI)
    assert problem(await dashboard.get("/v1/teams")) == (403, "insufficient_role")


async def test_a_team_moves_with_its_members_and_events(as_: As, lao_cai: Province) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    leader = await lao_cai.leader_of(here)
    event = await make(leader, "support-events", **here.event())
    repeat = body(here, id=str(ids.new_id()))
    await make(here.admin, "teams", **repeat)
    province = await as_(Role.province_admin, at=LAO_CAI)
    for unit_id in (there.village["id"], HA_NOI):  # an officer moves nothing beyond the commune
        refused = await moved(Row(here.admin, "teams", here.team["id"]), unit_id)
        assert fault(refused)[:2] == (422, "/unit_id")

    moved_team = await moved(Row(province, "teams", here.team["id"]), there.village["id"])
    assert moved_team.status_code == 200, moved_team.text
    assert moved_team.json()["unit_id"] == there.village["id"]
    paths = (
        f"/v1/teams/{here.team['id']}",
        f"/v1/members/{here.leader['id']}",
        f"/v1/support-events/{event['id']}",
    )
    assert [(await there.admin.get(path)).status_code for path in paths] == [200, 200, 200]
    # the event stays readable where it happened
    assert [(await here.admin.get(path)).status_code for path in paths] == [404, 404, 200]
    assert await ids_in(there.admin, "members") == {here.leader["id"], there.leader["id"]}
    assert (await leader.get(paths[0])).status_code == 200
    back = await moved(Row(province, "teams", here.team["id"]), here.village["id"])
    assert back.status_code == 200
    assert [(await there.admin.get(path)).status_code for path in paths] == [404, 404, 404]
    assert [(await here.admin.get(path)).status_code for path in paths] == [200, 200, 200]


async def test_a_create_repeated_after_its_village_is_gone_is_still_the_same(
    lao_cai: Province,
) -> None:
    place = lao_cai.muong_khuong
    village = await make(
        place.admin,
        "admin-units",
        level="village",
        name="Thôn tạm",
        type="thôn",
        parent_id=str(place.unit_id),
        valid_from="2025-07-01",
    )
    team = body(place, unit_id=village["id"], id=str(ids.new_id()))
    made = await make(place.admin, "teams", **team)
    assert (await Row(place.admin, "admin-units", village["id"]).delete()).status_code in {204, 409}
    again = await place.admin.post("/v1/teams", json=team)
    assert (again.status_code, again.json()) == (200, made)


async def test_size_and_leader_are_todays(lao_cai: Province) -> None:
    place = lao_cai.muong_khuong
    team = Row(place.admin, "teams", place.team["id"])
    assert [(await team.get())[name] for name in ("member_count", "leader_id")] == [
        1,
        place.leader["id"],
    ]
    stays = [{"team_id": team.id, "joined_on": "2025-09-01"}]
    other = await make(place.admin, "members", full_name="B", memberships=stays)
    later = [{"team_id": team.id, "joined_on": "2199-01-01", "role": "leader"}]
    await make(place.admin, "members", full_name="C", memberships=later)
    assert (await team.get())["member_count"] == 2
    assert (await Row(place.admin, "members", other["id"]).delete()).status_code == 204
    assert (await team.get())["member_count"] == 1
    assert (await Row(place.admin, "members", place.leader["id"]).delete()).status_code == 204
    assert (await team.get())["leader_id"] is None


async def test_a_moved_team_takes_its_leader_to_the_households_there(lao_cai: Province) -> None:
    place = lao_cai.muong_khuong
    other = await make(
        place.admin,
        "admin-units",
        level="village",
        name="Thôn Mới",
        type="thôn",
        parent_id=str(place.unit_id),
        valid_from="2025-07-01",
    )
    household = await make(place.admin, "households", unit_id=other["id"], head_name="Hộ mới")
    leader = await lao_cai.leader_of(place)
    moved = await place.admin.patch(
        f"/v1/teams/{place.team['id']}", json={"unit_id": other["id"]}, headers={"If-Match": "*"}
    )
    assert moved.status_code == 200, moved.text
    seen = (await leader.get("/v1/households")).json()["items"]
    assert [row["id"] for row in seen] == [household["id"]]
