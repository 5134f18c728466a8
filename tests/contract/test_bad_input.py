"""What cannot be meant is refused: never a fault of ours, never half written.

The cases come from the OpenAPI document, so that a new operation is covered when it appears.
"""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from posixpath import normpath
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api.app import create_app
from api.models.role_grants import Role
from api.problems import catalogue
from api.settings import Settings
from tests.factories import MUONG_KHUONG, NATION, Province, make

ANY_VERSION = {"If-Match": "*"}
JSON = {"Content-Type": "application/json", **ANY_VERSION}
RFC_6749 = "/oauth/token"
"""The one operation that refuses in the words of another standard."""


@dataclass(frozen=True)
class Operation:
    """One operation of the document, with a path that leads to an existing row."""

    method: str
    template: str
    path: str
    fields: dict[str, Any] | None
    parameters: dict[str, Any]
    needs_body: bool = True

    @property
    def name(self) -> str:
        return f"{self.method} {self.template}"


@dataclass
class World:
    """A caller whom every operation lets in, and what it may act on."""

    client: httpx.AsyncClient
    operations: list[Operation]
    document: dict[str, Any]

    @property
    def writing(self) -> list[Operation]:
        return [op for op in self.operations if op.fields is not None and op.path != RFC_6749]

    @property
    def filtered(self) -> list[Operation]:
        return [op for op in self.operations if op.parameters]

    def resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return a schema without its reference and without its null."""
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            return self.resolved(self.document["components"]["schemas"][name])
        for option in schema.get("anyOf", ()):
            if option != {"type": "null"}:
                return self.resolved(option)
        return schema


def _operations(document: dict[str, Any], ids: dict[str, str]) -> Iterator[Operation]:
    schemas = document["components"]["schemas"]
    for template, item in document["paths"].items():
        for method, operation in item.items():
            path = template
            for name, value in ids.items():
                path = path.replace(f"{{{name}}}", value)
            fields = None
            for content in operation.get("requestBody", {}).get("content", {}).values():
                fields = schemas[content["schema"]["$ref"].rpartition("/")[2]]["properties"]
            parameters = {
                parameter["name"]: parameter["schema"]
                for parameter in operation.get("parameters", ())
                if parameter["in"] == "query"
            }
            needs_body = operation.get("requestBody", {}).get("required", False)
            yield Operation(method.upper(), template, path, fields, parameters, needs_body)


@pytest.fixture
async def world(app: FastAPI, lao_cai: Province) -> World:
    """One person with many roles, and an id for each path."""
    country, place = lao_cai.country, lao_cai.muong_khuong
    client = await country.sign_in(Role.national_admin, at=NATION, member=UUID(place.leader["id"]))
    person = client.principal_id
    await country.grant(person, Role.province_admin, lao_cai.unit_id)
    await country.grant(person, Role.commune_admin, MUONG_KHUONG)
    await country.grant(person, Role.portal_client, lao_cai.unit_id)
    await country.grant(person, Role.dpo, lao_cai.unit_id)
    village = UUID(place.village["id"])
    await country.grant(person, Role.team_leader, village, UUID(place.team["id"]))
    event = await make(client, "support-events", **place.event())
    await country.grant(person, Role.auditor, lao_cai.unit_id)
    grants = (await client.get("/v1/role-grants")).json()["items"]
    services = (await client.get("/v1/service-types")).json()["items"]
    await country.grant(person, Role.youth_coordinator, lao_cai.unit_id)
    days = {"starts_on": "2025-08-01", "ends_on": "2025-08-31"}
    campaign = await make(client, "campaigns", name="Đợt", unit_id=place.village["id"], **days)
    held: dict[str, Any] = {"kind": "training", "title": "Lớp", "organiser": "team"}
    held |= {"host_unit_id": place.village["id"], "held_on": "2025-08-05"}
    activity = await make(client, "activities", **held)
    commended = {"recipient_kind": "collective", "recipient_name": "Tổ"}
    commendation = await make(client, "commendations", **commended, unit_id=place.village["id"])
    device = await make(client, "devices", member_id=place.leader["id"])
    indicators = (await client.get("/v1/indicators")).json()["items"]
    glass = {"unit_id": str(MUONG_KHUONG), "reason": "Xác minh"}
    reorganised = {
        "effective_on": "2026-03-01",
        "document": {"number": "1/NQ", "issued_on": "2026-01-01", "issuer": "HĐND"},
        "changes": [{"kind": "rename", "unit_id": str(MUONG_KHUONG), "name": "Xã Đổi Tên"}],
    }
    closing = {"unit_id": str(MUONG_KHUONG), "period": "2025-09"}
    subject = {"person": {"member_id": place.leader["id"]}, "kind": "access"}
    entries = (await client.get("/v1/audit-entries")).json()["items"]
    declared = {"indicator": "households.total", "unit_id": place.village["id"], "value": 1}
    declared |= {"as_of": "2025-08-01", "attribution": "government"}
    aim = {"indicator": "events.count", "unit_id": str(MUONG_KHUONG), "period": "2025"}
    ids = {
        "break_glass_id": (await make(client, "break-glass", **glass))["id"],
        "closed_period_id": (await make(client, "closed-periods", **closing))["id"],
        "data_subject_request_id": (await make(client, "data-subject-requests", **subject))["id"],
        "reorganisation_id": (await make(client, "reorganisations", **reorganised))["id"],
        "unit_id": place.village["id"],
        "target_id": (await make(client, "targets", **aim, value=9))["id"],
        "team_id": place.team["id"],
        "activity_id": activity["id"],
        "campaign_id": campaign["id"],
        "commendation_id": commendation["id"],
        "member_id": place.leader["id"],
        "household_id": place.household["id"],
        "statistic_id": (await make(client, "statistics", **declared))["id"],
        "support_event_id": event["id"],
        "device_id": device["id"],
        "entry_id": entries[0]["id"],
        "grant_id": grants[0]["id"],
        "identity_id": str(person),
        "service_type_id": services[0]["id"],
        "indicator_id": indicators[0]["id"],
        "client_id": str(person),
        "system": "portal",
        "external_id": "1",
    }
    document = app.openapi()
    return World(client, list(_operations(document, ids)), document)


def is_problem(response: httpx.Response) -> dict[str, Any]:
    """Check that an answer is a refusal, and return it."""
    request = response.request
    sent = request.content if isinstance(request.stream, httpx.ByteStream) else b""
    where = f"{request.method} {str(request.url)[:200]} {sent[:300]!r}"
    assert 400 <= response.status_code < 500, (where, response.status_code, response.text[:300])
    assert response.headers["content-type"] == "application/problem+json", where
    problem: dict[str, Any] = response.json()
    assert problem["status"] == response.status_code
    assert problem["code"] in catalogue(), where
    assert problem["type"] == f"/problems/{problem['code']}"
    assert problem["request_id"] == response.headers["x-request-id"]
    for error in problem["errors"]:
        assert error["code"] in catalogue()["field"], (where, error)
        assert "…" not in error["message"], (where, error)
    return problem


async def _written(superuser: AsyncEngine) -> dict[str, tuple[int, int]]:
    """Return how many rows each table has, and which transaction last made or changed one."""
    tables = "select tablename from pg_tables where schemaname = 'public'"
    async with superuser.connect() as connection:
        names = sorted(await connection.scalars(text(tables)))
        states = " union all ".join(
            f"select '{name}', count(*), max(xmin::text::bigint) from {name}" for name in names
        )
        return {name: (rows, last) for name, rows, last in await connection.execute(text(states))}


@asynccontextmanager
async def nothing_written(superuser: AsyncEngine) -> AsyncIterator[None]:
    """Fail when anything at all is written meanwhile."""
    before = await _written(superuser)
    yield
    assert await _written(superuser) == before


def wrong_values(schema: dict[str, Any]) -> list[Any]:
    """Return values that a field of this schema cannot take; `@…@` stands for bare JSON text."""
    kind = schema.get("type")
    if "enum" in schema:
        return ["no_such_value", "", 5, True, [], {}, "a\x00", "\ud800"]
    if kind == "string":
        wrong: list[Any] = [5, 1.5, True, ["a"], {"a": 1}, "a\x00b", "\x00", "\ud800", "x\udfff"]
        if schema.get("format") == "date":
            wrong += ["1899-12-31", "9999-99-99", "2023-02-30", "2023-01-01T00:00:00Z", "", 0]
        elif schema.get("format") == "date-time":
            wrong += ["2023-01-01T00:00:00", "0001-01-01T00:00:00+23:59", "2023-02-30T00:00:00Z"]
            wrong += ["9999-12-31T23:59:59-23:59", "", "2023-01-01", 1_700_000_000]
        elif schema.get("format") == "uuid":
            wrong += ["", "x", "0" * 33, "{}"]
        return wrong
    if kind in {"integer", "number"}:
        wrong = ["3", "", True, [], {}, "@1e400@", "@-1e400@", "@NaN@", "@Infinity@", 10**400]
        wrong += [schema["minimum"] - 1] if "minimum" in schema else []
        wrong += [schema["maximum"] + 1] if "maximum" in schema else []
        return wrong + ([1.5] if kind == "integer" else [])
    if kind == "boolean":
        return ["true", 1, 0, [], {}, "@NaN@"]
    if kind == "array":
        return [{}, "x", 5, True, [[]] * (schema["maxItems"] + 1), "@NaN@"]
    return ["x", 5, [], True, "@NaN@"]


def raw(body: Any) -> bytes:
    """Return JSON in which `@…@` has become bare text."""
    return json.dumps(body).replace('"@', "").replace('@"', "").encode()


async def test_every_field_refuses_what_it_cannot_be(world: World, superuser: AsyncEngine) -> None:
    async with nothing_written(superuser):
        for operation in world.writing:
            fields = operation.fields or {}
            wrong = {name: wrong_values(world.resolved(s)) for name, s in fields.items()}
            for turn in range(max(map(len, wrong.values()))):
                body = {name: values[turn % len(values)] for name, values in wrong.items()}
                response = await world.client.request(
                    operation.method, operation.path, content=raw(body), headers=JSON
                )
                problem = is_problem(response)
                assert problem["code"] == "validation_failed", operation.name
                named = {error["pointer"].split("/")[1] for error in problem["errors"]}
                assert named >= set(body), (operation.name, body)


async def test_every_text_has_an_end(world: World, superuser: AsyncEngine) -> None:
    megabyte = "x" * 1_000_000
    async with nothing_written(superuser):
        for operation in world.writing:
            texts = [
                name
                for name, schema in (operation.fields or {}).items()
                if world.resolved(schema).get("type") == "string"
            ]
            for start in range(0, len(texts), 9):
                body = dict.fromkeys(texts[start : start + 9], megabyte)
                response = await world.client.request(
                    operation.method, operation.path, json=body, headers=ANY_VERSION
                )
                problem = is_problem(response)
                named = {error["pointer"] for error in problem["errors"]}
                assert named >= {f"/{name}" for name in body}, operation.name
                assert len(response.content) < 50_000


async def test_a_typo_is_never_ignored(world: World, superuser: AsyncEngine) -> None:
    names = ["no_such_field", "", "a/b~c", "\x00", "x" * 1_000_000]
    async with nothing_written(superuser):
        for operation in world.writing:
            response = await world.client.request(
                operation.method, operation.path, content=raw(dict.fromkeys(names, 1)), headers=JSON
            )
            errors = is_problem(response)["errors"]
            typos = {error["pointer"] for error in errors if error["code"] == "extra_forbidden"}
            assert typos >= {"/no_such_field", "/", "/a~1b~0c"}, operation.name
            assert len(response.content) < 50_000
            response = await world.client.request(
                operation.method, operation.path, content=raw({"\ud800": 1}), headers=JSON
            )
            assert is_problem(response)["code"] == "validation_failed"
        for operation in world.operations:
            response = await world.client.request(
                operation.method,
                operation.path,
                params={"no_such": "1"},
                headers=ANY_VERSION,
                json={} if operation.fields is not None else None,
            )
            problem = is_problem(response)
            errors = {(error["pointer"], error["code"]) for error in problem["errors"]}
            assert ("/query/no_such", "unknown_parameter") in errors, operation.name


DEEP = 100_000
BODIES: list[tuple[bytes, str]] = [
    (b"", "validation_failed"),
    (b"null", "validation_failed"),
    (b"[]", "validation_failed"),
    (b'"text"', "validation_failed"),
    (b"5", "validation_failed"),
    (b"true", "validation_failed"),
    (b"NaN", "validation_failed"),
    (b"{", "invalid_request"),
    (b'{"name": "a"', "invalid_request"),
    (b'{"name": "a",}', "invalid_request"),
    (b"{'name': 'a'}", "invalid_request"),
    (b'{"name": "a\nb"}', "invalid_request"),
    (b"\x00", "invalid_request"),
    (b"   ", "invalid_request"),
    (b'{"name": "\xff\xfe"}', "invalid_request"),
    (b'{"\xc3\x28": 1}', "invalid_request"),
    (b"\xff" * 1000, "invalid_request"),
    (b'{"name": ' + b"1" * 5000 + b"}", "invalid_request"),
    (b"[" * DEEP, "invalid_request"),
    (b'{"name":' * DEEP, "invalid_request"),
    (b"[" * DEEP + b"]" * DEEP, "invalid_request"),
    (b'{"name":' + b"[" * 2_000 + b"]" * 2_000 + b"}", ""),
    (b'{"name":' * 2_000 + b"1" + b"}" * 2_000, ""),
    (b"{" + b",".join(b'"f%d": 1' % n for n in range(20_000)) + b"}", "validation_failed"),
]


async def test_a_body_that_is_none(world: World, superuser: AsyncEngine) -> None:
    async with nothing_written(superuser):
        for operation in world.writing:
            for body, code in BODIES:
                if body in {b"", b"null"} and not operation.needs_body:
                    continue  # there need not be one
                response = await world.client.request(
                    operation.method, operation.path, content=body, headers=JSON
                )
                problem = is_problem(response)
                assert problem["code"] == code or not code, (operation.name, body[:40])
                assert len(response.content) < 50_000


async def test_a_body_of_another_media_type(world: World, superuser: AsyncEngine) -> None:
    kinds = ["text/plain", "application/x-www-form-urlencoded", "application/xml", "x", "", "/;=,"]
    async with nothing_written(superuser):
        for operation in world.writing:
            for kind in kinds:
                response = await world.client.request(
                    operation.method,
                    operation.path,
                    content=b'{"name": "a"}',
                    headers=JSON | {"Content-Type": kind},
                )
                assert is_problem(response)["code"] == "unsupported_media_type", operation.name


async def test_a_body_over_the_limit(world: World, superuser: AsyncEngine) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"name": "'
        for _ in range(11):
            yield b"x" * 1024 * 1024
        yield b'"}'

    async with nothing_written(superuser):
        for path in ("/v1/teams", "/v1/batch", "/v1/sessions"):
            whole = b'{"name": "' + b"x" * (10 * 1024 * 1024) + b'"}'
            for content in (whole, pieces()):
                response = await world.client.post(path, content=content, headers=JSON)
                assert is_problem(response)["code"] == "payload_too_large"


async def test_the_data_of_a_batch_is_as_bad_as_any_body(
    world: World, superuser: AsyncEngine
) -> None:
    row = "01890000-0000-7000-8000-000000000001"
    nouns = {
        "teams": "/v1/teams",
        "members": "/v1/members",
        "households": "/v1/households",
        "support_events": "/v1/support-events",
    }
    deep: Any = 1
    for _ in range(5_000):
        deep = [deep]
    sent: dict[str, list[dict[str, Any]]] = {}
    for noun, path in nouns.items():
        (operation,) = (op for op in world.writing if (op.method, op.path) == ("POST", path))
        wrong = {
            name: wrong_values(world.resolved(schema))
            for name, schema in (operation.fields or {}).items()
        }
        bodies: list[Any] = [
            {name: values[turn % len(values)] for name, values in wrong.items() if name != "id"}
            for turn in range(max(map(len, wrong.values())))
        ]
        bodies += [{"\ud800": 1}, {"team_id": "\ud800"}, {"note": "@NaN@", "memberships": [5]}]
        sent[noun] = [
            {"op": op, "id": row, "if_match": "*", "data": body}
            for body in bodies
            for op in ("create", "update")
        ]
    async with nothing_written(superuser):
        response = await world.client.post("/v1/batch", content=raw(sent), headers=JSON)
        assert response.status_code == 207, response.text[:500]
        results = response.json()["results"]
        assert {result["outcome"] for result in results} <= {"rejected", "deferred"}
        assert all(400 <= result["status"] < 500 for result in results)
        nested = b'{"team_id":' + b"[" * 5_000 + b"]" * 5_000 + b', "memberships": [[[[]]]]}'
        item = b'{"op": "create", "id": "%s", "data": %s}' % (row.encode(), nested)
        for noun in nouns:
            body = b'{"%s": [%s]}' % (noun.encode(), item)
            answer = await world.client.post("/v1/batch", content=body, headers=JSON)
            assert answer.status_code in {207, 400}, answer.text[:300]
            if answer.status_code == 207:
                assert answer.json()["results"][0]["outcome"] == "rejected"


def wrong_parameters(schema: dict[str, Any]) -> list[str]:
    """Return texts that a query parameter of this schema cannot take."""
    if schema.get("type") == "array":
        return wrong_parameters(schema["items"])
    wrong = ["a\x00b", "\x00", "x" * 3_000]
    if "enum" in schema or schema.get("type") in {"integer", "number", "boolean"}:
        return [*wrong, "no_such_value", "", "1e400", "NaN", "9" * 400, "[]"]
    if schema.get("format") in {"date", "date-time", "uuid"}:
        wrong += ["", "x", "1899-12-31", "9999-99-99", "2023-02-30", "2023-01-01T00:00:00"]
    return wrong


async def test_every_parameter_refuses_what_it_cannot_be(
    world: World, superuser: AsyncEngine
) -> None:
    async with nothing_written(superuser):
        for operation in world.filtered:
            wrong = {}
            for name, schema in operation.parameters.items():
                plain = world.resolved(schema)
                if "items" in plain:
                    plain = plain | {"items": world.resolved(plain["items"])}
                wrong[name] = wrong_parameters(plain)
            for turn in range(max(map(len, wrong.values()))):
                query = {name: values[turn % len(values)] for name, values in wrong.items()}
                named = await _faulty_parameters(world, operation, query)
                for name in query.keys() - named:  # seen only once the rest is right
                    valid = {n: v for n, v in VALID.items() if n in operation.parameters}
                    alone = valid | {name: query[name]}
                    assert name in await _faulty_parameters(world, operation, alone), alone


VALID = {"indicator": "events.count", "period": "2025"}
"""What operations ask for that need more than a wrong parameter to be refused for it."""


async def _faulty_parameters(world: World, operation: Operation, query: dict[str, str]) -> set[str]:
    problem = is_problem(await world.client.get(operation.path, params=query))
    if problem["code"] == "cursor_invalid":
        return {"cursor"}
    return {error["pointer"].split("/")[2] for error in problem["errors"]}


async def test_a_query_of_bytes_that_are_no_text(world: World, superuser: AsyncEngine) -> None:
    texts = ["%00", "%ff", "%ed%a0%80", "%", "%zz", "%25", "a%0d%0ab", "😀", "'", "\\", "%_"]
    async with nothing_written(superuser):
        for operation in world.filtered:
            for name in operation.parameters:
                for value in texts if name in {"q", "cursor", "external_id"} else texts[:3]:
                    response = await world.client.get(f"{operation.path}?{name}={value}")
                    if response.status_code != 200:
                        is_problem(response)
            response = await world.client.get(f"{operation.path}?%00=1&%ff=2&=3&&&")
            is_problem(response)


async def test_a_parameter_with_one_value_is_given_once(world: World) -> None:
    for operation in world.filtered:
        for name, schema in operation.parameters.items():
            plain = world.resolved(schema)
            if plain.get("type") == "array":
                continue
            value = {"integer": "5", "boolean": "true"}.get(plain.get("type", ""), "2025-08-01")
            response = await world.client.get(operation.path, params=[(name, value)] * 2)
            errors = {(error["pointer"], error["code"]) for error in is_problem(response)["errors"]}
            assert errors == {(f"/query/{name}", "duplicate")}, operation.name


async def test_a_path_with_an_id_that_is_none(world: World, superuser: AsyncEngine) -> None:
    bad = ["x", "%00", "%ff", "..", "%2e%2e%2f", "0" * 10_000, "null", "01890000-0000-7000", "😀"]
    templates = {operation.template for operation in world.operations}
    async with nothing_written(superuser):
        for operation in world.operations:
            if "{" not in operation.template or "by-external-id" in operation.template:
                continue
            first = operation.template.index("{")
            last = operation.template.rindex("}")
            for value in bad:
                path = operation.template[:first] + value + operation.template[last + 1 :]
                if normpath(path) in templates:  # which clients send instead
                    continue
                response = await world.client.request(
                    operation.method, path, headers=JSON, content=b"{}"
                )
                problem = is_problem(response)
                assert problem["code"] in {"not_found", "method_not_allowed"}, path
        for path in ("/v1/by%00", "/%00", "/docs/assets/%00", "/docs/assets/..%2f..%2fapp.py"):
            assert is_problem(await world.client.get(path))["code"] == "not_found"
        for operation in world.operations:
            if "by-external-id" in operation.template:
                stem = operation.template.partition("{")[0]
                for rest in ("%00/1", "portal/%00", "a b/1", "portal/" + "x" * 10_000, "p/%ff%00"):
                    is_problem(await world.client.put(stem + rest, headers=JSON, content=b"{}"))


async def test_methods_that_a_path_does_not_have(world: World, superuser: AsyncEngine) -> None:
    methods: dict[str, set[str]] = {}
    for operation in world.operations:
        methods.setdefault(operation.path, set()).add(operation.method)
    async with nothing_written(superuser):
        for path, known in methods.items():
            like_id = ":" in path or path == "/v1/targets/progress"
            for method in {"HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "FOO"} - known:
                response = await world.client.request(method, path, headers=JSON)
                if like_id and response.status_code == 404:
                    continue  # another method reads it as an id, which it is not
                assert response.status_code == 405, (method, path)
                allowed = set(response.headers["allow"].split(", "))
                assert allowed == known or (allowed > known and like_id)
                if method != "HEAD":
                    assert is_problem(response)["code"] == "method_not_allowed"


HEADERS: list[dict[str, str]] = [
    {"Accept-Language": "en," * 20_000},
    {"Accept-Language": "en;q=nan, vi;q=-1, *;q=1e999, ;;;=, en;q="},
    {"Accept-Language": "\xff\x00"},
    {"Accept": "text/xml;q=;=,"},
    {"X-Request-Id": "a\x00b"},
    {"X-Request-Id": "a\nb"},
    {"X-Request-Id": "x" * 100_000},
    {"X-Request-Id": "ế".encode().decode("latin-1")},
    {"Host": "["},
    {"Host": "a\x00b"},
    {"Cookie": "a" * 50_000},
    {"Content-Length": "-1"},
    {"Content-Encoding": "gzip"},
    {"Range": "bytes=9-1"},
]


async def test_weird_headers(world: World, superuser: AsyncEngine) -> None:
    async with nothing_written(superuser):
        for headers in HEADERS:
            sent = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
            response = await world.client.get("/v1/admin-units?limit=1", headers=sent)
            assert response.status_code < 500, headers
            assert len(response.headers["x-request-id"]) <= 64
            sent[b"If-Match"] = b'"1"'
            refused = await world.client.post("/v1/teams", json={"name": 1}, headers=sent)
            is_problem(refused)


async def test_a_version_that_is_none(world: World, superuser: AsyncEngine) -> None:
    versions = ["", "1", "abc", 'W/"1"', '"1', '"1", "2"', '"-1"', '"1e3"', '"' + "9" * 5000 + '"']
    versions += ['"\x00"', '"١"'.encode().decode("latin-1"), "**"]
    async with nothing_written(superuser):
        for operation in world.operations:
            unversioned = ("memberships", "/sessions", "/identities")
            bare = any(noun in operation.path for noun in unversioned)
            if operation.method not in {"PATCH", "DELETE"} or bare:
                continue
            body: Any = {} if operation.method == "PATCH" else None
            missing = await world.client.request(operation.method, operation.path, json=body)
            assert is_problem(missing)["code"] == "precondition_required"
            for version in versions:
                response = await world.client.request(
                    operation.method,
                    operation.path,
                    json=body,
                    headers={b"If-Match": version.encode("latin-1")},
                )
                problem = is_problem(response)
                errors = {(error["pointer"], error["code"]) for error in problem["errors"]}
                assert errors == {("/header/If-Match", "version_invalid")}, version


async def test_tokens_that_are_none(world: World, client: httpx.AsyncClient) -> None:
    good = world.client.headers["Authorization"].removeprefix("Bearer ")
    header, payload, signature = good.split(".")
    tokens = [
        "",
        "Bearer",
        "Bearer ",
        "Basic dXNlcjpwYXNz",
        f"Basic {good}",
        "Bearer \x00",
        "Bearer ế".encode().decode("latin-1"),
        "Bearer a.b.c",
        "Bearer " + "." * 100,
        "Bearer " + "a" * 100_000,
        f"Bearer {header}.{payload}.",
        f"Bearer {header}.{payload}.{signature[:-4]}AAAA",
        f"Bearer {header}.{payload[:-2]}.{signature}",
        f"Bearer {payload}.{payload}.{signature}",
        "Bearer eyJhbGciOiJub25lIn0.e30.",
        "Bearer W10.W10.W10",
        "Bearer bnVsbA.bnVsbA.bnVsbA",
    ]
    for token in tokens:
        response = await client.get("/v1/me", headers={b"Authorization": token.encode("latin-1")})
        assert is_problem(response)["code"] == "unauthenticated", token[:60]
        assert response.headers["www-authenticate"].startswith("Bearer ")


async def test_forms_of_the_token_endpoint(client: httpx.AsyncClient) -> None:
    forms: list[bytes] = [
        b"",
        b"grant_type=password",
        b"grant_type=client_credentials&client_id=%00&client_secret=%00",
        b"grant_type=client_credentials&client_id=%ff&client_secret=x",
        b"grant_type=client_credentials&client_id=" + b"x" * 1_000_000,
        b"grant_type=a&grant_type=b",
        b"&&&===%",
        b"\xff\x00",
    ]
    for form in forms:
        for kind in ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain"):
            for basic in ("", "Basic \xff", "Basic Og==", "Basic AAAA", "Basic /////w=="):
                headers = {
                    b"Content-Type": kind.encode(),
                    b"Authorization": basic.encode("latin-1"),
                }
                response = await client.post(RFC_6749, content=form, headers=headers)
                assert 400 <= response.status_code < 500, (form[:60], kind, basic)


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=40)
    | st.sampled_from(["2025-08-01", "2025-08-01T09:00:00Z", str(NATION), '"1"', "-", "VN"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=12,
)


PUBLIC = create_app(Settings(_env_file=None), "postgresql://nowhere/none", "s" * 40).openapi()


def _sent(operation: Operation) -> st.SearchStrategy[tuple[str, Any, Any]]:
    """Draw a query and a body for an operation: its own names, anything as values."""
    texts = st.text(max_size=20) | ANYTHING.map(str)
    names = sorted(operation.parameters)
    query = st.dictionaries(st.sampled_from(names), texts, max_size=3) if names else st.none()
    body: st.SearchStrategy[Any] = st.none()
    if operation.fields:
        body = st.dictionaries(st.sampled_from(sorted(operation.fields)), ANYTHING) | ANYTHING
    return st.tuples(st.just(operation.name), query, body)


FUZZED = [op for op in _operations(PUBLIC, {}) if op.method != "DELETE" and op.path != RFC_6749]


@settings(
    max_examples=200,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(sent=st.sampled_from(FUZZED).flatmap(_sent))
async def test_whatever_is_sent_is_no_fault_of_ours(
    world: World, sent: tuple[str, Any, Any]
) -> None:
    name, query, body = sent
    (operation,) = (op for op in world.operations if op.name == name)
    response = await world.client.request(
        operation.method,
        operation.path,
        params=query,
        content=None if operation.fields is None else json.dumps(body).encode(),
        headers=JSON,
    )
    if response.status_code >= 400:
        is_problem(response)
