"""The reform of 1 July 2025, replayed: three mergers of provinces with facts on both sides."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from api.models.role_grants import Role
from tests.factories import NATION, Country, Person, make
from tests.reform import MERGERS, REFORM, Corner, Merger, Side, after, event
from tests.timeline import Timeline, dated, figures, kept_facts, listed, written_items

LAST = "2025-06-30"
MAY, JUNE, JULY, SEPTEMBER = (
    {"period": f"2025-{month}", "unit_id": str(NATION)} for month in ("05", "06", "07", "09")
)
ACROSS = {"period": "2025-05-01/2025-07-31", "unit_id": str(NATION)}
AS_RECORDED = {"boundary": "as_recorded"}
INDICATORS = (
    "events.count",
    "teams.active",
    "teams.founded",
    "members.active",
    "villages.coverage",
)


@dataclass
class Replay:
    """A merger on its eve: facts of May, and the clock that stands in the evening of 30 June."""

    merger: Merger
    new: UUID
    first: Side
    second: Side
    nation: Person
    clock: Timeline

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.first, self.second


@pytest.fixture(params=MERGERS)
async def replay(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, country: Country
) -> Replay:
    """In May: 1 and 2 events in two communes of the first province, 3 and 5 in the second's."""
    merger = MERGERS[request.param]
    clock = Timeline.stop(monkeypatch, country, dated("2025-05-20"))
    nation = await country.sign_in(Role.national_admin)
    first, second = [
        await Side.found(country, code, merger.communes[code])
        for code in (merger.first, merger.second)
    ]
    for side, numbers in ((first, (1, 2)), (second, (3, 5))):
        for corner, number in zip(side.corners, numbers, strict=True):
            await side.record(corner, "2025-05-15", number)
    clock.turn(dated(LAST, "23:59:59"))
    return Replay(merger, after("province", merger.new), first, second, nation, clock)


def of(*pairs: tuple[list[UUID], tuple[int, ...]]) -> dict[UUID | None, int]:
    """Return figures worked out by hand: units with their numbers."""
    known: dict[UUID | None, int] = {}
    for units, numbers in pairs:
        for unit, number in zip(units, numbers, strict=True):
            known[unit] = known.get(unit, 0) + number
    return dict(sorted(known.items(), key=str))


async def settled(replay: Replay) -> list[str]:
    """Observe periods that ended before the reform, as they were recorded."""
    levels = ("province", "district", "commune")
    places = [(side.province, level) for side in replay.sides for level in levels]
    places.append((NATION, "province"))
    return [
        await written_items(
            replay.nation, unit_id=str(root), level=level, indicator=list(INDICATORS),
            period=period, **AS_RECORDED,
        )
        for root, level in places
        for period in ("2025-05", "2025-Q1")
    ]  # fmt: skip


async def by_commune(who: Person, roots: list[UUID], **query: Any) -> dict[UUID | None, int]:
    """Return what lies in each commune of some provinces."""
    found: dict[UUID | None, int] = {}
    for root in roots:
        found |= await figures(who, **query | {"unit_id": str(root), "level": "commune"})
    return dict(sorted(found.items(), key=str))


async def test_facts_of_both_sides_count_where_they_were_and_where_they_lie_now(
    replay: Replay, superuser: AsyncEngine
) -> None:
    first, second, nation, new = replay.first, replay.second, replay.nation, replay.new
    old = [first.province, second.province]
    communes, became = first.communes + second.communes, first.became + second.became

    # the last second of the old provinces: today's tree is still theirs
    for side in replay.sides:
        for corner in side.corners:
            await side.record(corner, LAST, time="23:59:59")
    recorded, past = await kept_facts(superuser), await settled(replay)
    for boundary in ({}, AS_RECORDED):
        assert await figures(nation, level="province", **MAY, **boundary) == of((old, (3, 8)))
        assert await figures(nation, level="province", **JUNE, **boundary) == of((old, (2, 2)))
        assert await by_commune(nation, old, **MAY, **boundary) == of((communes, (1, 2, 3, 5)))
    assert await listed(first.portal, "teams") == {c.team for c in first.corners}

    # midnight: nobody signs in anew
    replay.clock.turn(dated(REFORM, "00:00:00"))
    for side in replay.sides:
        for corner in side.corners:
            await side.record(corner, REFORM, time="00:00:00")
            at_old = event(corner, dated(REFORM, "00:00:00")) | {"unit_id": str(corner.commune)}
            refused = await side.portal.post("/v1/support-events", json=at_old)
            assert (refused.status_code, refused.json()["code"]) == (409, "unit_dissolved")
    for side in replay.sides:  # an old province's people reach the new one, all of it
        assert await listed(side.portal, "teams") == {
            c.team for s in replay.sides for c in s.corners
        }

    # later: a team in a new commune, of a place that was in the first province
    replay.clock.turn(dated("2025-09-10"))
    young = await make(
        second.portal, "teams", name="Tổ mới", unit_id=str(became[0]),
        kind="core_squad", founded_on="2025-08-04",
    )  # fmt: skip
    help_there = event(first.corners[0], dated("2025-09-01")) | {"team_id": young["id"]}
    for name in ("member_ids", "household_id"):
        help_there.pop(name)
    for _ in range(2):
        await make(second.portal, "support-events", **help_there)

    assert await settled(replay) == past  # byte for byte
    assert await figures(nation, level="province", **MAY, **AS_RECORDED) == of((old, (3, 8)))
    assert await figures(nation, level="province", **ACROSS, **AS_RECORDED) == of(
        (old, (5, 10)), ([new], (4,))
    )
    assert await figures(nation, level="province", **ACROSS) == {new: 19}
    assert await by_commune(nation, [new], **MAY) == of((became, (1, 2, 3, 5)))
    assert await by_commune(nation, [*old, new], **JULY, **AS_RECORDED) == of(
        (became, (1, 1, 1, 1))
    )
    assert await by_commune(nation, [*old, new], **ACROSS, **AS_RECORDED) == of(
        (communes, (2, 3, 4, 6)), (became, (1, 1, 1, 1))
    )
    for boundary in ({}, AS_RECORDED):
        assert await by_commune(nation, [new], **SEPTEMBER, **boundary) == {became[0]: 2}
    for side, number in zip(replay.sides, (3, 8), strict=True):  # the old one keeps its figures
        root = {"unit_id": str(side.province), "period": "2025-05"}
        assert await figures(side.ioc, **root, **AS_RECORDED) == {side.province: number}
        assert await figures(side.ioc, period="2025-05") == {new: 11}  # its scope is the new one
    teams = {"indicator": "teams.active"}
    assert await figures(nation, level="province", **MAY, **AS_RECORDED, **teams) == of(
        (old, (2, 2))
    )
    assert await figures(nation, level="province", **SEPTEMBER, **teams) == {new: 5}

    now = await kept_facts(superuser)
    assert {fact: now[fact] for fact in recorded} == recorded


async def test_what_is_sent_late_belongs_to_the_unit_of_its_day(
    replay: Replay, superuser: AsyncEngine
) -> None:
    first, second, nation, new = replay.first, replay.second, replay.nation, replay.new
    old = [first.province, second.province]
    recorded = await kept_facts(superuser)
    replay.clock.turn(dated("2026-11-20"))
    for side in replay.sides:
        corner = side.corners[0]
        await side.record(corner, "2025-06-12", unit_id=str(corner.commune))
        await side.record(corner, LAST, time="23:59:59")
        late = await Corner.found(side, corner.commune, "muộn")  # dated 2025, sent in 2026
        await side.record(late, "2025-06-13", 2)
        await side.record(late, REFORM, time="00:00:00")
        team = await make(
            side.portal, "teams", name="Tổ của xã", unit_id=str(corner.commune),
            kind="core_squad", founded_on=LAST,
        )  # fmt: skip
        assert team["unit_id"] == str(corner.commune)
        read = await side.portal.get(f"/v1/admin-units/{late.village}")
        assert read.json()["parent_id"] == str(side.became[0])
    assert await figures(nation, level="province", **JUNE, **AS_RECORDED) == of((old, (4, 4)))
    assert await by_commune(nation, old, **JUNE, **AS_RECORDED) == of(
        ([first.communes[0], second.communes[0]], (4, 4))
    )
    assert await by_commune(nation, [new], **JUNE) == of(
        ([first.became[0], second.became[0]], (4, 4))
    )
    assert await figures(nation, level="province", **JUNE) == {new: 8}
    assert await figures(nation, level="province", **JULY, **AS_RECORDED) == {new: 2}
    teams = {"indicator": "teams.active", "level": "province"}
    assert await figures(nation, **JUNE, **AS_RECORDED, **teams) == of((old, (4, 4)))
    assert await figures(nation, **JULY, **AS_RECORDED, **teams) == {new: 8}
    now = await kept_facts(superuser)
    assert {fact: now[fact] for fact in recorded} == recorded


async def test_codes_and_lineage_tell_what_was_and_what_became(replay: Replay) -> None:
    merger, first, second = replay.merger, replay.first, replay.second

    async def named(code: str, **query: str) -> list[tuple[str, str]]:
        query = {"code": code, "level": "province"} | query
        found = (await replay.nation.get("/v1/admin-units", params=query)).json()["items"]
        return [(unit["id"], unit["name"]) for unit in found]

    new_name, first_name, second_name = merger.names
    then = {"at": LAST}
    is_new, was_first, was_second = (
        [(str(replay.new), new_name)],
        [(str(first.province), first_name)],
        [(str(second.province), second_name)],
    )
    assert await named(merger.new) == was_second  # on the eve
    replay.clock.turn(dated(REFORM, "00:00:00"))
    assert await named(merger.new) == is_new
    assert await named(merger.new, **then) == await named(merger.second, **then) == was_second
    assert await named(merger.first, **then) == was_first
    assert await named(merger.first) == []

    async def lineage(unit: UUID) -> dict[str, set[tuple[str, str, str]]]:
        told = (await replay.nation.get(f"/v1/admin-units/{unit}/lineage")).json()
        return {
            side: {(u["unit_id"], u["on"], u["extent"]) for u in units}
            for side, units in told.items()
        }

    assert (await lineage(replay.new))["predecessors"] == {
        (str(side.province), REFORM, "whole") for side in replay.sides
    }
    for side in replay.sides:
        assert (await lineage(side.province))["successors"] == {(str(replay.new), REFORM, "whole")}
        for commune, became in zip(side.communes, side.became, strict=True):
            assert (str(became), REFORM, "whole") in (await lineage(commune))["successors"]
            assert (str(commune), REFORM, "whole") in (await lineage(became))["predecessors"]
