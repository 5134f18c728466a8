"""The bare floor: FastAPI and asyncpg on the same tables; no auth, no scope, no ORM, no rules.

Run as `python -m tests.bench.floor URL PORT`. What it writes goes into `floor_event`, a copy of
the events' table with its indexes and as many events, so that both look for their place in indexes
of one size.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import asyncpg
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

POOL = 10  # as NOIDAI_DATABASE_POOL_SIZE
TABLE = "create table floor_event (like support_event including all)"


class Event(BaseModel):
    """An event with its places, as the client says."""

    id: UUID
    team_id: UUID
    member_ids: list[UUID]
    household_id: UUID | None
    service_type: str
    occurred_at: datetime
    quantity: int
    outcome: str
    mode: str
    channel: str
    note: str | None
    unit_id: UUID
    unit_key: int
    commune_key: int
    province_key: int
    team_unit_key: int
    team_commune_key: int


TYPES = (
    *("uuid", "uuid", "uuid[]", "uuid", "text", "timestamptz", "integer", "text", "text", "text"),
    *("text", "uuid", "integer", "integer", "integer", "integer", "integer"),
)
NAMES = tuple(Event.model_fields)
RECORD = "version, created_at, updated_at, status, external_ids"
VALUES = "1, now(), now(), 'submitted', '{}'"
ONE = f"""
    insert into floor_event ({", ".join(NAMES)}, {RECORD})
    values ({", ".join(f"${n}" for n in range(1, len(NAMES) + 1))}, {VALUES})
"""
# unnest would flatten an array of arrays: members travel as text
ARRAYS = (
    f"${n}::{'text' if kind == 'uuid[]' else kind}[]" for n, kind in enumerate(TYPES, start=1)
)
MANY = f"""
    insert into floor_event ({", ".join(NAMES)}, {RECORD})
    select {", ".join(f"{n}::{kind}" for n, kind in zip(NAMES, TYPES, strict=True))}, {VALUES}
    from unnest({", ".join(ARRAYS)}) as given ({", ".join(NAMES)})
"""
FILLED = f"""
    insert into floor_event ({", ".join(NAMES)}, {RECORD})
    select {", ".join(NAMES)}, {RECORD} from support_event
"""
READ = f"select {', '.join(NAMES)}, version, created_at, status from support_event"
NEWEST = READ + " where {column} = $1 order by occurred_at desc, id desc limit 50"
BY_MONTH = """
    select commune_key, date_trunc('month', occurred_on)::date as month, count(*) as value
    from support_event
    where province_key = $1 and occurred_on between '2023-01-01' and '2023-12-31'
    group by 1, 2 order by 1, 2
"""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Hold a pool as large as the service's."""
    async with asyncpg.create_pool(app.state.url, min_size=POOL, max_size=POOL) as pool:
        app.state.pool = pool
        yield


app = FastAPI(lifespan=lifespan)


async def _rows(query: str, *arguments: Any) -> list[dict[str, Any]]:
    return [dict(row) for row in await app.state.pool.fetch(query, *arguments)]


@app.get("/health/live")
async def live() -> str:
    return "ok"


@app.get("/teams/{team_id}")
async def read_team(team_id: UUID) -> dict[str, Any]:
    return (await _rows("select * from team where id = $1", team_id))[0]


@app.get("/members/{member_id}")
async def read_member(member_id: UUID) -> dict[str, Any]:
    return (await _rows("select * from member where id = $1", member_id))[0]


@app.get("/households/{household_id}")
async def read_household(household_id: UUID) -> dict[str, Any]:
    return (await _rows("select * from household where id = $1", household_id))[0]


@app.get("/events/{event_id}")
async def read_event(event_id: UUID) -> dict[str, Any]:
    return (await _rows(f"{READ} where id = $1", event_id))[0]


@app.get("/newest/{column}/{key}")
async def newest(column: Literal["commune_key", "province_key"], key: int) -> list[dict[str, Any]]:
    return await _rows(NEWEST.format(column=column), key)


@app.get("/by-month/{key}")
async def by_month(key: int) -> list[dict[str, Any]]:
    return await _rows(BY_MONTH, key)


@app.post("/events")
async def write(event: Event) -> Event:
    await app.state.pool.execute(ONE, *(getattr(event, name) for name in NAMES))
    return event


@app.post("/batch")
async def write_many(events: list[Event]) -> list[UUID]:
    columns = {name: [getattr(event, name) for event in events] for name in NAMES}
    columns["member_ids"] = ["{" + ",".join(map(str, m)) + "}" for m in columns["member_ids"]]
    await app.state.pool.execute(MANY, *columns.values())
    return [event.id for event in events]


if __name__ == "__main__":
    app.state.url = sys.argv[1]
    uvicorn.run(
        app,
        port=int(sys.argv[2]),
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
        server_header=False,
    )
