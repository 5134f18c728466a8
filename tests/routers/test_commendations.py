"""Commendations, over HTTP: of whom, seen by whom, and the facts behind them."""

from typing import Any
from uuid import UUID

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api import ids
from api.models.role_grants import Role
from tests.factories import BAO_THANG, HA_NOI, LAO_CAI, MUONG_KHUONG, As, Place, Province, make
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
)

PERSON = "Giàng A Na Đẩy"


def collective(place: Place, **changes: Any) -> dict[str, Any]:
    return {
        "recipient_kind": "collective",
        "recipient_name": "Tổ công nghệ số cộng đồng Na Đẩy",
        "unit_id": str(place.unit_id),
        "team_id": place.team["id"],
        "awarded_on": "2025-12-20",
        "awarded_by": "UBND tỉnh Lào Cai",
        "document": "1234/QĐ-UBND",
    } | changes


def individual(place: Place, **changes: Any) -> dict[str, Any]:
    named = {"recipient_kind": "individual", "recipient_name": PERSON}
    return collective(place) | named | {"member_id": place.leader["id"]} | changes


async def facts(client: httpx.AsyncClient, commendation: str, **query: Any) -> dict[str, Any]:
    response = await client.get(f"/v1/commendations/{commendation}/facts", params=query)
    assert response.status_code == 200, response.text
    told: dict[str, Any] = response.json()
    return told


async def test_a_commendation_follows_the_rules_of_writing(as_: As, lao_cai: Province) -> None:
    officer = await as_(Role.province_admin, at=LAO_CAI)
    stranger = await as_(Role.province_admin, at=HA_NOI)
    place = lao_cai.muong_khuong
    given, other = collective(place), collective(place, document="1235/QĐ-UBND")
    row = await created_once(officer, "commendations", given, other)
    await unseen_by(stranger, row, reason="Không")
    change = {"awarded_on": "2025-12-21", "reason": "Hoàn thành xuất sắc", "awarded_by": "Sở"}
    await changed_on_its_version(row, change, "recipient_name")
    await hidden_by_delete(row, given)
    await brought_back(row, stranger)
    await safe_at_once(officer, "commendations", given, lambda n: {"document": f"{n}/QĐ"})


async def test_what_cannot_be_commended_is_refused(as_: As, lao_cai: Province) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    officer = await as_(Role.youth_coordinator, at=MUONG_KHUONG)
    for given, pointer, code in (
        (collective(here, unit_id=str(BAO_THANG)), "/unit_id", "not_found"),
        (collective(here, unit_id=str(ids.new_id())), "/unit_id", "not_found"),
        (collective(here, team_id=there.team["id"]), "/team_id", "not_found"),
        (individual(here, member_id=there.leader["id"]), "/member_id", "not_found"),
        (collective(here, member_id=here.leader["id"]), "/member_id", "not_of_a_collective"),
        (collective(here, awarded_on="2200-01-01"), "/awarded_on", "in_the_future"),
        (collective(here, awarded_on="2025-06-30"), "/unit_id", "before_unit"),
        (collective(here, recipient_name=""), "/recipient_name", "string_too_short"),
    ):
        refused = await officer.post("/v1/commendations", json=given)
        assert fault(refused) == (422, pointer, code), refused.text
    province = await as_(Role.province_admin, at=LAO_CAI)
    stranger = individual(here, member_id=there.leader["id"])
    refused = await province.post("/v1/commendations", json=stranger)
    assert fault(refused) == (422, "/member_id", "never_in_team")
    for role in (Role.commune_admin, Role.team_leader, Role.portal_client, Role.auditor):
        client = await as_(role, at=MUONG_KHUONG)
        refused = await client.post("/v1/commendations", json=collective(here))
        assert problem(refused) == (403, "insufficient_role"), role


async def test_a_persons_name_is_masked_and_a_collectives_is_not(
    as_: As, lao_cai: Province, superuser: AsyncEngine
) -> None:
    here = lao_cai.muong_khuong
    youth = await as_(Role.youth_coordinator, at=LAO_CAI)
    person = (await make(youth, "commendations", **individual(here)))["id"]
    team = (await make(youth, "commendations", **collective(here)))["id"]
    for role, at, name in (
        (Role.youth_coordinator, LAO_CAI, PERSON),
        (Role.commune_admin, MUONG_KHUONG, PERSON),
        (Role.province_admin, LAO_CAI, None),
        (Role.auditor, LAO_CAI, None),
    ):
        client = await as_(role, at=at)
        shown = await Row(client, "commendations", person).get()
        masked = [] if name else ["recipient_name"]
        assert (shown["recipient_name"], shown["masked"]) == (name, masked), role
        listed = await client.get("/v1/commendations", params={"recipient_kind": "individual"})
        assert [item["recipient_name"] for item in listed.json()["items"]] == [name]
        open_name = (await Row(client, "commendations", team).get())["recipient_name"]
        assert open_name == collective(here)["recipient_name"]
    assert await ids_in(lao_cai.bao_thang.admin, "commendations") == set()
    assert await ids_in(here.admin, "commendations", team_id=here.team["id"]) == {person, team}
    assert await ids_in(here.admin, "commendations", awarded_on_lt="2025-12-20") == set()
    province = await as_(Role.province_admin, at=LAO_CAI)
    changed = await Row(province, "commendations", person).patch(recipient_name="Khác")
    assert (changed.status_code, changed.json()["recipient_name"]) == (200, None)
    async with superuser.connect() as connection:
        read = text("select count(*) from audit_entry where action = 'read' and row_id = :id")
        assert (
            await connection.scalar(read, {"id": person}) == 5
        )  # by two readers, in row and lists
        assert await connection.scalar(read, {"id": team}) == 0
        told = text("select count(*) from audit_entry where after::text like :name")
        assert await connection.scalar(told, {"name": f"%{PERSON}%"}) == 0


async def test_a_proposal_lists_the_facts_behind_it(as_: As, lao_cai: Province) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    officer = await as_(Role.province_admin, at=LAO_CAI)
    leader = await lao_cai.leader_of(here)
    member = [here.leader["id"]]
    made = [
        await make(
            leader,
            "support-events",
            **here.event(
                occurred_at=f"2025-{day}T09:00:00+07:00",
                service_type=service,
                quantity=quantity,
                outcome=outcome,
                member_ids=members,
            ),
        )
        for day, service, quantity, outcome, members in (
            ("08-01", "ID.ACTIVATE", 4, "completed", member),
            ("08-01", "ID.USE", 3, "guided", []),
            ("08-02", "ID.ACTIVATE", 2, "attempted", member),
            ("09-01", "ID.ACTIVATE", 1, "completed", []),
        )
    ]
    other = await lao_cai.leader_of(there)
    await make(other, "support-events", **there.event())
    verify = f"/v1/support-events/{made[0]['id']}:verify"
    assert (await here.admin.post(verify, json={})).status_code == 200
    activity: dict[str, Any] = {
        "kind": "course",
        "title": "Lớp",
        "organiser": "team",
        "held_on": "2025-08-03",
    }
    activity |= {"team_id": here.team["id"], "attendee_ids": member}
    await make(leader, "activities", **activity, host_unit_id=here.village["id"])

    proposal = (await make(officer, "commendations", **collective(here)))["id"]
    told = await facts(officer, proposal)
    assert told["period"] == "2025"
    assert (told["events"], told["days_active"], told["activities"]) == (4, 3, 1)
    assert (told["completed_share"], told["verified_share"]) == (50, 25)
    assert told["quantities"] == [
        {"service_type": "ID.ACTIVATE", "unit_of_count": "account", "quantity": 5},
        {"service_type": "ID.USE", "unit_of_count": "turn", "quantity": 3},
    ]
    params = {"indicator": "events.count", "period": "2025", "unit_id": str(MUONG_KHUONG)}
    (item,) = (await officer.get("/v1/observations", params=params)).json()["items"]
    assert item["value"] == told["events"]
    august = await facts(officer, proposal, period="2025-08-01")
    assert (august["events"], august["days_active"], august["activities"]) == (2, 1, 0)
    person = (await make(officer, "commendations", **individual(here)))["id"]
    own = await facts(officer, person)
    assert (own["events"], own["days_active"], own["activities"]) == (2, 2, 1)
    unit = collective(here, team_id=None, recipient_name="Xã Mường Khương")
    commune = (await make(officer, "commendations", **unit))["id"]
    assert await facts(officer, commune) == told | {"commendation_id": commune}
    open_year = (await make(officer, "commendations", **collective(here, awarded_on=None)))["id"]
    assert (await facts(officer, open_year))["period"] != "2025"
    youth = await as_(Role.youth_coordinator, at=LAO_CAI)
    assert await facts(youth, proposal) == told
    assert await facts(here.admin, proposal) == told
    wrong = await officer.get(f"/v1/commendations/{proposal}/facts", params={"period": "x"})
    assert fault(wrong) == (422, "/query/period", "period_invalid")
    foreign = await there.admin.get(f"/v1/commendations/{proposal}/facts")
    assert problem(foreign) == (404, "not_found")


async def test_commendations_stay_through_a_reorganisation(as_: As, lao_cai: Province) -> None:
    here = lao_cai.muong_khuong
    officer, nation = await as_(Role.province_admin, at=LAO_CAI), await as_(Role.national_admin)
    made = (await make(officer, "commendations", **collective(here)))["id"]
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
    merged = await as_(Role.commune_admin, at=UUID(done["unit_ids"][0]))
    assert await ids_in(merged, "commendations") == {made}
    assert (await Row(merged, "commendations", made).get())["unit_id"] == str(MUONG_KHUONG)
    assert await ids_in(officer, "commendations", unit_id=done["unit_ids"][0]) == {made}


async def test_an_erased_person_is_named_no_more_and_counts_on(
    as_: As, lao_cai: Province, superuser: AsyncEngine
) -> None:
    here = lao_cai.muong_khuong
    officer = await as_(Role.province_admin, at=LAO_CAI)
    given = individual(here, reason=f"{PERSON} hướng dẫn bà con")
    mine = (await make(officer, "commendations", **given))["id"]
    # of somebody of the team, whose member nobody named
    loose = (await make(officer, "commendations", **given | {"member_id": None}))["id"]
    team = (await make(officer, "commendations", **collective(here)))["id"]
    activity = {"kind": "course", "title": "Lớp", "organiser": "team", "held_on": "2025-08-03"}
    who = {"attendee_ids": [here.leader["id"]], "host_unit_id": here.village["id"]}
    held = await make(here.admin, "activities", **activity, **who)
    dpo = await as_(Role.dpo, at=LAO_CAI)
    person = {"person": {"member_id": here.leader["id"]}, "kind": "erasure"}
    request = (await make(dpo, "data-subject-requests", **person))["id"]
    shown = (await dpo.get(f"/v1/data-subject-requests/{request}/export")).json()
    assert [row["recipient_name"] for row in shown["commendations"]] == [PERSON]
    assert [row["id"] for row in shown["activities"]] == [held["id"]]
    assert "attendee_ids" not in shown["activities"][0]  # the others' ids
    done = await dpo.post(f"/v1/data-subject-requests/{request}:fulfil", json={"reason": "Đã xoá"})
    assert done.status_code == 200, done.text
    for each in (mine, loose):
        row = await Row(here.admin, "commendations", each).get()
        assert (row["recipient_name"], row["reason"]) == ("(đã xoá)", None)
    kept = await Row(here.admin, "commendations", team).get()
    assert kept["recipient_name"] == collective(here)["recipient_name"]
    assert (await Row(here.admin, "activities", held["id"]).get())["attendee_ids"] == [
        here.leader["id"]
    ]
    params = {"indicator": "members.trained_share", "period": "2025"}
    (item,) = (await here.admin.get("/v1/observations", params=params)).json()["items"]
    assert item["value"] == 100
    async with superuser.connect() as connection:
        named = text("select count(*) from commendation c where c::text like :name")
        assert await connection.scalar(named, {"name": f"%{PERSON}%"}) == 0
