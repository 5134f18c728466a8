"""Members, over HTTP: who sees whom, and what of them."""

from typing import Any

import httpx

from api import clock, ids
from api.models.role_grants import Role
from tests.factories import HA_NOI, LAO_CAI, NATION, As, Place, Province, make
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
    unseen_by,
    upserted,
    walk,
)

PERSONAL = ("full_name", "birth_year", "phone")


def stay(place: Place, **changes: Any) -> dict[str, Any]:
    return {"team_id": place.team["id"], "role": "member", "joined_on": "2025-08-01"} | changes


def body(*places: Place, **changes: Any) -> dict[str, Any]:
    return {
        "full_name": "Sùng Thị Mỷ",
        "birth_year": 1980,
        "phone": "+84911111111",
        "memberships": [stay(place) for place in places],
    } | changes


def personal(member: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(member[name] for name in PERSONAL)


async def seen(client: httpx.AsyncClient, member_id: str) -> tuple[tuple[Any, ...], list[str]]:
    """Return what somebody sees of a person, the same in the list as alone."""
    member = await Row(client, "members", member_id).get()
    assert member in await walk(client, "members")
    return personal(member), member["masked"]


async def test_a_member_follows_the_rules_of_writing(lao_cai: Province) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    member = body(here)
    row = await created_once(here.admin, "members", member, body(here, full_name="Sùng A Páo"))
    theirs = await there.admin.post("/v1/members", json=body(there, id=row.id))
    assert problem(theirs) == (409, "id_conflict")
    assert len((await row.get())["memberships"]) == 1
    assert row.id not in await ids_in(there.admin, "members")
    await unseen_by(there.admin, row, full_name="Của tôi")
    change = {"full_name": "Sùng Thị Máy", "trained_on": "2025-09-01", "phone": None}
    await changed_on_its_version(row, change, "full_name")
    assert fault(await row.patch(memberships=[])) == (422, "/memberships", "extra_forbidden")
    await hidden_by_delete(row, member)
    await brought_back(row, there.admin)


async def test_simultaneous_writers_of_a_member(lao_cai: Province) -> None:
    place = lao_cai.muong_khuong
    await safe_at_once(place.admin, "members", body(place), lambda n: {"occupation": f"Nghề {n}"})


async def test_a_portal_upserts_its_members_with_their_stays(as_: As, lao_cai: Province) -> None:
    portal = await as_(Role.portal_client, at=LAO_CAI)
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    change = {"full_name": "Sùng A Páo", "is_youth_union_member": True}
    made = await upserted(portal, here.admin, "members", body(here), change)
    assert made["memberships"] == [stay(here, left_on=None)]

    url = "/v1/members/by-external-id/portal/12%2FQĐ"
    stays = [stay(here, role="deputy", left_on="2025-12-31"), stay(there, joined_on="2026-01-01")]
    moved = (await portal.put(url, json=body(here, memberships=stays))).json()
    assert moved["memberships"] == [stays[0], stays[1] | {"left_on": None}]
    same = await portal.put(url, json=body(here, memberships=stays))
    assert same.json() == moved
    overlapping = body(here, memberships=[stay(here, joined_on="2025-12-31")])
    refused = await portal.put(url, json=overlapping)
    assert fault(refused) == (409, "/memberships/0/joined_on", "overlapping")
    unknown = body(here, memberships=[stay(here, team_id=str(ids.new_id()))])
    refused = await portal.put(url, json=unknown)
    assert fault(refused) == (422, "/memberships/0/team_id", "not_found")
    assert (await Row(portal, "members", made["id"]).get()) == moved


async def test_a_person_joins_teams_of_the_writers_scope_only(lao_cai: Province) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    for given, pointer, code in (
        ([], "/memberships", "too_short"),
        ([stay(here), stay(there)], "/memberships/1/team_id", "not_found"),
        ([stay(here, team_id=str(ids.new_id()))], "/memberships/0/team_id", "not_found"),
        ([stay(here, joined_on="2025-07-01")], "/memberships/0/joined_on", "before_founding"),
        ([stay(here, left_on="2025-07-31")], "/memberships/0/left_on", "end_before_start"),
        ([stay(here, role="boss")], "/memberships/0/role", "enum"),
        ([stay(here), stay(here)], "/memberships/1/joined_on", "overlapping"),
        (
            [stay(here, left_on="2025-09-01"), stay(here, joined_on="2025-09-01")],
            "/memberships/1/joined_on",
            "overlapping",
        ),
        ([stay(here, typo=1)], "/memberships/0/typo", "extra_forbidden"),
    ):
        refused = await here.admin.post("/v1/members", json=body(memberships=given))
        assert fault(refused) == (422, pointer, code), given
    assert await ids_in(here.admin, "members") == {here.leader["id"]}
    for name, value, code in (
        ("phone", "0912345678", "string_pattern_mismatch"),
        ("birth_year", 1899, "greater_than_equal"),
        ("birth_year", "1990", "wrong_type"),
        ("full_name", " ", "string_too_short"),
        ("full_name", "a\u0000b", "control_character"),
        ("is_youth_union_member", 1, "wrong_type"),
        ("trained_on", "2025-02-30", "date_invalid"),
    ):
        refused = await here.admin.post("/v1/members", json=body(here) | {name: value})
        assert fault(refused)[:2] == (422, f"/{name}"), name
        assert fault(refused)[2] == code, name
    consecutive = [stay(here, left_on="2025-08-31"), stay(here, joined_on="2025-09-01")]
    twice = await make(here.admin, "members", **body(memberships=consecutive))
    assert [s["joined_on"] for s in twice["memberships"]] == ["2025-08-01", "2025-09-01"]


async def test_personal_fields_are_masked_by_role(as_: As, lao_cai: Province) -> None:
    place = lao_cai.muong_khuong
    leader = place.leader["id"]
    clear: tuple[Any, list[str]] = (personal(place.leader), [])
    hidden = ((None, None, None), ["birth_year", "full_name", "phone"])
    named = ((place.leader["full_name"], None, None), ["birth_year", "phone"])
    for client, expected in (
        (place.admin, clear),
        (await lao_cai.leader_of(place), clear),
        (await as_(Role.province_admin, at=LAO_CAI), hidden),
        (await as_(Role.national_admin, at=NATION), hidden),
        (await as_(Role.auditor, at=LAO_CAI), hidden),
        (await as_(Role.portal_client, at=LAO_CAI), hidden),
        (await as_(Role.youth_coordinator, at=LAO_CAI), named),
        (await as_(Role.youth_coordinator, Role.commune_admin, at=place.unit_id), clear),
    ):
        assert await seen(client, leader) == expected
    for role in (Role.ioc_reader, Role.partner):
        client = await as_(role, at=LAO_CAI)
        assert problem(await client.get("/v1/members")) == (403, "insufficient_role")
    member = await lao_cai.country.sign_in(
        Role.team_member, at=place.unit_id, team=place.team["id"], member=leader
    )
    assert problem(await member.get("/v1/members")) == (403, "insufficient_role")

    portal = await as_(Role.portal_client, at=LAO_CAI)
    own = await make(portal, "members", **body(place))
    assert await seen(portal, own["id"]) == (personal(body(place)), [])
    other = await as_(Role.portal_client, at=LAO_CAI)
    assert await seen(other, own["id"]) == hidden
    nobody = await make(place.admin, "members", full_name="Ẩn", memberships=[stay(place)])
    assert (await seen(portal, nobody["id"]))[1] == ["full_name"]


async def test_a_masked_field_is_overwritten_but_never_guessed(as_: As, lao_cai: Province) -> None:
    place = lao_cai.muong_khuong
    province = Row(await as_(Role.province_admin, at=LAO_CAI), "members", place.leader["id"])
    right = await province.patch('"1"', phone=place.leader["phone"])
    wrong = await province.patch('"2"', phone="+84900000000")
    assert [answer.json()["version"] for answer in (right, wrong)] == [2, 3]
    assert right.json()["phone"] is None
    stale = await province.patch('"1"', phone=None)
    assert stale.json()["current"]["masked"] == ["birth_year", "full_name", "phone"]
    officer = Row(place.admin, "members", place.leader["id"])
    assert (await officer.get())["phone"] == "+84900000000"
    assert (await province.patch(phone=None)).json()["masked"] == ["birth_year", "full_name"]
    assert (await officer.get())["phone"] is None
    coordinator = Row(await as_(Role.youth_coordinator, at=LAO_CAI), "members", place.leader["id"])
    assert problem(await coordinator.patch(occupation="X")) == (403, "insufficient_role")


async def test_youth_is_a_union_member_or_aged_16_to_30(lao_cai: Province) -> None:
    place, year = lao_cai.muong_khuong, clock.today().year
    for given, expected in (
        ({"birth_year": year - 15}, False),
        ({"birth_year": year - 16}, True),
        ({"birth_year": year - 30}, True),
        ({"birth_year": year - 31}, False),
        ({"birth_year": year - 31, "is_youth_union_member": True}, True),
        ({"birth_year": None, "is_youth_union_member": True}, True),
        ({"birth_year": None}, None),
    ):
        member = await make(place.admin, "members", **body(place, **given))
        assert member["is_youth"] is expected, given
    refused = await place.admin.post("/v1/members", json=body(place, is_youth=True))
    assert fault(refused) == (422, "/is_youth", "extra_forbidden")


async def test_a_member_of_two_communes_is_seen_by_both_each_with_its_own_stays(
    as_: As, lao_cai: Province
) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    province = await as_(Role.province_admin, at=LAO_CAI)
    member = await make(province, "members", **body(here, there))
    assert {s["team_id"] for s in member["memberships"]} == {here.team["id"], there.team["id"]}
    for place in (here, there):
        row = Row(place.admin, "members", member["id"])
        mine = await row.get()
        assert mine["memberships"] == [stay(place, left_on=None)]
        assert personal(mine) == personal(body())
        assert (await row.patch(occupation=place.unit_id.hex)).status_code == 200
        assert member["id"] in await ids_in(place.admin, "members", team_id=place.team["id"])
    assert await ids_in(here.admin, "members", team_id=there.team["id"]) == set()
    assert await ids_in(here.admin, "members", unit_id=str(there.unit_id)) == set()
    assert (await Row(there.admin, "members", member["id"]).get())["version"] == 3

    assert await ids_in(province, "members", unit_id=str(LAO_CAI)) == {
        here.leader["id"],
        there.leader["id"],
        member["id"],
    }
    assert await ids_in(province, "members", unit_id=here.village["id"]) == {
        here.leader["id"],
        member["id"],
    }
    assert await ids_in(province, "members", unit_id=str(HA_NOI)) == set()
    total = (await province.get("/v1/members?include_total=true&limit=1")).json()
    assert (total["total"], len(total["items"])) == (3, 1)
    assert len(await walk(province, "members", limit=1)) == 3
    leader = await lao_cai.leader_of(there)
    assert (await Row(leader, "members", member["id"]).get())["memberships"] == [
        stay(there, left_on=None)
    ]
    assert problem(await Row(leader, "members", member["id"]).patch(phone=None)) == (
        403,
        "insufficient_role",
    )


async def test_an_external_id_names_one_member(as_: As, lao_cai: Province) -> None:
    portal = await as_(Role.portal_client, at=LAO_CAI)
    place = lao_cai.muong_khuong
    first = await make(portal, "members", **body(place, external_ids={"p": "1"}))
    taken = await portal.post("/v1/members", json=body(place, external_ids={"p": "1"}))
    assert fault(taken) == (409, "/external_ids/p", "taken")
    assert len(await ids_in(portal, "members")) == 3  # nothing of the refused one was written
    assert await ids_in(portal, "members", external_id="p:1") == {first["id"]}
    assert await ids_in(place.admin, "members", external_id="p:1") == {first["id"]}
    assert await ids_in(lao_cai.bao_thang.admin, "members", external_id="p:1") == set()
