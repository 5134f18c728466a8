"""Signing in: people and systems."""

import base64
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from jose import jwt

from api import clock, ids
from api.models.role_grants import Role
from tests.factories import LAO_CAI, PASSWORD, As, Country, make


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
