"""People measures for readers without personal rights: what they may ask, and what they see.

What is hidden is the same in every answer, see `observation_tables`. A stock is hidden as in the
month at whose end it is taken; all else wherever it is hidden in one of the months, so that a
quarter does not give its months away.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Final

from api.errors import FieldError, ValidationFailed
from api.models.observations import Boundary, Every, Observation, ObservationStatus
from api.models.types import Level
from api.services import periods
from api.services.disclosure import LEAST, Pattern
from api.services.measures import Formula
from api.services.observation_cells import Figure
from api.services.observation_land import Land
from api.services.observation_units import Asked, Unit
from api.services.periods import Period

OFFICIAL: Final = {Level.nation, Level.province, Level.district, Level.commune}
_CALENDAR: Final = (Every.month, Every.quarter, Every.year)


def check_allowed(asked: Asked, filters: Collection[str]) -> None:
    """Refuse (422) what cannot be protected: each such question is a table of its own.

    `people_unit` below communes, `people_period` for anything but calendar months, quarters and
    years that have ended, `people_filter` for filters and for a boundary of a day: only the parts
    of `by` and the two named boundaries are told apart.
    """
    faults = [FieldError(f"/query/{name}", "people_filter") for name in filters]
    if asked.query.boundary not in set(Boundary):
        faults.append(FieldError("/query/boundary", "people_filter"))
    if asked.level and asked.level not in OFFICIAL:
        faults.append(FieldError("/query/level", "people_unit"))
    if any(root.level not in OFFICIAL for root in asked.roots):
        faults.append(FieldError("/query/unit_id", "people_unit"))
    if not all(is_calendar(p) and p.last < asked.today for p in asked.pieces):
        faults.append(FieldError("/query/period", "people_period"))
    if faults:
        raise ValidationFailed(*faults)


def is_calendar(piece: Period) -> bool:
    """Tell whether a period is a whole calendar month, quarter or year."""
    days = (piece.first, piece.last)
    wholes = (periods.piece_of(piece.first, every) for every in _CALENDAR)
    return any(days == (whole.first, whole.last) for whole in wholes)


@dataclass(frozen=True)
class Hidden:
    """What is hidden of one indicator, with its split if there is one."""

    land: Land
    roots: Sequence[Unit]
    formula: Formula
    patterns: Mapping[str, Pattern]
    """By month; what lies before all of them is hidden."""

    def hides(self, boundary: str, unit: Unit | None, piece: Period) -> bool:
        """Tell whether a unit's cell is hidden in any of the months that it rests on."""
        return any(
            month.label not in self.patterns
            or self._hides(self.patterns[month.label], boundary, unit, month)
            for month in months_of(piece, self.formula)
        )

    def _hides(self, pattern: Pattern, boundary: str, unit: Unit | None, month: Period) -> bool:
        land, cells = self.land, pattern.cells.get(boundary, frozenset[int]())
        if unit is None:
            if any(root.level is Level.nation for root in self.roots):
                return any(min(cells, default=0) < 0 for cells in pattern.cells.values())
            return not cells.isdisjoint(-root.key for root in self.roots)
        if unit.level is Level.nation:
            return boundary in pattern.nations
        grows = self.formula.grows is not None
        if unit.level is Level.province:
            ended = grows and not land.stands(unit.key)
            return ended or unit.key in pattern.provinces.get(boundary, ())
        communes: Sequence[int] = [unit.key]
        if unit.level is Level.district:
            communes = land.communes_in(unit.key, month.last)
        recorded = boundary == Boundary.as_recorded.value
        if recorded and grows and any(self._differs(key, month) for key in communes):
            return True
        return not cells.isdisjoint(communes)

    def _differs(self, commune: int, month: Period) -> bool:
        """Tell whether growth, which is followed in today's tree, is another in the month's."""
        province = self.land.province_of(commune, month.last)
        return province is not None and self.land.has_changed(province, month)


_NOTHING: Final[Mapping[str, Any]] = dict.fromkeys(
    ("value", "numerator", "denominator", "service_type", "channel", "outcome", "kind")
)
"""What a hidden cell does not say."""


def months_of(piece: Period, formula: Formula) -> list[Period]:
    """Return the months whose patterns a period follows."""
    months = periods.cut(piece, Every.month)
    stock = formula.among is not None or formula.grows is not None
    return months[-1:] if stock else months


def suppressed(
    items: Sequence[Observation],
    hidden: Mapping[str, Hidden],
    asked: Asked,
    targets: Sequence[Unit],
) -> list[Observation]:
    """Return the items with what is hidden left out; a split is hidden as a whole, in one item."""
    units = {unit.id: unit for unit in targets}
    pieces = {piece.label: piece for piece in asked.pieces}
    boundary = asked.query.boundary
    answer: list[Observation] = []
    for (code, label, unit_id), group in groupby(
        items, lambda item: (item.indicator, item.period, item.unit_id)
    ):
        cells = list(group)
        found = hidden.get(code)
        unit = units[unit_id] if unit_id else None
        if found is None or not is_hidden(found, cells, boundary, unit, pieces[label]):
            answer += cells
            continue
        answer.append(replace(cells[0], **_NOTHING, status=ObservationStatus.suppressed))
    return answer


def is_hidden(
    found: Hidden,
    cells: Sequence[Observation | Figure],
    boundary: str,
    unit: Unit | None,
    piece: Period,
) -> bool:
    """Tell whether what a unit's cells say in a period may not be shown."""
    if all(cell.value is None and cell.numerator is None for cell in cells):
        return False
    for cell in cells:
        number = cell.value if cell.numerator is None else cell.numerator
        others = (cell.denominator or 0) - (number or 0)
        if 0 < (number or 0) < LEAST or (cell.numerator is not None and 0 < others < LEAST):
            return True
    empty = not any(cell.value or cell.numerator or cell.denominator for cell in cells)
    if empty and found.formula.among is None:
        return False
    return found.hides(boundary, unit, piece)
