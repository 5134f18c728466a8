"""Reorganisations: every kind, refusals with their rows, rights, dry runs and taking back."""

from datetime import date
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api import ids
from api.models.role_grants import Role
from tests.factories import (
    BAO_THANG,
    HA_NOI,
    HOAN_KIEM,
    LAO_CAI,
    MUONG_KHUONG,
    NATION,
    OLD_MUONG_KHUONG,
    As,
    Country,
    Province,
    make,
)

DAY = "2026-03-01"
REFORM = "2025-07-01"
BEFORE = "2026-02-28"

TREE = text("""
    select md5(concat_ws('|',
        (select string_agg(row(u.id, u.key, u.valid_from, u.valid_to)::text, ',' order by u.key)
         from admin_unit u),
        (select string_agg(s::text, ',' order by s.unit_key, s.during) from admin_unit_state s),
        (select string_agg(x::text, ',' order by x.predecessor_key, x.successor_key)
         from unit_succession x),
        (select string_agg(p::text, ',' order by p.unit_key, p.level, p.during)
         from placement p)))
""")
PLACEMENT = text("""
    select array_agg(p::text order by p.unit_key, p.level, p.during) from placement p
""")


async def tree_of(superuser: AsyncEngine) -> str:
    """Return a checksum over every row of the tree."""
    async with superuser.connect() as connection:
        return str(await connection.scalar(TREE))


async def check_placement(superuser: AsyncEngine) -> None:
    """What was placed unit by unit is what placing the whole country gives."""
    async with superuser.connect() as connection:
        here = await connection.scalar(PLACEMENT)
        await connection.execute(text("select rebuild_placement()"))
        assert here == await connection.scalar(PLACEMENT)


def document(number: str, *changes: dict[str, Any], **more: Any) -> dict[str, Any]:
    paper = {"number": number, "issued_on": "2026-01-15", "issuer": "Ủy ban Thường vụ Quốc hội"}
    return {"effective_on": DAY, "document": paper, "changes": list(changes)} | more


def commune(name: str, code: str | None = None, parent: Any = LAO_CAI) -> dict[str, Any]:
    unit = {"level": "commune", "name": name, "type": "xã", "parent_id": str(parent)}
    return unit | ({"code": code} if code else {})


def village(name: str, parent: Any) -> dict[str, Any]:
    return {"level": "village", "name": name, "type": "thôn", "parent_id": str(parent)}


def merge(*from_ids: Any, to: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "merge", "from_ids": [str(i) for i in from_ids], "to": to}


def move(unit_ids: list[str], parent: str) -> dict[str, Any]:
    return {"kind": "move", "unit_ids": unit_ids, "parent_id": parent}


def create(unit: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "create", "unit": unit}


def dissolve(unit_id: str, **more: str) -> dict[str, Any]:
    return {"kind": "dissolve", "unit_id": unit_id} | more


async def refused(
    who: httpx.AsyncClient, status: int, code: str, pointer: str, body: dict[str, Any]
) -> dict[str, Any]:
    response = await who.post("/v1/reorganisations", json=body)
    assert response.status_code == status, response.text
    errors = response.json()["errors"]
    assert (errors[0]["code"], errors[0]["pointer"]) == (code, pointer), errors
    params: dict[str, Any] = errors[0]["params"]
    return params


async def unit_of(who: httpx.AsyncClient, unit_id: Any, **query: Any) -> dict[str, Any]:
    response = await who.get(f"/v1/admin-units/{unit_id}", params=query)
    assert response.status_code == 200, response.text
    unit: dict[str, Any] = response.json()
    return unit


async def observed(who: httpx.AsyncClient, **query: Any) -> Any:
    query = {"indicator": "events.count", "period": "2025-08", "unit_id": str(NATION)} | query
    response = await who.get("/v1/observations", params=query)
    assert response.status_code == 200, response.text
    return [
        {name: item[name] for name in ("unit_id", "unit_name", "value", "status")}
        for item in response.json()["items"]
        if item["value"] or item["unit_id"] is None
    ]


async def counted(superuser: AsyncEngine, day: str, level: str) -> dict[UUID, int]:
    """Count the events by the units in whose territory of a day they lie."""
    statement = text("""
        select a.id, count(*) from support_event e
        join placement p on p.unit_key = e.unit_key and p.level = :level
             and p.during @> cast(:day as date)
        join admin_unit a on a.key = p.ancestor_key group by a.id
    """)
    async with superuser.connect() as connection:
        values = {"level": level, "day": date.fromisoformat(day)}
        rows = await connection.execute(statement, values)
        return {unit: number for unit, number in rows}  # noqa: C416 - rows are no pairs to mypy


MERGED = commune("Xã Mường Khương Mới", "99999")


@pytest.fixture
async def nation(as_: As) -> httpx.AsyncClient:
    return await as_(Role.national_admin)


@pytest.fixture
async def busy(lao_cai: Province) -> Province:
    """Both communes of Lào Cai with two events each, in August 2025."""
    for place in (lao_cai.muong_khuong, lao_cai.bao_thang):
        leader = await lao_cai.leader_of(place)
        for _ in range(2):
            await make(leader, "support-events", **place.event())
    return lao_cai


async def test_two_communes_merge_and_their_facts_stay(
    busy: Province, nation: httpx.AsyncClient, superuser: AsyncEngine
) -> None:
    recorded = {"level": "commune", "boundary": "as_recorded"}
    before = await observed(nation, **recorded)
    body = document("1/NQ", merge(MUONG_KHUONG, BAO_THANG, to=MERGED))
    made = await make(nation, "reorganisations", **body)
    new = str(ids.official_unit_id("commune", "99999", DAY))
    assert made["unit_ids"] == [new]
    assert made["affected"] == {
        "villages": 2,
        "teams": 2,
        "members": 2,
        "households": 2,
        "support_events": 4,
        "targets": 0,
        "grants": 4,
    }
    assert (made["unplaced"], made["conflicts"], made["version"]) == ([], [], 1)
    assert await observed(nation, **recorded) == before
    assert [item["value"] for item in before] == [2, 2]
    now = await observed(nation, level="commune")
    assert [(item["unit_id"], item["value"]) for item in now] == [(new, 4)]
    for boundary in ("as_recorded", "current"):
        assert [item["value"] for item in await observed(nation, boundary=boundary)] == [4]
    for day in ("2025-06-30", BEFORE, DAY):
        assert await counted(superuser, day, "nation") == {NATION: 4}

    gone = await unit_of(nation, MUONG_KHUONG)
    assert (gone["valid_to"], gone["version"]) == (BEFORE, 2)
    lineage = (await nation.get(f"/v1/admin-units/{new}/lineage")).json()
    assert {unit["unit_id"] for unit in lineage["predecessors"]} == {
        str(MUONG_KHUONG),
        str(BAO_THANG),
    }
    home = busy.muong_khuong.village["id"]
    assert (await unit_of(nation, home))["parent_id"] == new
    assert (await unit_of(nation, home, at=BEFORE))["parent_id"] == str(MUONG_KHUONG)
    await check_placement(superuser)

    team = busy.muong_khuong.team["id"]
    assert (await busy.muong_khuong.admin.get(f"/v1/teams/{team}")).status_code == 200
    other = busy.bao_thang.team["id"]  # its grant follows the successor, all of it
    assert (await busy.muong_khuong.admin.get(f"/v1/teams/{other}")).status_code == 200
    late = busy.muong_khuong.event(
        unit_id=str(MUONG_KHUONG), occurred_at="2026-03-02T09:00:00+07:00"
    )
    leader = await busy.leader_of(busy.muong_khuong)
    response = await leader.post("/v1/support-events", json=late)
    assert (response.status_code, response.json()["code"]) == (409, "unit_dissolved")
    assert [unit["unit_id"] for unit in response.json()["successors"]] == [new]
    listed = (await nation.get("/v1/reorganisations", params={"unit_id": new})).json()
    assert [item["id"] for item in listed["items"]] == [made["id"]]
    assert (await nation.get(f"/v1/reorganisations/{made['id']}")).json() == made


async def test_a_dry_run_tells_and_writes_nothing(
    busy: Province, nation: httpx.AsyncClient, superuser: AsyncEngine
) -> None:
    tree = await tree_of(superuser)
    body = document("1/NQ", merge(MUONG_KHUONG, BAO_THANG, to=MERGED), dry_run=True)
    response = await nation.post("/v1/reorganisations", json=body)
    assert response.status_code == 200, response.text
    told = response.json()
    assert set(told) == {"affected", "unplaced", "conflicts"}
    assert (told["affected"]["support_events"], told["conflicts"]) == (4, [])
    taken = commune("Xã Lạ", "02905")
    body = document(
        "1/NQ",
        {"kind": "create", "unit": taken},
        {"kind": "rename", "unit_id": str(MUONG_KHUONG), "name": "Xã Khác"},
        {"kind": "dissolve", "unit_id": str(BAO_THANG)},
        dry_run=True,
    )
    told = (await nation.post("/v1/reorganisations", json=body)).json()
    assert [(c["pointer"], c["code"]) for c in told["conflicts"]] == [
        ("/changes/0/unit/code", "code_taken"),
        ("/changes/2/unit_id", "not_empty"),
    ]
    assert told["conflicts"][1]["params"]["unit_ids"] == [busy.bao_thang.village["id"]]
    assert await tree_of(superuser) == tree
    assert (await nation.get("/v1/reorganisations")).json()["items"] == []


async def test_units_are_created_renamed_and_moved_in_one_document(
    lao_cai: Province, nation: httpx.AsyncClient, superuser: AsyncEngine
) -> None:
    new = str(ids.new_id())
    home = lao_cai.muong_khuong.village["id"]
    await make(
        nation,
        "reorganisations",
        **document(
            "2/NQ",
            {"kind": "create", "unit": commune("Xã Mới") | {"id": new}},
            {"kind": "move", "unit_ids": [home], "parent_id": new},
            {"kind": "rename", "unit_id": home, "name": "Bản Mới", "type": "bản"},
            {"kind": "rename", "unit_id": new, "name": "Phường Mới", "code": "99998"},
            {"kind": "create", "unit": village("Thôn Hai", new)},
            {"kind": "move", "unit_ids": [str(BAO_THANG)], "parent_id": str(HA_NOI)},
        ),
    )
    now, then = await unit_of(nation, home), await unit_of(nation, home, at=BEFORE)
    assert (now["name"], now["type"], now["parent_id"]) == ("Bản Mới", "bản", new)
    assert (then["name"], then["parent_id"]) == ("Thôn Na Đẩy", str(MUONG_KHUONG))
    assert (now["version"], now["valid_from"]) == (2, "2025-07-01")
    created = await unit_of(nation, new)
    assert (created["name"], created["code"]) == ("Phường Mới", "99998")
    assert (await unit_of(nation, BAO_THANG))["parent_id"] == str(HA_NOI)
    assert (await unit_of(nation, BAO_THANG, at=BEFORE))["parent_id"] == str(LAO_CAI)
    await check_placement(superuser)


async def test_a_future_one_takes_effect_on_its_day(
    busy: Province, nation: httpx.AsyncClient, superuser: AsyncEngine
) -> None:
    body = document("3/NQ", merge(MUONG_KHUONG, BAO_THANG, to=MERGED), effective_on="2027-01-01")
    new = (await make(nation, "reorganisations", **body))["unit_ids"][0]
    home = busy.muong_khuong.village["id"]
    assert (await unit_of(nation, home))["parent_id"] == str(MUONG_KHUONG)
    assert (await unit_of(nation, home, at="2027-01-01"))["parent_id"] == new
    assert [item["value"] for item in await observed(nation, level="commune")] == [2, 2]
    assert await counted(superuser, "2027-01-01", "commune") == {UUID(new): 4}
    other = busy.bao_thang.team["id"]
    assert (await busy.muong_khuong.admin.get(f"/v1/teams/{other}")).status_code == 404
    later = await make(
        busy.muong_khuong.admin,
        "admin-units",
        **village("Thôn Sau", MUONG_KHUONG),
        valid_from="2026-01-01",
    )
    assert (await unit_of(nation, later["id"], at="2027-01-01"))["parent_id"] == new
    await check_placement(superuser)


async def test_a_commune_is_split_by_its_villages(
    busy: Province, nation: httpx.AsyncClient, superuser: AsyncEngine
) -> None:
    home = busy.muong_khuong.village["id"]
    second = await make(
        busy.muong_khuong.admin,
        "admin-units",
        **village("Thôn Hai", MUONG_KHUONG),
        valid_from="2025-07-01",
    )
    north = {"unit": commune("Xã Bắc", "99001"), "village_ids": [home]}
    south = {"unit": commune("Xã Nam", "99003"), "village_ids": []}

    def split(*parts: dict[str, Any]) -> dict[str, Any]:
        return document(
            "4/NQ", {"kind": "split", "from_id": str(MUONG_KHUONG), "into": list(parts)}
        )

    left = await refused(nation, 409, "unnamed", "/changes/0/into", split(north, south))
    assert left == {"unit_ids": [second["id"]]}
    twice = south | {"village_ids": [home, second["id"]]}
    assert await refused(nation, 422, "duplicate", "/changes/0/into", split(north, twice)) == {
        "unit_ids": [home]
    }
    wrong = south | {"village_ids": [busy.bao_thang.village["id"]]}
    at = "/changes/0/into/1/village_ids/0"
    await refused(nation, 422, "not_under", at, split(north, wrong))
    await refused(nation, 422, "too_short", "/changes/0/into", split(
        north | {"village_ids": [home, second["id"]]}
    ))  # fmt: skip

    whole = south | {"village_ids": [second["id"]]}
    made = await make(nation, "reorganisations", **split(north, whole))
    units = dict(zip(("north", "south"), made["unit_ids"], strict=True))
    assert (await unit_of(nation, home))["parent_id"] == units["north"]
    assert (await unit_of(nation, second["id"]))["parent_id"] == units["south"]
    now = await observed(nation, unit_id=str(LAO_CAI), level="commune")
    found = {item["unit_id"]: item["value"] for item in now}
    assert found == {units["north"]: 2, str(BAO_THANG): 2}
    team = busy.muong_khuong.team["id"]  # a grant on the split unit gives nothing
    assert (await busy.muong_khuong.admin.get(f"/v1/teams/{team}")).status_code in {403, 404}
    await check_placement(superuser)


async def test_villages_merge_and_facts_and_grants_follow(
    busy: Province, as_: As, superuser: AsyncEngine
) -> None:
    officer = await as_(Role.province_admin, at=LAO_CAI)
    near = await make(
        officer, "admin-units", **village("Thôn Gần", MUONG_KHUONG), valid_from="2025-07-01"
    )
    home = busy.muong_khuong.village["id"]
    leader = await busy.leader_of(busy.muong_khuong)
    to = {"level": "village", "name": "Thôn Chung", "type": "thôn"}
    made = await make(
        officer, "reorganisations", **document("5/NQ-HĐND", merge(home, near["id"], to=to))
    )
    (new,) = made["unit_ids"]
    assert (await unit_of(officer, new))["parent_id"] == str(MUONG_KHUONG)
    query = {"unit_id": str(MUONG_KHUONG), "level": "village"}
    assert [(i["unit_id"], i["value"]) for i in await observed(officer, **query)] == [(new, 2)]
    query |= {"boundary": "as_recorded"}
    assert [(i["unit_id"], i["value"]) for i in await observed(officer, **query)] == [(home, 2)]
    kept = await leader.get(f"/v1/households/{busy.muong_khuong.household['id']}")
    assert kept.status_code == 200
    await check_placement(superuser)
    # the merged village moves on to another commune, and takes what it was with it
    onward = move([new], str(BAO_THANG))
    body = document("6/NQ-HĐND", onward, effective_on="2026-04-01")
    await make(officer, "reorganisations", **body)
    now = await observed(officer, unit_id=str(LAO_CAI), level="commune")
    assert [(i["unit_id"], i["value"]) for i in now] == [(str(BAO_THANG), 4)]
    await check_placement(superuser)


async def test_a_unit_is_dissolved_into_another_or_when_empty(
    busy: Province, nation: httpx.AsyncClient, superuser: AsyncEngine
) -> None:
    into = {"kind": "dissolve", "unit_id": str(BAO_THANG), "successor_id": str(MUONG_KHUONG)}
    made = await make(nation, "reorganisations", **document("7/NQ", into))
    assert made["unit_ids"] == []
    assert (await unit_of(nation, BAO_THANG))["valid_to"] == BEFORE
    now = await observed(nation, unit_id=str(LAO_CAI), level="commune")
    assert [(i["unit_id"], i["value"]) for i in now] == [(str(MUONG_KHUONG), 4)]
    empty = {"kind": "create", "unit": commune("Xã Trống", "99997")}
    made = await make(nation, "reorganisations", **document("8/NQ", empty))
    gone = {"kind": "dissolve", "unit_id": made["unit_ids"][0]}
    await make(nation, "reorganisations", **document("9/NQ", gone, effective_on="2026-05-01"))
    home = {"kind": "dissolve", "unit_id": busy.bao_thang.village["id"]}
    await make(nation, "reorganisations", **document("10/NQ", home, effective_on="2026-06-01"))
    assert [i["value"] for i in await observed(nation)] == [4]
    await check_placement(superuser)


async def test_what_the_tree_forbids_is_refused_with_the_rows(
    busy: Province, nation: httpx.AsyncClient, superuser: AsyncEngine
) -> None:
    tree = await tree_of(superuser)
    home, mk, bt = busy.muong_khuong.village["id"], str(MUONG_KHUONG), str(BAO_THANG)
    rename = {"kind": "rename", "unit_id": mk}
    old = str(OLD_MUONG_KHUONG)
    cases: list[tuple[int, str, str, dict[str, Any]]] = [
        (422, "missing", "/name", rename),
        (422, "extra_forbidden", "/unit_ids", rename | {"name": "X", "unit_ids": [mk]}),
        (422, "not_found", "/unit_id", rename | {"unit_id": str(ids.new_id()), "name": "X"}),
        (409, "unit_dissolved", "/unit_id", rename | {"unit_id": old, "name": "X"}),
        (409, "name_taken", "/name", rename | {"name": "Xã Đổi Tên"}),
        (409, "code_taken", "/code", rename | {"name": "Xã X", "code": "00070"}),
        (422, "no_code", "/code", rename | {"unit_id": home, "name": "X", "code": "1"}),
        (422, "wrong_level", "/unit_id", rename | {"unit_id": str(NATION), "name": "X"}),
        (422, "wrong_level", "/parent_id", move([mk], bt)),
        (422, "wrong_level", "/parent_id", move([home], home)),
        (422, "wrong_level", "/parent_id", move([str(LAO_CAI)], mk)),
        (422, "duplicate", "/unit_ids", move([home, home], bt)),
        (422, "different_levels", "/from_ids", merge(mk, home, to=MERGED)),
        (422, "too_short", "/from_ids", merge(mk, to=MERGED)),
        (422, "missing", "/to/parent_id", merge(mk, HOAN_KIEM, to=MERGED | {"parent_id": None})),
        (409, "code_taken", "/to/code", merge(mk, bt, to=MERGED | {"code": "00070"})),
        (422, "wrong_level", "/unit/level", create(MERGED | {"level": "district"})),
        (422, "wrong_level", "/unit/parent_id", create(MERGED | {"parent_id": mk})),
        (409, "taken", "/unit/id", create(MERGED | {"id": mk})),
        (409, "not_empty", "/unit_id", dissolve(mk)),
        (422, "duplicate", "/successor_id", dissolve(mk, successor_id=mk)),
        (422, "wrong_level", "/successor_id", dissolve(mk, successor_id=home)),
    ]  # fmt: skip
    for status, code, pointer, change in cases:
        fine = {"kind": "rename", "unit_id": bt, "name": "Xã Đổi Tên"}  # nothing half done
        await refused(nation, status, code, f"/changes/1{pointer}", document("1", fine, change))
    early = document("1", rename | {"name": "X"}, effective_on="2025-06-30")
    assert await refused(nation, 422, "before_unit", "/changes/0/unit_id", early) == {
        "valid_from": "2025-07-01"
    }
    first = document("1", merge(mk, bt, to=MERGED), effective_on="2025-07-01")
    await refused(nation, 409, "begins_later", "/changes/0/from_ids/0", first)
    ended = merge(old, ids.official_unit_id("commune", "02764"), to=MERGED)
    ended["to"] = MERGED | {"parent_id": str(ids.official_unit_id("district", "083"))}
    await refused(
        nation,
        409,
        "later_change",
        "/changes/0/from_ids/0",
        document("1", ended, effective_on="2024-01-01"),
    )
    assert await tree_of(superuser) == tree


async def test_a_village_that_a_split_left_without_a_parent_is_placed(
    as_: As, superuser: AsyncEngine
) -> None:
    split, heir = (
        ids.official_unit_id("commune", *unit) for unit in (("00007",), ("00008", REFORM))
    )
    officer = await as_(Role.province_admin, at=HA_NOI)
    made = await make(officer, "admin-units", **village("Tổ 1", split), valid_from="2022-01-01")
    assert made["parent_id"] is None
    body = document("30", move([made["id"]], str(heir)), effective_on=REFORM, dry_run=True)
    told = (await officer.post("/v1/reorganisations", json=body)).json()
    assert (told["unplaced"], told["conflicts"], told["affected"]["villages"]) == ([], [], 1)
    await make(officer, "reorganisations", **body | {"dry_run": False})
    assert (await unit_of(officer, made["id"]))["parent_id"] == str(heir)
    await check_placement(superuser)


async def test_whoever_reads_the_audit_finds_who_reorganised(
    as_: As, nation: httpx.AsyncClient
) -> None:
    change = {"kind": "rename", "unit_id": str(MUONG_KHUONG), "name": "Xã Khác"}
    made = await make(nation, "reorganisations", **document("31", change))
    auditor = await as_(Role.auditor)
    query = {"row_id": made["id"]}
    (entry,) = (await auditor.get("/v1/audit-entries", params=query)).json()["items"]
    assert (entry["action"], entry["resource"]) == ("create", "reorganisations")
    assert entry["after"]["changes"] == [change]


async def test_a_document_is_applied_once(nation: httpx.AsyncClient) -> None:
    body = document("11/NQ", {"kind": "rename", "unit_id": str(MUONG_KHUONG), "name": "Xã A"})
    first = await make(nation, "reorganisations", **body)
    assert await refused(nation, 409, "document_applied", "/document", body) == {
        "reorganisation_id": first["id"]
    }
    named = body | {"id": str(ids.new_id()), "document": body["document"] | {"number": "12/NQ"}}
    named["changes"] = [{"kind": "rename", "unit_id": str(MUONG_KHUONG), "name": "Xã B"}]
    made = await nation.post("/v1/reorganisations", json=named)
    again = await nation.post("/v1/reorganisations", json=named)
    assert (made.status_code, again.status_code) == (201, 200)
    assert made.json() == again.json()
    other = await nation.post("/v1/reorganisations", json=named | {"effective_on": "2026-05-01"})
    assert (other.status_code, other.json()["code"]) == (409, "id_conflict")
    past = document(
        "13/NQ",
        {"kind": "rename", "unit_id": str(MUONG_KHUONG), "name": "Xã C"},
        effective_on="2026-01-01",
    )
    await refused(nation, 409, "later_change", "/changes/0/unit_id", past)
    away = move([str(MUONG_KHUONG)], str(HA_NOI))
    beneath = document("14/NQ", away, effective_on="2026-01-01")
    params = await refused(nation, 409, "later_reorganisation", "/effective_on", beneath)
    assert params["document"] in {"11/NQ", "12/NQ"}
    assert params["effective_on"] == DAY


async def test_a_province_reorganises_its_own_villages_only(
    lao_cai: Province, as_: As, nation: httpx.AsyncClient
) -> None:
    officer = await as_(Role.province_admin, at=LAO_CAI)
    far = await make(
        await as_(Role.commune_admin, at=HOAN_KIEM),
        "admin-units",
        **village("Tổ 1", HOAN_KIEM),
        valid_from="2025-07-01",
    )
    home = lao_cai.muong_khuong.village["id"]
    rename = {"kind": "rename", "name": "Xã Tự Đổi"}
    for unit, code in ((far["id"], "not_found"), (ids.new_id(), "not_found"),
                       (HOAN_KIEM, "not_found"), (MUONG_KHUONG, "wrong_level")):  # fmt: skip
        body = document("15", rename | {"unit_id": str(unit)})
        await refused(officer, 422, code, "/changes/0/unit_id", body)
    away = {"kind": "move", "unit_ids": [home], "parent_id": str(HOAN_KIEM)}
    await refused(officer, 422, "not_found", "/changes/0/parent_id", document("15", away))
    raised = {"kind": "create", "unit": MERGED}
    await refused(officer, 422, "wrong_level", "/changes/0/unit/level", document("15", raised))
    near = move([home], str(BAO_THANG))
    made = await make(officer, "reorganisations", **document("15", near))
    assert (await unit_of(officer, home))["parent_id"] == str(BAO_THANG)

    commune_admin, stranger = lao_cai.muong_khuong.admin, await as_(Role.province_admin, at=HA_NOI)
    response = await commune_admin.post("/v1/reorganisations", json=document("16", near))
    assert (response.status_code, response.json()["code"]) == (403, "insufficient_role")
    path = f"/v1/reorganisations/{made['id']}"
    assert (await stranger.get(path)).status_code == 200
    reason = {"reason": "Nhầm"}
    assert (await stranger.post(f"{path}:revert", json=reason)).status_code == 403
    assert (await officer.post(f"{path}:revert", json=reason)).status_code == 200
    assert (await unit_of(officer, home))["parent_id"] == str(MUONG_KHUONG)
    national = await make(
        nation, "reorganisations", **document("17", rename | {"unit_id": str(MUONG_KHUONG)})
    )
    path = f"/v1/reorganisations/{national['id']}"
    assert (await officer.post(f"{path}:revert", json=reason)).status_code == 403


async def test_a_revert_restores_the_tree_names_and_grants(
    busy: Province, nation: httpx.AsyncClient, superuser: AsyncEngine
) -> None:
    tree = await tree_of(superuser)
    home = busy.muong_khuong.village["id"]
    boundaries = ("current", "as_recorded")
    totals = [await observed(nation, level="commune", boundary=b) for b in boundaries]
    body = document(
        "18/NQ",
        merge(MUONG_KHUONG, BAO_THANG, to=MERGED),
        {"kind": "rename", "unit_id": home, "name": "Bản Đổi"},
        {"kind": "rename", "unit_id": str(LAO_CAI), "name": "Tỉnh Đổi"},
        {
            "kind": "dissolve",
            "unit_id": busy.bao_thang.village["id"],
            "successor_id": home,
        },
    )
    made = await make(nation, "reorganisations", **body)
    assert await tree_of(superuser) != tree
    path = f"/v1/reorganisations/{made['id']}"
    reverted = await nation.post(f"{path}:revert", json={"reason": "Sai văn bản"})
    assert reverted.status_code == 200, reverted.text
    assert (reverted.json()["version"], reverted.json()["revert_reason"]) == (2, "Sai văn bản")
    assert await tree_of(superuser) == tree
    again = await nation.post(f"{path}:revert", json={"reason": "Lần nữa"})
    assert again.json() == reverted.json()
    assert (await unit_of(nation, MUONG_KHUONG))["version"] == 3
    after = [await observed(nation, level="commune", boundary=b) for b in boundaries]
    assert after == totals
    other = busy.bao_thang.team["id"]
    assert (await busy.muong_khuong.admin.get(f"/v1/teams/{other}")).status_code == 404
    assert (await busy.bao_thang.admin.get(f"/v1/teams/{other}")).status_code == 200
    corrected = await make(nation, "reorganisations", **body)  # the same codes and the same day
    assert corrected["unit_ids"] == made["unit_ids"]


async def test_a_revert_waits_for_nothing_to_rest_on_it(
    busy: Province, nation: httpx.AsyncClient, country: Country
) -> None:
    async def revert(made: dict[str, Any]) -> httpx.Response:
        path = f"/v1/reorganisations/{made['id']}:revert"
        return await nation.post(path, json={"reason": "Thử"})

    merged = await make(
        nation, "reorganisations", **document("19", merge(MUONG_KHUONG, BAO_THANG, to=MERGED))
    )
    (new,) = merged["unit_ids"]
    renamed = await make(
        nation, "reorganisations",
        **document("20", {"kind": "rename", "unit_id": new, "name": "Xã Sau"},
                   effective_on="2026-04-01"),
    )  # fmt: skip
    refusal = (await revert(merged)).json()
    assert [(e["code"], e["params"]["document"]) for e in refusal["errors"]] == [
        ("later_reorganisation", "20")
    ]
    assert (await revert(renamed)).status_code == 200
    event = busy.muong_khuong.event(occurred_at="2026-03-05T09:00:00+07:00")
    leader = await busy.leader_of(busy.muong_khuong)
    await make(leader, "support-events", **event)
    refusal = (await revert(merged)).json()
    assert (refusal["errors"][0]["code"], refusal["status"]) == ("still_used", 409)
    assert refusal["errors"][0]["params"]["support_events"] == 1
    officer = await country.sign_in(Role.commune_admin, at=busy.bao_thang.unit_id)
    home = busy.bao_thang.village["id"]
    moved = await make(
        nation, "reorganisations",
        **document("21", {"kind": "rename", "unit_id": home, "name": "Thôn X"},
                   effective_on="2026-05-01"),
    )  # fmt: skip
    path = f"/v1/admin-units/{home}"
    renaming = await officer.patch(path, json={"name": "Thôn Y"}, headers={"If-Match": "*"})
    assert renaming.status_code == 200
    refusal = (await revert(moved)).json()
    assert (refusal["errors"][0]["code"], refusal["errors"][0]["params"]) == (
        "changed_since",
        {"unit_ids": [home]},
    )
    gone = await nation.post(
        f"/v1/reorganisations/{ids.new_id()}:revert", json={"reason": "Không có"}
    )
    assert gone.status_code == 404


@pytest.mark.usefixtures("busy")
async def test_an_old_provinces_figures_survive_a_merger_of_provinces(
    nation: httpx.AsyncClient, superuser: AsyncEngine
) -> None:
    one = {"level": "province", "name": "Tỉnh Chung", "type": "tỉnh", "code": "97"}
    made = await make(nation, "reorganisations", **document("22", merge(LAO_CAI, HA_NOI, to=one)))
    now = await observed(nation, level="province")
    assert [(i["unit_id"], i["value"]) for i in now] == [(made["unit_ids"][0], 4)]
    assert await counted(superuser, BEFORE, "province") == {LAO_CAI: 4}
    await check_placement(superuser)
