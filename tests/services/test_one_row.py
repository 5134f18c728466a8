"""One row by its id: in a statement, as lists show it, and only in scope."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI

from api import clock
from api.auth.permissions import Permission
from api.auth.scope import Reach
from api.errors import NotFound
from api.models.role_grants import Role
from api.services import activities, households, members, teams
from tests.factories import (
    BAO_THANG,
    HA_NOI,
    LAO_CAI,
    MUONG_KHUONG,
    NATION,
    As,
    Person,
    Province,
    make,
)
from tests.rules import same_answer, walk
from tests.statements import statements
from tests.waiting import until

type Rows = dict[str, UUID]
ONE = {
    "teams": teams._ONE,
    "members": members._ONE,
    "households": households._ONE,
    "activities": activities._ONE,
}
READS = {
    "teams": Permission.teams_read,
    "members": Permission.members_read,
    "households": Permission.households_read,
    "activities": Permission.activities_read,
}


@pytest.fixture
async def rows(lao_cai: Province) -> Rows:
    """A row of each noun in one place, of which a lot is told."""
    here = lao_cai.muong_khuong
    leader = await lao_cai.leader_of(here)
    await make(leader, "support-events", **here.event(household_id=here.household["id"]))
    held = {"kind": "training", "title": "Tập huấn", "organiser": "team", "held_on": "2025-09-01"}
    came = {"attendee_ids": [here.leader["id"]], "team_id": here.team["id"]}
    where = {"host_unit_id": here.village["id"]}
    activity = await make(here.admin, "activities", **held, **came, **where)
    found = zip(ONE, (here.team, here.leader, here.household, activity), strict=True)
    return {noun: UUID(row["id"]) for noun, row in found}


@pytest.mark.parametrize("noun", ONE)
async def test_a_row_costs_one_statement_and_one_that_records_what_is_shown_in_clear(
    app: FastAPI, rows: Rows, as_: As, noun: str
) -> None:
    shown_in_clear = noun in {"members", "households"}
    path = f"/v1/{noun}/{rows[noun]}"

    async def costs(person: Person) -> int:
        with statements(app, callers=True) as sent:
            assert (await person.get(path)).status_code == 200
        return len(sent)

    for role, at, wanted in (
        (Role.province_admin, LAO_CAI, 1),
        (Role.commune_admin, MUONG_KHUONG, 1 + shown_in_clear),
    ):
        person = await as_(role, at=at)

        async def costs_that(person: Person = person, wanted: int = wanted) -> bool:
            return await costs(person) == wanted

        await until(costs_that)  # what was announced of a new account is heard in its own time


@pytest.mark.parametrize(
    ("role", "at"),
    [
        (Role.national_admin, NATION),
        (Role.province_admin, LAO_CAI),
        (Role.commune_admin, MUONG_KHUONG),
        (Role.youth_coordinator, LAO_CAI),
        (Role.portal_client, LAO_CAI),
        (Role.auditor, NATION),
    ],
)
async def test_a_row_alone_is_the_row_in_a_list(rows: Rows, as_: As, role: Role, at: UUID) -> None:
    reader = await as_(role, at=at)
    for noun, row_id in rows.items():
        alone = await reader.get(f"/v1/{noun}/{row_id}")
        if alone.status_code == 403:
            continue
        listed = {item["id"]: item for item in await walk(reader, noun)}
        assert alone.json() == listed[str(row_id)], noun


async def test_a_leader_reads_the_rows_of_the_team(lao_cai: Province, rows: Rows) -> None:
    leader = await lao_cai.leader_of(lao_cai.muong_khuong)
    for noun, row_id in rows.items():
        alone = await leader.get(f"/v1/{noun}/{row_id}")
        (listed,) = await walk(leader, noun)
        assert alone.json() == listed, noun


@pytest.mark.parametrize("at", [BAO_THANG, HA_NOI])
async def test_a_row_elsewhere_is_as_if_it_were_none(rows: Rows, as_: As, at: UUID) -> None:
    stranger = await as_(Role.portal_client, at=at)
    for noun, row_id in rows.items():
        foreign = await stranger.get(f"/v1/{noun}/{row_id}")
        absent = await stranger.get(f"/v1/{noun}/{NATION}")
        assert foreign.status_code == 404
        assert same_answer(foreign, absent), noun


async def test_neither_the_database_nor_the_service_alone_shows_a_row_elsewhere(
    app: FastAPI, rows: Rows, as_: As
) -> None:
    """Each is told of everything by the other, and still keeps to its own."""
    stranger = await as_(Role.portal_client, at=HA_NOI)
    reader = await as_(Role.portal_client, at=LAO_CAI)
    find = app.state.callers.find
    theirs, known = [
        (await find(person.principal_id, None)).asking(Permission.open, "a test")
        for person in (stranger, reader)
    ]
    getting: dict[str, Any] = {
        "teams": teams.get_team,
        "members": members.get_member,
        "households": households.get_household,
        "activities": activities.get_activity,
    }
    everywhere = known.reaches
    for noun, row_id in rows.items():
        get = getting[noun]
        assert (await get(app.state.hot, known, row_id)).id == row_id
        mistaken = replace(known, reaches={**everywhere, READS[noun]: Reach()})
        with pytest.raises(NotFound):
            await get(app.state.hot, mistaken, row_id)
        deceived = replace(theirs, reaches=everywhere, _written={ONE[noun].needed: theirs.scopes})
        with pytest.raises(NotFound):
            await get(app.state.hot, deceived, row_id)


async def test_the_size_of_a_team_is_that_of_the_day(lao_cai: Province) -> None:
    here = lao_cai.muong_khuong
    team = here.team["id"]
    today = clock.today().isoformat()
    stay = {"team_id": team, "joined_on": today}
    second = await make(here.admin, "members", full_name="Lò B", memberships=[stay])
    shown = (await here.admin.get(f"/v1/teams/{team}")).json()
    assert (shown["member_count"], shown["leader_id"]) == (2, here.leader["id"])
    gone = await here.admin.delete(f"/v1/members/{second['id']}", headers={"If-Match": "*"})
    assert gone.status_code == 204
    assert (await here.admin.get(f"/v1/teams/{team}")).json()["member_count"] == 1
