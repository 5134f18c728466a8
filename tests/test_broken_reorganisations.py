"""`noidai reorganise`, killed while its transaction is open: nothing of it stays."""

import asyncio
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tests.conftest import SECRET
from tests.factories import BAO_THANG, MUONG_KHUONG, Province, make
from tests.test_cli import environment, is_one_line
from tests.timeline import checksum_of_tree
from tests.waiting import until

WRITTEN = ("unit_succession", "placement", "reorganisation")
"""What a merger writes after the states of units, in this order."""
MERGER = {
    "effective_on": "2026-03-01",
    "document": {"number": "1/NQ", "issued_on": "2026-01-15", "issuer": "Quốc hội"},
    "changes": [
        {
            "kind": "merge",
            "from_ids": [str(MUONG_KHUONG), str(BAO_THANG)],
            "to": {"level": "commune", "name": "Xã Chung", "type": "xã", "code": "99999"},
        }
    ],
}
_STUCK = text("""
    select l.pid from pg_locks l join pg_stat_activity a using (pid)
    where not l.granted and a.datname = current_database()
""")
_GONE = text("select not exists (select from pg_stat_activity where pid = :pid)")


def reorganise(database: str, data: Path) -> subprocess.Popen[str]:
    """Start the command, as an operator would, on the test's database."""
    file = data / "merger.json"
    file.write_text(json.dumps(MERGER))
    more = {"NOIDAI_DATABASE_URL": database, "NOIDAI_SECRET_KEY": SECRET}
    return subprocess.Popen(
        [sys.executable, "-m", "api.cli", "reorganise", str(file)],
        env=environment(data, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def ended(command: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    out, err = await asyncio.to_thread(command.communicate, timeout=60)
    return subprocess.CompletedProcess(command.args, command.returncode, out, err)


async def stuck(connection: AsyncConnection, command: subprocess.Popen[str]) -> int:
    """Wait until the command waits for a lock; return its backend."""
    async with asyncio.timeout(60):
        while True:
            pid: int | None = await connection.scalar(_STUCK)
            if pid is not None:
                return pid
            assert command.poll() is None, command.communicate()
            await asyncio.sleep(0.01)


async def is_gone(connection: AsyncConnection, backend: int) -> bool:
    return bool(await connection.scalar(_GONE, {"pid": backend}))


async def test_killed_at_any_of_its_writes_it_leaves_nothing_and_can_be_repeated(
    database: str, superuser: AsyncEngine, lao_cai: Province, tmp_path: Path
) -> None:
    before = await checksum_of_tree(superuser)
    team = f"/v1/teams/{lao_cai.bao_thang.team['id']}"
    for table in WRITTEN:
        async with superuser.connect() as watching, superuser.connect() as holding:
            await holding.execute(text("begin"))
            await holding.execute(text(f"lock table {table} in share mode"))
            command = reorganise(database, tmp_path)
            backend = await stuck(watching, command)
            command.kill()
            assert (await ended(command)).returncode == -9
            await holding.execute(text("rollback"))
            await until(partial(is_gone, watching, backend))  # the server noticed
        assert await checksum_of_tree(superuser) == before, table
        assert (await lao_cai.muong_khuong.admin.get(team)).status_code == 404
    village = await make(  # nobody waits for a lock that was left behind
        lao_cai.bao_thang.admin, "admin-units", level="village", name="Thôn Mới", type="thôn",
        parent_id=str(BAO_THANG), valid_from="2025-07-01",
    )  # fmt: skip
    done = await ended(reorganise(database, tmp_path))
    assert done.returncode == 0, done.stderr
    (new,) = json.loads(done.stdout)["unit_ids"]
    moved = await lao_cai.muong_khuong.admin.get(f"/v1/admin-units/{village['id']}")
    assert moved.json()["parent_id"] == new
    after = await checksum_of_tree(superuser)
    assert after != before
    again = await ended(reorganise(database, tmp_path))
    assert is_one_line(again, "/document", json.loads(done.stdout)["id"])
    assert await checksum_of_tree(superuser) == after
