"""Lists of events against all there is: every filter and order, walked by readers near and far."""

import random
from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api.models.role_grants import Role
from api.models.support_events import SupportEventPage
from api.services import event_folding
from tests.factories import (
    BAO_THANG,
    HA_NOI,
    LAO_CAI,
    MUONG_KHUONG,
    NATION,
    OLD_LAO_CAI,
    OLD_MUONG_KHUONG,
    Place,
    Province,
    make,
)
from tests.routers.test_support_events import EVENTS, walk

type Row = dict[str, Any]
COUNT = 150
SERVICES = ("ID.ACTIVATE", "PY.BANK")
STATUSES = ("submitted", "verified", "rejected", "voided")
OUTCOMES = ("completed", "guided", "attempted", "referred")
COPIES = text("""
    insert into support_event (id, version, created_at, updated_at, unit_id, unit_key, commune_key,
        province_key, team_id, team_unit_key, team_commune_key, member_ids, service_type,
        occurred_at, quantity, outcome, mode, channel, status, external_ids)
    select gen_random_uuid(), 1, now(), now(), unit_id, unit_key, commune_key, province_key,
           team_id, team_unit_key, team_commune_key, member_ids,
           (cast(:services as text[]))[1 + n % 2],
           occurred_at + (n / 4) % 13 * interval '1 hour', 1,
           (cast(:outcomes as text[]))[1 + n / 2 % 4], mode, channel,
           (cast(:statuses as text[]))[1 + n / 5 % 4], '{}'
    from support_event cross join generate_series(1, :count) as n where id = :id
""")
ALL = text("""
    select e.*, c.id as commune_id from support_event e
    left join admin_unit c on c.key = commune_key
    where e.deleted_at is null
""")


@pytest.fixture
async def rows(lao_cai: Province, superuser: AsyncEngine) -> list[Row]:
    """Events of two communes, many at the same moment, some folded; what the database has."""
    there = lao_cai.bao_thang
    events = []
    for place, elsewhere in (
        (lao_cai.muong_khuong, {}),
        (there, {}),
        (lao_cai.muong_khuong, {"unit_id": there.village["id"]}),
    ):
        leader = await lao_cai.leader_of(place)
        events.append(await make(leader, "support-events", **place.event(**elsewhere)))
    drawn = {"services": SERVICES, "outcomes": OUTCOMES, "statuses": STATUSES}
    lists: Row = {name: list(values) for name, values in drawn.items()}
    for event in events:
        async with superuser.begin() as connection:
            await connection.execute(COPIES, lists | {"count": COUNT, "id": event["id"]})
        if event is events[0]:
            await event_folding.repair(superuser)
    async with superuser.begin() as connection:
        return [dict(row) for row in (await connection.execute(ALL)).mappings()]


def lies_in(unit: str, village: Row) -> Callable[[Row], bool]:
    """Return whether an event lies in a unit of the ground."""
    if unit in {str(NATION), str(LAO_CAI), str(OLD_LAO_CAI)}:
        return lambda _row: True
    if unit == str(OLD_MUONG_KHUONG):
        unit = str(MUONG_KHUONG)
    by_village = unit == village["id"]
    return lambda row: str(row["unit_id" if by_village else "commune_id"]) == unit


def draw(dice: random.Random, lao_cai: Province) -> tuple[Row, list[Callable[[Row], bool]]]:
    """Draw filters, and what each keeps."""
    here: Place = lao_cai.muong_khuong
    query: Row = {}
    kept: list[Callable[[Row], bool]] = []
    for name, values in (
        ("service_type", (*SERVICES, "EG.SUBMIT")),
        ("status", STATUSES),
        ("outcome", OUTCOMES),
        ("team_id", (here.team["id"], lao_cai.bao_thang.team["id"])),
    ):
        if dice.random() < 0.35:
            chosen = dice.sample(values, dice.choice((1, 1, 2)))
            query[name] = chosen
            kept.append(lambda row, name=name, chosen=chosen: str(row[name]) in chosen)  # type: ignore[misc]  # a lambda has no types
    if dice.random() < 0.6:
        units = (NATION, LAO_CAI, OLD_LAO_CAI, MUONG_KHUONG, OLD_MUONG_KHUONG, BAO_THANG, HA_NOI)
        chosen = dice.sample([*map(str, units), here.village["id"]], dice.choice((1, 1, 2)))
        query["unit_id"] = chosen
        tests = [lies_in(unit, here.village) for unit in chosen]
        kept.append(lambda row: any(test(row) for test in tests))
    if dice.random() < 0.3:
        moment = f"2025-08-01T{dice.randrange(10, 22)}:00:00+07:00"
        name = dice.choice(("occurred_at_gte", "occurred_at_lt"))
        query[name] = moment
        edge = datetime.fromisoformat(moment)
        late = name == "occurred_at_gte"
        kept.append(lambda row: (row["occurred_at"] >= edge) == late)
    if dice.random() < 0.4:
        query["sort"] = "occurred_at"
    return query, kept


@pytest.mark.parametrize("seed", range(3))
async def test_every_reader_walks_what_it_may_see_and_asked_for(
    lao_cai: Province, rows: list[Row], seed: int
) -> None:
    dice = random.Random(seed)
    sign_in = lao_cai.country.sign_in
    mine = {str(MUONG_KHUONG)}
    near = lao_cai.muong_khuong.team["id"]
    readers: list[tuple[httpx.AsyncClient, Callable[[Row], bool]]] = [
        (await sign_in(Role.auditor), lambda _row: True),
        (await sign_in(Role.province_admin, at=LAO_CAI), lambda _row: True),
        (await sign_in(Role.province_admin, at=HA_NOI), lambda _row: False),
        (
            await sign_in(Role.commune_admin, at=MUONG_KHUONG),
            lambda row: str(row["commune_id"]) in mine or str(row["team_id"]) == near,
        ),
        (
            await lao_cai.leader_of(lao_cai.muong_khuong),
            lambda row: str(row["team_id"]) == near,
        ),
    ]
    for _ in range(12):
        query, kept = draw(dice, lao_cai)
        for reader, sees in readers:
            found = [row for row in rows if sees(row) and all(keep(row) for keep in kept)]
            newest = "sort" not in query
            found.sort(key=lambda row: (row["occurred_at"], row["id"]), reverse=newest)
            expected = [str(row["id"]) for row in found]
            limit = max(len(rows) // 9, 1)
            walked = [item["id"] for item in await walk(reader, **query, limit=limit)]
            assert walked == expected, query
            counted = await reader.get(EVENTS, params=query | {"limit": 2, "include_total": True})
            assert counted.json()["total"] == len(expected), query


async def test_a_total_of_provinces_is_that_of_the_rows(lao_cai: Province, rows: list[Row]) -> None:
    auditor = await lao_cai.country.sign_in(Role.auditor)
    voided = next(str(row["id"]) for row in rows if row["status"] == "submitted")
    admin = lao_cai.muong_khuong.admin
    done = await admin.post(f"{EVENTS}/{voided}:void", json={"reason": "Nhầm"})
    assert done.status_code == 200, done.text
    now = [row | {"status": "voided"} if str(row["id"]) == voided else row for row in rows]
    for asked in (
        {},
        *({"status": [status]} for status in STATUSES),
        {"status": ["submitted", "verified"]},
        {"status": ["verified", "voided"], "service_type": [SERVICES[0]]},
        {"status": ["submitted"], "service_type": list(SERVICES)},
        {"outcome": ["guided", "referred"]},
        {"outcome": ["guided"], "service_type": [SERVICES[1]]},
    ):
        found = [row for row in now if all(row[name] in asked[name] for name in asked)]
        for unit in ({}, {"unit_id": str(NATION)}):
            query = asked | unit | {"limit": 1, "include_total": True}
            answer = await auditor.get(EVENTS, params=query)
            assert answer.json()["total"] == len(found), query


async def test_a_list_is_written_as_its_schema_says(lao_cai: Province) -> None:
    place = lao_cai.muong_khuong
    leader = await lao_cai.leader_of(place)
    personal = {
        "household_id": place.household["id"],
        "beneficiary": {"age_band": "60_plus", "identifier": "010095000001"},
        "lat": 22.7,
        "lon": 104.0,
        "note": "Dạy quét mã",
    }
    events = [
        await make(leader, "support-events", **place.event(**more))
        for more in ({}, personal, personal | {"member_ids": [place.leader["id"]]})
    ]
    for reader in (leader, await lao_cai.country.sign_in(Role.auditor)):
        for query in ({"limit": 2, "include_total": True}, {}):
            answer = await reader.get(EVENTS, params=query)
            page = SupportEventPage.model_validate_json(answer.content)
            assert answer.content == page.model_dump_json().encode()
            for item in answer.json()["items"]:
                assert item == (await reader.get(f"{EVENTS}/{item['id']}")).json()
    assert {event["id"] for event in events} == {i["id"] for i in answer.json()["items"]}


async def test_a_list_is_one_statement_and_one_that_records_it(
    app: FastAPI, lao_cai: Province, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = lao_cai.muong_khuong
    leader = await lao_cai.leader_of(place)
    for _ in range(3):
        await make(leader, "support-events", **place.event(note="riêng"))
    auditor = await lao_cai.country.sign_in(Role.auditor)
    sent: list[str] = []
    fetch = type(app.state.hot).fetch

    async def note(hot: Any, query: str, *values: Any) -> Any:
        sent.append(query)
        return await fetch(hot, query, *values)

    monkeypatch.setattr(type(app.state.hot), "fetch", note)
    for reader, number in ((leader, 2), (auditor, 1)):
        sent.clear()
        assert len((await reader.get(EVENTS)).json()["items"]) == 3
        assert len(sent) == number
