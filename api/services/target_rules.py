"""What a target may ask of its indicator: refused when it is set, so that progress can be told."""

from collections.abc import Iterator
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.auth.scope import PlacedRow, visible
from api.errors import FieldError, ValidationFailed, not_found_at
from api.models.campaigns import Campaign
from api.models.indicators import Indicator, IndicatorKind
from api.models.targets import Target, TargetCreate, TargetMeasure
from api.models.teams import Team
from api.services import periods
from api.services.formulas import WITHIN, formula_of
from api.services.measures import Formula
from api.services.observation_counts import find_catalogue, services_of

PARAMETERS: Final = {
    "service_types": "service_type",
    "team_kind": "team_kind",
    "activity_kind": "activity_kind",
    "channel": "channel",
    "campaign_id": "campaign_id",
    "minimum_per_unit": "minimum_per_unit",
}
"""Field of a target -> the parameter of observations that it becomes."""
_SINGLE: Final = frozenset({"service_types", "minimum_per_unit"})
"""Those that are already as the parameter is; the others become lists of one."""


def parameters_of(target: Any) -> dict[str, Any]:
    """Return a target's filters as parameters of observations."""
    return {
        parameter: value if field in _SINGLE else [value]
        for field, parameter in PARAMETERS.items()
        if (value := getattr(target, field))
    }


def is_flow(formula: Formula) -> bool:
    """Tell whether a figure is of what happened within a period, so that periods add up."""
    measure = formula.numerator
    return bool(measure.day or WITHIN in measure.where or measure.declared)


def tells_teams(formula: Formula) -> bool:
    """Tell whether a figure can be told of a single team."""
    return "team_kind" in formula.filters


async def check_target(
    session: AsyncSession, caller: Caller, given: TargetCreate | Target, where: PlacedRow
) -> None:
    """Refuse (422) what cannot be computed, each at its field.

    `unknown_indicator`, `not_declared`; `not_applicable` for a filter, a team or a measure that
    the indicator does not have; `units_of_count` for services that are counted in different units.
    """
    definitions = await _definitions(session, given.indicator, given.denominator)
    indicator = definitions.get(given.indicator)
    if indicator is None:
        raise ValidationFailed(FieldError("/indicator", "unknown_indicator"))
    if given.denominator is not None:
        found = definitions.get(given.denominator)
        if found is None or found.kind != IndicatorKind.declared:
            raise ValidationFailed(FieldError("/denominator", "not_declared"))
    formula = formula_of(given.indicator)
    if faults := [*_lacking(given, formula), *_unfit(given, formula)]:
        raise ValidationFailed(*faults)
    services = services_of(await find_catalogue(session), given.service_types, "/service_types")
    if indicator.unit_of_count == "service" and len(set(services.values())) > 1:
        raise ValidationFailed(FieldError("/service_types", "units_of_count"))
    if given.campaign_id is not None:
        campaigns = visible(Campaign, caller, Permission.campaigns_read)
        if not await session.scalar(campaigns.where(col(Campaign.id) == given.campaign_id)):
            raise not_found_at("/campaign_id")
    if given.team_id is not None:
        await check_team(session, caller, given.team_id, where, "/team_id")


async def _definitions(session: AsyncSession, *codes: str | None) -> dict[str, Indicator]:
    statement = select(Indicator).where(
        col(Indicator.code).in_([code for code in codes if code]),
        col(Indicator.deleted_at).is_(None),
    )
    return {row.code: row for row in await session.scalars(statement)}


def _lacking(given: TargetCreate | Target, formula: Formula) -> Iterator[FieldError]:
    for field, parameter in PARAMETERS.items():
        if getattr(given, field) and parameter not in formula.parameters:
            yield FieldError(f"/{field}", "not_applicable", {"indicator": given.indicator})
        if parameter == formula.needs and not getattr(given, field):
            yield FieldError(f"/{field}", "missing")
    if given.team_id is not None and not tells_teams(formula):
        yield FieldError("/team_id", "not_applicable", {"indicator": given.indicator})


def _unfit(given: TargetCreate | Target, formula: Formula) -> Iterator[FieldError]:
    """Give what does not go with the measure."""
    growth = given.measure == TargetMeasure.growth
    cumulative = given.measure == TargetMeasure.cumulative
    if given.denominator is not None and (formula.share or given.measure != TargetMeasure.period):
        yield FieldError("/denominator", "not_applicable", {"indicator": given.indicator})
    if cumulative and (formula.share or not is_flow(formula)):
        yield FieldError("/measure", "not_applicable", {"indicator": given.indicator})
    if given.baseline is not None and not (growth or cumulative):
        yield FieldError("/baseline", "not_together", {"other": "measure: period"})
    if given.baseline_period is not None and not growth:
        yield FieldError("/baseline_period", "not_together", {"other": f"measure: {given.measure}"})
    if growth and (given.baseline is None) == (given.baseline_period is None):
        expected = "baseline, baseline_period"
        yield FieldError("/baseline_period", "exactly_one", {"expected": expected})
    if given.baseline_period is not None:
        (before,) = periods.parse(given.baseline_period, pointer="/baseline_period")
        (whole,) = periods.parse(given.period, pointer="/period")
        if before.first >= whole.first:
            yield FieldError("/baseline_period", "end_before_start")


_INSIDE = text("""
    select exists (
        select from placement p join admin_unit u on u.key = p.ancestor_key and u.level = p.level
        where p.unit_key = :team and p.ancestor_key = :unit)
""")


async def check_team(
    session: AsyncSession, caller: Caller, team_id: UUID, where: PlacedRow, pointer: str
) -> None:
    """Refuse (422 `not_found`) a team that the caller does not see, or of another unit."""
    team = await session.scalar(
        visible(Team, caller, Permission.teams_read).where(col(Team.id) == team_id)
    )
    given = {"team": team and team.unit_key, "unit": where.unit_key}
    if team is None or not await session.scalar(_INSIDE, given):
        raise not_found_at(pointer)
