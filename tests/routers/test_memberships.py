"""Memberships, over HTTP: joining, another role, leaving."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx

from api import clock, ids
from api.models.role_grants import Role
from tests.factories import LAO_CAI, As, Place, Province, make
from tests.rules import Row, fault, ids_in, problem

FIRST = {"role": "leader", "joined_on": "2025-07-02", "left_on": None}


def url(place: Place, member_id: str | None = None) -> str:
    return f"/v1/memberships/{place.team['id']}/{member_id or place.leader['id']}"


async def stays(place: Place) -> list[dict[str, Any]]:
    member = await Row(place.admin, "members", place.leader["id"]).get()
    return [
        {name: value for name, value in stay.items() if name != "team_id"}
        for stay in member["memberships"]
    ]


async def put(place: Place, **body: Any) -> httpx.Response:
    return await place.admin.put(url(place), json=body)


async def test_a_new_role_ends_the_present_one_the_day_before(lao_cai: Province) -> None:
    place = lao_cai.muong_khuong
    same = await put(place, **FIRST)
    assert (same.status_code, same.json()) == (200, {"team_id": place.team["id"], **FIRST})
    assert (await Row(place.admin, "members", place.leader["id"]).get())["version"] == 1
    later = await put(place, role="deputy", joined_on="2026-01-01")
    assert later.status_code == 201
    second = {"role": "deputy", "joined_on": "2026-01-01", "left_on": None}
    assert await stays(place) == [FIRST | {"left_on": "2025-12-31"}, second]
    assert (await Row(place.admin, "members", place.leader["id"]).get())["version"] == 2
    assert (await Row(place.admin, "teams", place.team["id"]).get())["leader_id"] is None

    # a role corrected, then an end given, then taken back: the stay that began on that day
    for change in ({"role": "member"}, {"left_on": "2026-02-28"}, {"left_on": None}):
        changed = await put(place, **second | change)
        assert (changed.status_code, changed.json()["left_on"]) == (200, change.get("left_on"))
    before = await stays(place)
    for refused in (
        {"joined_on": "2025-12-31"},  # the last day belongs to the first stay
        {"joined_on": "2025-10-01", "left_on": "2025-10-31"},
        {"joined_on": "2025-07-02"},  # its end taken back, it would run into the second
    ):
        answer = await put(place, **refused)
        assert problem(answer) == (409, "conflict"), refused
        assert fault(answer)[1:] == ("/joined_on", "overlapping")
    assert await stays(place) == before


async def test_a_stay_lies_within_the_teams_life(lao_cai: Province) -> None:
    place = lao_cai.muong_khuong
    for body, pointer, code in (
        ({"joined_on": "2025-07-01"}, "/joined_on", "before_founding"),
        ({"joined_on": "2025-08-01", "left_on": "2025-07-31"}, "/left_on", "end_before_start"),
        ({}, "/joined_on", "missing"),
        ({"joined_on": "2025-08-01", "role": "x"}, "/role", "enum"),
        ({"joined_on": "2025-08-01", "typo": 1}, "/typo", "extra_forbidden"),
    ):
        assert fault(await put(place, **body)) == (422, pointer, code)
    await Row(place.admin, "teams", place.team["id"]).patch(dissolved_on="2026-03-31")
    refused = await put(place, joined_on="2026-04-01")
    assert fault(refused) == (422, "/joined_on", "after_dissolution")
    assert await stays(place) == [FIRST]


async def test_leaving_ends_the_stay_today_and_joining_again_starts_another(
    lao_cai: Province,
) -> None:
    place, today = lao_cai.muong_khuong, clock.today()
    assert (await place.admin.delete(url(place))).status_code == 204
    assert await stays(place) == [FIRST | {"left_on": today.isoformat()}]
    assert (await place.admin.delete(url(place))).status_code == 404
    assert fault(await put(place, joined_on=today.isoformat()))[2] == "overlapping"
    tomorrow = (today + timedelta(days=1)).isoformat()
    assert (await put(place, joined_on=tomorrow)).status_code == 201
    assert (await place.admin.delete(url(place))).status_code == 204  # before it began
    assert await stays(place) == [FIRST | {"left_on": today.isoformat()}]
    assert (await put(place, **FIRST)).status_code == 200  # left by mistake
    assert await stays(place) == [FIRST]

    coming = [{"team_id": place.team["id"], "joined_on": tomorrow}]
    newcomer = await make(place.admin, "members", full_name="Mới", memberships=coming)
    only = await place.admin.delete(url(place, newcomer["id"]))
    assert (problem(only), fault(only)[2]) == ((409, "conflict"), "only_membership")
    assert newcomer["id"] in await ids_in(place.admin, "members")


async def test_officers_write_memberships_of_their_own_teams(as_: As, lao_cai: Province) -> None:
    here, there = lao_cai.muong_khuong, lao_cai.bao_thang
    body = {"joined_on": "2025-09-01"}
    crossing = url(here, there.leader["id"]), url(there, here.leader["id"])
    for path in (*crossing, url(here, str(ids.new_id())), url(there)):
        assert (await here.admin.put(path, json=body)).status_code == 404
        assert (await here.admin.delete(path)).status_code == 404
    for client in (
        await lao_cai.leader_of(here),
        await as_(Role.auditor, at=LAO_CAI),
        await as_(Role.youth_coordinator, at=LAO_CAI),
    ):
        assert problem(await client.put(url(here), json=body)) == (403, "insufficient_role")
        assert problem(await client.delete(url(here))) == (403, "insufficient_role")
    mixed = await as_(Role.auditor, at=LAO_CAI)
    await lao_cai.country.grant(mixed.principal_id, Role.commune_admin, here.unit_id)
    for path in (*crossing, url(there)):  # seen, but not to be written
        assert problem(await mixed.put(path, json=body)) == (403, "insufficient_role")

    for client in (
        await as_(Role.province_admin, at=LAO_CAI),
        await as_(Role.portal_client, at=LAO_CAI),
    ):
        assert (await client.put(crossing[0], json=body)).status_code in {200, 201}
    assert there.leader["id"] in await ids_in(here.admin, "members")
    for path in ("/v1/memberships/x/y", f"/v1/memberships/{here.team['id']}/y"):
        assert problem(await here.admin.put(path, json=body)) == (404, "not_found")


async def test_simultaneous_memberships(lao_cai: Province) -> None:
    place = lao_cai.muong_khuong
    same = {"role": "deputy", "joined_on": "2025-10-01"}
    sent = await asyncio.gather(*(put(place, **same) for _ in range(10)))
    assert sorted(answer.status_code for answer in sent) == [200] * 9 + [201]
    roles = await asyncio.gather(
        put(place, role="leader", joined_on="2026-01-01"),
        put(place, role="member", joined_on="2026-02-01"),
    )
    # either order is a history: the later one ends the earlier, or the earlier finds no room
    assert [answer.status_code for answer in roles] in ([201, 201], [409, 201])
    days = [(stay["joined_on"], stay["left_on"]) for stay in await stays(place)]
    assert days[-1] == ("2026-02-01", None)
    assert days[0] == ("2025-07-02", "2025-09-30")
