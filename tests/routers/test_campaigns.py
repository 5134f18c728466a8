"""Campaigns, over HTTP: who runs one, who sees it, what is part of it, what it came to."""

from typing import Any

import httpx

from api import ids
from api.models.role_grants import Role
from tests.factories import (
    BAO_THANG,
    HA_NOI,
    LAO_CAI,
    MUONG_KHUONG,
    NATION,
    OLD_LAO_CAI,
    As,
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
)


def body(**changes: Any) -> dict[str, Any]:
    return {
        "name": "Đợt cao điểm kích hoạt VNeID",
        "unit_id": str(LAO_CAI),
        "starts_on": "2025-08-01",
        "ends_on": "2025-08-10",
        "service_types": ["ID.ACTIVATE"],
    } | changes


async def progress(client: httpx.AsyncClient, campaign: str, **query: Any) -> dict[str, Any]:
    response = await client.get(f"/v1/campaigns/{campaign}/progress", params=query)
    assert response.status_code == 200, response.text
    told: dict[str, Any] = response.json()
    return told


def figures(told: dict[str, Any]) -> dict[tuple[str | None, str], tuple[Any, Any]]:
    return {
        (item["service_type"], item["unit_of_count"]): (item["value"], item["baseline"])
        for item in told["items"]
    }


async def test_a_campaign_follows_the_rules_of_writing(as_: As) -> None:
    officer = await as_(Role.province_admin, at=LAO_CAI)
    stranger = await as_(Role.province_admin, at=HA_NOI)
    campaign, other = body(), body(name="Đợt hai")
    row = await created_once(officer, "campaigns", campaign, other)
    await unseen_by(stranger, row, name="Của tôi")
    change = {"name": "Ra quân", "baseline_on": "2025-07-20", "service_types": []}
    await changed_on_its_version(row, change, "ends_on")
    await hidden_by_delete(row, campaign)
    await brought_back(row, stranger)
    await safe_at_once(officer, "campaigns", body(), lambda n: {"name": f"Đợt {n}"})


async def test_a_campaign_is_seen_above_and_below_its_unit_and_nowhere_else(
    as_: As, lao_cai: Province
) -> None:
    province = await as_(Role.province_admin, at=LAO_CAI)
    youth = await as_(Role.youth_coordinator, at=NATION)
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    whole = (await make(youth, "campaigns", **body(unit_id=str(NATION))))["id"]
    theirs = (await make(province, "campaigns", **body()))["id"]
    old = body(unit_id=str(OLD_LAO_CAI), starts_on="2024-03-01", ends_on="2024-03-31")
    past = (await make(province, "campaigns", **old))["id"]
    mine = (await make(here.admin, "campaigns", **body(unit_id=str(MUONG_KHUONG))))["id"]
    village = body(unit_id=here.village["id"])
    smallest = (await make(here.admin, "campaigns", **village))["id"]
    leader = await lao_cai.leader_of(here)
    above = {whole, theirs, past}
    for client, seen in (
        (province, above | {mine, smallest}),
        (here.admin, above | {mine, smallest}),
        (leader, above | {mine, smallest}),
        (there.admin, above),
        (await as_(Role.ioc_reader, at=BAO_THANG), above),
        (await as_(Role.province_admin, at=HA_NOI), {whole}),
    ):
        assert await ids_in(client, "campaigns") == seen
        for each in (whole, theirs, mine):
            status = (await client.get(f"/v1/campaigns/{each}")).status_code
            assert status == (200 if each in seen else 404)
    assert await ids_in(province, "campaigns", unit_id=str(MUONG_KHUONG)) == {mine, smallest}
    assert await ids_in(province, "campaigns", running_on="2024-03-31") == {past}
    oldest = await province.get("/v1/campaigns", params={"sort": "starts_on", "limit": 1})
    assert oldest.json()["items"][0]["id"] == past
    # what is only read is not written
    assert problem(await Row(here.admin, "campaigns", theirs).patch(name="X")) == (
        403,
        "insufficient_role",
    )
    refused = await here.admin.post("/v1/campaigns", json=body())
    assert fault(refused) == (422, "/unit_id", "not_found")
    for role in (Role.national_admin, Role.auditor, Role.portal_client, Role.team_leader):
        client = await as_(role, at=LAO_CAI)
        assert (await client.post("/v1/campaigns", json=body())).status_code == 403


async def test_a_campaign_has_days_in_order_and_services_of_the_catalogue(as_: As) -> None:
    officer = await as_(Role.province_admin, at=LAO_CAI)
    for name, value, pointer, code in (
        ("ends_on", "2025-07-31", "/ends_on", "end_before_start"),
        ("baseline_on", "2025-08-01", "/baseline_on", "not_before"),
        ("baseline_on", "1900-01-05", "/baseline_on", "date_out_of_range"),
        ("service_types", ["ID.ACTIVATE", "NO.SUCH"], "/service_types/1", "not_found"),
        ("unit_id", str(ids.new_id()), "/unit_id", "not_found"),
        ("unit_id", str(OLD_LAO_CAI), "/unit_id", "unit_dissolved"),
        ("name", None, "/name", "wrong_type"),
    ):
        refused = await officer.post("/v1/campaigns", json=body() | {name: value})
        assert fault(refused)[1:] == (pointer, code), refused.text
    row = Row(officer, "campaigns", (await make(officer, "campaigns", **body()))["id"])
    assert fault(await row.patch(starts_on="2025-08-11"))[1:] == ("/ends_on", "end_before_start")


async def test_an_event_is_part_of_a_campaign_that_runs_there_for_it(
    as_: As, lao_cai: Province
) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    province = await as_(Role.province_admin, at=LAO_CAI)
    leader = await lao_cai.leader_of(here)
    campaign = (await make(province, "campaigns", **body()))["id"]
    elsewhere = await make(there.admin, "campaigns", **body(unit_id=str(BAO_THANG)))
    outside = body(unit_id=str(BAO_THANG))
    foreign = await as_(Role.province_admin, at=HA_NOI)
    stranger = await make(foreign, "campaigns", **body(unit_id=str(HA_NOI)))

    made = await make(leader, "support-events", **here.event(campaign_id=campaign))
    assert made["campaign_id"] == campaign
    listed = await ids_in(province, "support-events", campaign_id=campaign)
    assert listed == {made["id"]}
    assert await ids_in(province, "support-events", campaign_id=elsewhere["id"]) == set()
    for changes, code in (
        ({"campaign_id": str(ids.new_id())}, "not_found"),
        ({"campaign_id": elsewhere["id"]}, "not_found"),
        ({"campaign_id": stranger["id"]}, "not_found"),
        ({"occurred_at": "2025-08-11T00:00:00+07:00"}, "outside_campaign"),
        ({"service_type": "ID.USE"}, "not_of_campaign"),
    ):
        wrong = here.event(**{"campaign_id": campaign} | changes)
        refused = await leader.post("/v1/support-events", json=wrong)
        assert fault(refused) == (422, "/campaign_id", code), changes
    # the portal sees both communes' campaigns, and its event lies in the other one
    portal = await as_(Role.portal_client, at=LAO_CAI)
    own = await make(there.admin, "campaigns", **outside)
    refused = await portal.post("/v1/support-events", json=here.event(campaign_id=own["id"]))
    assert fault(refused) == (422, "/campaign_id", "outside_campaign_unit")
    away = here.event(campaign_id=own["id"], unit_id=there.village["id"])
    await make(portal, "support-events", **away)
    # a child of the service belongs to it
    child = {"code": "ID.ACTIVATE.LC", "parent_code": "ID.ACTIVATE"}
    await make(province, "service-types", **child, name_vi="Con", name_en="Child")
    narrow = here.event(campaign_id=campaign, service_type="ID.ACTIVATE.LC")
    await make(leader, "support-events", **narrow)

    row = Row(leader, "support-events", made["id"])
    moved = await row.patch(service_type="ID.USE")
    assert fault(moved) == (422, "/campaign_id", "not_of_campaign")
    assert (await row.patch(campaign_id=None)).json()["campaign_id"] is None
    assert (await row.patch(campaign_id=campaign)).json()["campaign_id"] == campaign
    versions = (await leader.get(f"{row.url}/versions")).json()["items"]
    assert [version["campaign_id"] for version in versions] == [campaign, None, campaign]
    item = {"op": "create", "id": str(ids.new_id())}
    items = [
        item | {"data": here.event(campaign_id=campaign)},
        item | {"id": str(ids.new_id()), "data": here.event(campaign_id=elsewhere["id"])},
    ]
    batch = await leader.post("/v1/batch", json={"support_events": items})
    assert [result["status"] for result in batch.json()["results"]] == [201, 422]
    # a campaign that was taken back takes no more; what was recorded stays
    assert (await Row(province, "campaigns", campaign).delete()).status_code == 204
    late = await leader.post("/v1/support-events", json=here.event(campaign_id=campaign))
    assert fault(late) == (422, "/campaign_id", "not_found")
    assert (await row.patch(quantity=3)).json()["campaign_id"] == campaign


async def test_a_campaign_has_its_own_progress_and_baseline(as_: As, lao_cai: Province) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    province = await as_(Role.province_admin, at=LAO_CAI)
    services = ["ID.ACTIVATE", "ID.USE", "PS.ACCOUNT"]
    campaign = (await make(province, "campaigns", **body(service_types=services)))["id"]
    assert figures(await progress(province, campaign)) == {}
    for place, part_of, day, service, quantity, outcome in (
        (here, campaign, "08-01", "ID.ACTIVATE", 4, "completed"),
        (here, campaign, "08-10", "ID.ACTIVATE", 1, "guided"),
        (here, campaign, "08-02", "ID.ACTIVATE", 9, "attempted"),
        (here, None, "08-02", "ID.ACTIVATE", 5, "completed"),  # no part of it
        (there, campaign, "08-03", "PS.ACCOUNT", 2, "completed"),
        (there, campaign, "08-03", "ID.USE", 7, "completed"),
        (here, None, "07-31", "ID.ACTIVATE", 3, "completed"),  # of the baseline
        (there, None, "07-22", "ID.USE", 2, "completed"),
        (there, None, "07-21", "ID.USE", 30, "completed"),  # before it
    ):
        leader = await lao_cai.leader_of(place)
        event = place.event(service_type=service, quantity=quantity, outcome=outcome)
        event |= {"occurred_at": f"2025-{day}T09:00:00+07:00", "campaign_id": part_of}
        await make(leader, "support-events", **event)
    told = await progress(province, campaign)
    assert told["period"] == "2025-08-01/2025-08-10"
    assert told["baseline_period"] == "2025-07-22/2025-07-31"
    assert figures(told) == {
        (None, "account"): (7, 3),
        (None, "turn"): (7, 2),
        ("ID.ACTIVATE", "account"): (5, 3),
        ("PS.ACCOUNT", "account"): (2, 0),
        ("ID.USE", "turn"): (7, 2),
    }
    part = await progress(here.admin, campaign, unit_id=str(MUONG_KHUONG))
    assert figures(part) == {
        (None, "account"): (5, 3),
        ("ID.ACTIVATE", "account"): (5, 3),
    }
    foreign = await here.admin.get(f"/v1/campaigns/{campaign}/progress")
    assert problem(foreign) == (404, "not_found")  # the province's totals are not its to read
    query: dict[str, Any] = {"indicator": "events.count", "period": "2025", "campaign_id": campaign}
    (item,) = (await province.get("/v1/observations", params=query)).json()["items"]
    assert item["value"] == 5
    earlier = await Row(province, "campaigns", campaign).patch(baseline_on="2025-07-21")
    assert earlier.status_code == 200
    assert figures(await progress(province, campaign))["ID.USE", "turn"] == (7, 30)


async def test_a_campaign_goes_on_through_a_reorganisation(as_: As, lao_cai: Province) -> None:
    here = lao_cai.muong_khuong
    nation = await as_(Role.national_admin)
    leader = await lao_cai.leader_of(here)
    mine = body(unit_id=str(MUONG_KHUONG), starts_on="2026-01-01", ends_on="2026-06-30")
    campaign = (await make(here.admin, "campaigns", **mine))["id"]
    unit = {"level": "commune", "name": "Xã Hợp Nhất", "type": "xã", "code": "99999"}
    merge = {
        "kind": "merge",
        "from_ids": [str(MUONG_KHUONG), str(BAO_THANG)],
        "to": unit | {"parent_id": str(LAO_CAI)},
    }
    paper = {"number": "1/NQ", "issued_on": "2026-01-01", "issuer": "UBTVQH"}
    await make(
        nation, "reorganisations", effective_on="2026-03-01", document=paper, changes=[merge]
    )
    for day in ("2026-02-28", "2026-03-01"):
        when = f"{day}T09:00:00+07:00"
        await make(leader, "support-events", **here.event(campaign_id=campaign, occurred_at=when))
    province = await as_(Role.province_admin, at=LAO_CAI)
    told = await progress(province, campaign)
    assert figures(told)["ID.ACTIVATE", "account"] == (2, 0)
    other = await lao_cai.leader_of(lao_cai.bao_thang)
    theirs = lao_cai.bao_thang.event(campaign_id=campaign, occurred_at="2026-03-01T09:00:00+07:00")
    refused = await other.post("/v1/support-events", json=theirs)
    assert refused.status_code == 422
    assert await ids_in(leader, "campaigns") == {campaign}
