"""Signing in: people and systems."""

import asyncio
import base64
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from jose import jwt
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api import clock, ids
from api.auth import passwords
from api.models.role_grants import Role
from tests.factories import LAO_CAI, PASSWORD, As, Country, make
from tests.waiting import until


async def new_client(country: Country) -> dict[str, Any]:
    admin = await country.sign_in(Role.province_admin, at=LAO_CAI)
    return await make(admin, "clients", name="Cổng dịch vụ Lào Cai")


async def test_a_person_signs_in(country: Country, client: httpx.AsyncClient) -> None:
    admin = await country.sign_in(Role.province_admin, at=LAO_CAI)
    user = await make(
        admin, "users", username="Chị.Hoa".replace("ị", "i"), password=PASSWORD, full_name="Hoa"
    )
    assert (user["username"], user["must_change_password"]) == ("chi.hoa", False)
    assert PASSWORD not in str(user)
    body = {"username": "chi.Hoa", "password": PASSWORD}
    response = await client.post("/v1/sessions", json=body)
    token = response.json()
    assert (response.status_code, token["token_type"], token["expires_in"]) == (201, "Bearer", 600)
    bearer = {"Authorization": f"Bearer {token['access_token']}"}
    me = (await client.get("/v1/me", headers=bearer)).json()
    assert (me["id"], me["kind"], me["grants"]) == (user["id"], "user", [])


async def test_a_wrong_name_and_a_wrong_password_look_alike(
    country: Country, client: httpx.AsyncClient
) -> None:
    admin = await country.sign_in(Role.province_admin, at=LAO_CAI)
    await make(admin, "users", username="hoa.lc", password=PASSWORD, full_name="Hoa")
    answers = []
    for body in (
        {"username": "hoa.lc", "password": "wrong password"},
        {"username": "nobody", "password": PASSWORD},
        {"username": "hoa.lc\u0000", "password": PASSWORD},
    ):
        response = await client.post("/v1/sessions", json=body)
        answers.append((response.status_code, response.json()["code"]))
    assert answers == [(401, "invalid_credentials")] * 2 + [(422, "validation_failed")]


async def test_a_system_signs_in_by_either_way_of_the_standard(
    country: Country, client: httpx.AsyncClient
) -> None:
    system = await new_client(country)
    form = {"grant_type": "client_credentials"}
    mine = {"client_id": system["client_id"], "client_secret": system["client_secret"]}
    basic = base64.b64encode(":".join(mine.values()).encode()).decode()
    posted = await client.post("/oauth/token", data=form | mine)
    header = await client.post(
        "/oauth/token", data=form, headers={"Authorization": f"Basic {basic}"}
    )
    for response in (posted, header):
        assert response.status_code == 200
        assert response.headers["cache-control"] == "no-store"
        bearer = {"Authorization": f"Bearer {response.json()['access_token']}"}
        me = (await client.get("/v1/me", headers=bearer)).json()
        assert (me["id"], me["kind"]) == (system["id"], "client")


async def test_the_token_endpoint_refuses_as_the_standard_says(
    country: Country, client: httpx.AsyncClient
) -> None:
    system = await new_client(country)
    mine = {"client_id": system["client_id"], "client_secret": system["client_secret"]}
    grant = {"grant_type": "client_credentials"}
    cases = [
        ({}, 400, "invalid_request"),
        ({"grant_type": "password"} | mine, 400, "unsupported_grant_type"),
        (grant, 401, "invalid_client"),
        (grant | mine | {"client_secret": "no"}, 401, "invalid_client"),
        (grant | mine | {"client_id": "no\0body"}, 401, "invalid_client"),
    ]
    for form, status, error in cases:
        response = await client.post("/oauth/token", data=form)
        assert (response.status_code, response.json()) == (status, {"error": error}), form
        assert ("www-authenticate" in response.headers) == (status == 401)


async def test_a_rotated_secret_ends_the_old_one(
    country: Country, client: httpx.AsyncClient
) -> None:
    admin = await country.sign_in(Role.province_admin, at=LAO_CAI)
    system = await make(admin, "clients", name="IOC")
    rotated = await admin.post(f"/v1/clients/{system['id']}:rotate-secret")
    assert rotated.status_code == 200
    form = {"grant_type": "client_credentials", "client_id": system["client_id"]}
    old = await client.post("/oauth/token", data=form | {"client_secret": system["client_secret"]})
    new = await client.post(
        "/oauth/token", data=form | {"client_secret": rotated.json()["client_secret"]}
    )
    assert (old.status_code, new.status_code) == (401, 200)
    other = await country.sign_in(Role.province_admin, at=LAO_CAI)
    assert (await other.post(f"/v1/clients/{system['id']}:rotate-secret")).status_code == 404


async def test_tokens_follow_the_profile_and_verify_with_the_published_keys(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    token, _ = app.state.tokens.issue(ids.new_id(), "someone")
    header = jwt.get_unverified_header(token)
    assert (header["typ"], header["alg"]) == ("at+jwt", "ES256")
    keys = (await client.get("/.well-known/jwks.json")).json()
    issuer = (await client.get("/.well-known/oauth-authorization-server")).json()["issuer"]
    claims = jwt.decode(token, keys, algorithms=["ES256"], audience=issuer, issuer=issuer)
    assert set(claims) == {"iss", "aud", "sub", "client_id", "iat", "exp", "jti"}
    assert all("d" not in key for key in keys["keys"])


async def test_forged_and_worn_tokens_are_refused(
    app: FastAPI, client: httpx.AsyncClient, as_: As, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = await as_()
    good = person.headers["authorization"].removeprefix("Bearer ")
    claims = jwt.get_unverified_claims(good)
    kid = jwt.get_unverified_header(good)["kid"]
    public = app.state.tokens.jwks["keys"][0]
    signer = app.state.tokens._signer[1]

    def signed(claims: dict[str, Any], **header: Any) -> str:
        head = {"kid": kid, "typ": "at+jwt"} | header
        return str(jwt.encode(claims, signer, "ES256", headers=head))

    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"at+jwt"}').decode().rstrip("=")
    forged = {
        "alg none": f"{none}.{good.split('.')[1]}.",
        "key confusion": jwt.encode(claims, str(public), "HS256", {"kid": kid, "typ": "at+jwt"}),
        "other type": signed(claims, typ="JWT"),
        "other key": signed(claims, kid="unknown"),
        "other audience": signed(claims | {"aud": "https://other.vn"}),
        "other issuer": signed(claims | {"iss": "https://other.vn"}),
        "expired": signed(claims | {"exp": claims["iat"] - 1}),
        "future": signed(claims | {"iat": claims["iat"] + 3600}),
        "no subject": signed({k: v for k, v in claims.items() if k != "sub"}),
        "no such person": signed(claims | {"sub": str(ids.new_id())}),
        "odd subject": signed(claims | {"sub": "root"}),
        "tampered": good[:-4] + ("AAAA" if good[-4:] != "AAAA" else "BBBB"),
        "oversized": good + "A" * 10_000,
        "nonsense": "nonsense",
    }
    for name, token in forged.items():
        response = await client.get("/v1/me", headers={"Authorization": f"Bearer {token}"})
        assert (response.status_code, response.json()["code"]) == (401, "unauthenticated"), name
        assert response.headers["www-authenticate"].startswith("Bearer"), name
    nothing = await client.get("/v1/me")
    assert nothing.status_code == 401
    assert (await person.get("/v1/me")).status_code == 200
    later = clock.now() - timedelta(minutes=11)
    monkeypatch.setattr(clock, "now", lambda: later)
    worn, _ = app.state.tokens.issue(ids.new_id(), "someone")
    response = await client.get("/v1/me", headers={"Authorization": f"Bearer {worn}"})
    assert response.status_code == 401


type Tokens = dict[str, Any]


async def login_of(country: Country) -> str:
    """Return the name of a new person, whose password is `PASSWORD`."""
    person = await country.sign_in()
    person_id: UUID = person.principal_id
    return f"user.{person_id}"


async def begin(client: httpx.AsyncClient, login: str, password: str = PASSWORD) -> Tokens:
    body = {"username": login, "password": password}
    response = await client.post("/v1/sessions", json=body)
    assert response.status_code == 201, response.text
    assert response.headers["cache-control"] == "no-store"
    tokens: Tokens = response.json()
    return tokens


async def refresh(client: httpx.AsyncClient, tokens: Tokens) -> httpx.Response:
    body = {"refresh_token": tokens["refresh_token"]}
    return await client.post("/v1/sessions:refresh", json=body)


async def renewed(client: httpx.AsyncClient, tokens: Tokens) -> Tokens:
    response = await refresh(client, tokens)
    assert response.status_code == 200, response.text
    answer: Tokens = response.json()
    assert set(answer) == {"access_token", "refresh_token", "token_type", "expires_in"}
    return answer


def bearer(tokens: Tokens) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens['access_token']}"}


async def status(client: httpx.AsyncClient, tokens: Tokens) -> int:
    return (await client.get("/v1/me", headers=bearer(tokens))).status_code


async def test_a_session_is_renewed_and_each_token_works(
    country: Country, client: httpx.AsyncClient
) -> None:
    tokens = await begin(client, await login_of(country))
    for _ in range(3):
        following = await renewed(client, tokens)
        assert following["refresh_token"] != tokens["refresh_token"]
        assert await status(client, following) == 200
        tokens = following


async def test_refresh_tokens_are_not_kept_readable(
    country: Country, client: httpx.AsyncClient, superuser: AsyncEngine
) -> None:
    tokens = await begin(client, await login_of(country))
    await renewed(client, tokens)
    raw = base64.urlsafe_b64decode(tokens["refresh_token"])
    async with superuser.connect() as connection:
        kept = await connection.scalar(text("select s::text from session s"))
    assert raw[16:48].hex() not in kept
    assert tokens["refresh_token"] not in kept


async def test_a_lost_answer_is_asked_for_again(
    country: Country, client: httpx.AsyncClient
) -> None:
    first = await begin(client, await login_of(country))
    lost = await renewed(client, first)
    again = await renewed(client, first)
    assert await status(client, again) == 200
    third = await renewed(client, again)
    assert await status(client, third) == 200
    # `again` may be repeated in its turn, until `third` is used
    assert (await refresh(client, again)).status_code == 200
    assert (await refresh(client, lost)).status_code == 401


async def test_an_older_refresh_token_ends_the_session(
    country: Country, client: httpx.AsyncClient
) -> None:
    login = await login_of(country)
    first, other = await begin(client, login), await begin(client, login)
    second = await renewed(client, first)
    third = await renewed(client, second)
    stolen = await refresh(client, first)
    assert (stolen.status_code, stolen.json()["code"]) == (401, "unauthenticated")
    assert (await refresh(client, third)).status_code == 401

    async def ended() -> bool:
        return await status(client, third) == 401

    await until(ended)
    assert await status(client, other) == 200  # another device of the same person


async def test_twenty_refreshes_at_once_leave_a_session_that_works(
    country: Country, client: httpx.AsyncClient
) -> None:
    first = await begin(client, await login_of(country))
    answers = await asyncio.gather(*(refresh(client, first) for _ in range(20)))
    assert [answer.status_code for answer in answers] == [200] * 20
    made = [answer.json() for answer in answers]
    assert len({tokens["refresh_token"] for tokens in made}) == 20
    assert await status(client, made[3]) == 200
    kept = await renewed(client, made[7])  # whichever the phone kept
    kept = await renewed(client, kept)
    assert await status(client, kept) == 200
    assert (await refresh(client, first)).status_code == 401

    async def ended() -> bool:
        return await status(client, kept) == 401

    await until(ended)


async def test_an_invented_refresh_token_is_refused_and_ends_nothing(
    country: Country, client: httpx.AsyncClient
) -> None:
    tokens = await begin(client, await login_of(country))
    raw = base64.urlsafe_b64decode(tokens["refresh_token"])
    invented = [
        base64.urlsafe_b64encode(raw[:16] + b"x" * 56).decode(),
        base64.urlsafe_b64encode(raw[:48]).decode(),
        tokens["refresh_token"][:-1],
        tokens["access_token"][:200],
        "ế",
        "x",
    ]
    for token in invented:
        response = await refresh(client, {"refresh_token": token})
        assert (response.status_code, response.json()["code"]) == (401, "unauthenticated")
    assert await status(client, await renewed(client, tokens)) == 200


async def test_a_session_ends_when_it_was_idle_for_ninety_days(
    country: Country,
    client: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokens = await begin(client, await login_of(country))
    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now + timedelta(days=89))
    tokens = await renewed(client, tokens)
    monkeypatch.setattr(clock, "now", lambda: now + timedelta(days=180))
    assert (await refresh(client, tokens)).status_code == 401


async def test_signing_out_ends_the_access_token_too(
    country: Country, client: httpx.AsyncClient
) -> None:
    login = await login_of(country)
    here, there = await begin(client, login), await begin(client, login)
    assert await status(client, here) == 200
    response = await client.delete("/v1/sessions/current", headers=bearer(here))
    assert (response.status_code, response.content) == (204, b"")
    assert [await status(client, tokens) for tokens in (here, there)] == [401, 200]
    assert (await refresh(client, here)).status_code == 401
    again = await client.delete("/v1/sessions/current", headers=bearer(here))
    assert again.status_code == 401


async def test_signing_out_everywhere_ends_ones_own_sessions_only(
    country: Country, client: httpx.AsyncClient
) -> None:
    login = await login_of(country)
    mine = [await begin(client, login) for _ in range(3)]
    other = await begin(client, await login_of(country))
    response = await client.delete("/v1/sessions", headers=bearer(mine[0]))
    assert response.status_code == 204
    assert [await status(client, tokens) for tokens in mine] == [401] * 3
    assert (await refresh(client, mine[2])).status_code == 401
    assert await status(client, other) == 200
    assert await status(client, await begin(client, login)) == 200


async def test_a_disabled_person_is_not_renewed(
    country: Country, client: httpx.AsyncClient, superuser: AsyncEngine
) -> None:
    tokens = await begin(client, await login_of(country))
    async with superuser.connect() as connection:
        await connection.execute(text("update principal set disabled_at = now()"))
    assert (await refresh(client, tokens)).status_code == 401


async def test_a_token_without_a_session_has_none_to_end(country: Country) -> None:
    person = await country.sign_in()
    assert (await person.delete("/v1/sessions/current")).status_code == 404


WRONG = "a wrong password"


class Somewhere:
    """Sign-ins from an address."""

    def __init__(self, app: FastAPI, address: str) -> None:
        transport = httpx.ASGITransport(app, client=(address, 1))
        self.client = httpx.AsyncClient(transport=transport, base_url="http://noidai.test")

    async def tries(self, login: str, password: str = WRONG) -> httpx.Response:
        return await self.client.post(
            "/v1/sessions", json={"username": login, "password": password}
        )


async def test_guessing_is_slowed_down_more_and_more(
    app: FastAPI, country: Country, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = await login_of(country)
    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now)
    guesser = Somewhere(app, "203.0.113.9")
    assert [(await guesser.tries(login)).status_code for _ in range(5)] == [401] * 5
    for wait in (1, 2, 4, 8):
        response = await guesser.tries(login, PASSWORD)
        assert (response.status_code, response.json()["code"]) == (429, "rate_limited")
        assert response.json()["retryable"] is True
        assert response.headers["retry-after"] == str(wait)
        now += timedelta(seconds=wait)
        assert (await guesser.tries(login)).status_code == 401
    now += timedelta(seconds=16)
    assert (await guesser.tries(login, PASSWORD)).status_code == 201
    assert [(await guesser.tries(login)).status_code for _ in range(5)] == [401] * 5


async def test_nobody_locks_another_out(app: FastAPI, country: Country) -> None:
    login = await login_of(country)
    guesser, neighbour = Somewhere(app, "203.0.113.9"), Somewhere(app, "203.0.113.10")
    for _ in range(8):
        last = await guesser.tries(login)
    assert last.status_code == 429
    assert (await neighbour.tries(login, PASSWORD)).status_code == 201


async def test_guesses_at_the_same_moment_see_each_other(app: FastAPI, country: Country) -> None:
    login = await login_of(country)
    guesser = Somewhere(app, "2001:db8::1")
    answers = await asyncio.gather(*(guesser.tries(login) for _ in range(40)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {401, 429}
    assert statuses.count(401) <= 8
    same_line = await Somewhere(app, "2001:db8::2:3").tries(login)
    assert same_line.status_code == 429


async def test_trying_many_names_from_one_address_is_slowed_down(
    app: FastAPI, country: Country, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, unknown = [await login_of(country) for _ in range(2)]
    hashed: list[str] = []

    async def quick(plain: str, kept: str | None) -> bool:
        hashed.append(plain)
        return kept is not None and plain == PASSWORD

    monkeypatch.setattr("api.services.sessions.verify_secret", quick)
    office = Somewhere(app, "203.0.113.9")
    assert (await office.tries(known, PASSWORD)).status_code == 201
    for n in range(50):
        assert (await office.tries(f"somebody.{n}")).status_code == 401
    slowed = await office.tries(unknown, PASSWORD)
    assert (slowed.status_code, slowed.headers["retry-after"]) == (429, "1")
    assert len(hashed) == 51
    assert (await office.tries(known, PASSWORD)).status_code == 201  # was here before
    assert (await Somewhere(app, "203.0.113.10").tries(unknown, PASSWORD)).status_code == 201


async def test_guessing_a_clients_secret_is_slowed_down(
    country: Country, client: httpx.AsyncClient
) -> None:
    system = await new_client(country)
    form = {"grant_type": "client_credentials", "client_id": system["client_id"]}
    for _ in range(5):
        wrong = await client.post("/oauth/token", data=form | {"client_secret": "no"})
        assert wrong.status_code == 401
    right = await client.post(
        "/oauth/token", data=form | {"client_secret": system["client_secret"]}
    )
    assert right.status_code == 429


async def test_names_that_were_tried_are_not_kept_readable(
    app: FastAPI, superuser: AsyncEngine
) -> None:
    await Somewhere(app, "203.0.113.9").tries("my password by mistake")
    async with superuser.connect() as connection:
        kept = str(list(await connection.execute(text("select f::text from sign_in_failure f"))))
    assert b"mistake".hex() not in kept
    assert "mistake" not in kept


async def test_a_crowd_of_sign_ins_waits_so_far_and_no_further(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords, "MOST_WAITING", 0)
    response = await Somewhere(app, "203.0.113.9").tries("somebody")
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")
