"""The engine, the session of a request, and the roles and migrations behind them.

Three database roles: the owner migrates; the service acts as `noidai_app`, which owns nothing and
is bound by row-level security. Where the URL signs in as another role, each connection changes
into `noidai_app` before its first statement. For the statements that answer a data subject's
request it changes into `noidai_subjects`, whose policies show only whom open requests name.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

APP_ROLE = "noidai_app"
SUBJECTS_ROLE = "noidai_subjects"
TOOK_TURNS = "40001"
"""serialization_failure: another transaction did the same at the same moment."""
MIGRATIONS = Path(__file__).parents[1] / "migrations"


def _url(given: str) -> URL:
    return make_url(given).set(drivername="postgresql+asyncpg")


def create_engine(
    url: str, *, pool_size: int = 10, statement_timeout_ms: int = 15_000
) -> AsyncEngine:
    """Return the service's engine: every connection acts as `noidai_app`."""
    engine = create_async_engine(
        _url(url),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=10,
        connect_args={
            "timeout": 10,
            "server_settings": {
                "application_name": "noidai",
                "timezone": "UTC",
                "statement_timeout": str(statement_timeout_ms),
                "idle_in_transaction_session_timeout": "30000",
            },
        },
    )

    @event.listens_for(engine.sync_engine, "connect")
    def act_as_app(connection: Any, _record: Any) -> None:
        connection.run_async(lambda driver: driver.execute(f"set role {APP_ROLE}"))

    return engine


@asynccontextmanager
async def transaction(
    engine: AsyncEngine, *, snapshot: bool = False
) -> AsyncIterator[AsyncSession]:
    """Open a session in one transaction: committed at the end, rolled back on any exception.

    With `snapshot` all its statements see the same moment, so that what they find adds up. A
    connection is taken by the first statement: nobody holds one while waiting for another.
    """
    if snapshot:
        engine = engine.execution_options(isolation_level="REPEATABLE READ")
    told = {"snapshot": snapshot}
    async with AsyncSession(engine, expire_on_commit=False, info=told) as session, session.begin():
        yield session


async def once[T](session: AsyncSession, name: str, read: Callable[[], Awaitable[T]]) -> T:
    """Return what `read` does: read once, where all of the transaction sees one moment."""
    if not session.info["snapshot"]:
        return await read()
    if name not in session.info:
        session.info[name] = await read()
    found: T = session.info[name]
    return found


@asynccontextmanager
async def as_subjects(session: AsyncSession) -> AsyncIterator[None]:
    """Act as `noidai_subjects`; what fails inside ends the transaction, and the role with it."""
    await session.execute(text(f"set local role {SUBJECTS_ROLE}"))
    yield
    await session.execute(text(f"set local role {APP_ROLE}"))


async def is_ready(engine: AsyncEngine) -> bool:
    """Tell whether the database answers and carries the newest migration this release knows."""
    async with engine.connect() as connection:
        known: str | None = await connection.scalar(text("select version_num from alembic_version"))
        return known == _head()


@cache
def _head() -> str | None:
    return ScriptDirectory.from_config(alembic_config()).get_current_head()


def alembic_config(connection: Connection | None = None) -> Config:
    """Return the configuration of the migrations, run on `connection`."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


async def migrate(owner_url: str) -> None:
    """Bring the database to the newest migration, as its owner; one migrator at a time."""
    engine = create_async_engine(_url(owner_url), connect_args={"timeout": 10})
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_ensure_roles)
        async with engine.begin() as connection:
            await connection.run_sync(lambda c: command.upgrade(alembic_config(c), "head"))
    finally:
        await engine.dispose()


def _ensure_roles(connection: Connection) -> None:
    connection.execute(text("select pg_advisory_xact_lock(hashtext('noidai roles'))"))
    known = connection.scalar(text("select 1 from pg_roles where rolname = :r"), {"r": APP_ROLE})
    if not known:
        connection.execute(text(f"create role {APP_ROLE} login"))
        connection.execute(text(f"grant {APP_ROLE} to current_user"))
    known = connection.scalar(
        text("select 1 from pg_roles where rolname = :r"), {"r": SUBJECTS_ROLE}
    )
    if not known:  # entered by `set role` only: nothing of it is inherited
        connection.execute(text(f"create role {SUBJECTS_ROLE} nologin"))
        connection.execute(
            text(f"grant {SUBJECTS_ROLE} to {APP_ROLE} with inherit false, set true")
        )
    connection.execute(text(f"grant usage on schema public to {APP_ROLE}, {SUBJECTS_ROLE}"))


async def pending(url: str) -> list[str]:
    """Return the migrations that the database lacks, oldest first."""

    def compare(connection: Connection) -> list[str]:
        known = MigrationContext.configure(connection).get_current_heads()
        script = ScriptDirectory.from_config(alembic_config())
        return [
            f"{step.revision} {step.doc}"
            for step in reversed(list(script.iterate_revisions("heads", known or "base")))
        ]

    engine = create_async_engine(_url(url), connect_args={"timeout": 10})
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(compare)
    finally:
        await engine.dispose()
