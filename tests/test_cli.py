"""The commands, as an operator runs them: real processes, real PostgreSQL."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from api.ids import official_unit_id

ONE_LINE = "noidai: "


def environment(data: Path, **more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("NOIDAI_", "COV_"))}
    return kept | {"NOIDAI_DATA_DIR": str(data), "PYTHONWARNINGS": "error"} | more


def noidai(data: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    stdin = more.pop("stdin", "")
    return subprocess.run(
        [sys.executable, "-m", "api.cli", *arguments],
        env=environment(data, **more),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_one_line(result: subprocess.CompletedProcess[str], *parts: str) -> bool:
    """Tell whether a command failed with a single line that names what to do."""
    lines = result.stderr.strip().splitlines()
    assert result.returncode != 0, result
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith(ONE_LINE), lines
    return all(part in lines[0] for part in parts)


async def create_database(superuser: str, name: str) -> None:
    connection = await asyncpg.connect(superuser)
    try:
        await connection.execute(f"create database {name} owner noidai_owner")
    finally:
        await connection.close()


class Served:
    """A running `noidai serve`."""

    def __init__(self, data: Path, *arguments: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "api.cli", "serve", "--port", str(self.port), *arguments],
            env=environment(data),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait(self) -> float:
        """Wait until it is ready; return the seconds that took."""
        began = time.monotonic()
        while time.monotonic() - began < 60:
            try:
                if httpx.get(f"{self.url}/health/ready").status_code == 200:
                    return time.monotonic() - began
            except httpx.TransportError:
                pass
            assert self.process.poll() is None, "serve ended"
            time.sleep(0.1)
        pytest.fail("never ready")

    def stop(self, how: int = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(20)


type Serve = Callable[..., Served]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve a folder; whatever still runs at the end is stopped."""
    running: list[Served] = []

    def start(data: Path, *arguments: str) -> Served:
        running.append(Served(data, *arguments))
        running[-1].wait()
        return running[-1]

    yield start
    for served in running:
        served.stop()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("noidai")


@pytest.fixture(scope="module")
def demo(data: Path) -> Iterator[Served]:
    """A small demo, loaded by the command and served."""
    loaded = noidai(data, "demo", "--teams", "40", "--events", "300")
    assert loaded.returncode == 0, loaded.stderr
    assert "demo.team_leader" in loaded.stderr
    served = Served(data, "--demo")
    served.wait()
    yield served
    served.stop()


def sign_in(served: Served, username: str) -> httpx.Client:
    body = {"username": username, "password": "noidai-demo"}
    token = httpx.post(f"{served.url}/v1/sessions", json=body).json()["access_token"]
    return httpx.Client(base_url=served.url, headers={"Authorization": f"Bearer {token}"})


def test_a_stranger_records_an_event_and_sees_it_on_the_dashboard(demo: Served) -> None:
    query = {"indicator": "events.count", "period": "2026-03"}
    with (
        sign_in(demo, "demo.team_leader") as leader,
        sign_in(demo, "demo.commune_admin") as officer,
    ):
        before = officer.get("/v1/observations", params=query).json()["items"][0]["value"]
        (team,) = leader.get("/v1/teams").json()["items"]
        event = {
            "team_id": team["id"],
            "service_type": "ID.ACTIVATE",
            "occurred_at": "2026-03-26T09:30:00+07:00",
            "outcome": "completed",
            "mode": "assisted",
            "channel": "household_visit",
        }
        assert leader.post("/v1/support-events", json=event).status_code == 201
        after = officer.get("/v1/observations", params=query).json()["items"][0]["value"]
    assert after == before + 1


def test_the_doctor_holds_totals_against_a_recount_beside_a_running_service(
    demo: Served, data: Path
) -> None:
    assert demo.url
    for arguments in ((), ("--repair",)):
        found = noidai(data, "doctor", *arguments)
        assert found.returncode == 0, found.stderr
        held, *totals = found.stdout.splitlines()
        assert int(held.split()[0]) > 300
        assert totals[0] == "  events: 0 differ"


def test_a_second_serve_on_one_folder_is_refused_and_commands_attach(
    demo: Served, data: Path
) -> None:
    second = noidai(data, "serve", "--port", str(free_port()))
    assert is_one_line(second, "serve", "NOIDAI_DATA_DIR")
    assert noidai(data, "migrate").returncode == 0
    assert httpx.get(f"{demo.url}/health/ready").status_code == 200
    again = noidai(data, "demo")
    assert is_one_line(again, "not empty")
    known = noidai(
        data, "bootstrap", "--username", "admin", "--password-stdin", stdin="a long password\n"
    )
    assert is_one_line(known, "national_admin")


def test_a_reorganisation_is_applied_from_a_file(demo: Served, data: Path, tmp_path: Path) -> None:
    assert demo.port
    commune = str(official_unit_id("commune", "00070", "2025-07-01"))
    paper = {"number": "1/NQ", "issued_on": "2026-01-15", "issuer": "UBTVQH"}
    change = {"kind": "rename", "unit_id": commune, "name": "Phường Đổi Tên"}
    body = {"effective_on": "2026-03-01", "document": paper, "changes": [change]}
    file = tmp_path / "reorganisation.json"
    file.write_text(json.dumps(body))
    told = noidai(data, "reorganise", str(file), "--dry-run")
    assert json.loads(told.stdout)["conflicts"] == [], told.stderr
    done = noidai(data, "reorganise", str(file))
    assert json.loads(done.stdout)["version"] == 1, done.stderr
    assert is_one_line(noidai(data, "reorganise", str(file)), "/document", "already")
    file.write_text(json.dumps(body | {"changes": []}))
    assert is_one_line(noidai(data, "reorganise", str(file)), "/changes")
    assert is_one_line(noidai(data, "reorganise", str(tmp_path / "none")), "cannot be read")


def test_a_port_in_use_is_said_in_one_line(demo: Served, tmp_path: Path) -> None:
    assert is_one_line(noidai(tmp_path, "serve", "--port", str(demo.port)), "--port")


def test_what_was_committed_survives_a_killed_server(serve: Serve, tmp_path: Path) -> None:
    first = serve(tmp_path)
    made = noidai(
        tmp_path, "bootstrap", "--username", "admin", "--password-stdin", stdin="a long password\n"
    )
    assert made.returncode == 0, made.stderr
    first.stop(signal.SIGKILL)
    second = serve(tmp_path)
    body = {"username": "admin", "password": "a long password"}
    token = httpx.post(f"{second.url}/v1/sessions", json=body).json()["access_token"]
    me = httpx.get(f"{second.url}/v1/me", headers={"Authorization": f"Bearer {token}"}).json()
    assert me["grants"][0]["role"] == "national_admin"
    assert me["grants"][0]["unit_id"] == str(official_unit_id("nation", "VN"))
    second.stop()
    again = noidai(
        tmp_path, "bootstrap", "--username", "other", "--password-stdin", stdin="a long password\n"
    )
    assert again.returncode == 1


def test_two_workers_serve_the_same_keys(serve: Serve, tmp_path: Path) -> None:
    served = serve(tmp_path, "--workers", "2")
    keys = {httpx.get(f"{served.url}/.well-known/jwks.json").text for _ in range(20)}
    assert len(keys) == 1


def test_an_ended_grant_is_refused_by_both_workers_within_five_seconds(
    serve: Serve, tmp_path: Path
) -> None:
    secret = "mot mat khau rat dai"
    first = ("bootstrap", "--username", "first", "--password-stdin")
    assert noidai(tmp_path, *first, stdin=f"{secret}\n").returncode == 0
    served = serve(tmp_path, "--workers", "2")

    def enter(username: str) -> dict[str, str]:
        body = {"username": username, "password": secret}
        token = httpx.post(f"{served.url}/v1/sessions", json=body).json()["access_token"]
        return {"Authorization": f"Bearer {token}"}

    def asked_of_both(token: dict[str, str]) -> set[int]:
        """Return what 20 new connections are answered: both workers have had some of them."""
        return {httpx.get(f"{served.url}/v1/teams", headers=token).status_code for _ in range(20)}

    with httpx.Client(base_url=served.url, headers=enter("first")) as admin:
        body = {"username": "second", "password": secret, "full_name": "Người thứ hai"}
        person = admin.post("/v1/users", json=body).json()["id"]
        token = enter("second")
        assert asked_of_both(token) == {403}
        province = str(official_unit_id("province", "15", "2025-07-01"))
        role = {"principal_id": person, "role": "province_admin", "unit_id": province}
        given = admin.post("/v1/role-grants", json=role)
        assert asked_of_both(token) == {200}
        began = time.monotonic()
        ended = admin.delete(f"/v1/role-grants/{given.json()['id']}", headers={"If-Match": '"1"'})
        assert ended.status_code == 204
        while asked_of_both(token) != {403}:
            assert time.monotonic() - began < 5


def test_faults_of_the_surroundings_are_said_in_one_line(tmp_path: Path) -> None:
    nowhere = f"postgresql://noidai@127.0.0.1:{free_port()}/noidai"
    secret = "x" * 40
    away = noidai(
        tmp_path, "serve", NOIDAI_DATABASE_URL=nowhere, NOIDAI_SECRET_KEY=secret, NOIDAI_PORT="0"
    )
    assert is_one_line(away, "NOIDAI_PORT")
    port = {"NOIDAI_PORT": str(free_port())}
    away = noidai(tmp_path, "serve", NOIDAI_DATABASE_URL=nowhere, NOIDAI_SECRET_KEY=secret, **port)
    assert is_one_line(away, "NOIDAI_DATABASE_URL")
    bare = noidai(tmp_path, "serve", NOIDAI_DATABASE_URL=nowhere, **port)
    assert is_one_line(bare, "NOIDAI_SECRET_KEY")
    short = noidai(tmp_path, "serve", NOIDAI_SECRET_KEY="short", **port)
    assert is_one_line(short, "NOIDAI_SECRET_KEY")
    broken = tmp_path / "broken"
    (broken / "postgres").mkdir(parents=True)
    (broken / "postgres" / "PG_VERSION").write_text("18\n")
    assert is_one_line(noidai(broken, "serve", **port), str(broken))
    demo = noidai(tmp_path, "demo", NOIDAI_DATABASE_URL=nowhere)
    assert is_one_line(demo, "NOIDAI_DATABASE_URL")


def test_a_configured_database_is_migrated_first(server: str, tmp_path: Path) -> None:
    name = f"configured_{os.getpid()}"
    asyncio.run(create_database(server, name))
    url = server.replace("postgres@/postgres", f"noidai_owner@/{name}")
    settings = {
        "NOIDAI_DATABASE_URL": url,
        "NOIDAI_SECRET_KEY": "x" * 40,
        "NOIDAI_PORT": str(free_port()),
    }
    early = noidai(tmp_path, "serve", **settings)
    assert is_one_line(early, "noidai migrate")
    plan = noidai(tmp_path, "migrate", "--plan", **settings)
    assert plan.stdout.startswith("0001 ")
    assert noidai(tmp_path, "migrate", **settings).returncode == 0
    assert noidai(tmp_path, "migrate", "--plan", **settings).stdout == ""
    apart = settings | {
        "NOIDAI_DATABASE_URL": url.replace("noidai_owner@", "noidai_app@"),
        "NOIDAI_DATABASE_OWNER_URL": url,
    }
    admin = ("bootstrap", "--username", "admin", "--password-stdin")
    common = noidai(tmp_path, *admin, stdin="password1\n", **apart)
    assert is_one_line(common, "Too easily guessed")
    made = noidai(tmp_path, *admin, stdin="a long password\n", **apart)
    assert made.returncode == 0, made.stderr


def test_every_command_helps_itself(tmp_path: Path) -> None:
    for command in ("serve", "migrate", "bootstrap", "demo", "openapi"):
        assert noidai(tmp_path, command, "--help").returncode == 0
    document = noidai(tmp_path, "openapi")
    assert json.loads(document.stdout)["openapi"].startswith("3.1")
