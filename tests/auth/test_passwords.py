"""Passwords: which may be chosen, and changing one's own."""

import unicodedata

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api.auth.password_policy import check_password
from api.errors import ValidationFailed
from api.models.role_grants import Role
from tests.factories import LAO_CAI, PASSWORD, Country, make
from tests.rules import fault, problem

GOOD = [
    "a long enough password",
    "mưa rừng mùa hạ",
    "        x7",  # spaces count
    "🌾🌾🐃🐃🌧🌧🏡🏡",
    "correcthorse",
    "allsmallletters",
    "58204913",  # no rule of composition
    "noidai-demo",
    "Hoa.lc went to the market",
    "x" * 100 + "y" * 156,
]
COMMON = [
    "password",
    "PassWord1",
    "ｐａｓｓｗｏｒｄ",
    "12345678",
    "anhyeuem",
    "khongbiet",
    "trustno1",
    "qwertyuiop",
    "hoa.lc.kt",
    "Hoa.LC.KT2026",
    "noidai2026",
    "Nối Dài 2026!",
    "aaaaaaaa",
    "abcabcabcab",
    "20262026",
    "........",
    "🌾🌾🌾🌾🌾🌾🌾🌾",
    "bcdefghij",
    "89012345",
    "7654321098",
    "zyxwvuts",
]


@pytest.mark.parametrize("password", GOOD)
def test_any_long_password_that_nobody_guesses_is_taken(password: str) -> None:
    check_password(password, "hoa.lc.kt", "/password")


@pytest.mark.parametrize("password", COMMON)
def test_a_password_that_is_guessed_early_is_refused(password: str) -> None:
    with pytest.raises(ValidationFailed) as refused:
        check_password(password, "hoa.lc.kt", "/password")
    (error,) = refused.value.errors
    assert (error.pointer, error.code) == ("/password", "password_common")


def test_length_is_counted_once_normalised() -> None:
    short = unicodedata.normalize("NFC", unicodedata.normalize("NFD", "ếếếộ"))
    with pytest.raises(ValidationFailed) as refused:
        check_password(short, "hoa", "/password")
    assert refused.value.errors[0].code == "string_too_short"


async def test_a_user_is_not_created_with_a_common_password(country: Country) -> None:
    admin = await country.sign_in(Role.province_admin, at=LAO_CAI)
    person = {"username": "hoa.lc.kt", "full_name": "Hoa"}
    for password in ("iloveyou", "Hoa.lc.kt", "đđđđđđđđ"):
        response = await admin.post("/v1/users", json=person | {"password": password})
        assert fault(response) == (422, "/password", "password_common"), password
    for password in ("x" * 7, "x" * 257):
        response = await admin.post("/v1/users", json=person | {"password": password})
        assert response.status_code == 422
    assert (await make(admin, "users", **person, password=PASSWORD))["username"] == "hoa.lc.kt"


async def test_a_password_is_the_same_however_its_accents_are_typed(
    country: Country, client: httpx.AsyncClient
) -> None:
    admin = await country.sign_in(Role.province_admin, at=LAO_CAI)
    password = "mưa rừng mùa hạ"
    sent = unicodedata.normalize("NFD", password)
    await make(admin, "users", username="hoa.lc.kt", full_name="Hoa", password=sent)
    for typed in (password, sent):
        body = {"username": "hoa.lc.kt", "password": typed}
        assert (await client.post("/v1/sessions", json=body)).status_code == 201


NEW = "quite another password"


async def session_of(client: httpx.AsyncClient, login: str, password: str) -> dict[str, str]:
    body = {"username": login, "password": password}
    response = await client.post("/v1/sessions", json=body)
    assert response.status_code == 201, response.text
    return {"Authorization": f"Bearer {response.json()['access_token']}"}


async def person(country: Country) -> str:
    return f"user.{(await country.sign_in()).principal_id}"


async def change(
    client: httpx.AsyncClient, bearer: dict[str, str], current: str, new: str
) -> httpx.Response:
    body = {"current_password": current, "new_password": new}
    return await client.post("/v1/me/password", json=body, headers=bearer)


async def test_a_new_password_ends_all_other_sessions(
    country: Country, client: httpx.AsyncClient
) -> None:
    login = await person(country)
    here, there = [await session_of(client, login, PASSWORD) for _ in range(2)]
    changed = await change(client, here, PASSWORD, NEW)
    assert (changed.status_code, changed.content) == (204, b"")
    assert (await client.get("/v1/me", headers=here)).status_code == 200
    assert (await client.get("/v1/me", headers=there)).status_code == 401
    old = await client.post("/v1/sessions", json={"username": login, "password": PASSWORD})
    assert problem(old) == (401, "invalid_credentials")
    await session_of(client, login, NEW)


async def test_a_new_password_must_be_good_and_new(
    country: Country, client: httpx.AsyncClient
) -> None:
    login = await person(country)
    here = await session_of(client, login, PASSWORD)
    for current, new, expected in (
        (PASSWORD, "password1", ("/new_password", "password_common")),
        (PASSWORD, login, ("/new_password", "password_common")),
        (PASSWORD, PASSWORD, ("/new_password", "password_unchanged")),
        ("not it", NEW, ("/current_password", "password_wrong")),
    ):
        assert fault(await change(client, here, current, new)) == (422, *expected)
    assert (await client.get("/v1/me", headers=here)).status_code == 200


async def test_the_present_password_is_not_guessed_by_a_session(
    country: Country, client: httpx.AsyncClient
) -> None:
    login = await person(country)
    sessions = [await session_of(client, login, PASSWORD) for _ in range(2)]
    for turn in range(5):
        wrong = await change(client, sessions[turn % 2], "not it", NEW)
        assert wrong.status_code == 422
    for bearer in sessions:
        slowed = await change(client, bearer, PASSWORD, NEW)
        assert problem(slowed) == (429, "rate_limited")
    await session_of(client, login, PASSWORD)  # signing in is another thing


async def test_whoever_must_change_the_password_does_that_first(
    country: Country, client: httpx.AsyncClient
) -> None:
    admin = await country.sign_in(Role.province_admin, at=LAO_CAI)
    given = {"username": "hoa.lc.kt", "full_name": "Hoa", "password": PASSWORD}
    user = await make(admin, "users", **given, must_change_password=True)
    grant = {"principal_id": user["id"], "role": "auditor", "unit_id": str(LAO_CAI)}
    await make(admin, "role-grants", **grant)
    here = await session_of(client, "hoa.lc.kt", PASSWORD)
    for method, path in (
        ("GET", "teams"),
        ("GET", "admin-units"),
        ("POST", "me/totp"),
        ("POST", "households"),
    ):
        refused = await client.request(method, f"/v1/{path}", headers=here, json={"unit_id": "1"})
        if method == "GET" or path == "me/totp":
            assert problem(refused) == (403, "insufficient_role"), path
            assert fault(refused) == (403, "", "must_change_password")
    me = await client.get("/v1/me", headers=here)
    assert (me.status_code, me.json()["must_change_password"]) == (200, True)
    assert (await client.delete("/v1/sessions/current", headers=here)).status_code == 204
    here = await session_of(client, "hoa.lc.kt", PASSWORD)
    assert (await change(client, here, PASSWORD, NEW)).status_code == 204
    assert (await client.get("/v1/teams", headers=here)).status_code == 200
    me = await client.get("/v1/me", headers=here)
    assert me.json()["must_change_password"] is False


async def test_a_session_does_not_begin_on_a_password_that_has_just_changed(
    country: Country,
    client: httpx.AsyncClient,
    superuser: AsyncEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    login = await person(country)

    async def meanwhile(plain: str, kept: str | None) -> bool:
        async with superuser.connect() as connection:
            update = "update principal set version = version + 1 where login = :login"
            await connection.execute(text(update), {"login": login})
        return kept is not None and plain == PASSWORD

    monkeypatch.setattr("api.services.sessions.verify_secret", meanwhile)
    late = await client.post("/v1/sessions", json={"username": login, "password": PASSWORD})
    assert problem(late) == (503, "unavailable")
    async with superuser.connect() as connection:
        assert await connection.scalar(text("select count(*) from session")) == 0


async def test_a_system_has_no_password_to_change(
    country: Country, client: httpx.AsyncClient
) -> None:
    admin = await country.sign_in(Role.province_admin, at=LAO_CAI)
    system = await make(admin, "clients", name="IOC")
    form = {
        "grant_type": "client_credentials",
        "client_id": system["client_id"],
        "client_secret": system["client_secret"],
    }
    token = (await client.post("/oauth/token", data=form)).json()["access_token"]
    bearer = {"Authorization": f"Bearer {token}"}
    refused = await change(client, bearer, system["client_secret"], NEW)
    assert problem(refused) == (403, "insufficient_role")
    assert problem(await client.post("/v1/me/totp", headers=bearer)) == (403, "insufficient_role")
