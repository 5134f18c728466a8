"""The cells of an answer: each indicator in each unit, period and part."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from api.models.observations import By, Observation, ObservationStatus
from api.services.formulas import formula_of
from api.services.measures import Formula
from api.services.observation_units import Asked, Unit
from api.services.periods import Period

type Counts = dict[tuple[int | None, int], dict[str | None, int]]
"""(target's key or `None` for unallocated, number of the period) -> part of `by` -> number."""
type Columns = Mapping[int, Mapping[str | None, Mapping[int | None, int]]]
"""Number of the period -> part of `by` -> target's key, or `None` -> number: as few objects as
there can be, for the tables of a country."""
type Figures = Mapping[tuple[int | None, int], Mapping[str | None, float]]
"""The same, of what is declared too."""


class Figure(NamedTuple):
    """What a cell says; `numerator` and `denominator` are a share's."""

    value: float | None
    numerator: float | None
    denominator: float | None
    status: ObservationStatus


def items_of(
    asked: Asked, indicator: Any, targets: Sequence[Unit], counted: Mapping[Any, Figures]
) -> Iterator[Observation]:
    """Give an indicator's cells: each target's periods in order, then what is unallocated.

    A target that did not stand and a period that has not begun have one cell without a value;
    otherwise there is one cell, or one for each part of `by` with facts. A count of nothing is 0,
    but what nobody has declared is unknown.
    """
    formula = formula_of(indicator.code)
    by = asked.by(formula)
    tables = [counted.get((measure, by), {}) for measure in formula.measures]
    nothing = [None if measure.declared else 0 for measure in formula.measures]
    cells = Cells(asked, indicator, formula, by)
    for unit in (*targets, None):
        for n, piece in enumerate(asked.pieces, 1):
            if unit and not cells.exist(unit, piece):
                yield cells.cell(unit, piece, None, [])
                continue
            parts = [table.get((unit.key if unit else None, n), {}) for table in tables]
            named = sorted(set().union(*parts), key=str) if by or not unit else [None]
            for part in named:
                numbers = [
                    found.get(part, none) for found, none in zip(parts, nothing, strict=True)
                ]
                yield cells.cell(unit, piece, part, numbers)


@dataclass(frozen=True)
class Cells:
    """The cells of one indicator, in units (`None`: unallocated) and periods."""

    asked: Asked
    indicator: Any
    formula: Formula
    by: By | None

    def exist(self, unit: Unit, piece: Period) -> bool:
        """Tell whether there is something to count: the period has begun, the unit stood in it."""
        return piece.first <= self.asked.today and unit.stands(
            *self.asked.window(piece, self.formula)
        )

    @cached_property
    def unit_of_count(self) -> str | None:
        """What is counted; `None` for services with several units of count at once."""
        if self.indicator.unit_of_count != "service":
            return str(self.indicator.unit_of_count)
        units = set(self.asked.services.values())
        return units.pop() if len(units) == 1 else None

    def _counted(self, part: str | None) -> str | None:
        if part and self.by is By.service_type and self.indicator.unit_of_count == "service":
            return self.asked.services.get(part)
        return self.unit_of_count

    def figure(self, numbers: Sequence[float | None], part: str | None = None) -> Figure:
        """Return what numbers come to: those of the formula's measures, or none."""
        return self._figure(numbers, self._counted(part))

    def _figure(self, numbers: Sequence[float | None], unit_of_count: str | None) -> Figure:
        numerator, denominator = (*numbers, None, None)[:2]
        if not self.formula.share:
            value = numerator if unit_of_count else None
            numerator = denominator = None
        elif numerator is not None and denominator:
            value = 100 * numerator / denominator
        else:
            value = None
        status = ObservationStatus.not_computable if value is None else ObservationStatus.ok
        return Figure(value, numerator, denominator, status)

    def cell(
        self, unit: Unit | None, piece: Period, part: str | None, numbers: Sequence[float | None]
    ) -> Observation:
        """Return a cell with its numbers."""
        unit_of_count = self._counted(part)
        figure = self._figure(numbers, unit_of_count)
        code, name = unit.called(self.asked.tree(piece)) if unit else (None, None)
        return Observation(
            indicator=self.indicator.code,
            period=piece.label,
            unit_id=unit.id if unit else None,
            unit_code=code,
            unit_name=name,
            service_type=part if self.by is By.service_type else None,
            channel=part if self.by is By.channel else None,
            outcome=part if self.by is By.outcome else None,
            kind=part if self.by is By.kind else None,
            value=figure.value,
            numerator=figure.numerator,
            denominator=figure.denominator,
            unit_of_count=unit_of_count,
            status=figure.status if unit else ObservationStatus.unallocated,
        )
