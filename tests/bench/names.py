"""`python -m tests.bench.names`: what a search costs among the real units and 100,000 villages.

Over HTTP, one request after another, on an embedded PostgreSQL. It prints figures and fails only
when an answer is wrong.
"""

import asyncio
import sys
import tempfile
from itertools import cycle
from pathlib import Path
from statistics import median, quantiles
from urllib.parse import urlencode

import asyncpg
import uvloop

from api import db, embedded, ids
from tests.bench import load
from tests.bench.serving import served
from tests.bench.villages import VILLAGES

SECONDS = 3.0
LAO_CAI = str(ids.official_unit_id("province", "15", "2025-07-01"))
ASKED: dict[str, list[str]] = {
    "exact": ["Xuân Thượng", "Bảo Yên", "Mường Khương", "Hoàn Kiếm", "xã Bảo Yên", "Phố Ràng"],
    "beginning": ["Muong Khu", "Lao Ca", "Xuan Th", "Ho Chi", "Nam Ph", "phuong hai ba"],
    "typos": ["Muong Khuog", "Xuan Thuog", "Bao Yn", "Sa Oa", "Lao Kai", "Thôn Nậm Phiêg"],
    "other kind": ["thi tran Bao Yen", "TP Lao Cai", "TP. Hồ Chí Minh", "thị trấn Sa Pa"],
    "nothing": ["xyzzy qwerty", "%", "a" * 200, "😀", "'", "Kwxq Zjf"],
    "short": ["t", "y", "1", "th", "na", "A"],
    "common": ["Tân", "thôn 1", "nam", "muong", "Tổ dân phố số 3", "phường"],
}


async def _fill(url: str) -> tuple[int, int]:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("set statement_timeout = 0")
        await connection.execute(VILLAGES)
        counts = "select count(*), (select count(*) from unit_name) from admin_unit"
        units, names = await connection.fetchrow(counts)
        await connection.execute("vacuum analyze")
        return units, names
    finally:
        await connection.close()


async def _measure(port: int, token: str, seconds: float) -> list[tuple[str, list[float]]]:
    found = []
    for kind, words in ASKED.items():
        for where in ({}, {"within": LAO_CAI}):
            paths = [f"/v1/admin-units?{urlencode({'q': word, **where})}" for word in words]
            asked = cycle([load.request("GET", path, token=token) for path in paths])
            done = await load.run(port, asked, 200, 1, seconds)
            found.append((f"{kind}{', within a province' if where else ''}", done.latencies))
    return found


def _print(found: list[tuple[str, list[float]]]) -> None:
    fewest = min(len(latencies) for _, latencies in found)
    mixed = [latency for _, latencies in found for latency in latencies[:fewest]]
    for name, latencies in [*found, ("all of them alike", mixed)]:
        times = [1000 * latency for latency in latencies]
        p95 = quantiles(times, n=20, method="inclusive")[-1]
        sys.stdout.write(f"{name:<34}{len(times):>7}{median(times):>9.1f}{p95:>9.1f}\n")


def main() -> None:
    """Measure and print."""
    with (
        tempfile.TemporaryDirectory(prefix="noidai-bench-") as folder,
        embedded.running(Path(folder)) as urls,
    ):
        asyncio.run(db.migrate(urls.owner))
        units, names = asyncio.run(_fill(urls.owner.replace("noidai_owner", "postgres")))
        with served(folder) as (port, token):
            found = uvloop.run(_measure(port, token, SECONDS))
    sys.stdout.write(f"{units:,} units, {names:,} different names\n")
    sys.stdout.write(f"{'':<34}{'asked':>7}{'p50 ms':>9}{'p95 ms':>9}\n")
    _print(found)


if __name__ == "__main__":
    main()
