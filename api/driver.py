"""The database's driver, for what cannot afford more: hot statements, and hearing of changes.

A hot statement is one message to the database and one answer. It begins with `ENTERED`, which
brings the caller's scope and context for this one statement, and what it reads is laid behind it
(`cross join lateral (… where entered.scopes is not null offset 0)`), so that row-level security
knows the scope before it is asked; without it, it shows nothing. Everything else goes through
SQLAlchemy (`db.py`).
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol, cast
from uuid import uuid4

import asyncpg
from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncSession

from api.db import APP_ROLE

log = logging.getLogger("noidai")

ENTERED = """
with entered as materialized (
    select set_config('noidai.scopes', $1, true) as scopes,
           set_config('noidai.context', $2, true) as context)
"""
"""Opens every hot statement; its first parameters are `Caller.scopes` (or less) and `.context`."""

BROKEN = (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""What the driver says when it does not get through to the database, or not any more."""

CHANNEL = "noidai_changes"
"""What the database announces: `principal:{id}` or `member:{id}`, or nothing for everything."""
BEAT = 1.0
TRUSTED = 3.0
"""Seconds for which silence means that nothing changed; every `BEAT` the line is tried."""


class Connection(Protocol):
    """What runs a statement: a pool, or a connection within a transaction."""

    async def fetch(self, query: str, *arguments: Any) -> list[Any]:
        """Return the rows."""


async def connection_of(session: AsyncSession) -> Connection:
    """Return the driver's connection of a session, within its transaction."""
    connection = await (await session.connection()).get_raw_connection()
    return cast("Connection", connection.driver_connection)


class Together:
    """Writes the rows of many requests with one statement and one commit.

    Whoever comes while a statement is under way goes with the next one: nobody waits for a timer,
    and the busier the service, the fewer commits a row costs.
    """

    def __init__(self, database: Connection, query: str) -> None:
        """`query` takes the rows as one JSON text."""
        self._database, self._query = database, query
        self._rows: list[Any] = []
        self._kept: asyncio.Future[None] | None = None
        self._running: asyncio.Task[None] | None = None

    async def add(self, row: Mapping[str, Any]) -> None:
        """Return once the row is committed."""
        self._rows.append(row)
        if self._kept is None:
            self._kept = asyncio.get_running_loop().create_future()
        kept = self._kept
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        await asyncio.shield(kept)

    async def _run(self) -> None:
        while self._kept is not None:
            rows, kept, self._rows, self._kept = self._rows, self._kept, [], None
            try:
                await self._database.fetch(self._query, to_json(rows).decode())
            except Exception as error:  # noqa: BLE001 - theirs who wait
                kept.set_exception(error)
                kept.exception()  # also when nobody waits any more
            else:
                kept.set_result(None)


class Hot:
    """What hot paths run on: statements that are transactions of their own, and readings kept.

    A few connections as `noidai_app`, the last used first. Nothing is left behind in one that would
    have to be reset: settings last for one statement. So it is taken and given back as it is: what
    a pool does in between costs as much as the statement.
    """

    def __init__(self, url: str, *, size: int, statement_timeout_ms: int, readings: str) -> None:
        """Open up to `size` connections as they are needed; `readings` is kept `Together`."""
        self._url, self._timeout = url, statement_timeout_ms
        self._size, self._closing = size, set[asyncio.Task[None]]()
        self._free: asyncio.LifoQueue[asyncpg.Connection | None] = asyncio.LifoQueue()
        for _ in range(size):
            self._free.put_nowait(None)
        self.readings = Together(self, readings)

    async def _open(self) -> asyncpg.Connection:
        connection = await asyncpg.connect(
            self._url,
            timeout=10,
            server_settings={
                "application_name": "noidai hot",
                "timezone": "UTC",
                "plan_cache_mode": "force_generic_plan",
                "statement_timeout": str(self._timeout),
                "idle_in_transaction_session_timeout": "30000",
            },
        )
        try:
            for name in ("json", "jsonb"):  # taken as text, given as objects: as the toolkit does
                await connection.set_type_codec(
                    name, encoder=str, decoder=json.loads, schema="pg_catalog"
                )
            await connection.execute(f"set role {APP_ROLE}")
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _take(self) -> asyncpg.Connection:
        connection = await self._free.get()
        if connection is not None and not connection.is_closed():
            return connection
        try:
            return await self._open()
        except BaseException:
            self._free.put_nowait(None)
            raise

    def _after(self, error: BaseException, connection: asyncpg.Connection) -> None:
        """Give a connection back after what the database, or we ourselves, refused.

        One that broke, or on which something is under way still, is closed; then there is room.
        """
        if isinstance(error, Exception) and not isinstance(error, BROKEN):
            self._free.put_nowait(connection)
            return
        closing = asyncio.create_task(self._close(connection))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _close(self, connection: asyncpg.Connection) -> None:
        try:
            await connection.close(timeout=10)
        except (*BROKEN, asyncpg.PostgresError, TimeoutError):
            connection.terminate()
        finally:
            self._free.put_nowait(None)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """Lend a connection for several statements."""
        connection = await self._take()
        try:
            yield connection
        except BaseException as error:
            self._after(error, connection)
            raise
        self._free.put_nowait(connection)

    async def fetch(self, query: str, *arguments: Any) -> list[Any]:
        """Return the rows of a statement."""
        connection = await self._take()
        try:
            rows: list[Any] = await connection.fetch(query, *arguments)
        except BaseException as error:
            self._after(error, connection)
            raise
        self._free.put_nowait(connection)
        return rows

    async def close(self) -> None:
        """Close every connection, once nothing is under way."""
        for connection in [await self._free.get() for _ in range(self._size)]:
            if connection is not None:
                await self._close(connection)


@asynccontextmanager
async def attempt(database: Connection) -> AsyncIterator[Connection]:
    """Open a transaction, or a savepoint within one: undone by any exception."""
    if isinstance(database, Hot):
        async with database.connection() as connection, connection.transaction():
            yield connection
    else:
        async with cast("Any", database).transaction():
            yield database


class Watch:
    """Hears from the database which principals changed, over a connection of its own.

    Where nothing can be heard (a pooler between, a broken line), `awake` is false within seconds,
    and whoever asks it reads from the database instead.
    """

    def __init__(self, url: str, tell: Callable[[str], None]) -> None:
        """`tell` is called with each announcement; with "" when any may have been missed."""
        self._url, self._tell = url, tell
        self._echo = f"noidai_echo_{uuid4().hex}"
        self._heard = float("-inf")

    @property
    def awake(self) -> bool:
        """Whether an announcement of a moment ago would have been heard."""
        return asyncio.get_running_loop().time() - self._heard < TRUSTED

    async def run(self) -> None:
        """Listen until cancelled; connect anew when the line breaks."""
        while True:
            try:
                await self._listen()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.warning("changes cannot be heard (%s): trying again", error)
            await asyncio.sleep(BEAT)

    async def _listen(self) -> None:
        connection = await asyncpg.connect(
            self._url, timeout=10, server_settings={"application_name": "noidai watch"}
        )
        loop = asyncio.get_running_loop()

        def heard(_connection: Any, _pid: int, channel: str, payload: str) -> None:
            if channel == CHANNEL:
                self._tell(payload)
            else:
                self._heard = loop.time()

        try:
            await connection.add_listener(CHANNEL, heard)
            await connection.add_listener(self._echo, heard)
            self._tell("")
            while True:
                await connection.execute(f"notify {self._echo}", timeout=TRUSTED)
                await asyncio.sleep(BEAT)
        finally:
            connection.terminate()
