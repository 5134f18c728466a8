"""Updates in batches, merged by field on the version that they were made on."""

import asyncio
import random
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api import ids
from api.db import transaction
from api.models.role_grants import Role
from api.services import applied_changes
from tests.factories import As, Person, Place, Province, make
from tests.routers.test_batch import (
    create,
    delete,
    faults,
    household,
    member,
    outcomes,
    send,
    team,
    update,
)

UPDATED, UNCHANGED = (200, "updated"), (200, "unchanged")
CONFLICT = (409, "conflict")


@pytest.fixture
async def leader(lao_cai: Province) -> Person:
    return await lao_cai.leader_of(lao_cai.muong_khuong)


@pytest.fixture
async def portal(as_: As, lao_cai: Province) -> Person:
    return await as_(Role.portal_client, at=lao_cai.unit_id)


@pytest.fixture
def na_day(lao_cai: Province) -> Place:
    return lao_cai.muong_khuong


async def patch(client: httpx.AsyncClient, path: str, if_match: str = "*", **body: Any) -> None:
    response = await client.patch(f"/v1/{path}", json=body, headers={"If-Match": if_match})
    assert response.status_code == 200, response.text


async def read(client: httpx.AsyncClient, path: str) -> dict[str, Any]:
    response = await client.get(f"/v1/{path}")
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def test_other_fields_than_were_changed_since_are_merged(
    leader: Person, na_day: Place
) -> None:
    """All four nouns: others changed one field, the phone sends another on the old version."""
    home = await make(leader, "households", **household(na_day))
    event = await make(leader, "support-events", **na_day.event())
    group = na_day.team["id"]
    person = na_day.leader["id"]
    await patch(na_day.admin, f"households/{home['id']}", address="Số 7")
    await patch(leader, f"support-events/{event['id']}", quantity=2)
    await patch(na_day.admin, f"teams/{group}", decision_number="12/QĐ")
    await patch(na_day.admin, f"members/{person}", occupation="Giáo viên")
    results = await send(
        na_day.admin,
        households=[update(home["id"], '"1"', phone="+84911111111")],
        members=[update(person, '"1"', trained_on="2025-08-01")],
        teams=[update(group, '"1"', name="Tổ đổi tên")],
    )
    results += await send(
        leader, support_events=[update(event["id"], '"1"', outcome="guided", note="Bổ sung")]
    )
    assert outcomes(results) == [UPDATED] * 4
    assert [result["etag"] for result in results] == ['"3"'] * 4
    shown = await read(leader, f"households/{home['id']}")
    assert (shown["address"], shown["phone"]) == ("Số 7", "+84911111111")
    shown = await read(leader, f"support-events/{event['id']}")
    assert (shown["quantity"], shown["outcome"], shown["note"]) == (2, "guided", "Bổ sung")
    shown = await read(leader, f"teams/{group}")
    assert (shown["name"], shown["decision_number"]) == ("Tổ đổi tên", "12/QĐ")
    shown = await read(na_day.admin, f"members/{person}")
    assert (shown["occupation"], shown["trained_on"]) == ("Giáo viên", "2025-08-01")


async def test_overlapping_fields_conflict_and_tell_who_changed_them(
    leader: Person, na_day: Place, as_: As
) -> None:
    officer = await as_(Role.commune_admin, at=na_day.unit_id)
    home = na_day.household["id"]
    await patch(officer, f"households/{home}", address="Số 7", people_count=4)
    await patch(leader, f"households/{home}", phone="+84911111111")
    sent = update(home, '"1"', address="Số 8", people_count=4, phone=None, head_name="Khác")
    (result,) = await send(leader, households=[sent])
    assert outcomes([result]) == [CONFLICT]
    assert result["etag"] == '"3"'
    assert result["problem"]["current"]["address"] == "Số 7"
    assert result["conflicts"] == [
        {"pointer": "/address", "yours": "Số 8", "current": "Số 7",
         "changed_by": str(officer.principal_id)},
        {"pointer": "/phone", "yours": None, "current": "+84911111111",
         "changed_by": str(leader.principal_id)},
    ]  # fmt: skip
    shown = await read(leader, f"households/{home}")
    assert shown["head_name"] != "Khác"  # an item is written whole or not at all
    assert shown["version"] == 3


async def test_an_equal_value_is_no_conflict(leader: Person, na_day: Place) -> None:
    home = na_day.household["id"]
    await patch(leader, f"households/{home}", address="Số 7")
    (same,) = await send(leader, households=[update(home, '"1"', address="Số 7")])
    assert (outcomes([same]), same["etag"]) == ([UNCHANGED], '"2"')
    (more,) = await send(leader, households=[update(home, '"1"', address="Số 7", people_count=3)])
    assert (outcomes([more]), more["etag"]) == ([UPDATED], '"3"')


async def test_members_of_objects_are_merged_one_by_one(
    leader: Person, portal: Person, na_day: Place
) -> None:
    basis = {"basis": "consent", "method": "giấy", "given_at": "2025-08-01T00:00:00Z"}
    home = (await make(leader, "households", **household(na_day, consent=basis)))["id"]
    await patch(leader, f"households/{home}", consent={"notice_version": "2"})
    merged = update(home, '"1"', consent={"method": "lời nói"}, external_ids={"phone": "1"})
    overlapping = update(home, '"1"', consent={"notice_version": "3"})
    emptied = update(home, '"1"', consent=None)
    results = await send(leader, households=[merged, overlapping, emptied])
    assert outcomes(results) == [UPDATED, CONFLICT, CONFLICT]
    assert [c["pointer"] for c in results[1]["conflicts"]] == ["/consent/notice_version"]
    assert [c["pointer"] for c in results[2]["conflicts"]] == ["/consent"]
    shown = await read(leader, f"households/{home}")
    assert (shown["consent"]["notice_version"], shown["consent"]["method"]) == ("2", "lời nói")
    await send(portal, households=[update(home, '"1"', external_ids={"portal": "9"})])
    event = await make(
        leader,
        "support-events",
        **na_day.event(beneficiary={"gender": "male", "identifier": "0123"}),
    )
    await patch(leader, f"support-events/{event['id']}", beneficiary={"gender": "female"})
    ours = {"age_band": "60_plus"}
    results = await send(
        leader,
        support_events=[
            update(event["id"], '"1"', beneficiary=ours),
            update(event["id"], '"1"', beneficiary={"gender": "male"}),
            update(event["id"], '"1"', beneficiary={"identifier": "0124"}),
            update(event["id"], '"1"', beneficiary={"identifier": "0125"}),
        ],
    )
    assert outcomes(results) == [UPDATED, CONFLICT, UPDATED, CONFLICT]
    (hidden,) = results[3]["conflicts"]
    assert hidden == {
        "pointer": "/beneficiary/identifier", "yours": None, "current": None,
        "changed_by": str(leader.principal_id),
    }  # fmt: skip
    shown = await read(leader, f"support-events/{event['id']}")
    assert shown["beneficiary"] == {"age_band": "60_plus", "gender": "female"}


async def test_what_a_conflict_shows_of_people_is_masked(na_day: Place, portal: Person) -> None:
    """A portal may write a household that another entered, and sees none of its people."""
    home = na_day.household["id"]
    await patch(na_day.admin, f"households/{home}", head_name="Lù Văn Kín", people_count=4)
    results = await send(
        portal,
        households=[
            update(home, '"1"', head_name="Lù Văn Kín", people_count=5),
            update(home, '"1"', address="Số 8"),
        ],
    )
    assert outcomes(results) == [CONFLICT, UPDATED]
    assert "Lù Văn Kín" not in str(results[0]["problem"])
    conflicts = {c["pointer"]: (c["yours"], c["current"]) for c in results[0]["conflicts"]}
    assert conflicts == {"/head_name": ("Lù Văn Kín", None), "/people_count": (5, 4)}


async def test_an_update_sent_again_is_recognised_whatever_others_did_since(
    leader: Person, na_day: Place
) -> None:
    home = await make(leader, "households", **household(na_day))
    event = await make(leader, "support-events", **na_day.event())
    sent = {
        "households": [update(home["id"], '"1"', address="Số 2")],
        "support_events": [update(event["id"], '"1"', quantity=2)],
    }
    assert outcomes(await send(leader, **sent)) == [UPDATED] * 2
    await patch(na_day.admin, f"households/{home['id']}", address="Số 3")
    await patch(leader, f"support-events/{event['id']}", quantity=3)
    again = await send(leader, **sent)
    assert outcomes(again) == [UNCHANGED] * 2
    assert [result["etag"] for result in again] == ['"3"'] * 2
    assert (await read(leader, f"households/{home['id']}"))["address"] == "Số 3"
    other = [update(home["id"], '"1"', address="Số 2", people_count=2)]
    assert outcomes(await send(leader, households=other)) == [CONFLICT]
    void = {"reason": "Nhập nhầm"}
    gone = {
        "households": [delete(home["id"], '"3"')],
        "support_events": [delete(event["id"], '"3"') | {"data": void}],
    }
    assert outcomes(await send(leader, **gone)) == [(200, "deleted")] * 2
    assert outcomes(await send(leader, **sent)) == [UNCHANGED] * 2
    back = await na_day.admin.post(
        f"/v1/households/{home['id']}:undelete", headers={"If-Match": "*"}
    )
    assert back.status_code == 200
    (repeat,) = await send(leader, households=gone["households"])
    assert outcomes([repeat]) == [UNCHANGED]
    assert (await read(leader, f"households/{home['id']}"))["address"] == "Số 3"


async def test_an_update_that_changed_nothing_is_recognised_too(
    leader: Person, na_day: Place
) -> None:
    home = na_day.household["id"]
    sent = [update(home, '"1"', address="Số 1")]
    assert outcomes(await send(leader, households=sent)) == [UNCHANGED]
    await patch(na_day.admin, f"households/{home}", address="Số 3")
    assert outcomes(await send(leader, households=sent)) == [UNCHANGED]
    assert (await read(leader, f"households/{home}"))["address"] == "Số 3"


async def test_a_whole_life_in_one_batch_is_unchanged_when_sent_again(
    leader: Person, na_day: Place
) -> None:
    home = str(ids.new_id())
    sent = [
        create(household(na_day), home),
        update(home, '"1"', address="Số 2"),
        update(home, '"1"', people_count=2),
        delete(home, '"3"'),
    ]
    first = await send(leader, households=sent)
    assert outcomes(first) == [(201, "created"), UPDATED, UPDATED, (200, "deleted")]
    for _ in range(2):
        assert outcomes(await send(leader, households=sent)) == [UNCHANGED] * 4


async def test_a_dry_run_of_an_update_is_not_remembered(leader: Person, na_day: Place) -> None:
    home = na_day.household["id"]
    sent = [update(home, '"1"', address="Số 2")]
    assert outcomes(await send(leader, households=sent, dry_run=True)) == [UPDATED]
    await patch(leader, f"households/{home}", people_count=2)
    assert outcomes(await send(leader, households=sent)) == [UPDATED]


async def test_an_applied_update_is_remembered_for_ninety_days(
    leader: Person, na_day: Place, superuser: AsyncEngine, app: FastAPI
) -> None:
    home = na_day.household["id"]
    sent = [update(home, '"1"', address="Số 2")]
    assert outcomes(await send(leader, households=sent)) == [UPDATED]
    await patch(na_day.admin, f"households/{home}", address="Số 3")
    for days, expected in ((89, UNCHANGED), (91, CONFLICT)):
        async with superuser.connect() as connection:
            aged = f"update applied_change set applied_at = now() - interval '{days} days'"
            await connection.execute(text(aged))
        async with transaction(app.state.engine) as session:
            await applied_changes.tidy(session)
        assert outcomes(await send(leader, households=sent)) == [expected]


async def test_a_base_that_never_was_merges_nothing(
    leader: Person, na_day: Place, superuser: AsyncEngine
) -> None:
    home = na_day.household["id"]
    await patch(leader, f"households/{home}", people_count=2)
    for base in ('"0"', '"9"'):
        results = await send(
            leader,
            households=[update(home, base, address="Số 2"), update(home, base, people_count=2)],
        )
        assert outcomes(results) == [CONFLICT, UNCHANGED]
        assert results[0]["conflicts"][0]["changed_by"] is None
    async with superuser.connect() as connection:  # as if it all was before the migration
        await connection.execute(text("truncate field_change"))
    (unknown,) = await send(leader, households=[update(home, '"1"', address="Số 2")])
    assert outcomes([unknown]) == [CONFLICT]
    await patch(leader, f"households/{home}", is_business=True)
    for base, expected in (('"1"', CONFLICT), ('"2"', UPDATED)):
        (result,) = await send(leader, households=[update(home, base, address="Số 2")])
        assert outcomes([result]) == [expected]


async def test_a_correction_of_a_verified_event_is_merged_and_of_a_void_one_refused(
    leader: Person, na_day: Place
) -> None:
    event = await make(leader, "support-events", **na_day.event())
    verified = await na_day.admin.post(f"/v1/support-events/{event['id']}:verify")
    assert verified.status_code == 200
    (merged,) = await send(leader, support_events=[update(event["id"], '"1"', quantity=2)])
    assert outcomes([merged]) == [UPDATED]
    assert (await read(leader, f"support-events/{event['id']}"))["status"] == "submitted"
    await send(
        leader, support_events=[delete(event["id"], "*") | {"data": {"reason": "Nhập nhầm"}}]
    )
    (late,) = await send(leader, support_events=[update(event["id"], '"1"', note="x")])
    assert (late["status"], late["outcome"]) == (409, "rejected")
    assert faults(late) == {("/status", "wrong_status")}


async def test_nothing_changes_for_whoever_may_not_write_there(
    lao_cai: Province, na_day: Place
) -> None:
    stranger = await lao_cai.leader_of(lao_cai.bao_thang)
    home = na_day.household["id"]
    await patch(na_day.admin, f"households/{home}", address="Số 7")
    for base in ('"1"', '"2"', "*"):
        (result,) = await send(stranger, households=[update(home, base, phone=None)])
        assert (result["status"], result["problem"]["code"]) == (404, "not_found")
        assert result["conflicts"] == []


async def test_patch_alone_does_not_merge(leader: Person, na_day: Place) -> None:
    home = na_day.household["id"]
    await patch(na_day.admin, f"households/{home}", address="Số 7")
    stale = await leader.patch(
        f"/v1/households/{home}", json={"people_count": 2}, headers={"If-Match": '"1"'}
    )
    assert (stale.status_code, stale.json()["code"]) == (412, "precondition_failed")


FIELDS: dict[str, list[Any]] = {
    "address": [None, "Số 2", "Số 3"],
    "people_count": [None, 2, 3],
    "business_name": [None, "A", "B"],
    "is_business": [False, True],
}
CHANGES = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from(values) for name, values in FIELDS.items()}
).filter(bool)
STEPS = st.lists(st.tuples(st.integers(0, 4), CHANGES), min_size=1, max_size=8)


class Merged:
    """What a row must be: the three-way merge of base, present and sent, field by field."""

    def __init__(self) -> None:
        self.versions: list[dict[str, Any]] = [
            {"address": None, "people_count": None, "business_name": None, "is_business": False}
        ]
        self.applied: set[str] = set()

    def send(self, age: int, change: dict[str, Any]) -> tuple[int, str]:
        """Return the base's version, and what must become of a change made on it."""
        base = max(0, len(self.versions) - 1 - age)
        present = self.versions[-1]
        mark = repr((base, sorted(change.items(), key=lambda item: item[0])))
        if mark in self.applied and base != len(self.versions) - 1:
            return base + 1, "unchanged"
        steps = zip(self.versions[base:], self.versions[base + 1 :], strict=False)
        touched = {name for was, now in steps for name in now if was[name] != now[name]}
        if any(name in touched and present[name] != value for name, value in change.items()):
            return base + 1, "conflict"
        self.applied.add(mark)
        if present | change == present:
            return base + 1, "unchanged"
        self.versions.append(present | change)
        return base + 1, "updated"


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
async def test_merging_is_the_three_way_merge_of_base_present_and_sent(
    leader: Person, na_day: Place, steps: list[tuple[int, dict[str, Any]]]
) -> None:
    model = Merged()
    home = (await make(leader, "households", **household(na_day)))["id"]
    for age, change in steps:
        version, expected = model.send(age, change)
        (result,) = await send(leader, households=[update(home, f'"{version}"', **change)])
        assert result["outcome"] == expected
        assert result["etag"] == f'"{len(model.versions)}"'
    shown = await read(leader, f"households/{home}")
    assert {name: shown[name] for name in FIELDS} == model.versions[-1]


async def test_sixteen_clients_with_overlapping_updates_lose_none(na_day: Place) -> None:
    """What was answered `updated` stands, unless a later update knowingly replaced it.

    Half of them change a field of their own and one that all share, on the version they last saw:
    of the shared one, each accepted value was made on the value before. The others change one field
    each, on the oldest version of all.
    """
    homes = [(await make(na_day.admin, "households", **household(na_day)))["id"] for _ in range(3)]
    draw = random.Random(5)
    accepted: dict[str, dict[str, str]] = {home: {} for home in homes}

    async def work(worker: int) -> None:
        for home in draw.sample(homes, 3):
            for _ in range(40):
                seen = await read(na_day.admin, f"households/{home}")
                change: dict[str, Any] = {
                    "head_name": f"Chủ hộ {worker}",
                    "external_ids": {f"client-{worker}": home},
                }
                (result,) = await send(
                    na_day.admin, households=[update(home, f'"{seen["version"]}"', **change)]
                )
                if result["outcome"] == "updated":
                    assert seen["head_name"] not in accepted[home]
                    accepted[home][seen["head_name"]] = change["head_name"]
                    break
                assert result["outcome"] == "conflict", result["problem"]

    async def once(worker: int) -> None:
        fields = ["address", "phone", "business_name", "is_business"]
        values: list[Any] = ["Số 2", "+84911111111", "Quán", True]
        change = {fields[worker % 4]: values[worker % 4]}
        results = await send(
            na_day.admin, households=[update(home, '"1"', **change) for home in sorted(homes)]
        )
        assert {result["outcome"] for result in results} <= {"updated", "unchanged"}

    await asyncio.gather(*(work(n) for n in range(8)), *(once(n) for n in range(8)))
    for home in homes:
        shown = await read(na_day.admin, f"households/{home}")
        assert (shown["address"], shown["phone"]) == ("Số 2", "+84911111111")
        assert (shown["business_name"], shown["is_business"]) == ("Quán", True)
        last = household(na_day)["head_name"]
        for _ in range(8):
            last = accepted[home].pop(last)
        assert shown["head_name"] == last
        assert shown["external_ids"] == {f"client-{n}": home for n in range(8)}


async def test_the_same_updates_by_eight_connections_at_once_twice(
    leader: Person, na_day: Place
) -> None:
    events = [(await make(leader, "support-events", **na_day.event()))["id"] for _ in range(5)]
    home = na_day.household["id"]
    group = na_day.team["id"]
    sent = {
        "support_events": [update(event, '"1"', quantity=2) for event in events],
        "households": [
            update(home, '"1"', address="Số 2"),
            create(household(na_day)),
        ],
        "teams": [update(group, '"1"', zalo_group_url="https://zalo.me/g/abc")],
    }
    for turn in range(2):
        answers = await asyncio.gather(*(send(leader, **sent) for _ in range(8)))
        done = [result["outcome"] for answer in answers for result in answer]
        assert set(done) <= {"updated", "created", "unchanged"}
        assert len(done) - done.count("unchanged") == (8 if turn == 0 else 0)
    for event in events:
        assert (await read(leader, f"support-events/{event}"))["version"] == 2
    assert (await read(leader, f"households/{home}"))["version"] == 2
    assert (await read(leader, f"teams/{group}"))["version"] == 2


async def test_what_members_and_teams_were_changed_by_is_told(
    na_day: Place, portal: Person
) -> None:
    group = await make(portal, "teams", **team(na_day))
    person = await make(portal, "members", **member(group["id"]))
    await patch(portal, f"teams/{group['id']}", name="Tên hai")
    await patch(portal, f"members/{person['id']}", gender="female")
    results = await send(
        na_day.admin,
        teams=[update(group["id"], '"1"', name="Tên ba")],
        members=[update(person["id"], '"1"', gender="male")],
    )
    assert outcomes(results) == [CONFLICT] * 2
    for result in results:
        assert [c["changed_by"] for c in result["conflicts"]] == [str(portal.principal_id)]
