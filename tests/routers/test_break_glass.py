"""Breaking the glass: people in clear for an hour, in one's own province, for a reason."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from api import clock, ids
from api.models.role_grants import Role
from tests.factories import (
    HA_NOI,
    LAO_CAI,
    MUONG_KHUONG,
    NATION,
    As,
    Person,
    Place,
    Province,
    make,
)
from tests.rules import Row, fault, ids_in, problem, same_answer

REASON = "Xác minh phản ánh số 12/2026"


async def names(client: httpx.AsyncClient, place: Place) -> list[Any]:
    """Return what a caller reads of a place's household and of its leader."""
    household = await Row(client, "households", place.household["id"]).get()
    leader = await Row(client, "members", place.leader["id"]).get()
    return [household["head_name"], household["phone"], leader["full_name"], leader["birth_year"]]


def clear(place: Place) -> list[Any]:
    return [
        *(place.household[name] for name in ("head_name", "phone")),
        *(place.leader[name] for name in ("full_name", "birth_year")),
    ]


def renew(person: Person, province: Province) -> None:
    """Give somebody an access token of the present moment."""
    token, _ = province.country.app.state.tokens.issue(person.principal_id, "tests")
    person.headers["Authorization"] = f"Bearer {token}"


async def test_broken_glass_unmasks_one_unit_for_sixty_minutes(
    as_: As, lao_cai: Province, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    province = await as_(Role.province_admin, at=LAO_CAI)
    colleague = await as_(Role.province_admin, at=LAO_CAI)
    assert await names(province, here) == [None] * 4
    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now)
    body = {"id": str(ids.new_id()), "unit_id": str(MUONG_KHUONG), "reason": REASON}
    broken = await province.post("/v1/break-glass", json=body)
    assert broken.status_code == 201
    assert broken.headers["location"] == f"/v1/break-glass/{body['id']}"
    right = broken.json()
    assert (right["unit_id"], right["reason"]) == (body["unit_id"], REASON)
    assert right["principal_id"] == str(province.principal_id)
    expiry = (now + timedelta(minutes=60)).isoformat().replace("+00:00", "Z")
    assert right["expires_at"] == expiry
    again = await province.post("/v1/break-glass", json=body)
    assert (again.status_code, again.json()) == (200, right)

    assert await names(province, here) == clear(here)
    assert await names(province, there) == [None] * 4
    assert await names(colleague, here) == [None] * 4
    assert await ids_in(province, "households", q="chu ho") == {here.household["id"]}
    assert problem(await Row(province, "households", here.household["id"]).patch(address="X")) == (
        403,
        "insufficient_role",
    )
    for minutes, expected in ((59, clear(here)), (60, [None] * 4)):
        then = now + timedelta(minutes=minutes)
        monkeypatch.setattr(clock, "now", lambda then=then: then)
        renew(province, lao_cai)
        assert await names(province, here) == expected
    roles = [grant["role"] for grant in (await province.get("/v1/me")).json()["grants"]]
    assert roles == ["province_admin"]


async def test_broken_glass_stays_on_record_and_may_be_mended(as_: As, lao_cai: Province) -> None:
    here = lao_cai.muong_khuong
    province = await as_(Role.province_admin, at=LAO_CAI)
    colleague = await as_(Role.province_admin, at=LAO_CAI)
    right = await make(province, "break-glass", unit_id=str(MUONG_KHUONG), reason=REASON)
    theirs = Row(colleague, "break-glass", right["id"])
    assert await theirs.get() == right
    assert await ids_in(colleague, "break-glass") == {right["id"]}
    assert await ids_in(colleague, "break-glass", principal_id=str(colleague.principal_id)) == set()
    assert problem(await theirs.delete()) == (403, "insufficient_role")
    nation = await as_(Role.national_admin, at=NATION)
    (listed,) = (await nation.get("/v1/role-grants?role=break_glass")).json()["items"]
    assert (listed["reason"], listed["expires_at"]) == (REASON, right["expires_at"])
    own = Row(province, "break-glass", right["id"])
    assert problem(await province.delete(own.url)) == (428, "precondition_required")
    assert problem(await own.delete('"7"')) == (412, "precondition_failed")
    assert (await own.delete('"1"')).status_code == 204
    assert await names(province, here) == [None] * 4
    assert (await own.get())["ended_at"] is not None
    assert problem(await own.delete()) == (404, "not_found")


async def test_glass_is_broken_only_by_its_administrator_at_home(
    as_: As, superuser: AsyncEngine
) -> None:
    province = await as_(Role.province_admin, at=LAO_CAI)
    body = {"unit_id": str(HA_NOI), "reason": REASON}
    foreign = await province.post("/v1/break-glass", json=body)
    assert fault(foreign) == (422, "/unit_id", "not_found")
    absent = await province.post("/v1/break-glass", json=body | {"unit_id": str(ids.new_id())})
    assert same_answer(foreign, absent)
    for reason in (None, "", " "):
        lacking = await province.post(
            "/v1/break-glass", json={"unit_id": str(MUONG_KHUONG), "reason": reason}
        )
        assert fault(lacking)[:2] == (422, "/reason")
    for role, at in (
        (Role.national_admin, NATION),
        (Role.commune_admin, MUONG_KHUONG),
        (Role.auditor, LAO_CAI),
        (Role.dpo, LAO_CAI),
        (Role.portal_client, LAO_CAI),
        (Role.break_glass, LAO_CAI),
    ):
        other = await as_(role, at=at)
        refused = await other.post("/v1/break-glass", json=body)
        assert problem(refused) == (403, "insufficient_role")
    right = await make(province, "break-glass", unit_id=str(MUONG_KHUONG), reason=REASON)
    elsewhere = await as_(Role.province_admin, at=HA_NOI)
    unseen = await elsewhere.get(f"/v1/break-glass/{right['id']}")
    assert same_answer(unseen, await elsewhere.get(f"/v1/break-glass/{ids.new_id()}"))
    given = await province.post(
        "/v1/role-grants",
        json={
            "principal_id": str(elsewhere.principal_id),
            "role": "break_glass",
            "unit_id": str(MUONG_KHUONG),
        },
    )
    assert problem(given) == (403, "insufficient_role")
    forever = text("update role_grant set expires_at = null where role = 'break_glass'")
    async with superuser.connect() as connection:
        with pytest.raises(IntegrityError, match="role_grant_glass_mends"):
            await connection.execute(forever)


async def test_broken_glass_alone_opens_nothing(as_: As, lao_cai: Province) -> None:
    somebody = await as_(Role.break_glass, at=LAO_CAI)
    assert problem(await somebody.get("/v1/households")) == (403, "insufficient_role")
    auditor = await as_(Role.auditor, at=LAO_CAI)
    assert await names(auditor, lao_cai.muong_khuong) == [None] * 4
