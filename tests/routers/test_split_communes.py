"""A commune that the reform of 2025 split, Gáo Giồng of Đồng Tháp: villages, figures, grants."""

from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from api.models.role_grants import Role
from tests.factories import Country, Person, make
from tests.reform import REFORM, Corner, Side, after, before, event
from tests.timeline import Timeline, dated, figures, kept_facts, listed, written_items

SPLIT, HALF, OTHER_HALF = (
    before("commune", "30079"),
    after("commune", "30088"),
    after("commune", "30025"),
)
NEW = after("province", "82")
LAST = "2025-06-30"
OLD = before("province", "87")
MAY = {"unit_id": str(NEW), "period": "2025-05", "level": "commune"}
MAY_THEN = MAY | {"unit_id": str(OLD)}
AS_RECORDED = {"boundary": "as_recorded"}
PLACING: dict[str, Any] = {
    "effective_on": REFORM,
    "document": {"number": "1/NQ", "issued_on": "2025-07-20", "issuer": "Hội đồng nhân dân"},
}


@dataclass
class Halves:
    """In May: 1 event in one village, 2 in another, 4 at the commune itself."""

    side: Side
    nation: Person
    placed: Corner
    unplaced: Corner
    commune_admin: Person
    clock: Timeline

    @property
    def teams(self) -> set[str]:
        return {self.placed.team, self.unplaced.team}

    async def place(self) -> dict[str, Any]:
        """Place one of the villages, by the province's document."""
        move = {"kind": "move", "unit_ids": [self.placed.village], "parent_id": str(HALF)}
        return await make(self.side.officer, "reorganisations", **PLACING, changes=[move])


@pytest.fixture
async def halves(monkeypatch: pytest.MonkeyPatch, country: Country) -> Halves:
    """The eve of the reform."""
    clock = Timeline.stop(monkeypatch, country, dated("2025-05-20"))
    side = await Side.found(country, "87", ())
    placed = await Corner.found(side, SPLIT, "một")
    unplaced = await Corner.found(side, SPLIT, "hai")
    await side.record(placed, "2025-05-15")
    await side.record(unplaced, "2025-05-15", 2)
    await side.record(placed, "2025-05-16", 4, unit_id=str(SPLIT))
    commune_admin = await country.sign_in(Role.commune_admin, at=SPLIT)
    nation = await country.sign_in(Role.national_admin)
    clock.turn(dated(LAST, "23:59:59"))
    return Halves(side, nation, placed, unplaced, commune_admin, clock)


async def test_what_no_village_places_is_unallocated_and_the_rest_lies_in_its_half(
    halves: Halves, superuser: AsyncEngine
) -> None:
    nation, portal, clock = halves.nation, halves.side.portal, halves.clock
    assert await figures(nation, **MAY_THEN) == {SPLIT: 7}
    recorded, past = (
        await kept_facts(superuser),
        await written_items(nation, indicator="events.count", **MAY_THEN, **AS_RECORDED),
    )
    clock.turn(dated(REFORM, "00:00:00"))
    assert await figures(nation, **MAY) == {None: 7}
    assert await figures(nation, **MAY | {"level": "province"}) == {NEW: 7}

    clock.turn(dated("2025-07-25"))
    made = await halves.place()
    assert (made["affected"]["support_events"], made["unplaced"]) == (1, [])
    assert await figures(nation, **MAY) == {HALF: 1, None: 6}
    assert past == await written_items(nation, indicator="events.count", **MAY_THEN, **AS_RECORDED)
    side = halves.side
    await side.record(halves.placed, "2025-07-10")
    await side.record(halves.unplaced, "2025-07-10", 2)
    july = MAY | {"period": "2025-07"}
    for boundary in ({}, AS_RECORDED):
        assert await figures(nation, **july, **boundary) == {HALF: 1, None: 2}
    at_commune = event(halves.placed, dated("2025-07-10")) | {"unit_id": str(SPLIT)}
    refused = (await portal.post("/v1/support-events", json=at_commune)).json()
    assert (refused["code"], refused["errors"][0]["pointer"]) == ("unit_dissolved", "/unit_id")
    assert {unit["unit_id"] for unit in refused["successors"]} == {str(HALF), str(OTHER_HALF)}
    await side.record(halves.placed, LAST, unit_id=str(SPLIT))  # sent late
    late = await make(
        side.officer, "admin-units", level="village", name="Thôn muộn", type="thôn",
        parent_id=str(SPLIT), valid_from=LAST,
    )  # fmt: skip
    assert late["parent_id"] is None
    june = MAY | {"period": "2025-06"}
    assert await figures(nation, **june | {"unit_id": str(OLD)}, **AS_RECORDED) == {SPLIT: 1}
    assert await figures(nation, **june) == {None: 1}
    now = await kept_facts(superuser)
    assert {fact: now[fact] for fact in recorded} == recorded


async def test_a_grant_on_the_split_commune_gives_nothing_until_an_officer_decides(
    halves: Halves,
) -> None:
    holder, clock = halves.commune_admin, halves.clock
    assert await listed(holder, "teams") == halves.teams
    clock.turn(dated(REFORM, "00:00:00"))  # the same token
    for path in ("teams", "members", "households", "support-events"):
        assert await listed(holder, path) == set()
    one = f"/v1/teams/{halves.placed.team}"
    assert (await holder.get(one)).status_code == 404
    assert (await holder.patch(one, json={"name": "X"}, headers={"If-Match": "*"})).status_code in {
        404,
        403,
    }
    assert (await holder.get("/v1/observations", params={"indicator": "teams.active", "period":
            "2025-05", "unit_id": str(SPLIT)})).status_code == 404  # fmt: skip
    assert await listed(halves.side.portal, "teams") == halves.teams  # the province's goes on

    clock.turn(dated("2025-07-25"))
    await halves.place()
    assert await listed(holder, "teams") == set()  # villages are not grants
    for half in (HALF, OTHER_HALF):
        refusal = await halves.side.officer.post(
            "/v1/role-grants",
            json={"principal_id": str(holder.principal_id), "role": "commune_admin",
                  "unit_id": str(SPLIT)},
        )  # fmt: skip
        assert (refusal.status_code, refusal.json()["code"]) == (409, "unit_dissolved")
        await make(
            halves.side.officer, "role-grants", principal_id=str(holder.principal_id),
            role="commune_admin", unit_id=str(half),
        )  # fmt: skip
        mine = {halves.placed.team} if half is HALF else halves.teams
        assert await listed(holder, "teams") == mine
