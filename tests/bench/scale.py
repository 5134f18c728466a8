"""`python -m tests.bench.scale --events 1000000 10000000`: dashboards and lists as a country grows.

Loads nine villages, with a team of nine each, for every commune of before the reform, then as many
events as are asked for, in two years around it, and measures over HTTP, one request after another.
It prints figures and fails only when an answer is wrong.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from itertools import cycle, product
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any, Final
from urllib.parse import urlencode

import asyncpg
import uvloop

from api import db, embedded, ids
from tests.bench import load
from tests.bench.country import EVENTS, VILLAGES
from tests.bench.serving import served, sign_in

CHUNK: Final = 250_000
INDEXES: Final = """
    select indexrelid::regclass as name, pg_get_indexdef(indexrelid) as definition
    from pg_index where indrelid = 'support_event'::regclass and not indisunique
"""
SECONDS: Final = 3.0
PASSWORD: Final = "b3nch-of-villages-by-the-river"
NATION = ids.official_unit_id("nation", "VN")
LAO_CAI = ids.official_unit_id("province", "15", "2025-07-01")
OLD_LAO_CAI = ids.official_unit_id("province", "10")
BAO_THANG = ids.official_unit_id("commune", "02902", "2025-07-01")
MONTHS = {"indicator": "events.count", "period": "2025", "every": "month"}
DASHBOARDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "province by commune": {"unit_id": LAO_CAI, "level": "commune"},
    "  as recorded": {"unit_id": LAO_CAI, "level": "commune", "boundary": "as_recorded"},
    "  old province, 2025-06-30": {
        "unit_id": OLD_LAO_CAI,
        "level": "commune",
        "boundary": "2025-06-30",
    },
    "nation by province": {"unit_id": NATION, "level": "province"},
    "  as recorded ": {"unit_id": NATION, "level": "province", "boundary": "as_recorded"},
    "  in 2025-06-30": {"unit_id": NATION, "level": "province", "boundary": "2025-06-30"},
    "  by service": {"unit_id": NATION, "level": "province", "by": "service_type"},
    "  by week": {"unit_id": NATION, "level": "province", "every": "week"},
    "  active teams": {"unit_id": NATION, "level": "province", "indicator": "teams.active"},
    "  members": {"unit_id": NATION, "level": "province", "indicator": "members.active"},
    "province by commune, members": {
        "unit_id": LAO_CAI,
        "level": "commune",
        "indicator": "members.active",
    },
    "a commune by kind of team": {"unit_id": BAO_THANG, "by": "kind"},
}
"""Twelve months each, if nothing else is said."""
PEOPLE: Final = ("households.reached", "households.reached_share", "beneficiaries.distinct")
PEOPLE_IN: Final[Mapping[str, Mapping[str, Any]]] = {
    "nation by province": {"unit_id": NATION, "level": "province"},
    "province by commune": {"unit_id": LAO_CAI, "level": "commune"},
    "commune by village": {"unit_id": BAO_THANG, "level": "village"},
}
"""Twelve months each: the commune's officer sees all, small counts are hidden from the reader."""


async def _superuser(url: str) -> asyncpg.Connection:
    connection = await asyncpg.connect(url)
    await connection.execute(
        "set statement_timeout = 0; set session_replication_role = replica; "
        "set maintenance_work_mem = '1GB'; set synchronous_commit = off"
    )
    return connection


async def fill(url: str, events: int) -> None:
    """Bring the country to a number of events, as its superuser, and count them in rolls.

    Its indexes are made when all events are there, which takes a third of the time.
    """
    connection, *others = [await _superuser(url) for _ in range(os.cpu_count() or 1)]
    if not await connection.fetchval("select to_regclass('bench_village')"):
        await connection.execute(VILLAGES)
    indexes = await connection.fetch(INDEXES)
    for index in indexes:
        await connection.execute(f"drop index {index['name']}")
    done = await connection.fetchval("select count(*) from support_event")
    chunks = iter(range(done + 1, events + 1, CHUNK))

    async def load_chunks(one: asyncpg.Connection) -> None:
        for first in chunks:
            await one.execute(EVENTS, first, min(first + CHUNK - 1, events))

    await asyncio.gather(*map(load_chunks, (connection, *others)))
    for index in indexes:
        await connection.execute(index["definition"])
    await connection.execute("vacuum analyze")
    async with connection.transaction(isolation="repeatable_read"):
        await connection.execute("set local work_mem = '256MB'")
        await connection.fetchval("select rebuild_event_rolls()")
    await connection.execute(
        "vacuum analyze event_roll, people_roll, household_reach, beneficiary_reach,"
        " standing, standing_roll, standing_note"
    )
    for one in (connection, *others):
        await one.close()


async def account(port: int, token: str, role: str, unit_id: Any) -> str:
    """Return a token of a new user with a role at a unit."""
    user = {"username": f"bench.{role}", "password": PASSWORD, "full_name": role}
    asked = load.request("POST", "/v1/users", json.dumps(user), token=token)
    _, made = await load.ask(port, asked, 201)
    grant = {"principal_id": made["id"], "role": role, "unit_id": str(unit_id)}
    await load.ask(
        port, load.request("POST", "/v1/role-grants", json.dumps(grant), token=token), 201
    )
    return await sign_in(port, user["username"], PASSWORD)


async def _measure(port: int, admin: str) -> dict[str, tuple[float, float]]:
    auditor = await account(port, admin, "auditor", NATION)
    province = await account(port, admin, "province_admin", LAO_CAI)
    commune = await account(port, province, "commune_admin", BAO_THANG)
    reader = await account(port, admin, "ioc_reader", NATION)
    asked = {
        f"totals: {name}": (f"/v1/observations?{urlencode({**MONTHS, **query})}", reader)
        for name, query in DASHBOARDS.items()
    }
    for (name, place), indicator in product(PEOPLE_IN.items(), PEOPLE):
        wanted = urlencode({**MONTHS, **place, "indicator": indicator})
        token = commune if place["unit_id"] == BAO_THANG else reader
        asked[f"{indicator}: {name}"] = (f"/v1/observations?{wanted}", token)
    newest = "/v1/support-events?limit=100"
    for name, token in {"nation": auditor, "province": province, "commune": commune}.items():
        asked[f"newest 100: {name}"] = (newest, token)
    asked["  a service"] = (f"{newest}&service_type=PS.ACCOUNT", auditor)
    asked["  with the total"] = (f"{newest}&include_total=true", auditor)
    asked["  a province, by the auditor"] = (f"{newest}&unit_id={LAO_CAI}", auditor)
    found = {}
    for name, (path, token) in asked.items():
        question = load.request("GET", path, token=token)
        await load.ask(port, question, 200)  # what makes up the units of a tree is kept
        done = await load.run(port, cycle([question]), 200, 1, SECONDS)
        times = [1000 * latency for latency in done.latencies]
        found[name] = median(times), quantiles(times, n=20, method="inclusive")[-1]
    return found


def main() -> None:
    """Load, measure and print, for one number of events after another."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scale", description=__doc__)
    parser.add_argument("--events", type=int, nargs="+", default=[1_000_000])
    sizes = parser.parse_args().events
    for size in sizes:
        with (
            tempfile.TemporaryDirectory(prefix="noidai-bench-") as folder,
            embedded.running(Path(folder)) as urls,
        ):
            began = perf_counter()
            asyncio.run(db.migrate(urls.owner))
            asyncio.run(fill(urls.owner.replace("noidai_owner", "postgres"), size))
            took = perf_counter() - began
            with served(folder) as (port, token):
                found = uvloop.run(_measure(port, token))
        sys.stdout.write(f"{size:,} events, loaded and rolled up in {took:.0f} s\n")
        sys.stdout.write(f"{'':<48}{'p50 ms':>9}{'p95 ms':>9}\n")
        for name, (half, most) in found.items():
            sys.stdout.write(f"{name:<48}{half:>9.1f}{most:>9.1f}\n")


if __name__ == "__main__":
    main()
