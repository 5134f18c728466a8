"""Data subjects' requests: due in time, open to the officer of the place, answered once."""

import asyncio
from datetime import datetime
from typing import Any

import httpx
import pytest

from api import clock, ids
from api.models.data_subject_requests import RequestKind
from api.models.role_grants import Role
from api.services.deadlines import due_at
from tests.factories import (
    BAO_THANG,
    HA_NOI,
    LAO_CAI,
    MUONG_KHUONG,
    As,
    Place,
    Province,
    make,
)
from tests.rules import Body, Row, fault, ids_in, problem, same_answer, walk

PATH = "data-subject-requests"
CONSENT = {"basis": "consent", "notice_version": "2026-01", "method": "giấy ký tay"}


def asked(person: Body, kind: str = "access", **more: Any) -> Body:
    return {"person": person, "kind": kind} | more


async def fulfil(client: httpx.AsyncClient, request: Body, **body: Any) -> httpx.Response:
    return await client.post(f"/v1/{PATH}/{request['id']}:fulfil", json=body)


@pytest.mark.parametrize(
    ("received", "kind", "due"),
    [
        ("2026-11-23T08:00+07:00", "access", "2026-11-25"),  # Monday
        ("2026-11-26T23:59+07:00", "erasure", "2026-11-30"),  # Thursday: over the weekend
        ("2026-11-27T17:30+00:00", "erasure", "2026-12-01"),  # Saturday in Vietnam
        ("2026-04-29T08:00+07:00", "restriction", "2026-05-05"),  # 30 April, 1 May, weekend
        ("2026-12-31T08:00+07:00", "access", "2027-01-05"),
        ("2026-09-01T08:00+07:00", "access", "2026-09-04"),
        ("2026-11-23T08:00+07:00", "withdrawal", "2026-12-08"),
    ],
)
def test_an_answer_is_due_in_two_working_days(received: str, kind: str, due: str) -> None:
    found = due_at(RequestKind(kind), datetime.fromisoformat(received))
    assert found == datetime.fromisoformat(f"{due}T23:59:59+07:00")


async def test_an_officer_opens_and_lists_requests_of_its_own_place(
    as_: As, lao_cai: Province
) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    officer = await as_(Role.dpo, at=MUONG_KHUONG)
    above = await as_(Role.dpo, at=LAO_CAI)
    beside = await as_(Role.dpo, at=BAO_THANG)
    body = asked({"member_id": here.leader["id"]}, note="Đến trụ sở", id=str(ids.new_id()))
    made = await officer.post(f"/v1/{PATH}", json=body)
    assert made.status_code == 201, made.text
    assert made.headers["Location"] == f"/v1/{PATH}/{body['id']}"
    request = made.json()
    assert request["person"] == {"member_id": here.leader["id"], "household_id": None}
    assert (request["status"], request["note"]) == ("open", "Đến trụ sở")
    assert datetime.fromisoformat(request["due_at"]) == due_at(RequestKind.access, clock.now())
    again = await officer.post(f"/v1/{PATH}", json=body)
    assert (again.status_code, again.json()) == (200, request)
    other = await officer.post(f"/v1/{PATH}", json=body | {"note": "khác"})
    assert problem(other) == (409, "id_conflict")
    assert await Row(above, PATH, request["id"]).get() == request

    later = await make(officer, PATH, **asked({"identifier": "012345678901"}, "erasure"))
    assert later["person"] == {"member_id": None, "household_id": None}
    assert await ids_in(above, PATH) == {request["id"], later["id"]}
    assert (await fulfil(officer, request)).json()["status"] == "fulfilled"
    for query, wanted in (
        ({"status": "open"}, {later["id"]}),
        ({"status": "fulfilled"}, {request["id"]}),
        ({"status": ["fulfilled", "open"]}, {request["id"], later["id"]}),
        ({"kind": "erasure"}, {later["id"]}),
        ({"due_at_lt": "2200-01-01T00:00:00Z"}, {request["id"], later["id"]}),
        ({"due_at_lt": request["created_at"]}, set()),
    ):
        assert await ids_in(officer, PATH, limit=1, **query) == wanted

    assert await walk(beside, PATH) == []
    for path in ("", "/export", ":fulfil"):
        method = "POST" if path == ":fulfil" else "GET"
        foreign, absent = [
            await beside.request(method, f"/v1/{PATH}/{row}{path}", json={})
            for row in (later["id"], ids.new_id())
        ]
        assert foreign.status_code == 404
        assert same_answer(foreign, absent)
    for name, row in (("member_id", there.leader), ("household_id", there.household)):
        foreign, absent = [
            await officer.post(f"/v1/{PATH}", json=asked({name: str(i)}))
            for i in (row["id"], ids.new_id())
        ]
        assert fault(foreign) == (422, f"/person/{name}", "not_found")
        assert same_answer(foreign, absent)


async def test_a_request_names_one_person_who_may_ask_for_that(as_: As, lao_cai: Province) -> None:
    officer = await as_(Role.dpo, at=LAO_CAI)
    place = lao_cai.muong_khuong
    member, household = {"member_id": place.leader["id"]}, {"household_id": place.household["id"]}
    identifier = {"identifier": "012345678901"}
    for person, kind, refusal in (
        ({}, "access", ("/person", "exactly_one")),
        (member | household, "access", ("/person", "exactly_one")),
        (member, "withdrawal", ("/kind", "kind_not_applicable")),
        (identifier, "restriction", ("/kind", "kind_not_applicable")),
        (household, "withdrawal", ("/kind", "no_consent")),
        (household, "oblivion", ("/kind", "enum")),
    ):
        refused = await officer.post(f"/v1/{PATH}", json=asked(person, kind))
        assert fault(refused) == (422, *refusal), (person, kind)
    assert await walk(officer, PATH) == []
    for role in (Role.national_admin, Role.province_admin, Role.commune_admin, Role.auditor):
        at = LAO_CAI if role is not Role.commune_admin else MUONG_KHUONG
        client = await as_(role, at=at)
        refused = await client.post(f"/v1/{PATH}", json=asked(member))
        assert problem(refused) == (403, "insufficient_role")


async def visited(lao_cai: Province, place: Place, **changes: Any) -> Body:
    leader = await lao_cai.leader_of(place)
    event = place.event(household_id=place.household["id"], note="Nhà có chó") | changes
    return await make(leader, "support-events", **event)


async def test_access_shows_everything_that_is_held_while_the_request_is_open(
    as_: As, lao_cai: Province
) -> None:
    place = lao_cai.muong_khuong
    household = place.household["id"]
    row = Row(place.admin, "households", household)
    assert (await row.patch(consent=CONSENT)).status_code == 200
    who = {"identifier": "012345678901", "gender": "female"}
    event = await visited(
        lao_cai, place, beneficiary=who, member_ids=[place.leader["id"]], lat=22.7, lon=104.1
    )
    elsewhere = await visited(lao_cai, lao_cai.bao_thang, beneficiary=who)
    officer = await as_(Role.dpo, at=MUONG_KHUONG)
    assert problem(await officer.get(f"/v1/households/{household}")) == (403, "insufficient_role")

    async def export(person: Body) -> tuple[Body, Body]:
        request = await make(officer, PATH, **asked(person))
        shown = await officer.get(f"/v1/{PATH}/{request['id']}/export")
        assert shown.status_code == 200, shown.text
        return request, shown.json()

    request, held = await export({"household_id": household})
    (home,) = held["households"]
    assert (home["head_name"], home["phone"]) == ("Chủ hộ Na Đẩy", "+84987654321")
    assert [entry["method"] for entry in held["consent_entries"]] == ["giấy ký tay"]
    (help_,) = held["support_events"]
    assert (help_["id"], help_["note"], help_["lat"]) == (event["id"], "Nhà có chó", 22.7)
    assert not {name for name in home | help_ if "hash" in name or name.endswith("_key")}
    assert held["members"] == held["memberships"] == held["accounts"] == []

    _, held = await export({"member_id": place.leader["id"]})
    (member,) = held["members"]
    assert (member["full_name"], member["birth_year"]) == ("Giàng A Na Đẩy", 2000)
    assert [stay["team_id"] for stay in held["memberships"]] == [place.team["id"]]
    assert [each["id"] for each in held["support_events"]] == [event["id"]]
    (account,) = held["accounts"]
    assert account["login"].startswith("user.")
    assert "secret_hash" not in account
    assert held["households"] == []

    _, held = await export({"identifier": "012345678901"})
    assert [each["id"] for each in held["support_events"]] == [event["id"]]
    assert "012345678901" not in str(held)
    _, held = await export({"identifier": "999999999999"})
    assert held["support_events"] == []
    above = await as_(Role.dpo, at=LAO_CAI)
    wider = await make(above, PATH, **asked({"identifier": "012345678901"}))
    shown = (await above.get(f"/v1/{PATH}/{wider['id']}/export")).json()
    assert {each["id"] for each in shown["support_events"]} == {event["id"], elsewhere["id"]}

    given = await fulfil(officer, request, reason="Đã trao tận tay")
    assert given.status_code == 200, given.text
    assert (given.json()["status"], given.json()["outcome"]) == ("fulfilled", "Đã trao tận tay")
    assert (await fulfil(officer, request, reason="lại")).json() == given.json()
    closed = await officer.get(f"/v1/{PATH}/{request['id']}/export")
    assert fault(closed) == (409, "", "already_fulfilled")


async def test_a_withdrawal_is_entered_in_the_ledger_and_masks_for_everybody(
    as_: As, lao_cai: Province
) -> None:
    place = lao_cai.muong_khuong
    row = Row(place.admin, "households", place.household["id"])
    await row.patch(consent=CONSENT)
    officer = await as_(Role.dpo, at=LAO_CAI)
    request = await make(officer, PATH, **asked({"household_id": row.id}, "withdrawal"))
    assert (await fulfil(officer, request)).status_code == 200
    household = await row.get()
    assert household["consent"]["withdrawn_at"] is not None
    assert household["masked"] == ["address", "head_name", "phone"]
    leader = await lao_cai.leader_of(place)
    assert (await Row(leader, "households", row.id).get())["head_name"] is None
    assert await ids_in(place.admin, "households", q="chu ho") == set()
    entries = await walk(place.admin, f"households/{row.id}/consent-entries")
    assert [bool(entry["withdrawn_at"]) for entry in entries] == [False, True]
    assert entries[1]["recorded_by"] == str(officer.principal_id)
    await row.patch(consent={"withdrawn_at": None, "given_at": "2026-11-23T02:00:00Z"})
    assert (await row.get())["head_name"] == "Chủ hộ Na Đẩy"


@pytest.mark.parametrize("noun", ["members", "households"])
async def test_restricted_data_is_only_kept(as_: As, lao_cai: Province, noun: str) -> None:
    place = lao_cai.muong_khuong
    mine = place.leader if noun == "members" else place.household
    row = Row(place.admin, noun, mine["id"])
    officer = await as_(Role.dpo, at=LAO_CAI)
    person = {f"{noun.removesuffix('s')}_id": mine["id"]}
    request = await make(officer, PATH, **asked(person, "restriction"))
    done = await asyncio.gather(*(fulfil(officer, request) for _ in range(5)))
    assert [answer.status_code for answer in done] == [200] * 5
    assert all(answer.json() == done[0].json() for answer in done)
    kept = await row.get()
    assert kept["restricted_at"] is not None
    assert kept["version"] == mine["version"] + 1
    assert kept["phone"] is None
    assert set(kept["masked"]) >= {"phone"}
    change = {"phone": "+84900000000"}
    for refused in (await row.patch(**change), await row.delete(), await row.undelete()):
        assert fault(refused) == (409, "", "restricted")
    assert await ids_in(place.admin, "households", q="chu ho") == (
        {place.household["id"]} if noun == "members" else set()
    )
    export = await make(officer, PATH, **asked(person))
    held = (await officer.get(f"/v1/{PATH}/{export['id']}/export")).json()
    assert held[noun][0]["phone"] == mine["phone"]


async def test_an_officer_elsewhere_cannot_touch_anybody_here(as_: As, lao_cai: Province) -> None:
    place = lao_cai.muong_khuong
    stranger = await as_(Role.dpo, at=HA_NOI)
    before = await Row(place.admin, "households", place.household["id"]).get()
    for kind in RequestKind:
        person = {"household_id": place.household["id"]}
        refused = await stranger.post(f"/v1/{PATH}", json=asked(person, kind))
        assert fault(refused) == (422, "/person/household_id", "not_found")
    assert await Row(place.admin, "households", place.household["id"]).get() == before
