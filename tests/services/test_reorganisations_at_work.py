"""Reorganisations beside other writers, at size, and broken off in the middle."""

import asyncio
import time
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from api.db import create_engine, transaction
from api.models.reorganisations import ReorganisationCreate
from api.models.role_grants import Role
from api.services.reorganisations import reorganise_as_operator
from tests.factories import BAO_THANG, LAO_CAI, MUONG_KHUONG, NATION, Country, Province, make

EVENTS = 200_000
WRITERS = 16
MERGER: dict[str, Any] = {
    "effective_on": "2026-03-01",
    "document": {"number": "1/NQ", "issued_on": "2026-01-15", "issuer": "Quốc hội"},
    "changes": [
        {
            "kind": "merge",
            "from_ids": [str(MUONG_KHUONG), str(BAO_THANG)],
            "to": {"level": "commune", "name": "Xã Chung", "type": "xã", "code": "99999"},
        }
    ],
}
MANY = text("""
    insert into support_event (
        id, version, created_at, updated_at, unit_id, unit_key, commune_key, province_key, team_id,
        team_unit_key, team_commune_key, member_ids, service_type, occurred_at, quantity, outcome,
        mode, channel, status, external_ids)
    select gen_random_uuid(), 1, now(), now(), t.unit_id, t.unit_key, t.commune_key,
           t.province_key, t.id, t.unit_key, t.commune_key, '{}', 'ID.ACTIVATE',
           timestamptz '2025-08-01 02:00Z' + n * interval '1 minute', 1, 'completed', 'assisted',
           'market', 'submitted', '{}'
    from team t cross join generate_series(1, :each) n
""")
TREE = text("""
    select (select count(*) from admin_unit), (select count(*) from admin_unit_state),
           (select count(*) from unit_succession), (select count(*) from reorganisation),
           (select version from tree)
""")


async def total(country: Country, boundary: str) -> int:
    nation = await country.sign_in(Role.national_admin)
    query = {"indicator": "events.count", "period": "2025-07-01/2026-12-31", "boundary": boundary}
    answer = await nation.get("/v1/observations", params=query | {"unit_id": str(NATION)})
    assert answer.status_code == 200, answer.text
    value: int = answer.json()["items"][0]["value"]
    return value


async def test_writers_go_on_while_communes_with_many_events_merge(
    lao_cai: Province, superuser: AsyncEngine
) -> None:
    country = lao_cai.country
    async with superuser.connect() as connection:
        await connection.execute(text("set session_replication_role = replica"))  # no audit of it
        await connection.execute(MANY, {"each": EVENTS // 2})
        await connection.execute(text("analyze support_event"))
    places = (lao_cai.muong_khuong, lao_cai.bao_thang)
    leaders = [await lao_cai.leader_of(places[n % 2]) for n in range(WRITERS)]
    nation = await country.sign_in(Role.national_admin)
    over = asyncio.Event()
    written, refused, longest = 0, 0, 0.0

    async def write(n: int) -> None:
        nonlocal written, refused, longest
        body = places[n % 2].event(
            unit_id=str(places[n % 2].unit_id), occurred_at="2026-03-02T09:00:00+07:00"
        )
        while not over.is_set():
            began = time.monotonic()
            answer = await leaders[n].post("/v1/support-events", json=body)
            longest = max(longest, time.monotonic() - began)
            if answer.status_code == 201:
                written += 1
                continue
            assert (answer.status_code, answer.json()["code"]) == (409, "unit_dissolved")
            refused += 1
            body.pop("unit_id")  # the team's own village went along

    async def merge() -> tuple[dict[str, Any], float]:
        await asyncio.sleep(0.5)
        began = time.monotonic()
        made = await make(nation, "reorganisations", **MERGER)
        took = time.monotonic() - began
        await asyncio.sleep(0.5)
        over.set()
        return made, took

    results = await asyncio.gather(merge(), *(write(n) for n in range(WRITERS)))
    made, took = results[0]
    print(  # noqa: T201 - shown with -s
        f"merged {made['affected']['support_events']} events in {took:.2f} s; {written} written,"
        f" {refused} refused meanwhile, the longest took {longest:.2f} s"
    )
    assert made["affected"]["support_events"] >= EVENTS
    assert written
    assert refused == WRITERS
    assert took < 30
    assert longest < 3
    assert {await total(country, b) for b in ("current", "as_recorded")} == {EVENTS + written}


async def break_off(
    engine: AsyncEngine, connection: AsyncConnection, given: ReorganisationCreate
) -> None:
    """Apply a reorganisation on a connection that ends before it commits."""
    async with transaction(engine) as session:
        await reorganise_as_operator(session, given)
        pid = await session.scalar(text("select pg_backend_pid()"))
        await connection.execute(text("select pg_terminate_backend(:pid, 5000)"), {"pid": pid})


@pytest.mark.usefixtures("lao_cai")
async def test_what_is_broken_off_leaves_nothing(
    database: str, superuser: AsyncEngine, country: Country
) -> None:
    del country
    engine = create_engine(database, pool_size=2)
    given = ReorganisationCreate.model_validate(MERGER)
    try:
        async with superuser.connect() as connection:
            before = (await connection.execute(TREE)).one()
            with pytest.raises(Exception, match=r"terminat|closed"):
                await break_off(engine, connection, given)
            assert (await connection.execute(TREE)).one() == before
        async with transaction(engine) as session:  # and the lock is free again
            await reorganise_as_operator(session, given)
    finally:
        await engine.dispose()


async def test_two_of_them_and_new_villages_wait_for_each_other(lao_cai: Province) -> None:
    nation = await lao_cai.country.sign_in(Role.national_admin)
    twice = [nation.post("/v1/reorganisations", json=MERGER) for _ in range(3)]
    villages = [
        lao_cai.muong_khuong.admin.post(
            "/v1/admin-units",
            json={
                "level": "village",
                "name": f"Thôn {n}",
                "type": "thôn",
                "parent_id": str(MUONG_KHUONG),
                "valid_from": "2025-07-01",
            },
        )
        for n in range(6)
    ]
    answers = await asyncio.gather(*twice, *villages)
    assert sorted(answer.status_code for answer in answers[:3]) == [201, 409, 409]
    assert {answer.status_code for answer in answers[3:]} == {201}
    (new,) = next(a.json()["unit_ids"] for a in answers[:3] if a.status_code == 201)
    for answer in answers[3:]:
        unit = await nation.get(f"/v1/admin-units/{answer.json()['id']}")
        assert unit.json()["parent_id"] == new
    inside = {"within": str(LAO_CAI), "level": "village", "include_total": "true"}
    assert (await nation.get("/v1/admin-units", params=inside)).json()["total"] == 8
    assert UUID(new)
