"""Activities, over HTTP: who holds one where, who came, and what they count."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api import clock, ids
from api.models.role_grants import Role
from tests.factories import (
    BAO_THANG,
    HA_NOI,
    LAO_CAI,
    MUONG_KHUONG,
    OLD_LAO_CAI,
    OLD_MUONG_KHUONG,
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
    unseen_by,
    upserted,
)

OLD_DISTRICT = ids.official_unit_id("district", "083")  # Mường Khương, until 2025-06-30


def body(place: Place, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "training",
        "title": "Tập huấn dịch vụ công trực tuyến",
        "organiser": "team",
        "host_unit_id": place.village["id"],
        "held_on": "2025-08-05",
        "partners": ["police", "bank"],
        "participants": 30,
        "attendee_ids": [place.leader["id"]],
    } | changes


async def counted(client: httpx.AsyncClient, *codes: str, **query: Any) -> list[Any]:
    """Return the values of indicators in the order asked."""
    params = {"indicator": codes, "period": "2025"} | query
    response = await client.get("/v1/observations", params=params)
    assert response.status_code == 200, response.text
    return [item["value"] for item in response.json()["items"]]


async def test_an_activity_follows_the_rules_of_writing(lao_cai: Province) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    activity, other = body(here), body(here, title="Ngày hội số")
    row = await created_once(here.admin, "activities", activity, other)
    theirs = await there.admin.post("/v1/activities", json=body(there, id=row.id))
    assert problem(theirs) == (409, "id_conflict")
    await unseen_by(there.admin, row, title="Của tôi")
    change = {"kind": "contest", "partners": [], "participants": 31, "organiser": "government"}
    await changed_on_its_version(row, change, "title")
    await hidden_by_delete(row, activity)
    await brought_back(row, there.admin)


async def test_simultaneous_writers_of_an_activity(lao_cai: Province) -> None:
    place = lao_cai.muong_khuong
    await safe_at_once(place.admin, "activities", body(place), lambda n: {"title": f"Lớp {n}"})


async def test_a_portal_upserts_its_activities(as_: As, lao_cai: Province) -> None:
    portal = await as_(Role.portal_client, at=LAO_CAI)
    place = lao_cai.muong_khuong
    change = {"title": "Lớp hai", "held_on": "2025-08-06"}
    await upserted(portal, place.admin, "activities", body(place), change)


async def test_lists_are_filtered_and_sorted(as_: As, lao_cai: Province) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    province = await as_(Role.province_admin, at=LAO_CAI)
    team = {"team_id": here.team["id"]}
    first = (await make(here.admin, "activities", **body(here, **team)))["id"]
    later = body(there, kind="launch", held_on="2025-09-01")
    second = (await make(there.admin, "activities", **later))["id"]
    whole = body(here, host_unit_id=str(LAO_CAI), kind="festival", held_on="2025-10-10")
    third = (await make(province, "activities", **whole))["id"]
    filters: list[tuple[dict[str, Any], set[str]]] = [
        ({}, {first, second, third}),
        ({"unit_id": str(LAO_CAI)}, {first, second, third}),
        ({"unit_id": str(MUONG_KHUONG)}, {first}),
        ({"unit_id": str(OLD_MUONG_KHUONG)}, set()),
        ({"kind": ["launch", "festival"]}, {second, third}),
        ({"team_id": here.team["id"]}, {first}),
        ({"held_on_gte": "2025-09-01"}, {second, third}),
        ({"held_on_lt": "2025-09-01"}, {first}),
        ({"campaign_id": str(ids.new_id())}, set()),
    ]
    for query, found in filters:
        assert await ids_in(province, "activities", **query) == found, query
    for sort, order in (
        ("held_on", [first, second, third]),
        ("-held_on", [third, second, first]),
    ):
        listed = await province.get("/v1/activities", params={"sort": sort})
        assert [item["id"] for item in listed.json()["items"]] == order
    assert await ids_in(here.admin, "activities") == {first}
    assert await ids_in(await as_(Role.province_admin, at=HA_NOI), "activities") == set()


async def test_what_cannot_be_is_refused(as_: As, lao_cai: Province) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    tomorrow = (clock.today() + timedelta(days=1)).isoformat()
    for changes, pointer, code in (
        ({"host_unit_id": there.village["id"]}, "/host_unit_id", "not_found"),
        ({"host_unit_id": str(LAO_CAI)}, "/host_unit_id", "not_found"),
        ({"host_unit_id": str(ids.new_id())}, "/host_unit_id", "not_found"),
        ({"host_unit_id": str(OLD_MUONG_KHUONG)}, "/host_unit_id", "unit_dissolved"),
        ({"held_on": "2025-06-30"}, "/host_unit_id", "before_unit"),
        ({"held_on": tomorrow}, "/held_on", "in_the_future"),
        ({"team_id": there.team["id"]}, "/team_id", "not_found"),
        ({"team_id": here.team["id"], "held_on": "2025-07-01"}, "/held_on", "before_founding"),
        ({"attendee_ids": [there.leader["id"]]}, "/attendee_ids/0", "not_found"),
        (
            {"attendee_ids": [here.leader["id"], str(ids.new_id())]},
            "/attendee_ids/1",
            "not_found",
        ),
        ({"attendee_ids": [here.leader["id"]] * 2}, "/attendee_ids", "duplicate"),
        ({"attendee_ids": [str(ids.new_id())] * 501}, "/attendee_ids", "too_long"),
        ({"participants": 0}, "/participants", "greater_than_equal"),
        ({"participants": 1_000_001}, "/participants", "less_than_equal"),
        ({"partners": ["army"]}, "/partners/0", "enum"),
        ({"kind": "party"}, "/kind", "enum"),
        ({"campaign_id": str(ids.new_id())}, "/campaign_id", "not_found"),
        ({"title": ""}, "/title", "string_too_short"),
    ):
        refused = await here.admin.post("/v1/activities", json=body(here) | changes)
        assert fault(refused)[1:] == (pointer, code), refused.text
    dissolved = await here.admin.post(
        "/v1/activities", json=body(here, host_unit_id=str(OLD_MUONG_KHUONG))
    )
    assert problem(dissolved) == (409, "unit_dissolved")
    assert [heir["unit_id"] for heir in dissolved.json()["successors"]] == [str(MUONG_KHUONG)]
    province = await as_(Role.province_admin, at=LAO_CAI)
    past = body(here, host_unit_id=str(OLD_LAO_CAI), held_on="2024-05-05", attendee_ids=[])
    await make(province, "activities", **past)  # late, and under the tree of its day


async def test_a_leader_holds_its_team_s_activities_in_its_commune(lao_cai: Province) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    leader = await lao_cai.leader_of(here)
    team = {"team_id": here.team["id"]}
    made = await make(leader, "activities", **body(here, **team))
    at_the_commune = body(here, **team, host_unit_id=str(MUONG_KHUONG))
    await make(leader, "activities", **at_the_commune)
    other = (await make(here.admin, "activities", **body(here)))["id"]
    assert other not in await ids_in(leader, "activities")
    assert made["id"] in await ids_in(here.admin, "activities")
    for changes, pointer, code in (
        ({}, "/team_id", "missing"),
        ({"team_id": there.team["id"]}, "/team_id", "not_found"),
        (team | {"host_unit_id": there.village["id"]}, "/host_unit_id", "not_found"),
        (team | {"host_unit_id": str(LAO_CAI)}, "/host_unit_id", "wrong_level"),
    ):
        refused = await leader.post("/v1/activities", json=body(here) | changes)
        assert fault(refused) == (422, pointer, code), changes
    row = Row(leader, "activities", made["id"])
    assert (await row.patch(title="Lớp mới")).status_code == 200
    assert fault(await row.patch(team_id=None)) == (422, "/team_id", "missing")
    assert (await row.delete()).status_code == 204
    assert (await leader.get(f"/v1/activities/{other}")).status_code == 404


async def test_who_writes_and_who_reads(as_: As, lao_cai: Province) -> None:
    place = lao_cai.muong_khuong
    made = await make(place.admin, "activities", **body(place))
    for role, reads, writes in (
        (Role.province_admin, True, True),
        (Role.youth_coordinator, True, True),
        (Role.portal_client, True, True),
        (Role.auditor, True, False),
        (Role.national_admin, False, False),
        (Role.ioc_reader, False, False),
        (Role.partner, False, False),
        (Role.dpo, False, False),
        (Role.team_member, False, False),
    ):
        client = await as_(role, at=LAO_CAI)
        url = f"/v1/activities/{made['id']}"
        assert (await client.get(url)).status_code == (200 if reads else 403), role
        posted = await client.post("/v1/activities", json=body(place))
        assert posted.status_code == (201 if writes else 403), (role, posted.text)
        if reads:
            shown = (await client.get(url)).json()
            assert (shown["attendee_ids"], shown["masked"]) == ([place.leader["id"]], [])


async def test_activities_come_in_batches(as_: As, lao_cai: Province) -> None:
    place = lao_cai.muong_khuong
    member, activity, missing = (str(ids.new_id()) for _ in range(3))
    stay = {"team_id": place.team["id"], "joined_on": "2025-07-03"}
    data = body(place, attendee_ids=[member])
    sent = {
        "members": [
            {"op": "create", "id": member, "data": {"full_name": "Ai", "memberships": [stay]}},
            {"op": "create", "id": missing, "data": {"full_name": "Ai"}},
        ],
        "activities": [
            {"op": "create", "id": activity, "data": data},
            {"op": "create", "id": str(ids.new_id()), "data": body(place, attendee_ids=[missing])},
            {"op": "update", "id": activity, "if_match": '"1"', "data": {"title": "Lớp hai"}},
            {"op": "delete", "id": activity, "if_match": "*"},
        ],
        "support_events": [],
    }
    for outcomes in (
        ["created", "rejected", "created", "deferred", "updated", "deleted"],
        ["unchanged", "rejected", "unchanged", "deferred", "unchanged", "unchanged"],
    ):
        answer = await place.admin.post("/v1/batch", json=sent)
        results = answer.json()["results"]
        assert [result["outcome"] for result in results] == outcomes, results
        assert [r["resource"] for r in results] == ["members"] * 2 + ["activities"] * 4
    youth = await as_(Role.youth_coordinator, at=LAO_CAI)
    assert (await youth.post("/v1/batch", json=sent)).status_code == 403


async def test_stale_updates_of_a_batch_are_merged_by_field(lao_cai: Province) -> None:
    place = lao_cai.muong_khuong
    made = await make(place.admin, "activities", **body(place))
    row = Row(place.admin, "activities", made["id"])
    assert (await row.patch(host_unit_id=str(MUONG_KHUONG))).status_code == 200
    stale = {"op": "update", "id": row.id, "if_match": '"1"'}
    changes = [{"title": "Lớp hai"}, {"host_unit_id": place.village["id"]}]
    items = [stale | {"data": data} for data in changes]
    answer = await place.admin.post("/v1/batch", json={"activities": items})
    merged, conflict = answer.json()["results"]
    assert (merged["outcome"], conflict["outcome"]) == ("updated", "conflict")
    (told,) = conflict["conflicts"]
    assert (told["pointer"], told["current"]) == ("/host_unit_id", str(MUONG_KHUONG))
    assert (await row.get())["title"] == "Lớp hai"


async def test_an_activity_of_a_campaign_is_held_in_its_days_and_units(
    as_: As, lao_cai: Province
) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    province = await as_(Role.province_admin, at=LAO_CAI)
    days = {"starts_on": "2025-08-01", "ends_on": "2025-08-31"}
    campaign = await make(
        province, "campaigns", name="Hè tình nguyện", unit_id=str(BAO_THANG), **days
    )
    part = {"campaign_id": campaign["id"]}
    await make(there.admin, "activities", **body(there, **part))
    for given, code in (
        (body(here, **part), "outside_campaign_unit"),
        (body(there, **part, held_on="2025-09-01"), "outside_campaign"),
    ):
        refused = await province.post("/v1/activities", json=given)
        assert fault(refused) == (422, "/campaign_id", code)
    refused = await here.admin.post("/v1/activities", json=body(here, **part))
    assert fault(refused) == (422, "/campaign_id", "not_found")
    assert await counted(province, "activities.count", **part) == [1]


async def test_activities_are_counted_by_hand(as_: As, lao_cai: Province) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    province = await as_(Role.province_admin, at=LAO_CAI)
    for changes in (
        {"participants": 40},
        {"participants": None},  # the one attendee
        {"participants": 7, "kind": "contest", "held_on": "2025-12-31", "attendee_ids": []},
        {"participants": 9, "held_on": "2026-01-01"},
    ):
        await make(here.admin, "activities", **body(here, **changes))
    gone = await make(here.admin, "activities", **body(here, participants=100))
    assert (await Row(here.admin, "activities", gone["id"]).delete()).status_code == 204
    await make(there.admin, "activities", **body(there, participants=3, kind="launch"))
    whole = body(here, host_unit_id=str(LAO_CAI), participants=500, attendee_ids=[])
    await make(province, "activities", **whole)
    both = ("activities.count", "activities.participants")
    assert await counted(province, *both) == [5, 551]
    assert await counted(here.admin, *both) == [3, 48]
    assert await counted(here.admin, *both, every="quarter") == [0, 0, 2, 1, 0, 0, 41, 7]
    assert await counted(here.admin, *both, activity_kind=["contest", "launch"]) == [1, 7]
    split: dict[str, Any] = {"indicator": "activities.count", "period": "2025", "by": "kind"}
    items = (await province.get("/v1/observations", params=split)).json()["items"]
    assert {item["kind"]: item["value"] for item in items} == {
        "contest": 1,
        "launch": 1,
        "training": 3,
    }
    below: dict[str, Any] = {"indicator": "activities.count", "period": "2025", "level": "commune"}
    items = (await province.get("/v1/observations", params=below)).json()["items"]
    values = {item["unit_id"]: item["value"] for item in items}
    assert {unit: n for unit, n in values.items() if n} == {
        str(MUONG_KHUONG): 3,
        str(BAO_THANG): 1,
        None: 1,  # the province's own
    }


async def test_enough_activities_in_each_unit(as_: As, lao_cai: Province) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    province = await as_(Role.province_admin, at=LAO_CAI)
    for day in ("2025-08-05", "2025-08-06"):
        await make(here.admin, "activities", **body(here, held_on=day))
    at_the_commune = body(there, host_unit_id=str(BAO_THANG), kind="launch", attendee_ids=[])
    await make(there.admin, "activities", **at_the_commune)
    communes = 99
    code = "communes.min_activities"
    met_by: list[tuple[dict[str, Any], int]] = [
        ({"minimum_per_unit": 1}, 2),
        ({"minimum_per_unit": 2}, 1),
        ({"minimum_per_unit": 3}, 0),
        ({"minimum_per_unit": 1, "activity_kind": "launch"}, 1),
        ({"minimum_per_unit": 1, "period": "2026"}, 0),
        ({"minimum_per_unit": 1, "period": "2025-08-06"}, 1),
    ]
    for query, met in met_by:
        params = {"indicator": code, "period": "2025"} | query
        (item,) = (await province.get("/v1/observations", params=params)).json()["items"]
        assert (item["numerator"], item["denominator"]) == (met, communes), query
        assert item["value"] == 100 * met / communes
    cases: list[tuple[dict[str, Any], str, str | None]] = [
        ({"indicator": code}, "/query/minimum_per_unit", "missing"),
        ({"indicator": code, "minimum_per_unit": 0}, "/query/minimum_per_unit", None),
        (
            {"indicator": "activities.count", "minimum_per_unit": 2},
            "/query/minimum_per_unit",
            "not_applicable",
        ),
        (
            {"indicator": "activities.count", "team_kind": "core_squad"},
            "/query/team_kind",
            "not_applicable",
        ),
        (
            {"indicator": "teams.active", "activity_kind": "launch"},
            "/query/activity_kind",
            "not_applicable",
        ),
        (
            {"indicator": "teams.active", "campaign_id": str(ids.new_id())},
            "/query/campaign_id",
            "not_applicable",
        ),
    ]
    for asked, pointer, wrong in cases:
        refused = await province.get("/v1/observations", params={"period": "2025"} | asked)
        assert fault(refused)[:2] == (422, pointer), asked
        assert wrong in {None, fault(refused)[2]}


async def test_districts_of_their_time_held_enough_activities(as_: As, lao_cai: Province) -> None:
    province = await as_(Role.province_admin, at=LAO_CAI)
    held = body(lao_cai.muong_khuong, attendee_ids=[], held_on="2024-05-05")
    await make(province, "activities", **held | {"host_unit_id": str(OLD_MUONG_KHUONG)})
    query: dict[str, Any] = {"indicator": "districts.min_activities", "minimum_per_unit": 1}
    query |= {"unit_id": str(OLD_LAO_CAI), "period": "2024", "boundary": "as_recorded"}
    (item,) = (await province.get("/v1/observations", params=query)).json()["items"]
    assert (item["numerator"], item["denominator"]) == (1, 9)


async def test_who_attended_a_training_anywhere_is_trained(
    as_: As, lao_cai: Province, superuser: AsyncEngine
) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    province = await as_(Role.province_admin, at=LAO_CAI)
    codes = ("members.trained_share", "communes.trained")
    assert await counted(here.admin, *codes) == [0, 0]
    course = body(here, host_unit_id=str(LAO_CAI), kind="course")  # hosted above the commune
    made = Row(province, "activities", (await make(province, "activities", **course))["id"])
    assert await counted(here.admin, *codes) == [100, 100]
    assert await counted(here.admin, *codes, period="2025-08-04") == [0, 0]
    assert await counted(here.admin, *codes, period="2025-08-05") == [100, 100]
    assert await counted(there.admin, *codes) == [0, 0]
    for change, trained in (
        ({"kind": "meeting"}, 0),
        ({"kind": "training"}, 100),
        ({"attendee_ids": []}, 0),
        ({"attendee_ids": [here.leader["id"]]}, 100),
        ({"held_on": "2026-01-01"}, 0),
    ):
        assert (await made.patch(**change)).status_code == 200
        assert await counted(here.admin, *codes) == [trained, trained], change
    assert await counted(here.admin, *codes, period="2026") == [100, 100]
    await made.delete()
    assert await counted(here.admin, *codes, period="2026") == [0, 0]
    await made.undelete()
    assert await counted(here.admin, *codes, period="2026") == [100, 100]
    async with superuser.connect() as connection:
        kept = await connection.execute(text("select member_id from training_attended"))
        assert [row.member_id for row in kept] == [UUID(here.leader["id"])]


async def test_activities_stay_with_their_ground_through_a_reorganisation(
    as_: As, lao_cai: Province
) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    nation = await as_(Role.national_admin)
    made = Row(here.admin, "activities", (await make(here.admin, "activities", **body(here)))["id"])
    await make(there.admin, "activities", **body(there))
    unit = {"level": "commune", "name": "Xã Hợp Nhất", "type": "xã", "code": "99999"}
    merge = {
        "kind": "merge",
        "from_ids": [str(MUONG_KHUONG), str(BAO_THANG)],
        "to": unit | {"parent_id": str(LAO_CAI)},
    }
    paper = {"number": "1/NQ", "issued_on": "2026-01-01", "issuer": "UBTVQH"}
    done = await make(
        nation, "reorganisations", effective_on="2026-03-01", document=paper, changes=[merge]
    )
    (heir,) = done["unit_ids"]
    merged = await as_(Role.commune_admin, at=UUID(heir))
    assert len(await ids_in(merged, "activities")) == 2
    assert (await Row(merged, "activities", made.id).get())["host_unit_id"] == here.village["id"]
    assert await counted(merged, "activities.count", unit_id=heir) == [2]
    province = await as_(Role.province_admin, at=LAO_CAI)
    past = {"unit_id": str(MUONG_KHUONG), "boundary": "as_recorded"}
    assert await counted(province, "activities.count", **past) == [1]
    # what was recorded at the new unit keeps it from being taken back
    own = body(here, host_unit_id=heir, held_on="2026-04-01", attendee_ids=[])
    await make(merged, "activities", **own)
    url = f"/v1/reorganisations/{done['id']}:revert"
    refused = await nation.post(url, json={"reason": "Nhầm"})
    assert problem(refused) == (409, "conflict")
    assert refused.json()["errors"][0]["params"]["activities"] == 1


async def test_a_village_that_hosted_something_is_not_deleted(lao_cai: Province) -> None:
    place = lao_cai.muong_khuong
    village = await make(
        place.admin,
        "admin-units",
        level="village",
        name="Thôn Bên",
        type="thôn",
        parent_id=str(MUONG_KHUONG),
        valid_from="2025-07-01",
    )
    await make(place.admin, "activities", **body(place, host_unit_id=village["id"]))
    refused = await Row(place.admin, "admin-units", village["id"]).delete()
    assert problem(refused) == (409, "conflict")
