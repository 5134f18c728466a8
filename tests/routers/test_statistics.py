"""Statistics, over HTTP: who declares what, where, and what observations make of it."""

from datetime import date
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api import clock
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
    same_answer,
    unseen_by,
    upserted,
)

TODAY = date(2026, 10, 15)


@pytest.fixture(autouse=True)
def _one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "today", lambda: TODAY)


def body(unit_id: UUID = LAO_CAI, **changes: Any) -> dict[str, Any]:
    return {
        "indicator": "households.total",
        "unit_id": str(unit_id),
        "as_of": "2026-04-01",
        "value": 400_000,
        "attribution": "government",
    } | changes


async def cell(client: httpx.AsyncClient, **query: Any) -> list[Any]:
    response = await client.get("/v1/observations", params=query)
    assert response.status_code == 200, response.text
    (item,) = response.json()["items"]
    return [item["value"], item["status"]]


async def test_a_statistic_follows_the_rules_of_writing(lao_cai: Province) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    statistic = body(MUONG_KHUONG)
    row = await created_once(
        here.admin, "statistics", statistic, body(MUONG_KHUONG, value=400_000.5)
    )
    theirs = await there.admin.post("/v1/statistics", json=body(BAO_THANG, id=row.id))
    assert problem(theirs) == (409, "id_conflict")
    await unseen_by(there.admin, row, value=1)
    change = {"value": 3_204, "precision": "approximate", "source": "Niên giám 2026"}
    await changed_on_its_version(row, change, "value")
    await hidden_by_delete(row, statistic)
    await brought_back(row, there.admin)


async def test_simultaneous_writers_of_a_statistic(lao_cai: Province) -> None:
    admin = lao_cai.muong_khuong.admin
    await safe_at_once(admin, "statistics", body(MUONG_KHUONG), lambda n: {"value": n})


async def test_a_portal_upserts_its_statistics(as_: As, lao_cai: Province) -> None:
    portal = await as_(Role.portal_client, at=LAO_CAI)
    change = {"value": 401_000, "as_of": "2026-05-01"}
    other = lao_cai.muong_khuong.admin
    made = await upserted(portal, other, "statistics", body(), change)
    assert made["as_of"] == "2026-04-01"


async def test_a_figure_is_kept_exactly_and_bounded(as_: As) -> None:
    admin = await as_(Role.province_admin, at=LAO_CAI)
    nation = await as_(Role.national_admin)
    names = {"name_vi": "Tăng trưởng", "name_en": "Growth", "unit_of_count": "percent"}
    await make(nation, "indicators", code="growth.digital", **names)
    for value in (0, 9_300, 40.5, 0.0001, 99_999_999_999.1234, 100_000_000_000):
        made = await make(admin, "statistics", **body(value=value))
        assert made["value"] == value
    whole = await admin.post("/v1/statistics", json=body(value=9_300.0))
    assert b'"value":9300,' in whole.content
    growth = await make(admin, "statistics", **body(indicator="growth.digital", value=-1.25))
    assert growth["value"] == -1.25
    wrong: list[tuple[Any, str]] = [
        (-1, "negative_count"),
        (0.00001, "decimal_places"),
        (100_000_000_001, "less_than_equal"),
        ("3", "wrong_type"),
        (None, "wrong_type"),
    ]
    for given, code in wrong:
        refused = await admin.post("/v1/statistics", json=body(value=given))
        assert fault(refused) == (422, "/value", code), given


async def test_a_statistic_has_a_day_or_a_period_that_has_come(as_: As) -> None:
    admin = await as_(Role.province_admin, at=LAO_CAI)
    for given, refusal in (
        ({"period": "2025"}, ("/as_of", "exactly_one")),
        ({"as_of": None}, ("/as_of", "exactly_one")),
        ({"as_of": "2026-10-16"}, ("/as_of", "in_the_future")),
        ({"as_of": None, "period": "2027"}, ("/period", "in_the_future")),
        ({"as_of": None, "period": "2026-13"}, ("/period", "period_invalid")),
        ({"as_of": None, "period": "last year"}, ("/period", "string_pattern_mismatch")),
        ({"indicator": "teams.active"}, ("/indicator", "not_declared")),
        ({"indicator": "no.such"}, ("/indicator", "unknown_indicator")),
        ({"precision": "about"}, ("/precision", "enum")),
        ({"attribution": "church"}, ("/attribution", "enum")),
        ({"unit_id": str(HA_NOI)}, ("/unit_id", "not_found")),
    ):
        assert fault(await admin.post("/v1/statistics", json=body() | given)) == (422, *refusal)
    row = Row(admin, "statistics", (await make(admin, "statistics", **body()))["id"])
    assert fault(await row.patch(period="2026")) == (422, "/as_of", "exactly_one")
    running = await row.patch(period="2026", as_of=None)
    assert (running.status_code, running.json()["as_of"]) == (200, None), running.text
    assert fault(await row.patch(unit_id=str(HA_NOI))) == (422, "/unit_id", "not_found")


async def test_a_statistic_of_a_unit_that_is_gone_is_of_its_days(as_: As) -> None:
    admin = await as_(Role.province_admin, at=LAO_CAI)
    late = await admin.post("/v1/statistics", json=body(OLD_LAO_CAI))
    assert problem(late) == (409, "unit_dissolved")
    old = await make(admin, "statistics", **body(OLD_LAO_CAI, as_of="2023-12-31", value=170_000))
    new = await make(admin, "statistics", **body())
    assert await ids_in(admin, "statistics", unit_id=str(OLD_LAO_CAI)) == {old["id"]}
    assert await ids_in(admin, "statistics", unit_id=str(LAO_CAI)) == {old["id"], new["id"]}
    asked = {"indicator": "households.total", "unit_id": str(OLD_LAO_CAI), "period": "2023"}
    assert await cell(admin, **asked, boundary="as_recorded") == [170_000, "ok"]
    assert await cell(admin, **asked, boundary="2025-06-30") == [170_000, "ok"]
    assert await cell(admin, **asked) == [None, "not_computable"]  # it does not stand today
    asked["unit_id"] = str(LAO_CAI)  # of other land: nothing is guessed
    assert await cell(admin, **asked) == [None, "not_computable"]
    assert await cell(admin, **asked | {"period": "2026-04-01"}) == [400_000, "ok"]


async def test_the_filters_of_the_list(as_: As, lao_cai: Province) -> None:
    admin = await as_(Role.province_admin, at=LAO_CAI)
    bodies: dict[str, dict[str, Any]] = {
        "stock": {"source": "Cục Thống kê"},
        "press": {"attribution": "press", "as_of": "2026-05-01"},
        "flow": {"indicator": "population.total", "as_of": None, "period": "2025"},
        "commune": {"unit_id": str(MUONG_KHUONG)},
    }
    made = {
        name: (await make(admin, "statistics", **body() | given))["id"]
        for name, given in bodies.items()
    }
    queries: list[tuple[dict[str, Any], set[str]]] = [
        ({}, {"stock", "press", "flow", "commune"}),
        ({"indicator": ["population.total"]}, {"flow"}),
        ({"attribution": ["press", "bank"]}, {"press"}),
        ({"unit_id": str(MUONG_KHUONG)}, {"commune"}),
        ({"as_of_gte": "2026-04-01", "as_of_lt": "2026-05-01"}, {"stock", "commune"}),
        ({"as_of_lt": "2026-01-01"}, {"flow"}),
    ]
    for query, names in queries:
        assert await ids_in(admin, "statistics", **query) == {made[name] for name in names}, query
    here = lao_cai.muong_khuong.admin
    assert await ids_in(here, "statistics") == {made["commune"]}


async def test_who_declares_what(as_: As, lao_cai: Province) -> None:
    owners = {
        role: await as_(role, at=LAO_CAI)
        for role in (Role.province_admin, Role.youth_coordinator, Role.portal_client, Role.partner)
    }
    owners[Role.national_admin] = await as_(Role.national_admin, at=NATION)
    rows = {
        role: (await make(client, "statistics", **body(attribution="youth_union")))["id"]
        for role, client in owners.items()
    }
    youth, partner = owners[Role.youth_coordinator], owners[Role.partner]
    refused = await youth.post("/v1/statistics", json=body())
    assert problem(refused) == (403, "insufficient_role")
    assert fault(refused)[1:] == ("/attribution", "other_owner")
    theirs = Row(youth, "statistics", rows[Role.youth_coordinator])
    assert problem(await theirs.patch(attribution="press")) == (403, "insufficient_role")
    of_bank = await make(partner, "statistics", **body(attribution="bank"))
    assert problem(await Row(youth, "statistics", of_bank["id"]).patch(value=1)) == (
        403,
        "insufficient_role",
    )
    assert (await Row(youth, "statistics", rows[Role.partner]).patch(value=1)).status_code == 200
    assert (await theirs.patch(value=5)).status_code == 200

    assert await ids_in(partner, "statistics") == {rows[Role.partner], of_bank["id"]}
    await unseen_by(partner, Row(partner, "statistics", rows[Role.province_admin]), value=1)
    for role in (Role.ioc_reader, Role.auditor):
        reader = await as_(role, at=LAO_CAI)
        assert await ids_in(reader, "statistics") == {*rows.values(), of_bank["id"]}
        assert problem(await reader.post("/v1/statistics", json=body())) == (
            403,
            "insufficient_role",
        )
    leader = await lao_cai.leader_of(lao_cai.muong_khuong)
    assert problem(await leader.get("/v1/statistics")) == (403, "insufficient_role")
    far = await as_(Role.province_admin, at=HA_NOI)
    assert await ids_in(far, "statistics") == set()
    hidden = await far.get(f"/v1/statistics/{rows[Role.partner]}")
    assert same_answer(hidden, await far.get(f"/v1/statistics/{lao_cai.unit_id}"))


async def test_the_database_alone_keeps_figures_apart(as_: As, superuser: AsyncEngine) -> None:
    partner = await as_(Role.partner, at=LAO_CAI)
    admin = await as_(Role.province_admin, at=LAO_CAI)
    await make(admin, "statistics", **body())
    own = await make(partner, "statistics", **body(attribution="bank"))
    async with superuser.connect() as connection:
        key = await connection.scalar(
            text("select key from admin_unit where id = :id"), {"id": LAO_CAI}
        )
        await connection.execute(
            text("""select set_config('noidai.principal', :id, false),
                           set_config('noidai.scopes', :scopes, false)"""),
            {
                "id": str(partner.principal_id),
                "scopes": f'{{"statistics_read": {{"provinces": "{key}"}}}}',
            },
        )
        await connection.execute(text("set role noidai_app"))
        seen = await connection.scalars(text("select id from statistic"))
        assert [str(row) for row in seen] == [own["id"]]


async def test_an_observation_is_the_latest_statistic_by_the_last_day(as_: As) -> None:
    admin = await as_(Role.province_admin, at=LAO_CAI)
    reader = await as_(Role.ioc_reader, at=LAO_CAI)
    asked = {"indicator": "households.total", "unit_id": str(LAO_CAI), "period": "2026-06"}
    assert await cell(reader, **asked) == [None, "not_computable"]
    first = await make(admin, "statistics", **body(as_of="2026-06-30", value=410_000))
    await make(admin, "statistics", **body(value=400_000))
    assert await cell(reader, **asked) == [410_000, "ok"]
    later = await make(
        admin, "statistics", **body(as_of="2026-06-30", value=411_000.5, attribution="survey")
    )
    assert await cell(reader, **asked) == [411_000.5, "ok"]  # same date: the last recorded
    await make(admin, "statistics", **body(as_of="2026-07-01", value=420_000))
    assert await cell(reader, **asked) == [411_000.5, "ok"]
    await Row(admin, "statistics", later["id"]).delete()
    assert await cell(reader, **asked) == [410_000, "ok"]
    await Row(admin, "statistics", first["id"]).patch(value=409_999)
    assert await cell(reader, **asked) == [409_999, "ok"]

    series = await reader.get(
        "/v1/observations", params=asked | {"period": "2026", "every": "quarter"}
    )
    assert [i["value"] for i in series.json()["items"]] == [None, 409_999, 420_000, 420_000]
    text_ = await reader.get("/v1/observations", params=asked | {"format": "csv"})
    assert ",409999,,,household,ok" in text_.text
    assert fault(await reader.get("/v1/observations", params=asked | {"channel": "market"})) == (
        422,
        "/query/channel",
        "not_applicable",
    )


async def test_a_flow_answers_for_its_very_period(as_: As) -> None:
    admin = await as_(Role.province_admin, at=LAO_CAI)
    flow = body(indicator="population.total", as_of=None)
    for period, value in (("2025-Q4", 10), ("2025-12", 3), ("2025", 12)):
        await make(admin, "statistics", **flow | {"period": period, "value": value})
    asked = {"indicator": "population.total", "unit_id": str(LAO_CAI)}
    answers: list[tuple[str, int | None]] = [
        ("2025", 12),
        ("2025-Q4", 10),
        ("2025-10-01/2025-12-31", 10),
        ("2025-12", 3),
        ("2025-11", None),
        ("2026", None),
    ]
    for period, expected in answers:
        assert (await cell(admin, **asked, period=period))[0] == expected, period


async def test_no_sum_is_made_up_of_the_units_below(as_: As, lao_cai: Province) -> None:
    admin = await as_(Role.province_admin, at=LAO_CAI)
    for unit in (MUONG_KHUONG, BAO_THANG):
        await make(admin, "statistics", **body(unit, value=3_000))
    asked = {"indicator": "households.total", "unit_id": str(LAO_CAI), "period": "2026"}
    assert await cell(admin, **asked) == [None, "not_computable"]
    below = await admin.get("/v1/observations", params=asked | {"level": "commune"})
    found = {i["unit_id"]: i["value"] for i in below.json()["items"]}
    assert found.pop(str(MUONG_KHUONG)) == found.pop(str(BAO_THANG)) == 3_000
    assert set(found.values()) == {None}
    here = lao_cai.muong_khuong.admin  # who does not read the other's
    assert await cell(here, indicator="households.total", period="2026") == [3_000, "ok"]


async def test_households_reached_are_held_against_the_declared_total(
    lao_cai: Province, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = lao_cai.muong_khuong
    monkeypatch.undo()  # registered by the clock on the wall
    leader = await lao_cai.leader_of(place)
    event = place.event(household_id=place.household["id"])
    await make(leader, "support-events", **event)
    today = clock.today()
    asked = {"indicator": "households.reached_share", "period": str(today.year)}
    asked["unit_id"] = str(MUONG_KHUONG)

    async def share() -> list[Any]:
        response = await place.admin.get("/v1/observations", params=asked)
        (item,) = response.json()["items"]
        return [item[name] for name in ("value", "numerator", "denominator", "status")]

    assert await share() == [None, 1, None, "not_computable"]
    zero = body(MUONG_KHUONG, as_of="2025-08-01", value=0)
    await make(place.admin, "statistics", **zero)
    assert await share() == [None, 1, 0, "not_computable"]
    await make(place.admin, "statistics", **zero | {"as_of": "2025-09-01", "value": 8})
    assert await share() == [12.5, 1, 8, "ok"]
    both = await place.admin.get(
        "/v1/observations",
        params={"indicator": ["events.count", "households.reached"], "period": "2025"},
    )
    assert [item["value"] for item in both.json()["items"]] == [1, 1]  # never mixed


async def test_a_poll_sees_every_change_of_a_statistic(as_: As) -> None:
    admin = await as_(Role.province_admin, at=LAO_CAI)
    asked = {"indicator": "households.total", "unit_id": str(LAO_CAI), "period": "2026"}

    async def poll(tag: str) -> tuple[int, str]:
        answer = await admin.get("/v1/observations", params=asked, headers={"If-None-Match": tag})
        return answer.status_code, answer.headers["ETag"]

    _, tag = await poll('"none"')
    assert await poll(tag) == (304, tag)
    row = Row(admin, "statistics", (await make(admin, "statistics", **body()))["id"])
    for change in (None, row.patch(value=5), row.delete(), row.undelete()):
        if change:
            assert (await change).status_code < 300
        status, new = await poll(tag)
        assert (status, new != tag) == (200, True)
        tag = new
        assert await poll(tag) == (304, tag)
    await make(admin, "statistics", **body(MUONG_KHUONG))  # another unit's changes no figure here
    assert await poll(tag) == (304, tag)


async def test_the_audit_tells_who_declared_what(as_: As) -> None:
    admin = await as_(Role.province_admin, at=LAO_CAI)
    auditor = await as_(Role.auditor, at=LAO_CAI)
    row = Row(admin, "statistics", (await make(admin, "statistics", **body()))["id"])
    await row.patch(value=1.5)
    entries = await auditor.get("/v1/audit-entries", params={"row_id": row.id})
    made, changed = sorted(entries.json()["items"], key=lambda entry: entry["at"])
    assert (made["action"], made["resource"], made["after"]["value"]) == (
        "create",
        "statistics",
        400_000,
    )
    assert (changed["before"]["value"], changed["after"]["value"]) == (400_000, 1.5)
    assert changed["actor_id"] == str(admin.principal_id)
