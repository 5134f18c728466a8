"""`make bench`: the service's throughput and times beside a bare floor's, in interleaved rounds.

Both are real processes on one embedded PostgreSQL with the demo's data; this process is the load.
Only the ratios travel from one machine to another. It fails when an answer is wrong or a write is
missing, never because something is slow.
"""

import argparse
import asyncio
import secrets
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import asyncpg
import uvloop

from api import db, embedded
from api.auth.secrets import Secrets
from api.demo import load_demo
from tests.bench import floor, load
from tests.bench.operations import Operation, prepare
from tests.bench.serving import ENVIRONMENT, free_port, process

ROUNDS = 3
COUNT = "select count(*) from support_event"
HEADER = ("", "service/s", "median ms", "p95 ms", "floor/s", "median ms", "p95 ms", "ratio")


@contextmanager
def both(urls: embedded.Urls, folder: str) -> Iterator[tuple[int, int, str]]:
    """Fill the database and run the two servers; yield their ports and the superuser's URL."""
    superuser = urls.owner.replace("noidai_owner", "postgres")
    key = secrets.token_hex(32)
    asyncio.run(db.migrate(urls.owner))
    asyncio.run(load_demo(urls.app, Secrets(key), owner_url=urls.owner))
    for statement in (floor.TABLE, floor.FILLED, "vacuum analyze"):
        asyncio.run(_execute(superuser, statement))
    ours, bare = free_port(), free_port()
    serve = ("api.cli", "serve", "--port", str(ours))
    with (
        process(ours, *serve, **ENVIRONMENT, NOIDAI_DATA_DIR=folder, NOIDAI_SECRET_KEY=key),
        process(bare, "tests.bench.floor", superuser, str(bare)),
    ):
        yield ours, bare, superuser


async def _execute(url: str, statement: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def measure(
    ports: tuple[int, int], operations: list[Operation], seconds: float
) -> dict[str, list[list[load.Round]]]:
    """Return, for each operation, the service's rounds and the floor's."""
    found: dict[str, list[list[load.Round]]] = {each.name: [[], []] for each in operations}
    for number in range(ROUNDS):
        for operation in operations:
            sides = list(enumerate(ports))
            for side, port in sides if number % 2 else reversed(sides):
                requests = operation.floor if side else await operation.start(port)
                status = 200 if side else operation.status
                done = await load.run(port, requests, status, operation.connections, seconds)
                found[operation.name][side].append(done)
    return found


def row(operation: Operation, sides: list[list[load.Round]]) -> list[str]:
    """Return the figures of an operation: medians of the rounds, times over all of them."""
    rates = [[operation.size * len(r.latencies) / r.elapsed for r in side] for side in sides]
    figures = [operation.name]
    for side, rate in zip(sides, rates, strict=True):
        times = sorted(1000 * latency for r in side for latency in r.latencies)
        p95 = quantiles(times, n=20, method="inclusive")[-1] if len(times) > 1 else times[0]
        figures += [f"{median(rate):,.0f}", f"{median(times):.1f}", f"{p95:.1f}"]
    return [*figures, f"{median(a / b for a, b in zip(*rates, strict=True)):.2f}"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a round")
    seconds = parser.parse_args().seconds
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with (
        tempfile.TemporaryDirectory(prefix="noidai-bench-") as folder,
        embedded.running(Path(folder)) as urls,
        both(urls, folder) as (ours, bare, superuser),
    ):
        operations = uvloop.run(prepare(ours, superuser))
        before = uvloop.run(_execute(superuser, COUNT))
        found = uvloop.run(measure((ours, bare), operations, seconds))
        written = uvloop.run(_execute(superuser, COUNT)) - before
        writes = [(each.size, found[each.name][0]) for each in operations if each.writes]
        sent = sum(size * len(done.latencies) for size, rounds in writes for done in rounds)
        if written != sent:
            raise SystemExit(f"{sent} events were sent, but {written} written")
    table = [HEADER, *(row(operation, found[operation.name]) for operation in operations)]
    for name, *figures in table:
        sys.stdout.write(f"{name:<24}{''.join(f'{figure:>11}' for figure in figures)}\n")


if __name__ == "__main__":
    main()
