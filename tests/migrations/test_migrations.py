"""The schema that the migrations build."""

import asyncio
import os
import subprocess
import sys

from alembic import command
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from api import db


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
