"""The second factor: numbers that work once, recovery codes, administrators who must have it."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import UUID

import httpx
import pyotp
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api import clock
from api.db import transaction
from api.models.role_grants import Role
from api.services import totp
from api.settings import Settings
from tests.factories import LAO_CAI, NATION, PASSWORD, Country
from tests.rules import fault, problem


class Clock:
    """A clock that the test turns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = clock.now()
        monkeypatch.setattr(clock, "now", lambda: self.now)

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@dataclass
class Enrolled:
    """A person with an authenticator."""

    login: str
    principal_id: UUID
    secret: str
    codes: list[str]
    bearer: dict[str, str]

    @classmethod
    async def found(cls, country: Country, client: httpx.AsyncClient, *roles: Role) -> Self:
        who = await country.sign_in(*roles)
        login = f"user.{who.principal_id}"
        bearer = bearer_of(await sign_in(client, login))
        started = await client.post("/v1/me/totp", headers=bearer)
        assert started.status_code == 201, started.text
        assert started.headers["cache-control"] == "no-store"
        secret = started.json()["secret"]
        confirmed = await confirm(client, bearer, number(secret))
        assert confirmed.status_code == 200, confirmed.text
        return cls(login, who.principal_id, secret, confirmed.json()["recovery_codes"], bearer)


def number(secret: str, seconds: float = 0) -> str:
    return pyotp.TOTP(secret).at(clock.now() + timedelta(seconds=seconds))


async def sign_in(client: httpx.AsyncClient, login: str, **more: Any) -> httpx.Response:
    body = {"username": login, "password": PASSWORD} | more
    return await client.post("/v1/sessions", json=body)


def bearer_of(response: httpx.Response) -> dict[str, str]:
    assert response.status_code == 201, response.text
    return {"Authorization": f"Bearer {response.json()['access_token']}"}


async def confirm(client: httpx.AsyncClient, bearer: dict[str, str], otp: str) -> httpx.Response:
    return await client.post("/v1/me/totp:confirm", json={"otp": otp}, headers=bearer)


async def test_an_authenticator_is_enrolled_and_then_asked_for(
    country: Country, client: httpx.AsyncClient, time: Clock
) -> None:
    who = await Enrolled.found(country, client)
    assert len(set(who.codes)) == 10
    assert all(len(code.replace("-", "")) == 20 for code in who.codes)
    me = (await client.get("/v1/me", headers=who.bearer)).json()
    assert me["totp_enabled"] is True
    without = await sign_in(client, who.login)
    assert problem(without) == (401, "otp_required")
    assert fault(without) == (401, "/otp", "missing")
    assert "insufficient_user_authentication" in without.headers["www-authenticate"]
    wrong_password = await sign_in(client, who.login, password="not it")
    assert problem(wrong_password) == (401, "invalid_credentials")
    time.wait(30)
    shown = number(who.secret)
    bearer = bearer_of(await sign_in(client, who.login, otp=f"{shown[:3]} {shown[3:]}"))
    assert (await client.get("/v1/me", headers=bearer)).status_code == 200


async def test_the_url_is_what_authenticators_read(
    country: Country, client: httpx.AsyncClient
) -> None:
    who = await country.sign_in()
    start = (await client.post("/v1/me/totp", headers=who.headers)).json()
    assert set(start) == {"secret", "otpauth_url"}
    url = urlsplit(start["otpauth_url"])
    assert (url.scheme, url.netloc) == ("otpauth", "totp")
    assert unquote(url.path) == f"/Nối Dài:user.{who.principal_id}"
    query = parse_qs(url.query)
    assert (query["secret"], query["issuer"]) == ([start["secret"]], ["Nối Dài"])
    assert len(start["secret"]) >= 32  # 160 bits (RFC 4226, section 4)


async def test_nothing_is_on_before_a_first_number(
    country: Country, client: httpx.AsyncClient
) -> None:
    who = await country.sign_in()
    login = f"user.{who.principal_id}"
    early = await confirm(who, {}, "123456")
    assert fault(early) == (409, "", "totp_not_begun")
    first = (await who.post("/v1/me/totp")).json()["secret"]
    second = (await who.post("/v1/me/totp")).json()["secret"]
    assert first != second
    assert fault(await confirm(who, {}, number(first))) == (422, "/otp", "otp_wrong")
    bearer_of(await sign_in(client, login))  # still without
    off = await who.post("/v1/me/totp:disable", json={"otp": "123456"})
    assert fault(off) == (409, "", "totp_not_on")
    assert (await confirm(who, {}, number(second))).status_code == 200
    assert fault(await confirm(who, {}, number(second))) == (409, "", "totp_on")
    assert fault(await who.post("/v1/me/totp")) == (409, "", "totp_on")


async def test_of_twenty_confirmations_at_once_one_gives_codes(country: Country) -> None:
    who = await country.sign_in()
    otp = number((await who.post("/v1/me/totp")).json()["secret"])
    answers = await asyncio.gather(*(confirm(who, {}, otp) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 19


async def test_confirming_ends_the_sessions_that_proved_only_a_password(
    country: Country, client: httpx.AsyncClient
) -> None:
    who = await country.sign_in()
    login = f"user.{who.principal_id}"
    here, thief = [bearer_of(await sign_in(client, login)) for _ in range(2)]
    secret = (await client.post("/v1/me/totp", headers=here)).json()["secret"]
    assert (await confirm(client, here, number(secret))).status_code == 200
    assert (await client.get("/v1/me", headers=here)).status_code == 200
    assert (await client.get("/v1/me", headers=thief)).status_code == 401


async def test_a_number_is_good_for_one_step_before_and_after_and_only_once(
    country: Country, client: httpx.AsyncClient, time: Clock
) -> None:
    who = await Enrolled.found(country, client)
    used = await sign_in(client, who.login, otp=number(who.secret))
    assert fault(used) == (401, "/otp", "otp_wrong")  # it confirmed the enrolment already
    time.wait(300)
    for seconds, status in ((-60, 401), (60, 401), (-30, 201), (-30, 401), (30, 201), (0, 401)):
        response = await sign_in(client, who.login, otp=number(who.secret, seconds))
        assert response.status_code == status, seconds
    time.wait(60)
    assert (await sign_in(client, who.login, otp=number(who.secret))).status_code == 201


async def test_a_recovery_code_works_once_however_it_is_typed(
    country: Country, client: httpx.AsyncClient
) -> None:
    who = await Enrolled.found(country, client)
    first, second = who.codes[:2]
    assert (await sign_in(client, who.login, otp=first)).status_code == 201
    assert fault(await sign_in(client, who.login, otp=first)) == (401, "/otp", "otp_wrong")
    typed = second.lower().replace("-", " ")
    assert (await sign_in(client, who.login, otp=typed)).status_code == 201
    other = await Enrolled.found(country, client)
    assert (await sign_in(client, other.login, otp=who.codes[2])).status_code == 401


async def test_nothing_of_it_is_kept_readable(
    country: Country, client: httpx.AsyncClient, superuser: AsyncEngine
) -> None:
    who = await Enrolled.found(country, client)
    async with superuser.connect() as connection:
        kept = [
            str(list(await connection.execute(text(f"select t::text from {table} t"))))
            for table in ("totp", "recovery_code")
        ]
        sealed = await connection.scalar(text("select secret from totp"))
    for secret in (who.secret, *who.codes):
        assert all(secret not in rows and secret.encode().hex() not in rows for rows in kept)
        assert secret.encode() not in sealed


@pytest.mark.parametrize("kind", ["number", "recovery code"])
async def test_twenty_sign_ins_with_one_otp_at_once_are_one(
    app: FastAPI, country: Country, client: httpx.AsyncClient, time: Clock, kind: str
) -> None:
    who = await Enrolled.found(country, client)
    time.wait(60)
    otp = number(who.secret) if kind == "number" else who.codes[0]

    async def take() -> bool:
        async with transaction(app.state.engine) as session:
            return await totp.accept(session, app.state.secrets, who.principal_id, otp)

    async def take_blindly() -> bool:
        """The statement alone, as if nothing had locked the row before."""
        statement, given = totp._TAKE_STEP, {"step": pyotp.TOTP(who.secret).timecode(clock.now())}
        async with transaction(app.state.engine) as session:
            taken = await session.scalar(statement, {"id": who.principal_id} | given)
            return taken is not None

    assert sorted(await asyncio.gather(*(take() for _ in range(20)))) == [False] * 19 + [True]
    if kind == "number":
        time.wait(60)
        blind = await asyncio.gather(*(take_blindly() for _ in range(20)))
        assert sorted(blind) == [False] * 19 + [True]
        otp = number(who.secret, 30)
    else:
        otp = who.codes[1]
    answers = await asyncio.gather(*(sign_in(client, who.login, otp=otp) for _ in range(20)))
    statuses = [answer.status_code for answer in answers]
    assert statuses.count(201) == 1
    assert set(statuses) <= {201, 401, 429}


async def test_guessing_numbers_is_slowed_down_from_everywhere(
    app: FastAPI, country: Country, client: httpx.AsyncClient, time: Clock
) -> None:
    who = await Enrolled.found(country, client)
    time.wait(60)
    for n in range(5):
        transport = httpx.ASGITransport(app, client=(f"203.0.113.{n}", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://noidai.test") as guesser:
            assert (await sign_in(guesser, who.login, otp="000000")).status_code == 401
    slowed = await sign_in(client, who.login, otp=number(who.secret))
    assert problem(slowed) == (429, "rate_limited")
    assert slowed.headers["retry-after"] == "1"
    off = {"otp": number(who.secret)}
    disable = await client.post("/v1/me/totp:disable", json=off, headers=who.bearer)
    assert problem(disable) == (429, "rate_limited")
    time.wait(1)
    assert (await sign_in(client, who.login, otp=number(who.secret))).status_code == 201


async def test_numbers_guessed_at_the_same_moment_see_each_other(
    country: Country, client: httpx.AsyncClient
) -> None:
    who = await Enrolled.found(country, client)
    body = {"otp": "000000"}
    answers = await asyncio.gather(
        *(client.post("/v1/me/totp:disable", json=body, headers=who.bearer) for _ in range(20))
    )
    assert sorted(answer.status_code for answer in answers) == [422] * 5 + [429] * 15


async def test_whoever_does_not_know_the_password_slows_nobody_down(
    app: FastAPI, country: Country, client: httpx.AsyncClient, time: Clock
) -> None:
    who = await Enrolled.found(country, client)
    time.wait(60)
    transport = httpx.ASGITransport(app, client=("203.0.113.9", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://noidai.test") as stranger:
        for _ in range(8):
            guess = await sign_in(stranger, who.login, password="not it", otp="000000")
        assert guess.status_code == 429
    assert (await sign_in(client, who.login, otp=number(who.secret))).status_code == 201


async def test_it_is_switched_off_by_a_number_or_a_recovery_code(
    country: Country, client: httpx.AsyncClient, superuser: AsyncEngine
) -> None:
    who = await Enrolled.found(country, client)
    url = "/v1/me/totp:disable"
    wrong = await client.post(url, json={"otp": "000000"}, headers=who.bearer)
    assert fault(wrong) == (422, "/otp", "otp_wrong")
    off = await client.post(url, json={"otp": who.codes[0]}, headers=who.bearer)
    assert off.status_code == 204, off.text
    assert (await sign_in(client, who.login)).status_code == 201
    async with superuser.connect() as connection:
        left = "select (select count(*) from totp) + (select count(*) from recovery_code)"
        assert await connection.scalar(text(left)) == 0
    assert (await client.post("/v1/me/totp", headers=who.bearer)).status_code == 201


class TestAdministrators:
    """With a configured database, administrators need a second factor."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"require_admin_mfa": True})

    @pytest.mark.parametrize(
        "role", [Role.national_admin, Role.province_admin, Role.commune_admin, Role.dpo]
    )
    async def test_without_one_they_can_only_enrol(
        self, country: Country, client: httpx.AsyncClient, time: Clock, role: Role
    ) -> None:
        who = await country.sign_in(role, at=NATION)
        login = f"user.{who.principal_id}"
        here = bearer_of(await sign_in(client, login))
        for method, path in (
            ("GET", "teams"),
            ("GET", "admin-units"),
            ("GET", "indicators"),
            ("GET", "role-grants"),
            ("POST", "clients"),
            ("POST", "batch"),
        ):
            body = {"name": "Cổng"} if path == "clients" else {}
            refused = await client.request(method, f"/v1/{path}", headers=here, json=body)
            assert problem(refused) == (401, "otp_required"), path
            assert fault(refused) == (401, "", "totp_not_enrolled")
        assert (await client.get("/v1/me", headers=here)).status_code == 200
        secret = (await client.post("/v1/me/totp", headers=here)).json()["secret"]
        assert (await client.get("/v1/admin-units", headers=here)).status_code == 401
        assert (await confirm(client, here, number(secret))).status_code == 200
        assert (await client.get("/v1/admin-units", headers=here)).status_code == 200
        time.wait(60)
        again = bearer_of(await sign_in(client, login, otp=number(secret)))
        assert (await client.get("/v1/admin-units", headers=again)).status_code == 200

    async def test_a_renewed_session_stays_proved_and_a_disabled_factor_does_not(
        self, country: Country, client: httpx.AsyncClient
    ) -> None:
        who = await country.sign_in(Role.province_admin, at=LAO_CAI)
        tokens = (await sign_in(client, f"user.{who.principal_id}")).json()
        here = {"Authorization": f"Bearer {tokens['access_token']}"}
        secret = (await client.post("/v1/me/totp", headers=here)).json()["secret"]
        codes = (await confirm(client, here, number(secret))).json()["recovery_codes"]
        body = {"refresh_token": tokens["refresh_token"]}
        renewed = (await client.post("/v1/sessions:refresh", json=body)).json()
        here = {"Authorization": f"Bearer {renewed['access_token']}"}
        assert (await client.get("/v1/teams", headers=here)).status_code == 200
        off = await client.post("/v1/me/totp:disable", json={"otp": codes[0]}, headers=here)
        assert off.status_code == 204
        assert problem(await client.get("/v1/teams", headers=here)) == (401, "otp_required")
        assert (await client.delete("/v1/sessions", headers=here)).status_code == 204

    async def test_nobody_else_needs_one(self, country: Country, client: httpx.AsyncClient) -> None:
        for role in (Role.auditor, Role.ioc_reader, Role.youth_coordinator, Role.partner):
            who = await country.sign_in(role, at=LAO_CAI)
            here = bearer_of(await sign_in(client, f"user.{who.principal_id}"))
            assert (await client.get("/v1/admin-units", headers=here)).status_code == 200

    async def test_a_grant_given_later_counts_at_once(
        self, country: Country, client: httpx.AsyncClient
    ) -> None:
        who = await country.sign_in()
        here = bearer_of(await sign_in(client, f"user.{who.principal_id}"))
        assert (await client.get("/v1/admin-units", headers=here)).status_code == 200
        await country.grant(who.principal_id, Role.commune_admin, NATION)
        assert problem(await client.get("/v1/admin-units", headers=here)) == (401, "otp_required")


def test_the_setting_follows_the_database_unless_it_is_given() -> None:
    apart = "postgresql://db/noidai"
    for url, given, required in (
        (None, None, False),
        (apart, None, True),
        (None, True, True),
        (apart, False, False),
    ):
        settings = Settings(_env_file=None, database_url=url, require_admin_mfa=given)
        assert settings.admin_totp_required is required


async def test_a_sign_in_is_of_one_kind(client: httpx.AsyncClient) -> None:
    name, code = {"username": "hoa", "password": PASSWORD}, {"enrolment_code": "ABC"}
    for body, faults in (
        ({}, {("/username", "missing"), ("/password", "missing")}),
        ({"username": "hoa"}, {("/password", "missing")}),
        ({"otp": "123456"}, {("/username", "missing"), ("/password", "missing")}),
        (code, {("/device_name", "missing")}),
        ({"device_name": "A"}, {("/enrolment_code", "missing")}),
        (name | code, {("/enrolment_code", "not_together")}),
        (name | {"device_name": "A"}, {("/device_name", "not_together")}),
        (name | {"password": None}, {("/password", "missing")}),
    ):
        response = await client.post("/v1/sessions", json=body)
        assert problem(response) == (422, "validation_failed")
        errors = response.json()["errors"]
        assert {(error["pointer"], error["code"]) for error in errors} == faults, body
