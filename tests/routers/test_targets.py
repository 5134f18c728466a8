"""Targets, over HTTP: who sets them, what their indicators allow, what they were."""

from datetime import date
from typing import Any
from uuid import UUID

import pytest

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
    unseen_by,
    walk,
)

TODAY = date(2026, 10, 15)


@pytest.fixture(autouse=True)
def _one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "today", lambda: TODAY)


def body(unit_id: UUID = LAO_CAI, **changes: Any) -> dict[str, Any]:
    return {
        "indicator": "events.count",
        "unit_id": str(unit_id),
        "period": "2026",
        "value": 1_000,
    } | changes


async def test_a_target_follows_the_rules_of_writing(as_: As) -> None:
    here = await as_(Role.province_admin, at=LAO_CAI)
    there = await as_(Role.province_admin, at=HA_NOI)
    target = body()
    row = await created_once(here, "targets", target, body(value=900))
    theirs = await there.post("/v1/targets", json=body(HA_NOI, id=row.id))
    assert problem(theirs) == (409, "id_conflict")
    await unseen_by(there, row, value=1)
    change = {"value": 1_200.5, "comparator": "gt", "document": "12/KH-UBND"}
    await changed_on_its_version(row, change, "value")
    await hidden_by_delete(row, target)
    await brought_back(row, there)


async def test_simultaneous_writers_of_a_target(as_: As) -> None:
    admin = await as_(Role.province_admin, at=LAO_CAI)
    await safe_at_once(admin, "targets", body(), lambda n: {"value": n})


async def test_what_is_left_out_has_a_meaning(as_: As) -> None:
    admin = await as_(Role.province_admin, at=LAO_CAI)
    made = await make(admin, "targets", **body())
    given = {name: made[name] for name in ("owner", "measure", "comparator", "service_types")}
    assert given == {
        "owner": "government",
        "measure": "period",
        "comparator": "gte",
        "service_types": [],
    }
    assert made["baseline"] is made["team_id"] is made["allocated_from_id"] is None
    for name in ("indicator", "unit_id", "period", "value"):
        lacking = {key: value for key, value in body().items() if key != name}
        assert fault(await admin.post("/v1/targets", json=lacking)) == (422, f"/{name}", "missing")


async def test_a_target_asks_only_what_its_indicator_tells(as_: As, lao_cai: Province) -> None:
    admin = await as_(Role.province_admin, at=LAO_CAI)
    quantity = {"indicator": "events.quantity"}
    wrong: list[tuple[dict[str, Any], str, str]] = [
        ({"indicator": "no.such"}, "/indicator", "unknown_indicator"),
        ({"period": "2026-13"}, "/period", "period_invalid"),
        ({"denominator": "teams.active"}, "/denominator", "not_declared"),
        (
            {"indicator": "members.youth_share", "denominator": "population.youth"},
            "/denominator",
            "not_applicable",
        ),
        ({"indicator": "teams.active", "channel": "market"}, "/channel", "not_applicable"),
        (
            {"indicator": "villages.coverage", "team_kind": "core_squad"},
            "/team_kind",
            "not_applicable",
        ),
        (
            {"indicator": "households.total", "service_types": ["ID.USE"]},
            "/service_types",
            "not_applicable",
        ),
        ({"minimum_per_unit": 2}, "/minimum_per_unit", "not_applicable"),
        (quantity, "/service_types", "units_of_count"),
        (
            quantity | {"service_types": ["ID.USE", "ID.ACTIVATE"]},
            "/service_types",
            "units_of_count",
        ),
        (quantity | {"service_types": ["NO.SUCH"]}, "/service_types", "not_found"),
        ({"indicator": "teams.active", "measure": "cumulative"}, "/measure", "not_applicable"),
        ({"indicator": "teams.zalo_share", "measure": "cumulative"}, "/measure", "not_applicable"),
        ({"baseline": 5}, "/baseline", "not_together"),
        ({"baseline_period": "2025"}, "/baseline_period", "not_together"),
        ({"measure": "growth"}, "/baseline_period", "exactly_one"),
        (
            {"measure": "growth", "baseline_period": "2026-Q2"},
            "/baseline_period",
            "end_before_start",
        ),
        (
            {"indicator": "villages.total", "team_id": lao_cai.muong_khuong.team["id"]},
            "/team_id",
            "not_applicable",
        ),
        (
            {"unit_id": str(BAO_THANG), "team_id": lao_cai.muong_khuong.team["id"]},
            "/team_id",
            "not_found",
        ),
        ({"unit_id": str(HA_NOI)}, "/unit_id", "not_found"),
        ({"comparator": "about"}, "/comparator", "enum"),
    ]
    for given, pointer, code in wrong:
        refused = await admin.post("/v1/targets", json=body() | given)
        assert fault(refused) == (422, pointer, code), given
    row = Row(admin, "targets", (await make(admin, "targets", **body()))["id"])
    for given, pointer, code in wrong[:12]:
        assert fault(await row.patch(**given)) == (422, pointer, code), given
    late = await admin.post("/v1/targets", json=body(OLD_LAO_CAI))
    assert problem(late) == (409, "unit_dissolved")
    past = await admin.post("/v1/targets", json=body(OLD_LAO_CAI, period="2023"))
    assert past.status_code == 201


async def test_who_sets_targets(as_: As, lao_cai: Province) -> None:
    nation = await as_(Role.national_admin, at=NATION)
    province = await as_(Role.province_admin, at=LAO_CAI)
    youth = await as_(Role.youth_coordinator, at=LAO_CAI)
    national = await make(nation, "targets", **body(NATION))
    owned = await make(province, "targets", **body())
    young = await make(youth, "targets", **body(MUONG_KHUONG, owner="youth_union"))
    for client, given in ((nation, body()), (youth, body())):
        refused = await client.post("/v1/targets", json=given)
        assert (problem(refused), fault(refused)[1]) == ((403, "insufficient_role"), "/owner")
    assert (await Row(province, "targets", young["id"]).patch(value=5)).status_code == 200
    theirs = Row(youth, "targets", young["id"])
    assert (await theirs.patch(value=6)).status_code == 200
    assert problem(await theirs.patch(owner="government")) == (403, "insufficient_role")
    assert problem(await Row(youth, "targets", owned["id"]).patch(value=1)) == (
        403,
        "insufficient_role",
    )
    for role in (Role.ioc_reader, Role.auditor, Role.portal_client):
        reader = await as_(role, at=LAO_CAI)
        assert await ids_in(reader, "targets") == {owned["id"], young["id"]}
        assert problem(await reader.post("/v1/targets", json=body())) == (403, "insufficient_role")
    officer = lao_cai.muong_khuong.admin
    assert await ids_in(officer, "targets") == {young["id"]}
    assert problem(await officer.post("/v1/targets", json=body())) == (403, "insufficient_role")
    leader = await lao_cai.leader_of(lao_cai.muong_khuong)
    for stranger in (leader, await as_(Role.partner, at=LAO_CAI)):
        assert problem(await stranger.get("/v1/targets")) == (403, "insufficient_role")
    assert await ids_in(nation, "targets") == {national["id"], owned["id"], young["id"]}


async def test_the_filters_of_the_list(as_: As, lao_cai: Province) -> None:
    admin = await as_(Role.province_admin, at=LAO_CAI)
    bodies = {
        "year": body(),
        "quarter": body(period="2026-Q2"),
        "team": body(MUONG_KHUONG, team_id=lao_cai.muong_khuong.team["id"]),
        "youth": body(BAO_THANG, owner="youth_union", indicator="teams.active", period="2025"),
    }
    made = {name: (await make(admin, "targets", **given))["id"] for name, given in bodies.items()}
    queries: list[tuple[dict[str, Any], set[str]]] = [
        ({}, set(made)),
        ({"unit_id": str(MUONG_KHUONG)}, {"team"}),
        ({"period": "2026"}, {"year", "quarter", "team"}),
        ({"period": "2026-04-01/2026-06-30"}, {"quarter"}),
        ({"indicator": "teams.active"}, {"youth"}),
        ({"owner": "youth_union"}, {"youth"}),
        ({"team_id": lao_cai.muong_khuong.team["id"]}, {"team"}),
        ({"allocated_from_id": made["year"]}, set()),
    ]
    for query, names in queries:
        assert await ids_in(admin, "targets", **query) == {made[name] for name in names}, query


async def test_what_a_target_was_stays_readable(as_: As) -> None:
    admin = await as_(Role.province_admin, at=LAO_CAI)
    row = Row(admin, "targets", (await make(admin, "targets", **body()))["id"])
    await row.patch(value=900)
    await row.patch(service_types=["ID.USE"])
    reader = await as_(Role.ioc_reader, at=LAO_CAI)
    versions = await walk(reader, f"targets/{row.id}/versions", limit=2)
    assert [(v["version"], v["value"], v["service_types"]) for v in versions] == [
        (3, 900, ["ID.USE"]),
        (2, 900, []),
        (1, 1_000, []),
    ]
    stranger = await as_(Role.ioc_reader, at=HA_NOI)
    assert problem(await stranger.get(f"/v1/targets/{row.id}/versions")) == (404, "not_found")


async def test_a_reorganisation_tells_how_many_targets_it_touches(
    as_: As, lao_cai: Province
) -> None:
    admin = await as_(Role.province_admin, at=LAO_CAI)
    nation = await as_(Role.national_admin, at=NATION)
    await make(admin, "targets", **body(MUONG_KHUONG))
    await make(admin, "targets", **body())
    asked = {
        "effective_on": "2026-11-01",
        "document": {"number": "1/NQ", "issued_on": "2026-10-01", "issuer": "HĐND"},
        "changes": [{"kind": "rename", "unit_id": str(MUONG_KHUONG), "name": "Xã Mới"}],
        "dry_run": True,
    }
    preview = await nation.post("/v1/reorganisations", json=asked)
    assert preview.json()["affected"]["targets"] == 1
    assert lao_cai.unit_id == LAO_CAI
