"""Closed periods, over HTTP: frozen with a hash, revised by what comes late, for the right eyes."""

import asyncio
import hashlib
import json
from datetime import date
from itertools import pairwise
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from api import clock, ids
from api.models.role_grants import Role
from tests.factories import (
    BAO_THANG,
    HA_NOI,
    LAO_CAI,
    MUONG_KHUONG,
    NATION,
    OLD_LAO_CAI,
    OLD_MUONG_KHUONG,
    As,
    Province,
    make,
)
from tests.rules import AT_ONCE, fault, ids_in, problem, same_answer
from tests.statements import statements

TODAY = date(2026, 10, 15)
MONTH = "2025-08"


@pytest.fixture(autouse=True)
def _one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "today", lambda: TODAY)


async def help_somebody(province: Province, **changes: Any) -> dict[str, Any]:
    """Record an event of Mường Khương's team, as its leader."""
    leader = await province.leader_of(province.muong_khuong)
    return await make(leader, "support-events", **province.muong_khuong.event(**changes))


async def close(who: httpx.AsyncClient, unit: UUID = MUONG_KHUONG, period: str = MONTH) -> Any:
    return await make(who, "closed-periods", unit_id=str(unit), period=period)


async def look(who: httpx.AsyncClient, closed: dict[str, Any]) -> dict[str, Any]:
    response = await who.get(f"/v1/closed-periods/{closed['id']}")
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def figures(who: httpx.AsyncClient, closed: dict[str, Any]) -> dict[str, Any]:
    response = await who.get(f"/v1/closed-periods/{closed['id']}/observations")
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def value(answer: dict[str, Any], indicator: str, unit: Any = MUONG_KHUONG) -> Any:
    (found,) = (
        item["value"]
        for item in answer["items"]
        if (item["indicator"], item["unit_id"]) == (indicator, str(unit))
        and item["service_type"] is None
    )
    return found


def recomputed(closed: dict[str, Any], answer: dict[str, Any], codes: set[str]) -> str:
    """Return the hash as the document describes it, from the answers alone."""
    items = [item for item in answer["items"] if item["indicator"] in codes]
    items.sort(key=lambda i: (i["indicator"], i["unit_id"] or "", i["service_type"] or ""))
    fields = ("indicator", "unit_id", "service_type", "unit_of_count", "status")
    told = {
        "definition_versions": {
            code: version
            for code, version in answer["meta"]["definition_versions"].items()
            if code in codes
        },
        "figures": [
            {name: item[name] for name in fields}
            | {
                "numerator": item["numerator"],
                "denominator": item["denominator"],
                "value": item["value"] if item["numerator"] is None else None,
            }
            for item in items
        ],
        "period": closed["period"],
        "unit_id": closed["unit_id"],
    }
    plain = json.dumps(told, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(plain.encode()).hexdigest()


PEOPLE = {
    "members.youth",
    "members.youth_share",
    "households.registered",
    "households.reached",
    "households.reached_share",
    "beneficiaries.distinct",
}


async def test_a_closed_month_keeps_what_observations_told(as_: As, lao_cai: Province) -> None:
    await help_somebody(lao_cai, quantity=3)
    admin = await as_(Role.province_admin, at=LAO_CAI)
    for unit, below in ((MUONG_KHUONG, "village"), (LAO_CAI, "commune")):
        closed = await close(admin, unit)
        assert closed["revisions"] == []
        assert (closed["first_on"], closed["last_on"]) == ("2025-08-01", "2025-08-31")
        answer = await figures(admin, closed)
        assert answer["meta"]["boundary"] == "as_recorded"
        assert answer["meta"]["computed_at"] == closed["closed_at"]
        codes = sorted(answer["meta"]["definition_versions"])
        assert {"events.count", "teams.active", "villages.coverage"} <= set(codes)
        assert not PEOPLE & set(codes)
        live = []
        for level in (None, below):
            for some in (codes[:10], codes[10:]):
                asked = {"indicator": some, "unit_id": str(unit), "period": MONTH}
                asked |= {"boundary": "as_recorded"} | ({"level": level} if level else {})
                told = await admin.get("/v1/observations", params=asked)
                live += told.json()["items"]
        plain = [item for item in answer["items"] if item["service_type"] is None]
        found = [item for item in live if item in plain]
        assert len(found) == len(plain)
        services = [item for item in answer["items"] if item["service_type"]]
        assert {(s["indicator"], s["service_type"], s["value"]) for s in services} == {
            ("events.count", "ID.ACTIVATE", 1),
            ("events.quantity", "ID.ACTIVATE", 3),
        }
        assert {item["unit_id"] for item in plain} >= {str(unit)}
        assert len({item["unit_id"] for item in plain}) > 1
        listed = await ids_in(admin, "closed-periods", unit_id=str(unit), period=MONTH)
        assert closed["id"] in listed


async def test_anybody_can_recompute_the_hash(as_: As, lao_cai: Province) -> None:
    await help_somebody(lao_cai, household_id=lao_cai.muong_khuong.household["id"])
    closed = await close(await as_(Role.province_admin, at=LAO_CAI))
    assert closed["people_hash"] is None
    reader = await as_(Role.ioc_reader, at=MUONG_KHUONG)
    answer = await figures(reader, closed)
    codes = set(answer["meta"]["definition_versions"])
    assert (await look(reader, closed))["hash"] == recomputed(closed, answer, codes)
    officer = lao_cai.muong_khuong.admin
    whole, seen = await figures(officer, closed), await look(officer, closed)
    assert seen["hash"] == recomputed(closed, whole, codes) == closed["hash"]
    assert set(whole["meta"]["definition_versions"]) - codes == PEOPLE
    assert seen["people_hash"] == recomputed(closed, whole, PEOPLE)
    tag = {"If-None-Match": '"' + closed["hash"][:20] + '"'}
    url = f"/v1/closed-periods/{closed['id']}/observations"
    assert (await reader.get(url, headers=tag)).status_code == 304
    assert (await officer.get(url, headers=tag)).status_code == 200


async def test_a_late_event_and_a_void_are_revisions(as_: As, lao_cai: Province) -> None:
    first = await help_somebody(lao_cai)
    admin = await as_(Role.province_admin, at=LAO_CAI)
    closed = await close(admin)
    frozen = await figures(admin, closed)
    assert (await look(admin, closed))["revisions"] == []

    await help_somebody(lao_cai, quantity=4, occurred_at="2025-08-31T23:00:00+07:00")
    readers = [admin] * 4 + [await as_(Role.ioc_reader, at=MUONG_KHUONG) for _ in range(4)]
    seen = await asyncio.gather(*(look(reader, closed) for reader in readers))
    assert all(each == seen[0] for each in seen)
    late = {
        (r["indicator"], r["unit_id"], r["service_type"]): (r["was"], r["is"], r["difference"])
        for r in seen[0]["revisions"]
    }
    assert len(late) == seen[0]["revision_count"]
    village = lao_cai.muong_khuong.village["id"]
    assert late["events.count", str(MUONG_KHUONG), None] == (1, 2, 1)
    assert late["events.count", village, None] == (1, 2, 1)
    assert late["events.count", str(MUONG_KHUONG), "ID.ACTIVATE"] == (1, 2, 1)
    assert late["events.quantity", str(MUONG_KHUONG), "ID.ACTIVATE"] == (1, 5, 4)

    reason = {"reason": "Ghi nhầm"}
    voided = await lao_cai.muong_khuong.admin.post(
        f"/v1/support-events/{first['id']}:void", json=reason, headers={"If-Match": "*"}
    )
    assert voided.status_code == 200, voided.text
    again = await look(admin, closed)
    assert again["revisions"][: len(late)] == seen[0]["revisions"]
    whole = [
        (r["was"], r["is"])
        for r in again["revisions"]
        if (r["indicator"], r["unit_id"]) == ("events.count", str(MUONG_KHUONG))
        and r["service_type"] is None
    ]
    assert whole == [(1, 2), (2, 1)]
    assert await look(admin, closed) == again
    assert await figures(admin, closed) == frozen
    asked = {"indicator": "events.quantity", "by": "service_type", "period": MONTH}
    live = await admin.get("/v1/observations", params=asked | {"unit_id": str(MUONG_KHUONG)})
    assert live.json()["items"][0]["value"] == 4


async def test_a_look_at_what_has_not_changed_counts_nothing(
    app: FastAPI, as_: As, lao_cai: Province
) -> None:
    await help_somebody(lao_cai)
    admin = await as_(Role.province_admin, at=LAO_CAI)
    closed = await close(admin, LAO_CAI)
    before = await look(admin, closed)
    with statements(app) as sent:
        assert await look(admin, closed) == before
    assert len(sent) < 15
    assert not any("from support_event" in statement for statement in sent)


async def test_only_what_has_ended_is_closed_and_once(as_: As) -> None:
    admin = await as_(Role.province_admin, at=LAO_CAI)

    async def refused(period: str, unit: UUID = MUONG_KHUONG) -> httpx.Response:
        body = {"unit_id": str(unit), "period": period}
        return await admin.post("/v1/closed-periods", json=body)

    for period in ("2026-10", "2026-Q4", "2026", "2027-01"):
        running = await refused(period)
        assert fault(running) == (422, "/period", "period_running"), running.text
    for period in ("2025-W33", "2025-08-03", "2025-08-01/2025-08-31", "2025-08-01/2025-09-30"):
        assert fault(await refused(period)) == (422, "/period", "period_not_closable"), period
    for period in ("20255", "2025-13", "2025-08/"):
        assert fault(await refused(period)) == (422, "/period", "period_invalid"), period
    assert fault(await refused("2025-06")) == (422, "/unit_id", "before_unit")
    gone = await refused(MONTH, OLD_LAO_CAI)
    assert problem(gone) == (409, "unit_dissolved")
    assert fault(await refused(MONTH, HA_NOI)) == (422, "/unit_id", "not_found")
    assert same_answer(await refused(MONTH, HA_NOI), await refused(MONTH, ids.new_id()))
    old = await close(admin, OLD_LAO_CAI, "2025-Q2")
    assert old["last_on"] == "2025-06-30"
    assert value(await figures(admin, old), "teams.active", OLD_LAO_CAI) == 0

    body = {"id": str(ids.new_id()), "unit_id": str(MUONG_KHUONG), "period": MONTH}
    sent = await asyncio.gather(
        *(admin.post("/v1/closed-periods", json=body) for _ in range(AT_ONCE))
    )
    assert sorted(answer.status_code for answer in sent) == [200] * (AT_ONCE - 1) + [201]
    assert all(answer.json() == sent[0].json() for answer in sent)
    assert sent[0].headers["Location"] == f"/v1/closed-periods/{body['id']}"
    again = await refused(MONTH)
    assert problem(again) == (409, "period_closed")
    assert fault(again) == (409, "/period", "period_closed")
    other = body | {"period": "2025-09"}
    assert problem(await admin.post("/v1/closed-periods", json=other)) == (409, "id_conflict")
    anew = [{**body, "id": str(ids.new_id()), "period": "2025-10"} for _ in range(AT_ONCE)]
    raced = await asyncio.gather(*(admin.post("/v1/closed-periods", json=b) for b in anew))
    assert sorted(answer.status_code for answer in raced) == [201] + [409] * (AT_ONCE - 1)


async def test_nothing_changes_what_is_closed(
    as_: As, lao_cai: Province, superuser: AsyncEngine, owner_url: str
) -> None:
    await help_somebody(lao_cai)
    admin = await as_(Role.province_admin, at=LAO_CAI)
    closed = await close(admin)
    await help_somebody(lao_cai, occurred_at="2025-08-02T09:00:00+07:00")
    assert (await look(admin, closed))["revision_count"]
    url = f"/v1/closed-periods/{closed['id']}"
    for method in ("PATCH", "PUT", "DELETE"):
        assert problem(await admin.request(method, url, json={}))[0] == 405
    owner = create_async_engine(owner_url.replace("postgresql://", "postgresql+asyncpg://"))
    for engine in (superuser, owner):
        for table in ("closed_period", "closed_figures", "closed_period_revision"):
            for change in (
                f"update {table} set unit_key = unit_key",
                f"delete from {table}",
                f"truncate {table} cascade",
            ):
                async with engine.connect() as connection:
                    with pytest.raises(DBAPIError, match="what is closed stays as it is"):
                        await connection.execute(text(change))
    await owner.dispose()


async def test_a_new_definition_alters_no_closed_period(
    as_: As, lao_cai: Province, superuser: AsyncEngine
) -> None:
    await help_somebody(lao_cai)
    admin = await as_(Role.province_admin, at=LAO_CAI)
    closed = await close(admin)
    frozen = await figures(admin, closed)
    async with superuser.connect() as connection:
        newer = "update indicator set definition_version = 9 where code = 'events.count'"
        await connection.execute(text(newer))
    await help_somebody(lao_cai, occurred_at="2025-08-02T09:00:00+07:00")
    told = {revision["indicator"] for revision in (await look(admin, closed))["revisions"]}
    assert "events.quantity" in told
    assert "events.count" not in told
    assert await figures(admin, closed) == frozen
    assert frozen["meta"]["definition_versions"]["events.count"] == 1


async def test_a_reorganisation_leaves_what_is_closed(as_: As, lao_cai: Province) -> None:
    await help_somebody(lao_cai)
    admin, nation = await as_(Role.province_admin, at=LAO_CAI), await as_(Role.national_admin)
    closed = [await close(admin, unit) for unit in (MUONG_KHUONG, LAO_CAI)]
    frozen = [await figures(admin, each) for each in closed]
    to = {"level": "commune", "name": "Xã Hợp Nhất", "type": "xã", "code": "99990"}
    merged = {
        "effective_on": "2026-03-01",
        "document": {"number": "1/NQ", "issued_on": "2026-01-01", "issuer": "HĐND"},
        "changes": [
            {
                "kind": "merge",
                "from_ids": [str(MUONG_KHUONG), str(BAO_THANG)],
                "to": to | {"parent_id": str(LAO_CAI)},
            }
        ],
    }
    await make(nation, "reorganisations", **merged)
    assert [await figures(admin, each) for each in closed] == frozen
    for each in closed:
        assert (await look(admin, each))["revisions"] == []
    unit = str(ids.official_unit_id("commune", "99990", "2026-03-01"))
    assert closed[0]["id"] in await ids_in(admin, "closed-periods", unit_id=unit)
    await help_somebody(lao_cai, occurred_at="2025-08-02T09:00:00+07:00")
    for each in closed:
        assert (await look(admin, each))["revision_count"] > 0


async def test_who_may_close_and_who_may_see(as_: As) -> None:
    admin = await as_(Role.province_admin, at=LAO_CAI)
    closed = await close(admin)
    nation = await as_(Role.national_admin)
    whole = await close(nation, NATION)
    url, body = "/v1/closed-periods", {"unit_id": str(MUONG_KHUONG), "period": "2025-09"}
    for role in set(Role) - {Role.province_admin, Role.national_admin}:
        at = MUONG_KHUONG if role is Role.commune_admin else LAO_CAI
        other = await as_(role, at=at)
        assert problem(await other.post(url, json=body)) == (403, "insufficient_role"), role
    beyond = {"unit_id": str(NATION), "period": "2025-09"}
    assert fault(await admin.post(url, json=beyond)) == (422, "/unit_id", "not_found")
    for stranger in (
        await as_(Role.province_admin, at=HA_NOI),
        await as_(Role.ioc_reader, at=BAO_THANG),
    ):
        for path in (closed["id"], f"{closed['id']}/observations"):
            unseen = await stranger.get(f"{url}/{path}")
            assert same_answer(unseen, await stranger.get(f"{url}/{ids.new_id()}"))
        assert await ids_in(stranger, "closed-periods") == set()
    assert (await admin.get(f"{url}/{whole['id']}")).status_code == 404
    assert await ids_in(nation, "closed-periods") == {closed["id"], whole["id"]}


async def test_people_of_a_closed_period_are_for_those_who_read_them(
    as_: As, lao_cai: Province, superuser: AsyncEngine, app: FastAPI
) -> None:
    home = lao_cai.muong_khuong
    await help_somebody(lao_cai, household_id=home.household["id"])
    admin = await as_(Role.province_admin, at=LAO_CAI)
    closed, broad = await close(admin), await close(admin, LAO_CAI)
    late = await make(
        home.admin, "households", unit_id=home.village["id"], head_name="Chủ hộ đến sau"
    )
    await help_somebody(lao_cai, household_id=late["id"])
    seen = await look(home.admin, closed)
    assert value(await figures(home.admin, closed), "households.reached") == 1
    told = [r for r in seen["revisions"] if r["indicator"] == "households.reached"]
    assert {(r["was"], r["is"]) for r in told} == {(1, 2)}

    readers = [
        admin,
        await as_(Role.ioc_reader, at=LAO_CAI),
        await as_(Role.auditor, at=LAO_CAI),
        await as_(Role.national_admin),
        await as_(Role.portal_client, at=LAO_CAI),
    ]
    for reader in readers:
        for each in (closed, broad):
            answers = [await look(reader, each), await figures(reader, each)]
            assert not any(code in json.dumps(answer) for answer in answers for code in PEOPLE)
            assert answers[0]["people_hash"] is None
    # A commune's officer who looks at the province reads the people of a part of it only.
    await lao_cai.country.grant(readers[1].principal_id, Role.commune_admin, MUONG_KHUONG)
    app.state.callers.forget()
    both = await figures(readers[1], broad)
    assert not PEOPLE & set(both["meta"]["definition_versions"])
    narrow = await figures(readers[1], closed)
    assert set(narrow["meta"]["definition_versions"]) >= PEOPLE
    # Breaking the glass shows them, as it does everywhere.
    await make(admin, "break-glass", unit_id=str(MUONG_KHUONG), reason="Đối chiếu")
    app.state.callers.forget()
    assert value(await figures(admin, closed), "households.reached") == 1
    # The database keeps to it, whatever the application asks for.
    async with superuser.connect() as connection:
        shown = text("""
            select set_config('noidai.scopes', json_build_object('aggregates_read',
                json_build_object('provinces', (select key::text from admin_unit
                                                where id = :unit)))::text, false)
        """)
        await connection.execute(shown, {"unit": LAO_CAI})
        await connection.execute(text("set role noidai_app"))
        for table in ("closed_figures", "closed_period_revision"):
            found = await connection.scalars(text(f"select distinct people from {table}"))
            assert list(found) == [False]


async def test_writers_who_race_with_closing_lose_nothing(as_: As, lao_cai: Province) -> None:
    admin = await as_(Role.province_admin, at=LAO_CAI)
    leader = await lao_cai.leader_of(lao_cai.muong_khuong)
    event = lao_cai.muong_khuong.event()

    async def write() -> None:
        for _ in range(5):
            await make(leader, "support-events", **event)

    closed, *_ = await asyncio.gather(close(admin), *(write() for _ in range(4)))
    seen = await look(admin, closed)
    at_closing = value(await figures(admin, closed), "events.count")
    last = [
        r["is"]
        for r in seen["revisions"]
        if (r["indicator"], r["unit_id"]) == ("events.count", str(MUONG_KHUONG))
        and r["service_type"] is None
    ]
    assert (last or [at_closing])[-1] == 20


async def test_many_looks_while_facts_come_agree_in_the_end(as_: As, lao_cai: Province) -> None:
    admin = await as_(Role.province_admin, at=LAO_CAI)
    closed = await close(admin)
    leader = await lao_cai.leader_of(lao_cai.muong_khuong)
    event = lao_cai.muong_khuong.event()

    async def write() -> None:
        for _ in range(6):
            await make(leader, "support-events", **event)

    async def watch() -> None:
        for _ in range(6):
            await look(admin, closed)

    await asyncio.gather(write(), write(), watch(), watch(), watch())
    seen = await look(admin, closed)
    steps = [
        (r["was"], r["is"])
        for r in seen["revisions"]
        if (r["indicator"], r["unit_id"]) == ("events.count", str(MUONG_KHUONG))
        and r["service_type"] is None
    ]
    assert steps[0][0] == 0
    assert steps[-1][1] == 12
    assert all(a[1] == b[0] for a, b in pairwise(steps))
    assert all(was < became for was, became in steps)
    assert [r["at"] for r in seen["revisions"]] == sorted(r["at"] for r in seen["revisions"])


def statistic(unit: Any, as_of: str = "2025-08-31", **changes: Any) -> dict[str, Any]:
    what = {"indicator": "households.total", "value": 900, "attribution": "government"}
    return what | {"unit_id": str(unit), "as_of": as_of} | changes


def target(unit: Any, period: str = MONTH, **changes: Any) -> dict[str, Any]:
    what = {"indicator": "events.count", "value": 10}
    return what | {"unit_id": str(unit), "period": period} | changes


async def test_targets_and_statistics_of_a_closed_period_refuse_edits(
    as_: As, lao_cai: Province
) -> None:
    admin = await as_(Role.province_admin, at=LAO_CAI)
    village = lao_cai.muong_khuong.village["id"]
    made = {
        "statistics": await make(admin, "statistics", **statistic(MUONG_KHUONG)),
        "targets": await make(admin, "targets", **target(MUONG_KHUONG)),
    }
    later = {
        "statistics": await make(admin, "statistics", **statistic(village, "2025-09-01")),
        "targets": await make(admin, "targets", **target(MUONG_KHUONG, "2025")),
    }
    await close(admin, LAO_CAI)
    any_version = {"If-Match": "*"}
    for path, row in made.items():
        url = f"/v1/{path}/{row['id']}"
        refusals = [
            await admin.patch(url, json={"value": 11}, headers=any_version),
            await admin.delete(url, headers=any_version),
        ]
        body = statistic(village) if path == "statistics" else target(village)
        refusals.append(await admin.post(f"/v1/{path}", json=body))
        for refused in refusals:
            assert problem(refused) == (409, "period_closed"), refused.text
            assert refused.json()["errors"][0]["params"] == {"period": MONTH}
        assert (await admin.get(url)).json() == row
    officer = lao_cai.muong_khuong.admin  # who does not see what was closed above
    assert await ids_in(officer, "closed-periods") == set()
    below = await officer.post("/v1/statistics", json=statistic(village))
    assert problem(below) == (409, "period_closed"), below.text
    moved = {"statistics": {"as_of": "2025-08-01"}, "targets": {"period": MONTH}}
    for path, row in later.items():
        url = f"/v1/{path}/{row['id']}"
        into = await admin.patch(url, json=moved[path], headers=any_version)
        assert problem(into) == (409, "period_closed"), into.text
        free = await admin.patch(url, json={"value": 12}, headers=any_version)
        assert (free.status_code, free.json()["value"]) == (200, 12), free.text
    elsewhere = await as_(Role.province_admin, at=HA_NOI)
    await make(elsewhere, "targets", **target(HA_NOI))


async def test_edits_that_race_with_closing_are_in_it_or_refused(
    as_: As, lao_cai: Province
) -> None:
    admin = await as_(Role.province_admin, at=LAO_CAI)
    village = lao_cai.muong_khuong.village["id"]

    async def write(number: int) -> httpx.Response:
        await asyncio.sleep(number * 0.05)
        return await admin.post("/v1/statistics", json=statistic(village, value=number))

    closed, *written = await asyncio.gather(
        close(admin, LAO_CAI), *(write(number) for number in range(30))
    )
    assert {answer.status_code for answer in written} <= {201, 409}
    assert written[-1].status_code == 409
    kept = await ids_in(admin, "statistics", limit=200)
    assert kept == {answer.json()["id"] for answer in written if answer.status_code == 201}
    for answer in written:
        if answer.status_code == 201:
            assert answer.json()["created_at"] <= closed["closed_at"]


async def test_closing_leaves_its_entry_in_the_audit(as_: As) -> None:
    admin = await as_(Role.province_admin, at=LAO_CAI)
    closed = await close(admin)
    auditor = await as_(Role.auditor, at=LAO_CAI)
    written = await auditor.get("/v1/audit-entries", params={"row_id": closed["id"]})
    (entry,) = written.json()["items"]
    assert (entry["resource"], entry["action"]) == ("closed_periods", "create")
    assert entry["after"]["hash"] == closed["hash"]
    assert entry["actor_id"] == str(admin.principal_id)


async def test_many_periods_are_closed_at_once_without_using_up_all_connections(
    as_: As, app: FastAPI
) -> None:
    admin = await as_(Role.province_admin, at=LAO_CAI)
    size = app.state.engine.pool.size()
    months = [f"{year}-{month:02}" for year in (2022, 2023, 2024) for month in range(1, 13)]
    bodies = [{"unit_id": str(OLD_MUONG_KHUONG), "period": month} for month in months]
    made = await asyncio.gather(*(admin.post("/v1/closed-periods", json=b) for b in bodies))
    assert len(made) > size
    assert {answer.status_code for answer in made} == {201}
    key = {"Idempotency-Key": "một lần".encode().hex()}
    again = [
        await admin.post(
            "/v1/closed-periods",
            json={"unit_id": str(OLD_LAO_CAI), "period": "2021"},
            headers=key,
        )
        for _ in range(2)
    ]
    assert again[0].json() == again[1].json()
    assert again[1].headers["Idempotent-Replayed"] == "true"
