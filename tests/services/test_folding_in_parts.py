"""A backlog of events is folded in parts: exact after each of them, and in linear time."""

import asyncio
from collections.abc import AsyncIterator
from itertools import cycle
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from api import worker
from api.db import transaction
from api.models.role_grants import Role
from api.services import event_folding
from tests.factories import LAO_CAI, NATION, As, Province, make
from tests.services.test_event_rolls import differences, is_exact
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("known")

SECONDS = 8
"""Until what is asked or folded is over: it took minutes where every household met all others."""
COPY = text("""
    insert into support_event (id, version, created_at, updated_at, unit_id, unit_key, commune_key,
        province_key, team_id, team_unit_key, team_commune_key, member_ids, household_id,
        beneficiary_hash, service_type, occurred_at, quantity, outcome, mode, channel, status,
        external_ids)
    select uuidv7(), 1, now(), now(), unit_id, unit_key, commune_key, province_key, team_id,
           team_unit_key, team_commune_key, member_ids, household_id,
           sha256(n::text::bytea), service_type, occurred_at, quantity, outcome, mode, channel,
           status, external_ids
    from (select * from support_event order by id limit 1) e cross join generate_series(1, :n) as n
""")
CORRECT = text("""
    update support_event set version = version + 1, outcome = 'guided', channel = 'market'
    where version = :version
""")
UNFOLDED = text("select count(*) from event_changes")


async def fold_part(engine: AsyncEngine, most: int) -> int:
    async with transaction(engine, snapshot=True) as session:
        return int(await session.scalar(text("select fold_events(:most)"), {"most": most}) or 0)


async def fold_in_parts(engine: AsyncEngine, most: int) -> list[int]:
    """Return how many changes were left after each part; nothing ever differs."""
    left, more = [], True
    while more:
        more = await fold_part(engine, most) >= most
        await assert_exact(engine)
        async with engine.connect() as connection:
            left.append(int(await connection.scalar(UNFOLDED) or 0))
    return left


async def assert_exact(engine: AsyncEngine) -> None:
    """Rolls and what has changed since are the facts."""
    snapshot = engine.execution_options(isolation_level="REPEATABLE READ")
    async with snapshot.connect() as connection:
        assert await is_exact(connection)


@pytest.fixture
async def writing(superuser: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction that is open, and older than all that follow."""
    committing = superuser.execution_options(isolation_level="READ COMMITTED")
    async with committing.connect() as connection:
        await connection.execute(text("select pg_current_xact_id()"))
        yield connection


@pytest.fixture
async def known(lao_cai: Province, superuser: AsyncEngine) -> Province:
    """One event of a household and somebody, which is folded."""
    place = lao_cai.muong_khuong
    people = {"household_id": place.household["id"], "beneficiary": {"identifier": "somebody"}}
    await make(await lao_cai.leader_of(place), "support-events", **place.event(**people))
    assert await fold_part(superuser, 5) == 1
    return lao_cai


async def copy(engine: AsyncEngine, count: int) -> None:
    """Record events in one transaction."""
    async with engine.connect() as connection:
        await connection.execute(COPY, {"n": count})


async def assert_nothing_differs(engine: AsyncEngine) -> None:
    assert not any(n for name, n in (await differences(engine)).items() if name != "rows")


async def test_each_part_is_as_large_as_its_transactions_let_it_be(
    superuser: AsyncEngine,
) -> None:
    for count in (2, 2, 1, 20, 3, 4):
        await copy(superuser, count)
    assert await fold_in_parts(superuser, 5) == [27, 7, 0, 0]
    await copy(superuser, 5)
    assert await fold_in_parts(superuser, 5) == [0, 0]
    await assert_nothing_differs(superuser)


async def test_what_is_corrected_again_and_again_is_folded_as_it_was(
    superuser: AsyncEngine,
) -> None:
    async with superuser.connect() as connection:
        for version in range(1, 9):
            await copy(superuser, 2)
            await connection.execute(CORRECT, {"version": version})
    left = await fold_in_parts(superuser, 3)
    assert len(left) > 5
    assert left == sorted(left, reverse=True)
    await assert_nothing_differs(superuser)


async def test_whoever_writes_for_long_holds_no_part_up_and_is_folded_afterwards(
    superuser: AsyncEngine, writing: AsyncConnection
) -> None:
    for _ in range(4):
        await copy(superuser, 2)
    await writing.execute(COPY, {"n": 3})
    assert await fold_in_parts(superuser, 4) == [4, 0, 0]
    await copy(superuser, 2)
    await writing.commit()
    assert await fold_in_parts(superuser, 3) == [2, 0]
    await assert_nothing_differs(superuser)


async def test_an_older_transaction_that_corrects_what_a_newer_one_recorded_is_exact(
    superuser: AsyncEngine, writing: AsyncConnection
) -> None:
    await copy(superuser, 3)
    await writing.execute(CORRECT, {"version": 1})
    await writing.commit()
    await copy(superuser, 2)
    assert await fold_in_parts(superuser, 1) == [2, 0, 0]
    await assert_nothing_differs(superuser)


async def test_who_is_renamed_moved_or_erased_between_two_parts_is_counted_once(
    known: Province, superuser: AsyncEngine
) -> None:
    village = known.bao_thang.village["id"]
    disturbances = cycle(
        f"update {table} set beneficiary_hash = {to} where beneficiary_hash < decode('90', 'hex')"
        for table in ("support_event", "support_event_version")
        for to in ("sha256(beneficiary_hash)", "null")
    )
    async with superuser.connect() as connection:
        for version in range(1, 7):
            await copy(superuser, 3)
            await connection.execute(CORRECT, {"version": version})
            await connection.execute(text(next(disturbances)))
    home = f"/v1/households/{known.muong_khuong.household['id']}"
    mover = await known.country.sign_in(Role.commune_admin, at=LAO_CAI)
    moved = await mover.patch(home, json={"unit_id": village}, headers={"If-Match": "*"})
    assert moved.status_code == 200, moved.text
    parts = 0
    while await fold_part(superuser, 4) >= 4:
        parts += 1
        await assert_exact(superuser)
        async with superuser.connect() as connection:
            await connection.execute(text(next(disturbances)))
        await assert_exact(superuser)
        assert (await mover.delete(home, headers={"If-Match": "*"})).status_code in {204, 404}
    assert parts > 4
    await assert_nothing_differs(superuser)


async def test_nobody_who_reads_waits_for_a_part_that_is_being_folded(
    superuser: AsyncEngine,
) -> None:
    for _ in range(3):
        await copy(superuser, 2)
    folding = superuser.execution_options(isolation_level="REPEATABLE READ")
    async with folding.connect() as connection:
        assert await connection.scalar(text("select fold_events(3)")) == 4
        await asyncio.wait_for(assert_exact(superuser), SECONDS)
        await connection.rollback()  # as of a worker that is killed
    assert await fold_in_parts(superuser, 3) == [2, 0]
    await assert_nothing_differs(superuser)


async def test_a_worker_goes_on_at_once_while_parts_are_full(
    known: Province, superuser: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_folding, "PART", 5)
    for _ in range(8):
        await copy(superuser, 2)
    ending = asyncio.Event()
    chore = worker.Chore(event_folding.fold, 3600, in_one_snapshot=True, much=4)
    working = asyncio.create_task(worker.repeat(known.country.app.state.engine, chore, ending))

    async def all_is_folded() -> bool:
        async with superuser.connect() as connection:
            return not await connection.scalar(UNFOLDED)

    await until(all_is_folded)
    ending.set()
    await working


# A household in each of the ten thousand communes of before the reform, and an event of each.
HOUSEHOLDS = """
    insert into household (id, version, created_at, updated_at, unit_id, unit_key, commune_key,
                           province_key, head_name, is_business, external_ids)
    select u.id, 1, timestamptz '2024-01-01', now(), u.id, u.key, u.key, p.ancestor_key, 'Hộ',
           false, '{}'
    from admin_unit u join placement p on p.unit_key = u.key and p.level = 'province'
         and p.during @> date '2025-06-30'
    where u.level = 'commune' and u.valid_to = '2025-06-30'
"""
EVENTS = """
    insert into support_event (id, version, created_at, updated_at, unit_id, unit_key, commune_key,
        province_key, team_id, team_unit_key, team_commune_key, member_ids, household_id,
        beneficiary_hash, service_type, occurred_at, quantity, outcome, mode, channel, status,
        external_ids)
    select uuidv7(), 1, now(), now(), h.unit_id, h.unit_key, h.commune_key, h.province_key,
           team_id, team_unit_key, team_commune_key, '{}', h.id, sha256(h.unit_key::text::bytea),
           service_type, timestamptz '2025-03-01', 1, outcome, mode, channel, status, '{}'
    from (select * from support_event order by id limit 1) e cross join household h
    where h.head_name = 'Hộ'
"""


async def test_what_the_whole_country_changed_is_told_and_folded_within_seconds(
    superuser: AsyncEngine, as_: As
) -> None:
    reader = await as_(Role.ioc_reader, Role.commune_admin, at=NATION)
    query: dict[str, Any] = {
        "indicator": ["households.reached", "beneficiaries.distinct"],
        "unit_id": str(NATION),
        "level": "province",
        "boundary": "2025-06-30",
        "period": "2025",
    }
    async with superuser.connect() as connection:
        await connection.execute(text("set session_replication_role = replica"))
        await connection.execute(text(HOUSEHOLDS))
        for round_ in range(2):
            await connection.execute(text(EVENTS))
            if round_ == 0:
                await connection.execute(text("analyze"))
                await fold_part(superuser, event_folding.PART)
        unfolded = await connection.scalar(UNFOLDED)
        assert unfolded
        assert unfolded > 10_000
    async with asyncio.timeout(SECONDS):
        answer = await reader.get("/v1/observations", params=query)
    assert answer.status_code == 200, answer.text
    async with transaction(superuser, snapshot=True) as session:
        await session.execute(text(f"set local statement_timeout = '{SECONDS}s'"))
        assert await session.scalar(text("select fold_events()")) == unfolded
