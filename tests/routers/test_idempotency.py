"""`Idempotency-Key`: the same request again is not done again, and gets the first answer."""

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api.auth.caller import Caller
from api.db import transaction
from api.models.role_grants import Role
from api.routers.idempotency import REPLAYED
from api.services import idempotency
from tests.factories import As, Person, Place, Province, make
from tests.statements import statements

HEADER = "Idempotency-Key"


@pytest.fixture
def na_day(lao_cai: Province) -> Place:
    return lao_cai.muong_khuong


@pytest.fixture
async def officer(as_: As, na_day: Place) -> Person:
    return await as_(Role.commune_admin, at=na_day.unit_id)


def household(place: Place, **changes: Any) -> dict[str, Any]:
    return {"unit_id": place.village["id"], "head_name": "Lù Seo Chư"} | changes


async def post(
    client: httpx.AsyncClient, path: str, key: str | None, body: Any = None, **headers: str
) -> httpx.Response:
    named = {HEADER: key} if key is not None else {}
    return await client.post(f"/v1/{path}", json=body, headers=named | headers)


async def number(superuser: AsyncEngine, table: str) -> int:
    async with superuser.connect() as connection:
        return await connection.scalar(text(f"select count(*) from {table}")) or 0


async def test_the_same_request_again_gets_the_first_answer(
    officer: Person, na_day: Place, superuser: AsyncEngine
) -> None:
    before = await number(superuser, "household")
    first = await post(officer, "households", "k-1", household(na_day, address="Số 2"))
    assert (first.status_code, REPLAYED in first.headers) == (201, False)
    await officer.patch(
        first.headers["location"], json={"address": "Số 3"}, headers={"If-Match": "*"}
    )
    reordered = dict(reversed(household(na_day, address="Số 2").items()))
    again = await post(officer, "households", "k-1", reordered)
    assert (again.status_code, again.headers[REPLAYED]) == (201, "true")
    assert again.content == first.content
    for name in ("content-type", "etag", "location"):
        assert again.headers[name] == first.headers[name]
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert await number(superuser, "household") == before + 1
    another = await post(officer, "households", "k-2", household(na_day, address="Số 2"))
    assert another.json()["id"] != first.json()["id"]


async def test_another_request_under_the_same_key_is_refused(
    officer: Person, na_day: Place
) -> None:
    assert (await post(officer, "households", "k", household(na_day))).status_code == 201
    group = {"name": "Tổ", "unit_id": na_day.village["id"], "kind": "community_team"}
    other: list[tuple[str, Any, dict[str, str]]] = [
        ("households", household(na_day, people_count=2), {}),
        ("teams", group | {"founded_on": "2025-07-10"}, {}),
        (f"households/{na_day.household['id']}:undelete", None, {"If-Match": "*"}),
    ]
    for path, body, headers in other:
        refused = await post(officer, path, "k", body, **headers)
        assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")


async def test_a_verb_is_done_once(na_day: Place, lao_cai: Province) -> None:
    leader = await lao_cai.leader_of(na_day)
    event = await make(leader, "support-events", **na_day.event())
    path = f"support-events/{event['id']}"
    verified = await post(na_day.admin, f"{path}:verify", "v", {}, **{"If-Match": '"1"'})
    assert (verified.status_code, verified.json()["status"]) == (200, "verified")
    reopener = await lao_cai.country.sign_in(Role.province_admin, at=lao_cai.unit_id)
    reopened = await post(reopener, f"{path}:reopen", "v", {"reason": "Xem lại"})
    assert reopened.status_code == 200  # a key is its caller's own
    again = await post(na_day.admin, f"{path}:verify", "v", {}, **{"If-Match": '"1"'})
    assert (again.status_code, again.headers[REPLAYED]) == (200, "true")
    assert again.json() == verified.json()
    shown = await na_day.admin.get(f"/v1/{path}")
    assert (shown.json()["status"], shown.headers["etag"]) == ("submitted", '"3"')
    other_base = await post(na_day.admin, f"{path}:verify", "v", {}, **{"If-Match": '"3"'})
    assert other_base.json()["code"] == "idempotency_key_reused"


async def test_a_refusal_is_not_kept(officer: Person, na_day: Place, as_: As) -> None:
    bad = await post(officer, "households", "k", household(na_day, people_count=0))
    assert bad.status_code == 422
    foreign = household(na_day, unit_id=str(na_day.unit_id))
    assert (await post(officer, "households", "k", foreign)).status_code == 422
    good = await post(officer, "households", "k", household(na_day))
    assert (good.status_code, REPLAYED in good.headers) == (201, False)
    reader = await as_(Role.ioc_reader, at=na_day.unit_id)
    assert (await post(reader, "households", "k", household(na_day))).status_code == 403


async def test_a_key_holds_for_a_day(
    officer: Person, na_day: Place, superuser: AsyncEngine, app: FastAPI
) -> None:
    first = await post(officer, "households", "k", household(na_day))
    await post(officer, "households", "other", household(na_day))
    async with superuser.connect() as connection:
        left = text("select min(expires_at - now()) from idempotency_key")
        hours = (await connection.scalar(left)).total_seconds() / 3600
        assert 23.9 < hours <= 24
        expire = text("update idempotency_key set expires_at = now() - interval '1 second'")
        await connection.execute(expire)
    second = await post(officer, "households", "k", household(na_day, address="Số 9"))
    assert second.status_code == 201
    assert second.json()["id"] != first.json()["id"]
    async with transaction(app.state.engine) as session:
        await idempotency.tidy(session)
    assert await number(superuser, "idempotency_key") == 1


async def test_nothing_that_is_kept_can_be_read(
    officer: Person, na_day: Place, superuser: AsyncEngine, app: FastAPI
) -> None:
    await post(officer, "households", "0912345678", household(na_day))
    async with superuser.connect() as connection:
        (kept,) = (await connection.execute(text("select * from idempotency_key"))).all()
    assert "Lù Seo Chư".encode() not in kept.answer
    assert b"0912345678" not in kept.key_hash
    async with transaction(app.state.engine) as session:  # nor by whoever is nobody
        assert await session.scalar(text("select count(*) from idempotency_key")) == 0


@pytest.mark.parametrize("key", ["", "x" * 256, "khoá", "a\tb", "\x7f"])
async def test_a_key_is_short_and_printable(officer: Person, na_day: Place, key: str) -> None:
    response = await officer.post(
        "/v1/households", json=household(na_day), headers={HEADER.encode(): key.encode()}
    )
    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert (error["pointer"], error["code"]) == (
        "/header/Idempotency-Key",
        "idempotency_key_invalid",
    )


async def test_eight_at_once_with_one_key_run_once(
    officer: Person, na_day: Place, superuser: AsyncEngine
) -> None:
    before = await number(superuser, "household")
    for _ in range(2):
        answers = await asyncio.gather(
            *(post(officer, "households", "k", household(na_day)) for _ in range(8))
        )
        for answer in answers:
            if answer.status_code == 409:
                assert answer.json()["code"] == "idempotency_key_in_flight"
                assert answer.headers["retry-after"]
            else:
                assert answer.status_code == 201
        done = [answer for answer in answers if answer.status_code == 201]
        assert len({answer.content for answer in done}) == 1
    assert all(REPLAYED in answer.headers for answer in done)
    assert await number(superuser, "household") == before + 1


async def test_a_crash_leaves_neither_change_nor_answer(
    officer: Person, na_day: Place, superuser: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails after the change, before the commit, takes both back; the key stays free."""
    before = await number(superuser, "household")
    keep = idempotency.keep

    async def keep_and_break(key: idempotency.Key, answer: idempotency.Answer) -> None:
        await keep(key, answer)
        await key.session.execute(text("select 1 / 0"))

    with monkeypatch.context() as broken:
        broken.setattr(idempotency, "keep", keep_and_break)
        failed = await post(officer, "households", "k", household(na_day))
        assert failed.status_code == 500
    assert await number(superuser, "household") == before
    assert await number(superuser, "idempotency_key") == 0
    done = await post(officer, "households", "k", household(na_day))
    assert (done.status_code, REPLAYED in done.headers) == (201, False)


async def test_a_key_under_way_is_told_at_once(
    officer: Person, na_day: Place, app: FastAPI
) -> None:
    caller: Caller = await app.state.callers.find(officer.principal_id, None)
    async with transaction(app.state.engine) as session:
        await idempotency.take(session, caller, "k", {})
        held = await post(officer, "households", "k", household(na_day))
        assert (held.status_code, held.json()["code"]) == (409, "idempotency_key_in_flight")
        assert held.json()["retryable"] is True
    assert (await post(officer, "households", "k", household(na_day))).status_code == 201


async def test_without_a_key_no_further_statement_runs(
    officer: Person, na_day: Place, app: FastAPI
) -> None:
    await post(officer, "households", None, household(na_day))
    with statements(app) as plain:
        await post(officer, "households", None, household(na_day))
    with statements(app) as keyed:
        await post(officer, "households", "k", household(na_day))
    assert not [one for one in plain if "idempotency_key" in one or "advisory" in one]
    assert len(keyed) == len(plain) + 3


async def test_every_post_takes_a_key_but_where_ids_do_it_or_secrets_are_told(
    app: FastAPI,
) -> None:
    without = set()
    for path in app.openapi()["paths"].values():
        if operation := path.get("post"):
            named = {p["name"].lower() for p in operation.get("parameters", [])}
            if HEADER.lower() not in named:
                without.add(operation["operationId"])
    by_ids = {"run_batch", "create_support_event"}
    secret = {"create_session", "refresh_session", "create_access_token", "create_client"}
    secret |= {"rotate_client_secret", "create_device"}
    oneself = {"change_password", "start_totp", "confirm_totp", "disable_totp"}
    oneself |= {"create_my_identity"}
    assert without == by_ids | secret | oneself
