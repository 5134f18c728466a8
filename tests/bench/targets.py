"""`python -m tests.bench.targets --events 1000000`: a province reads all targets of its communes.

Twenty targets of many kinds for each of about a hundred communes, in a country with as many events
as are asked for; their progress in one answer, one request after another: the same again and again,
each after a write that alters it, and others of which nothing is known.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
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


@dataclass(frozen=True)
class _Writer:
    """Writes between the requests that are measured, on a connection of its own."""

    port: int
    token: str

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        connection = HTTPConnection("127.0.0.1", self.port)
        headers = {"Authorization": f"Bearer {self.token}", "If-Match": "*"}
        headers |= {"Content-Type": "application/json"} if body else {}
        connection.request(method, path, json.dumps(body) if body else None, headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
        connection.close()
        if response.status not in {200, 201}:
            raise SystemExit(f"{method} {path}: {response.status}, {answer}")
        return answer

    def events(self, teams: list[Any]) -> Iterator[None]:
        event = {"service_type": "ID.USE", "occurred_at": "2026-08-20T09:00:00+07:00"}
        event |= {"outcome": "completed", "mode": "assisted", "channel": "market"}
        for team in cycle(teams):
            self.ask("POST", "/v1/support-events", event | {"team_id": team["id"]})
            yield

    def teams(self, teams: list[Any]) -> Iterator[None]:
        for team in cycle(teams):
            new = {"unit_id": team["unit_id"], "kind": "core_squad", "founded_on": "2026-08-20"}
            self.ask("POST", "/v1/teams", new | {"name": "Đội"})
            yield

    def targets(self, targets: list[Any]) -> Iterator[None]:
        for value, target in enumerate(cycle(targets)):
            self.ask("PATCH", f"/v1/targets/{target['id']}", {"value": value})
            yield


async def _measure(port: int, admin: str) -> tuple[int, dict[str, list[float]]]:
    province = await account(port, admin, "province_admin", LAO_CAI)
    reader = await account(port, admin, "ioc_reader", NATION)
    portal = await account(port, admin, "portal_client", LAO_CAI)
    setter, writer = _Writer(port, province), _Writer(port, portal)
    inside = f"/v1/admin-units?level=commune&within={LAO_CAI}&limit=200"
    for body in _targets(setter.ask("GET", inside)["items"]):
        await load.ask(port, load.request("POST", "/v1/targets", body, token=province), 201)
    path = f"/v1/targets/progress?unit_id={LAO_CAI}&period=2026"
    asked = load.request("GET", path, token=reader)
    _, answer = await load.ask(port, asked, 200)
    teams = writer.ask("GET", f"/v1/teams?unit_id={LAO_CAI}&limit=100")["items"]
    targets = setter.ask("GET", f"/v1/targets?unit_id={LAO_CAI}&limit=100")["items"]
    others = (load.request("GET", f"{path}&limit={n}", token=reader) for n in range(2_000, 5_000))
    told = {}
    for how, requests in {
        "as long as nothing changes": cycle([asked]),
        "after each event": (asked for _ in writer.events(teams)),
        "after each founding of a team": (asked for _ in writer.teams(teams)),
        "after each change of a target": (asked for _ in setter.targets(targets)),
        "of which nothing is known": others,
    }.items():
        done = await load.run(port, requests, 200, 1, SECONDS)
        told[how] = [1000 * latency for latency in done.latencies]
    return len(answer["items"]), told


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
