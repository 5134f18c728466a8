"""Devices: a leader enrols a member's phone, which acts as that member."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text, true
from sqlalchemy.ext.asyncio import AsyncEngine

from api import clock, ids
from api.auth import passwords
from api.auth.scope import Reach
from api.models.role_grants import Role
from tests.factories import LAO_CAI, Person, Place, Province, make
from tests.rules import Row, fault, problem, same_answer

type Json = dict[str, Any]


async def member_of(place: Place) -> str:
    """Return a new member of a place's team."""
    stay = {"team_id": place.team["id"], "joined_on": "2025-07-03"}
    made = await make(place.admin, "members", full_name="Lù A Páo", memberships=[stay])
    return str(made["id"])


async def enrol(client: httpx.AsyncClient, code: str, name: str = "Máy của Páo") -> httpx.Response:
    return await client.post("/v1/sessions", json={"enrolment_code": code, "device_name": name})


def bearer(response: httpx.Response) -> dict[str, str]:
    assert response.status_code == 201, response.text
    assert response.headers["cache-control"] == "no-store"
    return {"Authorization": f"Bearer {response.json()['access_token']}"}


async def phone_of(client: httpx.AsyncClient, leader: httpx.AsyncClient, member: str) -> Json:
    """Enrol a device; return its headers."""
    device = await make(leader, "devices", member_id=member)
    return bearer(await enrol(client, device["enrolment_code"]))


async def test_a_leader_enrols_a_members_phone(
    lao_cai: Province, client: httpx.AsyncClient
) -> None:
    place = lao_cai.muong_khuong
    leader, member = await lao_cai.leader_of(place), await member_of(place)
    made = await leader.post("/v1/devices", json={"member_id": member})
    device = made.json()
    assert (made.status_code, made.headers["etag"]) == (201, '"1"')
    assert made.headers["location"] == f"/v1/devices/{device['id']}"
    assert made.headers["cache-control"] == "no-store"
    assert (device["member_id"], device["name"], device["enrolled_at"]) == (member, None, None)
    assert len(device["enrolment_code"].replace("-", "")) == 25

    headers = bearer(await enrol(client, device["enrolment_code"]))
    me = (await client.get("/v1/me", headers=headers)).json()
    assert (me["kind"], me["id"], me["device_id"]) == ("device", device["id"], device["id"])
    assert (me["member_id"], me["name"]) == (member, "Máy của Páo")
    assert [(g["role"], g["team_id"]) for g in me["grants"]] == [("team_member", place.team["id"])]
    seen = await Row(leader, "devices", device["id"]).get()
    assert (seen["name"], seen["version"]) == ("Máy của Páo", 2)
    assert seen["enrolled_at"]
    assert "enrolment_code" not in seen
    listed = (await leader.get("/v1/devices", params={"member_id": member})).json()["items"]
    assert listed == [seen]
    none = await leader.get("/v1/devices", params={"member_id": str(ids.new_id())})
    assert none.json()["items"] == []
    person = (await leader.get("/v1/me")).json()
    assert person["device_id"] is None


async def test_a_phone_records_what_its_member_did(
    lao_cai: Province, client: httpx.AsyncClient
) -> None:
    place = lao_cai.muong_khuong
    leader, member = await lao_cai.leader_of(place), await member_of(place)
    headers = await phone_of(client, leader, member)
    event = place.event(member_ids=[member], household_id=place.household["id"])
    recorded = await client.post("/v1/support-events", json=event, headers=headers)
    assert recorded.status_code == 201, recorded.text
    others = place.event(member_ids=[place.leader["id"]])
    refused = await client.post("/v1/support-events", json=others, headers=headers)
    assert fault(refused)[2] == "not_participant"
    batch = {"support_events": [{"op": "create", "id": str(ids.new_id()), "data": event}]}
    sent = await client.post("/v1/batch", json=batch, headers=headers)
    assert sent.json()["results"][0]["status"] == 201, sent.text
    household = (await client.get("/v1/households", headers=headers)).json()["items"]
    assert [row["head_name"] for row in household] == [place.household["head_name"]]
    for path in ("members", "devices"):  # no right of a team's member
        answer = await client.get(f"/v1/{path}", headers=headers)
        assert problem(answer) == (403, "insufficient_role")
    foreign = lao_cai.bao_thang
    for path in (f"teams/{foreign.team['id']}", f"households/{foreign.household['id']}"):
        assert (await client.get(f"/v1/{path}", headers=headers)).status_code == 404


async def test_a_leaders_phone_leads(lao_cai: Province, client: httpx.AsyncClient) -> None:
    place = lao_cai.muong_khuong
    headers = await phone_of(client, place.admin, place.leader["id"])
    me = (await client.get("/v1/me", headers=headers)).json()
    assert [grant["role"] for grant in me["grants"]] == ["team_leader"]
    members = await client.get("/v1/members", headers=headers)
    assert [row["id"] for row in members.json()["items"]] == [place.leader["id"]]
    body = {"member_id": await member_of(place)}
    assert (await client.post("/v1/devices", json=body, headers=headers)).status_code == 201


async def test_a_code_works_once(lao_cai: Province, client: httpx.AsyncClient) -> None:
    device = await make(
        lao_cai.muong_khuong.admin, "devices", member_id=lao_cai.muong_khuong.leader["id"]
    )
    code = device["enrolment_code"]
    typed = code.lower().replace("-", " ")
    assert (await enrol(client, typed)).status_code == 201
    again = await enrol(client, code)
    unknown = await enrol(client, "AAAAA-AAAAA-AAAAA-AAAAA-AAAAA")
    assert problem(again) == (401, "invalid_credentials")
    assert same_answer(again, unknown)


async def test_of_twenty_phones_with_the_same_code_one_is_enrolled(
    lao_cai: Province, client: httpx.AsyncClient, superuser: AsyncEngine
) -> None:
    place = lao_cai.muong_khuong
    device = await make(place.admin, "devices", member_id=place.leader["id"])
    answers = await asyncio.gather(
        *(enrol(client, device["enrolment_code"], f"Máy {n}") for n in range(20))
    )
    assert sorted(answer.status_code for answer in answers) == [201] + [401] * 19
    async with superuser.connect() as connection:
        assert await connection.scalar(text("select count(*) from session")) == 1


async def test_a_code_holds_fifteen_minutes(
    lao_cai: Province, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, now = lao_cai.muong_khuong, clock.now()
    monkeypatch.setattr(clock, "now", lambda: now)
    early, late = [
        await make(place.admin, "devices", member_id=place.leader["id"]) for _ in range(2)
    ]
    monkeypatch.setattr(clock, "now", lambda: now + timedelta(minutes=14, seconds=59))
    assert (await enrol(client, early["enrolment_code"])).status_code == 201
    monkeypatch.setattr(clock, "now", lambda: now + timedelta(minutes=15))
    assert problem(await enrol(client, late["enrolment_code"])) == (401, "invalid_credentials")


async def test_guessing_codes_is_slowed_down_and_holds_no_name_back(
    app: FastAPI, lao_cai: Province, client: httpx.AsyncClient
) -> None:
    transport = httpx.ASGITransport(app, client=("203.0.113.9", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://noidai.test") as guesser:
        statuses = [(await enrol(guesser, f"GUESS-{n}")).status_code for n in range(51)]
        assert statuses == [401] * 50 + [429]
    device = await make(
        lao_cai.muong_khuong.admin, "devices", member_id=lao_cai.muong_khuong.leader["id"]
    )
    assert (await enrol(client, device["enrolment_code"])).status_code == 201


async def test_codes_and_devices_are_kept_as_hashes_only(
    lao_cai: Province, superuser: AsyncEngine
) -> None:
    place = lao_cai.muong_khuong
    device = await make(place.admin, "devices", member_id=place.leader["id"])
    async with superuser.connect() as connection:
        row = await connection.scalar(text("select d::text from device d"))
        secret = await connection.scalar(
            text("select secret_hash from principal where kind = 'device'")
        )
    assert device["enrolment_code"] not in row
    assert device["enrolment_code"].replace("-", "").encode().hex() not in row
    assert secret is None


async def test_a_thousand_codes_hash_no_password(
    lao_cai: Province, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_plain: str) -> str:
        raise AssertionError("argon2 takes 50 ms")

    for module in ("api.auth.passwords", "api.services.principals"):
        monkeypatch.setattr(f"{module}.hash_secret", never)
    assert passwords.hash_secret is never
    member = lao_cai.muong_khuong.leader["id"]
    made = [await make(lao_cai.muong_khuong.admin, "devices", member_id=member) for _ in range(20)]
    assert len({device["enrolment_code"] for device in made}) == 20


async def test_an_ended_device_is_out_at_once(lao_cai: Province, client: httpx.AsyncClient) -> None:
    place = lao_cai.muong_khuong
    leader, member = await lao_cai.leader_of(place), await member_of(place)
    device = await make(leader, "devices", member_id=member)
    session = await enrol(client, device["enrolment_code"])
    headers = bearer(session)
    other = await phone_of(client, leader, member)
    row = Row(leader, "devices", device["id"])
    assert problem(await leader.delete(row.url)) == (428, "precondition_required")
    assert problem(await row.delete('"1"')) == (412, "precondition_failed")
    assert (await row.delete('"2"')).status_code == 204
    assert problem(await client.get("/v1/me", headers=headers)) == (401, "unauthenticated")
    refresh = {"refresh_token": session.json()["refresh_token"]}
    assert (await client.post("/v1/sessions:refresh", json=refresh)).status_code == 401
    assert (await leader.get(row.url)).status_code == 404
    assert (await row.delete()).status_code == 404
    assert (await client.get("/v1/me", headers=other)).status_code == 200


async def test_an_ended_device_is_not_enrolled_any_more(
    lao_cai: Province, client: httpx.AsyncClient
) -> None:
    place = lao_cai.muong_khuong
    device = await make(place.admin, "devices", member_id=place.leader["id"])
    assert (await Row(place.admin, "devices", device["id"]).delete()).status_code == 204
    assert problem(await enrol(client, device["enrolment_code"])) == (401, "invalid_credentials")


async def test_ending_and_enrolling_at_once_leave_no_session(
    lao_cai: Province, client: httpx.AsyncClient
) -> None:
    place = lao_cai.muong_khuong
    for _ in range(5):
        device = await make(place.admin, "devices", member_id=place.leader["id"])
        row = Row(place.admin, "devices", device["id"])
        session, ended = await asyncio.gather(enrol(client, device["enrolment_code"]), row.delete())
        assert (session.status_code, ended.status_code) in {(201, 204), (401, 204)}
        if session.status_code == 201:
            assert (await client.get("/v1/me", headers=bearer(session))).status_code == 401


async def test_a_phones_session_is_renewed_and_signed_out(
    lao_cai: Province, client: httpx.AsyncClient
) -> None:
    place = lao_cai.muong_khuong
    device = await make(place.admin, "devices", member_id=place.leader["id"])
    session = (await enrol(client, device["enrolment_code"])).json()
    refresh = {"refresh_token": session["refresh_token"]}
    renewed = await client.post("/v1/sessions:refresh", json=refresh)
    headers = {"Authorization": f"Bearer {renewed.json()['access_token']}"}
    assert (await client.get("/v1/me", headers=headers)).json()["device_id"] == device["id"]
    for path in ("password", "totp"):
        body = {"current_password": "x", "new_password": "another good one"}
        answer = await client.post(
            f"/v1/me/{path}", json=body if path == "password" else None, headers=headers
        )
        assert problem(answer) == (403, "insufficient_role")
    out = await client.delete("/v1/sessions/current", headers=headers)
    assert out.status_code == 204
    assert (await client.get("/v1/me", headers=headers)).status_code == 401


async def test_leaving_a_team_ends_the_right_at_once(
    lao_cai: Province, client: httpx.AsyncClient
) -> None:
    place = lao_cai.muong_khuong
    member = await member_of(place)
    headers = await phone_of(client, place.admin, member)
    assert (await client.get("/v1/teams", headers=headers)).status_code == 200
    left = await place.admin.delete(f"/v1/memberships/{place.team['id']}/{member}")
    assert left.status_code == 204, left.text
    assert problem(await client.get("/v1/teams", headers=headers)) == (403, "insufficient_role")
    assert (await client.get("/v1/me", headers=headers)).json()["grants"] == []
    event = place.event(member_ids=[member])
    late = await client.post("/v1/support-events", json=event, headers=headers)
    assert late.status_code == 403


async def test_a_role_follows_the_membership(lao_cai: Province, client: httpx.AsyncClient) -> None:
    place = lao_cai.muong_khuong
    member = await member_of(place)
    headers = await phone_of(client, place.admin, member)
    stay = {"role": "leader", "joined_on": clock.today().isoformat()}
    put = await place.admin.put(f"/v1/memberships/{place.team['id']}/{member}", json=stay)
    assert put.status_code in {200, 201}, put.text
    me = (await client.get("/v1/me", headers=headers)).json()
    assert [grant["role"] for grant in me["grants"]] == ["team_leader"]
    row = f"/v1/members/{member}"
    assert (await place.admin.delete(row, headers={"If-Match": "*"})).status_code == 204
    assert (await client.get("/v1/me", headers=headers)).json()["grants"] == []


async def both(lao_cai: Province) -> tuple[Person, str]:
    """Return the province's administrator, and somebody who is in a team of each commune."""
    province = await lao_cai.country.sign_in(Role.province_admin, at=LAO_CAI)
    stays = [
        {"team_id": place.team["id"], "role": "leader", "joined_on": "2025-07-03"}
        for place in (lao_cai.muong_khuong, lao_cai.bao_thang)
    ]
    member = await make(province, "members", full_name="Người hai xã", memberships=stays)
    return province, str(member["id"])


async def teams_of(client: httpx.AsyncClient, headers: Json) -> set[str]:
    me = (await client.get("/v1/me", headers=headers)).json()
    return {grant["team_id"] for grant in me["grants"]}


async def test_nobody_hands_on_more_than_they_hold(
    lao_cai: Province, client: httpx.AsyncClient
) -> None:
    mine, foreign = lao_cai.muong_khuong, lao_cai.bao_thang
    province, member = await both(lao_cai)
    leader = await lao_cai.leader_of(mine)
    for enroller, teams in (
        (leader, {mine.team["id"]}),
        (mine.admin, {mine.team["id"]}),
        (foreign.admin, {foreign.team["id"]}),
        (province, {mine.team["id"], foreign.team["id"]}),
    ):
        headers = await phone_of(client, enroller, member)
        assert await teams_of(client, headers) == teams
        seen = (await client.get("/v1/teams", headers=headers)).json()["items"]
        assert {team["id"] for team in seen} == teams


async def test_a_team_joined_later_needs_its_own_leader(
    lao_cai: Province, client: httpx.AsyncClient
) -> None:
    mine, other = lao_cai.muong_khuong, lao_cai.bao_thang
    member = await member_of(mine)
    headers = await phone_of(client, mine.admin, member)
    province = await lao_cai.country.sign_in(Role.province_admin, at=LAO_CAI)
    stay = {"joined_on": clock.today().isoformat()}
    put = await province.put(f"/v1/memberships/{other.team['id']}/{member}", json=stay)
    assert put.status_code == 201, put.text
    assert await teams_of(client, headers) == {mine.team["id"]}


async def test_devices_are_enrolled_seen_and_ended_in_scope_only(lao_cai: Province) -> None:
    mine, foreign = lao_cai.muong_khuong, lao_cai.bao_thang
    leader = await lao_cai.leader_of(mine)
    for enroller in (leader, mine.admin):
        answers = [
            await enroller.post("/v1/devices", json={"member_id": member})
            for member in (foreign.leader["id"], str(ids.new_id()))
        ]
        assert fault(answers[0]) == (422, "/member_id", "not_found")
        assert same_answer(*answers)
    device = await make(foreign.admin, "devices", member_id=foreign.leader["id"])
    row = Row(foreign.admin, "devices", device["id"])
    for stranger in (leader, mine.admin):
        url = f"/v1/devices/{ids.new_id()}"
        for answers in (
            [await stranger.get(row.url), await stranger.get(url)],
            [await stranger.delete(path, headers={"If-Match": "*"}) for path in (row.url, url)],
        ):
            assert answers[0].status_code == 404
            assert same_answer(*answers)
        assert (await stranger.get("/v1/devices")).json()["items"] == []
    assert (await row.get())["id"] == device["id"]


async def test_a_device_for_both_communes_is_seen_in_both_and_one_for_one_in_one(
    lao_cai: Province,
) -> None:
    mine, foreign = lao_cai.muong_khuong, lao_cai.bao_thang
    province, member = await both(lao_cai)
    wide = await make(province, "devices", member_id=member)
    narrow = await make(mine.admin, "devices", member_id=member)
    for who, expected in ((mine, {wide["id"], narrow["id"]}), (foreign, {wide["id"]})):
        listed = (await who.admin.get("/v1/devices")).json()["items"]
        assert {device["id"] for device in listed} == expected


async def test_who_is_in_no_team_now_gets_no_device(lao_cai: Province) -> None:
    place = lao_cai.muong_khuong
    member = await member_of(place)
    left = await place.admin.delete(f"/v1/memberships/{place.team['id']}/{member}")
    assert left.status_code == 204
    refused = await place.admin.post("/v1/devices", json={"member_id": member})
    assert fault(refused) == (422, "/member_id", "not_in_team")


async def test_a_taken_id_is_a_conflict(lao_cai: Province) -> None:
    place = lao_cai.muong_khuong
    body = {"id": str(ids.new_id()), "member_id": place.leader["id"]}
    assert (await place.admin.post("/v1/devices", json=body)).status_code == 201
    again = await place.admin.post("/v1/devices", json=body)  # the code was shown once
    assert problem(again) == (409, "id_conflict")


async def test_a_device_is_given_no_role_of_its_own(lao_cai: Province) -> None:
    place = lao_cai.muong_khuong
    device = await make(place.admin, "devices", member_id=place.leader["id"])
    grant = {
        "role": "team_leader",
        "unit_id": place.village["id"],
        "team_id": place.team["id"],
    }
    answers = [
        await place.admin.post("/v1/role-grants", json=grant | {"principal_id": principal})
        for principal in (device["id"], str(ids.new_id()))
    ]
    assert fault(answers[0]) == (422, "/principal_id", "not_found")
    assert same_answer(*answers)


async def test_other_roles_enrol_nothing(lao_cai: Province) -> None:
    place = lao_cai.muong_khuong
    body = {"member_id": place.leader["id"]}
    for role in (Role.national_admin, Role.auditor, Role.portal_client, Role.youth_coordinator):
        who = await lao_cai.country.sign_in(role, at=LAO_CAI)
        assert problem(await who.post("/v1/devices", json=body)) == (403, "insufficient_role")
    member = await lao_cai.country.sign_in(
        Role.team_member, at=UUID(place.village["id"]), team=UUID(place.team["id"])
    )
    assert problem(await member.post("/v1/devices", json=body)) == (403, "insufficient_role")


async def test_the_database_alone_shows_no_foreign_device(
    lao_cai: Province, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, foreign = lao_cai.muong_khuong, lao_cai.bao_thang
    theirs = await make(foreign.admin, "devices", member_id=foreign.leader["id"])
    monkeypatch.setattr(Reach, "filter", lambda *_: true())
    assert (await mine.admin.get("/v1/devices")).json()["items"] == []
    gone = await mine.admin.delete(f"/v1/devices/{theirs['id']}", headers={"If-Match": "*"})
    assert gone.status_code == 404
