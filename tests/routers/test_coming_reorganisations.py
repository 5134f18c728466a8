"""Reorganisations dated ahead take effect at midnight in Vietnam by themselves."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from api.models.role_grants import Role
from tests.factories import (
    BAO_THANG,
    LAO_CAI,
    MUONG_KHUONG,
    Country,
    Person,
    Province,
    make,
)
from tests.timeline import Timeline, checksum_of_tree, dated, figures, listed, written_items
from tests.waiting import until

EVE, DAY = "2026-12-31", "2027-01-01"
AUGUST: dict[str, Any] = {"unit_id": str(LAO_CAI), "level": "commune", "period": "2025-08"}
AS_RECORDED = {"boundary": "as_recorded", "indicator": "events.count"}


@dataclass
class Eve:
    """Two communes that merge tomorrow, as do their villages; 1 event in the one, 2 in the other.

    Everybody is known to the service (`Callers`), and nobody signs in again.
    """

    clock: Timeline
    places: Province
    nation: Person
    officer: Person
    """Of Mường Khương."""
    leader: Person
    """Of the team in Mường Khương."""
    portal: Person
    """Of the province."""
    merger: dict[str, Any]
    commune: str
    village: str

    def event(self, day: str, time: str, **changes: Any) -> dict[str, Any]:
        return self.places.muong_khuong.event(occurred_at=dated(day, time)) | changes


def paper(number: str, day: str, *changes: dict[str, Any]) -> dict[str, Any]:
    document = {"number": number, "issued_on": "2026-11-15", "issuer": "Quốc hội"}
    return {"effective_on": day, "document": document, "changes": list(changes)}


@pytest.fixture
async def eve(monkeypatch: pytest.MonkeyPatch, country: Country) -> Eve:
    clock = Timeline.stop(monkeypatch, country, dated("2026-11-20"))
    places = await Province.found(country)
    here, there = places.muong_khuong, places.bao_thang
    for place, times in ((here, 1), (there, 2)):
        leader = await places.leader_of(place)
        for _ in range(times):
            await make(leader, "support-events", **place.event())
    nation = await country.sign_in(Role.national_admin)
    made = await make(
        nation,
        "reorganisations",
        **paper(
            "1/NQ",
            DAY,
            {
                "kind": "merge",
                "from_ids": [str(MUONG_KHUONG), str(BAO_THANG)],
                "to": {"level": "commune", "name": "Xã Chung", "type": "xã", "code": "99999"},
            },
            {"kind": "rename", "unit_id": str(LAO_CAI), "name": "Tỉnh Đổi Tên"},
        ),
    )
    (commune,) = made["unit_ids"]
    villages = {
        "kind": "merge",
        "from_ids": [here.village["id"], there.village["id"]],
        "to": {"level": "village", "name": "Thôn Chung", "type": "thôn", "parent_id": commune},
    }
    also = await make(nation, "reorganisations", **paper("2/NQ", DAY, villages))
    officer = await country.sign_in(Role.commune_admin, at=MUONG_KHUONG)
    leader = await places.leader_of(here)
    portal = await country.sign_in(Role.portal_client, at=LAO_CAI)
    clock.turn(dated(EVE, "23:59:59"))

    async def awake() -> bool:
        return bool(country.app.state.callers.watch.awake)

    await until(awake)
    return Eve(clock, places, nation, officer, leader, portal, made, commune, also["unit_ids"][0])


def outcome(response: httpx.Response) -> tuple[int, str | None]:
    return response.status_code, response.json().get("code")


async def test_it_takes_effect_at_midnight_for_lists_scope_and_totals(
    eve: Eve, superuser: AsyncEngine
) -> None:
    here, there = eve.places.muong_khuong, eve.places.bao_thang
    new = {"code": "99999", "level": "commune"}
    tree = await checksum_of_tree(superuser)
    settled = await written_items(eve.nation, **AUGUST, **AS_RECORDED)
    query = AUGUST | {"indicator": "events.count", "unit_id": str(MUONG_KHUONG)}
    tag = (await eve.officer.get("/v1/observations", params=query)).headers["etag"]

    for _ in range(2):  # the second time from memory
        assert await listed(eve.officer, "teams") == {here.team["id"]}
    assert await listed(eve.officer, "admin-units", **new) == set()
    assert await listed(eve.leader, "households") == {here.household["id"]}
    assert await figures(eve.nation, **AUGUST) == {MUONG_KHUONG: 1, BAO_THANG: 2}
    assert (await eve.nation.get(f"/v1/admin-units/{LAO_CAI}")).json()["name"] == "Tỉnh Lào Cai"
    assert await listed(eve.nation, "teams", unit_id=eve.commune) == set()
    same = await eve.officer.get("/v1/observations", params=query, headers={"If-None-Match": tag})
    assert same.status_code == 304

    eve.clock.turn(dated(DAY, "00:00:00"))
    assert await listed(eve.officer, "teams") == {here.team["id"], there.team["id"]}
    assert await listed(eve.officer, "admin-units", **new) == {eve.commune}
    assert await listed(eve.leader, "households") == {here.household["id"], there.household["id"]}
    assert await listed(eve.leader, "teams") == {here.team["id"]}  # a team's grant is the team's
    assert await figures(eve.nation, **AUGUST) == {UUID(eve.commune): 3}
    assert await figures(eve.officer, period="2025-08") == {UUID(eve.commune): 3}
    assert (await eve.nation.get(f"/v1/admin-units/{LAO_CAI}")).json()["name"] == "Tỉnh Đổi Tên"
    teams = {here.team["id"], there.team["id"]}
    assert await listed(eve.nation, "teams", unit_id=eve.commune) == teams
    assert await listed(eve.nation, "teams", unit_id=str(MUONG_KHUONG)) == {here.team["id"]}
    new_tag = await eve.officer.get(
        "/v1/observations", params=query, headers={"If-None-Match": tag}
    )
    assert new_tag.status_code == 200
    assert await written_items(eve.nation, **AUGUST, **AS_RECORDED) == settled
    assert await checksum_of_tree(superuser) == tree  # nothing had to be written


async def test_what_is_written_a_second_before_and_at_midnight(eve: Eve) -> None:
    here = eve.places.muong_khuong
    old, new = {"unit_id": str(MUONG_KHUONG)}, {"unit_id": eve.commune}
    old_home, new_home = {"unit_id": here.village["id"]}, {"unit_id": eve.village}
    gone, early = (409, "unit_dissolved"), (422, "validation_failed")
    made = (201, None)

    async def sent(path: str, body: dict[str, Any]) -> tuple[int, str | None]:
        who = eve.leader if path == "support-events" else eve.portal
        return outcome(await who.post(f"/v1/{path}", json=body))

    def team(day: str, unit: dict[str, str]) -> dict[str, Any]:
        return {"name": "Tổ", "kind": "core_squad", "founded_on": day} | unit

    household = {"head_name": "Hộ"}
    for moment in ((EVE, "23:59:59"), (DAY, "00:00:00")):  # when it is sent
        eve.clock.turn(dated(*moment))
        for unit in (old, old_home, {}):
            assert await sent("support-events", eve.event(EVE, "23:59:59", **unit)) == made
            assert await sent("support-events", eve.event(DAY, "00:00:00", **unit)) == gone
        for unit in (new, new_home):
            assert await sent("support-events", eve.event(EVE, "23:59:59", **unit)) == early
            assert await sent("support-events", eve.event(DAY, "00:00:00", **unit)) == made
        assert await sent("teams", team(EVE, old)) == made
        assert await sent("teams", team(DAY, old)) == gone
        assert await sent("teams", team(DAY, new_home)) == made
        assert await sent("teams", team(EVE, new)) == early
        # whose scope is a part of the coming commune decides nothing about it yet
        ahead = await eve.officer.post("/v1/teams", json=team(DAY, new_home))
        over = moment[0] == DAY
        assert outcome(ahead) == (made if over else (422, "validation_failed"))
        # a household is registered on the day it is sent
        assert await sent("households", household | old_home) == (gone if over else made)
        assert await sent("households", household | new_home) == (made if over else early)
    december = AUGUST | {"period": EVE, "boundary": "as_recorded"}
    assert await figures(eve.nation, **december) == {MUONG_KHUONG: 6}
    january = AUGUST | {"period": DAY, "boundary": "as_recorded"}
    assert await figures(eve.nation, **january) == {UUID(eve.commune): 4}
    both = AUGUST | {"period": f"{EVE}/{DAY}"}
    assert await figures(eve.nation, **both) == {UUID(eve.commune): 10}


async def test_an_officer_decides_ahead_who_will_hold_the_coming_commune(
    eve: Eve, country: Country
) -> None:
    here, there = eve.places.muong_khuong, eve.places.bao_thang
    officer = await country.sign_in(Role.province_admin, at=LAO_CAI)
    holder = await country.sign_in()
    grant = {"principal_id": str(holder.principal_id), "role": "commune_admin"}
    ahead = grant | {"unit_id": eve.commune, "valid_from": DAY}
    await make(officer, "role-grants", **ahead)
    assert (await holder.get("/v1/teams")).status_code == 403
    early = await officer.post("/v1/role-grants", json=grant | {"unit_id": eve.commune})
    assert [e["code"] for e in early.json()["errors"]] == ["before_unit"]
    late = grant | {"unit_id": str(MUONG_KHUONG), "valid_from": DAY}
    refused = await officer.post("/v1/role-grants", json=late)
    assert outcome(refused) == (409, "unit_dissolved")
    assert [heir["unit_id"] for heir in refused.json()["successors"]] == [eve.commune]
    eve.clock.turn(dated(DAY, "00:00:00"))
    assert await listed(holder, "teams") == {here.team["id"], there.team["id"]}


async def test_one_that_is_taken_back_before_its_day_never_happens(eve: Eve) -> None:
    here = eve.places.muong_khuong
    found = (await eve.nation.get("/v1/reorganisations")).json()["items"]
    for row in sorted(found, key=lambda row: str(row["document"]["number"]), reverse=True):
        path = f"/v1/reorganisations/{row['id']}:revert"
        taken = await eve.nation.post(path, json={"reason": "Hoãn"})
        assert taken.status_code == 200, taken.text
    eve.clock.turn(dated(DAY, "00:00:00"))
    assert await listed(eve.officer, "teams") == {here.team["id"]}
    assert await figures(eve.nation, **AUGUST) == {MUONG_KHUONG: 1, BAO_THANG: 2}
    made = await eve.leader.post("/v1/support-events", json=eve.event(DAY, "00:00:00"))
    assert outcome(made) == (201, None)
