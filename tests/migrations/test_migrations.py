"""The schema that the migrations build."""

import asyncio
import os
import subprocess
import sys
from typing import Any

from alembic import command
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from api import db
from api.db import transaction
from api.services import event_folding
from tests.factories import Province, make
from tests.services.test_event_rolls import is_exact


async def test_the_models_and_the_migrations_agree(owner_url: str) -> None:
    engine = create_async_engine(owner_url.replace("postgresql://", "postgresql+asyncpg://"))
    async with engine.connect() as connection:
        await connection.run_sync(lambda c: command.check(db.alembic_config(c)))
    await engine.dispose()


async def test_every_foreign_key_is_indexed(superuser: AsyncEngine) -> None:
    bare = text("""
        select c.conrelid::regclass || ' ' || c.conkey::text
        from pg_constraint c
        where c.contype = 'f' and not exists (
            select from pg_index i
            where i.indrelid = c.conrelid and i.indpred is null
              and (i.indkey::smallint[])[0:cardinality(c.conkey) - 1] @> c.conkey)
    """)
    async with superuser.connect() as connection:
        assert list(await connection.scalars(bare)) == []


async def test_migrating_again_and_together_changes_nothing(owner_url: str) -> None:
    environment = os.environ | {"NOIDAI_DATABASE_URL": owner_url}
    migrators = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "api.cli", "migrate", env=environment, stdout=subprocess.PIPE
        )
        for _ in range(3)
    ]
    assert [await migrator.wait() for migrator in migrators] == [0, 0, 0]
    assert await db.pending(owner_url) == []


async def test_the_catalogue_and_the_indicators_are_there(superuser: AsyncEngine) -> None:
    async with superuser.connect() as connection:
        counts = text(
            "select (select count(*) from service_type), (select count(*) from indicator)"
        )
        assert tuple((await connection.execute(counts)).one()) == (33, 31)


# As it was before there were rolls of people, and of what stands.
WITHOUT_PEOPLE = """
    drop table standing, standing_roll, standing_note cascade;
    drop function fold_standing, count_standing, standing_differences, noted_members;
    drop function note_standing, note_all_standing cascade;
    drop policy team_fold on team;
    drop policy member_fold on member;
    drop policy membership_fold on membership;
    drop policy activity_fold on activity;
    drop trigger note_move on household;
    drop trigger note_renaming on support_event;
    drop trigger note_renaming on support_event_version;
    drop policy household_fold on household;
    drop view household_turns, beneficiary_turns, beneficiary_changes;
    drop table people_roll, household_reach, beneficiary_reach, household_move,
        beneficiary_renaming cascade;
    drop function end_of_part, snapshot_until;
    drop function fold_events, rebuild_event_rolls, people_roll_differences, fold_households,
        fold_beneficiaries, count_people, note_household_move, note_beneficiary_renaming,
        is_household_seen;
    alter function fold_event_rolls rename to fold_events;
    alter function rebuild_rolls_of_events rename to rebuild_event_rolls;
    update alembic_version set version_num = '0025';
    grant create on schema public to noidai_owner;
"""


async def test_people_of_before_are_counted_by_the_migration(
    lao_cai: Province, superuser: AsyncEngine, owner_url: str
) -> None:
    place = lao_cai.muong_khuong
    leader = await lao_cai.leader_of(place)
    somebody = {"household_id": place.household["id"], "beneficiary": {"identifier": "somebody"}}
    async with superuser.connect() as connection:
        raw: Any = await connection.get_raw_connection()
        await raw.driver_connection.execute(WITHOUT_PEOPLE)
    first, second = [
        await make(leader, "support-events", **place.event(**somebody, quantity=n)) for n in (1, 2)
    ]
    async with transaction(superuser, snapshot=True) as session:
        assert await session.scalar(text("select fold_events()")) == 2
    await make(leader, "support-events", **place.event(**somebody))
    for event in (first, second):  # corrected, but not folded yet
        path, reason = f"/v1/support-events/{event['id']}:void", {"reason": "Nhầm"}
        assert (await place.admin.post(path, json=reason)).status_code == 200
    await db.migrate(owner_url)
    async with superuser.connect() as connection:
        assert await is_exact(connection)
        folded = text("select distinct people from people_roll")
        assert list(await connection.scalars(folded)) == [1]
    found = await event_folding.differences(superuser)
    assert found.pop("rows")
    assert not any(found.values())
