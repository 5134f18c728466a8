"""Rolls of events beside many writers: exact at every moment, folded once, whoever is killed."""

import asyncio
import random
from collections import Counter
from contextlib import suppress
from typing import Any

import asyncpg
import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from api.db import transaction
from api.models.role_grants import Role
from api.services import event_folding
from tests.factories import LAO_CAI, NATION, Country, Place, Province, make
from tests.services.test_reorganisations_at_work import MERGER
from tests.waiting import watch

WRITERS = 16
DAYS = ("2025-12-31T23:30:00+07:00", "2026-02-28T09:00:00+07:00", "2026-03-02T09:00:00+07:00")
EXACT = text("""
    select (select coalesce(sum(events), 0) from event_roll
            where commune_key = 0 and every = :every and dimension = '')
         + (select coalesce(sum(sign) filter (where status in ('submitted', 'verified')), 0)
            from event_changes) as told,
           (select count(*) from support_event where status in ('submitted', 'verified')) as counted
""")
DISTURBANCES = (
    "update household set deleted_at = case when deleted_at is null then now() end",
    """
    update household h set unit_key = o.unit_key, commune_key = o.commune_key from household o
    where o.unit_key <> h.unit_key
    """,
    "update support_event set beneficiary_hash = sha256(beneficiary_hash)",
    "update support_event_version set beneficiary_hash = sha256(beneficiary_hash)",
    """
    update support_event set beneficiary_hash = sha256(beneficiary_hash), version = version + 1
    where beneficiary_hash < decode('80', 'hex')
    """,
)
HOUSEHOLDS_EXACT = text("""
    select (select coalesce(sum(people), 0) from people_roll
            where measure = 'household' and every = 'month' and commune_key = 0)
         + (select coalesce(sum(sign), 0)
            from household_turns cross join lateral unnest(months, events) as m (month, number)
            where unit_key is not null and number > 0) as told,
           (select count(distinct (h.id, date_trunc('month', occurred_on)))
            from support_event e join household h on h.id = e.household_id and h.deleted_at is null
            where status in ('submitted', 'verified') and outcome in ('completed', 'guided'))
               as counted
""")
BENEFICIARIES_EXACT = text("""
    select (select coalesce(sum(people), 0) from people_roll
            where measure = 'beneficiary' and every = 'month' and province_key = 0)
         + (select count(*) filter (where stands > 0) - count(*) filter (where stood > 0)
            from (select sum(stands) as stands, sum(stood) as stood from beneficiary_turns
                  group by beneficiary_hash, month) person) as told,
           (select count(distinct (beneficiary_hash, date_trunc('month', occurred_on)))
            from support_event
            where status in ('submitted', 'verified') and beneficiary_hash is not null) as counted
""")


async def is_exact(connection: AsyncConnection) -> bool:
    """Tell whether rolls and changes together are the facts, in one snapshot."""
    async with connection.begin():
        found = [(await connection.execute(EXACT, {"every": e})).one() for e in ("month", "day")]
        people = (HOUSEHOLDS_EXACT, BENEFICIARIES_EXACT)
        found += [(await connection.execute(exact)).one() for exact in people]
    return all(row.told == row.counted for row in found)


async def sums(reader: httpx.AsyncClient, **query: Any) -> Counter[tuple[str, str, str | None]]:
    """Return the figures by indicator, period and unit; of a split, the sum of its parts."""
    found: Counter[tuple[str, str, str | None]] = Counter()
    answer = await reader.get("/v1/observations", params=query)
    assert answer.status_code == 200, answer.text
    for item in answer.json()["items"]:
        found[item["indicator"], item["period"], item["unit_id"]] += item["value"] or 0
    return +found


async def assert_told_as_counted(country: Country) -> None:
    """Ask by rolls, and by kinds of team, which only the facts tell."""
    reader = await country.sign_in(Role.ioc_reader, at=NATION)
    query = {"indicator": "events.count", "period": "2025-07-01/2026-12-31", "every": "month"}
    for boundary in ("current", "as_recorded", "2025-12-31"):
        for place in (
            {"unit_id": str(NATION), "level": "province"},
            {"unit_id": str(LAO_CAI), "level": "commune"},
            {"unit_id": str(LAO_CAI), "level": "village"},
        ):
            asked = query | place | {"boundary": boundary}
            told, counted = await sums(reader, **asked), await sums(reader, **asked, by="kind")
            assert told == counted
            assert told or boundary == "2025-12-31"


async def write(place: Place, leader: httpx.AsyncClient, dice: random.Random) -> str:
    """Record an event, then correct it, void it, or leave it."""
    body = place.event(occurred_at=dice.choice(DAYS), quantity=dice.randint(1, 9))
    if dice.random() < 0.3:
        body["unit_id"] = str(place.unit_id)
    if dice.random() < 0.6:
        body["household_id"] = place.household["id"]
    if dice.random() < 0.3:
        body["beneficiary"] = {"identifier": f"person {dice.randrange(20)}"}
    made = await leader.post("/v1/support-events", json=body)
    if made.status_code == 422 and body.pop("household_id", None):  # it moved away, or is hidden
        made = await leader.post("/v1/support-events", json=body)
    if made.status_code == 409:  # the commune is no more
        return str(made.json()["code"])
    assert made.status_code == 201, made.text
    path, tag = f"/v1/support-events/{made.json()['id']}", made.headers["ETag"]
    match dice.choice(["stay", "correct", "verify", "void", "reject", "correct and void"]):
        case "correct" | "correct and void" as what:
            change = {"outcome": dice.choice(["guided", "attempted"]), "channel": "market"}
            change |= {"occurred_at": dice.choice(DAYS), "service_type": "PS.ACCOUNT"}
            done = await leader.patch(path, json=change, headers={"If-Match": tag})
            if what == "correct and void" and done.status_code == 200:
                done = await leader.post(f"{path}:void", json={"reason": "Nhầm"})
        case "stay":
            return "stay"
        case verb:
            done = await place.admin.post(f"{path}:{verb}", json={"reason": "Đã gọi lại"})
    assert done.status_code in {200, 409, 412}, done.text
    return str(done.status_code)


async def keep_folding(url: str, dice: random.Random, over: asyncio.Event, dies: float) -> int:
    """Fold in small and large parts, now and then dying before the commit; return how often."""
    folded = 0
    while not over.is_set():
        connection = await asyncpg.connect(url)
        await connection.execute("begin isolation level repeatable read")
        with suppress(asyncpg.SerializationError):
            changed = await connection.fetchval(
                "select fold_events($1)", dice.choice([1, 4, 1_000])
            )
            if dice.random() < dies:
                connection.terminate()
                continue
            await connection.execute("commit")
            folded += bool(changed)
        await connection.close()
        await asyncio.sleep(dice.random() / 20)
    return folded


async def test_rolls_are_exact_in_a_storm_of_writers_folds_and_a_merger(
    lao_cai: Province, superuser: AsyncEngine, owner_url: str
) -> None:
    places = (lao_cai.muong_khuong, lao_cai.bao_thang)
    leaders = [await lao_cai.leader_of(places[n % 2]) for n in range(WRITERS)]
    nation = await lao_cai.country.sign_in(Role.national_admin)
    over = asyncio.Event()

    async def go_on(n: int) -> Counter[str]:
        dice = random.Random(n)
        return Counter([await write(places[n % 2], leaders[n], dice) for _ in range(20)])

    async def merge() -> None:
        await asyncio.sleep(1.5)
        await make(nation, "reorganisations", **MERGER)

    async def disturb() -> int:
        """Move households and hide them, and replace hashes, as it comes."""
        dice, turns = random.Random(0), 0
        committing = superuser.execution_options(isolation_level="READ COMMITTED")
        while not over.is_set():
            async with transaction(committing) as session:
                await session.execute(text(dice.choice(DISTURBANCES)))
            turns += 1
            await asyncio.sleep(dice.random() / 20)
        return turns

    async def work() -> Counter[str]:
        merging = asyncio.create_task(merge())
        done = await asyncio.gather(*(go_on(n) for n in range(WRITERS)))
        await merging
        over.set()
        return sum(done, Counter[str]())

    folding = asyncio.gather(
        *(keep_folding(owner_url, random.Random(n), over, dies=0.3) for n in range(3))
    )
    done, looks, turns = await asyncio.gather(work(), watch(superuser, over, is_exact), disturb())
    folds = await folding
    assert done["unit_dissolved"], done
    assert done["200"] > WRITERS
    assert looks > 10
    assert turns > 10
    assert sum(folds) > 10
    assert not any(
        value for name, value in (await differences(superuser)).items() if name != "rows"
    )
    await assert_told_as_counted(lao_cai.country)


async def differences(engine: AsyncEngine) -> dict[str, int]:
    found = await event_folding.differences(engine)
    assert found["rows"]
    return found


async def test_who_commits_late_is_folded_later_and_once(
    lao_cai: Province, superuser: AsyncEngine
) -> None:
    leader = await lao_cai.leader_of(lao_cai.muong_khuong)
    for _ in range(3):
        await make(leader, "support-events", **lao_cai.muong_khuong.event())
    reader = await lao_cai.country.sign_in(Role.ioc_reader, at=NATION)
    query = {"indicator": "events.count", "period": "2025-08", "unit_id": str(LAO_CAI)}

    async def value() -> int:
        return sum((await sums(reader, **query)).values())

    async def fold() -> int:
        async with transaction(superuser, snapshot=True) as session:
            return await event_folding.fold(session)

    committing = superuser.execution_options(isolation_level="READ COMMITTED")
    async with transaction(committing) as late:
        await late.execute(
            text("""
                insert into support_event (id, version, created_at, updated_at, unit_id, unit_key,
                    commune_key, province_key, team_id, team_unit_key, team_commune_key, member_ids,
                    service_type, occurred_at, quantity, outcome, mode, channel, status,
                    external_ids)
                select uuidv7(), 1, now(), now(), unit_id, unit_key, commune_key, province_key,
                       team_id, team_unit_key, team_commune_key, member_ids, service_type,
                       occurred_at, quantity, outcome, mode, channel, status, external_ids
                from support_event limit 1
            """)
        )
        assert await fold() == 3
        assert await value() == 3
    assert await value() == 4
    assert [await fold(), await fold(), await value()] == [1, 0, 4]


async def test_many_workers_fold_every_change_once(
    lao_cai: Province, superuser: AsyncEngine, owner_url: str
) -> None:
    place = lao_cai.muong_khuong
    leader = await lao_cai.leader_of(place)
    over = asyncio.Event()

    async def work() -> None:
        for _ in range(30):
            await make(leader, "support-events", **place.event())
        over.set()

    dice = random.Random(1)
    await asyncio.gather(work(), *(keep_folding(owner_url, dice, over, dies=0) for _ in range(6)))
    assert (await differences(superuser))["events"] == 0
    async with superuser.connect() as connection:
        assert await connection.scalar(text("select sum(changes) from event_roll")) == 30 * 11


async def test_what_differs_is_found_and_repaired(
    lao_cai: Province, superuser: AsyncEngine
) -> None:
    for place in (lao_cai.muong_khuong, lao_cai.bao_thang):
        people = {"household_id": place.household["id"], "beneficiary": {"identifier": "somebody"}}
        event = place.event(quantity=7) | people
        await make(await lao_cai.leader_of(place), "support-events", **event)
    assert set((await differences(superuser)).values()) == {0, 14}
    async with superuser.connect() as connection:
        await connection.execute(
            text("update event_roll set quantity = 8 where unit_key <> 0 and quantity = 7")
        )
        await connection.execute(text("delete from event_roll where dimension = 'channel'"))
        for lost in ("people_roll where every = 'first'", "household_reach", "beneficiary_reach"):
            await connection.execute(text(f"delete from {lost}"))
    found = await differences(superuser)
    assert (found["quantity"], found["events"], found["verified"]) == (2 + 2, 2, 0)
    assert (found["households"], found["households_ever"], found["beneficiaries"]) == (2, 3, 2)
    await event_folding.repair(superuser)
    assert set((await differences(superuser)).values()) == {0, 14}


async def test_places_that_come_in_later_are_counted_where_they_lie(
    lao_cai: Province, superuser: AsyncEngine
) -> None:
    country, place = lao_cai.country, lao_cai.muong_khuong
    leader = await lao_cai.leader_of(place)
    await make(leader, "support-events", **place.event())
    village = {"level": "village", "type": "thôn", "valid_from": "2025-07-01"}
    elsewhere = lao_cai.bao_thang
    first, second, third = [
        await make(at.admin, "admin-units", name=name, parent_id=str(at.unit_id), **village)
        for name, at in (("Mới", place), ("Nữa", place), ("Xa", elsewhere))
    ]
    nation = await country.sign_in(Role.national_admin)
    moved = {"kind": "move", "unit_ids": [second["id"]], "parent_id": str(elsewhere.unit_id)}
    paper = {"number": "2/NQ", "issued_on": "2026-01-01", "issuer": "UBND"}
    await make(
        nation, "reorganisations", effective_on="2026-10-01", document=paper, changes=[moved]
    )
    await event_folding.repair(superuser)
    await assert_told_as_counted(country)
    for unit in (place.unit_id, first["id"], elsewhere.unit_id, third["id"], second["id"]):
        await make(leader, "support-events", **place.event(unit_id=str(unit)))
        async with transaction(superuser, snapshot=True) as session:
            assert await event_folding.fold(session) == 1
        await assert_told_as_counted(country)
