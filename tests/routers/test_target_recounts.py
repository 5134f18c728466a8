"""Progress of any target is a recount: for every indicator, filter, unit, tree and day."""

from collections.abc import Awaitable, Callable
from datetime import date
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from api import clock
from api.models.role_grants import Role
from api.services import periods
from api.services.formulas import formula_of
from tests.factories import HA_NOI, NATION, As, make
from tests.routers.test_observations import (
    BA_DINH,
    DEFINITIONS,
    HONG_HA,
    NGOC_HA,
    OLD_BA_DINH,
    OLD_HA_NOI,
    TODAY,
    WHOLE,
    Expected,
    Ground,
    Recount,
    Row,
    ground,
)

__all__ = ["ground"]

type Agree = Callable[[list[Row]], Awaitable[None]]

OLD, NEW = [OLD_HA_NOI, OLD_BA_DINH, WHOLE], [HA_NOI, BA_DINH, HONG_HA, NGOC_HA]
PAST = ["2024", "2025-Q1", "2025-06", "2025-01-01/2025-06-30"]
SINCE = ["2025", "2025-Q3", "2026", "2026-Q1", "2026-10", "2025-10-01/2026-03-31"]
FILTERS: dict[str, tuple[str, list[Any]]] = {
    "service_types": ("service_type", [["ID.ACTIVATE"], ["ID.ACTIVATE", "PS.ACCOUNT"]]),
    "channel": ("channel", ["market", "household_visit"]),
    "team_kind": ("team_kind", ["community_team", "core_squad"]),
}
YOUTH, TOTAL, REACHED = "population.youth", "households.total", "households.reached_share"
DECLARED: dict[str, dict[UUID, list[tuple[date, float]]]] = {
    YOUTH: {
        NATION: [(date(2023, 6, 30), 900), (date(2025, 12, 31), 1_000)],
        OLD_HA_NOI: [(date(2024, 1, 1), 40), (date(2025, 3, 31), 30), (date(2025, 6, 30), 50)],
        HONG_HA: [(date(2025, 8, 1), 7)],
    },
    TOTAL: {
        NATION: [(date(2024, 12, 31), 500)],
        OLD_HA_NOI: [(date(2023, 12, 31), 60), (date(2025, 2, 1), 80)],
        WHOLE: [(date(2022, 1, 1), 25)],
        HA_NOI: [(date(2025, 7, 1), 70), (date(2026, 1, 15), 90)],
        BA_DINH: [(date(2025, 12, 31), 0)],
    },
}
"""What was declared of some units, as of days on which they stood."""
FLOWS = ["teams.founded", "events.count", "events.quantity", "beneficiaries.distinct"]
COMPARATORS = ["gte", "gt", "lte", "lt", "eq"]


@st.composite
def targets(draw: st.DrawFn) -> Row:
    """Draw a target that its indicator allows, in a unit that stands at its period's end."""
    old = draw(st.booleans())
    measure = draw(st.sampled_from(["period", "period", "cumulative", "growth"]))
    target: Row = {
        "unit_id": draw(st.sampled_from([NATION, *(OLD if old else NEW)])),
        "period": draw(st.sampled_from(PAST if old else SINCE)),
        "comparator": draw(st.sampled_from(COMPARATORS)),
        "value": draw(st.integers(0, 120)),
        "measure": measure,
    }
    needed = set[str]()
    for name in draw(st.sets(st.sampled_from(list(FILTERS)), max_size=2)):
        parameter, values = FILTERS[name]
        target[name] = draw(st.sampled_from(values))
        needed.add(parameter)
    among = FLOWS if measure == "cumulative" else [*DEFINITIONS, YOUTH]
    codes = [code for code in among if needed <= formula_of(code).filters]
    target["indicator"] = draw(st.sampled_from(codes))
    if target["indicator"].startswith("events.quantity"):
        target["service_types"] = ["ID.ACTIVATE", "PS.ACCOUNT"]  # of one unit of count
    if formula_of(target["indicator"]).needs:
        target["minimum_per_unit"] = draw(st.integers(1, 3))
    if measure == "growth":
        target["baseline_period"] = draw(st.sampled_from(["2023", "2023-07-01/2023-12-31"]))
    elif measure == "cumulative":
        target["baseline"] = draw(st.integers(0, 50))
    return target


def declared(indicator: str, unit_id: UUID, last: date) -> float | None:
    """Return the newest of what is declared by a day."""
    known = [(day, value) for day, value in DECLARED[indicator].get(unit_id, ()) if day <= last]
    return max(known)[1] if known else None


def recounted(facts: Any, target: Row, period: str, tree: date) -> tuple[Any, Any, Any]:
    """Return value, numerator and denominator as the naive recount of observations has them.

    What is declared is looked up.
    """
    (piece,) = periods.parse(period)
    last = min(piece.last, TODAY)
    if target["indicator"] == YOUTH:
        return declared(YOUTH, target["unit_id"], last), None, None
    query: Row = {"indicator": [target["indicator"]], "unit_id": target["unit_id"]}
    query |= {"period": period, "boundary": tree.isoformat()}
    if "minimum_per_unit" in target:
        query["minimum_per_unit"] = target["minimum_per_unit"]
    for name, (parameter, _) in FILTERS.items():
        if name in target:
            given = target[name]
            query[parameter] = given if isinstance(given, list) else [given]
    expected = Expected(facts, query)
    (cell,) = (c for key, c in expected.cells().items() if key[2] == target["unit_id"])
    value, numerator, denominator, status = cell
    if target["indicator"] == REACHED and numerator is not None:
        denominator = declared(TOTAL, target["unit_id"], last)
        value = 100 * numerator / denominator if denominator else None
    if status == "not_computable" and target["indicator"].startswith("events.quantity"):
        # several services of one unit of count are one number
        things = Recount(facts, piece.first, piece.last, tree).of(target["indicator"])[0]
        table = expected.table(things, None)
        exists = expected.tree.stands(target["unit_id"], tree)
        value = sum(table.get((target["unit_id"], None), {}).values()) if exists else None
    return value, numerator, denominator


def expected_of(facts: Any, target: Row) -> tuple[Any, Any, Any]:
    """Return numerator, denominator and value of a target's progress."""
    (whole,) = periods.parse(target["period"])
    tree = min(whole.last, TODAY)
    value, numerator, denominator = recounted(facts, target, target["period"], tree)
    if target["measure"] == "cumulative":
        total = None if value is None else value + target["baseline"]
        return total, None, total
    if target["measure"] == "growth":
        base, *_ = recounted(facts, target, target["baseline_period"], tree)
        if value is None or base is None:
            return None, base, None
        return value - base, base, 100 * (value - base) / base if base else None
    if numerator is None and denominator is None:
        return value, None, value
    return numerator, denominator, value


def judged(target: Row, value: Any) -> tuple[Any, str]:
    """Return attainment and status, over or running."""
    if value is None:
        return None, "not_computable"
    wanted, comparator = target["value"], target["comparator"]
    holds = {
        "gte": value >= wanted,
        "gt": value > wanted,
        "lte": value <= wanted,
        "lt": value < wanted,
        "eq": value == wanted,
    }[comparator]
    ceiling = comparator in {"lte", "lt"}
    attainment = float(holds) if ceiling else value / wanted if wanted else None
    (whole,) = periods.parse(target["period"])
    if whole.last < TODAY:
        return attainment, "met" if holds else "missed"
    if ceiling or (comparator == "eq" and attainment is not None and attainment >= 1):
        return attainment, "on_track" if holds else "behind"
    passed = ((TODAY - whole.first).days + 1) / ((whole.last - whole.first).days + 1)
    if holds:
        return attainment, "ahead"
    if attainment is None or attainment < passed - 0.05:
        return attainment, "behind"
    return attainment, "ahead" if attainment > passed + 0.05 else "on_track"


@pytest.fixture
async def agree(ground: Ground, as_: As, monkeypatch: pytest.MonkeyPatch) -> Agree:
    """Set targets, and hold the progress of all of them against the recount."""
    monkeypatch.setattr(clock, "today", lambda: TODAY)
    nation = await as_(Role.national_admin, at=NATION)
    province = await as_(Role.province_admin, at=HA_NOI)
    reader = await as_(Role.ioc_reader, Role.commune_admin, at=NATION)
    for indicator, units in DECLARED.items():
        for unit_id, known in units.items():
            admin = nation if unit_id == NATION else province
            said = {"indicator": indicator, "unit_id": str(unit_id), "attribution": "survey"}
            for day, value in known:
                await make(admin, "statistics", **said, as_of=day.isoformat(), value=value)

    async def agree(targets: list[Row]) -> None:
        made = {}
        for target in targets:
            body = target | {"unit_id": str(target["unit_id"])}
            admin = nation if target["unit_id"] == NATION else province
            made[(await make(admin, "targets", **body))["id"]] = target
        answer = await reader.get("/v1/targets/progress")
        told = {item["target_id"]: item for item in answer.json()["items"]}
        for target_id, target in made.items():
            check(told[target_id], target, expected_of(ground.facts, target))

    return agree


def check(item: Row, target: Row, expected: tuple[Any, Any, Any]) -> None:
    found = [item[name] for name in ("numerator", "denominator", "value")]
    assert found == pytest.approx(list(expected)), target
    attainment, status = judged(target, expected[2])
    assert item["attainment"] == pytest.approx(attainment), target
    assert item["status"] == status, (target, item)


@settings(
    max_examples=12,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(targets(), min_size=20, max_size=30))
async def test_progress_is_a_recount(agree: Agree, several: list[Row]) -> None:
    await agree(several)
