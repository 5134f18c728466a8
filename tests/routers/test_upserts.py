"""Upserts under external ids: of events over `PUT`, and of all nouns in batches."""

import asyncio
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from api import ids
from api.models.role_grants import Role
from tests.factories import As, Person, Place, Province, make
from tests.routers.test_batch import (
    BATCH,
    create,
    faults,
    household,
    member,
    outcomes,
    rows,
    send,
    team,
)

CREATED, UPDATED, UNCHANGED = (201, "created"), (200, "updated"), (200, "unchanged")


@pytest.fixture
async def portal(as_: As, lao_cai: Province) -> Person:
    return await as_(Role.portal_client, at=lao_cai.unit_id)


@pytest.fixture
def na_day(lao_cai: Province) -> Place:
    return lao_cai.muong_khuong


async def put(client: httpx.AsyncClient, name: str, body: dict[str, Any]) -> httpx.Response:
    return await client.put(f"/v1/support-events/by-external-id/{name}", json=body)


def upsert(number: str, data: dict[str, Any], system: str = "portal") -> dict[str, Any]:
    return {"op": "upsert", "external_id": {"system": system, "id": number}, "data": data}


async def test_an_event_under_an_external_id_is_recorded_then_corrected(
    portal: Person, na_day: Place
) -> None:
    who = {"identifier": "012345678901", "gender": "female"}
    body = na_day.event(beneficiary=who, lat=22.5, unit_id=None)
    first = await put(portal, "portal/7/2025", body)
    assert (first.status_code, first.headers["etag"]) == (201, '"1"')
    event = first.json()
    assert event["external_ids"] == {"portal": "7/2025"}
    assert first.headers["location"] == f"/v1/support-events/{event['id']}"
    again = await put(portal, "portal/7/2025", body)
    assert (again.status_code, again.headers["etag"]) == (200, '"1"')
    assert again.json()["id"] == event["id"]
    corrected = await put(portal, "portal/7/2025", body | {"quantity": 3})
    assert (corrected.status_code, corrected.headers["etag"]) == (200, '"2"')
    assert corrected.json()["quantity"] == 3
    versions = await portal.get(f"/v1/support-events/{event['id']}/versions")
    assert [one["action"] for one in versions.json()["items"]] == ["correct", "create"]
    found = await portal.get("/v1/support-events", params={"external_id": "portal:7/2025"})
    assert [one["id"] for one in found.json()["items"]] == [event["id"]]


async def test_an_event_stays_its_teams(portal: Person, lao_cai: Province) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    assert (await put(portal, "portal/1", here.event())).status_code == 201
    moved = await put(portal, "portal/1", there.event())
    assert moved.status_code == 422
    assert faults({"problem": moved.json()}) == {("/team_id", "read_only")}


async def test_what_was_decided_of_an_event_is_not_undone_by_sending_it_again(
    portal: Person, na_day: Place
) -> None:
    event = (await put(portal, "portal/1", na_day.event())).json()
    reason = {"reason": "Không đúng"}
    for verb, status in (("reject", "rejected"), ("void", "voided")):
        if verb == "void":
            again = await put(portal, "portal/2", na_day.event())
            event = again.json()
        done = await na_day.admin.post(f"/v1/support-events/{event['id']}:{verb}", json=reason)
        assert done.status_code == 200
        name = "portal/1" if verb == "reject" else "portal/2"
        same = await put(portal, name, na_day.event())
        assert (same.status_code, same.headers["etag"]) == (200, '"2"')
        assert same.json()["status"] == status
        changed = await put(portal, name, na_day.event(quantity=2))
        assert (changed.status_code, changed.json()["code"]) == (409, "conflict")
        assert faults({"problem": changed.json()}) == {("/status", "wrong_status")}


async def test_an_upsert_of_an_event_is_refused_as_a_create_would_be(
    portal: Person, lao_cai: Province, as_: As
) -> None:
    here = lao_cai.muong_khuong
    other = await as_(Role.portal_client, at=lao_cai.unit_id)
    assert (await put(other, "theirs/1", here.event())).status_code == 201
    taken = await put(portal, "theirs/2", here.event())
    assert (taken.status_code, taken.json()["code"]) == (409, "external_id_conflict")
    wrong = await put(portal, "portal/1", here.event(quantity=0))
    assert (wrong.status_code, faults({"problem": wrong.json()})) == (
        422,
        {("/quantity", "greater_than_equal")},
    )
    retired = await put(portal, "portal/1", here.event(service_type="HL.DECLARE"))
    assert faults({"problem": retired.json()}) == {("/service_type", "service_inactive")}
    assert (await put(portal, "portal/1", here.event())).status_code == 201


async def test_upserts_in_a_batch_create_then_change_then_leave(
    portal: Person, na_day: Place, superuser: AsyncEngine
) -> None:
    group = na_day.team["id"]
    sent = {
        "households": [upsert("h1", household(na_day, consent={"basis": "state_management"}))],
        "members": [upsert("m1", member(group))],
        "teams": [upsert("t1", team(na_day))],
        "support_events": [upsert("e1", na_day.event()), upsert("e2", na_day.event())],
    }
    first = await send(portal, **sent)
    assert outcomes(first) == [CREATED] * 5
    assert [result["etag"] for result in first] == ['"1"'] * 5
    before = await rows(superuser)
    for result in first:
        path = result["resource"].replace("_", "-")
        number = sent[result["resource"]][result["index"]]["external_id"]["id"]
        shown = await portal.get(f"/v1/{path}/{result['id']}")
        assert shown.json()["external_ids"] == {"portal": number}
    again = await send(portal, **sent)
    assert outcomes(again) == [UNCHANGED] * 5
    assert [result["id"] for result in again] == [result["id"] for result in first]
    changes = {
        "households": {"people_count": 4},
        "members": {"occupation": "Giáo viên"},
        "teams": {"name": "Tổ ba"},
        "support_events": {"quantity": 2},
    }
    for resource, change in changes.items():
        sent[resource][0]["data"] |= change
    changed = await send(portal, **sent)
    assert outcomes(changed) == [UPDATED] * 4 + [UNCHANGED]
    assert [result["etag"] for result in changed] == ['"2"'] * 4 + ['"1"']
    assert outcomes(await send(portal, **sent)) == [UNCHANGED] * 5
    assert await rows(superuser) == before


async def test_an_upsert_in_a_batch_names_its_row_by_the_external_id_alone(
    portal: Person, na_day: Place
) -> None:
    good = upsert("h1", household(na_day))
    named = {**good, "id": str(ids.new_id())}
    nameless = {"op": "upsert", "data": household(na_day)}
    both = create(household(na_day)) | {"external_id": {"system": "portal", "id": "h2"}}
    odd = upsert("h1", household(na_day), system="no good")
    cases = [
        (named, {("/households/0/id", "not_together")}),
        (nameless, {("/households/0/external_id", "missing")}),
        (both, {("/households/0/external_id", "not_together")}),
        (odd, {("/households/0/external_id/system", "string_pattern_mismatch")}),
    ]
    for item, wrong in cases:
        response = await portal.post(BATCH, json={"households": [item]})
        assert response.status_code == 422, response.text
        assert faults({"problem": response.json()}) == wrong


async def test_a_refused_upsert_leaves_the_rest_and_has_no_id(
    portal: Person, lao_cai: Province, as_: As, superuser: AsyncEngine
) -> None:
    here = lao_cai.muong_khuong
    other = await as_(Role.portal_client, at=lao_cai.unit_id)
    await make(other, "households", **household(here, external_ids={"theirs": "1"}))
    before = await rows(superuser)
    results = await send(
        portal,
        households=[
            upsert("1", household(here)),
            upsert("1", household(here, people_count=3)),
            upsert("2", household(here), system="theirs"),
            upsert("3", household(here, unit_id=str(here.unit_id))),
            upsert("4", household(here, external_ids={"portal": "5"})),
        ],
        support_events=[upsert("1", here.event(quantity=10**12)), upsert("2", here.event())],
    )
    assert outcomes(results) == [
        CREATED,
        UPDATED,
        (409, "rejected"),
        (422, "rejected"),
        (422, "rejected"),
        (422, "rejected"),
        CREATED,
    ]
    assert results[0]["id"] == results[1]["id"]
    assert [result["id"] for result in results[2:6]] == [None] * 4
    after = await rows(superuser)
    assert after["household"] == before["household"] + 1
    assert after["support_event"] == before["support_event"] + 1
    leader = await lao_cai.leader_of(here)
    (refused,) = await send(leader, teams=[upsert("1", team(here))])
    assert (refused["status"], refused["problem"]["code"]) == (403, "insufficient_role")


async def test_atomic_and_dry_run_hold_for_upserts(
    portal: Person, na_day: Place, superuser: AsyncEngine
) -> None:
    before = await rows(superuser)
    sent = {"households": [upsert("1", household(na_day))]}
    assert outcomes(await send(portal, **sent, dry_run=True)) == [CREATED]
    broken = {"support_events": [upsert("1", na_day.event(quantity=0))]}
    results = await send(portal, **sent, **broken, atomic=True)
    assert outcomes(results) == [(424, "deferred"), (422, "rejected")]
    assert await rows(superuser) == before
    assert outcomes(await send(portal, **sent, atomic=True)) == [CREATED]


async def test_eight_portals_upserting_the_same_rows_make_each_once(
    portal: Person, na_day: Place, superuser: AsyncEngine
) -> None:
    before = await rows(superuser)
    sent = {
        "households": [upsert(f"h{n}", household(na_day, people_count=2)) for n in range(4)],
        "support_events": [upsert(f"e{n}", na_day.event(quantity=2)) for n in range(4)],
    }
    for turn in range(2):
        answers = await asyncio.gather(*(send(portal, **sent) for _ in range(8)))
        done = [result["outcome"] for answer in answers for result in answer]
        assert set(done) <= {"created", "unchanged"}
        assert done.count("created") == (8 if turn == 0 else 0)
        assert all(result["etag"] == '"1"' for answer in answers for result in answer)
    after = await rows(superuser)
    assert after["household"] == before["household"] + 4
    assert after["support_event"] == before["support_event"] + 4
