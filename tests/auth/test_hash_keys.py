"""Identifiers of beneficiaries: kept as keyed hashes only, whose keys rotate by wrapping."""

import asyncio
import hashlib
import hmac
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr, ValidationError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api.app import create_app
from api.auth.secrets import Secrets
from api.models.role_grants import Role
from api.services.hash_keys import rehash
from api.settings import Settings
from tests.conftest import SECRET
from tests.factories import LAO_CAI, As, Person, Place, Province, make
from tests.rules import Row

KEYS = ["first key of thirty-two characters", "second key of thirty-two characters"]
IDENTIFIER = "010301112223"


async def record(leader: httpx.AsyncClient, place: Place, identifier: str) -> dict[str, Any]:
    event = place.event(beneficiary={"identifier": identifier}, channel="market")
    return await make(leader, "support-events", **event)


async def stored(superuser: AsyncEngine) -> list[tuple[bytes, int]]:
    statement = text("""
        select beneficiary_hash, beneficiary_key from support_event
        where beneficiary_hash is not null order by id
    """)
    async with superuser.connect() as connection:
        return [(bytes(row[0]), row[1]) for row in await connection.execute(statement)]


async def distinct(client: httpx.AsyncClient) -> int:
    params = {"indicator": "beneficiaries.distinct", "period": "2025", "unit_id": str(LAO_CAI)}
    (item,) = (await client.get("/v1/observations", params=params)).json()["items"]
    return int(item["value"])


@asynccontextmanager
async def worker(database: str, keys: list[str], person: Person) -> AsyncIterator[Person]:
    """Run another process of the service, with these keys, for somebody who is signed in."""
    given = SecretStr(json.dumps(keys))
    settings = Settings(_env_file=None, hash_keys=given, database_pool_size=5)
    app: FastAPI = create_app(settings, database, SECRET)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        Person(transport=transport, base_url="http://noidai.test") as client,
    ):
        client.headers["Authorization"] = person.headers["Authorization"]
        yield client


def test_a_hash_is_wrapped_once_for_each_key() -> None:
    plain = Secrets(SECRET).hash_beneficiary(IDENTIFIER)
    wrapped = plain
    for key in KEYS:
        wrapped = hmac.digest(key.encode(), wrapped, hashlib.sha256)
    secrets = Secrets(SECRET, KEYS)
    assert secrets.generation == 2
    assert secrets.hash_beneficiary(IDENTIFIER) == wrapped
    assert secrets.wrap([plain])[-1] == wrapped
    assert secrets.wrap(Secrets(SECRET, KEYS[:1]).hash_generations(IDENTIFIER), 1)[-1] == wrapped
    assert len(set(secrets.hash_generations(IDENTIFIER))) == 3
    assert Secrets(SECRET).generation == 0
    assert Secrets(SECRET).cursors == secrets.cursors  # nothing else moves


@pytest.mark.parametrize(
    ("given", "keys"),
    [
        (None, []),
        ("", []),
        (KEYS[0], KEYS[:1]),
        (f"{KEYS[0]}, {KEYS[1]}", KEYS),
        (json.dumps(KEYS), KEYS),
        ("too short", None),
        (f"{KEYS[0]},{KEYS[0]}", None),
        ("[1]", None),
        ("[", None),
    ],
)
def test_keys_come_from_the_settings(
    monkeypatch: pytest.MonkeyPatch, given: str | None, keys: list[str] | None
) -> None:
    if given is not None:
        monkeypatch.setenv("NOIDAI_HASH_KEYS", given)
    if keys is None:
        with pytest.raises(ValidationError, match="hash_keys"):
            Settings(_env_file=None)
        return
    settings = Settings(_env_file=None)
    assert settings.beneficiary_keys == keys
    assert KEYS[0] not in repr(settings)


async def test_rotating_keeps_distinct_people_while_others_write(
    as_: As, lao_cai: Province, database: str, superuser: AsyncEngine
) -> None:
    place = lao_cai.muong_khuong
    leader = await lao_cai.leader_of(place)
    reader = await as_(Role.province_admin, at=LAO_CAI)
    people = [f"person {number}" for number in range(12)]
    for person in people:
        await record(leader, place, person)
    assert await distinct(reader) == 12
    engine = lao_cai.country.app.state.engine
    async with worker(database, KEYS[:1], leader) as newer:

        async def write(client: httpx.AsyncClient) -> None:
            for person in people:
                await record(client, place, person)

        async with asyncio.TaskGroup() as group:
            group.create_task(write(leader))
            group.create_task(write(newer))
            runs = [group.create_task(rehash(engine, Secrets(SECRET, KEYS[:1]))) for _ in range(2)]
        assert sum(run.result() for run in runs) >= 12
        await rehash(engine, Secrets(SECRET, KEYS[:1]))  # what the old process wrote on
        assert await distinct(reader) == 12
        rows = await stored(superuser)
        expected = {Secrets(SECRET, KEYS[:1]).hash_beneficiary(person) for person in people}
        assert Counter(rows) == dict.fromkeys(((known, 1) for known in expected), 3)
        assert await rehash(engine, Secrets(SECRET, KEYS[:1])) == 0
    # Two generations at once, as after a rotation that nobody finished.
    await record(leader, place, "person 0")
    assert await rehash(engine, Secrets(SECRET, KEYS)) == 37
    assert await distinct(reader) == 12
    expected = {Secrets(SECRET, KEYS).hash_beneficiary(person) for person in people}
    assert {known for known, _ in await stored(superuser)} == expected


async def test_the_command_wraps_and_says_how_many(
    lao_cai: Province, owner_url: str, superuser: AsyncEngine
) -> None:
    place = lao_cai.muong_khuong
    leader = await lao_cai.leader_of(place)
    for person in ("one of them", "another one"):
        await record(leader, place, person)
    environment = os.environ | {
        "NOIDAI_DATABASE_URL": owner_url,
        "NOIDAI_SECRET_KEY": SECRET,
        "NOIDAI_HASH_KEYS": ",".join(KEYS),
    }
    for expected in (b"2 hashes wrapped", b"0 hashes wrapped"):
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "api.cli", "keys", "rehash"),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await program.communicate()
        assert (program.returncode, output.startswith(expected)) == (0, True), output
    assert [key for _, key in await stored(superuser)] == [2, 2]


async def test_an_event_keeps_its_person_whatever_the_generation(
    as_: As, lao_cai: Province, database: str, superuser: AsyncEngine
) -> None:
    place = lao_cai.muong_khuong
    leader = await lao_cai.leader_of(place)
    event = await record(leader, place, IDENTIFIER)
    officer = await as_(Role.dpo, at=LAO_CAI)
    person = {"identifier": IDENTIFIER}
    before = await make(officer, "data-subject-requests", person=person, kind="access")
    async with (
        worker(database, KEYS, leader) as client,
        worker(database, KEYS, officer) as dpo,
    ):
        row = Row(client, "support-events", event["id"])
        same = await row.patch(beneficiary={"identifier": IDENTIFIER})
        assert same.headers["ETag"] == '"1"'
        newest = await record(client, place, IDENTIFIER)
        assert [key for _, key in await stored(superuser)] == [0, 2]
        for request in (
            before,
            await make(dpo, "data-subject-requests", person=person, kind="erasure"),
        ):
            url = f"/v1/data-subject-requests/{request['id']}"
            held = (await dpo.get(f"{url}/export")).json()
            shown = {each["id"] for each in held["support_events"]}
            assert shown == {event["id"], newest["id"]}
        assert (await dpo.post(f"{url}:fulfil", json={})).status_code == 200
        ((one, _), (other, _)) = await stored(superuser)
        assert one == other
        other_person = await row.patch(beneficiary={"identifier": "somebody else"})
        assert other_person.headers["ETag"] != same.headers["ETag"]
        assert len(set(await stored(superuser))) == 2


async def test_an_identifier_is_in_no_address_log_or_problem(
    app: FastAPI, as_: As, lao_cai: Province, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    place = lao_cai.muong_khuong
    leader = await lao_cai.leader_of(place)
    officer = await as_(Role.dpo, at=LAO_CAI)
    for path in app.openapi()["paths"].values():
        for operation in path.values():
            names = {parameter["name"] for parameter in operation.get("parameters", ())}
            assert "identifier" not in names
    long = IDENTIFIER * 6
    answers = []
    for identifier in (IDENTIFIER, long, [IDENTIFIER], {"a": IDENTIFIER}, f"{IDENTIFIER}\x00"):
        who = {"identifier": identifier}
        item = {"op": "create", "data": place.event(beneficiary=who)}
        for client, path, body in (
            (leader, "support-events", place.event(beneficiary=who)),
            (leader, "support-events", place.event(beneficiary=who, quantity=0)),
            (leader, "batch", {"support_events": [item | {"id": str(place.team["id"])}]}),
            (officer, "data-subject-requests", {"person": who, "kind": "access"}),
            (officer, "data-subject-requests", {"person": who, "kind": "withdrawal"}),
            (officer, "data-subject-requests", {"person": who, "kind": IDENTIFIER[:3]}),
        ):
            response = await client.post(f"/v1/{path}", json=body)
            answers.append(response)
            assert response.status_code < 500
            assert IDENTIFIER not in response.text + str(response.headers)
    assert {answer.status_code for answer in answers} >= {201, 207, 422}
    refused = await officer.get("/v1/data-subject-requests", params={"identifier": IDENTIFIER})
    assert refused.status_code == 422
    assert IDENTIFIER not in refused.text
    ours = [record for record in caplog.records if not record.name.startswith("httpx")]
    assert IDENTIFIER not in "".join(record.getMessage() for record in ours)
