"""Refusals: every one has its words, in two languages, and its answer has its headers."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

import api
from api import problems
from api.errors import FieldError, Refusal, ValidationFailed, refusals
from api.problems import catalogue, from_database, from_validation, language_of
from tests.factories import Province

CODE = Path(api.__file__).parent


def test_every_refusal_has_its_texts_and_no_text_is_left_over() -> None:
    kinds = refusals()
    codes = [kind.code for kind in kinds]
    assert len(codes) == len(set(codes))
    assert set(codes) == set(catalogue()) - {"field"}
    for kind in kinds:
        assert 400 <= kind.status < 600
        texts = catalogue()[kind.code]
        assert set(texts) == {"title", "detail"}, kind.code
        for pair in texts.values():
            assert len(pair) == 2
            assert all(pair), kind.code


def _used_codes() -> Iterator[tuple[str, str]]:
    """Find the code of each `FieldError(pointer, code)` in the source, and where it stands."""
    for path in sorted(CODE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            position = {"FieldError": 1, "PydanticCustomError": 0}.get(name)
            if position is None or len(node.args) <= position:
                continue
            code = node.args[position]
            options = [code.body, code.orelse] if isinstance(code, ast.IfExp) else [code]
            for option in options:
                if isinstance(option, ast.Constant):
                    yield str(option.value), f"{path.name}:{node.lineno}"


def test_every_code_of_a_field_has_its_texts() -> None:
    known = catalogue()["field"]
    used = list(_used_codes())
    assert len(used) > 50
    assert {(code, where) for code, where in used if code not in known} == set()
    assert set(problems._PYDANTIC.values()) <= set(known)


def test_the_messages_of_fields_say_the_same_in_both_languages() -> None:
    for code, texts in catalogue()["field"].items():
        vietnamese, english = texts
        assert vietnamese
        assert english
        assert set(re.findall(r"{\w+}", vietnamese)) == set(re.findall(r"{\w+}", english)), code


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "vi"),
        ("en", "en"),
        ("EN-gb", "en"),
        ("vi-VN,vi;q=0.9,en;q=0.8", "vi"),
        ("en;q=0.8, vi;q=0.9", "vi"),
        ("fr, en;q=0.2", "en"),
        ("fr", "vi"),
        ("*", "vi"),
        ("en;q=0", "vi"),
        ("en;q=x, vi", "vi"),
        (",;=,", "vi"),
        ("en;q=nan", "vi"),
    ],
)
def test_a_client_says_which_language_it_likes(header: str, language: str) -> None:
    assert language_of(header) == language


async def test_a_problem_speaks_the_clients_language(client: httpx.AsyncClient) -> None:
    titles = {}
    for language in ("vi", "en"):
        response = await client.get("/v1/me", headers={"Accept-Language": language})
        assert response.headers["content-language"] == language
        assert "Accept-Language" in response.headers["vary"]
        titles[language] = response.json()["title"]
    assert titles == {"vi": "Chưa đăng nhập", "en": "Sign-in is required"}


async def test_a_request_keeps_its_id_when_it_has_a_good_one(client: httpx.AsyncClient) -> None:
    for good in ("phone-17", "a.b_c", "x" * 64, "01890000-0000-7000-8000-000000000001"):
        for path in ("/v1/me", "/health/live", "/nowhere"):
            response = await client.get(path, headers={"X-Request-Id": good})
            assert response.headers["x-request-id"] == good
    assert (await client.get("/v1/me", headers={"X-Request-Id": "mine"})).json()[
        "request_id"
    ] == "mine"
    made = set()
    for bad in ("", "a b", "x" * 65, "a\r\nX-Evil: 1", "ế", "a\x00"):
        response = await client.get("/v1/me", headers={b"X-Request-Id": bad.encode()})
        assert response.headers["x-request-id"] == response.json()["request_id"]
        made.add(str(UUID(response.headers["x-request-id"])))
    assert len(made) == 6


async def test_an_unknown_route_is_a_problem(client: httpx.AsyncClient) -> None:
    for path in ("/", "/v1", "/v1/", "/v1/teams/", "/v2/teams", "/v1/teams/a/b/c", "/favicon.ico"):
        response = await client.get(path)
        assert (response.status_code, response.json()["code"]) == (404, "not_found"), path
        assert response.headers["content-type"] == "application/problem+json"


async def test_a_method_that_is_not_there_names_those_that_are(client: httpx.AsyncClient) -> None:
    cases = [
        ("DELETE", "/v1/teams", "GET, POST"),
        ("PUT", "/v1/teams/01890000-0000-7000-8000-000000000001", "GET, PATCH, DELETE"),
        ("GET", "/v1/batch", "POST"),
        ("POST", "/v1/me", "GET"),
    ]
    for method, path, allowed in cases:
        response = await client.request(method, path)
        assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
        assert response.headers["allow"] == allowed, path


async def test_every_answer_has_the_security_headers(client: httpx.AsyncClient) -> None:
    for path in ("/health/live", "/v1/me", "/nowhere", "/openapi.json"):
        headers = (await client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["strict-transport-security"].startswith("max-age=")
        assert headers["cache-control"]


async def test_faults_of_ours_say_nothing_of_what_happened(
    app: FastAPI, lao_cai: Province, monkeypatch: pytest.MonkeyPatch
) -> None:
    from api.services import teams

    async def fail(*_arguments: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(teams, "list_teams", fail)
    response = await lao_cai.muong_khuong.admin.get("/v1/teams")
    assert (response.status_code, response.json()["code"]) == (500, "internal")
    assert "secret" not in response.text
    assert response.json()["request_id"] == response.headers["x-request-id"]
    await app.state.engine.dispose()

    async def away(*_arguments: object) -> None:
        raise OperationalError("select secret", {}, Exception("connection refused"))

    monkeypatch.setattr(teams, "list_teams", away)
    response = await lao_cai.muong_khuong.admin.get("/v1/teams")
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")
    assert response.headers["retry-after"] == "2"
    assert response.json()["retryable"] is True
    assert "secret" not in response.text


class _DriverError(Exception):
    def __init__(self, sqlstate: str) -> None:
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (DBAPIError("", {}, _DriverError("23505")), "conflict"),
        (DBAPIError("", {}, _DriverError("23P01")), "conflict"),
        (DBAPIError("", {}, _DriverError("42501")), "not_found"),
        (DBAPIError("", {}, _DriverError("40P01")), "unavailable"),
        (DBAPIError("", {}, _DriverError("57014")), "unavailable"),
        (DBAPIError("", {}, _DriverError("22021")), "internal"),
        (DBAPIError("", {}, _DriverError(""), connection_invalidated=True), "unavailable"),
        (InterfaceError("", {}, _DriverError("")), "unavailable"),
        (PoolTimeout(), "unavailable"),
        (ConnectionRefusedError(), "unavailable"),
    ],
)
def test_the_databases_words_become_ours(failure: Exception, code: str) -> None:
    assert from_database(failure).code == code


def test_a_client_learns_of_so_many_faults_and_no_more() -> None:
    failures = [{"type": "extra_forbidden", "loc": ("body", f"f{n}" * 99)} for n in range(5000)]
    refusal = from_validation(failures)
    assert isinstance(refusal, ValidationFailed)
    assert len(refusal.errors) == problems.MOST_FAULTS
    assert all(len(error.pointer) <= 101 for error in refusal.errors)


def test_a_value_that_is_missing_from_a_message_does_not_break_it() -> None:
    for code in catalogue()["field"]:
        refusal = ValidationFailed(FieldError("/x", code))
        for language in problems.LANGUAGES:
            (error,) = problems.body_of(refusal, language, None)["errors"]
            assert error["message"]


def test_refusals_are_all_direct_kinds() -> None:
    assert all(kind.__bases__ == (Refusal,) for kind in refusals())
    assert all(not kind.__subclasses__() for kind in refusals())


async def test_guesses_and_trespasses_are_logged_without_what_was_sent(
    lao_cai: Province, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    body = {"username": "hoa.lc", "password": "Bí mật của tôi"}
    guess = await client.post("/v1/sessions", json=body)
    leader = await lao_cai.leader_of(lao_cai.muong_khuong)
    named = "/v1/teams/by-external-id/portal/079123456789"
    trespass = await leader.put(named, json={})
    assert (guess.status_code, trespass.status_code) == (401, 403)
    lines = [record.getMessage() for record in caplog.records if record.name == "noidai"]
    for answer, line in zip((guess, trespass), lines, strict=True):
        assert answer.headers["x-request-id"] in line
        assert answer.json()["code"] in line
    assert not re.search(r"hoa|mật|079", " ".join(lines))
