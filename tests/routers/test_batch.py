"""Batches, over HTTP."""

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api import ids
from api.models.role_grants import Role
from tests.factories import HOAN_KIEM, MUONG_KHUONG, As, Place, Province, make

BATCH = "/v1/batch"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def leader(lao_cai: Province) -> httpx.AsyncClient:
    return await lao_cai.leader_of(lao_cai.muong_khuong)


@pytest.fixture
async def portal(as_: As, lao_cai: Province) -> httpx.AsyncClient:
    return await as_(Role.portal_client, at=lao_cai.unit_id)


@pytest.fixture
def na_day(lao_cai: Province) -> Place:
    """The village of Na Đẩy in Mường Khương, with its team."""
    return lao_cai.muong_khuong


def create(data: dict[str, Any], row_id: str | None = None) -> dict[str, Any]:
    return {"op": "create", "id": row_id or str(ids.new_id()), "data": data}


def update(row_id: str, if_match: str | None, **data: Any) -> dict[str, Any]:
    return {"op": "update", "id": row_id, "if_match": if_match, "data": data}


def delete(row_id: str, if_match: str | None = "*") -> dict[str, Any]:
    return {"op": "delete", "id": row_id, "if_match": if_match}


def household(place: Place, **changes: Any) -> dict[str, Any]:
    return {"unit_id": place.village["id"], "head_name": "Lù Seo Chư"} | changes


def team(place: Place, **changes: Any) -> dict[str, Any]:
    return {
        "name": "Tổ mới",
        "unit_id": place.village["id"],
        "kind": "community_team",
        "founded_on": "2025-07-10",
    } | changes


def member(team_id: str, **changes: Any) -> dict[str, Any]:
    stay = {"team_id": team_id, "role": "member", "joined_on": "2025-07-10"}
    return {"full_name": "Vàng Thị Mỷ", "memberships": [stay]} | changes


async def send(client: httpx.AsyncClient, **sent: Any) -> list[dict[str, Any]]:
    """Send a batch; return its results."""
    response = await client.post(BATCH, json=sent)
    assert response.status_code == 207, response.text
    results: list[dict[str, Any]] = response.json()["results"]
    return results


def outcomes(results: list[dict[str, Any]]) -> list[tuple[int, str]]:
    return [(result["status"], result["outcome"]) for result in results]


def faults(result: dict[str, Any]) -> set[tuple[str, str]]:
    """Return what an item's problem finds wrong, as (pointer, code)."""
    return {(error["pointer"], error["code"]) for error in result["problem"]["errors"]}


async def rows(superuser: AsyncEngine) -> dict[str, int]:
    """Count what batches write."""
    async with superuser.connect() as connection:
        return {
            table: await connection.scalar(text(f"select count(*) from {table}")) or 0
            for table in ("team", "member", "membership", "household", "support_event")
        }


def everything(place: Place) -> dict[str, list[dict[str, Any]]]:
    """Return a batch in which each item refers to another."""
    new_team, person, home = (str(ids.new_id()) for _ in range(3))
    visit = {"household_id": home, "team_id": new_team, "member_ids": [person]}
    return {
        "support_events": [
            create(place.event(**visit)),
            create(place.event(external_ids={"phone": str(ids.new_id())})),
        ],
        "members": [create(member(new_team), person)],
        "households": [create(household(place), home)],
        "teams": [create(team(place), new_team)],
    }


async def test_what_refers_to_each_other_goes_in_at_once(
    portal: httpx.AsyncClient, na_day: Place, superuser: AsyncEngine
) -> None:
    sent = everything(na_day)
    results = await send(portal, **sent)
    assert outcomes(results) == [(201, "created")] * 5
    assert [(result["resource"], result["index"]) for result in results] == [
        ("households", 0),
        ("members", 0),
        ("teams", 0),
        ("support_events", 0),
        ("support_events", 1),
    ]
    for result in results:
        assert result["id"] == sent[result["resource"]][result["index"]]["id"]
        assert (result["etag"], result["problem"], result["conflicts"]) == ('"1"', None, [])
        path = result["resource"].replace("_", "-")
        read = await portal.get(f"/v1/{path}/{result['id']}")
        assert (read.status_code, read.headers["etag"]) == (200, '"1"')
    before = await rows(superuser)
    again = await send(portal, **sent)
    assert outcomes(again) == [(200, "unchanged")] * 5
    assert [result["etag"] for result in again] == ['"1"'] * 5
    for name, items in sent.items():
        for item in items:
            assert outcomes(await send(portal, **{name: [item]})) == [(200, "unchanged")]
    assert await rows(superuser) == before


async def test_one_items_failure_leaves_the_rest(
    leader: httpx.AsyncClient, lao_cai: Province
) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    results = await send(
        leader,
        households=[create(household(here)), create(household(there)), create({"head_name": ""})],
        support_events=[
            create(here.event(quantity=0)),
            create(here.event()),
            create(there.event()),
            create(here.event(unit_id=str(HOAN_KIEM), note="a\x00")),
            create(here.event(service_type="NO.SUCH")),
            create(here.event(typo=1)),
            create({"team_id": [[[]]], "member_ids": "x", "household_id": {}}),
            create(here.event() | {"id": str(ids.new_id())}),
            create(here.event(household_id=there.household["id"])),
        ],
    )
    created, rejected = (201, "created"), (422, "rejected")
    expected = [created, rejected, rejected, rejected, created, *[rejected] * 7]
    assert outcomes(results) == expected
    assert faults(results[1]) == {("/unit_id", "not_found")}
    assert {pointer for pointer, _ in faults(results[2])} == {"/unit_id", "/head_name"}
    assert faults(results[3]) == {("/quantity", "greater_than_equal")}
    assert faults(results[5]) == {("/team_id", "not_found")}
    assert faults(results[6]) == {("/note", "control_character")}
    assert faults(results[7]) == {("/service_type", "not_found")}
    assert faults(results[8]) == {("/typo", "extra_forbidden")}
    named = {pointer for pointer, _ in faults(results[9])}
    assert named > {"/team_id", "/member_ids", "/household_id", "/outcome"}
    assert faults(results[10]) == {("/id", "not_as_in_item")}
    assert faults(results[11]) == {("/household_id", "not_found")}
    problem = results[3]["problem"]
    assert (problem["status"], problem["code"]) == (422, "validation_failed")
    assert problem["title"] == "Some fields are wrong"


async def test_what_refers_to_a_failed_item_is_deferred(
    portal: httpx.AsyncClient, na_day: Place
) -> None:
    new_team, person, other, home = (str(ids.new_id()) for _ in range(4))
    sent: dict[str, list[dict[str, Any]]] = {
        "households": [
            create(household(na_day, people_count=0), home),
            update(home, "*", address="Số 2"),
        ],
        "members": [
            create(member(new_team), person),
            create(member(na_day.team["id"], full_name=""), other),
        ],
        "teams": [create(team(na_day, name=""), new_team)],
        "support_events": [
            create(na_day.event(team_id=new_team)),
            create(na_day.event(household_id=home)),
            create(na_day.event(member_ids=[other])),
            create(na_day.event()),
        ],
    }
    created, rejected, deferred = (201, "created"), (422, "rejected"), (424, "deferred")
    results = await send(portal, **sent)
    assert outcomes(results) == [
        rejected, deferred, deferred, rejected, rejected, deferred, deferred, deferred, created
    ]  # fmt: skip
    assert results[1]["problem"]["code"] == "deferred"
    assert results[1]["problem"]["retryable"] is True
    sent["households"][0]["data"]["people_count"] = 5
    sent["members"][1]["data"]["full_name"] = "Vàng A Páo"
    sent["teams"][0]["data"]["name"] = "Tổ đúng"
    assert outcomes(await send(portal, **sent)) == [
        created, (200, "updated"), *[created] * 6, (200, "unchanged")
    ]  # fmt: skip


async def test_an_event_says_the_same_in_a_set_as_alone(
    leader: httpx.AsyncClient, na_day: Place
) -> None:
    said: list[dict[str, Any]] = [
        {},
        {"beneficiary": {"age_band": "60_plus"}},
        {"beneficiary": {"gender": "female", "identifier": "001203004567"}},
        {"beneficiary": {}, "member_ids": [na_day.leader["id"]], "unit_id": na_day.village["id"]},
        {"household_id": na_day.household["id"], "note": 'Bà "Sáu" \\ Mẩy', "quantity": 7},
        {"lat": 22.5, "lon": 104, "external_ids": {"zalo": "b", "so": "a"}, "mode": "on_behalf"},
    ]
    alone = [await make(leader, "support-events", **na_day.event(**each)) for each in said]
    names = {"external_ids": {"zalo": "d", "so": "c"}}  # others: each is one row's
    told = [each | names if "external_ids" in each else each for each in said]
    results = await send(leader, support_events=[create(na_day.event(**each)) for each in told])
    assert outcomes(results) == [(201, "created")] * len(said)
    own = {"id", "created_at", "updated_at", "recorded_at", "possible_duplicate_of"}
    for one, result in zip(alone, results, strict=True):
        together = (await leader.get(f"/v1/support-events/{result['id']}")).json()
        differing = {name for name in one if one[name] != together[name]} - own
        assert differing <= {"external_ids"}, (one, together)


async def test_an_id_twice_in_one_batch(leader: httpx.AsyncClient, na_day: Place) -> None:
    one, two, three = (str(ids.new_id()) for _ in range(3))
    results = await send(
        leader,
        support_events=[
            create(na_day.event(), one),
            create(na_day.event(), one),
            create(na_day.event(quantity=2), one),
            create(na_day.event(quantity=0), two),
            create(na_day.event(), two),
        ],
        households=[
            create(household(na_day), three),
            create(household(na_day), three),
            create(household(na_day, head_name="Khác"), three),
        ],
    )
    taken = (409, "rejected")
    created, same = (201, "created"), (200, "unchanged")
    assert outcomes(results) == [created, same, taken, created, same, taken, (422, "rejected"),
                                 created]  # fmt: skip
    assert results[2]["problem"]["code"] == "id_conflict"


async def test_an_item_may_be_created_and_changed_in_one_batch(
    leader: httpx.AsyncClient, na_day: Place
) -> None:
    event, home = str(ids.new_id()), str(ids.new_id())
    results = await send(
        leader,
        support_events=[create(na_day.event(), event), update(event, '"1"', quantity=3)],
        households=[create(household(na_day), home), update(home, '"1"', address="Số 3")],
    )
    assert outcomes(results) == [(201, "created"), (200, "updated")] * 2
    assert [result["etag"] for result in results] == ['"1"', '"2"'] * 2


async def test_atomic_is_all_or_nothing(
    portal: httpx.AsyncClient, na_day: Place, superuser: AsyncEngine
) -> None:
    sent: dict[str, Any] = everything(na_day)
    before = await rows(superuser)
    sent["support_events"].append(create(na_day.event(quantity=0)))
    results = await send(portal, **sent, atomic=True)
    assert Counter(outcomes(results)) == {(424, "deferred"): 5, (422, "rejected"): 1}
    assert await rows(superuser) == before
    sent["support_events"].pop()
    assert outcomes(await send(portal, **sent, atomic=True)) == [(201, "created")] * 5


async def test_a_dry_run_answers_and_writes_nothing(
    portal: httpx.AsyncClient, na_day: Place, superuser: AsyncEngine
) -> None:
    sent = everything(na_day)
    home = na_day.household
    sent["support_events"].append(create(na_day.event(quantity=0)))
    sent["households"].append(update(home["id"], '"1"', address="Số 9"))
    before = await rows(superuser)
    expected = outcomes(await send(portal, **sent, dry_run=True))
    assert await rows(superuser) == before
    read = await portal.get(f"/v1/households/{home['id']}")
    assert (read.json()["address"], read.headers["etag"]) == (None, '"1"')
    assert outcomes(await send(portal, **sent)) == expected


async def test_updates_and_deletions_sent_again_change_nothing(
    leader: httpx.AsyncClient, na_day: Place
) -> None:
    home = na_day.household["id"]
    other = await make(leader, "households", **household(na_day))
    event = await make(leader, "support-events", **na_day.event(lat=22.5))
    sent = {
        "households": [update(home, '"1"', address="Số 2", phone=None), delete(other["id"], '"1"')],
        "support_events": [
            update(event["id"], '"1"', occurred_at="2025-08-01T10:00:00+07:00"),
        ],
    }
    first = await send(leader, **sent)
    assert outcomes(first) == [(200, "updated"), (200, "deleted"), (200, "updated")]
    for _ in range(2):
        again = await send(leader, **sent)
        assert outcomes(again) == [(200, "unchanged")] * 3
        assert [result["etag"] for result in again] == ['"2"', None, '"2"']
    any_version = [update(home, "*", address="Số 2"), update(home, "*", address="Số 4")]
    results = await send(leader, households=any_version)
    assert outcomes(results) == [(200, "unchanged"), (200, "updated")]
    assert (await leader.get(f"/v1/households/{other['id']}")).status_code == 404


async def test_a_stale_change_of_the_same_field_is_a_conflict(
    leader: httpx.AsyncClient, na_day: Place
) -> None:
    home = na_day.household["id"]
    done = await leader.patch(
        f"/v1/households/{home}", json={"address": "Số 7"}, headers={"If-Match": '"1"'}
    )
    assert done.status_code == 200
    (result,) = await send(leader, households=[update(home, '"1"', address="Số 8")])
    assert outcomes([result]) == [(409, "conflict")]
    assert result["etag"] == '"2"'
    (conflict,) = result["conflicts"]
    assert conflict["pointer"] == "/address"
    assert (conflict["yours"], conflict["current"]) == ("Số 8", "Số 7")
    assert (await leader.get(f"/v1/households/{home}")).json()["address"] == "Số 7"


async def test_a_change_needs_the_version_that_was_read(
    leader: httpx.AsyncClient, na_day: Place
) -> None:
    home = na_day.household["id"]
    event = await make(leader, "support-events", **na_day.event())
    results = await send(
        leader,
        households=[
            update(home, None, address="Số 2"),
            update(home, "1", address="Số 2"),
            update(home, '"1"', typo="Số 2"),
            update(home, '"1"', head_name=None),
            update(str(ids.new_id()), "*", address="Số 2"),
            delete(str(ids.new_id())),
        ],
        support_events=[delete(event["id"])],
    )
    assert [(result["status"], result["problem"]["code"]) for result in results] == [
        (428, "precondition_required"),
        (422, "validation_failed"),
        (422, "validation_failed"),
        (422, "validation_failed"),
        (404, "not_found"),
        (404, "not_found"),
        (422, "validation_failed"),  # an event is voided, with a reason
    ]
    assert faults(results[2]) == {("/typo", "extra_forbidden")}
    assert faults(results[3]) == {("/head_name", "not_nullable")}


async def test_what_a_role_may_not_write_is_refused_item_by_item(
    leader: httpx.AsyncClient, na_day: Place, superuser: AsyncEngine
) -> None:
    before = await rows(superuser)
    link = "https://zalo.me/g/abc"
    results = await send(
        leader,
        teams=[
            create(team(na_day)),
            update(na_day.team["id"], '"1"', zalo_group_url=link),
            update(na_day.team["id"], "*", name="Tên khác"),
            delete(na_day.team["id"]),
        ],
        members=[create(member(na_day.team["id"]))],
    )
    refused = (403, "rejected")
    assert outcomes(results) == [refused, refused, (200, "updated"), refused, refused]
    assert results[0]["problem"]["code"] == "insufficient_role"
    officer = await send(na_day.admin, support_events=[create(na_day.event())])
    assert outcomes(officer) == [refused]
    assert await rows(superuser) == before


async def test_a_member_without_the_role_sends_no_batch(as_: As, na_day: Place) -> None:
    for role in (Role.ioc_reader, Role.auditor):
        reader = await as_(role, at=MUONG_KHUONG)
        response = await reader.post(BATCH, json={"support_events": [create(na_day.event())]})
        assert (response.status_code, response.json()["code"]) == (403, "insufficient_role")


async def test_a_wrong_envelope_refuses_the_whole(
    leader: httpx.AsyncClient, na_day: Place, superuser: AsyncEngine
) -> None:
    before = await rows(superuser)
    good = create(na_day.event())
    many = [create(na_day.event()) for _ in range(251)]
    homes = [create(household(na_day)) for _ in range(250)]
    cases: list[tuple[Any, set[tuple[str, str]]]] = [
        ({"support_events": many + many[:250]}, {("/support_events", "too_long")}),
        ({"support_events": many, "households": homes}, {("", "too_long")}),
        ({"support_events": [good], "events": []}, {("/events", "extra_forbidden")}),
        ({"support_events": good}, {("/support_events", "wrong_type")}),
        ({"support_events": [good, {**good, "op": "drop"}]}, {("/support_events/1/op", "enum")}),
        ({"support_events": [{**good, "id": "x"}]}, {("/support_events/0/id", "uuid_invalid")}),
        ({"support_events": [{"op": "create"}]}, {("/support_events/0/id", "missing")}),
        ({"support_events": [{**good, "x": 1}]}, {("/support_events/0/x", "extra_forbidden")}),
        ({"support_events": [{**good, "data": []}]}, {("/support_events/0/data", "wrong_type")}),
        ({"support_events": [good], "atomic": "yes"}, {("/atomic", "wrong_type")}),
        ({"support_events": [good], "sent_at": "2025-08-01T09:00:00"},
         {("/sent_at", "timezone_aware")}),
        ([good], {("", "wrong_type")}),
    ]  # fmt: skip
    for body, wrong in cases:
        response = await leader.post(BATCH, json=body)
        assert response.status_code == 422, response.text
        errors = response.json()["errors"]
        assert {(error["pointer"], error["code"]) for error in errors} == wrong
    assert await rows(superuser) == before
    assert await send(leader) == []
    described = {"device_id": "máy-1", "device_sequence": 7, "sent_at": "2025-08-01T09:00:00Z"}
    assert outcomes(await send(leader, support_events=[good], **described)) == [(201, "created")]


async def test_each_bad_event_is_refused_alone_and_by_its_name(
    portal: httpx.AsyncClient, lao_cai: Province, as_: As
) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    ended = await make(here.admin, "teams", **team(here, dissolved_on="2025-07-31"))
    capital = await as_(Role.portal_client, at=HOAN_KIEM)
    soon = (datetime.now(UTC) + timedelta(hours=25)).isoformat()
    cases: list[tuple[dict[str, Any], tuple[str, str]]] = [
        ({"quantity": 0}, ("/quantity", "greater_than_equal")),
        ({"quantity": 10**12}, ("/quantity", "less_than_equal")),
        ({"occurred_at": "2025-07-01T23:59:00+07:00"}, ("/occurred_at", "before_founding")),
        ({"team_id": ended["id"], "occurred_at": "2025-08-01T00:00:00+07:00"},
         ("/occurred_at", "after_dissolution")),
        ({"occurred_at": soon}, ("/occurred_at", "in_the_future")),
        ({"occurred_at": "2025-08-01T09:00:00"}, ("/occurred_at", "timezone_aware")),
        ({"service_type": "HL.DECLARE"}, ("/service_type", "service_inactive")),
        ({"service_type": "NO.SUCH"}, ("/service_type", "not_found")),
        ({"household_id": str(ids.new_id())}, ("/household_id", "not_found")),
        ({"member_ids": [there.leader["id"]]}, ("/member_ids/0", "not_in_team")),
        ({"unit_id": str(HOAN_KIEM)}, ("/unit_id", "outside_province")),
        ({"team_id": str(ids.new_id())}, ("/team_id", "not_found")),
        ({"note": "a\x00b"}, ("/note", "control_character")),
    ]  # fmt: skip
    items = [create(here.event(**changes)) for changes, _ in cases]
    results = await send(portal, support_events=[*items, create(here.event())])
    for result, (changes, fault) in zip(results, cases, strict=False):
        assert (result["status"], faults(result)) == (422, {fault}), changes
    assert outcomes(results[-1:]) == [(201, "created")]
    foreign = create(here.event(household_id=here.household["id"]))
    (hidden,) = await send(capital, support_events=[foreign])
    assert faults(hidden) == {("/team_id", "not_found")}


async def test_a_body_of_fifty_megabytes_is_not_read(portal: httpx.AsyncClient) -> None:
    response = await portal.post(BATCH, content=b"[" * 50_000_000, headers=JSON)
    assert (response.status_code, response.json()["code"]) == (413, "payload_too_large")


async def test_an_external_id_that_is_taken_refuses_only_its_item(
    portal: httpx.AsyncClient, as_: As, lao_cai: Province
) -> None:
    here = lao_cai.muong_khuong
    other = await as_(Role.portal_client, at=lao_cai.unit_id)
    await make(other, "support-events", **here.event(external_ids={"theirs": "1"}))
    sent = [
        create(here.event(external_ids=named))
        for named in (
            {"mine": "1"},
            {"mine": "1"},
            {"theirs": "2"},
            {"mine": "2"},
            {"mine": "3", "theirs": "1"},
            {},
        )
    ]
    results = await send(portal, support_events=sent)
    statuses = [result["status"] for result in results]
    assert sorted(statuses[:2]) == [201, 409]
    assert statuses[2:] == [409, 201, 409, 201]
    assert results[2]["problem"]["code"] == "external_id_conflict"
    assert faults(results[2]) == {("/external_ids/theirs", "taken")}
    events = (await portal.get("/v1/support-events", params={"include_total": True})).json()
    assert events["total"] == 4
    again = [result["status"] for result in await send(portal, support_events=sent)]
    assert again == [200 if status == 201 else status for status in statuses]


async def test_sixteen_workers_with_overlapping_batches_write_each_row_once(
    portal: httpx.AsyncClient, na_day: Place, superuser: AsyncEngine
) -> None:
    before = await rows(superuser)
    homes = [create(household(na_day)) for _ in range(12)]
    events = [
        create(
            na_day.event(household_id=homes[number % 12]["id"], external_ids={"phone": str(number)})
        )
        for number in range(120)
    ]
    draw = random.Random(7)

    async def work(_worker: int) -> list[dict[str, Any]]:
        return await send(
            portal,
            households=draw.sample(homes, 12),
            support_events=draw.sample(events, 60),
        )

    answers = await asyncio.gather(*(work(worker) for worker in range(16)))
    results = [result for answer in answers for result in answer]
    assert {result["outcome"] for result in results} == {"created", "unchanged"}
    created = Counter(r["id"] for r in results if r["outcome"] == "created")
    assert set(created.values()) == {1}
    assert set(created) == {result["id"] for result in results}
    after = await rows(superuser)
    assert after["household"] == before["household"] + 12
    assert after["support_event"] == len({r["id"] for r in results}) - 12
    whole = await send(portal, households=homes, support_events=events)
    assert Counter(result["outcome"] for result in whole)["unchanged"] >= len(created)
    assert (await rows(superuser))["support_event"] == 120


async def test_a_batch_speaks_the_callers_language(
    leader: httpx.AsyncClient, na_day: Place
) -> None:
    response = await leader.post(
        BATCH,
        json={"support_events": [create(na_day.event(quantity=0))]},
        headers={"Accept-Language": "vi", "X-Request-Id": "phone-1"},
    )
    problem = response.json()["results"][0]["problem"]
    assert problem["title"] == "Dữ liệu chưa đúng"
    assert problem["request_id"] == "phone-1"
    assert UUID(response.json()["results"][0]["id"])
