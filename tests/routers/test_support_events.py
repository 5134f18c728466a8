"""Support events, over HTTP."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api import ids
from api.models.role_grants import Role
from tests.factories import (
    BAO_THANG,
    HA_NOI,
    HOAN_KIEM,
    LAO_CAI,
    MUONG_KHUONG,
    OLD_MUONG_KHUONG,
    As,
    Place,
    Province,
    make,
)
from tests.statements import statements

EVENTS = "/v1/support-events"
ANYTHING = {"If-Match": "*"}


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


def faults(response: httpx.Response) -> set[tuple[str, str]]:
    """Return what a refusal finds wrong, as (pointer, code)."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    return {(error["pointer"], error["code"]) for error in response.json()["errors"]}


async def refuse(
    client: httpx.AsyncClient, body: dict[str, Any], status: int, code: str
) -> httpx.Response:
    """POST an event that must be refused."""
    response = await client.post(EVENTS, json=body)
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    return response


async def join(place: Place, name: str = "Sùng Thị", **stay: str) -> dict[str, Any]:
    """Make a member of a place's team."""
    stay = {"team_id": place.team["id"], "role": "member", "joined_on": "2025-07-02"} | stay
    return await make(place.admin, "members", full_name=name, memberships=[stay])


async def walk(client: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    """Return every item of a list, page by page."""
    items: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        response = await client.get(EVENTS, params=query | cursor)
        assert response.status_code == 200, response.text
        page = response.json()
        items += page["items"]
        if page["next_cursor"] is None:
            return items
        cursor = {"cursor": page["next_cursor"]}


async def test_an_event_is_one_act_at_the_teams_unit_unless_it_says_otherwise(
    leader: httpx.AsyncClient, na_day: Place
) -> None:
    response = await leader.post(EVENTS, json=na_day.event())
    assert response.status_code == 201
    event = response.json()
    assert event["quantity"] == 1
    assert event["unit_id"] == na_day.team["unit_id"]
    assert event["status"] == "submitted"
    assert event["member_ids"] == []
    assert event["external_ids"] == {}
    assert event["masked"] == []
    assert event["occurred_at"] == "2025-08-01T02:00:00Z"
    assert event["recorded_at"] == event["created_at"]
    assert response.headers["etag"] == '"1"'
    assert response.headers["location"] == f"{EVENTS}/{event['id']}"
    read = await leader.get(response.headers["location"])
    assert (read.status_code, read.headers["etag"], read.json()) == (200, '"1"', event)


async def test_an_event_keeps_what_it_was_given(leader: httpx.AsyncClient, na_day: Place) -> None:
    member = await join(na_day)
    given = na_day.event(
        id=str(ids.new_id()),
        member_ids=[member["id"], na_day.leader["id"]],
        household_id=na_day.household["id"],
        unit_id=str(MUONG_KHUONG),
        quantity=1_000_000,
        outcome="referred",
        mode="on_behalf",
        channel="market",
        external_ids={"zalo": "a:1"},
        beneficiary={"age_band": "60_plus", "gender": "female"},
        lat=22.76,
        lon=104,
        note=" Dạy quét mã\r\nQR ",
    )
    event = await make(leader, "support-events", **given)
    kept = given | {
        "occurred_at": "2025-08-01T02:00:00Z",
        "note": "Dạy quét mã\nQR",
    }
    assert {name: event[name] for name in kept} == kept


async def test_the_list_is_newest_first_and_filters(
    leader: httpx.AsyncClient, portal: httpx.AsyncClient, lao_cai: Province
) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    mine = {"member_ids": [here.leader["id"]], "household_id": here.household["id"]}
    old = await make(leader, "support-events", **here.event(**mine))
    new = await make(
        leader,
        "support-events",
        **here.event(
            service_type="PY.BANK", outcome="attempted", occurred_at="2025-08-02T00:30:00+07:00"
        ),
    )
    far = await make(
        portal, "support-events", **there.event(occurred_at="2025-08-01T12:00:00+07:00")
    )
    expected: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
        ({}, [new, far, old]),
        ({"sort": "occurred_at"}, [old, far, new]),
        ({"unit_id": str(LAO_CAI)}, [new, far, old]),
        ({"unit_id": str(BAO_THANG)}, [far]),
        ({"unit_id": [str(BAO_THANG), here.village["id"]]}, [new, far, old]),
        ({"unit_id": str(HA_NOI)}, []),
        ({"team_id": here.team["id"]}, [new, old]),
        ({"member_id": here.leader["id"]}, [old]),
        ({"member_id": there.leader["id"]}, []),
        ({"service_type": "PY.BANK"}, [new]),
        ({"service_type": ["PY.BANK", "ID.ACTIVATE"]}, [new, far, old]),
        ({"status": "submitted"}, [new, far, old]),
        ({"status": "voided"}, []),
        ({"outcome": "attempted"}, [new]),
        ({"occurred_at_gte": "2025-08-01T17:30:00Z"}, [new]),
        ({"occurred_at_lt": "2025-08-01T17:30:00Z"}, [far, old]),
        (
            {"occurred_at_gte": old["occurred_at"], "occurred_at_lt": far["occurred_at"]},
            [old],
        ),
    ]
    for query, events in expected:
        found = [item["id"] for item in await walk(portal, **query)]
        assert found == [event["id"] for event in events], query
    by_household = await walk(leader, household_id=here.household["id"])
    assert [item["id"] for item in by_household] == [old["id"]]
    counted = await portal.get(EVENTS, params={"include_total": True, "limit": 1})
    assert counted.json()["total"] == 3
    assert 'rel="next"' in counted.headers["link"]


async def test_a_walk_shows_each_event_once_while_others_write(
    leader: httpx.AsyncClient, na_day: Place
) -> None:
    moments = [f"2025-08-{day:02}T{9 + day % 2:02}:00:00+07:00" for day in range(1, 29)]
    stood = [
        (await make(leader, "support-events", **na_day.event(occurred_at=moment)))["id"]
        for moment in moments
        for _ in range(2)
    ]

    async def write(day: int) -> None:
        for moment in (f"2025-07-{day:02}T09:00:00Z", f"2025-09-{day:02}T09:00:00Z", moments[day]):
            await make(leader, "support-events", **na_day.event(occurred_at=moment))

    walked, *_ = await asyncio.gather(walk(leader, limit=3), *(write(day) for day in range(3, 18)))
    seen = Counter(item["id"] for item in walked)
    assert set(stood) <= set(seen)
    assert set(seen.values()) == {1}
    order = [(item["occurred_at"], item["id"]) for item in walked]
    assert order == sorted(order, reverse=True)


async def test_a_cursor_belongs_to_its_query(leader: httpx.AsyncClient, na_day: Place) -> None:
    for _ in range(2):
        await make(leader, "support-events", **na_day.event())
    page = (await leader.get(EVENTS, params={"limit": 1})).json()
    for query in ({"cursor": page["next_cursor"], "outcome": "guided"}, {"cursor": "x"}):
        foreign = await leader.get(EVENTS, params=query)
        assert (foreign.status_code, foreign.json()["code"]) == (400, "cursor_invalid")


async def test_a_correction_is_a_new_version(leader: httpx.AsyncClient, na_day: Place) -> None:
    event = await make(leader, "support-events", **na_day.event(note="sai"))
    path = f"{EVENTS}/{event['id']}"
    change = {"quantity": 3, "note": None, "occurred_at": "2025-08-03T09:00:00+07:00"}
    missing = await leader.patch(path, json=change)
    assert (missing.status_code, missing.json()["code"]) == (428, "precondition_required")
    done = await leader.patch(path, json=change, headers={"If-Match": '"1"'})
    assert done.status_code == 200, done.text
    assert done.headers["etag"] == '"2"'
    corrected = done.json()
    assert (corrected["quantity"], corrected["note"], corrected["version"]) == (3, None, 2)
    assert corrected["occurred_at"] == "2025-08-03T02:00:00Z"
    assert (await leader.get(path)).json() == corrected
    stale = await leader.patch(path, json={"quantity": 4}, headers={"If-Match": '"1"'})
    assert (stale.status_code, stale.headers["etag"]) == (412, '"2"')
    assert stale.json()["current"] == corrected
    same = await leader.patch(path, json={"quantity": 3}, headers={"If-Match": '"2"'})
    assert (same.status_code, same.headers["etag"]) == (200, '"2"')


async def test_a_correction_merges_the_beneficiary(
    leader: httpx.AsyncClient, na_day: Place, superuser: AsyncEngine
) -> None:
    who = {"age_band": "16_30", "gender": "male", "identifier": "010203004567"}
    event = await make(leader, "support-events", **na_day.event(beneficiary=who))
    path = f"{EVENTS}/{event['id']}"

    async def hashed() -> bytes | None:
        async with superuser.connect() as connection:
            found: bytes | None = await connection.scalar(
                text("select beneficiary_hash from support_event")
            )
            return found

    before = await hashed()
    assert before
    same = await leader.patch(path, json={"beneficiary": who}, headers=ANYTHING)
    assert same.json()["version"] == 1
    merged = await leader.patch(path, json={"beneficiary": {"gender": "female"}}, headers=ANYTHING)
    assert merged.json()["beneficiary"] == {"age_band": "16_30", "gender": "female"}
    assert await hashed() == before
    removed = await leader.patch(path, json={"beneficiary": None}, headers=ANYTHING)
    assert removed.json()["beneficiary"] is None
    assert await hashed() is None


async def test_a_correction_is_checked_like_a_new_event(
    leader: httpx.AsyncClient, lao_cai: Province
) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    event = await make(leader, "support-events", **here.event())
    path = f"{EVENTS}/{event['id']}"
    cases: list[tuple[dict[str, Any], tuple[str, str]]] = [
        ({"service_type": "HL.DECLARE"}, ("/service_type", "service_inactive")),
        ({"service_type": "NO.SUCH"}, ("/service_type", "not_found")),
        ({"occurred_at": "2025-07-01T00:00:00+07:00"}, ("/occurred_at", "before_founding")),
        ({"household_id": there.household["id"]}, ("/household_id", "not_found")),
        ({"member_ids": [there.leader["id"]]}, ("/member_ids/0", "not_in_team")),
        ({"unit_id": str(HOAN_KIEM)}, ("/unit_id", "outside_province")),
        ({"unit_id": str(LAO_CAI)}, ("/unit_id", "wrong_level")),
        ({"quantity": None}, ("/quantity", "not_nullable")),
        ({"team_id": there.team["id"]}, ("/team_id", "extra_forbidden")),
        ({"status": "verified"}, ("/status", "extra_forbidden")),
    ]
    for change, fault in cases:
        response = await leader.patch(path, json=change, headers=ANYTHING)
        assert response.status_code == 422, (change, response.text)
        assert faults(response) == {fault}
    assert (await leader.get(path)).json() == event
    moved = await leader.patch(path, json={"unit_id": str(BAO_THANG)}, headers=ANYTHING)
    assert moved.json()["unit_id"] == str(BAO_THANG)


async def test_a_correction_does_not_judge_anew_what_it_leaves(
    leader: httpx.AsyncClient, na_day: Place
) -> None:
    home = na_day.household["id"]
    event = await make(leader, "support-events", **na_day.event(household_id=home))
    gone = await na_day.admin.delete(f"/v1/households/{home}", headers=ANYTHING)
    assert gone.status_code == 204
    path = f"{EVENTS}/{event['id']}"
    corrected = await leader.patch(path, json={"quantity": 2}, headers=ANYTHING)
    assert corrected.status_code == 200, corrected.text
    assert corrected.json()["household_id"] == home


async def test_events_are_never_deleted(leader: httpx.AsyncClient, na_day: Place) -> None:
    event = await make(leader, "support-events", **na_day.event())
    response = await leader.delete(f"{EVENTS}/{event['id']}", headers=ANYTHING)
    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
    assert set(response.headers["allow"].split(", ")) == {"GET", "PATCH"}


async def test_the_same_create_again_is_the_same_event(
    leader: httpx.AsyncClient, na_day: Place
) -> None:
    body = na_day.event(id=str(ids.new_id()), member_ids=[na_day.leader["id"]], note="lần một")
    body["external_ids"] = {"zalo": "1", "phone": "2"}
    assert (await leader.post(EVENTS, json=body)).status_code == 201
    path = f"{EVENTS}/{body['id']}"
    edited = await leader.patch(path, json={"note": "khác"}, headers=ANYTHING)
    left = await na_day.admin.put(
        f"/v1/memberships/{na_day.team['id']}/{na_day.leader['id']}",
        json={"role": "leader", "joined_on": "2025-07-02", "left_on": "2025-07-03"},
    )
    assert left.status_code == 200, left.text
    other = {"quantity": 1, "occurred_at": "2025-08-01T02:00:00.000Z", "lat": None}
    for again in (body, body | other | {"external_ids": {"phone": "2", "zalo": "1"}}):
        response = await leader.post(EVENTS, json=again)
        assert response.status_code == 200, response.text
        assert response.json() == edited.json()
        assert response.headers["etag"] == '"2"'


async def test_an_id_is_taken_in_the_same_words_whoever_took_it(
    leader: httpx.AsyncClient, lao_cai: Province
) -> None:
    neighbour = await lao_cai.leader_of(lao_cai.bao_thang)
    mine = lao_cai.muong_khuong.event(id=str(ids.new_id()))
    theirs = lao_cai.bao_thang.event(id=str(ids.new_id()))
    await make(leader, "support-events", **mine)
    await make(neighbour, "support-events", **theirs)
    answers = []
    for taken in (mine["id"], theirs["id"]):
        other = lao_cai.muong_khuong.event(id=taken, quantity=2)
        response = await refuse(leader, other, 409, "id_conflict")
        answers.append({**response.json(), "request_id": None})
    assert answers[0] == answers[1]


async def test_of_twenty_equal_creates_at_once_one_is_new(
    leader: httpx.AsyncClient, na_day: Place, superuser: AsyncEngine
) -> None:
    body = na_day.event(id=str(ids.new_id()), external_ids={"phone-1": "17"})
    answers = await asyncio.gather(*(leader.post(EVENTS, json=body) for _ in range(20)))
    assert Counter(answer.status_code for answer in answers) == {201: 1, 200: 19}
    assert len({answer.text for answer in answers}) == 1
    async with superuser.connect() as connection:
        assert await connection.scalar(text("select count(*) from support_event")) == 1


async def test_a_foreign_team_looks_like_none(
    leader: httpx.AsyncClient, portal: httpx.AsyncClient, as_: As, lao_cai: Province
) -> None:
    ha_noi = await as_(Role.portal_client, at=HA_NOI)
    there = lao_cai.bao_thang
    for client, team in ((leader, there.team["id"]), (ha_noi, there.team["id"])):
        foreign = await refuse(client, there.event(team_id=team), 422, "validation_failed")
        absent = await refuse(
            client, there.event(team_id=str(ids.new_id())), 422, "validation_failed"
        )
        assert faults(foreign) == {("/team_id", "not_found")}
        assert {**foreign.json(), "request_id": 0} == {**absent.json(), "request_id": 0}
    gone = await there.admin.delete(f"/v1/teams/{there.team['id']}", headers=ANYTHING)
    assert gone.status_code == 204
    hidden = await refuse(portal, there.event(), 422, "validation_failed")
    assert faults(hidden) == {("/team_id", "not_found")}


async def test_references_must_fit_the_team_and_the_day(
    leader: httpx.AsyncClient, lao_cai: Province
) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    gone = await join(here, left_on="2025-07-31")
    village = await make(
        here.admin,
        "admin-units",
        level="village",
        name="Thôn Mới",
        type="thôn",
        parent_id=str(MUONG_KHUONG),
        valid_from="2025-09-01",
    )
    soon = (datetime.now(UTC) + timedelta(hours=25)).isoformat()
    unknown = str(ids.new_id())
    cases: list[tuple[dict[str, Any], set[tuple[str, str]]]] = [
        ({"unit_id": str(HOAN_KIEM)}, {("/unit_id", "outside_province")}),
        ({"unit_id": str(HA_NOI)}, {("/unit_id", "outside_province")}),
        ({"unit_id": str(LAO_CAI)}, {("/unit_id", "wrong_level")}),
        ({"unit_id": unknown}, {("/unit_id", "not_found")}),
        ({"unit_id": village["id"]}, {("/unit_id", "before_unit")}),
        ({"household_id": there.household["id"]}, {("/household_id", "not_found")}),
        ({"household_id": unknown}, {("/household_id", "not_found")}),
        ({"member_ids": [there.leader["id"]]}, {("/member_ids/0", "not_in_team")}),
        ({"member_ids": [here.leader["id"], unknown]}, {("/member_ids/1", "not_in_team")}),
        ({"member_ids": [gone["id"]]}, {("/member_ids/0", "not_in_team")}),
        ({"member_ids": [here.leader["id"]] * 2}, {("/member_ids", "duplicate")}),
        ({"service_type": "HL.DECLARE"}, {("/service_type", "service_inactive")}),
        ({"service_type": "NO.SUCH"}, {("/service_type", "not_found")}),
        ({"occurred_at": "2025-07-01T23:59:00+07:00"}, {("/occurred_at", "before_founding")}),
        ({"occurred_at": soon}, {("/occurred_at", "in_the_future")}),
        (
            {"occurred_at": soon, "service_type": "NO.SUCH", "household_id": unknown},
            {
                ("/occurred_at", "in_the_future"),
                ("/service_type", "not_found"),
                ("/household_id", "not_found"),
            },
        ),
    ]
    for changes, wrong in cases:
        response = await refuse(leader, here.event(**changes), 422, "validation_failed")
        assert faults(response) == wrong, changes
    assert await walk(leader) == []
    tomorrow = (datetime.now(UTC) + timedelta(hours=23)).isoformat()
    await make(leader, "support-events", **here.event(occurred_at=tomorrow))
    await make(leader, "support-events", **here.event(occurred_at="2025-07-02T00:00:00+07:00"))


async def test_a_clock_that_runs_ahead_is_believed_for_a_day_and_flagged(
    leader: httpx.AsyncClient, na_day: Place
) -> None:
    for hours, ahead in ((-1, False), (1, True), (23, True)):
        moment = (datetime.now(UTC) + timedelta(hours=hours)).isoformat()
        made = await make(leader, "support-events", **na_day.event(occurred_at=moment))
        read = (await leader.get(f"/v1/support-events/{made['id']}")).json()
        assert made["clock_skew"] is read["clock_skew"] is ahead
    assert sorted(event["clock_skew"] for event in await walk(leader)) == [False, True, True]
    late = (datetime.now(UTC) + timedelta(hours=24, minutes=1)).isoformat()
    response = await refuse(leader, na_day.event(occurred_at=late), 422, "validation_failed")
    assert faults(response) == {("/occurred_at", "in_the_future")}


async def test_a_dissolved_team_has_events_until_its_last_day(
    portal: httpx.AsyncClient, na_day: Place
) -> None:
    path = f"/v1/teams/{na_day.team['id']}"
    ended = await na_day.admin.patch(path, json={"dissolved_on": "2025-12-31"}, headers=ANYTHING)
    assert ended.status_code == 200
    await make(portal, "support-events", **na_day.event(occurred_at="2025-12-31T23:59:00+07:00"))
    late = na_day.event(occurred_at="2026-01-01T00:00:00+07:00")
    response = await refuse(portal, late, 422, "validation_failed")
    assert faults(response) == {("/occurred_at", "after_dissolution")}


@pytest.fixture
async def old_team(na_day: Place) -> dict[str, Any]:
    """A team that the former commune of Mường Khương founded in 2022."""
    return await make(
        na_day.admin,
        "teams",
        name="Tổ công nghệ số thị trấn",
        unit_id=str(OLD_MUONG_KHUONG),
        kind="community_team",
        founded_on="2022-06-01",
    )


async def test_a_dissolved_unit_names_its_successors(
    portal: httpx.AsyncClient, na_day: Place, old_team: dict[str, Any]
) -> None:
    event = na_day.event(team_id=old_team["id"], occurred_at="2026-02-01T09:00:00+07:00")
    for body in (event, na_day.event(unit_id=str(OLD_MUONG_KHUONG))):
        response = await refuse(portal, body, 409, "unit_dissolved")
        assert faults(response) == {("/unit_id", "unit_dissolved")}
        (successor,) = response.json()["successors"]
        assert (successor["unit_id"], successor["code"]) == (str(MUONG_KHUONG), "02761")
    await make(portal, "support-events", **event, unit_id=str(MUONG_KHUONG))
    then = await make(
        portal, "support-events", **event | {"occurred_at": "2025-06-30T23:59:00+07:00"}
    )
    assert then["unit_id"] == str(OLD_MUONG_KHUONG)
    early = event | {"occurred_at": "2025-06-30T09:00:00+07:00", "unit_id": str(MUONG_KHUONG)}
    response = await refuse(portal, early, 422, "validation_failed")
    assert faults(response) == {("/unit_id", "before_unit")}


async def test_a_team_of_a_dissolved_unit_stays_in_its_province(
    portal: httpx.AsyncClient, na_day: Place, old_team: dict[str, Any]
) -> None:
    event = na_day.event(team_id=old_team["id"], occurred_at="2026-02-01T09:00:00+07:00")
    for unit in (HOAN_KIEM, HA_NOI):
        response = await refuse(portal, event | {"unit_id": str(unit)}, 422, "validation_failed")
        assert faults(response) == {("/unit_id", "outside_province")}
    there = await make(portal, "support-events", **event, unit_id=str(BAO_THANG))
    assert there["unit_id"] == str(BAO_THANG)


async def test_a_retired_service_counts_until_its_last_day(
    portal: httpx.AsyncClient, na_day: Place, old_team: dict[str, Any]
) -> None:
    event = na_day.event(team_id=old_team["id"], service_type="HL.DECLARE")
    last = "2023-10-20T23:59:00+07:00"
    await make(portal, "support-events", **event | {"occurred_at": last})
    late = event | {"occurred_at": "2023-10-21T00:00:00+07:00"}
    response = await refuse(portal, late, 422, "validation_failed")
    assert faults(response) == {("/service_type", "service_inactive")}


WRONG: list[tuple[str, list[Any]]] = [
    ("quantity", [0, -1, 10**12, 1.5, "3", True, None, [1]]),
    ("occurred_at", ["2025-08-01T09:00:00", "2025-08-01", 1754013600, "hôm qua", None]),
    ("occurred_at", ["1899-12-31T00:00:00Z", "2201-01-01T00:00:00Z", "2025-02-30T00:00:00Z"]),
    ("outcome", ["done", None, 1]),
    ("mode", ["", None]),
    ("channel", ["tv", None]),
    ("lat", [90.1, "22", True]),
    ("lon", [-181, "104"]),
    ("note", ["", " ", "x" * 2001, "a\x00b", 5]),
    ("household_id", ["", "x", 7]),
    ("member_ids", ["x", None]),
    ("service_type", ["", "a b", None, "x" * 41]),
    ("external_ids", [{"": "1"}, {"zalo": ""}, {"zalo": "a\x00"}, {"a b": "1"}, [], None]),
    ("beneficiary", [{"age_band": "old"}, {"identifier": "1\x002345"}, {"name": "x"}, 3]),
    ("status", ["verified"]),
    ("recorded_at", ["2025-08-01T09:00:00Z"]),
    ("id", ["x", 5]),
]


async def test_a_wrong_value_is_refused_by_its_name(
    leader: httpx.AsyncClient, na_day: Place
) -> None:
    for field, values in WRONG:
        for value in values:
            body = na_day.event(**{field: value})
            response = await refuse(leader, body, 422, "validation_failed")
            pointers = {pointer.split("/")[1] for pointer, _ in faults(response)}
            assert pointers == {field}, value
    assert await walk(leader) == []


async def test_a_beneficiarys_identifier_is_kept_as_a_keyed_hash_only(
    leader: httpx.AsyncClient, na_day: Place, superuser: AsyncEngine
) -> None:
    identifier = "010203004567"
    who = {"age_band": "31_59", "identifier": identifier}
    body = na_day.event(beneficiary=who)
    answers = [await leader.post(EVENTS, json=body) for _ in range(2)]
    read = await leader.get(f"{EVENTS}/{answers[0].json()['id']}")
    assert read.json()["beneficiary"] == {"age_band": "31_59", "gender": None}
    listed = await leader.get(EVENTS)
    for answer in (*answers, read, listed):
        assert identifier not in answer.text
    async with superuser.connect() as connection:
        rows = await connection.execute(text("select e::text as row, e.* from support_event e"))
        stored = rows.all()
        plain = await connection.scalar(
            text("select sha256(convert_to(:identifier, 'UTF8'))"), {"identifier": identifier}
        )
    assert len({row.beneficiary_hash for row in stored}) == 1
    assert all(len(row.beneficiary_hash) == 32 for row in stored)
    assert all(identifier not in row.row for row in stored)
    assert all(row.beneficiary_hash != plain for row in stored)


PERSONAL = {
    "beneficiary": {"gender": "female"},
    "lat": 22.7,
    "lon": 104.1,
    "note": "Nhà bà Mỷ",
}


async def test_personal_fields_are_masked_for_the_province(
    leader: httpx.AsyncClient, as_: As, na_day: Place
) -> None:
    home = na_day.household["id"]
    event = await make(leader, "support-events", **na_day.event(household_id=home, **PERSONAL))
    bare = await make(leader, "support-events", **na_day.event())
    for role in (Role.province_admin, Role.auditor):
        officer = await as_(role, at=LAO_CAI)
        seen = (await officer.get(f"{EVENTS}/{event['id']}")).json()
        hidden = {"household_id", *PERSONAL}
        assert {name for name in hidden if seen[name] is not None} == set()
        assert set(seen["masked"]) == hidden
        assert (await officer.get(f"{EVENTS}/{bare['id']}")).json()["masked"] == []
        assert await walk(officer, household_id=home) == []
        assert await walk(officer, household_id=str(ids.new_id())) == []
    commune = await as_(Role.commune_admin, at=MUONG_KHUONG)
    assert (await commune.get(f"{EVENTS}/{event['id']}")).json() == event
    assert [item["id"] for item in await walk(commune, household_id=home)] == [event["id"]]


async def test_a_portal_sees_in_clear_what_it_wrote(
    leader: httpx.AsyncClient, portal: httpx.AsyncClient, na_day: Place
) -> None:
    home = na_day.household["id"]
    own = await make(portal, "support-events", **na_day.event(household_id=home, **PERSONAL))
    assert own["masked"] == []
    assert own["note"] == PERSONAL["note"]
    other = await make(leader, "support-events", **na_day.event(household_id=home, **PERSONAL))
    seen = (await portal.get(f"{EVENTS}/{other['id']}")).json()
    assert set(seen["masked"]) == {"household_id", *PERSONAL}
    found = await walk(portal, household_id=home)
    assert [item["id"] for item in found] == [own["id"]]


async def test_a_guess_at_a_masked_field_is_not_confirmed(
    leader: httpx.AsyncClient, portal: httpx.AsyncClient, na_day: Place
) -> None:
    events = [
        await make(leader, "support-events", **na_day.event(note="đúng", beneficiary=who))
        for who in ({"gender": "male"}, {"gender": "female"})
    ]
    guess = {"note": "đúng", "beneficiary": {"gender": "male"}}
    for event in events:
        for change in ({"note": guess["note"]}, {"beneficiary": guess["beneficiary"]}):
            path = f"{EVENTS}/{event['id']}"
            before = (await portal.get(path)).json()["version"]
            done = await portal.patch(path, json=change, headers=ANYTHING)
            assert done.json()["version"] == before + 1


async def test_a_member_records_and_corrects_only_what_it_took_part_in(
    leader: httpx.AsyncClient, as_: As, na_day: Place
) -> None:
    person = await join(na_day)
    member = await as_(
        Role.team_member,
        at=UUID(na_day.village["id"]),
        team=UUID(na_day.team["id"]),
        member=UUID(person["id"]),
    )
    alone = await refuse(member, na_day.event(), 422, "validation_failed")
    assert faults(alone) == {("/member_ids", "not_participant")}
    other = na_day.event(member_ids=[na_day.leader["id"]])
    response = await refuse(member, other, 422, "validation_failed")
    assert faults(response) == {("/member_ids", "not_participant")}
    both = [na_day.leader["id"], person["id"]]
    own = await make(member, "support-events", **na_day.event(member_ids=both))
    done = await member.patch(f"{EVENTS}/{own['id']}", json={"quantity": 2}, headers=ANYTHING)
    assert done.status_code == 200, done.text
    leaving = {"member_ids": [na_day.leader["id"]]}
    left = await member.patch(f"{EVENTS}/{own['id']}", json=leaving, headers=ANYTHING)
    assert faults(left) == {("/member_ids", "not_participant")}
    others = await make(leader, "support-events", **other)
    seen = await member.get(f"{EVENTS}/{others['id']}")
    assert seen.status_code == 200
    refused = await member.patch(f"{EVENTS}/{others['id']}", json={"quantity": 2}, headers=ANYTHING)
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_role")
    by_leader = await leader.patch(f"{EVENTS}/{own['id']}", json={"quantity": 5}, headers=ANYTHING)
    assert by_leader.status_code == 200


async def test_an_event_elsewhere_is_read_there_and_at_home(
    leader: httpx.AsyncClient, as_: As, lao_cai: Province
) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    body = here.event(unit_id=there.village["id"], note="chợ phiên")
    event = await make(leader, "support-events", **body)
    path = f"{EVENTS}/{event['id']}"
    found = await there.admin.get("/v1/admin-units", params={"parent_id": str(LAO_CAI)})
    near = {str(MUONG_KHUONG), str(BAO_THANG)}
    third = next(unit["id"] for unit in found.json()["items"] if unit["id"] not in near)
    stranger = await as_(Role.commune_admin, at=third)
    assert (await leader.get(path)).json() == event
    for officer in (here.admin, there.admin):
        assert (await officer.get(path)).json() == event
        assert [item["id"] for item in await walk(officer)] == [event["id"]]
    neighbour = await lao_cai.leader_of(there)
    for other in (stranger, neighbour):
        assert (await other.get(path)).status_code == 404
        assert await walk(other) == []


async def test_whoever_reads_only_totals_reads_no_event(
    leader: httpx.AsyncClient, as_: As, na_day: Place
) -> None:
    event = await make(leader, "support-events", **na_day.event())
    for role, at in ((Role.ioc_reader, LAO_CAI), (Role.partner, LAO_CAI), (Role.dpo, LAO_CAI)):
        reader = await as_(role, at=at)
        for path in (EVENTS, f"{EVENTS}/{event['id']}"):
            response = await reader.get(path)
            assert (response.status_code, response.json()["code"]) == (403, "insufficient_role")
        await refuse(reader, na_day.event(), 403, "insufficient_role")
    officer = await as_(Role.commune_admin, at=MUONG_KHUONG)
    await refuse(officer, na_day.event(), 403, "insufficient_role")


async def test_five_hundred_events_take_as_many_statements_as_one(
    app: FastAPI, portal: httpx.AsyncClient, na_day: Place
) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "created": {
            "member_ids": [na_day.leader["id"]],
            "household_id": na_day.household["id"],
        },
        "rejected": {"unit_id": str(OLD_MUONG_KHUONG)},
        "unchanged": {},
    }
    ready = na_day.event()
    again = [{"op": "create", "id": str(ids.new_id()), "data": ready} for _ in range(500)]
    await portal.post("/v1/batch", json={"support_events": again})
    for outcome, extra in kinds.items():
        counts = []
        for turn, size in enumerate((1, 1, 500)):  # after the first, where units lie is known
            items = [
                {
                    "op": "create",
                    "id": str(ids.new_id()),
                    "data": na_day.event(external_ids={"portal": f"{turn}.{number}"}) | extra,
                }
                for number in range(size)
            ]
            if outcome == "unchanged":
                items = again[:size]
            with statements(app) as sent:
                response = await portal.post("/v1/batch", json={"support_events": items})
            outcomes = Counter(result["outcome"] for result in response.json()["results"])
            assert outcomes == {outcome: size}
            counts.append(len(sent))
        assert counts[1] == counts[2], outcome


async def test_a_service_of_another_province_is_none(lao_cai: Province, as_: As) -> None:
    child = {"name_vi": "Dịch vụ riêng", "name_en": "A service of one's own"}
    for province, code in ((HA_NOI, "PS.GUIDE.HN"), (LAO_CAI, "PS.GUIDE.LC")):
        admin = await as_(Role.province_admin, at=province)
        await make(admin, "service-types", code=code, parent_code="PS.GUIDE", **child)
    leader = await lao_cai.leader_of(lao_cai.muong_khuong)
    answers = {}
    for code in ("PS.GUIDE.HN", "PS.GUIDE.NO", "PS.GUIDE.LC"):
        event = lao_cai.muong_khuong.event(service_type=code)
        answers[code] = await leader.post("/v1/support-events", json=event)
    assert answers["PS.GUIDE.LC"].status_code == 201
    foreign, absent = answers["PS.GUIDE.HN"], answers["PS.GUIDE.NO"]
    assert foreign.status_code == absent.status_code == 422
    assert foreign.json()["errors"] == absent.json()["errors"]
