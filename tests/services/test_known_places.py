"""Events written by a worker that has not heard yet that the tree of units changed."""

from typing import Any

from fastapi import FastAPI

from api import ids
from api.auth.caller import Caller
from api.errors import Refusal, UnitDissolved, ValidationFailed
from api.models.role_grants import Role
from api.models.support_events import SupportEventCreate
from api.services.event_intake import insert_events
from tests.factories import BAO_THANG, Province, make
from tests.statements import statements


async def recorded(app: FastAPI, caller: Caller, place: Any, **changes: Any) -> Any:
    """Return the row of an event that a caller records, or the refusal."""
    given = SupportEventCreate.model_validate(place.event(id=str(ids.new_id()), **changes))
    (outcome,) = await insert_events(app.state.hot, caller, [given])
    return outcome if isinstance(outcome, Refusal) else outcome[0]


async def test_where_units_lie_is_read_once(app: FastAPI, lao_cai: Province) -> None:
    leader = await lao_cai.leader_of(lao_cai.muong_khuong)
    village = lao_cai.muong_khuong.village
    renamed = {"name": "Thôn Mới"}  # a tree that nobody has read yet
    path = f"/v1/admin-units/{village['id']}"
    await lao_cai.muong_khuong.admin.patch(path, json=renamed, headers={"If-Match": "*"})
    caller = await app.state.callers.find(leader.principal_id, None, anew=True)
    counts = []
    for _ in range(2):
        with statements(app) as sent:
            await recorded(app, caller, lao_cai.muong_khuong)
        counts.append(len(sent))
    assert counts == [3, 2]


async def test_what_is_known_of_a_former_tree_is_not_used(app: FastAPI, lao_cai: Province) -> None:
    place = lao_cai.muong_khuong
    leader = await lao_cai.leader_of(place)
    path = f"/v1/admin-units/{place.village['id']}"
    caller = await app.state.callers.find(leader.principal_id, None)
    assert (await recorded(app, caller, place))["commune_key"]

    closed = {"valid_to": "2025-07-31"}
    await place.admin.patch(path, json=closed, headers={"If-Match": "*"})
    assert isinstance(await recorded(app, caller, place), UnitDissolved)
    caller = await app.state.callers.find(leader.principal_id, None, anew=True)
    assert isinstance(await recorded(app, caller, place), UnitDissolved)

    await place.admin.patch(path, json={"valid_to": None}, headers={"If-Match": "*"})
    assert (await recorded(app, caller, place))["commune_key"]


async def test_a_village_that_moved_takes_events_where_it_lies(
    app: FastAPI, lao_cai: Province
) -> None:
    place = lao_cai.muong_khuong
    leader = await lao_cai.leader_of(place)
    caller = await app.state.callers.find(leader.principal_id, None)
    before = await recorded(app, caller, place)
    moving = {
        "effective_on": "2025-08-01",
        "document": {"number": "1/NQ", "issued_on": "2025-07-20", "issuer": "HĐND tỉnh Lào Cai"},
        "changes": [
            {"kind": "move", "unit_ids": [place.village["id"]], "parent_id": str(BAO_THANG)}
        ],
    }
    officer = await lao_cai.country.sign_in(Role.province_admin, at=lao_cai.unit_id)
    await make(officer, "reorganisations", **moving)
    after = await recorded(app, caller, place)
    assert after["commune_key"] not in {None, before["commune_key"]}
    assert after["unit_key"] == before["unit_key"]


async def test_a_village_that_was_made_by_mistake_takes_no_events(
    app: FastAPI, lao_cai: Province
) -> None:
    place = lao_cai.muong_khuong
    village = await make(
        place.admin,
        "admin-units",
        level="village",
        name="Thôn nhầm",
        type="thôn",
        parent_id=str(place.unit_id),
        valid_from="2025-07-01",
    )
    leader = await lao_cai.leader_of(place)
    caller = await app.state.callers.find(leader.principal_id, None)
    there = {"unit_id": village["id"]}
    refused = await recorded(app, caller, place, **there, service_type="NO.SUCH")
    assert isinstance(refused, ValidationFailed)  # where the village lies is known now
    gone = await place.admin.delete(
        f"/v1/admin-units/{village['id']}", headers={"If-Match": f'"{village["version"]}"'}
    )
    assert gone.status_code == 204, gone.text
    assert isinstance(await recorded(app, caller, place, **there), Refusal)
