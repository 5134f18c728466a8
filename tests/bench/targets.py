"""`python -m tests.bench.targets --events 1000000`: a province reads all targets of its communes.

Twenty targets of many kinds for each of about a hundred communes, in a country with as many events
as are asked for; their progress in one answer, one request after another: the same again and again,
and others that have to be counted.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

import uvloop

from api import db, embedded
from tests.bench import load
from tests.bench.scale import LAO_CAI, NATION, account, fill
from tests.bench.serving import served

SECONDS: Final = 10.0
SERVICES: Final = ("ID.ACTIVATE", "ID.USE", "PS.ACCOUNT")
AIMS: Final[tuple[dict[str, Any], ...]] = (
    {"indicator": "events.count"},
    {"indicator": "events.count", "period": "2026-Q1"},
    {"indicator": "events.count", "period": "2026-Q2"},
    {"indicator": "events.count", "channel": "market"},
    {"indicator": "events.verified_share"},
    {"indicator": "events.completed_share"},
    *({"indicator": "events.quantity", "service_types": [code]} for code in SERVICES),
    *(
        {"indicator": "events.quantity_verified", "service_types": [code], "period": "2026-Q3"}
        for code in SERVICES
    ),
    {"indicator": "events.quantity", "service_types": ["ID.USE"], "measure": "cumulative"},
    {"indicator": "events.count", "measure": "growth", "baseline_period": "2025"},
    {"indicator": "teams.active"},
    {"indicator": "teams.founded"},
    {"indicator": "teams.zalo_share"},
    {"indicator": "villages.coverage"},
    {"indicator": "members.active"},
    {"indicator": "teams.active", "team_kind": "core_squad"},
)
"""What each commune is to reach; in 2026, if nothing else is said."""


def _targets(communes: list[dict[str, Any]]) -> Iterator[str]:
    for commune in communes:
        for aim in AIMS:
            target = {"unit_id": commune["id"], "period": "2026", "value": 100} | aim
            yield json.dumps(target)


async def _measure(port: int, admin: str) -> tuple[int, dict[str, list[float]]]:
    province = await account(port, admin, "province_admin", LAO_CAI)
    reader = await account(port, admin, "ioc_reader", NATION)
    inside = f"/v1/admin-units?level=commune&within={LAO_CAI}&limit=200"
    _, units = await load.ask(port, load.request("GET", inside, token=province), 200)
    for body in _targets(units["items"]):
        await load.ask(port, load.request("POST", "/v1/targets", body, token=province), 201)
    path = f"/v1/targets/progress?unit_id={LAO_CAI}&period=2026"
    asked = load.request("GET", path, token=reader)
    _, answer = await load.ask(port, asked, 200)
    same = await load.run(port, cycle([asked]), 200, 1, SECONDS)
    others = (load.request("GET", f"{path}&limit={n}", token=reader) for n in range(2_000, 5_000))
    anew = await load.run(port, others, 200, 1, SECONDS)
    return len(answer["items"]), {
        "as long as nothing changes": [1000 * latency for latency in same.latencies],
        "counted anew": [1000 * latency for latency in anew.latencies],
    }


def main() -> None:
    """Load, set the targets, measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.targets", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    size = parser.parse_args().events
    with (
        tempfile.TemporaryDirectory(prefix="noidai-bench-") as folder,
        embedded.running(Path(folder)) as urls,
    ):
        asyncio.run(db.migrate(urls.owner))
        asyncio.run(fill(urls.owner.replace("noidai_owner", "postgres"), size))
        with served(folder) as (port, token):
            targets, told = uvloop.run(_measure(port, token))
    for how, times in told.items():
        most = quantiles(times, n=20, method="inclusive")[-1]
        sys.stdout.write(
            f"{size:,} events, {targets:,} targets, {how}: p50 {median(times):.1f} ms,"
            f" p95 {most:.1f} ms ({len(times)} answers)\n"
        )


if __name__ == "__main__":
    main()
