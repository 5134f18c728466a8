"""Units that are gone, in each field that names one: taken until their last day, then refused."""

from typing import Any

import httpx
import pytest

from api import ids
from api.models.role_grants import Role
from tests.factories import (
    BAO_THANG,
    LAO_CAI,
    MUONG_KHUONG,
    OLD_LAO_CAI,
    OLD_MUONG_KHUONG,
    OLD_PHO_LU,
    As,
    Province,
    make,
)
from tests.timeline import dated, figures, listed

LAST, FIRST = "2025-06-30", "2025-07-01"
HEIR = {"unit_id": str(MUONG_KHUONG), "code": "02761", "name": "Xã Mường Khương"}
BAO_THANG_DISTRICT = ids.official_unit_id("district", "086")
MERGED_ON = "2026-03-01"


@pytest.fixture
async def portal(as_: As, lao_cai: Province) -> httpx.AsyncClient:
    return await as_(Role.portal_client, at=lao_cai.unit_id)


@pytest.fixture
async def old_team(portal: httpx.AsyncClient) -> dict[str, Any]:
    """A team of the old commune of Mường Khương."""
    return await make(portal, "teams", **team())


@pytest.fixture
async def merged(lao_cai: Province, as_: As) -> tuple[str, str]:
    """Return a village that was merged on 2026-03-01, and its successor."""
    second = await make(
        lao_cai.muong_khuong.admin, "admin-units", level="village", name="Thôn Hai", type="thôn",
        parent_id=str(MUONG_KHUONG), valid_from=FIRST,
    )  # fmt: skip
    made = await make(
        await as_(Role.province_admin, at=LAO_CAI),
        "reorganisations",
        effective_on=MERGED_ON,
        document={"number": "1/NQ", "issued_on": "2026-01-15", "issuer": "HĐND"},
        changes=[
            {
                "kind": "merge",
                "from_ids": [lao_cai.muong_khuong.village["id"], second["id"]],
                "to": {"level": "village", "name": "Thôn Chung", "type": "thôn"},
            }
        ],
    )
    return second["id"], made["unit_ids"][0]


def team(**changes: Any) -> dict[str, Any]:
    return {
        "name": "Tổ xã",
        "unit_id": str(OLD_MUONG_KHUONG),
        "kind": "core_squad",
        "founded_on": "2025-03-01",
    } | changes


def event(team_id: str, day: str, time: str = "09:00:00", **changes: Any) -> dict[str, Any]:
    return {
        "team_id": team_id,
        "service_type": "ID.ACTIVATE",
        "occurred_at": dated(day, time),
        "outcome": "completed",
        "mode": "assisted",
        "channel": "market",
    } | changes


def check_gone(refusal: dict[str, Any], pointer: str, *heirs: dict[str, Any]) -> None:
    assert (refusal["status"], refusal["code"]) == (409, "unit_dissolved"), refusal
    assert [(e["pointer"], e["code"]) for e in refusal["errors"]] == [(pointer, "unit_dissolved")]
    assert refusal["successors"] == list(heirs)


async def test_an_events_unit_and_its_teams_unit(
    portal: httpx.AsyncClient, old_team: dict[str, Any], lao_cai: Province
) -> None:
    for unit in ({}, {"unit_id": str(OLD_MUONG_KHUONG)}):
        late = await portal.post(
            "/v1/support-events", json=event(old_team["id"], FIRST, "00:00:00", **unit)
        )
        check_gone(late.json(), "/unit_id", HEIR)
        in_utc = {"occurred_at": "2025-06-30T16:59:59Z"}
        made = await make(portal, "support-events", **event(old_team["id"], LAST, **unit) | in_utc)
        assert made["unit_id"] == str(OLD_MUONG_KHUONG)
    went_on = event(old_team["id"], FIRST, "00:00:00", unit_id=str(MUONG_KHUONG))
    assert (await make(portal, "support-events", **went_on))["unit_id"] == str(MUONG_KHUONG)
    elsewhere = event(old_team["id"], FIRST, unit_id=str(BAO_THANG_DISTRICT))
    refusal = (await portal.post("/v1/support-events", json=elsewhere)).json()
    assert refusal["code"] == "unit_dissolved"
    assert str(BAO_THANG) in {heir["unit_id"] for heir in refusal["successors"]}
    young = event(lao_cai.muong_khuong.team["id"], "2025-08-01", unit_id=str(OLD_PHO_LU))
    refusal = (await portal.post("/v1/support-events", json=young)).json()
    assert [heir["code"] for heir in refusal["successors"]] == ["02905"]


async def test_correcting_an_event_across_the_border(
    portal: httpx.AsyncClient, old_team: dict[str, Any], lao_cai: Province
) -> None:
    async def correct(made: dict[str, Any], **change: Any) -> httpx.Response:
        path = f"/v1/support-events/{made['id']}"
        return await portal.patch(path, json=change, headers={"If-Match": "*"})

    old = await make(portal, "support-events", **event(old_team["id"], "2025-06-15"))
    check_gone((await correct(old, occurred_at=dated(FIRST, "00:00:00"))).json(), "/unit_id", HEIR)
    assert (await correct(old, occurred_at=dated(LAST, "23:59:59"))).status_code == 200
    moved = await correct(old, occurred_at=dated(FIRST), unit_id=str(MUONG_KHUONG))
    assert (moved.status_code, moved.json()["unit_id"]) == (200, str(MUONG_KHUONG))
    back = await correct(old, occurred_at=dated(LAST))
    assert back.status_code == 422
    assert back.json()["errors"][0] | {"message": ""} == {
        "pointer": "/unit_id", "code": "before_unit", "message": "",
        "params": {"valid_from": FIRST},
    }  # fmt: skip
    check_gone((await correct(old, unit_id=str(OLD_MUONG_KHUONG))).json(), "/unit_id", HEIR)
    home = await correct(old, occurred_at=dated(LAST), unit_id=str(OLD_MUONG_KHUONG))
    assert home.status_code == 200
    # a village stands on both sides: the event's commune is that of its day
    village = await make(
        lao_cai.muong_khuong.admin, "admin-units", level="village", name="Thôn Cũ", type="thôn",
        parent_id=str(OLD_MUONG_KHUONG), valid_from="2024-01-01",
    )  # fmt: skip
    there = await make(
        portal, "support-events", **event(old_team["id"], LAST, unit_id=village["id"])
    )
    recorded = {"unit_id": str(OLD_LAO_CAI), "level": "commune", "boundary": "as_recorded"}
    nation_wide = {"period": "2025-06-01/2025-07-31"} | recorded
    assert await figures(portal, **nation_wide) == {OLD_MUONG_KHUONG: 2}
    assert (await correct(there, occurred_at=dated(FIRST))).status_code == 200
    assert await figures(portal, **nation_wide) == {OLD_MUONG_KHUONG: 1}
    nation_wide["unit_id"] = str(LAO_CAI)
    assert await figures(portal, **nation_wide) == {MUONG_KHUONG: 1}


async def test_in_a_batch_the_item_alone_fails(
    portal: httpx.AsyncClient, old_team: dict[str, Any], lao_cai: Province, merged: tuple[str, str]
) -> None:
    def create(data: dict[str, Any]) -> dict[str, Any]:
        return {"op": "create", "id": str(ids.new_id()), "data": data}

    gone, heir = merged
    kept = await make(portal, "support-events", **event(old_team["id"], "2025-06-15"))
    sent = {
        "teams": [create(team(founded_on=LAST)), create(team(founded_on=FIRST))],
        "households": [
            create({"unit_id": gone, "head_name": "Hộ cũ"}),
            create({"unit_id": heir, "head_name": "Hộ mới"}),
        ],
        "support_events": [
            create(event(old_team["id"], LAST)),
            create(event(old_team["id"], FIRST)),
            create(event(old_team["id"], FIRST, unit_id=lao_cai.muong_khuong.village["id"])),
            {"op": "update", "id": kept["id"], "if_match": '"1"',
             "data": {"occurred_at": dated(FIRST)}},
        ],
    }  # fmt: skip
    for again in (False, True):
        response = await portal.post("/v1/batch", json=sent)
        assert response.status_code == 207, response.text
        results: dict[str, list[dict[str, Any]]] = {}
        for result in response.json()["results"]:
            results.setdefault(result["resource"], []).append(result)
        assert {name: [r["status"] for r in found] for name, found in results.items()} == {
            "teams": [200 if again else 201, 409],
            "households": [409, 200 if again else 201],
            "support_events": [200 if again else 201, 409, 200 if again else 201, 409],
        }
        check_gone(results["teams"][1]["problem"], "/unit_id", HEIR)
        check_gone(results["support_events"][1]["problem"], "/unit_id", HEIR)
        check_gone(results["support_events"][3]["problem"], "/unit_id", HEIR)
        in_village = {"unit_id": heir, "code": None, "name": "Thôn Chung"}
        check_gone(results["households"][0]["problem"], "/unit_id", in_village)


async def test_a_teams_unit_and_founding_day(
    portal: httpx.AsyncClient, old_team: dict[str, Any]
) -> None:
    refused = await portal.post("/v1/teams", json=team(founded_on=FIRST))
    check_gone(refused.json(), "/unit_id", HEIR)
    upsert = "/v1/teams/by-external-id/so.tt/t1"
    check_gone((await portal.put(upsert, json=team(founded_on=FIRST))).json(), "/unit_id", HEIR)
    assert (await portal.put(upsert, json=team(founded_on=LAST))).status_code == 201
    path, any_version = f"/v1/teams/{old_team['id']}", {"If-Match": "*"}

    async def patch(**change: Any) -> httpx.Response:
        return await portal.patch(path, json=change, headers=any_version)

    check_gone((await patch(founded_on=FIRST)).json(), "/unit_id", HEIR)
    assert (await patch(founded_on=LAST)).status_code == 200
    over = await patch(founded_on=FIRST, unit_id=str(MUONG_KHUONG))
    assert (over.status_code, over.json()["unit_id"]) == (200, str(MUONG_KHUONG))
    check_gone((await patch(unit_id=str(OLD_MUONG_KHUONG))).json(), "/unit_id", HEIR)
    early = (await patch(founded_on=LAST)).json()
    assert [(e["pointer"], e["code"]) for e in early["errors"]] == [("/unit_id", "before_unit")]
    # other fields of a team whose unit is gone are its own
    assert (await patch(founded_on=LAST, unit_id=str(OLD_MUONG_KHUONG))).status_code == 200
    renamed = await patch(name="Tổ đổi tên", dissolved_on="2026-01-01")
    assert (renamed.status_code, renamed.json()["unit_id"]) == (200, str(OLD_MUONG_KHUONG))


async def test_stays_follow_their_team_through_the_reform(
    portal: httpx.AsyncClient, old_team: dict[str, Any]
) -> None:
    stay = {"team_id": old_team["id"], "role": "member"}
    for day in (LAST, FIRST, "2026-02-01"):
        joined = [stay | {"joined_on": day}]
        person = await make(portal, "members", full_name="Vàng A", memberships=joined)
        path = f"/v1/memberships/{old_team['id']}/{person['id']}"
        role = {"role": "deputy", "joined_on": "2026-03-01"}
        assert (await portal.put(path, json=role)).status_code == 201
    assert len(await listed(portal, "members", unit_id=str(OLD_MUONG_KHUONG))) == 3


async def test_a_households_village(
    lao_cai: Province, portal: httpx.AsyncClient, merged: tuple[str, str]
) -> None:
    gone, heir = merged
    successor = {"unit_id": heir, "code": None, "name": "Thôn Chung"}
    body = {"unit_id": gone, "head_name": "Hộ"}
    check_gone((await portal.post("/v1/households", json=body)).json(), "/unit_id", successor)
    upsert = "/v1/households/by-external-id/so.tt/h1"
    check_gone((await portal.put(upsert, json=body)).json(), "/unit_id", successor)
    admin, kept = lao_cai.muong_khuong.admin, lao_cai.muong_khuong.household
    other = await make(admin, "households", unit_id=heir, head_name="Hộ khác")
    path = f"/v1/households/{other['id']}"
    moved = await admin.patch(path, json={"unit_id": gone}, headers={"If-Match": "*"})
    check_gone(moved.json(), "/unit_id", successor)
    path = f"/v1/households/{kept['id']}"  # it was registered in a village that is gone now
    changed = await admin.patch(path, json={"head_name": "Chủ mới"}, headers={"If-Match": "*"})
    assert (changed.status_code, changed.json()["unit_id"]) == (200, kept["unit_id"])
    closed = await make(
        admin, "admin-units", level="village", name="Thôn Ba", type="thôn",
        parent_id=str(MUONG_KHUONG), valid_from=FIRST, valid_to="2026-01-31",
    )  # fmt: skip
    body = {"unit_id": closed["id"], "head_name": "Hộ"}
    check_gone((await portal.post("/v1/households", json=body)).json(), "/unit_id")


async def test_a_villages_parent(lao_cai: Province) -> None:
    body = {"level": "village", "name": "Thôn X", "type": "thôn"}
    body |= {"parent_id": str(OLD_MUONG_KHUONG), "valid_from": FIRST}
    admin = lao_cai.muong_khuong.admin
    check_gone((await admin.post("/v1/admin-units", json=body)).json(), "/parent_id", HEIR)
    made = await make(admin, "admin-units", **body | {"valid_from": LAST})
    assert (made["parent_id"], made["valid_from"]) == (str(MUONG_KHUONG), LAST)
    then = (await admin.get(f"/v1/admin-units/{made['id']}", params={"at": LAST})).json()
    assert then["parent_id"] == str(OLD_MUONG_KHUONG)


async def test_a_grants_unit(as_: As, merged: tuple[str, str]) -> None:
    officer, other = await as_(Role.province_admin, at=LAO_CAI), await as_()
    grant = {"principal_id": str(other.principal_id), "role": "commune_admin"}
    refused = await officer.post("/v1/role-grants", json=grant | {"unit_id": str(OLD_MUONG_KHUONG)})
    check_gone(refused.json(), "/unit_id", HEIR)
    seen = await officer.post(
        "/v1/break-glass", json={"unit_id": str(OLD_MUONG_KHUONG), "reason": "Kiểm tra hộ"}
    )
    check_gone(seen.json(), "/unit_id", HEIR)
    gone, heir = merged
    refused = await officer.post("/v1/break-glass", json={"unit_id": gone, "reason": "Kiểm tra"})
    check_gone(refused.json(), "/unit_id", {"unit_id": heir, "code": None, "name": "Thôn Chung"})


async def test_a_team_outlives_its_unit_and_its_roles_are_given_still(
    as_: As, old_team: dict[str, Any], lao_cai: Province, merged: tuple[str, str]
) -> None:
    place = lao_cai.muong_khuong
    officer = place.admin  # of the commune that the old one became
    for team_id, unit in ((old_team["id"], str(OLD_MUONG_KHUONG)),
                          (place.team["id"], place.village["id"])):  # fmt: skip
        leader = await as_()
        grant = {"principal_id": str(leader.principal_id), "role": "team_leader"}
        given = await make(officer, "role-grants", **grant, unit_id=unit, team_id=team_id)
        assert given["unit_id"] == unit
        assert await listed(leader, "teams") == {team_id}
        now = {"unit_id": str(MUONG_KHUONG), "occurred_at": dated("2026-04-01")}
        await make(leader, "support-events", **event(team_id, LAST) | now)
        wrong = grant | {"unit_id": merged[1], "team_id": team_id}
        refusal = (await officer.post("/v1/role-grants", json=wrong)).json()
        assert [(e["pointer"], e["code"]) for e in refusal["errors"]] == [("/team_id", "not_found")]
    stranger = await as_(Role.commune_admin, at=BAO_THANG)
    foreign = grant | {"unit_id": str(OLD_MUONG_KHUONG), "team_id": old_team["id"]}
    refused = await stranger.post("/v1/role-grants", json=foreign)
    assert refused.status_code in {409, 422}, refused.text


async def test_filters_by_a_unit_that_is_gone_find_what_lay_there(
    portal: httpx.AsyncClient, old_team: dict[str, Any], lao_cai: Province, merged: tuple[str, str]
) -> None:
    place, gone = lao_cai.muong_khuong, lao_cai.muong_khuong.village["id"]
    made = await make(portal, "support-events", **event(old_team["id"], "2025-06-15"))
    later = await make(portal, "support-events", **place.event(household_id=None))
    stay = [{"team_id": old_team["id"], "role": "member", "joined_on": LAST}]
    person = await make(portal, "members", full_name="Vàng A", memberships=stay)
    facts = {
        "teams": (old_team["id"], place.team["id"]),
        "members": (person["id"], place.leader["id"]),
        "support-events": (made["id"], later["id"]),
    }
    for path, (old, new) in facts.items():
        for unit in (OLD_MUONG_KHUONG, OLD_LAO_CAI):
            assert old in await listed(portal, path, unit_id=str(unit))
        assert await listed(portal, path, unit_id=gone) == {new}
        assert {old, new} <= await listed(portal, path, unit_id=str(MUONG_KHUONG))
        assert await listed(portal, path, unit_id=merged[1]) == {new}
    assert await listed(portal, "households", unit_id=gone) == {place.household["id"]}
