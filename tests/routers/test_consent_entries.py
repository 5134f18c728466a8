"""The ledger of consent: no path changes a legal basis without an entry."""

from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from api import ids
from api.db import create_engine
from api.models.role_grants import Role
from tests.factories import LAO_CAI, As, Province, make
from tests.rules import Row, ids_in, same_answer, walk

CONSENT = {
    "basis": "consent",
    "notice_version": "2026-01",
    "method": "bà Dở ký tay",
    "given_at": "2026-01-05T02:00:00Z",
    "withdrawn_at": None,
}
FIELDS = tuple(CONSENT)


async def ledger(client: httpx.AsyncClient, household: str) -> list[dict[str, Any]]:
    entries = await walk(client, f"households/{household}/consent-entries", limit=2)
    return [{name: entry[name] for name in FIELDS} for entry in entries]


async def test_every_change_of_the_legal_basis_is_entered(as_: As, lao_cai: Province) -> None:
    place = lao_cai.muong_khuong
    body = {"unit_id": place.village["id"], "head_name": "Lù Thị Dở"}
    plain = await make(place.admin, "households", **body)
    assert await ledger(place.admin, plain["id"]) == []
    made = await make(place.admin, "households", **body, consent=CONSENT)
    row = Row(place.admin, "households", made["id"])
    expected = [CONSENT]
    assert await ledger(place.admin, row.id) == expected
    await row.patch(people_count=4)
    await row.patch(consent=CONSENT)
    assert await ledger(place.admin, row.id) == expected
    withdrawn = {"withdrawn_at": "2026-02-01T00:00:00Z"}
    state = {"basis": "state_management"}
    for change, entry in (
        (withdrawn, CONSENT | withdrawn),
        (None, dict.fromkeys(FIELDS)),
        (state, dict.fromkeys(FIELDS) | state),
    ):
        assert (await row.patch(consent=change)).status_code == 200
        expected.append(entry)
    assert await ledger(place.admin, row.id) == expected
    entries = await walk(place.admin, f"households/{row.id}/consent-entries")
    assert {entry["household_id"] for entry in entries} == {row.id}
    who = (await place.admin.get("/v1/me")).json()["id"]
    assert {entry["recorded_by"] for entry in entries} == {who}
    assert entries[-1]["recorded_at"] == (await row.get())["updated_at"]

    item = {"op": "update", "id": row.id, "if_match": "*", "data": {"consent": CONSENT}}
    (result,) = (await place.admin.post("/v1/batch", json={"households": [item]})).json()["results"]
    assert result["status"] == 200
    portal = await as_(Role.portal_client, at=LAO_CAI)
    url = "/v1/households/by-external-id/portal/1"
    upsert = await portal.put(url, json=body | {"consent": CONSENT})
    assert await ledger(portal, upsert.json()["id"]) == [CONSENT]
    assert await ledger(place.admin, row.id) == [*expected, CONSENT]


async def test_the_ledger_is_read_with_its_household_and_its_method_with_its_people(
    as_: As, lao_cai: Province
) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    row = Row(here.admin, "households", here.household["id"])
    await row.patch(consent=CONSENT)
    path = f"/v1/households/{row.id}/consent-entries"
    unseen = await there.admin.get(path)
    absent = await there.admin.get(path.replace(row.id, str(ids.new_id())))
    assert same_answer(unseen, absent)
    assert unseen.status_code == 404
    for role in (Role.province_admin, Role.auditor, Role.portal_client):
        masked = await as_(role, at=LAO_CAI)
        (entry,) = (await masked.get(path)).json()["items"]
        assert (entry["method"], entry["masked"]) == (None, ["method"])
        home = await Row(masked, "households", row.id).get()
        assert home["consent"] == CONSENT | {"method": None}
        assert "consent.method" in home["masked"]
    portal = await as_(Role.portal_client, at=LAO_CAI)
    change = {"notice_version": "2026-02"}
    changed = await Row(portal, "households", row.id).patch(consent=change)
    assert changed.json()["consent"] == CONSENT | change | {"method": None}
    assert (await row.get())["consent"] == CONSENT | change  # what was masked is merged, not lost

    moved = await Row(portal, "households", row.id).patch(unit_id=there.village["id"])
    assert moved.status_code == 200
    assert (await here.admin.get(path)).status_code == 404
    assert [entry["method"] for entry in await ledger(there.admin, row.id)] == ["bà Dở ký tay"] * 2


async def test_withdrawn_consent_masks_for_every_reader(lao_cai: Province) -> None:
    place = lao_cai.muong_khuong
    row = Row(place.admin, "households", place.household["id"])
    leader = await lao_cai.leader_of(place)
    await row.patch(consent=CONSENT)
    assert (await row.get())["masked"] == []
    await row.patch(consent={"withdrawn_at": "2026-02-01T00:00:00Z"})
    for client in (place.admin, leader):
        shown = await Row(client, "households", row.id).get()
        assert [shown[name] for name in ("head_name", "address", "phone")] == [None] * 3
        assert shown["masked"] == ["address", "head_name", "phone"]
        assert await ids_in(client, "households", q="chu ho") == set()
    await row.patch(consent={"basis": "state_management"})
    assert (await row.get())["masked"] == []


async def test_entries_are_never_changed_or_taken_back(
    lao_cai: Province, database: str, superuser: AsyncEngine
) -> None:
    place = lao_cai.muong_khuong
    row = Row(place.admin, "households", place.household["id"])
    await row.patch(consent=CONSENT)
    engine = create_engine(database)
    for statement in ("update consent_entry set basis = null", "delete from consent_entry"):
        with pytest.raises(DBAPIError, match="permission denied"):
            async with engine.begin() as connection:
                await connection.execute(text(statement))
    async with engine.begin() as connection:  # without a scope, none is there to be read
        assert await connection.scalar(text("select count(*) from consent_entry")) == 0
    await engine.dispose()
    async with superuser.connect() as connection:
        assert await connection.scalar(text("select count(*) from consent_entry")) == 1
