"""Judging a target: its figure held against its value, and against the time that has passed."""

from datetime import date
from typing import Any, Final

from api.models.observations import ObservationStatus
from api.models.target_progress import ProgressStatus, TargetProgress
from api.models.targets import Comparator, TargetMeasure
from api.models.types import number
from api.services.observation_cells import Figure

TOLERANCE: Final = 0.05
"""How far attainment may be from what is expected and still be on track."""


def judge(
    target: Any, now: Figure, other: Figure | None, as_of: date, today: date
) -> TargetProgress:
    """Hold a figure against its target.

    `other` is the denominator's figure, or that of the period that growth is against.
    """
    numerator, denominator, value = _value(target, now, other)
    expected = _expected(target, as_of)
    hidden = ObservationStatus.suppressed in {now.status, other.status if other else None}
    if value is None or hidden:
        status = ProgressStatus.suppressed if hidden else ProgressStatus.not_computable
        if hidden:
            numerator = denominator = None
        return TargetProgress(
            target_id=target.id,
            as_of=as_of,
            numerator=numerator,
            denominator=denominator,
            value=None,
            attainment=None,
            expected=expected,
            status=status,
            missing=None,
        )
    over = as_of > target.last_on or as_of == target.last_on < today
    holds = _holds(target.comparator, value, target.value)
    attainment = value / target.value if target.value else None
    if target.comparator in {Comparator.lte, Comparator.lt}:
        attainment = float(holds)
    return TargetProgress(
        target_id=target.id,
        as_of=as_of,
        numerator=numerator,
        denominator=denominator,
        value=number(value),
        attainment=attainment,
        expected=expected,
        status=_status(target, over, holds=holds, attainment=attainment, expected=expected),
        missing=number(_missing(target.comparator, value, target.value)),
    )


def _value(
    target: Any, now: Figure, other: Figure | None
) -> tuple[float | None, float | None, float | None]:
    """Return numerator, denominator and value; without a denominator (0 is none) no value."""
    if target.measure == TargetMeasure.growth:
        base = other.value if other else target.baseline
        if now.value is None or base is None:
            return None, base, None
        grown = now.value - base
        return _shown(grown), _shown(base), 100 * grown / abs(base) if base else None
    if target.denominator:
        whole = other.value if other else None
        share = 100 * now.value / whole if now.value is not None and whole else None
        return now.value, whole, share
    if target.measure == TargetMeasure.cumulative and now.value is not None:
        total = _shown((target.baseline or 0) + now.value)
        return total, None, total
    if now.denominator is not None or now.numerator is not None:
        return now.numerator, now.denominator, now.value
    return now.value, None, now.value


def _shown(value: float | None) -> float | None:
    return None if value is None else number(round(value, 10))


def _expected(target: Any, as_of: date) -> float:
    days = (target.last_on - target.first_on).days + 1
    passed = (min(as_of, target.last_on) - target.first_on).days + 1
    return float(max(0, passed) / days)


def _holds(comparator: str, value: float, wanted: float) -> bool:
    match comparator:
        case Comparator.gte:
            return value >= wanted
        case Comparator.gt:
            return value > wanted
        case Comparator.lte:
            return value <= wanted
        case Comparator.lt:
            return value < wanted
        case _:
            return value == wanted


def _missing(comparator: str, value: float, wanted: float) -> float:
    """Return by how much the value is short, or over where it must not be."""
    match comparator:
        case Comparator.gte | Comparator.gt:
            return round(max(0, wanted - value), 4)
        case Comparator.lte | Comparator.lt:
            return round(max(0, value - wanted), 4)
        case _:
            return round(abs(wanted - value), 4)


def _status(
    target: Any, over: bool, *, holds: bool, attainment: float | None, expected: float
) -> ProgressStatus:
    """Return met or missed once the period is over; else how attainment is to what is expected.

    What must not be exceeded is on track as long as it is not.
    """
    if over:
        return ProgressStatus.met if holds else ProgressStatus.missed
    if target.comparator in {Comparator.lte, Comparator.lt}:
        return ProgressStatus.on_track if holds else ProgressStatus.behind
    if attainment is None:
        return ProgressStatus.ahead if holds else ProgressStatus.behind
    if target.comparator == Comparator.eq and attainment >= 1:
        return ProgressStatus.on_track if holds else ProgressStatus.behind
    if holds or attainment > expected + TOLERANCE:
        return ProgressStatus.ahead
    return ProgressStatus.behind if attainment < expected - TOLERANCE else ProgressStatus.on_track
