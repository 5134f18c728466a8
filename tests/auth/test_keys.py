"""The keys that sign access tokens: how they are replaced."""

import asyncio
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from jose import jwt
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api import clock
from api.app import create_app
from api.db import transaction
from api.settings import Settings
from tests.conftest import SECRET
from tests.factories import PASSWORD, As, Person


async def rotate(app: FastAPI) -> str:
    """Rotate as another process would: this worker is not told."""
    other = create_app(
        Settings(_env_file=None), str(app.state.engine.url.render_as_string(False)), SECRET
    )
    async with transaction(app.state.engine) as session:
        kid: str = await other.state.tokens.rotate(session)
    return kid


def kid_of(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


async def published(client: httpx.AsyncClient) -> list[str]:
    keys = (await client.get("/.well-known/jwks.json")).json()["keys"]
    assert all(key["alg"] == "ES256" and "d" not in key for key in keys)
    return [key["kid"] for key in keys]


async def sign_in(client: httpx.AsyncClient, person: Person) -> str:
    login = f"user.{person.principal_id}"
    response = await client.post("/v1/sessions", json={"username": login, "password": PASSWORD})
    return str(response.json()["access_token"])


async def test_a_worker_follows_within_seconds_and_the_old_key_still_verifies(
    app: FastAPI, client: httpx.AsyncClient, as_: As, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = await as_()
    (old,) = await published(client)
    new = await rotate(app)
    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now + timedelta(seconds=5))
    assert kid_of(await sign_in(client, person)) == new
    assert await published(client) == [old, new]
    assert (await person.get("/v1/me")).status_code == 200


async def test_an_unknown_key_is_looked_up(
    app: FastAPI, database: str, settings: Settings, client: httpx.AsyncClient, as_: As
) -> None:
    person = await as_()
    new = await rotate(app)
    other = create_app(settings, database, SECRET)
    async with other.router.lifespan_context(other):
        token, _ = other.state.tokens.issue(person.principal_id, "tests")
    assert kid_of(token) == new
    response = await client.get("/v1/me", headers={"Authorization": f"Bearer {token}"})
    assert response.status_code == 200


async def test_a_retired_key_verifies_nothing_once_its_last_token_has_expired(
    app: FastAPI, client: httpx.AsyncClient, as_: As, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = await as_()
    stolen = app.state.tokens._signer
    (old,) = await published(client)
    new = await rotate(app)
    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now + timedelta(minutes=12))
    assert await published(client) == [new]
    claims = jwt.get_unverified_claims(person.headers["authorization"].removeprefix("Bearer "))
    later = int(now.timestamp()) + 86_400
    header = {"kid": old, "typ": "at+jwt"}
    forged = jwt.encode(claims | {"exp": later}, stolen[1], "ES256", headers=header)
    response = await client.get("/v1/me", headers={"Authorization": f"Bearer {forged}"})
    assert response.status_code == 401


async def test_a_worker_that_hears_of_nothing_forgets_a_retired_key_too(
    app: FastAPI, client: httpx.AsyncClient, as_: As, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = await as_()
    claims = jwt.get_unverified_claims(person.headers["authorization"].removeprefix("Bearer "))
    kid, key = app.state.tokens._signer
    now = clock.now()
    later = int(now.timestamp()) + 86_400
    forged = jwt.encode(
        claims | {"exp": later}, key, "ES256", headers={"kid": kid, "typ": "at+jwt"}
    )
    bearer = {"Authorization": f"Bearer {forged}"}
    assert (await client.get("/v1/me", headers=bearer)).status_code == 200
    await rotate(app)
    monkeypatch.setattr(clock, "now", lambda: now + timedelta(minutes=12))
    assert (await client.get("/v1/me", headers=bearer)).status_code == 401


async def test_private_halves_are_sealed_and_forgotten(
    app: FastAPI, client: httpx.AsyncClient, superuser: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = await published(client)
    await rotate(app)
    async with superuser.connect() as connection:
        rows = text("select kid, private_pem from signing_key order by created_at")
        (old, emptied), (_, sealed) = list(await connection.execute(rows))
    assert (old, bytes(emptied)) == (first, b"")
    assert b"PRIVATE" not in bytes(sealed)
    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now + timedelta(hours=1))
    await rotate(app)
    async with superuser.connect() as connection:
        kept = list(await connection.scalars(text("select kid from signing_key")))
    assert len(kept) == 2
    assert first not in kept


async def test_workers_that_start_together_make_one_key(database: str, settings: Settings) -> None:
    apps = [create_app(settings, database, SECRET) for _ in range(5)]

    async def start(app: FastAPI) -> list[str]:
        async with app.router.lifespan_context(app):
            return [key["kid"] for key in app.state.tokens.jwks["keys"]]

    made = await asyncio.gather(*map(start, apps))
    assert len({tuple(kids) for kids in made}) == 1


async def test_the_command_rotates(
    app: FastAPI, client: httpx.AsyncClient, owner_url: str, tmp_path: Path
) -> None:
    (old,) = await published(client)
    environment = os.environ | {
        "NOIDAI_DATABASE_URL": owner_url,
        "NOIDAI_SECRET_KEY": SECRET,
        "NOIDAI_DATA_DIR": str(tmp_path),
    }
    command = [sys.executable, "-m", "api.cli", "keys", "rotate"]
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, check=True
    )
    async with transaction(app.state.engine) as session:
        await app.state.tokens.load_keys(session)
    kids = await published(client)
    assert kids[0] == old
    assert done.stdout.startswith(kids[1])
