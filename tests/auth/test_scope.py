"""Scope is written twice: either half alone lets nothing through."""

from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import ColumnElement, text, true
from sqlalchemy.ext.asyncio import AsyncEngine

from api import ids
from api.auth.permissions import MATRIX, Permission
from api.auth.scope import Reach
from api.db import create_engine
from api.models.role_grants import Role
from api.services import event_list_rows
from tests.factories import (
    BAO_THANG,
    HA_NOI,
    LAO_CAI,
    MUONG_KHUONG,
    NATION,
    As,
    Country,
    Place,
    Province,
    make,
)
from tests.rules import OF_THE_REQUEST

LISTS = (
    *("teams", "members", "households", "support-events"),
    *("activities", "campaigns", "commendations"),
)

TABLES = (
    *("team", "member", "membership", "household", "support_event"),
    *("activity", "campaign", "commendation"),
)


async def seen(who: httpx.AsyncClient) -> dict[str, set[str]]:
    found = {}
    for path in LISTS:
        response = await who.get(f"/v1/{path}", params={"limit": 200})
        ok = response.status_code == 200
        found[path] = {row["id"] for row in response.json()["items"]} if ok else set()
    return found


async def events_of_the_next_commune(province: Province) -> list[list[Any]]:
    """Ask for a foreign commune's events: by filters that walk other rows than one's own."""
    found = []
    for query in ({"unit_id": str(BAO_THANG)}, {"team_id": province.bao_thang.team["id"]}):
        response = await province.muong_khuong.admin.get("/v1/support-events", params=query)
        found.append(response.json()["items"])
    return found


async def more(province: Province, place: Place) -> dict[str, set[str]]:
    """Hold an activity in a village, run a campaign there, and propose a commendation."""
    village = place.village["id"]
    youth = await province.country.sign_in(Role.youth_coordinator, at=place.unit_id)
    days = {"starts_on": "2025-08-01", "ends_on": "2025-08-31"}
    held = {"kind": "launch", "title": "Ra mắt", "organiser": "team", "held_on": "2025-08-05"}
    named = {"recipient_kind": "collective", "recipient_name": "Tổ"}
    made = {
        "activities": await make(youth, "activities", **held, host_unit_id=village),
        "campaigns": await make(youth, "campaigns", name="Đợt", unit_id=village, **days),
        "commendations": await make(youth, "commendations", **named, unit_id=village),
    }
    return {path: {row["id"]} for path, row in made.items()}


async def record(province: Province) -> dict[str, dict[str, set[str]]]:
    """Record an event in each commune; return what belongs to each of them."""
    owned = {}
    for name, place in (("mine", province.muong_khuong), ("foreign", province.bao_thang)):
        leader = await province.leader_of(place)
        event = await make(leader, "support-events", **place.event())
        owned[name] = {
            "teams": {place.team["id"]},
            "members": {place.leader["id"]},
            "households": {place.household["id"]},
            "support-events": {event["id"]},
        } | await more(province, place)
    return owned


async def test_an_officer_sees_the_own_commune_by_every_list(lao_cai: Province) -> None:
    owned = await record(lao_cai)
    assert await seen(lao_cai.muong_khuong.admin) == owned["mine"]
    assert await seen(lao_cai.bao_thang.admin) == owned["foreign"]


async def test_the_database_alone_lets_nothing_through(
    lao_cai: Province, monkeypatch: pytest.MonkeyPatch
) -> None:
    owned = await record(lao_cai)

    def everything(_reach: Reach, _table: Any) -> ColumnElement[bool]:
        return true()

    monkeypatch.setattr(Reach, "filter", everything)
    monkeypatch.setattr(event_list_rows, "_within", lambda *_: "true")
    assert await seen(lao_cai.muong_khuong.admin) == owned["mine"]
    assert await events_of_the_next_commune(lao_cai) == [[], []]
    monkeypatch.setattr(Reach, "covers", lambda *_: True)
    foreign = lao_cai.bao_thang
    refused = await lao_cai.muong_khuong.admin.post(
        "/v1/households", json={"unit_id": foreign.village["id"], "head_name": "Lén"}
    )
    assert refused.status_code == 404
    for path, row in (("teams", foreign.team), ("members", foreign.leader)):
        patched = await lao_cai.muong_khuong.admin.patch(
            f"/v1/{path}/{row['id']}", json={"external_ids": {}}, headers={"If-Match": "*"}
        )
        assert patched.status_code == 404


async def test_the_application_alone_lets_nothing_through(
    lao_cai: Province, superuser: AsyncEngine
) -> None:
    owned = await record(lao_cai)
    async with superuser.connect() as connection:
        for table in TABLES:
            await connection.execute(text(f"alter table {table} disable row level security"))
    assert await seen(lao_cai.muong_khuong.admin) == owned["mine"]
    assert await events_of_the_next_commune(lao_cai) == [[], []]


async def test_without_a_scope_the_database_shows_nothing(lao_cai: Province, database: str) -> None:
    await record(lao_cai)
    place = lao_cai.muong_khuong
    await make(place.admin, "devices", member_id=place.leader["id"])

    engine = create_engine(database)
    async with engine.connect() as connection:
        for table in (*TABLES, "role_grant", "device", "training_attended"):
            counted = text(f"select count(*) from {table}")
            assert await connection.scalar(counted) == 0, table
        bypasses = "select rolsuper or rolbypassrls from pg_roles where rolname = current_user"
        assert await connection.scalar(text(bypasses)) is False
        owned = "select count(*) from pg_class where relowner = current_user::regrole"
        assert await connection.scalar(text(owned)) == 0
    await engine.dispose()


async def test_every_table_of_placed_rows_is_bound_by_policies(superuser: AsyncEngine) -> None:
    unbound = text("""
        select c.relname from pg_class c
        where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace
          and exists (select from pg_attribute a where a.attrelid = c.oid
                      and a.attname in ('province_key', 'member_id') and not a.attisdropped)
          and not (c.relrowsecurity and c.relforcerowsecurity)
          -- the catalogue is open; a principal has no unit; a place is keys of units, no fact
          and c.relname not in ('service_type', 'principal', 'event_place')
    """)
    async with superuser.connect() as connection:
        assert list(await connection.scalars(unbound)) == []


async def test_foreign_and_absent_rows_are_the_same_answer(lao_cai: Province) -> None:
    owned = await record(lao_cai)
    officer = lao_cai.muong_khuong.admin
    for path in LISTS:
        answers = []
        for row_id in (*owned["foreign"][path], "01890000-0000-7000-8000-000000000000"):
            response = await officer.get(f"/v1/{path}/{row_id}")
            body = response.json() | {"request_id": None}
            headers = {k: v for k, v in response.headers.items() if k not in OF_THE_REQUEST}
            answers.append((response.status_code, body, headers))
        assert answers[0] == answers[1]
        assert answers[0][0] == 404


async def test_a_province_sees_its_communes_and_nobody_elses(lao_cai: Province, as_: As) -> None:
    owned = await record(lao_cai)
    admin = await as_(Role.province_admin, at=LAO_CAI)
    both = {path: owned["mine"][path] | owned["foreign"][path] for path in LISTS}
    assert await seen(admin) == both

    stranger = await as_(Role.province_admin, at=HA_NOI)
    assert await seen(stranger) == {path: set() for path in LISTS}


async def test_an_event_is_seen_where_it_was_and_where_its_team_is(lao_cai: Province) -> None:
    leader = await lao_cai.leader_of(lao_cai.muong_khuong)
    away = lao_cai.muong_khuong.event(unit_id=lao_cai.bao_thang.village["id"])
    event = await make(leader, "support-events", **away)
    for officer in (lao_cai.muong_khuong.admin, lao_cai.bao_thang.admin):
        assert (await officer.get(f"/v1/support-events/{event['id']}")).status_code == 200


async def test_a_grant_on_an_old_unit_follows_its_successor(
    lao_cai: Province, country: Country
) -> None:

    owned = await record(lao_cai)
    old = await country.sign_in(Role.commune_admin, at=ids.official_unit_id("commune", "02761"))
    assert await seen(old) == owned["mine"]
    split = await country.sign_in(Role.commune_admin, at=ids.official_unit_id("commune", "00007"))
    assert await seen(split) == {path: set() for path in LISTS}


async def test_whoever_holds_every_half_of_a_split_commune_holds_it(country: Country) -> None:

    split = ids.official_unit_id("commune", "00007")
    halves = [ids.official_unit_id("commune", code, "2025-07-01") for code in ("00008", "00025")]
    ha_noi = await country.sign_in(Role.province_admin, at=HA_NOI)
    body = {"unit_id": str(split), "kind": "community_team", "founded_on": "2023-01-01"}
    team = await make(ha_noi, "teams", name="Tổ cũ", **body)
    one = await country.sign_in(Role.commune_admin, at=halves[0])
    assert (await one.get(f"/v1/teams/{team['id']}")).status_code == 404
    both = await country.sign_in(Role.commune_admin, at=halves[0])
    await country.grant(both.principal_id, Role.commune_admin, halves[1])
    assert (await both.get(f"/v1/teams/{team['id']}")).status_code == 200


async def test_whoever_holds_every_part_of_a_half_that_was_split_again_holds_it(
    country: Country,
) -> None:
    split = ids.official_unit_id("commune", "00007")
    one, other = (ids.official_unit_id("commune", c, "2025-07-01") for c in ("00008", "00025"))
    ha_noi = await country.sign_in(Role.province_admin, at=HA_NOI)
    body = {"unit_id": str(split), "kind": "community_team", "founded_on": "2023-01-01"}
    team = await make(ha_noi, "teams", name="Tổ cũ", **body)
    nation = await country.sign_in(Role.national_admin, at=NATION)
    parts = [
        {"unit": {"level": "commune", "name": name, "type": "phường", "code": code,
                  "parent_id": str(HA_NOI)}, "village_ids": []}
        for name, code in (("Đông", "99001"), ("Tây", "99002"))
    ]  # fmt: skip
    change = {"kind": "split", "from_id": str(one), "into": parts}
    paper = {"number": "1/NQ", "issued_on": "2026-01-01", "issuer": "Quốc hội"}
    made = await make(
        nation, "reorganisations", effective_on="2026-02-01", document=paper, changes=[change]
    )
    holder = await country.sign_in(Role.commune_admin, at=other)
    for part in made["unit_ids"]:
        assert (await holder.get(f"/v1/teams/{team['id']}")).status_code == 404
        await country.grant(holder.principal_id, Role.commune_admin, UUID(part))
    assert (await holder.get(f"/v1/teams/{team['id']}")).status_code == 200


@pytest.mark.parametrize("role", list(Role))
async def test_each_role_opens_only_its_own_doors(role: Role, lao_cai: Province) -> None:
    place = lao_cai.muong_khuong
    at = {
        Role.national_admin: NATION,
        Role.commune_admin: MUONG_KHUONG,
        Role.team_leader: UUID(place.village["id"]),
        Role.team_member: UUID(place.village["id"]),
    }.get(role, LAO_CAI)
    team = UUID(place.team["id"]) if role in {Role.team_leader, Role.team_member} else None
    who = await lao_cai.country.sign_in(role, at=at, team=team, member=UUID(place.leader["id"]))
    doors = {
        "teams": Permission.teams_read,
        "members": Permission.members_read,
        "households": Permission.households_read,
        "support-events": Permission.events_read,
        "activities": Permission.activities_read,
        "campaigns": Permission.campaigns_read,
        "commendations": Permission.commendations_read,
        "observations?indicator=teams.active&period=2025": Permission.aggregates_read,
        "role-grants": Permission.principals_write,
    }
    for path, permission in doors.items():
        status = (await who.get(f"/v1/{path}")).status_code
        assert status == (200 if permission in MATRIX[role] else 403), (role, path)
    for path in ("admin-units", "service-types", "indicators", "me"):
        assert (await who.get(f"/v1/{path}")).status_code == 200


async def test_a_reach_is_the_smallest_set_of_recorded_units(
    superuser: AsyncEngine,
) -> None:
    async with superuser.connect() as connection:
        key = "select key from admin_unit where id = :id"
        sizes = {}
        for name, unit in (("nation", NATION), ("province", LAO_CAI), ("commune", BAO_THANG)):
            root = await connection.scalar(text(key), {"id": unit})
            reach = await connection.execute(
                text("select * from reach(array[cast(:root as integer)], date '2026-01-01')"),
                {"root": root},
            )
            sizes[name] = [len(keys) for keys in reach.one()]
    assert sizes["nation"] == [98, 0, 0]
    assert sizes["province"] == [3, 0, 0]
    assert sizes["commune"][0] == 0
