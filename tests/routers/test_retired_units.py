"""Lists by a unit of any vintage: a retired one finds what lay in it on its last day."""

from uuid import UUID

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from api import clock, ids
from api.models.role_grants import Role
from tests.factories import HA_NOI, LAO_CAI, NATION, OLD_LAO_CAI, As
from tests.routers.test_boundaries import MERGED, Wards, reader, wards
from tests.routers.test_observations import (
    BA_DINH,
    HONG_HA,
    NGOC_HA,
    OLD_BA_DINH,
    OLD_HA_NOI,
    SPLIT,
    TODAY,
    WHOLE,
    Facts,
    Row,
    record,
)

__all__ = ["reader", "wards"]  # the fixtures

LISTS = ("teams", "members", "households", "support-events")
IN_WHOLE = {"Tổ dân phố của Phúc Xá", "Phường Phúc Xá"}
IN_SPLIT = {"Tổ chưa xếp", "Tổ về Ba Đình", "Tổ về Ngọc Hà", "Tổ đã thôi", "Phường Ngọc Hà cũ"}
IN_HONG_HA = IN_WHOLE | {"Tổ dân phố của Hồng Hà", "Phường Hồng Hà"}
FOUNDED_SINCE = {"Tổ dân phố của Phường Mới", "Phường Mới"}
MOVED = {"Tổ sang tỉnh khác"}
IN_BA_DINH = {"Tổ về Ba Đình", "Phường Ba Đình"}
NAMES = (
    *("Tổ dân phố của Phúc Xá", "Tổ chưa xếp", "Tổ về Ba Đình", "Tổ về Ngọc Hà", "Tổ đã thôi"),
    *("Tổ dân phố của Hồng Hà", "Tổ sang tỉnh khác", "Tổ dân phố của Phường Mới"),
    *("Phường Phúc Xá", "Phường Ngọc Hà cũ", "Phường Hồng Hà", "Phường Ba Đình", "Phường Mới"),
)
"""What the units of the ground are called here, in their order."""
EVERYWHERE = set(NAMES)
FOUND: list[tuple[list[UUID], set[str]]] = [
    ([WHOLE], IN_WHOLE),
    ([SPLIT], IN_SPLIT),
    ([OLD_HA_NOI], EVERYWHERE - FOUNDED_SINCE),
    ([HA_NOI], EVERYWHERE - MOVED),
    ([HONG_HA], IN_HONG_HA),
    ([BA_DINH], IN_BA_DINH),
    ([NGOC_HA], {"Tổ về Ngọc Hà"}),
    ([LAO_CAI], MOVED),
    ([OLD_LAO_CAI], set()),
    ([NATION], EVERYWHERE),
    ([WHOLE, BA_DINH], IN_WHOLE | IN_BA_DINH),
    ([MERGED], set()),  # which has not begun
    ([UUID(int=1)], set()),
]


@pytest.fixture(autouse=True)
def _one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "today", lambda: TODAY)


@pytest.fixture
async def named(wards: Wards, superuser: AsyncEngine) -> dict[str, str]:
    """A team with a member, a household and an event in every unit; what they are called by id."""
    drawn = [(n, "2025-06-30") for n in range(len(NAMES))]
    events = [(place, "ID.USE", "completed", "submitted", 1, 0) for place in drawn]
    facts: Facts = wards.facts(drawn, drawn, events)
    for event, team in zip(
        facts.event, facts.team, strict=True
    ):  # a team's events are its readers'
        event["team"] = team["id"]
    adult = {"birth_year": 1980, "in_union": False, "trained_on": None, "deleted": False}
    facts.member = [adult | {"id": ids.new_id()} for _ in NAMES]
    facts.stay = [
        {"team": t["id"], "member": m["id"], "day": t["day"], "until": None, "role": "member"}
        for t, m in zip(facts.team, facts.member, strict=True)
    ]
    await record(superuser, facts)
    rows = (facts.team, facts.member, facts.household, facts.event)
    return {str(row["id"]): name for table in rows for row, name in zip(table, NAMES, strict=True)}


async def listed(who: httpx.AsyncClient, path: str, named: Row, *unit_ids: UUID) -> set[str]:
    query: Row = {"unit_id": unit_ids, "limit": 200}
    response = await who.get(f"/v1/{path}", params=query)
    assert response.status_code == 200, response.text
    return {named[item["id"]] for item in response.json()["items"]}


@pytest.mark.parametrize("path", LISTS)
async def test_a_list_finds_what_lies_or_lay_in_a_unit(
    reader: httpx.AsyncClient, named: dict[str, str], as_: As, path: str
) -> None:
    for unit_ids, expected in FOUND:
        assert await listed(reader, path, named, *unit_ids) == expected, unit_ids
    district = await listed(reader, path, named, OLD_BA_DINH)
    assert district >= IN_WHOLE | IN_SPLIT
    assert not district & (FOUNDED_SINCE | {"Phường Hồng Hà"})  # that one has several districts
    officer = await as_(Role.commune_admin, at=HONG_HA)
    for unit, expected in (
        (WHOLE, IN_WHOLE),
        (SPLIT, set()),
        (OLD_HA_NOI, IN_HONG_HA),
        (BA_DINH, set()),
        (NATION, IN_HONG_HA),
    ):
        assert await listed(officer, path, named, unit) == expected, unit


async def test_units_are_listed_in_the_tree_of_the_day_asked(
    reader: httpx.AsyncClient, wards: Wards
) -> None:
    villages = wards.units

    async def within(unit: UUID, **query: str) -> tuple[set[UUID], int]:
        asked: Row = {"within": unit, "limit": 200, "include_total": True} | query
        page = (await reader.get("/v1/admin-units", params=asked)).json()
        return {UUID(item["id"]) for item in page["items"]}, page["total"]

    old, new = {"at": "2025-06-30"}, {"at": "2025-07-01"}
    assert await within(OLD_HA_NOI) == (set(), 0)  # nothing stands there today
    assert await within(OLD_HA_NOI, **new) == (set(), 0)
    assert await within(HA_NOI, **old) == (set(), 0)
    assert (await within(OLD_HA_NOI, **old, level="district"))[0] >= {OLD_BA_DINH}
    assert (await within(OLD_BA_DINH, **old))[0] >= {WHOLE, SPLIT, *villages[:4]}
    assert await within(SPLIT, **old) == ({SPLIT, *villages[1:4]}, 4)
    assert await within(SPLIT, at="2025-03-31") == ({SPLIT, *villages[1:5]}, 5)
    assert await within(BA_DINH) == ({BA_DINH, villages[2]}, 2)
    assert await within(BA_DINH, **new) == ({BA_DINH, villages[6]}, 2)
    assert await within(BA_DINH, at="2025-07-02") == ({BA_DINH, villages[2], villages[6]}, 3)
    assert await within(HONG_HA) == ({HONG_HA, villages[0], villages[5]}, 3)
    assert await within(MERGED) == (set(), 0)
    merged = {MERGED, villages[0], villages[3], villages[5]}
    assert await within(MERGED, at="2026-12-01") == (merged, 4)
    assert await within(HONG_HA, at="2026-12-01") == (set(), 0)
