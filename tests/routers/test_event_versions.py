"""Versions of events, over HTTP: what an event was, by whom, when and why; and for whose eyes."""

from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api import ids
from api.auth.secrets import Secrets
from api.models.role_grants import Role
from api.services.hash_keys import rehash
from tests.auth.test_hash_keys import KEYS
from tests.conftest import SECRET
from tests.factories import BAO_THANG, LAO_CAI, As, Person, Place, Province, make
from tests.rules import Body, Row, fault, problem, same_answer, walk

PERSONAL = {"note": "Nhà bà Mỷ", "lat": 22.7, "lon": 104.1, "beneficiary": {"gender": "female"}}


BOOK = {"so-tay": "17"}


@pytest.fixture
def na_day(lao_cai: Province) -> Place:
    """The village of Na Đẩy in Mường Khương, with its team."""
    return lao_cai.muong_khuong


@pytest.fixture
async def leader(lao_cai: Province) -> Person:
    return await lao_cai.leader_of(lao_cai.muong_khuong)


async def recorded(client: httpx.AsyncClient, place: Place, **given: Any) -> Row:
    event = await make(client, "support-events", **place.event(**given))
    return Row(client, "support-events", event["id"])


async def versions(client: httpx.AsyncClient, event: Row) -> list[Body]:
    response = await client.get(f"{event.url}/versions")
    assert response.status_code == 200, response.text
    items: list[Body] = response.json()["items"]
    assert items == await walk(client, f"support-events/{event.id}/versions", limit=1)
    return items


async def decide(client: httpx.AsyncClient, event: Row, verb: str, reason: str) -> None:
    response = await client.post(f"{event.url}:{verb}", json={"reason": reason})
    assert response.status_code == 200, response.text


async def test_every_version_tells_who_when_and_why(leader: Person, na_day: Place, as_: As) -> None:
    event = await recorded(leader, na_day, quantity=5, **PERSONAL)
    first = await event.get()
    changed = await event.patch(quantity=3, note="Nhà bà Mẩy", reason="đếm nhầm", external_ids=BOOK)
    assert changed.status_code == 200, changed.text
    assert "reason" not in changed.json()
    await decide(na_day.admin, event, "verify", "đã gọi hỏi")
    province = await as_(Role.province_admin, at=LAO_CAI)
    await decide(province, event, "reopen", "xem lại")
    await decide(na_day.admin, event, "reject", "không có thật")
    items = await versions(leader, event)
    told = [(i["version"], i["action"], i["status"], i["reason"], i["quantity"]) for i in items]
    assert told == [
        (5, "reject", "rejected", "không có thật", 3),
        (4, "reopen", "submitted", "xem lại", 3),
        (3, "verify", "verified", "đã gọi hỏi", 3),
        (2, "correct", "submitted", "đếm nhầm", 3),
        (1, "create", "submitted", None, 5),
    ]
    assert isinstance(na_day.admin, Person)
    actors = [na_day.admin, province, na_day.admin, leader, leader]
    assert [item["actor_id"] for item in items] == [str(who.principal_id) for who in actors]
    assert [item["at"] for item in items] == sorted((i["at"] for i in items), reverse=True)
    now = await event.get()
    for item, shown in ((items[0], now), (items[-1], first)):
        same = shown.keys() - {"possible_duplicate_of"}
        assert {name: item[name] for name in same} == {name: shown[name] for name in same}
    assert [item["note"] for item in items] == ["Nhà bà Mẩy"] * 4 + ["Nhà bà Mỷ"]


async def test_versions_are_masked_like_the_event(leader: Person, na_day: Place, as_: As) -> None:
    event = await recorded(leader, na_day, household_id=na_day.household["id"], **PERSONAL)
    await event.patch(note=None)
    for role in (Role.auditor, Role.province_admin, Role.portal_client):
        reader = await as_(role, at=LAO_CAI)
        now, then = await versions(reader, event)
        hidden = {"household_id", *PERSONAL}
        assert {name for name in hidden if then[name] is not None} == set()
        assert (set(now["masked"]), set(then["masked"])) == (hidden - {"note"}, hidden)
    for nobody in (Role.ioc_reader, Role.partner, Role.dpo, Role.youth_coordinator):
        refused = await (await as_(nobody, at=LAO_CAI)).get(f"{event.url}/versions")
        assert problem(refused) == (403, "insufficient_role")
    stranger = await as_(Role.commune_admin, at=BAO_THANG)
    absent = f"/v1/support-events/{ids.new_id()}/versions"
    theirs = await stranger.get(f"{event.url}/versions")
    assert theirs.status_code == 404
    assert same_answer(theirs, await stranger.get(absent))
    typo = await leader.get(f"{event.url}/versions", params={"typo": 1})
    assert fault(typo) == (422, "/query/typo", "unknown_parameter")


async def test_a_version_from_elsewhere_stays_masked_for_whoever_reads_nobody_there(
    lao_cai: Province, as_: As
) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    portal = await as_(Role.portal_client, at=LAO_CAI)
    found = await portal.get("/v1/admin-units", params={"parent_id": str(LAO_CAI)})
    near = {str(here.unit_id), str(there.unit_id)}
    third = next(unit["id"] for unit in found.json()["items"] if unit["id"] not in near)
    event = await recorded(portal, here, unit_id=str(there.unit_id), note="ở Bảo Thắng")
    moved = await event.patch(unit_id=third, note="ở xã thứ ba")
    assert moved.status_code == 200, moved.text
    officer = await as_(Role.commune_admin, at=UUID(third))
    assert [item["note"] for item in await versions(officer, event)] == ["ở xã thứ ba", None]
    assert [item["note"] for item in await versions(here.admin, event)] == [
        "ở xã thứ ba",
        "ở Bảo Thắng",
    ]
    gone = await there.admin.get(f"{event.url}/versions")
    assert gone.status_code == 404


async def test_reading_versions_in_clear_is_recorded_once(
    leader: Person, na_day: Place, as_: As
) -> None:
    auditor = await as_(Role.auditor, at=LAO_CAI)
    plain, personal = [await recorded(leader, na_day, **given) for given in ({}, {"note": "x"})]
    for event in (plain, personal):
        await event.patch(quantity=2, note=None)
        for reader in (na_day.admin, auditor):
            assert len(await versions(reader, event)) == 2

    async def reads(event: Row) -> list[Body]:
        return await walk(auditor, "audit-entries", row_id=event.id, action="read")

    assert await reads(plain) == []
    assert isinstance(na_day.admin, Person)
    officer = str(na_day.admin.principal_id)
    entries = await reads(personal)
    assert {(entry["actor_id"], *entry["ids"]) for entry in entries} == {(officer, personal.id)}
    assert len(entries) == 2  # the page of both, and the walk's page with what was personal


async def test_a_rotation_of_keys_reaches_every_version(
    lao_cai: Province, na_day: Place, leader: Person, superuser: AsyncEngine
) -> None:
    event = await recorded(leader, na_day, beneficiary={"identifier": "one of them"})
    await event.patch(beneficiary={"identifier": "another one"})
    await event.patch(quantity=2)
    engine = lao_cai.country.app.state.engine
    before = await versions(leader, event)
    assert await rehash(engine, Secrets(SECRET, KEYS)) == 3
    assert await rehash(engine, Secrets(SECRET, KEYS)) == 0
    async with superuser.connect() as connection:
        rows = await connection.execute(
            text("select version, beneficiary_hash, beneficiary_key from support_event_version")
        )
        stored = {row[0]: (bytes(row[1]), row[2]) for row in rows}
    newest = Secrets(SECRET, KEYS)
    assert stored == {
        1: (newest.hash_beneficiary("one of them"), 2),
        2: (newest.hash_beneficiary("another one"), 2),
    }
    assert await versions(leader, event) == before


async def test_an_erasure_reaches_what_events_were_before(
    lao_cai: Province, na_day: Place, as_: As, superuser: AsyncEngine
) -> None:
    leader = await lao_cai.leader_of(na_day)
    officer = await as_(Role.dpo, at=LAO_CAI)
    who = {"beneficiary": {"identifier": "010301112223"}, "external_ids": {"so-tay": "bà Mỷ"}}
    home = await recorded(leader, na_day, note="của nhà Mỷ", **who)
    named = {"household_id": na_day.household["id"], "note": "vẫn của nhà Mỷ"}
    done = await home.patch(**named, beneficiary=None, reason="Mỷ gọi lại")
    assert done.status_code == 200, done.text
    await decide(na_day.admin, home, "reject", "bà Mỷ nói không có")
    wrong = await recorded(leader, na_day, household_id=na_day.household["id"], note="nhà Mỷ?")
    await wrong.patch(household_id=None, note="một người lạ", reason="không phải nhà Mỷ")
    other = await recorded(leader, na_day, note="chợ", quantity=2)
    await other.patch(note="chợ phiên")

    async def left() -> set[str]:
        async with superuser.connect() as connection:
            rows = [
                str(row)
                for table in ("support_event", "support_event_version", "audit_entry")
                for row in await connection.scalars(text(f"select t::text from {table} t"))
            ]
        return {word for word in ("Mỷ", "lạ", "chợ") if any(word in row for row in rows)}

    assert await left() == {"Mỷ", "lạ", "chợ"}
    for person in ({"household_id": na_day.household["id"]}, {"identifier": "010301112223"}):
        request = await make(officer, "data-subject-requests", person=person, kind="erasure")
        path = f"data-subject-requests/{request['id']}"
        export = (await officer.get(f"/v1/{path}/export")).json()
        kept = {(row["id"], row["version"]) for row in export["support_event_versions"]}
        if "household_id" in person:
            assert kept == {(home.id, 2), (wrong.id, 1)}
        done = await officer.post(f"/v1/{path}:fulfil", json={})
        assert done.json()["status"] == "fulfilled", done.text
    # What a correction said of a household that it was not stays with the event of the other one.
    assert [item["reason"] for item in await versions(leader, wrong)] == ["không phải nhà Mỷ", None]
    assert [item["note"] for item in await versions(leader, wrong)] == ["một người lạ", None]
    items = await versions(leader, home)
    assert {(item["note"], item["reason"]) for item in items} == {(None, None)}
    assert {str(item["external_ids"]) for item in items} == {"{}"}
    assert items[0]["action"] == "erase"
    assert items[0]["actor_id"] == str(officer.principal_id)
    assert [item["note"] for item in await versions(leader, other)] == ["chợ phiên", "chợ"]


async def test_a_member_who_is_erased_is_named_in_no_version(
    lao_cai: Province, na_day: Place, as_: As, superuser: AsyncEngine
) -> None:
    leader = await lao_cai.leader_of(na_day)
    name = na_day.leader["full_name"]
    event = await recorded(leader, na_day, member_ids=[na_day.leader["id"]], note=f"{name} gọi")
    await event.patch(note="đã sửa", reason=f"theo lời {name}")
    await event.patch(member_ids=[], quantity=2)
    await decide(na_day.admin, event, "verify", f"{name} xác nhận")
    officer = await as_(Role.dpo, at=LAO_CAI)
    person = {"member_id": na_day.leader["id"]}
    request = await make(officer, "data-subject-requests", person=person, kind="erasure")
    done = await officer.post(f"/v1/data-subject-requests/{request['id']}:fulfil", json={})
    assert done.json()["status"] == "fulfilled", done.text
    async with superuser.connect() as connection:
        rows = [
            str(row)
            for table in ("support_event", "support_event_version")
            for row in await connection.scalars(
                text(f"select t::text from {table} t where member_ids <> '{{}}'")
            )
        ]
    assert rows
    assert not [row for row in rows if name in row]
