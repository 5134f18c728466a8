"""Households, over HTTP: whose they are, who reads their names, what reached them."""

from datetime import timedelta
from typing import Any

import httpx

from api import clock, ids
from api.models.role_grants import Role
from tests.factories import (
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
    walk,
)

PERSONAL = ("head_name", "address", "phone")
CONSENT = {
    "basis": "consent",
    "notice_version": "2026-01",
    "method": "signed form",
    "given_at": "2026-01-05T02:00:00Z",
    "withdrawn_at": None,
}


def body(place: Place, **changes: Any) -> dict[str, Any]:
    return {
        "unit_id": place.village["id"],
        "head_name": "Lù Văn Chấn",
        "phone": "+84922222222",
        "people_count": 5,
    } | changes


async def village(place: Place, name: str, **changes: Any) -> dict[str, Any]:
    return await make(
        place.admin,
        "admin-units",
        **{
            "level": "village",
            "name": name,
            "type": "thôn",
            "parent_id": str(place.unit_id),
            "valid_from": "2025-07-01",
        }
        | changes,
    )


async def seen(client: httpx.AsyncClient, household_id: str) -> tuple[list[Any], list[str]]:
    household = await Row(client, "households", household_id).get()
    assert household in await walk(client, "households")
    return [household[name] for name in PERSONAL], household["masked"]


async def test_a_household_follows_the_rules_of_writing(lao_cai: Province) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    household = body(here)
    other = body(here, head_name="Lù A Sử")
    row = await created_once(here.admin, "households", household, other)
    theirs = await there.admin.post("/v1/households", json=body(there, id=row.id))
    assert problem(theirs) == (409, "id_conflict")
    await unseen_by(there.admin, row, head_name="Của tôi")
    change = {"head_name": "Lù Thị Dở", "is_business": True, "business_name": "Quán Na Đẩy"}
    await changed_on_its_version(row, change, "head_name")
    await hidden_by_delete(row, household)
    await brought_back(row, there.admin)


async def test_simultaneous_writers_of_a_household(lao_cai: Province) -> None:
    place = lao_cai.muong_khuong
    await safe_at_once(place.admin, "households", body(place), lambda n: {"address": f"Số {n}"})


async def test_a_portal_upserts_its_households(as_: As, lao_cai: Province) -> None:
    portal = await as_(Role.portal_client, at=LAO_CAI)
    place = lao_cai.muong_khuong
    change = {"people_count": 6, "consent": CONSENT}
    made = await upserted(portal, place.admin, "households", body(place), change)
    assert made["consent"] == CONSENT  # what is not sent stays
    url = "/v1/households/by-external-id/portal/12%2FQĐ"
    state = {"basis": "state_management"}
    replaced = await portal.put(url, json=body(place, consent=state))  # what is sent is all of it
    assert replaced.json()["consent"] == dict.fromkeys(CONSENT) | state
    cleared = await portal.put(url, json=body(place, consent=None))
    assert cleared.json()["consent"] is None


async def test_households_are_registered_in_villages_that_stand_today(lao_cai: Province) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    tomorrow = (clock.today() + timedelta(days=1)).isoformat()
    later = await village(here, "Thôn Mai", valid_from=tomorrow)
    for unit_id, code in (
        (str(MUONG_KHUONG), "wrong_level"),
        (later["id"], "before_unit"),
        (there.village["id"], "not_found"),
        (str(ids.new_id()), "not_found"),
    ):
        refused = await here.admin.post("/v1/households", json=body(here, unit_id=unit_id))
        assert fault(refused) == (422, "/unit_id", code)
        moved = await Row(here.admin, "households", here.household["id"]).patch(unit_id=unit_id)
        assert fault(moved) == (422, "/unit_id", code)
    old = await here.admin.post("/v1/households", json=body(here, unit_id=str(OLD_MUONG_KHUONG)))
    assert problem(old) == (409, "unit_dissolved")
    for name, value, code in (
        ("people_count", 0, "greater_than_equal"),
        ("phone", "091", "string_pattern_mismatch"),
        ("head_name", "x" * 201, "string_too_long"),
        ("consent", {"method": "x"}, "missing"),
    ):
        refused = await here.admin.post("/v1/households", json=body(here) | {name: value})
        assert fault(refused)[2] == code, name

    near = await village(here, "Thôn Bên")
    row = Row(here.admin, "households", here.household["id"])
    moved = await row.patch(unit_id=near["id"])
    assert (moved.status_code, moved.json()["unit_id"]) == (200, near["id"])
    assert await ids_in(here.admin, "households", unit_id=near["id"]) == {row.id}
    assert await ids_in(here.admin, "households", unit_id=here.village["id"]) == set()


async def test_a_household_moves_out_of_one_scope_into_another(as_: As, lao_cai: Province) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    portal = await as_(Role.portal_client, at=LAO_CAI)
    row = Row(portal, "households", here.household["id"])
    assert (await row.patch(unit_id=there.village["id"])).status_code == 200
    assert await ids_in(here.admin, "households") == set()
    assert row.id in await ids_in(there.admin, "households")
    await unseen_by(here.admin, Row(here.admin, "households", row.id))


async def test_the_legal_basis_is_merged_field_by_field(lao_cai: Province) -> None:
    place = lao_cai.muong_khuong
    row = Row(place.admin, "households", place.household["id"])
    assert (await row.get())["consent"] is None
    lacking = await row.patch(consent={"method": "signed form"})
    assert fault(lacking) == (422, "/consent/basis", "missing")
    given = await row.patch(consent={k: v for k, v in CONSENT.items() if v})
    assert given.json()["consent"] == CONSENT
    hanoi = {"given_at": "2026-01-05T09:00:00+07:00"}
    for same in ({"basis": "consent"}, {"withdrawn_at": None}, hanoi, CONSENT):
        assert (await row.patch(consent=same)).headers["ETag"] == given.headers["ETag"]
    withdrawn = await row.patch(consent={"withdrawn_at": "2026-02-01T00:00:00Z"})
    assert withdrawn.json()["consent"] == CONSENT | {"withdrawn_at": "2026-02-01T00:00:00Z"}
    for change, refusal in (
        ({"basis": None}, ("/consent/basis", "missing")),
        ({"given_at": "2026-02-01T00:00:00"}, ("/consent/given_at", "timezone_aware")),
        ({"typo": 1}, ("/consent/typo", "extra_forbidden")),
    ):
        assert fault(await row.patch(consent=change)) == (422, *refusal)
    assert (await row.patch(consent=None)).json()["consent"] is None


async def test_names_are_masked_by_role_and_not_betrayed(as_: As, lao_cai: Province) -> None:
    place = lao_cai.muong_khuong
    household = place.household["id"]
    clear: tuple[list[Any], list[str]] = ([place.household[name] for name in PERSONAL], [])
    hidden = ([None, None, None], sorted(PERSONAL))
    leader = await lao_cai.leader_of(place)
    province = await as_(Role.province_admin, at=LAO_CAI)
    portal = await as_(Role.portal_client, at=LAO_CAI)
    auditor = await as_(Role.auditor, at=LAO_CAI)
    for client, expected in (
        (place.admin, clear),
        (leader, clear),
        (province, hidden),
        (portal, hidden),
        (auditor, hidden),
    ):
        assert await seen(client, household) == expected
    own = await make(portal, "households", **body(place))
    assert (await seen(portal, own["id"]))[1] == []
    assert (await seen(province, own["id"]))[1] == ["head_name", "phone"]

    for client, query, wanted in (
        (place.admin, "chu ho na DAY", {household}),
        (place.admin, "lu van", {own["id"]}),
        (leader, "Chủ hộ", {household}),
        (province, "chu ho", set()),
        (auditor, "chu ho", set()),
        (portal, "chu ho", set()),
        (portal, "chan", {own["id"]}),
        (place.admin, "%", set()),
    ):
        assert await ids_in(client, "households", q=query) == wanted
    betrayed = await province.get("/v1/households?q=chu&include_total=true")
    assert betrayed.json()["total"] == 0
    guesses = [
        await Row(portal, "households", household).patch(head_name=name)
        for name in ("Sai", "Sai", "Chủ hộ Na Đẩy")
    ]
    assert [answer.json()["version"] for answer in guesses] == [2, 3, 4]
    assert all(answer.json()["head_name"] is None for answer in guesses)

    assert problem(await Row(province, "households", household).patch(head_name="X")) == (
        403,
        "insufficient_role",
    )
    for role, at in (
        (Role.youth_coordinator, LAO_CAI),
        (Role.ioc_reader, LAO_CAI),
        (Role.province_admin, HA_NOI),
    ):
        client = await as_(role, at=at)
        answer = await client.get(f"/v1/households/{household}")
        assert answer.status_code == (404 if role is Role.province_admin else 403)


async def test_team_people_write_the_households_of_their_village(
    as_: As, lao_cai: Province
) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    leader = await lao_cai.leader_of(here)
    made = await make(leader, "households", **body(here))
    assert await ids_in(leader, "households") == {made["id"], here.household["id"]}
    assert (await Row(leader, "households", made["id"]).patch(people_count=7)).status_code == 200
    refused = await leader.post("/v1/households", json=body(there))
    assert fault(refused) == (422, "/unit_id", "not_found")
    near = await village(here, "Thôn Bên")
    refused = await leader.post("/v1/households", json=body(here, unit_id=near["id"]))
    assert fault(refused) == (422, "/unit_id", "not_found")
    await unseen_by(leader, Row(leader, "households", there.household["id"]), people_count=1)
    auditor = await as_(Role.auditor, at=LAO_CAI)
    readable = Row(auditor, "households", made["id"])
    assert problem(await readable.delete()) == (403, "insufficient_role")


async def test_services_reached_are_completed_or_guided_and_counted(
    as_: As, lao_cai: Province
) -> None:
    place = lao_cai.muong_khuong
    leader = await lao_cai.leader_of(place)
    one = place.household["id"]
    two = (await make(place.admin, "households", **body(place)))["id"]
    for service, outcome, household in (
        ("PY.QR", "guided", one),
        ("ID.ACTIVATE", "completed", one),
        ("ID.ACTIVATE", "completed", one),
        ("HL.EHR", "attempted", one),
        ("SI.VSSID", "referred", one),
        ("PS.SUBMIT", "completed", two),
        ("PS.GUIDE", "completed", None),
    ):
        event = place.event(service_type=service, outcome=outcome, household_id=household)
        await make(leader, "support-events", **event)
    row = Row(place.admin, "households", one)
    assert (await row.get())["services_reached"] == ["ID.ACTIVATE", "PY.QR"]
    assert (await row.patch(people_count=3)).json()["services_reached"] == ["ID.ACTIVATE", "PY.QR"]
    for query, wanted in (
        ({"reached_by": "ID.ACTIVATE"}, {one}),
        ({"reached_by": ["ID.ACTIVATE", "PS.SUBMIT"]}, {one, two}),
        ({"reached_by": "HL.EHR"}, set()),
        ({"not_reached_by": "ID.ACTIVATE"}, {two}),
        ({"not_reached_by": ["ID.ACTIVATE", "PS.SUBMIT"]}, set()),
        ({"reached_by": "PY.QR", "not_reached_by": "PS.SUBMIT"}, {one}),
        ({"reached_by": "PY.QR", "not_reached_by": "ID.ACTIVATE"}, set()),
        ({"not_reached_by": "HL.EHR", "unit_id": str(MUONG_KHUONG)}, {one, two}),
        ({"unit_id": str(OLD_LAO_CAI)}, {one, two}),
        ({"unit_id": str(lao_cai.bao_thang.unit_id)}, set()),
    ):
        assert await ids_in(place.admin, "households", limit=1, **query) == wanted, query
    province = await as_(Role.province_admin, at=LAO_CAI)
    masked = await Row(province, "households", one).get()
    assert masked["services_reached"] == ["ID.ACTIVATE", "PY.QR"]
    refused = await place.admin.get("/v1/households?reached_by=a b")
    assert fault(refused)[:2] == (422, "/query/reached_by/0")


async def test_an_external_id_names_one_household(as_: As, lao_cai: Province) -> None:
    portal = await as_(Role.portal_client, at=LAO_CAI)
    place = lao_cai.muong_khuong
    first = await make(portal, "households", **body(place, external_ids={"p": "1"}))
    taken = await portal.post("/v1/households", json=body(place, external_ids={"p": "1"}))
    assert fault(taken) == (409, "/external_ids/p", "taken")
    assert await ids_in(portal, "households", external_id="p:1") == {first["id"]}
    assert await ids_in(lao_cai.bao_thang.admin, "households", external_id="p:1") == set()
