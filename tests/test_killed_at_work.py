"""Kills in the middle of writing and folding: what was answered is there, once, and adds up."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from api import ids
from tests.test_cli import Serve, Served, noidai, serve, sign_in

__all__ = ["serve"]
WRITERS, SIZE = 4, 40
EVENT = {
    "service_type": "ID.ACTIVATE",
    "occurred_at": "2026-03-26T09:30:00+07:00",
    "outcome": "completed",
    "mode": "assisted",
    "channel": "household_visit",
}
QUERY = {"indicator": "events.count", "period": "2026-03"}

type Batch = dict[str, Any]


def batch_of(team_id: str) -> Batch:
    data = EVENT | {"team_id": team_id}
    items = [{"op": "create", "id": str(ids.new_id()), "data": data} for _ in range(SIZE)]
    return {"support_events": items}


def send(leader: httpx.Client, batch: Batch) -> bool:
    """Send a batch; return whether it was answered: 503 means that the database is away."""
    response = leader.post("/v1/batch", json=batch)
    if response.status_code == 503:
        return False
    assert response.status_code == 207, response.text
    outcomes = {result["outcome"] for result in response.json()["results"]}
    assert outcomes in ({"created"}, {"unchanged"})  # a batch is there as a whole, or not at all
    return True


def write_until_killed(leader: httpx.Client, team_id: str, sent: list[Batch]) -> None:
    """Send batches; of the last one nobody knows whether it was written."""
    try:
        while True:
            sent.append(batch_of(team_id))
            if not send(leader, sent[-1]):
                return
    except httpx.TransportError:
        return


def counted(served: Served) -> int:
    with sign_in(served, "demo.commune_admin") as officer:
        (item,) = officer.get("/v1/observations", params=QUERY).json()["items"]
        return int(item["value"])


def test_nothing_is_lost_or_counted_twice_whoever_is_killed(serve: Serve, tmp_path: Path) -> None:
    assert noidai(tmp_path, "demo", "--teams", "10", "--events", "50").returncode == 0
    database = tmp_path / "postgres" / "postmaster.pid"
    sent: list[Batch] = []
    served = serve(tmp_path)
    before = counted(served)
    with sign_in(served, "demo.team_leader") as leader, ThreadPoolExecutor(WRITERS) as pool:
        (team,) = leader.get("/v1/teams").json()["items"]
        writers = [
            pool.submit(write_until_killed, leader, team["id"], sent) for _ in range(WRITERS)
        ]
        time.sleep(2.5)  # the worker folds once a second
        os.kill(int(database.read_text().split()[0]), signal.SIGKILL)
        served.stop(signal.SIGKILL)
        for writer in writers:
            writer.result()
    served = serve(tmp_path)
    with sign_in(served, "demo.team_leader") as leader:
        for each in sent:
            assert send(leader, each)
    assert counted(served) == before + len(sent) * SIZE
    assert noidai(tmp_path, "doctor").returncode == 0
