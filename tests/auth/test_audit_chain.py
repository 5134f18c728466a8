"""The audit's chain: sealed while everybody writes, and broken by whatever is done to it since."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api import ids, worker
from api.db import create_engine, transaction
from api.services import audit_seals
from api.services.audit_seals import Verdict
from tests.factories import Place, Province, make
from tests.test_cli import environment

WRITERS, SEALERS, WRITES = 20, 3, 12


@pytest.fixture
async def service(database: str) -> AsyncIterator[AsyncEngine]:
    """The database as the service sees it, with connections for everybody."""
    engine = create_engine(database, pool_size=WRITERS + SEALERS)
    yield engine
    await engine.dispose()


async def seal(engine: AsyncEngine) -> int | None:
    async with transaction(engine) as session:
        return await audit_seals.seal(session)


async def seal_all(engine: AsyncEngine) -> None:
    """Seal until nothing is left: what other tests have running in this cluster delays it."""
    left = text("""
        select exists (select from audit_root('', (
            select coalesce(max(to_xid), 0) from audit_seal), 9223372036854775807)
            where entries > 0)
    """)
    for _ in range(1000):
        await seal(engine)
        async with transaction(engine) as session:
            if not await session.scalar(left):
                return
        await asyncio.sleep(0.01)
    pytest.fail("never sealed")


async def verdict(engine: AsyncEngine, root: str | None = None) -> Verdict:
    async with transaction(engine) as session:
        return await audit_seals.verify(session, root)


async def counted(superuser: AsyncEngine, condition: str = "true") -> int:
    async with superuser.connect() as connection:
        query = text(f"select count(*) from audit_entry where {condition}")
        return int(await connection.scalar(query) or 0)


async def behind_the_triggers(superuser: AsyncEngine, statement: str, **given: Any) -> None:
    """Do what only a superuser can, who switches every trigger off."""
    async with superuser.connect() as connection:
        await connection.execute(text("set session_replication_role = replica"))
        done = await connection.execute(text(statement), given)
        assert done.rowcount >= 1
        await connection.execute(text("reset session_replication_role"))


async def register(place: Place, name: str) -> None:
    await make(place.admin, "households", unit_id=place.village["id"], head_name=name)


async def storm(lao_cai: Province, service: AsyncEngine) -> None:
    """Write from twenty connections while three seal."""
    writing = True

    async def write(number: int) -> None:
        place = (lao_cai.muong_khuong, lao_cai.bao_thang)[number % 2]
        for n in range(WRITES):
            rows = [
                {
                    "op": "create",
                    "id": str(ids.new_id()),
                    "data": {"unit_id": place.village["id"], "head_name": f"Hộ {number}.{n}"},
                }
                for _ in range(1 + n % 3)
            ]
            sent = await place.admin.post("/v1/batch", json={"households": rows})
            assert {result["status"] for result in sent.json()["results"]} == {201}

    async def keep_sealing() -> None:
        while writing:
            await seal(service)
            await asyncio.sleep(0.01)

    sealers = [asyncio.create_task(keep_sealing()) for _ in range(SEALERS)]
    await asyncio.gather(*(write(number) for number in range(WRITERS)))
    writing = False
    await asyncio.gather(*sealers)


async def test_the_chain_holds_after_a_storm_and_no_entry_is_lost(
    lao_cai: Province, service: AsyncEngine, superuser: AsyncEngine
) -> None:
    await storm(lao_cai, service)
    await seal_all(service)
    wrote = WRITERS * sum(1 + n % 3 for n in range(WRITES))
    households = "action = 'create' and resource = 'households'"
    assert await counted(superuser, households) == wrote + 2  # and the two places' own
    assert await counted(superuser, f"{households} and actor_id is null") == 0
    found = await verdict(service)
    assert found.fault is None
    assert found.entries == await counted(superuser)
    assert found.seals > SEALERS


async def test_who_commits_late_is_in_the_next_seal(
    lao_cai: Province, service: AsyncEngine, superuser: AsyncEngine
) -> None:
    place = lao_cai.muong_khuong
    early = "request_id = 'early'"
    async with service.connect() as late:
        await late.execute(
            text(
                "insert into audit_entry (action, resource, request_id) values ('a', 'b', 'early')"
            )
        )
        await register(place, "Sau mà trước")
        await seal(service)
        before = await verdict(service)
        assert before.fault is None
        assert before.entries < await counted(superuser)  # what began later is sealed later
        await late.commit()
    assert await counted(superuser, early) == 1
    await seal_all(service)
    after = await verdict(service)
    assert after.fault is None
    assert after.seals > before.seals
    assert after.entries == await counted(superuser)


async def test_a_rolled_back_write_leaves_no_gap(
    service: AsyncEngine, lao_cai: Province, superuser: AsyncEngine
) -> None:
    async with service.connect() as undone:
        await undone.execute(text("insert into audit_entry (action, resource) values ('a', 'b')"))
        await undone.rollback()
    await register(lao_cai.muong_khuong, "Còn lại")
    await seal_all(service)
    found = await verdict(service)
    assert (found.fault, found.entries) == (None, await counted(superuser))


Deed = Callable[[AsyncEngine], Awaitable[None]]
ONE = "(select id from audit_entry where xid < :until order by xid, id offset 5 limit 1)"
DEEDS = {
    "a byte is changed": f"update audit_entry set action = 'creatf' where id = {ONE}",
    "a moment is changed": f"update audit_entry set at = at + interval '1 us' where id = {ONE}",
    "a value is unmasked": f"update audit_entry set after = '{{}}' where id = {ONE}",
    "an entry is taken out": f"delete from audit_entry where id = {ONE}",
    "an entry is slipped in": (
        "insert into audit_entry (action, resource, xid) values ('read', 'teams', :until - 1)"
    ),
    "an entry is moved on": f"update audit_entry set xid = :until + 1000000 where id = {ONE}",
    "a root is changed": "update audit_seal set root = sha256(root) where number = 2",
    "a count is changed": "update audit_seal set entries = entries + 1 where number = 2",
    "a seal is taken out": "delete from audit_seal where number = 2",
    "the first seal is taken out": "delete from audit_seal where number = 1",
    "a range is widened": "update audit_seal set to_xid = to_xid + 1 where number = 2",
}


@pytest.mark.parametrize("deed", list(DEEDS))
async def test_what_is_done_to_the_past_is_found(
    deed: str, lao_cai: Province, service: AsyncEngine, superuser: AsyncEngine
) -> None:
    for name in "ABC":
        await register(lao_cai.muong_khuong, name)
        await seal_all(service)
    before = await verdict(service)
    assert before.fault is None
    assert before.seals >= 3
    async with superuser.connect() as connection:
        until = await connection.scalar(text("select max(to_xid) from audit_seal"))
        holding = text(f"""
            select number from audit_seal
            join audit_entry e on e.xid >= from_xid and e.xid < to_xid
            where e.id = {ONE}
        """)
        number = await connection.scalar(holding, {"until": until})
    given = {"until": until} if ":until" in DEEDS[deed] else {}
    statement = DEEDS[deed].replace(":until", "cast(:until as bigint)")
    await behind_the_triggers(superuser, statement, **given)
    fault = (await verdict(service)).fault
    assert fault is not None
    assert fault.startswith(f"seal {number} of" if ONE in DEEDS[deed] else "seal "), fault
    assert "of 20" in fault


async def test_a_chain_that_was_cut_off_shows_by_a_root_noted_elsewhere(
    lao_cai: Province, service: AsyncEngine, superuser: AsyncEngine
) -> None:
    found = []
    for name in "ABC":
        await register(lao_cai.muong_khuong, name)
        await seal_all(service)
        found.append(await verdict(service))
    for one in found:
        assert (await verdict(service, one.root)).fault is None
    kept = found[1]
    given = {"kept": kept.seals}
    beyond = "(select to_xid from audit_seal where number = :kept)"
    gone = f"delete from audit_entry where xid >= {beyond}"
    await behind_the_triggers(superuser, gone, **given)
    await behind_the_triggers(superuser, "delete from audit_seal where number > :kept", **given)
    assert (await verdict(service)).fault is None  # of itself it holds
    assert (await verdict(service, kept.root.upper())).fault is None
    assert "noted root" in str((await verdict(service, found[2].root)).fault)


async def test_the_command_says_whether_the_audit_holds(
    lao_cai: Province, service: AsyncEngine, superuser: AsyncEngine, database: str, tmp_path: Any
) -> None:
    await register(lao_cai.muong_khuong, "A")
    await seal_all(service)

    async def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "api.cli", "audit", "verify", *arguments],
            env=environment(tmp_path, NOIDAI_DATABASE_URL=database),
            capture_output=True,
            text=True,
            check=False,
        )

    holds = await run()
    now = await verdict(service)
    root = now.root
    assert now.entries == await counted(superuser)
    assert holds.returncode == 0, holds.stderr
    assert holds.stdout == f"{now.seals} seals over {now.entries} entries hold; root {root}\n"
    assert (await run("--root", root)).returncode == 0
    assert (await run("--root", "00")).returncode == 1
    await behind_the_triggers(superuser, "delete from audit_entry where resource = 'households'")
    broken = await run()
    assert broken.returncode == 1
    assert " of 20" in broken.stderr
    assert len(broken.stderr.splitlines()) == 1


async def test_every_worker_seals_in_the_background_and_ends_at_once(
    lao_cai: Province, app: FastAPI, service: AsyncEngine, superuser: AsyncEngine
) -> None:
    assert lao_cai
    ending = asyncio.Event()
    chore = worker.Chore(audit_seals.seal, 0.05)
    workers = [
        asyncio.create_task(worker.repeat(app.state.engine, chore, ending)) for _ in range(3)
    ]
    for _ in range(300):
        found = await verdict(service)
        assert found.fault is None
        if found.entries == await counted(superuser):
            break
        await asyncio.sleep(0.05)
    ending.set()
    await asyncio.wait_for(asyncio.gather(*workers), 5)
    assert found.entries == await counted(superuser)


async def test_partitions_are_there_for_the_months_to_come(superuser: AsyncEngine) -> None:
    months = text("""
        select count(*) from generate_series(0, 3) n
        where to_regclass('audit_entry_' || to_char(
            date_trunc('month', now() at time zone 'UTC') + make_interval(months => n), 'YYYY_MM'
            )) is not null
    """)
    placed = text("""
        select tableoid::regclass::text ~ '^audit_entry_20' from audit_entry limit 1
    """)
    far = text("""
        insert into audit_entry (at, action, resource) values ('2199-01-01', 'a', 'b')
        returning tableoid::regclass::text
    """)
    async with superuser.connect() as connection:
        assert await connection.scalar(months) == 4
        await connection.execute(
            text("insert into audit_entry (action, resource) values ('a', 'b')")
        )
        assert await connection.scalar(placed) is True
        assert await connection.scalar(far) == "audit_entry_other"  # nothing is ever lost
        await connection.execute(text("select make_audit_partitions()"))
