"""Indicator definitions, over HTTP."""

from typing import Any

from api.models.role_grants import Role
from tests.factories import HA_NOI, LAO_CAI, NATION, As, make
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

DECLARED = {"households.total", "population.total", "population.youth", "businesses.household"}


def body(**changes: Any) -> dict[str, Any]:
    return {
        "code": "rank.digital_society",
        "name_vi": "Thứ hạng xã hội số",
        "name_en": "Digital society rank",
        "unit_of_count": "rank",
    } | changes


async def test_definitions_are_open_and_computed_ones_read_only(as_: As) -> None:
    anyone = await as_()
    everything = await walk(anyone, "indicators", limit=5)
    codes = [indicator["code"] for indicator in everything]
    assert codes == sorted(codes)
    declared = await walk(anyone, "indicators", kind="declared")
    assert {indicator["code"] for indicator in declared} == DECLARED
    computed = await walk(anyone, "indicators", kind="computed")
    assert len(computed) + len(declared) == len(everything)
    (coverage,) = await walk(anyone, "indicators", code="villages.coverage")
    assert coverage["formula"] == "villages.covered ÷ villages.total"
    assert (coverage["unit_of_count"], coverage["additive"]) == ("percent", False)
    assert fault(await anyone.get("/v1/indicators?kind=guessed")) == (422, "/query/kind/0", "enum")

    nation = Row(await as_(Role.national_admin, at=NATION), "indicators", coverage["id"])
    for refused in (await nation.patch(name_vi="X"), await nation.delete()):
        assert (problem(refused), fault(refused)[1:]) == ((409, "conflict"), ("/kind", "read_only"))
    assert await nation.get() == coverage


async def test_the_nation_alone_declares_indicators(as_: As) -> None:
    nation = await as_(Role.national_admin, at=NATION)
    row = await created_once(nation, "indicators", body(), body(name_en="Rank"))
    made = await row.get()
    assert (made["kind"], made["additive"], made["definition_version"]) == ("declared", False, 1)
    for role, at in (
        (Role.province_admin, LAO_CAI),
        (Role.province_admin, HA_NOI),
        (Role.portal_client, LAO_CAI),
        (Role.ioc_reader, NATION),
    ):
        other = await as_(role, at=at)
        readable = Row(other, "indicators", row.id)
        assert await readable.get() == made
        for refused in (
            await other.post("/v1/indicators", json=body(code="a.b")),
            await readable.patch(name_vi="X"),
            await readable.delete(),
        ):
            assert problem(refused) == (403, "insufficient_role")
    await changed_on_its_version(row, {"name_vi": "Hạng", "formula": None}, "unit_of_count")
    before = (await row.get())["definition_version"]
    assert (await row.patch(name_vi="Hạng xã hội số")).json()["definition_version"] == before
    counted = await row.patch(unit_of_count="place", formula="công bố hằng năm")
    assert counted.json()["definition_version"] == before + 1
    for change, refusal in (
        ({"code": "a.b"}, ("/code", "extra_forbidden")),
        ({"kind": "computed"}, ("/kind", "extra_forbidden")),
        ({"additive": "yes"}, ("/additive", "wrong_type")),
    ):
        assert fault(await row.patch(**change)) == (422, *refusal)
    for given, refusal in (
        (body(code="Rank"), ("/code", "string_pattern_mismatch")),
        (body(unit_of_count=None), ("/unit_of_count", "wrong_type")),
        (body(kind="computed"), ("/kind", "extra_forbidden")),
    ):
        assert fault(await nation.post("/v1/indicators", json=given)) == (422, *refusal)
    taken = await nation.post("/v1/indicators", json=body())
    assert (problem(taken), fault(taken)[1:]) == ((409, "conflict"), ("/code", "taken"))
    await hidden_by_delete(row, body())


async def test_simultaneous_writers_of_an_indicator(as_: As) -> None:
    nation = await as_(Role.national_admin, at=NATION)
    await safe_at_once(nation, "indicators", body(), lambda n: {"name_en": f"Rank {n}"})


async def test_former_definitions_stay_readable(as_: As) -> None:
    nation = await as_(Role.national_admin, at=NATION)
    row = Row(nation, "indicators", (await make(nation, "indicators", **body()))["id"])
    await row.patch(formula="theo Bộ", name_en="Rank")
    await row.patch(name_en="Rank of the society")  # a name alone defines nothing anew
    await row.patch(unit_of_count="place", additive=True)
    reader = await as_(Role.ioc_reader, at=LAO_CAI)
    versions = await walk(reader, f"indicators/{row.id}/versions", limit=2)
    assert [
        (v["definition_version"], v["unit_of_count"], v["additive"], v["formula"], v["name_en"])
        for v in versions
    ] == [
        (3, "place", True, "theo Bộ", "Rank of the society"),
        (2, "rank", False, "theo Bộ", "Rank of the society"),
        (1, "rank", False, None, "Digital society rank"),
    ]
    since = [version["since"] for version in versions]
    assert since == sorted(since, reverse=True)
    assert since[-1] == (await row.get())["created_at"]
    absent = await reader.get(f"/v1/indicators/{NATION}/versions")
    assert problem(absent) == (404, "not_found")


async def test_an_indicator_with_statistics_is_not_deleted(as_: As) -> None:
    nation = await as_(Role.national_admin, at=NATION)
    row = Row(nation, "indicators", (await make(nation, "indicators", **body()))["id"])
    statistic = {"indicator": body()["code"], "unit_id": str(LAO_CAI), "as_of": "2025-12-31"}
    made = await make(nation, "statistics", **statistic, value=15, attribution="government")
    refused = await row.delete()
    assert (problem(refused), fault(refused)[1:]) == ((409, "conflict"), ("", "still_used"))
    await Row(nation, "statistics", made["id"]).delete()
    assert (await row.delete()).status_code == 204
