"""Teams, over HTTP."""

import httpx

from api.models.role_grants import Role
from tests.factories import As, Province, make


async def test_a_commune_officer_does_not_see_the_next_commune(as_: As, lao_cai: Province) -> None:
    officer = await as_(Role.commune_admin, at=lao_cai.muong_khuong.unit_id)
    mine = await officer.get(f"/v1/teams/{lao_cai.muong_khuong.team['id']}")
    assert mine.status_code == 200
    foreign = await officer.get(f"/v1/teams/{lao_cai.bao_thang.team['id']}")
    assert foreign.status_code == 404


async def test_the_dashboard_of_one_record(lao_cai: Province) -> None:
    leader = await lao_cai.leader_of(lao_cai.muong_khuong)
    event = await make(leader, "support-events", **lao_cai.muong_khuong.event())
    assert event["status"] == "submitted"
    again = await leader.get(f"/v1/support-events/{event['id']}")
    assert again.json() == event
