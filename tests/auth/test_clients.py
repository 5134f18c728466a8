"""Systems that sign in with keys of their own: `private_key_jwt` (RFC 7523)."""

import base64
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fastapi import FastAPI
from jose import jwk, jwt

from api import clock, ids
from api.models.role_grants import Role
from tests.factories import LAO_CAI, As, Country, make

TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ISSUER = "http://127.0.0.1:8000"
KEPT = {"kty", "crv", "x", "y", "n", "e"}


def pair(kind: str = "EC", size: int = 2048, curve: Any = None) -> tuple[str, dict[str, str]]:
    """Return a new private key (PEM) and its public JWK."""
    private: Any = ec.generate_private_key(curve or ec.SECP256R1())
    if kind == "RSA":
        private = rsa.generate_private_key(65537, size)
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    algorithm = "RS256" if kind == "RSA" else "ES256"
    public = jwk.construct(pem, algorithm).public_key().to_dict()
    texts = {k: v.decode() if isinstance(v, bytes) else str(v) for k, v in public.items()}
    return pem, {k: v for k, v in texts.items() if k in KEPT}


@dataclass
class System:
    """A registered client and its private key."""

    http: httpx.AsyncClient
    client_id: str
    pem: str
    algorithm: str = "ES256"

    @classmethod
    async def register(cls, country: Country, http: httpx.AsyncClient, kind: str = "EC") -> Self:
        admin = await country.sign_in(Role.province_admin, at=LAO_CAI)
        pem, public = pair(kind)
        body = await make(admin, "clients", name="IOC Lào Cai", jwks={"keys": [public]})
        assert body["client_secret"] is None
        return cls(http, body["client_id"], pem, "RS256" if kind == "RSA" else "ES256")

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = int(clock.now().timestamp())
        claims = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": ISSUER,
            "iat": now,
            "exp": now + 60,
            "jti": str(ids.new_id()),
        } | changes
        return {name: value for name, value in claims.items() if value is not None}

    def signed(self, headers: dict[str, Any] | None = None, **changes: Any) -> str:
        return str(jwt.encode(self.claims(**changes), self.pem, self.algorithm, headers=headers))

    async def asks(self, assertion: str, **form: str) -> httpx.Response:
        fields = {
            "grant_type": "client_credentials",
            "client_assertion_type": TYPE,
            "client_assertion": assertion,
        }
        return await self.http.post("/oauth/token", data=fields | form)


def refusal(response: httpx.Response) -> tuple[int, Any]:
    return response.status_code, response.json().get("error")


@pytest.mark.parametrize("kind", ["EC", "RSA"])
async def test_a_system_signs_in_with_its_key(
    kind: str, country: Country, client: httpx.AsyncClient
) -> None:
    system = await System.register(country, client, kind)
    for audience in (ISSUER, f"{ISSUER}/oauth/token", [ISSUER]):
        response = await system.asks(system.signed(aud=audience))
        assert response.status_code == 200, response.text
        assert response.headers["cache-control"] == "no-store"
    bearer = {"Authorization": f"Bearer {response.json()['access_token']}"}
    me = (await client.get("/v1/me", headers=bearer)).json()
    assert (me["id"], me["kind"]) == (system.client_id, "client")
    assert (await system.asks(system.signed(), client_id=system.client_id)).status_code == 200


async def test_an_assertion_is_good_once(
    country: Country, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, other = [await System.register(country, client) for _ in range(2)]
    assertion = system.signed(jti="one\0\ud800")
    assert (await system.asks(assertion)).status_code == 200
    assert refusal(await system.asks(assertion)) == (401, "invalid_client")
    assert refusal(await system.asks(system.signed(jti="one\0\ud800"))) == (401, "invalid_client")
    assert (await other.asks(other.signed(jti="one\0\ud800"))).status_code == 200
    later = clock.now() + timedelta(minutes=6)
    monkeypatch.setattr(clock, "now", lambda: later)
    assert refusal(await system.asks(assertion)) == (401, "invalid_client")


async def test_an_assertion_that_does_not_hold_is_refused(
    app: FastAPI, country: Country, client: httpx.AsyncClient, as_: As
) -> None:
    system, other = [await System.register(country, client) for _ in range(2)]
    now = int(clock.now().timestamp())
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    body = system.signed().split(".")[1]
    person = await as_()
    public = str(jwk.construct(system.pem, "ES256").public_key().to_pem().decode())
    token, _ = app.state.tokens.issue(ids.new_id(), system.client_id)
    assertions = {
        "another's key": jwt.encode(system.claims(), other.pem, "ES256"),
        "alg none": f"{none}.{body}.",
        "the public key as a secret": jwt.encode(system.claims(), public[27:], "HS256"),
        "another subject": system.signed(sub=other.client_id),
        "another issuer": system.signed(iss=other.client_id),
        "a person": system.signed(sub=str(person.principal_id)),
        "nobody": system.signed(sub="nobody"),
        "an odd subject": system.signed(sub="\0\ud800"),
        "a subject of another type": system.signed(sub={"a": [1]}),
        "another audience": system.signed(aud="https://other.vn"),
        "another audience too": system.signed(aud=[ISSUER, "https://other.vn"]),
        "no audience": system.signed(aud=None),
        "an empty audience": system.signed(aud=[]),
        "expired": system.signed(exp=now - 1),
        "far too long": system.signed(exp=now + 400),
        "no end": system.signed(exp=None),
        "an odd end": system.signed(exp="soon"),
        "an endless end": system.signed(exp=float("inf")),
        "the future": system.signed(iat=now + 120),
        "not before": system.signed(nbf=now + 120),
        "no jti": system.signed(jti=None),
        "an empty jti": system.signed(jti=""),
        "an odd jti": system.signed(jti=5),
        "a long jti": system.signed(jti="x" * 256),
        "an unknown key": system.signed({"kid": 5}) + "x",
        "an access token of ours": token,
        "nonsense": "nonsense",
        "a list": "W10.W10.W10",
        "": "",
    }
    for name, assertion in assertions.items():
        response = await system.asks(assertion)
        assert refusal(response) == (401, "invalid_client"), (name, response.text)
        assert "www-authenticate" in response.headers
    assert (await system.asks(system.signed(nbf=now))).status_code == 200


async def test_one_way_of_signing_in_at_a_time(country: Country, client: httpx.AsyncClient) -> None:
    system = await System.register(country, client)
    two = await system.asks(system.signed(), client_secret="x")
    assert refusal(two) == (400, "invalid_request")
    other = await system.asks(system.signed(), client_assertion_type="urn:other")
    assert refusal(other) == (401, "invalid_client")
    differing = await system.asks(system.signed(), client_id="somebody")
    assert refusal(differing) == (401, "invalid_client")


async def test_a_key_is_chosen_by_its_name(country: Country, client: httpx.AsyncClient) -> None:
    admin = await country.sign_in(Role.province_admin, at=LAO_CAI)
    (old, old_public), (new, new_public) = pair(), pair("RSA")
    keys = [old_public | {"kid": "2025"}, new_public | {"kid": "2026", "use": "sig"}]
    made = await make(admin, "clients", name="IOC", jwks={"keys": keys})
    first = System(client, made["client_id"], old)
    second = System(client, made["client_id"], new, "RS256")
    for system, kid in ((first, "2025"), (second, "2026"), (first, None), (second, None)):
        headers = {"kid": kid} if kid else None
        assert (await system.asks(system.signed(headers))).status_code == 200
    wrong = await first.asks(first.signed({"kid": "2026"}))
    assert refusal(wrong) == (401, "invalid_client")


async def test_a_system_with_keys_has_no_secret(
    country: Country, client: httpx.AsyncClient
) -> None:
    admin = await country.sign_in(Role.province_admin, at=LAO_CAI)
    _, public = pair()
    made = await make(admin, "clients", name="IOC", jwks={"keys": [public]})
    rotated = await admin.post(f"/v1/clients/{made['id']}:rotate-secret")
    assert rotated.status_code == 409
    assert rotated.json()["errors"][0]["code"] == "signs_with_keys"
    form = {"grant_type": "client_credentials", "client_id": made["client_id"]}
    for secret in ("null", "None", "x"):
        response = await client.post("/oauth/token", data=form | {"client_secret": secret})
        assert refusal(response) == (401, "invalid_client")


async def test_keys_that_cannot_serve_are_refused(country: Country) -> None:
    admin = await country.sign_in(Role.province_admin, at=LAO_CAI)
    _, good = pair()
    _, strong = pair("RSA")
    cases: list[tuple[list[Any], str]] = [
        ([], "/jwks/keys"),
        ([good] * 11, "/jwks/keys"),
        ([good | {"d": "x"}], "/jwks/keys/0/d"),
        ([good | {"kty": "oct"}], "/jwks/keys/0/kty"),
        ([good | {"alg": "HS256"}], "/jwks/keys/0/alg"),
        ([good, {"kty": "EC"}], "/jwks/keys/1"),
        ([good | {"x": "A" * 43}], "/jwks/keys/0"),
        ([good | {"kty": "RSA"}], "/jwks/keys/0"),
        ([strong | {"n": "A" * 342}], "/jwks/keys/0"),
        ([strong | {"e": "AQ"}], "/jwks/keys/0"),
        ([pair("RSA", 1024)[1]], "/jwks/keys/0/n"),
        ([pair(curve=ec.SECP384R1())[1]], "/jwks/keys/0/crv"),
    ]
    for keys, pointer in cases:
        body = {"name": "IOC", "jwks": {"keys": keys}}
        response = await admin.post("/v1/clients", json=body)
        assert response.status_code == 422, (keys, response.text)
        assert pointer in {error["pointer"] for error in response.json()["errors"]}, keys


async def test_a_system_changes_its_keys(country: Country, client: httpx.AsyncClient) -> None:
    admin, other = [await country.sign_in(Role.province_admin, at=LAO_CAI) for _ in range(2)]
    (old, old_public), (new, new_public) = pair(), pair("RSA")
    made = await make(admin, "clients", name="IOC", jwks={"keys": [old_public]})
    first = System(client, made["client_id"], old)
    second = System(client, made["client_id"], new, "RS256")
    path = f"/v1/clients/{made['id']}/jwks"
    replacing = {"keys": [old_public, new_public]}
    assert (await other.put(path, json=replacing)).status_code == 404
    assert (await second.asks(second.signed())).status_code == 401
    both = await admin.put(path, json=replacing)
    assert (both.status_code, both.headers["etag"]) == (200, '"2"'), both.text
    assert (both.json()["client_id"], "client_secret" in both.json()) == (made["client_id"], False)
    for system in (first, second):
        assert (await system.asks(system.signed())).status_code == 200
    weak = await admin.put(path, json={"keys": [new_public, {"kty": "EC"}]})
    assert (weak.status_code, weak.json()["errors"][0]["pointer"]) == (422, "/keys/1")
    assert (await admin.put(path, json={"keys": [new_public]})).status_code == 200
    assert refusal(await first.asks(first.signed())) == (401, "invalid_client")
    assert (await second.asks(second.signed())).status_code == 200


async def test_a_system_changes_its_secret_for_keys(
    country: Country, client: httpx.AsyncClient
) -> None:
    admin = await country.sign_in(Role.province_admin, at=LAO_CAI)
    made = await make(admin, "clients", name="Cổng")
    pem, public = pair()
    system = System(client, made["client_id"], pem)
    form = {"grant_type": "client_credentials", "client_id": made["client_id"]}
    secret = form | {"client_secret": made["client_secret"]}
    assert (await client.post("/oauth/token", data=secret)).status_code == 200
    replaced = await admin.put(f"/v1/clients/{made['id']}/jwks", json={"keys": [public]})
    assert replaced.status_code == 200
    assert refusal(await client.post("/oauth/token", data=secret)) == (401, "invalid_client")
    assert (await system.asks(system.signed())).status_code == 200


async def test_the_metadata_name_the_way(client: httpx.AsyncClient) -> None:
    metadata = (await client.get("/.well-known/oauth-authorization-server")).json()
    assert "private_key_jwt" in metadata["token_endpoint_auth_methods_supported"]
    algorithms = metadata["token_endpoint_auth_signing_alg_values_supported"]
    assert algorithms == ["ES256", "RS256"]
