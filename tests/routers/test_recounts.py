"""Any observation is a recount: whoever asks, for whatever unit, days, tree and filter."""

from collections.abc import Awaitable, Callable
from datetime import date
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from api import clock
from api.models.observations import By
from api.models.role_grants import Role
from api.services.formulas import FORMULAS
from tests.factories import HA_NOI, NATION, As
from tests.routers.test_observations import (
    BA_DINH,
    HONG_HA,
    NGOC_HA,
    OLD_BA_DINH,
    OLD_HA_NOI,
    SPLIT,
    TODAY,
    UNIT_OF_COUNT,
    WHOLE,
    Ground,
    Row,
    ground,
)

__all__ = ["ground"]

type Agree = Callable[[UUID, Row], Awaitable[None]]

WARDS = [HONG_HA, BA_DINH, NGOC_HA, WHOLE]
ROOTS = {
    NATION: [NATION, HA_NOI, OLD_HA_NOI, OLD_BA_DINH, SPLIT, *WARDS],
    HA_NOI: [HA_NOI, OLD_HA_NOI, OLD_BA_DINH, SPLIT, *WARDS],
    HONG_HA: [HONG_HA],
}
"""Where a reader stands -> the roots within that scope."""
LEVELS = {NATION: [None, "province"], HA_NOI: [None, "commune", "village"]}
DAYS = st.dates(date(2024, 6, 1), TODAY)
CALENDAR = ["2024", "2025", "2026", "2025-Q2", "2025-Q3", "2026-03", "2026-10"]
PERIODS = st.one_of(
    st.sampled_from([*CALENDAR, "2025-W27", "2025-06-30"]),
    st.tuples(DAYS, DAYS).map(lambda days: "/".join(str(day) for day in sorted(days))),
)
BOUNDARIES = st.one_of(
    st.sampled_from(["current", "as_recorded", "2025-06-30", "2025-07-01"]), DAYS.map(str)
)
FILTERS = {
    "service_type": list(UNIT_OF_COUNT),
    "channel": ["market", "household_visit", "online"],
    "team_kind": ["community_team", "core_squad"],
    "activity_kind": ["training", "contest", "meeting"],
}


@st.composite
def questions(draw: st.DrawFn) -> tuple[UUID, Row]:
    """Draw who asks, and what: only indicators that have the filters and the split.

    Every other question is plain, as of a dashboard: rolls tell all of it.
    """
    plain = draw(st.booleans())
    reader = draw(st.sampled_from(list(ROOTS)))
    unit = draw(st.sampled_from(ROOTS[reader]))
    query: Row = {"unit_id": unit, "boundary": draw(BOUNDARIES)}
    query["period"] = draw(st.sampled_from(CALENDAR) if plain else PERIODS)
    filters = set[str]() if plain else draw(st.sets(st.sampled_from(list(FILTERS))))
    for name in filters:
        values = st.sampled_from(FILTERS[name])
        query[name] = draw(st.lists(values, min_size=1, max_size=2, unique=True))
    if by := None if plain else draw(st.none() | st.sampled_from(list(By))):
        query["by"] = by.value
    if draw(st.integers(0, 4)) == 0:
        query["minimum_per_unit"] = draw(st.integers(1, 3))
    codes = [
        code
        for code, formula in FORMULAS.items()
        if filters <= formula.filters
        and (not by or by in formula.dimensions)
        and bool(formula.needs) == ("minimum_per_unit" in query)
    ]
    assume(codes)
    some = st.lists(st.sampled_from(codes), min_size=1, max_size=8, unique=True)
    if level := draw(st.sampled_from(LEVELS.get(unit, [None, "village"]))):
        query["level"] = level
    if not by and (every := draw(st.sampled_from([None, "month", "quarter", "year"]))):
        query["every"] = every
    return reader, query | {"indicator": draw(some)}


@pytest.fixture
async def agree(ground: Ground, as_: As, monkeypatch: pytest.MonkeyPatch) -> Agree:
    """Hold an answer against the recount, as somebody who may read people where they stand."""
    monkeypatch.setattr(clock, "today", lambda: TODAY)
    readers = {
        place: Ground(ground.facts, await as_(Role.ioc_reader, Role.commune_admin, at=place))
        for place in ROOTS
    }

    async def agree(place: UUID, query: Row) -> None:
        await readers[place].agrees(**query)

    return agree


@settings(
    max_examples=150,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(questions())
async def test_an_observation_is_a_recount(agree: Agree, question: tuple[UUID, Row]) -> None:
    await agree(*question)
