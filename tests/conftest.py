"""What every test stands on: real PostgreSQL, built by the migrations, a fresh copy for each.

Every test commits for real in a database of its own: a copy of one migrated template takes 0.1 s,
and no more with Lào Cai's two places in it, which were made over HTTP once.
People are named by role and place: `await as_(Role.commune_admin, at=lao_cai.muong_khuong)`.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from filelock import FileLock
from hypothesis import settings as examples
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from api import db, embedded, worker
from api.app import create_app
from api.services import event_sources
from api.settings import Settings
from tests.factories import As, Country, Province

# The same examples on every machine, so that a change is judged by itself alone; new ones are
# looked for with `make test ARGS=--hypothesis-profile=explore`.
examples.register_profile("explore")
examples.register_profile("steady", derandomize=True)
examples.load_profile("steady")

SECRET = "a secret of the tests, long enough for everyone"
TEMPLATE = "template_of_tests"
LET_GO = text("drop function if exists refuse_reopening cascade")
"""For tests that empty the whole country: closed periods would stay as they are."""
LAO_CAI, MADE = "template_of_lao_cai", "lao_cai.json"
FAST = {"fsync": "off", "full_page_writes": "off", "max_connections": "200"}


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[str]:
    """One PostgreSQL for all workers, with a migrated template; yields its superuser's URL."""
    shared = _shared(tmp_path_factory, worker_id)
    with embedded.running(shared / "postgres", extra=FAST) as urls:
        superuser = urls.owner.replace("noidai_owner@/noidai", "postgres@/postgres")
        with FileLock(shared / "template.lock"):
            if not (shared / MADE).exists():
                (shared / MADE).write_text(
                    asyncio.run(_make_templates(superuser, urls.owner, shared))
                )
        yield superuser


def _shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Return the folder that all workers of a run have in common."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


async def _make_templates(superuser: str, owner: str, folder: Path) -> str:
    """Make both templates; return what Lào Cai consists of, as text."""
    async with _connection(superuser) as engine, engine.connect() as connection:
        await connection.execute(text(f"create database {TEMPLATE} owner noidai_owner"))
        await db.migrate(owner.replace("/noidai?", f"/{TEMPLATE}?"))
        await connection.execute(text(f"create database {LAO_CAI} template {TEMPLATE}"))
        url = superuser.replace("postgres@/postgres", f"noidai_app@/{LAO_CAI}")
        service = create_app(_settings(folder), url, SECRET)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(worker, "CHORES", ())
            async with (
                service.router.lifespan_context(service),
                _connection(url.replace("noidai_app@", "postgres@")) as behind,
            ):
                province = await Province.found(await Country.found(service, behind))
        return province.written()


@asynccontextmanager
async def _connection(url: str) -> AsyncIterator[AsyncEngine]:
    url = url.replace("postgresql://", "postgresql+asyncpg://")
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    try:
        yield engine
    finally:
        await engine.dispose()


@pytest.fixture
async def database(server: str, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """A database of the test's own; yields the service's URL (as `noidai_app`)."""
    name = f"t{uuid4().hex}"
    template = LAO_CAI if "lao_cai" in request.fixturenames else TEMPLATE
    async with _connection(server) as engine, engine.connect() as connection:
        await connection.execute(
            text(f"create database {name} template {template} strategy file_copy")
        )
        yield server.replace("postgres@/postgres", f"noidai_app@/{name}")
        await connection.execute(text(f"drop database {name} with (force)"))


@pytest.fixture
def owner_url(database: str) -> str:
    """The same database as its owner, who migrates."""
    return database.replace("noidai_app@", "noidai_owner@")


@pytest.fixture
async def superuser(database: str) -> AsyncIterator[AsyncEngine]:
    """The same database without any policy: to look behind the service."""
    async with _connection(database.replace("noidai_app@", "postgres@")) as engine:
        yield engine


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings without any file or variable of the machine's own."""
    return _settings(tmp_path)


def _settings(folder: Path) -> Settings:
    return Settings(
        _env_file=None, data_dir=folder, database_pool_size=20, rate_limit="1000000/minute"
    )


@pytest.fixture(autouse=True)
def _no_chores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is done in the background, but where a test does it; real processes do all."""
    monkeypatch.setattr(worker, "CHORES", ())


@pytest.fixture(autouse=True)
def _one_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what makes up units: the last test's database had the same tree, but other events."""
    monkeypatch.setattr(event_sources, "_KNOWN", {})
    monkeypatch.setattr(event_sources, "_APART", {})


@cache
def _document() -> dict[str, Any]:
    """Return the public document, which is the same of every service and takes a second."""
    return create_app(Settings(_env_file=None), "postgresql://nowhere/none", SECRET).openapi()


@pytest.fixture
async def app(database: str, settings: Settings) -> AsyncIterator[FastAPI]:
    """The service on the test's database."""
    service = create_app(settings, database, SECRET)
    service.openapi_schema = _document()
    async with service.router.lifespan_context(service):
        yield service


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody who is not signed in."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://noidai.test") as anonymous:
        yield anonymous


@pytest.fixture
async def country(app: FastAPI, superuser: AsyncEngine) -> Country:
    """The whole country, with a national administrator who can make the rest."""
    return await Country.found(app, superuser)


@pytest.fixture
async def as_(country: Country) -> As:
    """Sign somebody in: `await as_(Role.commune_admin, at=unit_id)`."""
    return country.sign_in


@pytest.fixture
def lao_cai(country: Country, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Province:
    """Lào Cai with two communes, a village and a team in each."""
    written = _shared(tmp_path_factory, worker_id) / MADE
    return Province.read(country, written.read_text())
