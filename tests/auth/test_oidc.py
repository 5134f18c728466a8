"""Signing in through other OpenID Connect issuers: npm's `oidc-provider`, as it is."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pyotp
import pytest
from fastapi import FastAPI
from jose.utils import base64url_decode
from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api import clock
from api.app import create_app
from api.auth import issuers
from api.installation import load_settings
from api.models.role_grants import Role
from api.settings import Settings, SettingsError
from tests.conftest import SECRET
from tests.factories import LAO_CAI, MUONG_KHUONG, PASSWORD, As, Province, make
from tests.oidc.provider import Key, Provider, compact, encoded

HIGH = "urn:vn:level:3"


@pytest.fixture(scope="module")
def province() -> Iterator[Provider]:
    """A province's SSO, which signs by RS256."""
    provider = Provider.started(Key("tinh-1"))
    yield provider
    provider.stop()


@pytest.fixture(scope="module")
def nation() -> Iterator[Provider]:
    """Another issuer, which signs by ES256."""
    provider = Provider.started(Key("quoc-gia-1", "ES256"))
    yield provider
    provider.stop()


@pytest.fixture
def moody() -> Iterator[Provider]:
    """An issuer that may go away and come back."""
    provider = Provider.started(Key("moody-1"))
    yield provider
    provider.stop()


@pytest.fixture
def settings(settings: Settings, province: Provider, nation: Provider) -> Settings:
    known = [province.setting(name="SSO Lào Cai"), nation.setting(mfa_acr=[HIGH])]
    return Settings(**settings.model_dump() | {"oidc_issuers": known}, _env_file=None)


@asynccontextmanager
async def service(
    settings: Settings, database: str, **changes: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """Run a worker with other settings, for somebody who is not signed in."""
    app = create_app(Settings(**settings.model_dump() | changes, _env_file=None), database, SECRET)
    async with app.router.lifespan_context(app), visitor(app) as client:
        yield client


def visitor(app: FastAPI, **headers: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(transport=transport, base_url="http://noidai.test", headers=headers)


async def person(as_: As, username: str, provider: Provider, subject: str) -> dict[str, Any]:
    """Let an administrator create a user whom an issuer knows."""
    admin = await as_(Role.commune_admin, at=MUONG_KHUONG)
    identities = [{"issuer": provider.issuer, "subject": subject}]
    who = {"username": username, "password": PASSWORD, "full_name": username}
    return await make(admin, "users", **who, identities=identities)


async def sign_in(client: httpx.AsyncClient, id_token: str, **more: str) -> httpx.Response:
    return await client.post("/v1/sessions", json={"id_token": id_token, **more})


def refused(response: httpx.Response) -> tuple[int, str, str]:
    body = response.json()
    error = body["errors"][0]["code"] if body["errors"] else ""
    return response.status_code, body["code"], error


INVALID = (401, "invalid_credentials", "id_token_invalid")
UNKNOWN = (401, "invalid_credentials", "identity_unknown")
AWAY = (503, "unavailable", "")


def bearer(response: httpx.Response) -> dict[str, str]:
    assert response.status_code == 201, response.text
    return {"Authorization": f"Bearer {response.json()['access_token']}"}


async def written(superuser: AsyncEngine) -> list[Any]:
    """Return what signing in could write."""
    tables = ("session", "external_identity", "used_id_token", "sign_in_failure", "principal")
    async with superuser.connect() as connection:
        counted = " union all ".join(
            f"select '{name}', count(*), max(xmin::text::bigint) from {name}" for name in tables
        )
        return [tuple(row) for row in await connection.execute(text(counted))]


async def test_a_person_signs_in_through_an_issuer(
    client: httpx.AsyncClient, as_: As, province: Provider, nation: Provider
) -> None:
    for provider in (province, nation):
        user = await person(as_, f"can.bo.{provider.key.kid}", provider, "alice")
        response = await sign_in(client, await provider.id_token("alice"))
        assert response.headers["cache-control"] == "no-store"
        me = await client.get("/v1/me", headers=bearer(response))
        assert me.json()["id"] == user["id"]
        tokens = response.json()
        assert tokens["access_token"].count(".") == 2
        refreshed = await client.post(
            "/v1/sessions:refresh", json={"refresh_token": tokens["refresh_token"]}
        )
        assert refreshed.status_code == 200
        ended = await client.delete("/v1/sessions/current", headers=bearer(response))
        assert ended.status_code == 204
        assert (await client.get("/v1/me", headers=bearer(response))).status_code == 401


async def test_a_person_links_an_identity_and_removes_it(
    client: httpx.AsyncClient, as_: As, province: Provider, nation: Provider
) -> None:
    one, other = await as_(), await as_()
    for provider in (province, nation):
        linked = await one.post(
            "/v1/me/identities", json={"id_token": await provider.id_token("a")}
        )
        assert linked.status_code == 201, linked.text
        assert linked.json()["issuer"] == provider.issuer
    again = await one.post("/v1/me/identities", json={"id_token": await nation.id_token("a")})
    assert (again.status_code, again.json()) == (200, linked.json())
    token = await nation.id_token("a")
    theirs = await other.post("/v1/me/identities", json={"id_token": token})
    assert refused(theirs) == (409, "conflict", "taken")
    assert str(one.principal_id) not in theirs.text

    first = (await one.get("/v1/me/identities", params={"limit": 1})).json()
    rest = {"limit": 1, "cursor": first["next_cursor"]}
    second = (await one.get("/v1/me/identities", params=rest)).json()
    assert [i["issuer"] for i in (*first["items"], *second["items"])] == [
        province.issuer,
        nation.issuer,
    ]
    assert set(first["items"][0]) == {"id", "issuer", "created_at"}
    assert (await other.get("/v1/me/identities")).json()["items"] == []

    through = await sign_in(client, token)  # the refusal above did not use it up
    assert (await client.get("/v1/me", headers=bearer(through))).json()["id"] == str(
        one.principal_id
    )
    path = f"/v1/me/identities/{linked.json()['id']}"
    assert (await other.delete(path)).status_code == 404
    assert (await one.delete(path)).status_code == 204
    assert (await one.delete(path)).status_code == 404
    assert (await client.get("/v1/me", headers=bearer(through))).status_code == 401
    assert (await one.get("/v1/me")).status_code == 200
    assert refused(await sign_in(client, await nation.id_token("a"))) == UNKNOWN
    freed = await other.post("/v1/me/identities", json={"id_token": await nation.id_token("a")})
    assert freed.status_code == 201


async def test_nobody_gets_an_account_by_signing_in_elsewhere(
    client: httpx.AsyncClient, as_: As, province: Provider, superuser: AsyncEngine
) -> None:
    user = await person(as_, "can.bo", province, "known")
    before = await written(superuser)
    assert refused(await sign_in(client, await province.id_token("stranger"))) == UNKNOWN
    assert await written(superuser) == before
    async with superuser.connect() as connection:
        disable = text("update principal set disabled_at = now() where id = :id")
        await connection.execute(disable, {"id": user["id"]})
    assert refused(await sign_in(client, await province.id_token("known"))) == UNKNOWN


async def test_the_same_subject_elsewhere_is_somebody_else(
    client: httpx.AsyncClient, as_: As, province: Provider, nation: Provider
) -> None:
    ours = await person(as_, "o.tinh", province, "001")
    assert refused(await sign_in(client, await nation.id_token("001"))) == UNKNOWN
    theirs = await person(as_, "o.trung.uong", nation, "001")
    for user, provider in ((ours, province), (theirs, nation)):
        response = await sign_in(client, await provider.id_token("001"))
        me = await client.get("/v1/me", headers=bearer(response))
        assert me.json()["id"] == user["id"]


def forgeries(province: Provider, nation: Provider) -> dict[str, str]:
    """Return tokens that must not hold, though all but one thing is right."""
    now, key = int(clock.now().timestamp()), province.key
    right = {"iss": province.issuer, "aud": "noidai", "sub": "alice", "iat": now, "exp": now + 60}
    header = {"alg": "RS256", "kid": key.kid}

    def signed(more: dict[str, Any] | None = None, /, **changes: Any) -> str:
        claims = {k: v for k, v in (right | changes).items() if v is not None}
        return compact(header | (more or {}), claims, key.sign)

    def mac(secret: bytes, **more: str) -> str:
        hs256 = header | {"alg": "HS256"} | more
        return compact(hs256, right, lambda s: hmac.digest(secret, s, hashlib.sha256))

    public = key.jwk(public=True)
    inside = Key("tinh-1")
    good = signed()
    start, _, signature = good.rpartition(".")
    deep = b'{"iss":' * 1000
    return {
        "another audience": signed(aud="other"),
        "no audience": signed(aud=None),
        "an empty audience": signed(aud=[]),
        "an odd audience": signed(aud={"noidai": 1}),
        "several audiences, no party": signed(aud=["noidai", "other"]),
        "several audiences, another party": signed(aud=["noidai", "other"], azp="other"),
        "another party": signed(azp="other"),
        "another issuer": signed(iss=nation.issuer),
        "an unknown issuer": signed(iss="https://sso.example.vn"),
        "nearly the issuer": signed(iss=f"{province.issuer}/"),
        "no issuer": signed(iss=None),
        "an odd issuer": signed(iss=[province.issuer]),
        "expired": signed(exp=now),
        "no end": signed(exp=None),
        "an odd end": signed(exp="soon"),
        "true for an end": signed(exp=True),
        "not a number for an end": signed(exp=float("nan")),
        "an endless end": signed(exp=float("inf")),
        "a far end": signed(exp=10**30),
        "the future": signed(iat=now + 90, exp=now + 900),
        "not yet": signed(nbf=now + 90),
        "too old": signed(iat=now - 601),
        "no beginning": signed(iat=None),
        "no subject": signed(sub=None),
        "an empty subject": signed(sub=""),
        "an odd subject": signed(sub=5),
        "a subject with NUL": signed(sub="alice\0"),
        "a subject with half a character": signed(sub="\ud800"),
        "a long subject": signed(sub="a" * 256),
        "odd methods": signed(amr=[{}]),
        "an odd level": signed(acr={"a": [1]}, amr=5, aud="x"),
        "an access token's type": signed({"typ": "at+jwt"}),
        "a logout token": signed(events={"http://schemas.openid.net/event/backchannel-logout": {}}),
        "a logout token by type": signed({"typ": "logout+jwt"}),
        "what must be understood": signed({"crit": ["b64"], "b64": True}),
        "alg none": compact(header | {"alg": "none"}, right, lambda _: b""),
        "alg none, signed": compact(header | {"alg": "none"}, right, key.sign),
        "no alg": compact({"kid": key.kid}, right, key.sign),
        "the public key as a secret": mac(key.public_pem),
        "the public JWK as a secret": mac(json.dumps(public).encode()),
        "the modulus as a secret": mac(public["n"].encode()),
        "another algorithm": compact(header | {"alg": "RS512"}, right, key.sign),
        "the other kind of key": compact(header | {"alg": "ES256"}, right, key.sign),
        "another kid": signed({"kid": "tinh-2"}),
        "an odd kid": signed({"kid": {"a": 1}}),
        "null for a kid": signed({"kid": None}),
        "another's key": compact(header, right, inside.sign),
        "another's key, brought along": compact(
            header | {"jwk": inside.jwk(public=True)}, right, inside.sign
        ),
        "another issuer's key": compact(
            {"alg": "ES256", "kid": nation.key.kid}, right, nation.key.sign
        ),
        "no signature": f"{start}.",
        "another signature": f"{start}.{signature[:-8]}AAAAAAAA",
        "other claims": f"{signed(sub='bob').rpartition('.')[0]}.{signature}",
        "no claims": compact(header, b"", key.sign),
        "a list of claims": compact(header, b"[]", key.sign),
        "deep claims": compact(header, deep[:5000], key.sign),
        "claims that are no text": compact(header, b"\xff\xfe", key.sign),
        "a list of a header": f"{encoded(b'[]')}.{start.partition('.')[2]}.{signature}",
        "a deep header": f"{encoded(b'[' * 5000)}.e30.x",
        "nonsense": "nonsense",
        "dots": "..",
        "letters of another alphabet": "ế.ế.ế",
    }


async def test_a_token_that_does_not_hold_is_refused(
    client: httpx.AsyncClient,
    as_: As,
    province: Provider,
    nation: Provider,
    superuser: AsyncEngine,
) -> None:
    await person(as_, "can.bo", province, "alice")
    me = await as_()
    real = await province.tokens("alice")
    cases = forgeries(province, nation) | {
        "a real token for somebody else": await province.id_token("alice", "other"),
        "a real access token": real["access_token"],
    }
    before = await written(superuser)
    for name, token in cases.items():
        assert refused(await sign_in(client, token)) == INVALID, name
        linking = await me.post("/v1/me/identities", json={"id_token": token})
        assert refused(linking) == (422, "validation_failed", "id_token_invalid"), name
    for body in ({"id_token": "x" * 8193}, {"id_token": ""}, {"id_token": "a\0"}):
        assert (await client.post("/v1/sessions", json=body)).status_code == 422
    assert await written(superuser) == before
    assert (await sign_in(client, real["id_token"])).status_code == 201


async def test_what_an_issuer_may_say_differently_holds(
    client: httpx.AsyncClient, as_: As, province: Provider
) -> None:
    await person(as_, "can.bo", province, "alice")
    now, key = int(clock.now().timestamp()), province.key
    claims = {"iss": province.issuer, "sub": "alice", "iat": now, "exp": now + 60}
    for header, more in (
        ({"typ": "JWT", "kid": key.kid}, {"aud": ["noidai"]}),
        ({"kid": key.kid}, {"aud": ["other", "noidai"], "azp": "noidai"}),
        ({}, {"aud": "noidai", "nbf": now}),
        ({"kid": key.kid}, {"aud": "noidai", "iat": now + 30.5}),
    ):
        token = compact({"alg": "RS256"} | header, claims | more, key.sign)
        assert (await sign_in(client, token)).status_code == 201, (header, more)


async def test_an_id_token_signs_in_once(
    client: httpx.AsyncClient,
    as_: As,
    nation: Provider,
    superuser: AsyncEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await person(as_, "can.bo", nation, "alice")
    token = await nation.id_token("alice")
    answers = await asyncio.gather(*(sign_in(client, token) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [201] + [401] * 19
    async with superuser.connect() as connection:
        assert await connection.scalar(text("select count(*) from session")) == 1
    start, _, signature = token.rpartition(".")
    assert refused(await sign_in(client, token)) == INVALID
    assert refused(await sign_in(client, f"{start}.{signature}=")) == INVALID
    me = await as_()
    linking = await me.post("/v1/me/identities", json={"id_token": token})
    assert refused(linking) == (422, "validation_failed", "id_token_invalid")

    later = clock.now() + timedelta(minutes=12)
    monkeypatch.setattr(clock, "now", lambda: later)
    assert refused(await sign_in(client, token)) == INVALID
    claims = {"iss": nation.issuer, "aud": "noidai", "sub": "alice"}
    times = {"iat": int(later.timestamp()), "exp": int(later.timestamp()) + 60}
    header = {"alg": "ES256", "kid": nation.key.kid}
    assert (
        await sign_in(client, compact(header, claims | times, nation.key.sign))
    ).status_code == 201
    async with superuser.connect() as connection:  # what is too old anyway is forgotten
        assert await connection.scalar(text("select count(*) from used_id_token")) == 1


async def test_one_identity_links_to_one_person_at_the_same_moment(
    as_: As, province: Provider, superuser: AsyncEngine
) -> None:
    people = [await as_() for _ in range(8)]
    tokens = [await province.id_token("wanted") for _ in people]
    answers = await asyncio.gather(
        *(
            somebody.post("/v1/me/identities", json={"id_token": token})
            for somebody, token in zip(people, tokens, strict=True)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    async with superuser.connect() as connection:
        assert await connection.scalar(text("select count(*) from external_identity")) == 1


async def test_an_identity_that_is_removed_while_it_signs_in_leaves_no_session(
    client: httpx.AsyncClient, as_: As, province: Provider, superuser: AsyncEngine
) -> None:
    me = await as_()
    for _ in range(5):
        first, *tokens = [await province.id_token("alice") for _ in range(4)]
        linked = await me.post("/v1/me/identities", json={"id_token": first})
        path = f"/v1/me/identities/{linked.json()['id']}"
        removed, *answers = await asyncio.gather(
            me.delete(path), *(sign_in(client, token) for token in tokens)
        )
        assert removed.status_code == 204
        assert {answer.status_code for answer in answers} <= {201, 401, 503}
        async with superuser.connect() as connection:
            assert await connection.scalar(text("select count(*) from session")) == 0


async def test_who_somebody_is_elsewhere_is_not_kept(
    client: httpx.AsyncClient,
    as_: As,
    province: Provider,
    superuser: AsyncEngine,
    caplog: pytest.LogCaptureFixture,
) -> None:
    citizen = "001099012345"
    user = await person(as_, "can.bo", province, citizen)
    response = await sign_in(client, await province.id_token(citizen))
    me = await client.get("/v1/me/identities", headers=bearer(response))
    assert citizen not in json.dumps(user) + me.text + caplog.text
    async with superuser.connect() as connection:
        for table in ("external_identity", "used_id_token", "session", "principal"):
            whole = f"select string_agg(t::text, '') from {table} t"
            rows = await connection.scalar(text(whole))
            assert citizen not in rows
            assert citizen.encode().hex() not in rows


async def test_who_an_erased_person_was_elsewhere_is_forgotten(
    client: httpx.AsyncClient,
    as_: As,
    lao_cai: Province,
    province: Provider,
    superuser: AsyncEngine,
) -> None:
    place = lao_cai.muong_khuong
    user = {"username": "to.truong", "password": PASSWORD, "full_name": "Tổ trưởng"}
    identities = [{"issuer": province.issuer, "subject": "leader"}]
    member = {"member_id": place.leader["id"], "identities": identities}
    made = await make(place.admin, "users", **user, **member)
    assert (await sign_in(client, await province.id_token("leader"))).status_code == 201
    officer = await as_(Role.dpo, at=MUONG_KHUONG)
    named = {"person": {"member_id": place.leader["id"]}, "kind": "erasure"}
    asked = await make(officer, "data-subject-requests", **named)
    path = f"/v1/data-subject-requests/{asked['id']}"
    held = (await officer.get(f"{path}/export")).json()["identities"]
    assert [(row["issuer"], "subject_hash" in row) for row in held] == [(province.issuer, False)]
    fulfilled = await officer.post(f"{path}:fulfil", json={})
    assert fulfilled.status_code == 200, fulfilled.text
    assert refused(await sign_in(client, await province.id_token("leader"))) == UNKNOWN
    async with superuser.connect() as connection:
        assert await connection.scalar(text("select count(*) from external_identity")) == 0
    auditor = await as_(Role.auditor)
    found = await auditor.get("/v1/audit-entries", params={"resource": "identities"})
    entries = found.json()["items"]
    assert {entry["action"] for entry in entries} == {"create", "delete"}
    for entry in entries:
        shown = entry["after"] or entry["before"]
        assert (shown["principal_id"], shown["issuer"]) == (made["id"], province.issuer)
        assert shown["subject_hash"] == "***"


async def test_an_issuer_may_change_its_keys(
    as_: As,
    settings: Settings,
    database: str,
    moody: Provider,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    me = await as_()
    token = me.headers["Authorization"]
    async with service(settings, database, oidc_issuers=[moody.setting()]) as worker:
        link = {"id_token": await moody.id_token("alice")}
        linked = await worker.post("/v1/me/identities", json=link, headers={"Authorization": token})
        assert linked.status_code == 201, linked.text
        old = moody.key
        moody.rotate(Key("moody-2"))
        fresh = await moody.id_token("alice")
        assert refused(await sign_in(worker, fresh)) == INVALID  # its keys were read just now
        later = clock.now() + issuers.ASK_AGAIN
        monkeypatch.setattr(clock, "now", lambda: later)
        assert (await sign_in(worker, fresh)).status_code == 201
        claims = {"iss": moody.issuer, "aud": "noidai", "sub": "alice"}
        times = {"iat": int(later.timestamp()), "exp": int(later.timestamp()) + 60}
        worn = compact({"alg": "RS256", "kid": old.kid}, claims | times, old.sign)
        assert refused(await sign_in(worker, worn)) == INVALID


async def test_an_issuer_that_is_away_holds_up_only_its_own(
    as_: As,
    settings: Settings,
    database: str,
    province: Provider,
    moody: Provider,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await person(as_, "can.bo", province, "alice")
    admin = await as_(Role.commune_admin, at=MUONG_KHUONG)
    token, unused = [await moody.id_token("bob") for _ in range(2)]
    moody.stop()
    both = [province.setting(), moody.setting()]
    async with service(settings, database, oidc_issuers=both) as worker:
        away = await asyncio.gather(*(sign_in(worker, token) for _ in range(20)))
        assert {refused(response) for response in away} == {AWAY}
        assert away[0].headers["retry-after"]
        assert f"the keys of {moody.issuer} cannot be read" in caplog.text
        assert len(caplog.records) == 1  # one asked for all of them
        assert (await sign_in(worker, await province.id_token("alice"))).status_code == 201
        password = {"username": "can.bo", "password": PASSWORD}
        assert (await worker.post("/v1/sessions", json=password)).status_code == 201

        moody.start()
        assert refused(await sign_in(worker, token)) == AWAY  # not asked again so soon
        now = clock.now() + issuers.TRY_AGAIN
        monkeypatch.setattr(clock, "now", lambda: now)
        assert refused(await sign_in(worker, token)) == UNKNOWN
        headers = {"Authorization": admin.headers["Authorization"]}
        link = {"id_token": token}
        linked = await worker.post("/v1/me/identities", json=link, headers=headers)
        assert linked.status_code == 201

        moody.stop()  # what is known stays known for an hour, whatever names are invented
        invented = compact({"alg": "RS256", "kid": "x"}, claims_of(token), moody.key.sign)
        assert refused(await sign_in(worker, invented)) == INVALID
        assert (await sign_in(worker, unused)).status_code == 201
        now += timedelta(seconds=31)
        assert refused(await sign_in(worker, invented)) == AWAY
        now += timedelta(hours=1)
        times = {"iat": int(now.timestamp()), "exp": int(now.timestamp()) + 60}
        header = {"alg": "RS256", "kid": moody.key.kid}
        late = compact(header, claims_of(token) | times, moody.key.sign)
        assert refused(await sign_in(worker, late)) == AWAY


def claims_of(token: str) -> dict[str, Any]:
    body = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64url_decode(body.encode()))
    return found


@asynccontextmanager
async def listener(answers: dict[str, bytes]) -> AsyncIterator[str]:
    """Listen as an issuer that answers with these bytes, or with silence; yields its URL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        if path in answers:
            writer.write(answers[path])
        else:
            await reader.read()  # until whoever asks gives up
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def http(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Connection: close", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def test_documents_that_cannot_be_trusted_are_not(
    settings: Settings, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    answers: dict[str, bytes] = {}
    key = Key("k", "ES256")
    keys = json.dumps({"keys": [key.jwk(public=True)]}).encode()
    async with listener(answers) as issuer:

        def about(**changes: Any) -> bytes:
            return http(
                json.dumps({"issuer": issuer, "jwks_uri": f"{issuer}/jwks"} | changes).encode()
            )

        now = int(clock.now().timestamp())
        claims = {"iss": issuer, "aud": "noidai", "sub": "a", "iat": now, "exp": now + 60}
        token = compact({"alg": "ES256", "kid": "k"}, claims, key.sign)
        elsewhere = f"Location: {issuer}/there"
        large = b" " * issuers.LARGEST
        cases: dict[str, tuple[bytes, bytes, tuple[int, str, str]]] = {
            "right": (about(), http(keys), UNKNOWN),
            "another issuer": (about(issuer=f"{issuer}/"), http(keys), AWAY),
            "no place": (about(jwks_uri=None), http(keys), AWAY),
            "no TLS": (about(jwks_uri="http://10.0.0.1/jwks"), http(keys), AWAY),
            "a file": (about(jwks_uri="file:///etc/passwd"), http(keys), AWAY),
            "no URL": (about(jwks_uri="https://[/"), http(keys), AWAY),
            "an odd port": (about(jwks_uri="https://a:b/"), http(keys), AWAY),
            "redirected": (http(b"", "302 Found", elsewhere), http(keys), AWAY),
            "keys redirected": (about(), http(b"", "302 Found", elsewhere), AWAY),
            "a fault": (http(b"{}", "500 Oh"), http(keys), AWAY),
            "no JSON": (http(b"<html>"), http(keys), AWAY),
            "deep JSON": (http(b"[" * 60_000), http(keys), AWAY),
            "a list": (http(b"[]"), http(keys), AWAY),
            "no HTTP": (b"hello\r\n\r\n", http(keys), AWAY),
            "too large": (about(), http(keys + large), AWAY),
            "compressed": (about(), http(keys, "200 OK", "Content-Encoding: gzip"), UNKNOWN),
            "no keys": (about(), http(b"{}"), AWAY),
            "none": (about(), http(b'{"keys": []}'), INVALID),
            "odd keys": (about(), http(b'{"keys": [5, {}, {"kid": "k", "kty": "EC"}]}'), INVALID),
            "a key to encrypt": (about(), http(keys.replace(b'"sig"', b'"enc"')), INVALID),
        }
        for name, (configuration, published, wanted) in cases.items():
            answers |= {issuers.DISCOVERY: configuration, "/jwks": published}
            given = [{"issuer": issuer, "audience": "noidai"}]
            async with service(settings, database, oidc_issuers=given) as worker:
                assert refused(await sign_in(worker, token)) == wanted, name
    assert "another issuer" in caplog.text


async def test_weak_and_unwanted_keys_verify_nothing(
    settings: Settings, database: str, province: Provider, as_: As
) -> None:
    await person(as_, "can.bo", province, "alice")
    given = [province.setting(algorithms=["ES256"])]
    async with service(settings, database, oidc_issuers=given) as worker:
        assert refused(await sign_in(worker, await province.id_token("alice"))) == INVALID


@pytest.mark.parametrize("path", ["/v1/sessions", "/v1/me/identities"])
async def test_no_connection_is_held_while_an_issuer_is_silent(
    path: str, settings: Settings, database: str, as_: As, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuers, "PATIENCE", 1.5)
    me = await as_()
    headers = {"Authorization": me.headers["Authorization"]}
    async with listener({}) as issuer:
        now = int(clock.now().timestamp())
        claims = {"iss": issuer, "aud": "noidai", "sub": "a", "iat": now, "exp": now + 60}
        token = compact({"alg": "ES256"}, claims, Key("k", "ES256").sign)
        given = [{"issuer": issuer, "audience": "noidai"}]
        few = {"oidc_issuers": given, "database_pool_size": 2}
        async with service(settings, database, **few) as worker:
            waiting = [
                asyncio.create_task(worker.post(path, json={"id_token": token}, headers=headers))
                for _ in range(5)
            ]
            await asyncio.sleep(0.5)
            async with asyncio.timeout(0.9):
                assert (await worker.get("/v1/me/identities", headers=headers)).status_code == 200
            assert not any(task.done() for task in waiting)
            assert {refused(await task) for task in waiting} == {AWAY}


async def test_an_administrator_needs_a_second_factor_here_or_there(
    as_: As, settings: Settings, database: str, province: Provider, nation: Provider
) -> None:
    admin = await as_(Role.national_admin)
    user = await make(
        admin,
        "users",
        username="quan.tri",
        password=PASSWORD,
        full_name="Quản trị",
        identities=[{"issuer": p.issuer, "subject": "boss"} for p in (province, nation)],
    )
    grant = {"role": "province_admin", "unit_id": str(LAO_CAI)}
    await make(admin, "role-grants", principal_id=user["id"], **grant)
    async with service(settings, database, require_admin_mfa=True) as worker:

        async def entered(provider: Provider, acr: str | None = None) -> int:
            token = await provider.id_token("boss", acr=acr)
            response = await sign_in(worker, token)
            teams = await worker.get("/v1/teams", headers=bearer(response))
            return teams.status_code

        assert await entered(province) == 401
        assert await entered(province, "amr:mfa") == 200
        assert await entered(province, HIGH) == 401  # this level counts at the other issuer only
        assert await entered(nation, HIGH) == 200
        assert await entered(nation, "urn:vn:level:1") == 401

        headers = bearer(await sign_in(worker, await province.id_token("boss", acr="amr:mfa")))
        begun = (await worker.post("/v1/me/totp", headers=headers)).json()
        totp = pyotp.TOTP(begun["secret"])
        before = totp.at(clock.now() - timedelta(seconds=30))
        confirmed = await worker.post("/v1/me/totp:confirm", json={"otp": before}, headers=headers)
        assert confirmed.status_code == 200, confirmed.text
        token = await province.id_token("boss")
        assert refused(await sign_in(worker, token)) == (401, "otp_required", "missing")
        wrong = await sign_in(worker, token, otp="000000")
        assert refused(wrong) == (401, "invalid_credentials", "otp_wrong")
        right = await sign_in(worker, token, otp=totp.at(clock.now()))
        assert (await worker.get("/v1/teams", headers=bearer(right))).status_code == 200
        assert await entered(province, "amr:mfa") == 200


async def test_identities_of_a_new_user(as_: As, province: Provider, nation: Provider) -> None:
    admin = await as_(Role.commune_admin, at=MUONG_KHUONG)
    who = {"password": PASSWORD, "full_name": "Cán bộ"}
    one = {"issuer": province.issuer, "subject": "1"}
    two = {"issuer": nation.issuer, "subject": "1"}
    body = who | {"id": "01890000-0000-7000-8000-000000000001", "identities": [one, two]}
    made = await admin.post("/v1/users", json=body | {"username": "mot"})
    assert made.status_code == 201
    assert (await admin.post("/v1/users", json=body | {"username": "mot"})).status_code == 200
    cases: list[tuple[list[Any], int, str]] = [
        ([one], 409, "/identities/0"),
        ([{**one, "subject": "2"}, two], 409, "/identities/1"),
        ([{"issuer": "https://sso.example.vn", "subject": "2"}], 422, "/identities/0/issuer"),
        ([{**one, "subject": "2"}] * 2, 422, "/identities/1"),
        ([{**one, "subject": "ế"}], 422, "/identities/0/subject"),
        ([{**one, "subject": "x" * 256}], 422, "/identities/0/subject"),
        ([{**one, "subject": str(n)} for n in range(11)], 422, "/identities"),
    ]
    for identities, status, pointer in cases:
        body = who | {"username": "hai", "identities": identities}
        response = await admin.post("/v1/users", json=body)
        assert response.status_code == status, (identities, response.text)
        assert response.json()["errors"][0]["pointer"] == pointer
        assert "mot" not in response.text
    assert (await admin.post("/v1/users", json=who | {"username": "hai"})).status_code == 201


async def test_one_way_of_signing_in_at_a_time(client: httpx.AsyncClient) -> None:
    cases: list[tuple[dict[str, str], set[tuple[str, str]]]] = [
        (
            {"id_token": "x", "username": "a"},
            {("/id_token", "not_together"), ("/password", "missing")},
        ),
        ({"id_token": "x", "enrolment_code": "a"}, {("/enrolment_code", "not_together")}),
        ({"id_token": "x", "device_name": "a"}, {("/device_name", "not_together")}),
    ]
    for body, wanted in cases:
        response = await client.post("/v1/sessions", json=body)
        errors = response.json()["errors"]
        assert response.status_code == 422
        assert {(error["pointer"], error["code"]) for error in errors} == wanted


async def test_systems_and_devices_have_no_identities(
    app: FastAPI, client: httpx.AsyncClient, as_: As, province: Provider
) -> None:
    admin = await as_(Role.commune_admin, at=MUONG_KHUONG)
    system = await make(admin, "clients", name="Cổng")
    token, _ = app.state.tokens.issue(system["id"], system["id"])
    response = await client.post(
        "/v1/me/identities",
        json={"id_token": await province.id_token("alice")},
        headers={"Authorization": f"Bearer {token}"},
    )
    assert refused(response)[:2] == (403, "insufficient_role")


@pytest.mark.parametrize(
    "given",
    [
        "{",
        "5",
        '["https://sso.example.vn"]',
        '[{"issuer": "https://sso.example.vn"}]',
        '[{"issuer": "http://sso.example.vn", "audience": "a"}]',
        '[{"issuer": "http://127.0.0.1.example.vn", "audience": "a"}]',
        '[{"issuer": "https://sso.example.vn?a=b", "audience": "a"}]',
        '[{"issuer": "https://a@sso.example.vn", "audience": "a"}]',
        '[{"issuer": "https://", "audience": "a"}]',
        '[{"issuer": "https://sso.example.vn", "audience": ""}]',
        '[{"issuer": "https://sso.example.vn", "audience": "a", "algorithms": ["none"]}]',
        '[{"issuer": "https://sso.example.vn", "audience": "a", "algorithms": ["HS256"]}]',
        '[{"issuer": "https://sso.example.vn", "audience": "a", "algorithms": []}]',
        '[{"issuer": "https://sso.example.vn", "audience": "a", "audiences": "b"}]',
        json.dumps([{"issuer": "https://sso.example.vn", "audience": a} for a in "ab"]),
    ],
)
def test_a_wrong_setting_is_said_in_one_line(
    given: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NOIDAI_OIDC_ISSUERS", given)
    with pytest.raises(SettingsError, match=r"^NOIDAI_OIDC_ISSUERS: .+$") as told:
        load_settings()
    assert "\n" not in str(told.value)


def test_settings_of_issuers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(
        "NOIDAI_OIDC_ISSUERS", '[{"issuer": "https://sso.example.vn", "audience": "noidai"}]'
    )
    (issuer,) = Settings().oidc_issuers
    assert (issuer.audience, issuer.algorithms) == ("noidai", ("RS256", "ES256"))
    with pytest.raises(ValidationError):
        issuer.audience = "another"  # type: ignore[misc]  # frozen: that is tried
    for here in ("http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"):
        monkeypatch.setenv(
            "NOIDAI_OIDC_ISSUERS", json.dumps([{"issuer": here, "audience": "noidai"}])
        )
        assert Settings().oidc_issuers
