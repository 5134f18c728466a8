"""The life of an event, over HTTP: who verifies, rejects, voids and reopens what, and when."""

import asyncio
from collections import Counter
from typing import Any
from uuid import UUID

import httpx
import pytest

from api import ids
from api.models.role_grants import Role
from tests.factories import BAO_THANG, HA_NOI, LAO_CAI, As, Person, Place, Province, make
from tests.rules import Body, Row, fault, problem, same_answer

EVENTS = "support-events"
WHY = "Nhập hai lần"


@pytest.fixture
def na_day(lao_cai: Province) -> Place:
    """The village of Na Đẩy in Mường Khương, with its team."""
    return lao_cai.muong_khuong


@pytest.fixture
async def leader(lao_cai: Province) -> Person:
    return await lao_cai.leader_of(lao_cai.muong_khuong)


@pytest.fixture
async def province(as_: As, lao_cai: Province) -> Person:
    return await as_(Role.province_admin, at=lao_cai.unit_id)


async def recorded(client: httpx.AsyncClient, place: Place, **given: Any) -> str:
    return str((await make(client, EVENTS, **place.event(**given)))["id"])


async def do(
    client: httpx.AsyncClient, event: str, verb: str, etag: str | None = None, **body: Any
) -> httpx.Response:
    body = body or ({} if verb == "verify" else {"reason": WHY})
    headers = {"If-Match": etag} if etag else {}
    return await client.post(f"/v1/{EVENTS}/{event}:{verb}", json=body, headers=headers)


async def done(client: httpx.AsyncClient, event: str, verb: str, **body: Any) -> Body:
    response = await do(client, event, verb, **body)
    assert response.status_code == 200, response.text
    shown: Body = response.json()
    assert response.headers["ETag"] == f'"{shown["version"]}"'
    return shown


async def test_an_event_is_verified_by_the_communes_officer(
    leader: Person, na_day: Place, province: Person
) -> None:
    event = await recorded(leader, na_day, note="ở nhà văn hóa")
    verified = await done(na_day.admin, event, "verify")
    assert (verified["status"], verified["version"]) == ("verified", 2)
    assert verified["note"] == "ở nhà văn hóa"
    assert (await Row(leader, EVENTS, event).get()) == verified
    seen = await done(province, event, "reopen")
    assert (seen["status"], seen["note"], seen["masked"]) == ("submitted", None, ["note"])
    rejected = await done(province, event, "reject")
    assert (rejected["status"], rejected["version"]) == ("rejected", 4)


START: dict[str, tuple[str, ...]] = {
    "submitted": (),
    "verified": ("verify",),
    "rejected": ("reject",),
    "voided": ("void",),
}
ALLOWED = {
    ("submitted", "verify"): "verified",
    ("submitted", "reject"): "rejected",
    ("submitted", "void"): "voided",
    ("verified", "void"): "voided",
    ("rejected", "void"): "voided",
    ("verified", "reopen"): "submitted",
    ("rejected", "reopen"): "submitted",
}


async def test_each_verb_has_its_statuses(
    leader: Person, na_day: Place, province: Person, as_: As
) -> None:
    other = await as_(Role.province_admin, at=LAO_CAI)
    for status, verbs in START.items():
        for verb in ("verify", "reject", "void", "reopen"):
            event = await recorded(leader, na_day)
            for before in verbs:
                await done(other, event, before)
            response = await do(province, event, verb)
            if (status, verb) in ALLOWED:
                assert response.json()["status"] == ALLOWED[status, verb]
                continue
            assert problem(response) == (409, "conflict"), (status, verb)
            error = response.json()["errors"][0]
            assert (error["pointer"], error["code"]) == ("/status", "wrong_status")
            assert error["params"] == {"status": status}
            assert status in error["message"]
            assert (await Row(leader, EVENTS, event).get())["version"] == len(verbs) + 1


async def test_who_may_do_what(as_: As, leader: Person, na_day: Place) -> None:
    helper = await make(
        na_day.admin,
        "members",
        full_name="Sùng Thị Mẩy",
        memberships=[{"team_id": na_day.team["id"], "joined_on": "2025-07-02"}],
    )
    at, team = UUID(na_day.village["id"]), UUID(na_day.team["id"])
    people = {
        "province": await as_(Role.province_admin, at=LAO_CAI),
        "commune": na_day.admin,
        "leader": leader,
        "member": await as_(Role.team_member, at=at, team=team, member=UUID(helper["id"])),
        "portal": await as_(Role.portal_client, at=LAO_CAI),
        "auditor": await as_(Role.auditor, at=LAO_CAI),
        "neighbour": await as_(Role.commune_admin, at=BAO_THANG),
        "stranger": await as_(Role.province_admin, at=HA_NOI),
    }
    officers, writers = {"province", "commune"}, {"leader", "portal"}
    may = {"verify": officers, "reject": officers, "reopen": {"province"}}
    may["void"] = officers | writers
    writer = await as_(Role.portal_client, at=LAO_CAI)
    for verb, allowed in may.items():
        for name, person in people.items():
            event = await recorded(writer, na_day)
            if verb == "reopen":
                await done(people["province"], event, "reject")
            response = await do(person, event, verb)
            if name in allowed:
                assert response.status_code == 200, (verb, name, response.text)
            elif name == "stranger" or (name == "neighbour" and verb != "reopen"):
                assert response.status_code == 404, (verb, name, response.text)
                absent = await do(person, str(ids.new_id()), verb)
                assert same_answer(response, absent)
            else:
                assert problem(response) == (403, "insufficient_role"), (verb, name)
    own = await recorded(writer, na_day, member_ids=[helper["id"]])
    assert (await done(people["member"], own, "void"))["status"] == "voided"


async def test_nobody_judges_what_they_recorded_corrected_or_took_part_in(
    as_: As, na_day: Place, leader: Person
) -> None:
    both = await as_(Role.portal_client, Role.commune_admin, at=na_day.unit_id)
    other = await as_(Role.portal_client, at=LAO_CAI)
    participant = await as_(Role.commune_admin, at=na_day.unit_id, member=UUID(na_day.leader["id"]))
    mine = await recorded(both, na_day)
    corrected = await recorded(other, na_day)
    assert (await Row(both, EVENTS, corrected).patch(quantity=2)).status_code == 200
    assert (await Row(other, EVENTS, corrected).patch(quantity=3)).status_code == 200
    by_the_same_person = await recorded(leader, na_day)  # signed in by another account
    there = await recorded(other, na_day, member_ids=[na_day.leader["id"]])
    for person, event in (
        (both, mine),
        (both, corrected),
        (participant, by_the_same_person),
        (participant, there),
    ):
        for verb in ("verify", "reject"):
            refused = await do(person, event, verb)
            assert problem(refused) == (403, "insufficient_role")
            assert fault(refused) == (403, "", "own_event")
        assert (await done(na_day.admin, event, "verify"))["status"] == "verified"
    # Whoever judged and did nothing else may judge again.
    event = await recorded(other, na_day)
    await done(both, event, "verify")
    province = await as_(Role.province_admin, at=LAO_CAI)
    await done(province, event, "reopen")
    assert (await done(both, event, "reject"))["status"] == "rejected"


async def test_a_step_sent_again_changes_nothing(
    na_day: Place, leader: Person, province: Person
) -> None:
    event = await recorded(leader, na_day)
    for verb, version in (("verify", 2), ("reopen", 3), ("reject", 4), ("void", 5)):
        answers = [await do(province, event, verb, f'"{version - 1}"') for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200] * 3
        assert {answer.json()["version"] for answer in answers} == {version}
    other = await do(province, event, "void", reason="vì lẽ khác")
    assert fault(other) == (409, "/status", "wrong_status")
    assert fault(await do(na_day.admin, event, "void")) == (409, "/status", "wrong_status")


async def test_a_verb_is_done_to_the_version_that_was_read(na_day: Place, leader: Person) -> None:
    event = Row(leader, EVENTS, await recorded(leader, na_day))
    assert (await event.patch(quantity=4)).status_code == 200
    stale = await do(na_day.admin, event.id, "verify", '"1"')
    assert problem(stale) == (412, "precondition_failed")
    assert stale.json()["current"] == await event.get()
    assert fault(await do(na_day.admin, event.id, "verify", "1")) == (
        422,
        "/header/If-Match",
        "version_invalid",
    )
    for etag in ('"2"', "*"):
        assert (await do(na_day.admin, event.id, "verify", etag)).status_code == 200


async def test_a_reason_is_asked_for(na_day: Place, leader: Person, province: Person) -> None:
    event = await recorded(leader, na_day)
    url = f"/v1/{EVENTS}/{event}"
    for verb in ("reject", "void", "reopen"):
        assert fault(await province.post(f"{url}:{verb}", json={})) == (422, "/reason", "missing")
    for verb in ("verify", "reject", "void", "reopen"):
        for reason, code in (("x" * 2001, "string_too_long"), (" ", "string_too_short")):
            refused = await province.post(f"{url}:{verb}", json={"reason": reason})
            assert fault(refused) == (422, "/reason", code)
        typo = await province.post(f"{url}:{verb}", json={"reason": WHY, "typo": 1})
        assert fault(typo) == (422, "/typo", "extra_forbidden")
    bare = await province.post(f"{url}:verify")
    assert (bare.status_code, bare.json()["status"]) == (200, "verified")


async def test_what_is_corrected_is_to_be_verified_again(
    na_day: Place, leader: Person, province: Person
) -> None:
    event = Row(leader, EVENTS, await recorded(leader, na_day))
    await done(na_day.admin, event.id, "verify")
    same = await event.patch(quantity=1, reason="không đổi gì")
    assert (same.json()["status"], same.json()["version"]) == ("verified", 2)
    corrected = await event.patch(quantity=2)
    assert (corrected.json()["status"], corrected.json()["version"]) == ("submitted", 3)
    for verb in ("reject", "void"):
        await done(province, event.id, verb)
        refused = await event.patch(quantity=3)
        assert fault(refused) == (409, "/status", "wrong_status")


async def test_only_what_is_submitted_or_verified_counts(
    na_day: Place, leader: Person, province: Person
) -> None:
    async def count() -> int:
        params = {"indicator": "events.count", "period": "2025", "unit_id": str(LAO_CAI)}
        (item,) = (await province.get("/v1/observations", params=params)).json()["items"]
        return int(item["value"])

    event = await recorded(leader, na_day)
    await recorded(leader, na_day)
    counts = [await count()]
    for verb in ("verify", "reopen", "reject", "reopen", "void"):
        await done(province, event, verb, reason=f"{verb} {len(counts)}")
        counts.append(await count())
    assert counts == [2, 2, 2, 1, 2, 1]


async def test_the_audit_tells_who_decided_and_keeps_the_words_out(
    na_day: Place, leader: Person, as_: As
) -> None:
    event = await recorded(leader, na_day)
    await done(na_day.admin, event, "reject", reason="Bà Mẩy nói không có")
    auditor = await as_(Role.auditor, at=LAO_CAI)
    params = {"row_id": event, "action": "update"}
    (entry,) = (await auditor.get("/v1/audit-entries", params=params)).json()["items"]
    assert isinstance(na_day.admin, Person)
    officer = str(na_day.admin.principal_id)
    assert entry["actor_id"] == officer
    assert entry["before"] == {
        "status": "submitted",
        "version": 1,
        "action": None,
        "reason": None,
        "changed_by": None,
    }
    assert entry["after"] == {
        "status": "rejected",
        "version": 2,
        "action": "reject",
        "reason": "***",
        "changed_by": officer,
    }


async def test_a_batch_voids_with_a_reason(
    na_day: Place, leader: Person, lao_cai: Province
) -> None:
    event, other = [await recorded(leader, na_day) for _ in range(2)]
    there = await lao_cai.leader_of(lao_cai.bao_thang)
    foreign = await recorded(there, lao_cai.bao_thang)

    def void(row: str, if_match: str = "*", **data: Any) -> Body:
        return {"op": "delete", "id": row, "if_match": if_match, "data": data}

    items = [
        void(event, '"1"', reason=WHY),
        void(other),
        void(other, '"7"', reason=WHY),
        void(foreign, reason=WHY),
        void(str(ids.new_id()), reason=WHY),
    ]
    batch = {"support_events": items}
    results = (await leader.post("/v1/batch", json=batch)).json()["results"]
    told = [(result["status"], result["outcome"]) for result in results]
    assert told == [
        (200, "deleted"),
        (422, "rejected"),
        (409, "conflict"),
        (404, "rejected"),
        (404, "rejected"),
    ]
    assert results[0]["etag"] == '"2"'
    assert results[1]["problem"]["errors"][0]["pointer"] == "/reason"
    voided = await Row(leader, EVENTS, event).get()
    assert (voided["status"], voided["version"]) == ("voided", 2)
    assert (await Row(leader, EVENTS, other).get())["status"] == "submitted"
    again = (await leader.post("/v1/batch", json={"support_events": items[:1]})).json()
    assert [result["outcome"] for result in again["results"]] == ["unchanged"]


async def test_of_a_correction_and_a_verification_of_one_version_one_is_taken(
    na_day: Place, leader: Person, as_: As
) -> None:
    officers = [await as_(Role.commune_admin, at=na_day.unit_id) for _ in range(4)]
    for _ in range(5):
        event = Row(leader, EVENTS, await recorded(leader, na_day))
        answers = await asyncio.gather(
            *(event.patch('"1"', quantity=n + 2) for n in range(8)),
            *(do(officer, event.id, "verify", '"1"') for officer in officers),
            *(do(officer, event.id, "void", '"1"') for officer in officers),
        )
        statuses = Counter(answer.status_code for answer in answers)
        assert statuses == {200: 1, 412: 15}
        taken = next(answer.json() for answer in answers if answer.status_code == 200)
        assert await event.get() == taken
        assert taken["version"] == 2


async def test_steps_at_once_follow_each_other(na_day: Place, leader: Person, as_: As) -> None:
    officers = [await as_(Role.province_admin, at=LAO_CAI) for _ in range(4)]
    event = Row(leader, EVENTS, await recorded(leader, na_day))
    answers = await asyncio.gather(
        *(event.patch(quantity=n + 2) for n in range(8)),
        *(do(officer, event.id, "verify") for officer in officers),
        *(do(officer, event.id, "reject") for officer in officers),
        *(do(officer, event.id, "reopen") for officer in officers),
    )
    assert set(Counter(answer.status_code for answer in answers)) <= {200, 409}
    listed = (await leader.get(f"{event.url}/versions", params={"limit": 200})).json()["items"]
    taken = sorted(answer.json()["version"] for answer in answers if answer.status_code == 200)
    assert [item["version"] for item in reversed(listed)] == [1, *taken]
    before = "submitted"
    for item in reversed(listed[:-1]):
        if item["action"] == "correct":
            assert before in {"submitted", "verified"}
        else:
            assert (before, item["action"]) in ALLOWED
        before = item["status"]
