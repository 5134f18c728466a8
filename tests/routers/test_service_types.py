"""The catalogue of services, over HTTP."""

import csv
from pathlib import Path
from typing import Any

from api.models.role_grants import Role
from tests.factories import HA_NOI, LAO_CAI, MUONG_KHUONG, NATION, As, make
from tests.rules import (
    Row,
    changed_on_its_version,
    created_once,
    fault,
    hidden_by_delete,
    problem,
    safe_at_once,
    walk,
)

CATALOGUE = Path(__file__).parents[2] / "api" / "data" / "service_types.csv"


def child(code: str = "AP.INSTALL.LC", **changes: Any) -> dict[str, Any]:
    return {
        "code": code,
        "parent_code": code.rpartition(".")[0],
        "name_vi": "Cài đặt Công dân số Lào Cai",
        "name_en": "Install the Lào Cai citizen app",
    } | changes


async def test_the_catalogue_is_open_to_everybody_who_is_signed_in(as_: As) -> None:
    anyone = await as_()
    with CATALOGUE.open(encoding="utf-8", newline="") as file:
        expected = [
            {name: value or None for name, value in row.items()} for row in csv.DictReader(file)
        ]
    services = await walk(anyone, "service-types", limit=7)
    shown = [{name: service[name] for name in expected[0]} for service in services]
    assert shown == sorted(expected, key=lambda row: str(row["code"]))
    for query, wanted in (
        ({"category": "identity"}, {"ID.ACTIVATE", "ID.DOSSIER", "ID.USE"}),
        ({"code": ["PY.QR", "ID.USE"]}, {"PY.QR", "ID.USE"}),
        ({"status": "retired"}, {"HL.DECLARE"}),
        ({"parent_code": "ID.USE"}, set()),
    ):
        found = await walk(anyone, "service-types", **query)
        assert {service["code"] for service in found} == wanted, query
    one = Row(anyone, "service-types", services[0]["id"])
    assert await one.get() == services[0]
    for refused in (await one.patch(name_en="X"), await one.delete()):
        assert problem(refused) == (403, "insufficient_role")
    refused = await anyone.post("/v1/service-types", json=child())
    assert problem(refused) == (403, "insufficient_role")


async def test_the_nation_follows_the_rules_of_writing(as_: As) -> None:
    nation = await as_(Role.national_admin, at=NATION)
    lacking = await nation.post("/v1/service-types", json=child(parent_code=None))
    assert [error["pointer"] for error in lacking.json()["errors"]] == [
        "/category",
        "/unit_of_count",
    ]
    new = child("TX.FILE", parent_code=None, category="tax", unit_of_count="dossier")
    row = await created_once(nation, "service-types", new, new | {"name_en": "File taxes"})
    await changed_on_its_version(row, {"name_vi": "Thuế", "platform": "eTax"}, "name_vi")
    for name in ("code", "unit_of_count", "parent_code"):
        assert fault(await row.patch(**{name: "X"})) == (422, f"/{name}", "extra_forbidden")
    ends = {"active_from": "2026-02-01", "active_to": "2026-01-31"}
    assert fault(await row.patch(**ends)) == (422, "/active_to", "end_before_start")
    assert (await row.patch(status="retired", active_to="2026-01-31")).status_code == 200
    refused = await row.patch(active_from="2026-02-01")
    assert fault(refused) == (422, "/active_to", "end_before_start")
    refused = await nation.post("/v1/service-types", json=new | ends | {"code": "TX.PAY"})
    assert fault(refused) == (422, "/active_to", "end_before_start")
    taken = await nation.post("/v1/service-types", json=new)
    assert (problem(taken), fault(taken)[1:]) == ((409, "conflict"), ("/code", "taken"))
    await hidden_by_delete(row, new)


async def test_simultaneous_writers_of_a_service(as_: As) -> None:
    province = await as_(Role.province_admin, at=LAO_CAI)
    await safe_at_once(province, "service-types", child(), lambda n: {"platform": f"App {n}"})


async def test_a_province_adds_children_that_keep_what_is_counted(as_: As) -> None:
    lao_cai = await as_(Role.province_admin, at=LAO_CAI)
    ha_noi = await as_(Role.province_admin, at=HA_NOI)
    nation = await as_(Role.national_admin, at=NATION)
    made = await make(lao_cai, "service-types", **child())
    kept = (made["category"], made["unit_of_count"], made["parent_code"])
    assert kept == ("provincial_apps", "turn", "AP.INSTALL")
    same = child("AP.INSTALL.YB", category="provincial_apps", unit_of_count="turn")
    assert (await make(lao_cai, "service-types", **same))["status"] == "active"
    for body, refusal in (
        (child("PY.BANK.LC", unit_of_count="turn"), ("/unit_of_count", "not_a_child")),
        (child("PY.BANK.LC", category="tax"), ("/category", "not_a_child")),
        (child("XX.BANK.LC", parent_code="PY.BANK"), ("/code", "not_a_child")),
        (child("PY.BANK", parent_code="PY.BANK"), ("/code", "not_a_child")),
        (child("NO.SUCH.LC"), ("/parent_code", "not_found")),
        (child("AP.INSTALL.LC.X"), ("/parent_code", "not_found")),
        (child("TX.FILE", parent_code=None), ("/parent_code", "missing")),
        (child("ap.install.lc"), ("/code", "string_pattern_mismatch")),
        (child(name_vi=None), ("/name_vi", "wrong_type")),
    ):
        assert fault(await lao_cai.post("/v1/service-types", json=body)) == (422, *refusal), body
    taken = await ha_noi.post("/v1/service-types", json=child())
    assert (problem(taken), fault(taken)[1:]) == ((409, "conflict"), ("/code", "taken"))

    foreign = Row(ha_noi, "service-types", made["id"])
    assert await foreign.get() == made
    for refused in (await foreign.patch(name_vi="X"), await foreign.delete()):
        assert problem(refused) == (403, "insufficient_role")
    (national,) = await walk(lao_cai, "service-types", code="AP.INSTALL")
    refused = await Row(lao_cai, "service-types", national["id"]).patch(name_vi="X")
    assert problem(refused) == (403, "insufficient_role")
    own = Row(lao_cai, "service-types", made["id"])
    assert (await own.patch(name_vi="Công dân số")).json()["unit_of_count"] == "turn"
    assert (await Row(nation, "service-types", made["id"]).patch(platform="X")).status_code == 200
    children = await walk(ha_noi, "service-types", parent_code="AP.INSTALL")
    assert {service["code"] for service in children} == {"AP.INSTALL.LC", "AP.INSTALL.YB"}
    officer = await as_(Role.commune_admin, at=MUONG_KHUONG)
    refused = await officer.post("/v1/service-types", json=child("PY.BANK.MK"))
    assert problem(refused) == (403, "insufficient_role")
